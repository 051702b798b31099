//! Processes: fork, wait, kill.

use std::ffi::{CString, OsStr, OsString};
use std::fmt;
use std::io;
use std::iter;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{SigSet, SigmaskHow, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, execve, fork};

use super::pipe::{self, Read};
use super::signal::Signal;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Code(i32),
    Signal(i32),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(number) => match Signal::try_from(number) {
                Ok(signal) => write!(f, "signal {number} ({})", signal.as_str().trim_start_matches("SIG")),
                Err(_) => write!(f, "signal {number}"),
            },
        }
    }
}

/// The exit code of a child whose code panicked, as of any Rust program.
const PANICKED: i32 = 101;

/// Forks a child that runs `life` and ends with the exit code it returns; never returns in the child.
///
/// All signals are blocked meanwhile, and `life` starts with them blocked, so that none reaches the child before
/// it has made itself ready for signals.
pub(crate) fn fork_child(life: impl FnOnce() -> i32) -> io::Result<i32> {
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    // SAFETY: the calling process has a single thread (the master never starts another, a worker none before its site, and
    // one that forks for requests makes sure of it), so that no lock is held by a thread which the child lacks; the child
    // leaves by `_exit` and never returns into its parent's code.
    let forked = unsafe { fork() };
    match forked {
        Ok(ForkResult::Child) => {
            let code = catch_unwind(AssertUnwindSafe(life)).unwrap_or(PANICKED);
            exit_now(code)
        }
        Ok(ForkResult::Parent { child }) => {
            before.thread_set_mask()?;
            Ok(child.as_raw())
        }
        Err(error) => {
            before.thread_set_mask()?;
            Err(error.into())
        }
    }
}

/// Closes descriptors that a forked child has inherited and must not hold; for children that never drop, nor use, what
/// they belong to. Wherever the numbers stand side by side, one call closes them all (`close_range(2)`).
pub(crate) fn close_inherited(mut descriptors: Vec<RawFd>) {
    descriptors.sort_unstable();
    descriptors.dedup();
    for run in descriptors.chunk_by(|one, next| *next == one + 1) {
        let (first, last) = (run[0], run[run.len() - 1]); // runs are never empty
        // SAFETY: the owners of these descriptors are never used again in this process, as the caller promises.
        let closed = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        if closed != 0 {
            for &fd in run {
                // SAFETY: as above. That a descriptor cannot be closed has no remedy.
                unsafe { libc::close(fd) };
            }
        }
    }
}

/// Ends the process without running what its parent registered for its own end.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Forks a child that becomes another program, with one variable more in its environment and these descriptors, which it
/// inherits under the same numbers. It begins with the default actions of signals, none of them blocked. An error where
/// there is no such program, or it cannot be run.
pub(crate) fn fork_program(
    program: &Path,
    args: &[OsString],
    (variable, value): (&str, &OsStr),
    inherited: &[RawFd],
) -> io::Result<i32> {
    let (said, say) = pipe::pipe()?;
    let pid = fork_child(|| {
        let kept = inherited.iter().try_for_each(|&fd| keep_over_exec(fd));
        let cause = match kept.and_then(|()| super::signal::ignore_in_child()) {
            Ok(()) => execute(program, args, (variable, value)),
            Err(cause) => cause,
        };
        // Where the parent is gone, nobody is to be told.
        let _gone = pipe::write(&say, cause.to_string().as_bytes());
        CANNOT_RUN
    })?;
    drop(say);
    match why_not_run(&said) {
        Some(cause) => Err(io::Error::other(cause)),
        None => Ok(pid),
    }
}

