//! The resolver: a process beside the worker that looks up the host names of addresses, so that no lookup is in the way
//! of a request, and none runs in a process that forks. All loops of the worker ask over one socket, and each has one for
//! its answers; what does not fit is not looked up. It keeps no answer and knows nothing of lines.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, ToSocketAddrs};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::sys;
use crate::sys::message::{self, Patience};
use crate::sys::process;

/// How many lookups go on at once, so that a slow one does not hold up the others.
const LOOKUPS: usize = 8;

/// The longest name that DNS can have.
const NAME_MAX: usize = 253;

/// An address as it travels: one of IPv4 is mapped into IPv6.
const ADDRESS_BYTES: usize = 16;

/// Who asks, for the address of whom.
const QUESTION_BYTES: usize = 2 + ADDRESS_BYTES;

/// A loop's way to the resolver. Nothing here waits.
#[derive(Debug)]
pub(crate) struct Resolver {
    /// None where there is none any more.
    ends: Option<Ends>,
}

#[derive(Debug)]
struct Ends {
    process: Arc<Process>,
    /// Which loop this is.
    number: u16,
    answers: OwnedFd,
}

/// What the loops of a worker share.
#[derive(Debug)]
struct Process {
    pid: i32,
    questions: OwnedFd,
    /// One of them has said that it is gone.
    is_missed: AtomicBool,
}

/// The resolver's ends: where it is asked, and where each loop gets its answers.
#[derive(Debug)]
pub(super) struct FarEnds {
    pub questions: OwnedFd,
    pub answers: Vec<OwnedFd>,
}

impl Resolver {
    /// Forks it for so many loops, from a process that has no threads. Where that fails, the log says so, and there are
    /// no names.
    pub fn start(loops: usize) -> Vec<Self> {
        let ends = fork(loops).inspect_err(|cause| {
            ::log::error!("cannot start the resolver: {cause}; the access log has addresses instead of host names");
        });
        let mut ends = ends.unwrap_or_default().into_iter();
        (0..loops).map(|_| Self { ends: ends.next() }).collect()
    }

    /// Asks for a name; false where that is not possible: too many wait already, or the resolver is gone.
    pub(super) fn ask(&self, address: IpAddr) -> bool {
        let Some(Ends { process, number, .. }) = &self.ends else { return false };
        let question = [&number.to_be_bytes()[..], &octets(address)].concat();
        message::send(&process.questions, &question, &[], Patience::DoNotWait).is_ok()
    }

    /// The next answer, if one has come: an address, and its name if it has one.
    pub(super) fn answer(&mut self) -> Option<(IpAddr, Option<String>)> {
        let mut message = [0; ADDRESS_BYTES + NAME_MAX];
        match message::receive(&self.ends.as_ref()?.answers, &mut message, Patience::DoNotWait) {
            Ok((length @ 1.., _)) => decode(&message[..length]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Ok((0, _)) | Err(_) => {
                if let Some(ends) = self.ends.take() {
                    ends.process.miss();
                }
                None
            }
        }
    }

    /// For processes that are not to hold them.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        self.ends.iter().flat_map(|ends| [ends.process.questions.as_raw_fd(), ends.answers.as_raw_fd()])
    }
}

impl Process {
    /// Says that it is gone, once.
    fn miss(&self) {
        if !self.is_missed.swap(true, Ordering::Relaxed) {
            let pid = self.pid;
            let how = process::reap_child(pid).map_or("of unknown cause".to_owned(), |ended| ended.to_string());
            ::log::error!(
                "the resolver (pid={pid}) is gone: {how}; until this worker is replaced, its clients are logged by address"
            );
        }
    }
}

fn fork(loops: usize) -> io::Result<Vec<Ends>> {
    let (questions, asked) = message::pair()?;
    let answers = (0..loops).map(|_| message::pair()).collect::<io::Result<Vec<_>>>()?;
    let (answers, answering): (Vec<_>, Vec<_>) = answers.into_iter().unzip();
    let far_ends = FarEnds { questions: asked, answers: answering };
    let worker = process::pid();
    let pid = process::fork_child(|| live(&far_ends, worker))?;
    let process = Arc::new(Process { pid, questions, is_missed: AtomicBool::new(false) });
    let ends = answers.into_iter().zip(0..).map(|(answers, number)| {
        let process = Arc::clone(&process);
        Ends { process, number, answers }
    });
    Ok(ends.collect())
}

/// The resolver's life. No signal reaches it, for it never unblocks them; it goes when its worker does.
fn live(ends: &FarEnds, worker: i32) -> i32 {
    // The error log is among what is closed here: a panic is told on standard error.
    drop(panic::take_hook());
    let kept = ends.answers.iter().chain([&ends.questions]).map(AsRawFd::as_raw_fd).collect();
    let alone = process::die_with_parent(Some(worker)).and_then(|()| process::close_all_but(kept));
    if alone.is_err() {
        return 1;
    }
    thread::scope(|scope| {
        for _ in 1..LOOKUPS {
            // Where there can be no more threads, those that there are do the work.
            let _ = thread::Builder::new().spawn_scoped(scope, || serve(ends, host_name));
        }
        serve(ends, host_name);
    });
    0
}

