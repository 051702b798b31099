//! Finds what a path beneath a folder leads to, and remembers it for a moment, files for longer. Knows nothing of
//! requests and responses.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderValue;

use super::cache::{Cache, Weight};
use super::found::{About, Form, Found, Neighbours};
use super::media_type::{by_name, is_compressible};
use crate::h1::Coding;
use crate::sys::open_beneath::{Confinement, Failure, Kind, Reason, Root, Seen};
use crate::sys::version::{Clock, Version};

/// A folder, and what was found in it.
#[derive(Debug)]
pub(super) struct Lookup {
    path: PathBuf,
    confinement: Confinement,
    precompressed: bool,
    cache_control: Option<HeaderValue>,
    /// The last open failed for want of descriptors or memory.
    starved: AtomicBool,
    state: Mutex<State>,
}

/// What is remembered from one request to the next.
#[derive(Debug)]
struct State {
    root: Arc<Root>,
    root_checked: Duration,
    /// The folder could not be opened anew, and that was logged.
    root_lost: bool,
    files: Cache<Arc<Found>>,
}

/// What a path leads to.
pub(super) enum Place {
    File(Arc<Found>),
    Directory,
    Other,
}

/// How long a name is taken for what it led to, and the root for the folder that it was. A change is seen so much later
/// at most; a second is promised, and the other half of it is for machines that are busy.
const FRESH_FOR: Duration = Duration::from_millis(500);

/// How long a file is kept that nobody asks for.
const UNUSED_FOR: Duration = Duration::from_secs(10);

/// What the files of a worker may hold together.
const ROOM: Weight = Weight { bytes: 16 << 20, descriptors: 256 };

/// What the files of one of so many folders may hold: at least a descriptor in each generation, or none is ever kept.
fn share_of_room(folders: usize) -> Weight {
    let share = |room: usize| room / folders.max(1);
    Weight { bytes: share(ROOM.bytes), descriptors: share(ROOM.descriptors).max(2) }
}

impl Lookup {
    /// Opens the folder at `path`, one of so many `folders` that share what files may hold.
    pub(super) fn open(
        path: &Path,
        confinement: Confinement,
        folders: usize,
        options: &super::Options,
    ) -> io::Result<Self> {
        let root = Arc::new(Root::open(path, confinement)?);
        let files = Cache::new(share_of_room(folders));
        let state = State { root, root_checked: Duration::ZERO, root_lost: false, files };
        Ok(Self {
            path: path.to_owned(),
            confinement,
            precompressed: options.precompressed,
            cache_control: options.cache_control.clone(),
            starved: AtomicBool::new(false),
            state: Mutex::new(state),
        })
    }

    /// For a log line, which what clients make up must not break.
    pub(super) fn shown(&self, relative: &[u8]) -> String {
        let path = self.path.join(String::from_utf8_lossy(relative).as_ref());
        format!("{:?}", path.to_string_lossy())
    }

    /// What there is at `relative`. A file that was looked at a moment ago is not looked at again.
    ///
    /// # Errors
    /// Why it cannot be opened; [`Failure::CHANGING`] while it is being written to.
    pub(super) fn find(&self, relative: &[u8], form: Form, now: Duration) -> Result<Place, Failure> {
        let coded_name;
        let name = match form {
            Form::Plain => relative,
            Form::Coded(coding) => {
                // No path has a NUL.
                coded_name = [relative, b"\0", coding.extension().as_bytes()].concat();
                &coded_name
            }
        };
        let (root, known) = {
            let mut state = self.lock();
            self.look_for_root(&mut state, now);
            match state.files.find(name) {
                Some(kept) if now.saturating_sub(kept.checked) < FRESH_FOR && kept.value.is_unchanged() => {
                    return Ok(Place::File(kept.value));
                }
                kept => (Arc::clone(&state.root), kept.map(|kept| kept.value)),
            }
        };
        let loaded = self.load(&root, relative, form, known);
        let mut state = self.lock();
        match &loaded {
            Ok(Place::File(found)) => state.files.keep(name, Arc::clone(found), found.weight(), now),
            Ok(Place::Directory | Place::Other) | Err(_) => state.files.forget(name),
        }
        loaded
    }