/// Becomes that program, or says why not. What is no program is not taken for a script either, as execvp(3) would.
fn execute(program: &Path, args: &[OsString], (variable, value): (&str, &OsStr)) -> io::Error {
    let words = iter::once(program.as_os_str()).chain(args.iter().map(OsString::as_os_str));
    let words: Result<Vec<_>, _> = words.map(|word| CString::new(word.as_bytes())).collect();
    let mut variables: Vec<_> = std::env::vars_os().filter(|(name, _)| name != variable).collect();
    variables.push((variable.into(), value.to_owned()));
    let line = |(name, value): (OsString, OsString)| CString::new([name.as_bytes(), b"=", value.as_bytes()].concat());
    let variables: Result<Vec<_>, _> = variables.into_iter().map(line).collect();
    match (words, variables) {
        (Ok(words), Ok(variables)) => match execve(&words[0], &words, &variables) {
            Ok(never) => match never {},
            Err(error) => error.into(),
        },
        (Err(nul), _) | (_, Err(nul)) => io::Error::from(nul),
    }
}

/// What a child had to say that could not become a program; one that could has closed the pipe.
fn why_not_run(said: &OwnedFd) -> Option<String> {
    // A signal may end a wait early. A disk that has not found the program after all of them has the child fail later.
    const WAITS: u32 = 20;
    const WAIT: Duration = Duration::from_millis(100);
    let mut buffer = [0; 512];
    for _ in 0..WAITS {
        match pipe::read(said, &mut buffer) {
            Read::Bytes(n) => return Some(String::from_utf8_lossy(&buffer[..n]).into_owned()),
            Read::End => return None,
            Read::Nothing => pipe::wait(&[said.as_fd()], &[], Some(WAIT)).ok()?,
        }
    }
    None
}

/// The exit code of a child that could not become a program, as in sh(1).
const CANNOT_RUN: i32 = 126;

fn keep_over_exec(fd: RawFd) -> io::Result<()> {
    // SAFETY: this is the child's only use of the number, which its parent's owner keeps open.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
    Ok(())
}

/// Takes a descriptor that this program was started with; a program that it executes has it no more.
pub(crate) fn inherited(fd: RawFd) -> io::Result<OwnedFd> {
    if fd <= 2 {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    // SAFETY: fails, and does nothing, where there is no such descriptor.
    fcntl(unsafe { BorrowedFd::borrow_raw(fd) }, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    // SAFETY: it is open, and nobody here owns it: whoever started this program gave it for this use, once.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Takes a variable out of the environment, so that no program that this one executes has it.
pub(crate) fn take_variable(name: &str) -> Option<OsString> {
    let value = std::env::var_os(name)?;
    // SAFETY: a program that is about to fork workers has a single thread, which nothing else reads the environment beside.
    unsafe { std::env::remove_var(name) };
    Some(value)
}

/// The process that started this one.
pub(crate) fn parent() -> i32 {
    nix::unistd::getppid().as_raw()
}

/// What a child did that only the kernel tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Ended(Ended),
    /// A signal has stopped it.
    Stopped,
    /// It goes on after it was stopped.
    Continued,
}

/// The next child that has changed, if one has; never waits.
pub(crate) fn next_change() -> Option<(i32, Change)> {
    let all = WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED | WaitPidFlag::WCONTINUED;
    loop {
        match waitpid(None, Some(all)) {
            Ok(WaitStatus::Exited(pid, code)) => return Some((pid.as_raw(), Change::Ended(Ended::Code(code)))),
            Ok(WaitStatus::Signaled(pid, signal, _)) => {
                return Some((pid.as_raw(), Change::Ended(Ended::Signal(signal as i32))));
            }
            Ok(WaitStatus::Stopped(pid, _)) => return Some((pid.as_raw(), Change::Stopped)),
            Ok(WaitStatus::Continued(pid)) => return Some((pid.as_raw(), Change::Continued)),
            Ok(WaitStatus::StillAlive) | Err(nix::Error::ECHILD) => return None,
            // A child that is traced is its debugger's business; EINTR: ask again.
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(_) => return None,
        }
    }
}

/// The next child that has ended, if one has; never waits.
pub(crate) fn reap() -> Option<(i32, Ended)> {
    loop {
        match next_change()? {
            (pid, Change::Ended(ended)) => return Some((pid, ended)),
            (_, Change::Stopped | Change::Continued) => {}
        }
    }
}

/// How this child has ended, if it has and nobody has reaped it; never waits.
pub(crate) fn reap_child(pid: i32) -> Option<Ended> {
    match waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG)) {
        Ok(WaitStatus::Exited(_, code)) => Some(Ended::Code(code)),
        Ok(WaitStatus::Signaled(_, signal, _)) => Some(Ended::Signal(signal as i32)),
        Ok(_) | Err(_) => None,
    }
}

