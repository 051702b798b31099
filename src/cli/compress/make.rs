//! Makes one neighbour: compressed into a draft, a dotfile beside it, which gets the neighbour's name when it is whole.
//!
//! A draft is locked as long as its run lives, so that a later run can tell one that was left behind by `kill -9`.

use std::fs::{self, DirEntry, File, Metadata, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::Path;
use std::thread;
use std::time::Duration;

use tempfile::NamedTempFile;

use super::encode::{BLOCK, encoder};
use super::plan::Neighbour;
use super::trouble::Trouble;
use super::walk::{Job, neighbour_at};
use super::{Watch, plan};
use crate::sys::plain_file;
use crate::sys::version::{Clock, Version};

/// What came of a job.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It is there; the bytes of the file and its own.
    Made { from: u64, to: u64 },
    /// It would save too little, and is not there.
    NotSmaller,
    /// We were told to stop.
    Stopped,
}

/// Makes the neighbour, of one version of the file. When that changes meanwhile, it is tried once more.
pub(super) fn neighbour(job: &Job, watch: &Watch) -> Result<Outcome, Trouble> {
    for _ in 0..2 {
        if watch.is_stopped() {
            return Ok(Outcome::Stopped);
        }
        if let Some(outcome) = attempt(job, watch)? {
            return Ok(outcome);
        }
    }
    Err(Trouble::restless(&job.path))
}

/// `None` where the file changed.
fn attempt(job: &Job, watch: &Watch) -> Result<Option<Outcome>, Trouble> {
    let (path, target) = (&*job.path, job.target());
    let (file, version) = open(path).map_err(|cause| Trouble::new("read", path, &cause))?;
    let mut draft = new_draft(path).map_err(|cause| Trouble::new("write beside", path, &cause))?;
    let from = version.len();
    let source = Source { file: file.take(from), watch };
    let compressed = compress(job, source, from, draft.as_file_mut());
    if watch.is_stopped() {
        return Ok(Some(Outcome::Stopped));
    }
    if !is_still(path, &version) {
        return Ok(None);
    }
    let to = compressed?;
    if !plan::is_smaller(from, to) {
        remove_outdated(&target).map_err(|cause| Trouble::new("remove the outdated", &target, &cause))?;
        return Ok(Some(Outcome::NotSmaller));
    }
    complete(draft.as_file(), &version).map_err(|cause| Trouble::new("complete", &target, &cause))?;
    if !is_still(path, &version) {
        return Ok(None);
    }
    draft.persist(&target).map_err(|failed| Trouble::new("put in place", &target, &failed.error))?;
    Ok(Some(Outcome::Made { from, to }))
}

fn open(path: &Path) -> io::Result<(File, Metadata)> {
    let file = plain_file::open(path)?;
    wait_for_a_tick_without_a_write(&file)?;
    let metadata = file.metadata()?;
    if metadata.is_file() { Ok((file, metadata)) } else { Err(io::Error::other("it is no regular file any more")) }
}

/// Two versions of one tick of the clock that files are stamped with could not be told apart. Not for ever: a file that
/// is written to without a pause is known by that later.
fn wait_for_a_tick_without_a_write(file: &File) -> io::Result<()> {
    const MOMENT: Duration = Duration::from_millis(5);
    for _ in 0..20 {
        let clock = Clock::read();
        if Version::of(file)?.is_settled(clock) {
            break;
        }
        thread::sleep(MOMENT);
    }
    Ok(())
}

/// Whether the path still leads to the file, unchanged.
fn is_still(path: &Path, version: &Metadata) -> bool {
    let identity = |m: &Metadata| (m.dev(), m.ino(), m.len(), m.mtime(), m.mtime_nsec());
    fs::symlink_metadata(path).is_ok_and(|now| identity(&now) == identity(version))
}

/// The bytes written.
fn compress(job: &Job, source: Source<'_>, size: u64, draft: &mut File) -> Result<u64, Trouble> {
    let cannot_read = |cause| Trouble::new("compress", &job.path, &cause);
    let mut encoder = encoder(job.coding, source, size).map_err(cannot_read)?;
    let mut block = vec![0; BLOCK];
    let mut written = 0;
    loop {
        let length = encoder.read(&mut block).map_err(cannot_read)?;
        if length == 0 {
            return Ok(written);
        }
        // `read` returns at most what it was given room for.
        draft.write_all(&block[..length]).map_err(|cause| Trouble::new("write", &job.target(), &cause))?;
        written += length as u64;
    }
}

