//! Listening sockets: what addresses the configuration means, binding them, and what clients will meet there.
//! Accepts nothing and knows nothing of workers.

mod error;
pub(crate) mod proxy_protocol;
pub(crate) mod tls;
mod unix;

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::Senders;
use crate::sys;

pub(crate) use error::Error;

/// How long the kernel may keep a connection without a request to itself.
const DEFER_ACCEPT_SECONDS: i32 = 1;

/// Until somebody knows better.
const SCHEME: &str = "http";

/// What to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// Every address that `host` resolves to.
    Tcp { host: String, port: u16, options: Options },
    /// A Unix domain socket with the permissions `mode`.
    Unix { path: PathBuf, mode: u32 },
}

/// What a connection meets between its accept and its first request, and who is believed there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Entrance {
    /// It must begin with the PROXY protocol.
    pub proxy_protocol: bool,
    /// It must speak TLS, behind that.
    pub tls: Option<tls::Acceptor>,
    /// Whose forwarding fields and PROXY protocol count.
    pub trusted: Senders,
}

/// The options that say where to listen; errors name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub host: &'static str,
    pub port: &'static str,
}

/// Of the site.
pub(crate) const SITE: Options = Options { host: "socketHost", port: "socketPort" };

/// Of the status listener.
pub(crate) const STATUS: Options = Options { host: "statusHost", port: "statusPort" };

/// A listening socket, bound and open; workers inherit it. Its file, if it has one, goes when its maker drops it: then
/// nobody new can connect, and who has connected is served.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: OwnedFd,
    bound: Bound,
    /// How a URL of it begins.
    scheme: &'static str,
}

#[derive(Debug)]
enum Bound {
    Tcp(SocketAddr),
    Unix(unix::SocketFile),
}

impl Listener {
    /// Clients are to speak TLS: its address is shown with `https`.
    pub fn expect_tls(&mut self) {
        self.scheme = "https";
    }

    /// Its port, if it has one.
    pub fn port(&self) -> Option<u16> {
        match &self.bound {
            Bound::Tcp(address) => Some(address.port()),
            Bound::Unix(_) => None,
        }
    }

