//! Opens what lies beneath a folder, for reading, however its links and directories are moved about meanwhile.
//! Knows nothing of URLs and responses.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};

/// A folder, held open, beneath which files are opened.
#[derive(Debug)]
pub(crate) struct Root {
    directory: OwnedFd,
    confinement: Confinement,
}

/// What keeps an opened path beneath its root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Confinement {
    /// The kernel by openat2(2) where it can, else the walk. Links are followed as long as they stay beneath.
    Beneath,
    /// The walk at once, as where the kernel cannot: so that tests see that the outcome is the same.
    #[cfg(test)]
    BeneathByWalk,
    /// Nothing: links lead wherever they lead.
    LinksLeadAnywhere,
}

/// A thing that was opened, and what fstat(2) said of it.
#[derive(Debug)]
pub(crate) struct Opened {
    pub file: File,
    pub kind: Kind,
    /// In bytes.
    pub len: u64,
    /// When it was last modified, but not later than now; `None` before 1970.
    pub modified: Option<SystemTime>,
}

/// What a path may lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A regular file.
    File,
    Directory,
    /// A FIFO or a device. (A socket cannot be opened: ENXIO.)
    Other,
}

/// Why nothing was opened.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub reason: Reason,
    errno: Errno,
}

/// The sorts of [`Failure`], by what is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Nothing is there, or nothing that is beneath the folder.
    Absent,
    /// A socket, or a device that the machine lacks.
    Special,
    /// Our user may not.
    Denied,
    /// Descriptors or memory ran out.
    Exhausted,
    /// It kept being moved about, or another process holds a lease on it (fcntl(2), `F_SETLEASE`).
    Contended,
    /// Something else: a bad disk, a network file system that is gone.
    Broken,
}

/// One open and one fstat(2) is all that a regular file costs. A look at what it is before it is opened would be a
/// third call for every request, for the sake of things that only the site's owner can put there. So a FIFO or a
/// device is opened too, but without waiting for its other end, without becoming our terminal, and is never read.
const FILE: OFlag = OFlag::O_RDONLY.union(OFlag::O_NONBLOCK).union(OFlag::O_NOCTTY).union(OFlag::O_CLOEXEC);

/// A directory on the way needs permission to be searched, not to be read.
#[cfg(target_os = "linux")]
const DIRECTORY: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);
#[cfg(not(target_os = "linux"))]
const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

/// How many links one path may lead through, as Linux has it: `path_resolution(7)`.
const MAX_LINKS: u32 = 40;

/// How often an open is tried that was interrupted or, by openat2(2), raced with a rename.
const ATTEMPTS: u32 = 8;

impl Root {
    /// Opens the folder `path`.
    ///
    /// # Errors
    /// It is missing, not a directory, or not to be reached.
    pub fn open(path: &Path, confinement: Confinement) -> io::Result<Self> {
        let directory = nix::fcntl::open(path, DIRECTORY, Mode::empty())?;
        Ok(Self { directory, confinement })
    }

    /// Opens what is at `relative`, which has no NUL bytes; an empty path is the folder itself. Never waits for the
    /// other end of a FIFO.
    ///
    /// # Errors
    /// Those of openat2(2), by what to do about them.
    pub fn open_beneath(&self, relative: &[u8]) -> Result<Opened, Failure> {
        self.open_and_look(relative).map_err(Failure::from)
    }

    fn open_and_look(&self, relative: &[u8]) -> Result<Opened, Errno> {
        let relative = OsStr::from_bytes(if relative.is_empty() { b"." } else { relative });
        let root = self.directory.as_fd();
        let opened = match self.confinement {
            Confinement::Beneath => open_by_kernel(root, relative)?,
            #[cfg(test)]
            Confinement::BeneathByWalk => walk(root, relative)?,
            Confinement::LinksLeadAnywhere => attempt(|| openat(root, relative, FILE, Mode::empty()))?,
        };
        let stat = fstat(&opened)?;
        Ok(Opened {
            file: opened.into(),
            kind: kind(&stat),
            len: u64::try_from(stat.st_size).unwrap_or(0),
            modified: modified(&stat),
        })
    }
}

/// openat2(2) is missing before Linux 5.6 and in gVisor, and some seccomp filters refuse it with EPERM.
#[cfg(target_os = "linux")]
fn open_by_kernel(root: BorrowedFd<'_>, relative: &OsStr) -> Result<OwnedFd, Errno> {
    use nix::fcntl::{OpenHow, ResolveFlag, openat2};

    let beneath = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    let how = OpenHow::new().flags(FILE).resolve(beneath);
    match attempt(|| openat2(root, relative, how)) {
        Err(Errno::ENOSYS | Errno::EPERM) => walk(root, relative),
        outcome => outcome,
    }
}