/// Waits until this child has ended, and reaps it.
pub(crate) fn wait_for(pid: i32) -> io::Result<Ended> {
    loop {
        match waitpid(Pid::from_raw(pid), None) {
            Ok(WaitStatus::Exited(_, code)) => return Ok(Ended::Code(code)),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(Ended::Signal(signal as i32)),
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Sends a signal; that the process is gone already is no error.
pub(crate) fn signal(pid: i32, signal: Signal) -> io::Result<()> {
    match kill(Pid::from_raw(pid), signal) {
        Ok(()) | Err(nix::Error::ESRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Has this process killed when its parent, which must be `parent`, ends; or nevermore (`PR_SET_PDEATHSIG`, prctl(2)).
pub(crate) fn die_with_parent(parent: Option<i32>) -> io::Result<()> {
    nix::sys::prctl::set_pdeathsig(parent.map(|_| Signal::SIGKILL))?;
    match parent {
        Some(wanted) if self::parent() != wanted => Err(io::Error::other("the parent is gone")),
        Some(_) | None => Ok(()),
    }
}

/// Closes every descriptor but the standard ones and `kept`; for a child that never drops, nor uses, what the others
/// belong to.
pub(crate) fn close_all_but(mut kept: Vec<RawFd>) -> io::Result<()> {
    kept.sort_unstable();
    let mut first = 3;
    for fd in kept.into_iter().map(RawFd::unsigned_abs).filter(|&fd| fd > 2) {
        if first < fd {
            close_range(first, fd - 1)?;
        }
        first = fd + 1;
    }
    close_range(first, u32::MAX)
}

fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: the owners of these descriptors are never used again in this process, as the caller promises.
    Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) })?;
    Ok(())
}

/// Whether a process can run: it was not stopped by a signal or a debugger, and is not dead (`/proc/PID/stat`, proc(5)).
/// One of which nothing can be learnt is believed to.
pub(crate) fn can_run(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The field after the name, which stands in parentheses and may hold anything.
    let state = stat.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next());
    !matches!(state, Some('T' | 't' | 'Z' | 'X'))
}

/// How many bytes of a process are in memory (`/proc/PID/statm`, proc(5)); none of one that is gone or dead.
pub(crate) fn resident_memory(pid: i32) -> Option<u64> {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    // SAFETY: asks for a number and changes nothing.
    let page_bytes = u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).ok()?;
    (pages > 0).then(|| pages.saturating_mul(page_bytes))
}

/// Has ps(1) and top(1) tell this process from the others: up to 15 bytes in place of the program's name.
pub(crate) fn set_name(name: &std::ffi::CStr) -> io::Result<()> {
    Ok(nix::sys::prctl::set_name(name)?)
}

/// How many threads this process has; 1 where that cannot be found out.
pub(crate) fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count)
}

/// Which permissions the files that this process and its children make will lack (umask(2)).
pub(crate) fn set_umask(permissions: u32) {
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(permissions));
}

/// This process.
pub(crate) fn pid() -> i32 {
    Pid::this().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_a_process_grows_with_what_it_touches() {
        let before = resident_memory(pid()).unwrap();
        let touched = std::hint::black_box(vec![7_u8; 64 << 20]);
        let after = resident_memory(pid()).unwrap();
        // Other tests run beside this one, and may give something back.
        assert!(after > before + (32 << 20), "{before} and then {after}");
        drop(touched);
        assert_eq!(resident_memory(i32::MAX), None);
    }
}
