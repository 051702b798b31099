//! Processes: fork, wait, kill.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

use super::signal::Signal;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Code(i32),
    Signal(i32),
}

/// The exit code of a child whose code panicked, as of any Rust program.
const PANICKED: i32 = 101;

/// Forks a child that runs `life` and ends with the exit code it returns; never returns in the child.
///
/// All signals are blocked meanwhile, and `life` starts with them blocked, so that none reaches the child before
/// it has made itself ready for signals.
pub(crate) fn fork_child(life: impl FnOnce() -> i32) -> io::Result<i32> {
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    // SAFETY: the calling process has a single thread (the master never starts another, a worker none before its site),
    // so that no lock is held by a thread which the child lacks; the child leaves by `_exit` and never returns into its
    // parent's code.
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

/// Ends the process without running what its parent registered for its own end.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(code) }
}

/// The next child that has ended, if one has; never waits.
pub(crate) fn reap() -> Option<(i32, Ended)> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => return Some((pid.as_raw(), Ended::Code(code))),
            Ok(WaitStatus::Signaled(pid, signal, _)) => return Some((pid.as_raw(), Ended::Signal(signal as i32))),
            Ok(WaitStatus::StillAlive) | Err(nix::Error::ECHILD) => return None,
            // A child that was stopped or traced has not ended; EINTR: ask again.
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(_) => return None,
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
        Some(parent) if nix::unistd::getppid().as_raw() != parent => Err(io::Error::other("the master is gone")),
        Some(_) | None => Ok(()),
    }
}

/// Closes every descriptor but the standard ones and `kept`: for a child that leaves all else to its parent.
pub(crate) fn close_all_but(kept: BorrowedFd<'_>) -> io::Result<()> {
    let kept = kept.as_raw_fd().unsigned_abs();
    if kept > 3 {
        close_range(3, kept - 1)?;
    }
    close_range(kept.max(2) + 1, u32::MAX)
}

fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: closing touches no memory. Whoever still owns one of the descriptors in this process never uses it.
    Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) })?;
    Ok(())
}

/// How many threads this process has; 1 where that cannot be found out.
pub(crate) fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count)
}

/// This process.
pub(crate) fn pid() -> i32 {
    Pid::this().as_raw()
}