/// Answers what is asked, until nobody is left to ask.
fn serve(ends: &FarEnds, host_name: fn(IpAddr) -> Option<String>) {
    let mut question = [0; QUESTION_BYTES];
    while let Ok((QUESTION_BYTES, _)) = message::receive(&ends.questions, &mut question, Patience::Wait) {
        let [high, low, address @ ..] = question;
        let name = host_name(IpAddr::from(address).to_canonical()).unwrap_or_default();
        let answer = [&address, name.as_bytes()].concat();
        if let Some(answers) = ends.answers.get(usize::from(u16::from_be_bytes([high, low]))) {
            // A loop that takes none holds nobody up; what is lost here, it does not wait for beyond the deadline.
            let _ = message::send(answers, &answer, &[], Patience::DoNotWait);
        }
    }
}

fn octets(address: IpAddr) -> [u8; ADDRESS_BYTES] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

fn decode(message: &[u8]) -> Option<(IpAddr, Option<String>)> {
    let (address, name) = message.split_first_chunk::<ADDRESS_BYTES>()?;
    let name = String::from_utf8_lossy(name).into_owned();
    Some((IpAddr::from(*address).to_canonical(), Some(name).filter(|name| !name.is_empty())))
}

/// The name of an address, if it leads back to the address: whoever owns an address can call it what they like.
fn host_name(address: IpAddr) -> Option<String> {
    let name = sys::host_name::host_name(address).filter(|name| is_host_name(name))?;
    let mut addresses = (name.as_str(), 0).to_socket_addrs().ok()?;
    addresses.any(|found| found.ip().to_canonical() == address).then_some(name)
}

/// Whether it is safe to write, and looks like a name: `010.1.2.3` is another address to some who read it.
fn is_host_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let last = name.rsplit('.').next().unwrap_or(name);
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x") || last.starts_with("0X");
    name.len() <= NAME_MAX && name.bytes().all(is_plain) && !is_number
}

#[cfg(test)]
impl Resolver {
    /// A resolver without a process, and the ends that the process would have.
    pub(super) fn pair() -> (Self, FarEnds) {
        let ((questions, asked), (answers, answering)) = (message::pair().unwrap(), message::pair().unwrap());
        let process = Process { pid: process::pid(), questions, is_missed: AtomicBool::new(false) };
        let ends = Ends { process: Arc::new(process), number: 0, answers };
        (Self { ends: Some(ends) }, FarEnds { questions: asked, answers: vec![answering] })
    }
}

#[cfg(test)]
impl FarEnds {
    /// The address that the next question is about.
    pub fn question(&self) -> Option<[u8; ADDRESS_BYTES]> {
        let mut question = [0; QUESTION_BYTES];
        let (length, _) = message::receive(&self.questions, &mut question, Patience::DoNotWait).ok()?;
        assert_eq!(length, QUESTION_BYTES);
        question[2..].try_into().ok()
    }

    /// Answers the next question.
    pub fn call(&self, name: &str) {
        let answer = [&self.question().unwrap(), name.as_bytes()].concat();
        message::send(&self.answers[0], &answer, &[], Patience::DoNotWait).unwrap();
    }
}

#[cfg(test)]
mod tests {
    use std::net::Shutdown;

    use socket2::SockRef;

    use super::*;

    fn last_digit(address: IpAddr) -> Option<String> {
        let digits = address.to_string();
        digits.ends_with('1').then_some(format!("of-{digits}"))
    }

    #[test]
    fn every_address_gets_an_answer() {
        let (mut resolver, far_ends) = Resolver::pair();
        let asked: [IpAddr; 3] = ["192.0.2.1", "2001:db8::1", "192.0.2.2"].map(|address| address.parse().unwrap());
        for address in asked {
            assert!(resolver.ask(address));
        }
        SockRef::from(&far_ends.questions).shutdown(Shutdown::Read).unwrap(); // no more than these
        serve(&far_ends, last_digit);
        for address in asked {
            assert_eq!(resolver.answer(), Some((address, last_digit(address))));
        }
        assert_eq!(resolver.answer(), None);
    }

    #[test]
    fn what_does_not_fit_is_not_asked_and_not_waited_for() {
        let (mut resolver, far_ends) = Resolver::pair();
        let address = "192.0.2.1".parse().unwrap();
        let asked = (0..100_000).take_while(|_| resolver.ask(address)).count();
        assert!((100..10_000).contains(&asked), "{asked}");
        assert_eq!(resolver.answer(), None);
        assert!(far_ends.question().is_some());
        assert!(resolver.ask(address));
    }

    #[test]
    fn a_resolver_that_is_gone_is_not_asked() {
        let (mut resolver, far_ends) = Resolver::pair();
        drop(far_ends);
        let process = Arc::clone(&resolver.ends.as_ref().unwrap().process);
        assert!(!resolver.ask("192.0.2.1".parse().unwrap()));
        assert_eq!(resolver.answer(), None);
        assert!(process.is_missed.load(Ordering::Relaxed));
        assert!(resolver.ends.is_none());
        assert!(!resolver.ask("192.0.2.1".parse().unwrap()));
    }

    #[test]
    fn only_what_looks_like_a_name_is_written_to_the_log() {
        let longest = ["x"; 127].join(".");
        for name in ["localhost", "a", "www-1.example.org", "_x.example", "1.2.3.4.example", "4f2a", longest.as_str()] {
            assert!(is_host_name(name), "{name}");
        }
        let too_long = format!("{longest}x");
        let forged = ["a b", "a\n", "a\"", "a\u{1b}[2J", "ä.example", "a/b", "[::1]"];
        let addresses = ["", ".", "a.", "10.0.0.1", "010.0.0.1", "3405803781", "0x7f.1", "127.0x1", "0X7F000001"];
        for name in forged.into_iter().chain(addresses).chain([too_long.as_str()]) {
            assert!(!is_host_name(name), "{name:?}");
        }
    }
}
