//! Signals that end a process because something is wrong with it: what the kernel knows of their cause is noted before it
//! is too late. Then everything goes on as if nobody had looked: exit status, core dump, Rust's own word on a stack that
//! overflowed. Knows not where the note goes.

use std::ffi::{c_int, c_void};
use std::fmt::{self, Write};
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, raise, sigaction};

use super::process;
use super::signal::{Sender, Signal};

const FATAL: [Signal; 7] =
    [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGILL, Signal::SIGFPE, Signal::SIGABRT, Signal::SIGTRAP, Signal::SIGSYS];

/// sigaction(2)
const FPE_INTDIV: c_int = 1;

/// A fault that is so near to the stack pointer is one of the stack: it has reached its end.
const NEAR: usize = 64 << 10;

/// Takes the note of a signal's cause.
type Note = dyn Fn(Signal, &str) + Send + Sync;

/// Where notes go, and of which process.
struct Watch {
    note: Box<Note>,
    pid: i32,
    /// What was done about each of the signals before.
    before: [SigAction; FATAL.len()],
}

static WATCH: OnceLock<Watch> = OnceLock::new();

/// From now on a fatal signal of this process has its cause noted: `SEGV at address 0x0 (address not mapped)` or `SEGV sent
/// by pid 1234 uid 0`. That of a process that it forks has not. To be called once.
///
/// `note` must be async-signal-safe (signal-safety(7)): it may neither allocate nor lock. The handler runs on the alternate
/// stack of a thread that has one, as all have that Rust starts, and so can tell of a stack that has overflowed.
pub(crate) fn note_causes(note: impl Fn(Signal, &str) + Send + Sync + 'static) -> io::Result<()> {
    let flags = SaFlags::SA_SIGINFO | SaFlags::SA_ONSTACK;
    let action = SigAction::new(SigHandler::SigAction(on_fatal), flags, SigSet::empty());
    let mut before = [default_action(); FATAL.len()];
    for (signal, before) in FATAL.into_iter().zip(&mut before) {
        // SAFETY: `on_fatal` does only what is async-signal-safe, as the caller promises of `note`.
        *before = unsafe { sigaction(signal, &action)? };
    }
    let watch = Watch { note: Box::new(note), pid: process::pid(), before };
    WATCH.set(watch).map_err(|_| io::Error::from(io::ErrorKind::AlreadyExists))
}

/// Runs in the signal handler.
extern "C" fn on_fatal(number: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    static NOTED: AtomicBool = AtomicBool::new(false);
    let Ok(signal) = Signal::try_from(number) else { return };
    // SAFETY: the kernel passes both, valid while the handler runs (sigaction(2)).
    let cause = unsafe { Cause::of(signal, &*info, context) };
    let watch = WATCH.get();
    if let Some(watch) = watch.filter(|watch| watch.pid == process::pid()) {
        // Of threads that crash together, and of the abort that Rust makes of an overflow, the first tells why.
        if !NOTED.swap(true, Ordering::SeqCst) {
            let mut text = Text::default();
            // What has no room is left out.
            let _ = write!(text, "{cause}");
            (watch.note)(signal, text.as_str());
        }
    }
    go_on(&cause, watch);
}

/// Has the signal do what it did before.
fn go_on(cause: &Cause, watch: Option<&Watch>) {
    let place = FATAL.iter().position(|signal| *signal == cause.signal);
    let before = watch.and_then(|watch| watch.before.get(place?).copied()).unwrap_or_else(default_action);
    let action = match (cause.what, cause.signal) {
        // Rust takes the first of them for a fault that will come again, and it would come to nothing.
        (What::Sent(_), Signal::SIGSEGV | Signal::SIGBUS) => default_action(),
        (What::Sent(_) | What::Fault { .. } | What::Kernel(_), _) => before,
    };
    // SAFETY: puts back what was there, or what always is.
    let _ = unsafe { sigaction(cause.signal, &action) };
    match cause.what {
        // The same instruction fails again, now for whoever was there before: Rust, which tells of an overflow.
        What::Fault { .. } => {}
        // Blocked while this runs, it comes when the handler returns.
        What::Sent(_) | What::Kernel(_) => _ = raise(cause.signal),
    }
}

fn default_action() -> SigAction {
    SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty())
}

/// What the kernel says of a signal.
struct Cause {
    signal: Signal,
    what: What,
}

#[derive(Clone, Copy)]
enum What {
    Sent(Sender),
    /// An access to memory.
    Fault {
        address: usize,
        code: c_int,
        is_overflow: bool,
    },
    /// Something else, by its code.
    Kernel(c_int),
}

impl Cause {
    /// # Safety
    ///
    /// All of it must come from the kernel.
    unsafe fn of(signal: Signal, info: &libc::siginfo_t, context: *const c_void) -> Self {
        let code = info.si_code;
        let what = match (Sender::of(info), signal) {
            (Some(sender), _) => What::Sent(sender),
            (None, Signal::SIGSEGV | Signal::SIGBUS) => {
                // SAFETY: such a signal of the kernel has an address (sigaction(2)), and the context is the kernel's.
                let (address, stack) = unsafe { (info.si_addr().addr(), stack_pointer(context)) };
                let is_overflow = stack.is_some_and(|stack| stack.abs_diff(address) < NEAR);
                What::Fault { address, code, is_overflow }
            }
            (None, _) => What::Kernel(code),
        };
        Self { signal, what }
    }
}