    /// Looks, and opens what is not `known`.
    fn load(&self, root: &Root, relative: &[u8], form: Form, known: Option<Arc<Found>>) -> Result<Place, Failure> {
        let path = form.path(relative);
        let seen = self.look_for_file(root, &path)?;
        match seen.kind {
            Kind::File => {}
            Kind::Directory => return Ok(Place::Directory),
            Kind::Other => return Ok(Place::Other),
        }
        let neighbours = match form {
            Form::Plain => self.neighbours(root, relative, &seen.version),
            Form::Coded(_) => Neighbours::default(),
        };
        let is_the_same = |known: &Arc<Found>| {
            known.version == seen.version && known.neighbours == neighbours && !known.must_be_read_again()
        };
        if let Some(known) = known.filter(is_the_same).filter(|known| known.is_unchanged()) {
            return Ok(Place::File(known));
        }
        let clock = Clock::read();
        let (file, seen) = self.with_descriptors(|| root.open_beneath(&path))?;
        if seen.kind != Kind::File {
            return Err(Failure::CHANGING);
        }
        let about = About { name: relative, form, neighbours, cache_control: self.cache_control.as_ref() };
        Ok(Place::File(Arc::new(Found::take(file, seen, clock, &about)?)))
    }

    /// Most of what is asked for are files, and the rest is nothing: of these a glance is enough. Of whatever else there
    /// is, a link that leads out of the folder must not tell anything.
    fn look_for_file(&self, root: &Root, path: &[u8]) -> Result<Seen, Failure> {
        match root.glance(path) {
            Ok(seen) if seen.kind == Kind::File => Ok(seen),
            Err(failure) if failure.reason == Reason::Absent => Err(failure),
            Ok(_) | Err(_) => self.with_descriptors(|| root.look(path)),
        }
    }

    /// Where descriptors have run out, those that are kept for later are given up for what is asked for now.
    fn with_descriptors<T>(&self, open: impl Fn() -> Result<T, Failure>) -> Result<T, Failure> {
        let opened = open().or_else(|failure| match failure.reason {
            Reason::Exhausted => {
                self.lock().files.clear();
                open()
            }
            Reason::Absent | Reason::Special | Reason::Denied | Reason::Contended | Reason::Broken => Err(failure),
        })?;
        if self.starved.load(Ordering::Relaxed) {
            self.starved.store(false, Ordering::Relaxed);
        }
        Ok(opened)
    }

    /// Descriptors or memory have run out; whether that is news.
    pub(super) fn note_starvation(&self) -> bool {
        !self.starved.swap(true, Ordering::Relaxed)
    }

    fn neighbours(&self, root: &Root, relative: &[u8], version: &Version) -> Neighbours {
        if !self.precompressed || !is_compressible(&by_name(relative)) {
            return Neighbours::default();
        }
        Neighbours::find(|coding: Coding| {
            let neighbour = root.glance(&Form::Coded(coding).path(relative));
            neighbour.is_ok_and(|seen| seen.kind == Kind::File && seen.version.is_as_new_as(version))
        })
    }

    /// Lets go of what nobody asks for. Whether anything is still kept.
    pub(super) fn tidy(&self, now: Duration) -> bool {
        let mut state = self.lock();
        state.files.forget_unchecked_since(now.saturating_sub(UNUSED_FOR));
        !state.files.is_empty()
    }

    /// What kind of thing is at `relative`, and the root that it was seen beneath.
    ///
    /// # Errors
    /// Why it cannot be looked at.
    pub(super) fn look(&self, relative: &[u8], now: Duration) -> Result<(Arc<Root>, Kind), Failure> {
        let root = {
            let mut state = self.lock();
            self.look_for_root(&mut state, now);
            Arc::clone(&state.root)
        };
        let seen = self.with_descriptors(|| root.look(relative))?;
        Ok((root, seen.kind))
    }

    /// Sees whether the folder's path leads to another folder now: to change a link to it is a way to deploy.
    fn look_for_root(&self, state: &mut State, now: Duration) {
        if now.saturating_sub(state.root_checked) < FRESH_FOR {
            return;
        }
        state.root_checked = now;
        match Root::open(&self.path, self.confinement) {
            Ok(root) => {
                state.root_lost = false;
                if !root.is_same(&state.root) {
                    state.root = Arc::new(root);
                    state.files.clear();
                }
            }
            // A link that is removed and made anew is away for a moment.
            Err(cause) if !std::mem::replace(&mut state.root_lost, true) => {
                let path = self.path.to_string_lossy();
                log::warn!("cannot open the folder {path:?} anew: {cause}; going on with the one that was there");
            }
            Err(_) => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // It is whole at every moment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_together_hold_no_more_than_the_room() {
        for folders in [0, 1, 3, 33, 100, 128] {
            let Weight { bytes, descriptors } = share_of_room(folders);
            assert!(bytes * folders <= ROOM.bytes && descriptors * folders <= ROOM.descriptors, "{folders}");
            assert!(descriptors >= 2, "{folders}");
        }
        assert_eq!(share_of_room(1000).descriptors, 2);
    }
}
