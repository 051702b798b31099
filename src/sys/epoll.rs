//! What mio does not offer of epoll: listeners that wake one of several processes.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

/// Registers a listening socket with the epoll behind `poll`, level-triggered and with `EPOLLEXCLUSIVE`: of the
/// processes that wait for the socket only one is woken (`epoll_ctl(2)`).
pub(crate) fn add_exclusive(poll: &impl AsRawFd, listener: BorrowedFd<'_>, token: mio::Token) -> io::Result<()> {
    let mut event = libc::epoll_event { events: (libc::EPOLLIN | libc::EPOLLEXCLUSIVE) as u32, u64: token.0 as u64 };
    control(poll.as_raw_fd(), libc::EPOLL_CTL_ADD, listener, &mut event)
}

/// Takes a listening socket out. Closing it is not enough while another process holds it.
pub(crate) fn remove(poll: &impl AsRawFd, listener: BorrowedFd<'_>) -> io::Result<()> {
    let mut event = libc::epoll_event { events: 0, u64: 0 };
    control(poll.as_raw_fd(), libc::EPOLL_CTL_DEL, listener, &mut event)
}

fn control(epoll: RawFd, operation: i32, listener: BorrowedFd<'_>, event: &mut libc::epoll_event) -> io::Result<()> {
    // SAFETY: both descriptors are open for the length of the call, and `event` is a live, exclusive reference.
    let done = unsafe { libc::epoll_ctl(epoll, operation, listener.as_raw_fd(), event) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
