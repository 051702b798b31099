//! Finds what is to be compressed beneath a folder, and sweeps away what runs that were killed have left.
//!
//! Follows no links, so that nothing outside the folder is touched.

use std::cmp::Reverse;
use std::fs::{self, DirEntry, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::plan::{self, Neighbour, Verdict};
use super::tally::Tally;
use super::trouble::Trouble;
use super::{Watch, make};
use crate::h1::Coding;

/// A neighbour to make.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Job {
    /// The file.
    pub(super) path: Arc<Path>,
    /// Its size when it was found, in bytes.
    pub(super) size: u64,
    pub(super) coding: Coding,
}

impl Job {
    /// The path of the neighbour.
    pub(super) fn target(&self) -> PathBuf {
        let mut target = self.path.as_os_str().to_owned();
        target.push(".");
        target.push(self.coding.extension());
        target.into()
    }
}

/// The jobs, the largest first so that no thread is left with one in the end; and what needs none.
pub(super) fn find(folder: &Path, watch: &Watch) -> (Vec<Job>, Tally) {
    let (jobs, outdated, tally, folders) = (Vec::new(), Vec::new(), Tally::default(), vec![folder.to_owned()]);
    let mut walk = Walk { watch, jobs, outdated, tally, folders };
    while let Some(folder) = walk.folders.pop() {
        if let Err(cause) = walk.look_into(&folder) {
            walk.fail(&Trouble::new("read the folder", &folder, &cause));
        }
    }
    // Not before, for they are met on the way.
    for outdated in std::mem::take(&mut walk.outdated) {
        if let Err(cause) = fs::remove_file(&outdated) {
            walk.fail(&Trouble::new("remove the outdated", &outdated, &cause));
        }
    }
    walk.jobs.sort_by_key(|job| Reverse(job.size));
    (walk.jobs, walk.tally)
}

struct Walk<'a> {
    watch: &'a Watch,
    jobs: Vec<Job>,
    /// Neighbours of other versions of files that are not worth compressing now.
    outdated: Vec<PathBuf>,
    tally: Tally,
    /// Those still to be looked into.
    folders: Vec<PathBuf>,
}

impl Walk<'_> {
    fn look_into(&mut self, folder: &Path) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            if self.watch.is_stopped() {
                self.folders.clear();
                break;
            }
            let entry = entry?;
            if let Err(cause) = self.look_at(&entry) {
                self.fail(&Trouble::new("look at", &entry.path(), &cause));
            }
        }
        Ok(())
    }

    fn look_at(&mut self, entry: &DirEntry) -> io::Result<()> {
        let (name, kind) = (entry.file_name(), entry.file_type()?);
        if name.as_bytes().starts_with(b".") {
            make::sweep(entry);
        } else if kind.is_dir() {
            self.folders.push(entry.path());
        } else if kind.is_file() {
            let metadata = entry.metadata()?;
            if plan::has_neighbours(name.as_bytes()) {
                self.look_beside(&entry.path(), &metadata)?;
            }
        }
        Ok(())
    }

    fn look_beside(&mut self, path: &Path, metadata: &Metadata) -> io::Result<()> {
        let modified = metadata.modified()?;
        let path = Arc::from(path);
        for coding in Coding::ALL {
            let job = Job { path: Arc::clone(&path), size: metadata.len(), coding };
            self.judge(job, modified);
        }
        Ok(())
    }

    fn judge(&mut self, job: Job, modified: SystemTime) {
        let target = job.target();
        match neighbour_at(&target).map(|neighbour| plan::judge(modified, job.size, neighbour)) {
            Ok(Verdict::UpToDate) => self.tally.up_to_date += 1,
            Ok(Verdict::Make) => self.jobs.push(job),
            Ok(Verdict::Nothing) => {}
            Ok(Verdict::Remove) => self.outdated.push(target),
            Ok(Verdict::Taken) => self.fail(&Trouble::taken(&target)),
            Err(cause) => self.fail(&Trouble::new("look at", &target, &cause)),
        }
    }

    fn fail(&mut self, trouble: &Trouble) {
        self.watch.say(trouble);
        self.tally.failed += 1;
    }
}

/// What is there now; a link is not followed.
pub(super) fn neighbour_at(target: &Path) -> io::Result<Neighbour> {
    match fs::symlink_metadata(target) {
        Ok(metadata) if metadata.is_file() => Ok(Neighbour::File(metadata.modified()?)),
        Ok(_) => Ok(Neighbour::Other),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Neighbour::Absent),
        Err(error) => Err(error),
    }
}
