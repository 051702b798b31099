//! Looks at and opens what lies beneath a folder, however its links and directories are moved about meanwhile.
//! Knows nothing of URLs and responses.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};

use super::version::Version;

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

/// What is somewhere, as fstat(2) said of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub kind: Kind,
    pub version: Version,
}

/// What a path may lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A regular file.
    File,
    Directory,
    /// A FIFO, a device or a socket.
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
    /// Nothing is there.
    Absent,
    /// A link on the way leads out of the folder.
    Outside,
    /// The folder itself is not there.
    Rootless,
    /// A socket, or a device that the machine lacks.
    Special,
    /// Our user may not.
    Denied,
    /// Descriptors or memory ran out.
    Exhausted,
    /// It kept being moved about or changed, or another process holds a lease on it (fcntl(2), `F_SETLEASE`).
    Contended,
    /// Something else: a bad disk, a network file system that is gone.
    Broken,
}

/// Opening a FIFO lets its writer go on, and opening a device may do anything, so what is opened is looked at first.
/// Should it be exchanged in between, it is opened without waiting for its other end, without becoming our terminal, and
/// is not read.
const READ: OFlag = OFlag::O_RDONLY.union(OFlag::O_NONBLOCK).union(OFlag::O_NOCTTY).union(OFlag::O_CLOEXEC);

/// Opens nothing: the descriptor is good for fstat(2), and for what lies beneath it.
#[cfg(target_os = "linux")]
const LOOK: OFlag = OFlag::O_PATH.union(OFlag::O_CLOEXEC);
#[cfg(not(target_os = "linux"))]
const LOOK: OFlag = READ;

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

    /// Whether it is the very folder that `other` is.
    pub fn is_same(&self, other: &Self) -> bool {
        let identity = |root: &Self| fstat(&root.directory).map(|stat| (stat.st_dev, stat.st_ino));
        matches!((identity(self), identity(other)), (Ok(own), Ok(others)) if own == others)
    }

    /// Where a path leads, links out of the folder included: one call for what takes [`look`](Self::look) three. A file
    /// that is seen is to be believed only once it is opened, or where it is one that was.
    ///
    /// # Errors
    /// Those of stat(2), by what to do about them; they need not be those of a path beneath the folder.
    pub fn glance(&self, relative: &[u8]) -> Result<Seen, Failure> {
        #[cfg(target_os = "linux")]
        const HOW: AtFlags = AtFlags::AT_NO_AUTOMOUNT;
        #[cfg(not(target_os = "linux"))]
        const HOW: AtFlags = AtFlags::empty();
        Ok(seen(&fstatat(&self.directory, named(relative), HOW)?))
    }

    /// Looks at what is at `relative`, which has no NUL bytes, without opening it; an empty path is the folder itself.
    ///
    /// # Errors
    /// Those of openat2(2), by what to do about them.
    pub fn look(&self, relative: &[u8]) -> Result<Seen, Failure> {
        let found = self.reach(relative, LOOK)?;
        Ok(seen(&fstat(found)?))
    }

    /// Opens what is at `relative` for reading. To be called for what a look has shown to be a file or a directory.
    ///
    /// # Errors
    /// As [`look`](Self::look).
    pub fn open_beneath(&self, relative: &[u8]) -> Result<(File, Seen), Failure> {
        let opened = self.reach(relative, READ)?;
        let seen = seen(&fstat(&opened)?);
        Ok((opened.into(), seen))
    }

    fn reach(&self, relative: &[u8], how: OFlag) -> Result<OwnedFd, Errno> {
        let (root, relative) = (self.directory.as_fd(), named(relative));
        match self.confinement {
            Confinement::Beneath => reach_by_kernel(root, relative, how),
            #[cfg(test)]
            Confinement::BeneathByWalk => walk(root, relative, how),
            Confinement::LinksLeadAnywhere => attempt(|| openat(root, relative, how, Mode::empty())),
        }
    }
}

/// The folder itself has a name too.
fn named(relative: &[u8]) -> &OsStr {
    OsStr::from_bytes(if relative.is_empty() { b"." } else { relative })
}

/// openat2(2) is missing before Linux 5.6 and in gVisor, and some seccomp filters refuse it with EPERM.
#[cfg(target_os = "linux")]
fn reach_by_kernel(root: BorrowedFd<'_>, relative: &OsStr, how: OFlag) -> Result<OwnedFd, Errno> {
    use nix::fcntl::{OpenHow, ResolveFlag, openat2};

    let beneath = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    match attempt(|| openat2(root, relative, OpenHow::new().flags(how).resolve(beneath))) {
        Err(Errno::ENOSYS | Errno::EPERM) => walk(root, relative, how),
        outcome => outcome,
    }
}

