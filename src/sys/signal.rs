//! Signals as bytes of a pipe: the handler writes the number, the loop reads it when it comes round.

use std::ffi::{c_int, c_void};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, sigaction};

use super::pipe::{self, Read};

pub(crate) use nix::sys::signal::Signal;

/// Where the handlers of this process write. A forked child has the same handlers and must have a pipe of its
/// own, or its signals would reach its parent too.
static WRITE_END: AtomicI32 = AtomicI32::new(-1);

/// Who sent the last TERM or QUIT to this process, its pid above its uid; 0 for nobody.
static SENDER: AtomicU64 = AtomicU64::new(0);

/// The signals this process gets.
#[derive(Debug)]
pub(crate) struct Signals {
    read_end: OwnedFd,
}

impl Signals {
    /// From now on `signals` no longer do what they do by default but are read here.
    pub fn install(signals: &[Signal]) -> io::Result<Self> {
        let installed = Self { read_end: new_pipe()? };
        signals.iter().try_for_each(|&signal| catch(signal))?;
        Ok(installed)
    }

    /// To be called first in a forked child, whose signals are blocked: separates it from its parent's pipe and
    /// unblocks all signals. TERM ends it at once, until [`Self::catch_term`].
    pub fn separate_in_child(&mut self) -> io::Result<()> {
        // The parent's write end stays the parent's; the child's copy is not needed.
        let inherited = WRITE_END.load(Ordering::SeqCst);
        self.read_end = new_pipe()?;
        // SAFETY: the number was a descriptor this process inherited, which nobody else here uses.
        drop(unsafe { OwnedFd::from_raw_fd(inherited) });
        // SAFETY: the default action runs no code of ours.
        unsafe { nix::sys::signal::signal(Signal::SIGTERM, SigHandler::SigDfl)? };
        SigSet::all().thread_unblock()?;
        Ok(())
    }

    /// From now on TERM is read here as well.
    #[allow(clippy::unused_self)] // it is these signals that TERM is then among
    pub fn catch_term(&self) -> io::Result<()> {
        catch(Signal::SIGTERM)
    }

    /// The signals that came since the last call.
    pub fn take(&self) -> Vec<Signal> {
        let mut numbers = [0; 64];
        let mut taken = Vec::new();
        while let Read::Bytes(n) = pipe::read(&self.read_end, &mut numbers) {
            taken.extend(numbers[..n].iter().filter_map(|&number| Signal::try_from(i32::from(number)).ok()));
        }
        taken
    }

    /// Who sent the last TERM or QUIT, if it was a process.
    pub fn sender() -> Option<Sender> {
        let sender = SENDER.load(Ordering::SeqCst);
        let pid = i32::try_from(sender >> 32).ok().filter(|pid| *pid > 0)?;
        #[allow(clippy::cast_possible_truncation)] // the low half is wanted
        Some(Sender { pid, uid: sender as u32 })
    }
}

/// The process that a signal came from; its pid is 0 where no process of that number can be seen from here, as from
/// within a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sender {
    pub pid: i32,
    pub uid: u32,
}

impl Sender {
    /// None where the kernel sent it.
    pub(super) fn of(info: &libc::siginfo_t) -> Option<Self> {
        let is_sent = matches!(info.si_code, libc::SI_USER | libc::SI_QUEUE | libc::SI_TKILL);
        // SAFETY: signals with these codes have both (sigaction(2)).
        is_sent.then(|| unsafe { Self { pid: info.si_pid(), uid: info.si_uid() } })
    }
}

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            0 => write!(f, "sent from outside of this container by uid {}", self.uid),
            pid => write!(f, "sent by pid {pid} uid {}", self.uid),
        }
    }
}

/// To be called first in a forked child that obeys no signals but those that cannot be ignored, and whose signals are
/// blocked: they are unblocked, come to nothing, and do not reach its parent's pipe. A program that the child executes
/// has the default actions again (execve(2)).
pub(crate) fn ignore_in_child() -> io::Result<()> {
    WRITE_END.store(-1, Ordering::SeqCst);
    SigSet::all().thread_unblock()?;
    Ok(())
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.read_end.as_fd()
    }
}

/// A write to a pipe or socket without a reader, or beyond a limit of the size of files, is an error of the write and
/// does not end the process.
pub(crate) fn ignore_write_failures() -> io::Result<()> {
    for signal in [Signal::SIGPIPE, Signal::SIGXFSZ] {
        // SAFETY: ignoring a signal runs no code of ours.
        unsafe { nix::sys::signal::signal(signal, nix::sys::signal::SigHandler::SigIgn)? };
    }
    Ok(())
}

fn catch(signal: Signal) -> io::Result<()> {
    let flags = SaFlags::SA_SIGINFO | SaFlags::SA_RESTART;
    // One after the other: the frames of several at once are more than a small stack may have room for.
    let action = SigAction::new(SigHandler::SigAction(note), flags, SigSet::all());
    // SAFETY: the handler uses atomics, writes a byte and restores errno: all of it is async-signal-safe
    // (signal-safety(7)).
    unsafe { sigaction(signal, &action)? };
    Ok(())
}

fn new_pipe() -> io::Result<OwnedFd> {
    let (read_end, write_end) = pipe::pipe()?;
    WRITE_END.store(write_end.into_raw_fd(), Ordering::SeqCst);
    Ok(read_end)
}

/// Runs in the signal handler.
extern "C" fn note(number: c_int, info: *mut libc::siginfo_t, _context: *mut c_void) {
    let before = Errno::last_raw();
    if matches!(number, libc::SIGTERM | libc::SIGQUIT) {
        // SAFETY: the kernel passes it, valid while the handler runs (sigaction(2)).
        let sender = unsafe { info.as_ref() }.and_then(Sender::of);
        let word = sender.map_or(0, |Sender { pid, uid }| u64::from(pid.unsigned_abs()) << 32 | u64::from(uid));
        SENDER.store(word, Ordering::SeqCst);
    }
    let byte = u8::try_from(number).unwrap_or(0);
    // SAFETY: write(2) is async-signal-safe, and `byte` lives through the call. A full pipe loses the byte: the
    // loop has thousands to read then.
    unsafe { libc::write(WRITE_END.load(Ordering::SeqCst), (&raw const byte).cast(), 1) };
    Errno::set_raw(before);
}
