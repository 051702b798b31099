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
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::config::Senders;
use crate::sys;

pub(crate) use error::Error;

/// How long the kernel may keep a connection without a request to itself.
const DEFER_ACCEPT_SECONDS: i32 = 1;

/// What to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// Every address that `host` resolves to.
    Tcp { host: String, port: u16, options: Options },
    /// A Unix domain socket with the permissions `mode`.
    Unix { path: PathBuf, mode: u32 },
}

impl Address {
    /// Whether a socket that is bound to one is bound to the other.
    pub fn is_same_place(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unix { path, .. }, Self::Unix { path: other, .. }) => path == other,
            (Self::Tcp { .. }, Self::Tcp { .. }) => self == other,
            (Self::Unix { .. }, Self::Tcp { .. }) | (Self::Tcp { .. }, Self::Unix { .. }) => false,
        }
    }
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
    is_tls: AtomicBool,
}

#[derive(Debug)]
enum Bound {
    Tcp(SocketAddr),
    Unix(unix::SocketFile),
}

impl Listener {
    /// One that another process has bound, which gave us the descriptor. Its file, if it has one, stays that process's
    /// until [`Self::adopt`].
    pub fn inherit(socket: OwnedFd) -> io::Result<Self> {
        let socket = Socket::from(socket);
        if !socket.is_listener()? {
            return Err(io::Error::other("it is not listening"));
        }
        let address = socket.local_addr()?;
        let bound = match (address.as_socket(), address.as_pathname()) {
            (Some(address), _) => Bound::Tcp(address),
            (None, Some(path)) => Bound::Unix(unix::SocketFile::inherit(path)?),
            (None, None) => return Err(io::Error::other("it has no address")),
        };
        Ok(Self::new(socket.into(), bound))
    }

    fn new(socket: OwnedFd, bound: Bound) -> Self {
        Self { socket, bound, is_tls: AtomicBool::new(false) }
    }

    /// Its file is ours to remove from now on.
    pub fn adopt(&self) {
        if let Bound::Unix(file) = &self.bound {
            file.adopt();
        }
    }

    /// Its file is another process's to remove from now on.
    pub fn disown(&self) {
        if let Bound::Unix(file) = &self.bound {
            file.disown();
        }
    }

    /// Whether clients are to speak TLS: its address is shown with `https`.
    pub fn expect_tls(&self, tls: bool) {
        self.is_tls.store(tls, Ordering::Relaxed);
    }

    /// Makes it as it would be if it was bound now.
    fn renew(&self, address: &Address, queue_size: u32) -> io::Result<()> {
        SockRef::from(&self.socket).listen(backlog(queue_size))?;
        match (address, &self.bound) {
            (Address::Unix { path, mode }, Bound::Unix(_)) => unix::permit(path, *mode),
            (Address::Unix { .. } | Address::Tcp { .. }, Bound::Tcp(_) | Bound::Unix(_)) => Ok(()),
        }
    }

    /// Whether it is what binding that address would give; any port is what port 0 asks for.
    fn is_at(&self, address: SocketAddr) -> bool {
        let port_fits = |bound: &SocketAddr| address.port() == bound.port() || address.port() == 0;
        matches!(&self.bound, Bound::Tcp(bound) if bound.ip() == address.ip() && port_fits(bound))
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
            Bound::Tcp(address) => {
                let scheme = if self.is_tls.load(Ordering::Relaxed) { "https" } else { "http" };
                write!(f, "{scheme}://{address}")
            }
            Bound::Unix(file) => write!(f, "unix:{}", file.path().display()),
        }
    }
}

/// Binds all that `address` means, with room for `queue_size` connections that wait to be accepted. What is among
/// `present` already is taken from there.
///
/// An address of a family that this machine lacks is skipped, as long as another one remains.
pub(crate) fn bind(address: &Address, queue_size: u32, present: &[Arc<Listener>]) -> Result<Vec<Arc<Listener>>, Error> {
    let listeners = match address {
        Address::Unix { path, mode } => {
            let is_there =
                |listener: &&Arc<Listener>| matches!(&listener.bound, Bound::Unix(file) if file.path() == path);
            if let Some(listener) = present.iter().find(is_there) {
                vec![Arc::clone(listener)]
            } else {
                let spot = unix::Spot { path, option: "socketFile", mode: *mode };
                let (socket, file) = unix::bind(spot, backlog(queue_size))?;
                vec![Arc::new(Listener::new(socket, Bound::Unix(file)))]
            }
        }
        Address::Tcp { host, port, options } => {
            let addresses = resolve(host, *port, *options)?;
            bind_all(&addresses, queue_size, *options, present)?
        }
    };
    renew(&listeners, address, queue_size);
    Ok(listeners)
}

