//! The resolver: a process beside the worker that looks up the host names of addresses, so that no lookup is in the way
//! of a request, and none runs in a process that forks. A socket leads there and back; what does not fit into it is not
//! looked up. It keeps no answer and knows nothing of lines.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, ToSocketAddrs};
use std::os::fd::AsFd;
use std::panic;
use std::thread;

use socket2::{Domain, Socket, Type};

use crate::sys;
use crate::sys::process::{self, Ended};

/// How many lookups go on at once, so that a slow one does not hold up the others.
const LOOKUPS: usize = 8;

/// The longest name that DNS can have.
const NAME_MAX: usize = 253;

/// An address as it travels: one of IPv4 is mapped into IPv6.
const ADDRESS_BYTES: usize = 16;

/// The loop's end of a resolver. Nothing here waits.
#[derive(Debug)]
pub(crate) struct Resolver {
    /// None where there is none any more.
    process: Option<Process>,
}

#[derive(Debug)]
struct Process {
    pid: i32,
    socket: Socket,
}

impl Resolver {
    /// Forks it from a process that has no threads. Where that fails, the log says so, and there are no names.
    pub fn start() -> Self {
        let process = fork().inspect_err(|cause| {
            ::log::error!("cannot start the resolver: {cause}; the access log has addresses instead of host names");
        });
        Self { process: process.ok() }
    }

    /// Asks for a name; false where that is not possible: too many wait already, or the resolver is gone.
    pub(super) fn ask(&self, address: IpAddr) -> bool {
        self.process.as_ref().is_some_and(|process| (&process.socket).write(&encode(address)).is_ok())
    }

    /// The next answer, if one has come: an address, and its name if it has one.
    pub(super) fn answer(&mut self) -> Option<(IpAddr, Option<String>)> {
        let mut message = [0; ADDRESS_BYTES + NAME_MAX];
        let process = self.process.as_ref()?;
        match (&process.socket).read(&mut message) {
            Ok(length @ 1..) => decode(&message[..length]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Ok(0) | Err(_) => {
                report_end(process.pid);
                self.process = None;
                None
            }
        }
    }
}

fn report_end(pid: i32) {
    let how = match process::reap_child(pid) {
        Some(Ended::Code(code)) => format!("exit code {code}"),
        Some(Ended::Signal(number)) => format!("signal {number}"),
        None => "of unknown cause".to_owned(),
    };
    ::log::error!(
        "the resolver (pid={pid}) is gone: {how}; until this worker is replaced, its clients are logged by address"
    );
}

fn fork() -> io::Result<Process> {
    let (socket, far_end) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None)?;
    socket.set_nonblocking(true)?;
    let worker = process::pid();
    let pid = process::fork_child(|| live(&far_end, worker))?;
    Ok(Process { pid, socket })
}

/// The resolver's life. No signal reaches it, for it never unblocks them; it goes when its worker does.
fn live(socket: &Socket, worker: i32) -> i32 {
    // The error log is among what is closed here: a panic is told on standard error.
    drop(panic::take_hook());
    let alone = process::die_with_parent(Some(worker)).and_then(|()| process::close_all_but(socket.as_fd()));
    if alone.is_err() {
        return 1;
    }
    thread::scope(|scope| {
        for _ in 1..LOOKUPS {
            // Where there can be no more threads, those that there are do the work.
            let _ = thread::Builder::new().spawn_scoped(scope, || serve(socket, host_name));
        }
        serve(socket, host_name);
    });
    0
}

/// Answers what is asked, until the other end is closed.
fn serve(mut socket: &Socket, host_name: fn(IpAddr) -> Option<String>) {
    let mut message = [0; ADDRESS_BYTES];
    while let Ok(ADDRESS_BYTES) = socket.read(&mut message) {
        let name = host_name(IpAddr::from(message).to_canonical()).unwrap_or_default();
        if socket.write(&[&message, name.as_bytes()].concat()).is_err() {
            return;
        }
    }
}

fn encode(address: IpAddr) -> [u8; ADDRESS_BYTES] {
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
    /// A resolver without a process, and the end of the socket that the process would have.
    pub fn pair() -> (Self, Socket) {
        let (socket, far_end) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        (Self { process: Some(Process { pid: process::pid(), socket }) }, far_end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last_digit(address: IpAddr) -> Option<String> {
        let digits = address.to_string();
        digits.ends_with('1').then_some(format!("of-{digits}"))
    }

    #[test]
    fn every_address_gets_an_answer() {
        let (mut resolver, far_end) = Resolver::pair();
        let asked: [IpAddr; 3] = ["192.0.2.1", "2001:db8::1", "192.0.2.2"].map(|address| address.parse().unwrap());
        for address in asked {
            assert!(resolver.ask(address));
        }
        far_end.shutdown(std::net::Shutdown::Read).unwrap(); // no more than these
        serve(&far_end, last_digit);
        for address in asked {
            assert_eq!(resolver.answer(), Some((address, last_digit(address))));
        }
        assert_eq!(resolver.answer(), None);
    }

    #[test]
    fn what_does_not_fit_is_not_asked_and_not_waited_for() {
        let (mut resolver, far_end) = Resolver::pair();
        let address = "192.0.2.1".parse().unwrap();
        let asked = (0..100_000).take_while(|_| resolver.ask(address)).count();
        assert!((100..10_000).contains(&asked), "{asked}");
        assert_eq!(resolver.answer(), None);
        (&far_end).read_exact(&mut [0; ADDRESS_BYTES]).unwrap();
        assert!(resolver.ask(address));
    }

    #[test]
    fn a_resolver_that_is_gone_is_not_asked() {
        let (mut resolver, far_end) = Resolver::pair();
        drop(far_end);
        assert!(!resolver.ask("192.0.2.1".parse().unwrap()));
        assert_eq!(resolver.answer(), None);
        assert!(resolver.process.is_none());
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
