//! Reads a directory that is open: what its entries are, without opening one. Knows nothing of listings.

use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{FileStat, SFlag, fstatat};

/// What stands in a directory, as lstat(2) has it: a link is itself, not what it leads to.
#[derive(Debug)]
pub(crate) struct Entry {
    pub name: Vec<u8>,
    pub kind: EntryKind,
    /// In bytes; that of a link is the length of its target's path.
    pub len: u64,
    /// `None` before 1970.
    pub modified: Option<SystemTime>,
}

/// The sorts of [`Entry`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryKind {
    /// A regular file.
    File,
    Directory,
    /// A symbolic link.
    Link,
    /// A FIFO, a device or a socket.
    Other,
}

/// At most `most` entries without `.` and `..`, in the order of the file system, and whether there are more.
///
/// An entry that vanishes meanwhile, or that cannot be looked at (where a dead file system is mounted), is left out.
/// `directory` was opened to be read (`O_RDONLY | O_DIRECTORY`) and not read yet.
///
/// # Errors
/// Those of readdir(3), and EACCES for a directory that may be read but not searched: no entry of it can be reached.
pub(crate) fn read(directory: OwnedFd, most: usize) -> io::Result<(Vec<Entry>, bool)> {
    let mut directory = Dir::from_fd(directory)?;
    look(&directory, c".")?;
    let names = directory.iter().map(|entry| entry.map(|entry| entry.file_name().to_owned()));
    let names = names.filter(|name| !name.as_deref().is_ok_and(|name| name == c"." || name == c".."));
    let mut names = names.take(most.saturating_add(1)).collect::<Result<Vec<_>, _>>()?;
    let more = names.len() > most;
    names.truncate(most);
    Ok((names.iter().filter_map(|name| entry(&directory, name)).collect(), more))
}

fn entry(directory: &Dir, name: &CStr) -> Option<Entry> {
    let stat = look(directory, name).ok()?;
    Some(Entry {
        name: name.to_bytes().to_vec(),
        kind: kind(&stat),
        len: u64::try_from(stat.st_size).unwrap_or(0),
        modified: modified(&stat),
    })
}

fn look(directory: &Dir, name: &CStr) -> Result<FileStat, Errno> {
    fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW)
}

fn kind(stat: &FileStat) -> EntryKind {
    match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFREG => EntryKind::File,
        SFlag::S_IFDIR => EntryKind::Directory,
        SFlag::S_IFLNK => EntryKind::Link,
        _ => EntryKind::Other,
    }
}

fn modified(stat: &FileStat) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(stat.st_mtime).ok()?))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs::{self, File};
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;
    use std::path::Path;
    use std::time::UNIX_EPOCH;

    use nix::sys::stat::Mode;

    use super::*;

    fn sorted(path: &Path, most: usize) -> (Vec<Entry>, bool) {
        let (mut entries, more) = read(File::open(path).unwrap().into(), most).unwrap();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        (entries, more)
    }

    #[test]
    fn entries_are_themselves_and_none_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        File::create(path("file")).unwrap().set_len(1 << 40).unwrap();
        let at = UNIX_EPOCH + Duration::from_secs(1_795_366_987);
        File::options().write(true).open(path("file")).unwrap().set_modified(at).unwrap();
        fs::create_dir(path("folder")).unwrap();
        symlink("/etc/passwd", path("link")).unwrap();
        nix::unistd::mkfifo(&path("queue"), Mode::S_IRWXU).unwrap(); // opening it would wait for its other end

        let (entries, more) = sorted(dir.path(), 100);
        let found: Vec<_> = entries.iter().map(|entry| (&entry.name[..], entry.kind)).collect();
        let expected = [
            (&b"file"[..], EntryKind::File),
            (b"folder", EntryKind::Directory),
            (b"link", EntryKind::Link),
            (b"queue", EntryKind::Other),
        ];
        assert_eq!(found, expected);
        assert!(!more);
        assert_eq!((entries[0].len, entries[0].modified), (1 << 40, Some(at)));
        assert_eq!(entries[2].len, 11);
    }

    #[test]
    fn at_most_so_many_are_read_and_more_are_told() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..5 {
            File::create(dir.path().join(number.to_string())).unwrap();
        }
        for (most, len, more) in [(0, 0, true), (4, 4, true), (5, 5, false), (6, 5, false), (usize::MAX, 5, false)] {
            let (entries, truncated) = sorted(dir.path(), most);
            assert_eq!((entries.len(), truncated), (len, more), "{most}");
        }
    }

    #[test]
    fn names_are_bytes_and_an_empty_folder_has_none() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(sorted(dir.path(), 0).0.len(), 0);
        assert!(!sorted(dir.path(), 0).1);
        for name in [&b"\xff\n"[..], b"...", b".hidden"] {
            File::create(dir.path().join(OsStr::from_bytes(name))).unwrap();
        }
        let names: Vec<_> = sorted(dir.path(), 9).0.into_iter().map(|entry| entry.name).collect();
        assert_eq!(names, [&b"..."[..], b".hidden", b"\xff\n"]);
    }

    #[test]
    fn an_entry_that_vanished_is_none() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("here"), "").unwrap();
        let directory = Dir::from_fd(File::open(dir.path()).unwrap().into()).unwrap();
        assert!(entry(&directory, c"here").is_some());
        assert!(entry(&directory, c"gone").is_none());
    }

    #[test]
    fn a_time_before_1970_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let early = UNIX_EPOCH - Duration::from_secs(1);
        File::create(dir.path().join("old")).unwrap().set_modified(early).unwrap();
        assert_eq!(sorted(dir.path(), 1).0[0].modified, None);
    }
}