/// Gives listeners of this address the queue and the permissions that they would have if they were bound now.
pub(crate) fn renew(listeners: &[Arc<Listener>], address: &Address, queue_size: u32) {
    for listener in listeners {
        if let Err(cause) = listener.renew(address, queue_size) {
            ::log::error!("{listener}: cannot change the length of its queue or its permissions: {cause}");
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
    Ok(Listener::new(socket, Bound::Unix(file)))
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
fn bind_all(
    addresses: &[SocketAddr],
    queue_size: u32,
    options: Options,
    present: &[Arc<Listener>],
) -> Result<Vec<Arc<Listener>>, Error> {
    let attempts = 16;
    for _ in 1..attempts {
        match bind_once(addresses, queue_size, options, present) {
            Err(Error::Bind { cause, .. }) if addresses[0].port() == 0 && cause.kind() == io::ErrorKind::AddrInUse => {}
            done => return done,
        }
    }
    bind_once(addresses, queue_size, options, present)
}

fn bind_once(
    addresses: &[SocketAddr],
    queue_size: u32,
    options: Options,
    present: &[Arc<Listener>],
) -> Result<Vec<Arc<Listener>>, Error> {
    let mut listeners = Vec::new();
    let mut skipped = None;
    let mut port = addresses[0].port();
    for &address in addresses {
        let address = SocketAddr::new(address.ip(), port);
        if let Some(listener) = present.iter().find(|listener| listener.is_at(address)) {
            port = listener.port().unwrap_or(port);
            listeners.push(Arc::clone(listener));
            continue;
        }
        match open(address, queue_size) {
            Ok((socket, bound)) => {
                port = bound.port();
                listeners.push(Arc::new(Listener::new(socket, Bound::Tcp(bound))));
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

    fn tcp(host: &str, port: u16) -> Result<Vec<Arc<Listener>>, Error> {
        beside(host, port, &[])
    }

    fn beside(host: &str, port: u16, present: &[Arc<Listener>]) -> Result<Vec<Arc<Listener>>, Error> {
        bind(&Address::Tcp { host: host.to_owned(), port, options: SITE }, 5, present)
    }

    #[test]
    fn every_address_of_a_host_is_bound_to_one_port() {
        let listeners = tcp("localhost", 0).unwrap();
        assert!(!listeners.is_empty());
        assert_ne!(listeners[0].port(), Some(0));
        assert!(listeners.iter().all(|l| l.port() == listeners[0].port()), "{listeners:?}");
    }

    #[test]
    fn an_address_in_use_is_an_error_that_names_it_and_a_remedy() {
        let taken = tcp("127.0.0.1", 0).unwrap();
        let error = tcp("127.0.0.1", taken[0].port().unwrap()).unwrap_err().to_string();
        assert!(error.contains(&format!("127.0.0.1:{}", taken[0].port().unwrap())), "{error}");
        assert!(error.contains("already") && error.contains("socketPort"), "{error}");
    }

    #[test]
    fn an_unknown_host_is_an_error_that_names_it() {
        let error = tcp("no-such-host.invalid", 0).unwrap_err().to_string();
        assert!(error.contains("no-such-host.invalid") && error.contains("socketHost"), "{error}");
    }

    #[test]
    fn what_is_bound_already_is_used_again_and_nothing_else() {
        let there = tcp("127.0.0.1", 0).unwrap();
        for port in [0, there[0].port().unwrap()] {
            assert!(Arc::ptr_eq(&beside("127.0.0.1", port, &there).unwrap()[0], &there[0]));
        }
        let elsewhere = beside("127.0.0.2", 0, &there).unwrap();
        assert!(!Arc::ptr_eq(&elsewhere[0], &there[0]));
    }

    #[test]
    fn a_socket_that_was_inherited_is_known_by_its_address_and_its_file_is_not_ours_until_it_is_adopted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let address = Address::Unix { path: path.clone(), mode: 0o600 };
        let first = bind(&address, 5, &[]).unwrap();
        let inherit = || Arc::new(Listener::inherit(first[0].as_fd().try_clone_to_owned().unwrap()).unwrap());
        drop(inherit());
        assert!(path.exists());
        let inherited = bind(&address, 5, &[inherit()]).unwrap();
        inherited[0].adopt();
        first[0].disown();
        drop(first);
        assert!(path.exists());
        drop(inherited);
        assert!(!path.exists());
        let (read_end, _) = sys::pipe::pipe().unwrap();
        assert!(Listener::inherit(read_end).is_err());
    }
}