    /// Hands over all connections at once from now on, also those that wait for their request in the kernel, so
    /// that none is left there when the socket closes.
    pub fn stop_deferring(&self) -> io::Result<()> {
        match self.bound {
            Bound::Tcp(_) => sys::socket::set_defer_accept(self.as_fd(), 0),
            Bound::Unix(_) => Ok(()),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Where a client finds it: `http://127.0.0.1:8080`, `https://…`, or `unix:/run/site.sock`.
impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.bound {
            Bound::Tcp(address) => write!(f, "{}://{address}", self.scheme),
            Bound::Unix(file) => write!(f, "unix:{}", file.path().display()),
        }
    }
}

/// Binds all that `address` means, with room for `queue_size` connections that wait to be accepted.
///
/// An address of a family that this machine lacks is skipped, as long as another one remains.
pub(crate) fn bind(address: &Address, queue_size: u32) -> Result<Vec<Listener>, Error> {
    match address {
        Address::Unix { path, mode } => {
            let spot = unix::Spot { path, option: "socketFile", mode: *mode };
            let (socket, file) = unix::bind(spot, backlog(queue_size))?;
            Ok(vec![Listener { socket, bound: Bound::Unix(file), scheme: SCHEME }])
        }
        Address::Tcp { host, port, options } => {
            let addresses = resolve(host, *port, *options)?;
            bind_all(&addresses, queue_size, *options)
        }
    }
}

/// Binds the socket on which the master takes commands, of whoever owns its file. A living master's is taken over only
/// where `takeover` says so.
pub(crate) fn bind_control(path: &Path, takeover: bool) -> Result<Listener, Error> {
    // People are few.
    const QUEUE_SIZE: i32 = 64;
    let spot = unix::Spot { path, option: "controlSocket", mode: 0o600 };
    let bind = if takeover { unix::take_over } else { unix::bind };
    let (socket, file) = bind(spot, QUEUE_SIZE)?;
    Ok(Listener { socket, bound: Bound::Unix(file), scheme: SCHEME })
}

fn resolve(host: &str, port: u16, options: Options) -> Result<Vec<SocketAddr>, Error> {
    let unknown = |cause| Error::Resolve { host: host.to_owned(), options, cause };
    let mut addresses: Vec<SocketAddr> = (host, port).to_socket_addrs().map_err(unknown)?.collect();
    addresses.sort();
    addresses.dedup();
    if addresses.is_empty() {
        return Err(unknown(io::Error::new(io::ErrorKind::NotFound, "it has no address")));
    }
    Ok(addresses)
}

/// Binds all of `addresses` to one port. Where the kernel is to choose it (port 0), what it gave for the first
/// address may be taken on the second; then another one is tried.
fn bind_all(addresses: &[SocketAddr], queue_size: u32, options: Options) -> Result<Vec<Listener>, Error> {
    let attempts = 16;
    for _ in 1..attempts {
        match bind_once(addresses, queue_size, options) {
            Err(Error::Bind { cause, .. }) if addresses[0].port() == 0 && cause.kind() == io::ErrorKind::AddrInUse => {}
            done => return done,
        }
    }
    bind_once(addresses, queue_size, options)
}

fn bind_once(addresses: &[SocketAddr], queue_size: u32, options: Options) -> Result<Vec<Listener>, Error> {
    let mut listeners: Vec<Listener> = Vec::new();
    let mut skipped = None;
    let mut port = addresses[0].port();
    for &address in addresses {
        let address = SocketAddr::new(address.ip(), port);
        match open(address, queue_size) {
            Ok((socket, bound)) => {
                port = bound.port();
                listeners.push(Listener { socket, bound: Bound::Tcp(bound), scheme: SCHEME });
            }
            Err(cause) if family_is_missing(&cause) => skipped = Some((address, cause)),
            Err(cause) => return Err(Error::Bind { address, options, cause }),
        }
    }
    match skipped {
        Some((address, cause)) if listeners.is_empty() => Err(Error::Bind { address, options, cause }),
        Some((address, cause)) => {
            ::log::debug!("not listening on {address}: {cause}");
            Ok(listeners)
        }
        None => Ok(listeners),
    }
}

fn open(address: SocketAddr, queue_size: u32) -> io::Result<(OwnedFd, SocketAddr)> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit it: a response goes out at once.
    socket.set_tcp_nodelay(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(backlog(queue_size))?;
    sys::socket::set_defer_accept(socket.as_fd(), DEFER_ACCEPT_SECONDS)?;
    let bound = socket.local_addr()?.as_socket().unwrap_or(address);
    Ok((socket.into(), bound))
}

fn backlog(queue_size: u32) -> i32 {
    i32::try_from(queue_size).unwrap_or(i32::MAX)
}

fn family_is_missing(cause: &io::Error) -> bool {
    let number = cause.raw_os_error();
    cause.kind() == io::ErrorKind::AddrNotAvailable || number == Some(sys::socket::FAMILY_NOT_SUPPORTED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Result<Vec<Listener>, Error> {
        bind(&Address::Tcp { host: host.to_owned(), port, options: SITE }, 5)
    }

    fn port(listener: &Listener) -> u16 {
        listener.port().expect("a TCP listener")
    }

    #[test]
    fn every_address_of_a_host_is_bound_to_one_port() {
        let listeners = tcp("localhost", 0).unwrap();
        assert!(!listeners.is_empty());
        assert_ne!(port(&listeners[0]), 0);
        assert!(listeners.iter().all(|l| port(l) == port(&listeners[0])), "{listeners:?}");
    }

    #[test]
    fn an_address_in_use_is_an_error_that_names_it_and_a_remedy() {
        let taken = tcp("127.0.0.1", 0).unwrap();
        let error = tcp("127.0.0.1", port(&taken[0])).unwrap_err().to_string();
        assert!(error.contains(&format!("127.0.0.1:{}", port(&taken[0]))), "{error}");
        assert!(error.contains("already") && error.contains("socketPort"), "{error}");
    }

    #[test]
    fn an_unknown_host_is_an_error_that_names_it() {
        let error = tcp("no-such-host.invalid", 0).unwrap_err().to_string();
        assert!(error.contains("no-such-host.invalid") && error.contains("socketHost"), "{error}");
    }
}