/// # Safety
///
/// The context must be one that the kernel passes to signal handlers.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
unsafe fn stack_pointer(context: *const c_void) -> Option<usize> {
    // SAFETY: as the caller promises; it may be read anywhere on the stack, aligned as the kernel likes.
    let context = unsafe { context.cast::<libc::ucontext_t>().as_ref()? };
    usize::try_from(context.uc_mcontext.gregs[libc::REG_RSP as usize]).ok()
}

#[cfg(all(target_arch = "aarch64", target_os = "linux"))]
unsafe fn stack_pointer(context: *const c_void) -> Option<usize> {
    // SAFETY: as the caller promises.
    let context = unsafe { context.cast::<libc::ucontext_t>().as_ref()? };
    usize::try_from(context.uc_mcontext.sp).ok()
}

#[cfg(not(all(any(target_arch = "x86_64", target_arch = "aarch64"), target_os = "linux")))]
unsafe fn stack_pointer(_context: *const c_void) -> Option<usize> {
    None
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.signal.as_str().trim_start_matches("SIG");
        match self.what {
            What::Sent(sender) if sender.pid == process::pid() => write!(f, "{name} raised by the process itself"),
            What::Sent(sender) => write!(f, "{name} {sender}"),
            What::Fault { is_overflow: true, address, .. } => {
                write!(f, "{name} at address {address:#x} (the end of the stack: an overflow)")
            }
            What::Fault { address, code, .. } => {
                write!(f, "{name} at address {address:#x} ({})", fault(self.signal, code))
            }
            What::Kernel(code) if (self.signal, code) == (Signal::SIGFPE, FPE_INTDIV) => {
                write!(f, "{name} (integer division by zero)")
            }
            What::Kernel(code) => write!(f, "{name} (code {code})"),
        }
    }
}

/// The codes of sigaction(2).
fn fault(signal: Signal, code: c_int) -> &'static str {
    match (signal, code) {
        (Signal::SIGSEGV, 1) => "address not mapped",
        (Signal::SIGSEGV, 2) => "access not permitted",
        (Signal::SIGBUS, 1) => "address not aligned",
        (Signal::SIGBUS, 2) => "beyond the end of a mapped file",
        (Signal::SIGBUS, 4 | 5) => "an error of the memory itself",
        (_, libc::SI_KERNEL) => "no address that there can be",
        (_, _) => "for a reason of its own",
    }
}

/// A text without an allocation.
struct Text {
    bytes: [u8; 160],
    len: usize,
}

impl Default for Text {
    fn default() -> Self {
        Self { bytes: [0; 160], len: 0 }
    }
}

impl Text {
    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.len]).unwrap_or("")
    }
}

impl Write for Text {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        let end = self.len + piece.len();
        self.bytes.get_mut(self.len..end).ok_or(fmt::Error)?.copy_from_slice(piece.as_bytes());
        self.len = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::atomic::AtomicU64;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::sys::process::{Ended, fork_child, reap_child};

    /// How a process ends that does this, and what it notes.
    fn crash(act: impl Fn()) -> (Ended, String) {
        let words = crate::sys::shared::words(64).unwrap();
        let pid = fork_child(|| {
            SigSet::all().thread_unblock().unwrap();
            note_causes(move |_, text| {
                for (word, byte) in words.iter().zip(text.bytes()) {
                    word.store(u64::from(byte), Ordering::SeqCst);
                }
            })
            .unwrap();
            act();
            0
        });
        let pid = pid.unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        let ended = loop {
            if let Some(ended) = reap_child(pid) {
                break ended;
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(1));
        };
        let byte = |word: &AtomicU64| u8::try_from(word.load(Ordering::SeqCst)).unwrap();
        let noted = words.iter().map(byte).take_while(|byte| *byte != 0).collect();
        (ended, String::from_utf8(noted).unwrap())
    }

    #[test]
    fn an_access_to_nothing_is_told_with_its_address_and_ends_the_process_as_ever() {
        let (ended, noted) = crash(|| {
            // SAFETY: none is wanted.
            unsafe { std::ptr::without_provenance_mut::<u8>(0x10).write_volatile(1) };
        });
        assert_eq!((ended, noted.as_str()), (Ended::Signal(11), "SEGV at address 0x10 (address not mapped)"));
    }

    #[test]
    fn what_a_process_raises_is_its_own() {
        let (ended, noted) = crash(|| std::process::abort());
        assert_eq!((ended, noted.as_str()), (Ended::Signal(6), "ABRT raised by the process itself"));
        for signal in [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGILL, Signal::SIGFPE, Signal::SIGTRAP, Signal::SIGSYS]
        {
            let (ended, noted) = crash(|| raise(signal).unwrap());
            assert_eq!(ended, Ended::Signal(signal as i32));
            assert!(noted.ends_with("raised by the process itself"), "{noted}");
        }
    }

    #[test]
    fn a_signal_from_outside_names_its_sender() {
        for word in ["SEGV", "ABRT"] {
            let (ended, noted) = crash(|| {
                let me = process::pid().to_string();
                let kill = Command::new("sh").args(["-c", &format!("exec kill -{word} {me}")]).status();
                drop(kill);
            });
            assert!(matches!(ended, Ended::Signal(_)), "{ended}");
            assert!(noted.starts_with(&format!("{word} sent by pid ")) && noted.contains(" uid "), "{noted}");
        }
    }

    #[test]
    fn a_process_that_it_forks_notes_nothing() {
        let (ended, noted) = crash(|| {
            let pid = fork_child(|| std::process::abort()).unwrap();
            while reap_child(pid).is_none() {}
        });
        assert_eq!((ended, noted.as_str()), (Ended::Code(0), ""));
    }
}