#[cfg(not(target_os = "linux"))]
fn reach_by_kernel(root: BorrowedFd<'_>, relative: &OsStr, how: OFlag) -> Result<OwnedFd, Errno> {
    walk(root, relative, how)
}

/// Enters one directory after the other without following a link, and reads each link itself. `..`, which only
/// links contain, goes back to the descriptor it came from, so that a directory moved away meanwhile leads nowhere.
fn walk(root: BorrowedFd<'_>, relative: &OsStr, how: OFlag) -> Result<OwnedFd, Errno> {
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
        let flags = if ahead.is_empty() { how } else { DIRECTORY };
        match attempt(|| reach_without_links(here, &segment, flags)) {
            Ok(reached) if ahead.is_empty() => return Ok(reached),
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
    attempt(|| openat(here, ".", how, Mode::empty()))
}

fn reach_without_links(here: BorrowedFd<'_>, segment: &OsStr, how: OFlag) -> Result<OwnedFd, Errno> {
    let reached = openat(here, segment, how | OFlag::O_NOFOLLOW, Mode::empty())?;
    // A look sees the link itself (openat(2), O_PATH).
    if how == LOOK && file_type(&fstat(&reached)?) == SFlag::S_IFLNK {
        return Err(Errno::ELOOP);
    }
    Ok(reached)
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

impl Failure {
    /// What is to be opened is being changed at this very moment.
    pub const CHANGING: Self = Self { reason: Reason::Contended, errno: Errno::EAGAIN };

    /// There is no folder to look in.
    pub const ROOTLESS: Self = Self { reason: Reason::Rootless, errno: Errno::ENOENT };

    /// One with this reason.
    #[cfg(test)]
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
            Errno::ENOENT | Errno::ENOTDIR | Errno::ENAMETOOLONG | Errno::ELOOP => Reason::Absent,
            Errno::EXDEV => Reason::Outside,
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

fn seen(stat: &FileStat) -> Seen {
    let kind = match file_type(stat) {
        SFlag::S_IFREG => Kind::File,
        SFlag::S_IFDIR => Kind::Directory,
        _ => Kind::Other,
    };
    Seen { kind, version: Version::from_stat(stat) }
}

fn file_type(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
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
        let looked = root.look(path.as_bytes()).map_err(|failure| failure.errno);
        let opened = root.open_beneath(path.as_bytes()).map_err(|failure| failure.errno);
        assert_eq!(
            looked.map(|seen| (seen.kind, seen.version)),
            opened.as_ref().map(|(_, seen)| (seen.kind, seen.version)).map_err(|errno| *errno)
        );
        let (mut file, seen) = opened?;
        let mut text = String::new();
        match seen.kind {
            Kind::Directory => Ok("directory".into()),
            Kind::File => file.read_to_string(&mut text).map(|_| text).map_err(|_| Errno::EIO),
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
            (Errno::EXDEV, Reason::Outside),
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
    fn a_look_opens_nothing() {
        let dir = tree();
        nix::unistd::mkfifo(&dir.path().join("root/fifo"), Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        let write = OFlag::O_WRONLY | OFlag::O_NONBLOCK;
        let has_reader = || nix::fcntl::open(&dir.path().join("root/fifo"), write, Mode::empty()).is_ok();
        for confinement in [Confinement::Beneath, Confinement::BeneathByWalk, Confinement::LinksLeadAnywhere] {
            let root = Root::open(&dir.path().join("root"), confinement).unwrap();
            assert_eq!(root.look(b"fifo").unwrap().kind, Kind::Other);
            assert!(!has_reader());
        }
        let root = Root::open(&dir.path().join("root"), Confinement::Beneath).unwrap();
        let _reader = root.open_beneath(b"fifo").unwrap();
        assert!(has_reader());
    }

    #[test]
    fn a_folder_that_took_the_place_of_another_is_not_the_same() {
        let dir = tree();
        let open = || Root::open(&dir.path().join("root"), Confinement::Beneath).unwrap();
        let root = open();
        assert!(root.is_same(&open()));
        fs::rename(dir.path().join("root"), dir.path().join("old")).unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        assert!(!root.is_same(&open()));
    }
}
