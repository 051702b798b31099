//! Regular files, opened without following a link or waiting for anybody, and the locks on them.
//! Knows nothing of what is in them.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;

/// Opens for reading what is at `path` itself. A link is refused with `ELOOP`; a FIFO or a device, which can have
/// taken the place of a file, is opened without waiting for its other end, so ask what it is before reading.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
}

/// Whether the lock is ours now; never waits. It ends when the last descriptor of this opening is closed, however the
/// process ends (flock(2)).
///
/// # Errors
/// Those of flock(2): the file system has no locks.
pub(crate) fn try_lock(file: &File) -> io::Result<bool> {
    // SAFETY: flock takes plain numbers, and the descriptor is open as long as `file` is borrowed.
    match Errno::result(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) }) {
        Ok(_) => Ok(true),
        Err(Errno::EWOULDBLOCK) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_opening_locks_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "").unwrap();
        let (first, second) = (open(&path).unwrap(), open(&path).unwrap());
        assert!(try_lock(&first).unwrap());
        assert!(!try_lock(&second).unwrap());
        drop(first);
        assert!(try_lock(&second).unwrap());
    }

    #[test]
    fn a_link_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "").unwrap();
        std::os::unix::fs::symlink("file", folder.path().join("link")).unwrap();
        assert_eq!(open(&folder.path().join("link")).unwrap_err().raw_os_error(), Some(libc::ELOOP));
    }
}
