//! What a log does to its descriptor that std cannot: to open it, ask it and send to it without ever waiting.
//!
//! It knows nothing of lines or losses.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send};

/// Neither wait for the reader of a FIFO nor take a terminal as the controlling one (open(2)).
const OPEN_FLAGS: i32 = libc::O_NONBLOCK | libc::O_NOCTTY;

/// Opens a log for appending, makes it with mode 0640 where it is missing; std adds `O_CLOEXEC`.
///
/// A FIFO nobody reads is refused with `ENXIO`, see [`has_no_reader`].
pub(crate) fn open_for_append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).custom_flags(OPEN_FLAGS).open(path)
}

/// Opens a pipe or terminal that we already have once more, for a file description of our own.
///
/// `O_NONBLOCK` belongs to the description, which an inherited descriptor shares with strangers: set there, it would
/// break them. Where it cannot be opened (no /proc, another user's pipe), a duplicate shares the old description.
pub(crate) fn reopen_or_duplicate(fd: BorrowedFd<'_>) -> io::Result<File> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let reopened = OpenOptions::new().append(true).custom_flags(OPEN_FLAGS).open(path);
    reopened.or_else(|_| fd.try_clone_to_owned().map(File::from))
}

/// Puts what `from` is in the place of what `at` was, for everything in this process that uses `at`: the number stays
/// (dup2(2)).
pub(crate) fn put_in_place(from: &File, at: &File) -> io::Result<()> {
    // SAFETY: takes plain numbers, both open as long as they are borrowed; `at` goes on owning its own.
    Errno::result(unsafe { libc::dup3(from.as_raw_fd(), at.as_raw_fd(), libc::O_CLOEXEC) })?;
    Ok(())
}

/// True when a write of up to `PIPE_BUF` bytes would not wait, or would fail at once (poll(2), `timeout` 0).
pub(crate) fn is_writable(fd: impl AsFd) -> bool {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLOUT)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// Sends what the socket takes at once, without a signal when its peer has gone (send(2)).
pub(crate) fn send_at_once(fd: &File, bytes: &[u8]) -> io::Result<usize> {
    Ok(send(fd.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)?)
}

/// True for the failure to open a FIFO that nobody reads, or a socket.
pub(crate) fn has_no_reader(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENXIO)
}

/// A pipe, as (reading end, writing end), which tests hand to a log the way a shell would.
#[cfg(test)]
pub(crate) fn pipe() -> (File, File) {
    let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    (reader.into(), writer.into())
}

/// A FIFO at `path`, for tests.
#[cfg(test)]
pub(crate) fn make_fifo(path: &Path) {
    nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR).unwrap();
}