#[cfg(not(target_os = "linux"))]
fn open_by_kernel(root: BorrowedFd<'_>, relative: &OsStr) -> Result<OwnedFd, Errno> {
    walk(root, relative)
}

/// Enters one directory after the other without following a link, and reads each link itself. `..`, which only
/// links contain, goes back to the descriptor it came from, so that a directory moved away meanwhile leads nowhere.
fn walk(root: BorrowedFd<'_>, relative: &OsStr) -> Result<OwnedFd, Errno> {
    let mut ahead: Vec<OsString> = Vec::new(); // the next one last
    let mut entered: Vec<OwnedFd> = Vec::new();
    let mut links = 0;
    push_segments(&mut ahead, relative);
    while let Some(segment) = ahead.pop() {
        match segment.as_bytes() {
            b"" | b"." => continue,
            b".." => {
                entered.pop().ok_or(Errno::EXDEV)?;
                continue;
            }
            _ => {}
        }
        let here = entered.last().map_or(root, AsFd::as_fd);
        let flags = if ahead.is_empty() { FILE } else { DIRECTORY };
        match attempt(|| openat(here, segment.as_os_str(), flags | OFlag::O_NOFOLLOW, Mode::empty())) {
            Ok(opened) if ahead.is_empty() => return Ok(opened),
            Ok(directory) => entered.push(directory),
            // What a link is refused with differs: ELOOP, ENOTDIR where a directory is wanted, EMLINK on FreeBSD.
            Err(refusal @ (Errno::ELOOP | Errno::ENOTDIR | Errno::EMLINK)) => {
                let target = readlinkat(here, segment.as_os_str()).map_err(|_| refusal)?;
                links += 1;
                follow(&mut ahead, &target, links)?;
            }
            Err(error) => return Err(error),
        }
    }
    let here = entered.last().map_or(root, AsFd::as_fd);
    attempt(|| openat(here, ".", FILE, Mode::empty()))
}

/// Puts the way a link points in front of what is ahead.
fn follow(ahead: &mut Vec<OsString>, target: &OsStr, links: u32) -> Result<(), Errno> {
    if links > MAX_LINKS {
        return Err(Errno::ELOOP);
    }
    if target.as_bytes().starts_with(b"/") {
        return Err(Errno::EXDEV);
    }
    push_segments(ahead, target);
    Ok(())
}

fn push_segments(ahead: &mut Vec<OsString>, path: &OsStr) {
    let segments = path.as_bytes().rsplit(|&byte| byte == b'/');
    ahead.extend(segments.map(|segment| OsStr::from_bytes(segment).to_owned()));
}

fn attempt(open: impl Fn() -> Result<OwnedFd, Errno>) -> Result<OwnedFd, Errno> {
    for _ in 1..ATTEMPTS {
        match open() {
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            outcome => return outcome,
        }
    }
    open()
}

#[cfg(test)]
impl Failure {
    /// One with this reason.
    pub fn example(reason: Reason) -> Self {
        Self { reason, errno: Errno::UnknownErrno }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Errno::from_raw(error.raw_os_error().unwrap_or(nix::libc::EIO)).into()
    }
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        let reason = match errno {
            Errno::ENOENT | Errno::ENOTDIR | Errno::ENAMETOOLONG | Errno::ELOOP | Errno::EXDEV => Reason::Absent,
            Errno::ENXIO | Errno::ENODEV | Errno::EOPNOTSUPP => Reason::Special,
            Errno::EACCES | Errno::EPERM => Reason::Denied,
            Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM => Reason::Exhausted,
            Errno::EAGAIN | Errno::EINTR => Reason::Contended,
            _ => Reason::Broken,
        };
        Self { reason, errno }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.errno.fmt(f)
    }
}

fn kind(stat: &FileStat) -> Kind {
    match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFREG => Kind::File,
        SFlag::S_IFDIR => Kind::Directory,
        _ => Kind::Other,
    }
}

