//! Sockets: accept, receive, send, and the options that std does not know.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, Shutdown, recv, shutdown};

/// Accepts one connection, non-blocking; its client's address, or `None` for a Unix domain socket.
pub(crate) fn accept(listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, Option<SocketAddr>)> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: the pointers that we are given describe a live buffer, which the kernel fills.
    let (fd, address) = unsafe {
        socket2::SockAddr::try_init(|address, len| {
            Ok(Errno::result(libc::accept4(listener.as_raw_fd(), address.cast(), len, flags))?)
        })?
    };
    // SAFETY: the kernel has just made this descriptor for us alone.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    Ok((socket, address.as_socket()))
}

/// The other side's address, as [`accept`] tells it; an error when the other side is gone.
pub(crate) fn peer(socket: BorrowedFd<'_>) -> io::Result<Option<SocketAddr>> {
    Ok(socket2::SockRef::from(&socket).peer_addr()?.as_socket())
}

/// Receives what has arrived. `Ok(0)` is the client's end of file.
pub(crate) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    retry(|| recv(socket.as_raw_fd(), buffer, MsgFlags::empty()))
}

/// Looks at what has arrived, which stays to be received.
pub(crate) fn peek(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    retry(|| recv(socket.as_raw_fd(), buffer, MsgFlags::MSG_PEEK))
}

/// Sends what the socket takes of two pieces in one call. `more_follows` lets the kernel wait for it, so that a
/// head and the start of its file share a packet (`MSG_MORE`, send(2)).
pub(crate) fn send(socket: BorrowedFd<'_>, first: &[u8], second: &[u8], more_follows: bool) -> io::Result<usize> {
    let mut flags = MsgFlags::MSG_NOSIGNAL;
    if more_follows {
        flags |= MsgFlags::from_bits_retain(libc::MSG_MORE);
    }
    if second.is_empty() {
        return retry(|| nix::sys::socket::send(socket.as_raw_fd(), first, flags));
    }
    let pieces = [IoSlice::new(first), IoSlice::new(second)];
    retry(|| nix::sys::socket::sendmsg::<()>(socket.as_raw_fd(), &pieces, &[], flags, None))
}

/// Sends what the socket takes of many pieces in one call.
pub(crate) fn send_pieces(socket: BorrowedFd<'_>, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
    retry(|| nix::sys::socket::sendmsg::<()>(socket.as_raw_fd(), pieces, &[], MsgFlags::MSG_NOSIGNAL, None))
}

/// Sends up to `count` bytes of a file from `offset`, from the page cache. `Ok(0)`: the file ends there.
pub(crate) fn send_file(socket: BorrowedFd<'_>, file: BorrowedFd<'_>, offset: u64, count: usize) -> io::Result<usize> {
    let mut offset = i64::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    retry(|| nix::sys::sendfile::sendfile64(socket, file, Some(&mut offset), count))
}

/// How many of the bytes sent the other side has not taken (`TIOCOUTQ`, tcp(7) and unix(7)).
pub(crate) fn untaken(socket: BorrowedFd<'_>) -> io::Result<i32> {
    let mut bytes = 0;
    // SAFETY: the kernel writes an int into one that lives through the call.
    Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) })?;
    Ok(bytes)
}

/// Says that nothing more will be sent; the client may still send.
pub(crate) fn end_sending(socket: BorrowedFd<'_>) {
    // A connection that is gone already has nothing left to end.
    let _ = shutdown(socket.as_raw_fd(), Shutdown::Write);
}

/// Makes closing the socket reset the connection, so that the client cannot take what it has for the whole.
pub(crate) fn reset_on_close(socket: BorrowedFd<'_>) {
    let _ = socket2::SockRef::from(&socket).set_linger(Some(std::time::Duration::ZERO));
}

/// How long the kernel keeps a connection without a request to itself: `seconds` of `TCP_DEFER_ACCEPT`
/// (tcp(7)); 0 hands over every connection at once, also those it keeps now.
pub(crate) fn set_defer_accept(listener: BorrowedFd<'_>, seconds: i32) -> io::Result<()> {
    const INT_BYTES: libc::socklen_t = 4;
    // SAFETY: the option's value is an int that lives through the call, and its size is said.
    let done = unsafe {
        let value = (&raw const seconds).cast();
        libc::setsockopt(listener.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, value, INT_BYTES)
    };
    Errno::result(done)?;
    Ok(())
}

/// Repeats a call that a signal interrupted.
fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            done => return done.map_err(io::Error::from),
        }
    }
}

/// The error of a machine without this kind of address (`EAFNOSUPPORT`).
pub(crate) const FAMILY_NOT_SUPPORTED: i32 = libc::EAFNOSUPPORT;

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_client_that_is_gone_is_not_taken_for_one_of_a_unix_socket() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, address) = listener.accept().unwrap();
        assert_eq!(peer(socket.as_fd()).unwrap(), Some(address));
        reset_on_close(client.as_fd());
        drop(client);
        let mut byte = [0];
        assert!(receive(socket.as_fd(), &mut byte).is_err(), "the reset has arrived");
        assert!(peer(socket.as_fd()).is_err());
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(peer(one.as_fd()).unwrap(), None);
    }
}
