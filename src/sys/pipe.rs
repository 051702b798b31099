//! Pipes between the master and its workers, and waiting for several descriptors.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{self, pipe2};

/// A pipe, non-blocking and not for programs that are executed: its read end and its write end.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?)
}

/// What a pipe had to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    Bytes(usize),
    Nothing,
    /// Every process that could write is gone.
    End,
}

/// Reads without waiting.
pub(crate) fn read(read_end: &impl AsFd, buffer: &mut [u8]) -> Read {
    match unistd::read(read_end, buffer) {
        Ok(0) => Read::End,
        Ok(n) => Read::Bytes(n),
        Err(_) => Read::Nothing,
    }
}

/// Writes a message of up to `PIPE_BUF` bytes, in one piece (pipe(7)); waits until there is room for it.
pub(crate) fn write(write_end: &impl AsFd, message: &[u8]) -> io::Result<()> {
    loop {
        match unistd::write(write_end, message) {
            Ok(_) => return Ok(()),
            Err(Errno::EAGAIN) => wait_writable(write_end.as_fd())?,
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn wait_writable(fd: BorrowedFd<'_>) -> io::Result<()> {
    match poll(&mut [PollFd::new(fd, PollFlags::POLLOUT)], PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Waits until one of `readable` can be read or has ended, or one of `writable` can be written, a signal comes, or the
/// time is over.
pub(crate) fn wait(
    readable: &[BorrowedFd<'_>],
    writable: &[BorrowedFd<'_>],
    timeout: Option<Duration>,
) -> io::Result<()> {
    let readable = readable.iter().map(|&fd| PollFd::new(fd, PollFlags::POLLIN));
    let writable = writable.iter().map(|&fd| PollFd::new(fd, PollFlags::POLLOUT));
    let mut watched: Vec<_> = readable.chain(writable).collect();
    match poll(&mut watched, timeout.map_or(PollTimeout::NONE, whole_millis)) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Rounded up, so that a deadline is reached when the wait is over.
fn whole_millis(timeout: Duration) -> PollTimeout {
    let millis = timeout.as_nanos().div_ceil(1_000_000);
    i32::try_from(millis).ok().and_then(|millis| PollTimeout::try_from(millis).ok()).unwrap_or(PollTimeout::MAX)
}