fn modified(stat: &FileStat) -> Option<SystemTime> {
    let since_epoch = Duration::from_secs(u64::try_from(stat.st_mtime).ok()?);
    let modified = SystemTime::UNIX_EPOCH.checked_add(since_epoch)?;
    Some(modified.min(SystemTime::now()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;
    use std::os::unix::fs::symlink;

    use super::*;

    /// `root/` with a file `in` and folders `a/b`; `outside` beside it.
    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("root/a/b")).unwrap();
        fs::write(dir.path().join("root/in"), "inside").unwrap();
        fs::write(dir.path().join("outside"), "secret").unwrap();
        dir
    }

    fn read(dir: &tempfile::TempDir, confinement: Confinement, path: &str) -> Result<String, Errno> {
        let root = Root::open(&dir.path().join("root"), confinement).unwrap();
        let mut opened = root.open_beneath(path.as_bytes()).map_err(|failure| failure.errno)?;
        let mut text = String::new();
        match opened.kind {
            Kind::Directory => Ok("directory".into()),
            Kind::File => opened.file.read_to_string(&mut text).map(|_| text).map_err(|_| Errno::EIO),
            Kind::Other => Ok("other".into()),
        }
    }

    #[test]
    fn kernel_and_walk_agree_on_every_path() {
        let dir = tree();
        for (target, link) in [
            ("in", "same"),
            ("../in", "a/up"),
            ("./../a//b/../../in", "a/winding"),
            ("b/", "a/slash"),
            (".", "a/here"),
            ("../..", "a/top"),
            ("..", "a/root"),
            ("../outside", "leaves"),
            ("a/b/../../../outside", "leaves_late"),
            ("/etc/passwd", "absolute"),
            ("/proc/self/fd", "magic"),
            ("loop", "loop"),
            ("missing", "dangling"),
            ("in/", "not_a_folder"),
        ] {
            symlink(target, dir.path().join("root").join(link)).unwrap();
        }
        for (path, expected) in [
            ("", Ok("directory")),
            ("in", Ok("inside")),
            ("a/b", Ok("directory")),
            ("same", Ok("inside")),
            ("a/up", Ok("inside")),
            ("a/winding", Ok("inside")),
            ("a/slash", Ok("directory")),
            ("a/here/up", Ok("inside")),
            ("a/root/in", Ok("inside")),
            ("a/top/outside", Err(Errno::EXDEV)),
            ("leaves", Err(Errno::EXDEV)),
            ("leaves_late", Err(Errno::EXDEV)),
            ("../outside", Err(Errno::EXDEV)),
            ("absolute", Err(Errno::EXDEV)),
            ("magic", Err(Errno::EXDEV)),
            ("magic/0", Err(Errno::EXDEV)),
            ("loop", Err(Errno::ELOOP)),
            ("dangling", Err(Errno::ENOENT)),
            ("missing", Err(Errno::ENOENT)),
            ("in/x", Err(Errno::ENOTDIR)),
            ("not_a_folder", Err(Errno::ENOTDIR)),
        ] {
            let expected = expected.map(str::to_owned);
            assert_eq!(read(&dir, Confinement::BeneathByWalk, path), expected, "walk: {path}");
            assert_eq!(read(&dir, Confinement::Beneath, path), expected, "kernel: {path}");
        }
    }

    #[test]
    fn errors_are_sorted_by_what_to_do() {
        for (errno, reason) in [
            (Errno::ENOENT, Reason::Absent),
            (Errno::EXDEV, Reason::Absent),
            (Errno::ENXIO, Reason::Special),
            (Errno::EACCES, Reason::Denied),
            (Errno::EMFILE, Reason::Exhausted),
            (Errno::ENFILE, Reason::Exhausted),
            (Errno::EAGAIN, Reason::Contended),
            (Errno::EIO, Reason::Broken),
        ] {
            assert_eq!(Failure::from(errno), Failure { reason, errno });
        }
    }

    #[test]
    fn unconfined_links_lead_anywhere() {
        let dir = tree();
        symlink("../outside", dir.path().join("root/leaves")).unwrap();
        assert_eq!(read(&dir, Confinement::LinksLeadAnywhere, "leaves"), Ok("secret".into()));
    }

    #[test]
    fn modification_in_the_future_is_now_and_before_1970_is_unknown() {
        let dir = tree();
        let file = File::create(dir.path().join("root/in")).unwrap();
        let root = Root::open(&dir.path().join("root"), Confinement::Beneath).unwrap();
        let modified = || root.open_beneath(b"in").unwrap().modified;
        let day = Duration::from_secs(86400);
        file.set_modified(SystemTime::now() + day).unwrap();
        assert!(modified().unwrap() <= SystemTime::now());
        file.set_modified(SystemTime::UNIX_EPOCH - day).unwrap();
        assert_eq!(modified(), None);
    }
}
