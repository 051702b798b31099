//! The file with the process id of the master, and the lock on it, by which a living master is told from a dead one.
//!
//! The lock is a record lock (`F_SETLK`, fcntl(2)): it belongs to the process and not to the open file, so that no child
//! inherits it, and it ends with its process however that ends. The other side of it: closing *any* descriptor of the
//! file ends it too. Nothing else in the master may open this file.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

use super::{clock, process};

/// How often it is looked whether a lock was given up.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A pid file that this process has locked; dropped by it, and by no child, the file is removed.
#[derive(Debug)]
pub(crate) struct PidFile {
    /// Keeps the lock.
    #[cfg_attr(not(test), allow(dead_code))]
    locked: File,
    path: PathBuf,
    /// The process that has the lock; none once it was released.
    owner: Option<i32>,
}

/// Why it could not be had.
#[derive(Debug)]
pub(crate) enum Error {
    /// A process that lives has the lock; its pid is not known where it lives in another namespace or has just ended.
    Held {
        path: PathBuf,
        pid: Option<i32>,
    },
    /// It holds something else, which might be precious.
    NotAPid {
        path: PathBuf,
    },
    Io {
        path: PathBuf,
        cause: io::Error,
    },
}

impl PidFile {
    /// Locks the file, made where it is missing, and writes the pid of this process into it, whatever pid is there. A
    /// lock that another process has is waited for, for so long.
    pub fn claim(path: &Path, patience: Duration) -> Result<Self, Error> {
        let deadline = clock::monotonic() + patience;
        loop {
            match try_claim(path) {
                Err(Error::Held { .. }) if clock::monotonic() < deadline => std::thread::sleep(LOOK_AGAIN),
                Ok(None) => {}
                Ok(Some(locked)) => {
                    let owner = Some(process::pid());
                    return Ok(Self { locked, path: path.to_owned(), owner });
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Gives up the lock, and leaves the file to whoever claims it next.
    pub fn release(mut self) {
        self.owner = None;
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // While the lock is still held: what is there is ours.
        if self.owner == Some(process::pid()) {
            if let Err(cause) = std::fs::remove_file(&self.path) {
                log::warn!("cannot remove {}: {cause}", self.path.display());
            }
        }
    }
}

/// `None` where the file was removed, by the one who had the lock, before we had it.
fn try_claim(path: &Path) -> Result<Option<File>, Error> {
    let failed = |cause| Error::Io { path: path.to_owned(), cause };
    let mut file = open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(Error::NotAPid { path: path.to_owned() });
    }
    if !lock(&file).map_err(failed)? {
        return Err(Error::Held { path: path.to_owned(), pid: holder(&file) });
    }
    if !is_at(&file, path).map_err(failed)? {
        return Ok(None);
    }
    if !holds_pid(&mut file).map_err(failed)? {
        return Err(Error::NotAPid { path: path.to_owned() });
    }
    write(&file, process::pid()).map_err(failed)?;
    Ok(Some(file))
}

/// A FIFO or a terminal is not waited for, and does not become ours.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o644);
    options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
}

/// Whether the lock is ours now.
fn lock(file: &File) -> io::Result<bool> {
    match fcntl(file.as_fd(), FcntlArg::F_SETLK(&whole())) {
        Ok(_) => Ok(true),
        Err(Errno::EACCES | Errno::EAGAIN) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Who has the lock.
fn holder(file: &File) -> Option<i32> {
    let mut asked = whole();
    fcntl(file.as_fd(), FcntlArg::F_GETLK(&mut asked)).ok()?;
    let held = i32::from(asked.l_type) != libc::F_UNLCK;
    Some(asked.l_pid).filter(|&pid| held && pid > 0)
}

/// A lock for writing on all of a file.
fn whole() -> libc::flock {
    #[allow(clippy::cast_possible_truncation)] // both are small
    let (l_type, l_whence) = (libc::F_WRLCK as libc::c_short, libc::SEEK_SET as libc::c_short);
    libc::flock { l_type, l_whence, l_start: 0, l_len: 0, l_pid: 0 }
}

/// Whether this is the file that the path names now.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match std::fs::metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(cause) => Err(cause),
    }
}

/// Whether nothing is in the file but what a pid file has.
fn holds_pid(file: &mut File) -> io::Result<bool> {
    const LONGEST: u64 = 32;
    let mut text = Vec::new();
    file.take(LONGEST).read_to_end(&mut text)?;
    Ok(text.iter().all(|byte| byte.is_ascii_digit() || byte.is_ascii_whitespace()))
}

/// The file is never empty in between, for whoever reads it without a lock.
fn write(file: &File, pid: i32) -> io::Result<()> {
    let text = format!("{pid}\n");
    file.write_all_at(text.as_bytes(), 0)?;
    file.set_len(text.len() as u64)
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held { path, pid: Some(pid) } => {
                write!(f, "already running as pid {pid} (pidFile = {}); stop it first", path.display())
            }
            Self::Held { path, pid: None } => {
                write!(f, "already running (pidFile = {} is locked); stop it first", path.display())
            }
            Self::NotAPid { path } => write!(
                f,
                "cannot use pidFile = {}: it holds something else than a pid; move it away or name another file",
                path.display()
            ),
            Self::Io { path, cause } => write!(
                f,
                "cannot use pidFile = {}: {cause}; its folder must exist, and this user must be allowed to write there",
                path.display()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process::{fork_child, pid};

    /// What a process of its own finds when it claims the file: 0 it has it, 1 this process has it, 2 something else.
    fn claimed_by_another(path: &Path) -> i32 {
        let me = pid();
        let child = fork_child(|| match PidFile::claim(path, Duration::ZERO) {
            Ok(claimed) => {
                claimed.release();
                0
            }
            Err(Error::Held { pid, .. }) if pid == Some(me) => 1,
            Err(_) => 2,
        });
        let ended = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(child.unwrap()), None).unwrap();
        match ended {
            nix::sys::wait::WaitStatus::Exited(_, code) => code,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_file_has_the_pid_the_lock_has_its_process_and_the_end_removes_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        // Of a master that is dead; a process with that number is alive again.
        std::fs::write(&path, "1\nmuch longer than a pid once was, in digits: no").unwrap();
        assert!(matches!(PidFile::claim(&path, Duration::ZERO), Err(Error::NotAPid { .. })));
        std::fs::write(&path, "            1          ").unwrap();
        let claimed = PidFile::claim(&path, Duration::ZERO).unwrap();
        // To open it here would end the lock.
        let mut text = [0; 64];
        let length = claimed.locked.read_at(&mut text, 0).unwrap();
        assert_eq!(text[..length], *format!("{}\n", pid()).as_bytes());
        assert_eq!(claimed_by_another(&path), 1);
        // A child that drops its copy takes nothing from its parent.
        let mut copy = Some(claimed);
        let child = fork_child(|| {
            drop(copy.take());
            0
        });
        nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(child.unwrap()), None).unwrap();
        assert!(path.exists());
        assert_eq!(claimed_by_another(&path), 1);
        drop(copy);
        assert!(!path.exists());
        assert_eq!(claimed_by_another(&path), 0);
    }

    #[test]
    fn what_is_released_can_be_claimed_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        PidFile::claim(&path, Duration::ZERO).unwrap().release();
        assert!(path.exists());
        assert_eq!(claimed_by_another(&path), 0);
        let again = PidFile::claim(&path, Duration::ZERO).unwrap();
        assert_eq!(claimed_by_another(&path), 1);
        drop(again);
    }

    #[test]
    fn a_file_with_something_else_is_left_alone_and_a_missing_folder_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("precious");
        std::fs::write(&path, "precious").unwrap();
        let error = PidFile::claim(&path, Duration::ZERO).unwrap_err().to_string();
        assert!(error.contains("precious: it holds something else"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
        let error = PidFile::claim(&folder.path().join("no/pid"), Duration::ZERO).unwrap_err().to_string();
        assert!(error.contains("its folder must exist"), "{error}");
        assert!(PidFile::claim(folder.path(), Duration::ZERO).is_err());
    }
}