/// The bytes of a file, until we are told to stop.
struct Source<'a> {
    file: io::Take<File>,
    watch: &'a Watch,
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.watch.is_stopped() {
            return Err(io::Error::other("stopped by a signal"));
        }
        let length = self.file.read(buffer)?;
        self.watch.bar.inc(length as u64);
        Ok(length)
    }
}

/// Whatever file is there is of another version: one of this was not to be made.
fn remove_outdated(target: &Path) -> io::Result<()> {
    match neighbour_at(target)? {
        Neighbour::File(_) => fs::remove_file(target),
        Neighbour::Absent | Neighbour::Other => Ok(()),
    }
}

/// Gives the draft the time, permissions and owner of its file, and has it written to the disk: a neighbour that had
/// its name, but after a crash not its bytes, would count as up to date for ever.
fn complete(draft: &File, version: &Metadata) -> io::Result<()> {
    draft.set_modified(version.modified()?)?;
    // As gzip does, who may not give files away keeps them; never for a moment is it open to more than the file was.
    let has_group = fchown(draft, None, Some(version.gid())).is_ok();
    let _ = draft.set_permissions(Permissions::from_mode(permissions(version.mode(), has_group)));
    let _ = fchown(draft, Some(version.uid()), None);
    draft.sync_all()
}

/// Those of a file with this mode. A group that is not the file's gets what all others get, and no more than the file's.
fn permissions(mode: u32, has_group: bool) -> u32 {
    let of_group = if has_group { 0o070 } else { (mode & 0o007) << 3 };
    mode & (0o707 | of_group)
}

const DRAFT_PREFIX: &str = ".regrow-";
const DRAFT_RANDOM: usize = 12;

/// A draft beside the file, locked; it is removed when it is dropped.
fn new_draft(path: &Path) -> io::Result<NamedTempFile> {
    let folder = path.parent().unwrap_or(Path::new(""));
    loop {
        let draft = tempfile::Builder::new().prefix(DRAFT_PREFIX).rand_bytes(DRAFT_RANDOM).tempfile_in(folder)?;
        // Where the file system has no locks, no other run can take one and sweep it away either.
        let is_locked = plain_file::try_lock(draft.as_file()).unwrap_or(true);
        // Another run may have swept it away before it was locked.
        if is_locked && draft.as_file().metadata()?.nlink() > 0 {
            return Ok(draft);
        }
    }
}

/// Removes a draft that nobody holds. What cannot be opened or removed is not ours, and stays.
pub(super) fn sweep(entry: &DirEntry) {
    let is_left = || {
        let file = plain_file::open(&entry.path())?;
        Ok::<_, io::Error>(file.metadata()?.is_file() && plain_file::try_lock(&file)?)
    };
    if is_draft(entry.file_name().as_bytes()) && is_left().unwrap_or(false) {
        let _ = fs::remove_file(entry.path());
    }
}

fn is_draft(name: &[u8]) -> bool {
    let random = name.strip_prefix(DRAFT_PREFIX.as_bytes());
    random.is_some_and(|random| random.len() == DRAFT_RANDOM && random.iter().all(u8::is_ascii_alphanumeric))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_neighbour_is_open_to_no_other_group_than_its_file() {
        for (mode, with_group, without) in
            [(0o100_644, 0o644, 0o644), (0o100_640, 0o640, 0o600), (0o100_664, 0o664, 0o644), (0o106_755, 0o755, 0o755)]
        {
            assert_eq!([true, false].map(|has_group| permissions(mode, has_group)), [with_group, without], "{mode:o}");
        }
    }

    #[test]
    fn a_draft_is_known_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let draft = new_draft(&folder.path().join("a.js")).unwrap();
        assert!(is_draft(draft.path().file_name().unwrap().as_bytes()));
        for name in ["a.js", ".regrow-", ".regrow-0123456789a", ".regrow-0123456789abc", ".regrow-0123.5678.ab"] {
            assert!(!is_draft(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn a_draft_is_swept_away_only_when_nobody_holds_it() {
        let folder = tempfile::tempdir().unwrap();
        let draft = new_draft(&folder.path().join("a.js")).unwrap();
        let sweep_all = || fs::read_dir(folder.path()).unwrap().for_each(|entry| sweep(&entry.unwrap()));
        sweep_all();
        assert!(draft.path().exists());
        let (file, path) = draft.keep().unwrap();
        drop(file);
        sweep_all();
        assert!(!path.exists());
    }
}
