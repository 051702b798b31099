//! A listening Unix domain socket and its file: a dead server's is replaced, a living one's is respected, and only
//! the one who made it removes it.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, Ordering};

use socket2::{Domain, SockAddr, Socket, Type};

use super::Error;
use crate::sys;

/// The file of a listening socket, known by its inode and, because numbers are used again, when it was made. It is
/// removed when this is dropped, if it is still the same.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    made: (u64, u64, i64, i64),
    /// The process that is to remove it; its children do not.
    owner: AtomicI32,
}

impl SocketFile {
    /// The file of a socket that another process has made, and is to remove.
    pub fn inherit(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), made: identity(path)?, owner: AtomicI32::new(0) })
    }

    /// It is this process's from now on.
    pub fn adopt(&self) {
        self.owner.store(sys::process::pid(), Ordering::Relaxed);
    }

    /// It is another process's from now on.
    pub fn disown(&self) {
        self.owner.store(0, Ordering::Relaxed);
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if sys::process::pid() == self.owner.load(Ordering::Relaxed) && identity(&self.path).ok() == Some(self.made) {
            if let Err(cause) = std::fs::remove_file(&self.path) {
                ::log::warn!("cannot remove {}: {cause}", self.path.display());
            }
        }
    }
}

/// Where a socket is to be, which option says so, and the permissions of its file.
#[derive(Clone, Copy)]
pub(super) struct Spot<'a> {
    pub path: &'a Path,
    pub option: &'static str,
    pub mode: u32,
}

pub(super) fn bind(spot: Spot<'_>, backlog: i32) -> Result<(OwnedFd, SocketFile), Error> {
    make_room(spot)?;
    open(spot.path, spot.mode, backlog).map_err(|cause| spot.failed(cause))
}

/// Puts a socket in the place of one that may be alive: who connects meanwhile reaches one or the other. The server
/// that has the other goes on with whoever has connected to it, and does not remove this file when it ends.
pub(super) fn take_over(spot: Spot<'_>, backlog: i32) -> Result<(OwnedFd, SocketFile), Error> {
    if std::fs::symlink_metadata(spot.path).is_ok_and(|there| !there.file_type().is_socket()) {
        return Err(Error::NotASocket { path: spot.path.to_owned(), option: spot.option });
    }
    // Short, for the address of a socket has little room.
    let beside = spot.path.with_file_name(format!(".{}", sys::process::pid()));
    // Of a process with the same number that did not get as far as its end.
    let _ = std::fs::remove_file(&beside);
    let moved = open(&beside, spot.mode, backlog).and_then(|(socket, mut file)| {
        std::fs::rename(&beside, spot.path)?;
        spot.path.clone_into(&mut file.path);
        Ok((socket, file))
    });
    moved.map_err(|cause| spot.failed(cause))
}

impl Spot<'_> {
    fn failed(&self, cause: io::Error) -> Error {
        Error::BindFile { path: self.path.to_owned(), option: self.option, cause }
    }
}

/// Removes a socket on which nobody listens any more.
fn make_room(spot: Spot<'_>) -> Result<(), Error> {
    let Spot { path, option, .. } = spot;
    let Ok(there) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !there.file_type().is_socket() {
        return Err(Error::NotASocket { path: path.to_owned(), option });
    }
    let failed = |cause| spot.failed(cause);
    match connect(path) {
        Err(cause) if cause.kind() == io::ErrorKind::ConnectionRefused => {
            ::log::info!("replacing {}, the socket of a server that is gone", path.display());
            std::fs::remove_file(path).map_err(failed)
        }
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(cause) if cause.kind() == io::ErrorKind::PermissionDenied => Err(failed(cause)),
        // Whoever answers, has a full queue or speaks otherwise (EPROTOTYPE) is alive.
        Ok(()) | Err(_) => Err(Error::ServerAlive { path: path.to_owned(), option }),
    }
}

/// Does not wait where the queue is full.
fn connect(path: &Path) -> io::Result<()> {
    Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?.connect(&SockAddr::unix(path)?)
}

fn open(path: &Path, mode: u32, backlog: i32) -> io::Result<(OwnedFd, SocketFile)> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    // Nobody can connect before listen(2), so the permissions are right from the first connection.
    socket.bind(&SockAddr::unix(path)?)?;
    permit(path, mode)?;
    let file = SocketFile::inherit(path)?;
    file.adopt();
    socket.listen(backlog)?;
    Ok((socket.into(), file))
}

/// Sets the permissions of a socket's file.
pub(super) fn permit(path: &Path, mode: u32) -> io::Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

fn identity(path: &Path) -> io::Result<(u64, u64, i64, i64)> {
    let found = std::fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino(), found.mtime(), found.mtime_nsec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(path: &Path, mode: u32, backlog: i32) -> Result<(OwnedFd, SocketFile), Error> {
        super::bind(Spot { path, option: "socketFile", mode }, backlog)
    }

    #[test]
    fn a_stale_file_is_replaced_a_live_one_and_a_plain_file_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let (socket, file) = bind(&path, 0o600, 5).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(bind(&path, 0o600, 5), Err(Error::ServerAlive { .. })));
        drop(socket);
        // Keeps the inode, whose number would otherwise be used again at once.
        std::fs::hard_link(&path, folder.path().join("kept")).unwrap();
        let (_alive, replaced) = bind(&path, 0o660, 5).unwrap();
        drop(file);
        assert!(path.exists(), "another socket's file is not ours to remove");
        drop(replaced);
        assert!(!path.exists());
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(bind(&path, 0o600, 5), Err(Error::NotASocket { .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn a_server_whose_queue_is_full_is_alive_and_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let _hung = bind(&path, 0o600, 0).unwrap();
        let clients = (0..100).map(|_| {
            let client = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None).unwrap();
            client.connect(&SockAddr::unix(&path).unwrap()).map(|()| client)
        });
        let _waiting: Vec<_> = clients.map_while(Result::ok).collect();
        assert_eq!(connect(&path).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert!(matches!(bind(&path, 0o600, 5), Err(Error::ServerAlive { .. })));
    }

    #[test]
    fn a_living_server_can_be_succeeded_without_a_moment_in_which_nobody_listens() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let spot = Spot { path: &path, option: "controlSocket", mode: 0o600 };
        let (before, old_file) = bind(&path, 0o600, 5).unwrap();
        connect(&path).unwrap();
        let (_after, new_file) = take_over(spot, 5).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
        drop((before, old_file));
        connect(&path).unwrap();
        drop(new_file);
        assert!(!path.exists());
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(take_over(spot, 5), Err(Error::NotASocket { .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }
}
