//! Finds what a path beneath a folder leads to, and remembers it for a moment, files for longer. Knows nothing of
//! requests and responses.

use std::collections::HashMap;
use std::fmt;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderValue;

use super::cache::{Cache, Weight};
use super::found::{About, Form, Found, Neighbours};
use super::media_type::{by_name, is_compressible};
use crate::h1::Coding;
use crate::sys::directory::{self, Entry};
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
    /// None until the folder is opened, which it is when it is first asked for.
    root: Option<Arc<Root>>,
    root_checked: Option<Duration>,
    /// The folder could not be opened, and that was logged.
    root_lost: bool,
    files: Cache<Arc<Found>>,
    /// What was logged of names, and when.
    complaints: HashMap<Box<[u8]>, Duration>,
}

/// What a path leads to.
pub(super) enum Place {
    File(Arc<Found>),
    Directory,
    /// A FIFO, a device or a socket.
    Other,
    /// Nothing, or nothing that is beneath the folder.
    Absent,
}

/// How long a name is taken for what it led to, and the root for the folder that it was. A change is seen so much later
/// at most; a second is promised, and the other half of it is for machines that are busy.
const FRESH_FOR: Duration = Duration::from_millis(500);

/// What is wrong with a name is said so often, and of so many names at a time: clients choose how often they ask.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);
const MOST_COMPLAINTS: usize = 64;

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
    /// For the folder at `path`, one of so many `folders` that share what files may hold.
    pub(super) fn new(path: &Path, confinement: Confinement, folders: usize, options: &super::Options) -> Self {
        let state = State {
            root: None,
            root_checked: None,
            root_lost: false,
            files: Cache::new(share_of_room(folders)),
            complaints: HashMap::new(),
        };
        Self {
            path: path.to_owned(),
            confinement,
            precompressed: options.precompressed,
            cache_control: options.cache_control.clone(),
            starved: AtomicBool::new(false),
            state: Mutex::new(state),
        }
    }

    /// What there is at `relative`. A file that was looked at a moment ago is not looked at again.
    ///
    /// # Errors
    /// Why it cannot be told, which is logged where somebody has to do something about it; [`Failure::CHANGING`] while it
    /// is being written to.
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
            let root = self.look_for_root(&mut state, now)?;
            match state.files.find(name) {
                Some(kept) if now.saturating_sub(kept.checked) < FRESH_FOR && kept.value.is_unchanged() => {
                    return Ok(Place::File(kept.value));
                }
                kept => (root, kept.map(|kept| kept.value)),
            }
        };
        let loaded = self.load(&root, relative, form, known);
        self.lock().remember(name, &loaded, &root, now);
        self.settle(loaded, &form.path(relative), Place::Absent, now)
    }

    /// What a failure means, which is logged where somebody has to do something about it: some mean that nothing is there.
    fn settle<T>(&self, outcome: Result<T, Failure>, path: &[u8], absent: T, now: Duration) -> Result<T, Failure> {
        let failure = match outcome {
            Ok(found) => return Ok(found),
            Err(failure) => failure,
        };
        match failure.reason {
            Reason::Absent => return Ok(absent),
            Reason::Outside => {
                let remedy = "it is not followed unless followSymlinks = 1";
                self.complain(path, now, format_args!("a link leads out of the folder: {remedy}"));
                return Ok(absent);
            }
            Reason::Denied => {
                let remedy = "it and its folders must be readable for the worker's user";
                self.complain(path, now, format_args!("{failure}; {remedy}"));
            }
            Reason::Broken => {
                let remedy = "see to the disk or the network that it is on";
                self.complain(path, now, format_args!("{failure}; {remedy}"));
            }
            // Once until a file can be opened again: the cause is one, the requests are many.
            Reason::Exhausted if !self.starved.swap(true, Ordering::Relaxed) => {
                let remedy = "raise the limit of descriptors (LimitNOFILE of systemd, ulimit -n)";
                log::error!("cannot open {}: {failure}; answering 503 meanwhile; {remedy}", self.shown(path));
            }
            Reason::Exhausted | Reason::Special | Reason::Contended | Reason::Rootless => {}
        }
        Err(failure)
    }

    /// Logs what is wrong with a file, unless that was done a moment ago.
    fn complain(&self, path: &[u8], now: Duration, what: fmt::Arguments<'_>) {
        if self.lock().is_news(path, now) {
            log::warn!("cannot open {}: {what}", self.shown(path));
        }
    }

    /// For a log line, which what clients make up must not break.
    fn shown(&self, path: &[u8]) -> String {
        let path = self.path.join(String::from_utf8_lossy(path).as_ref());
        format!("{:?}", path.to_string_lossy())
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
            Reason::Absent
            | Reason::Outside
            | Reason::Rootless
            | Reason::Special
            | Reason::Denied
            | Reason::Contended
            | Reason::Broken => Err(failure),
        })?;
        if self.starved.load(Ordering::Relaxed) {
            self.starved.store(false, Ordering::Relaxed);
        }
        Ok(opened)
    }

    fn neighbours(&self, root: &Root, relative: &[u8], version: &Version) -> Neighbours {
        if !self.precompressed || !is_compressible(&by_name(relative)) {
            return Neighbours::default();
        }
        Neighbours::of(|coding: Coding| {
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

    /// The root beneath which there is a directory at `relative`; None where there is none.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub(super) fn find_directory(&self, relative: &[u8], now: Duration) -> Result<Option<Arc<Root>>, Failure> {
        let root = self.look_for_root(&mut self.lock(), now)?;
        let seen = self.with_descriptors(|| root.look(relative));
        let is_directory = seen.map(|seen| (seen.kind == Kind::Directory).then_some(root));
        self.settle(is_directory, relative, None, now)
    }

    /// What is in the directory at `relative`, at most so many entries, and whether there are more.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub(super) fn read_directory(
        &self,
        root: &Root,
        relative: &[u8],
        most: usize,
        now: Duration,
    ) -> Result<(Vec<Entry>, bool), Failure> {
        let read = self.with_descriptors(|| {
            let (folder, seen) = root.open_beneath(relative)?;
            match seen.kind {
                Kind::Directory => Ok(directory::read(folder.into(), most)?),
                Kind::File | Kind::Other => Err(Failure::CHANGING),
            }
        });
        self.settle(read, relative, (Vec::new(), false), now)
    }

    /// The folder. Its path may lead to another one now: to change a link to it is a way to deploy.
    fn look_for_root(&self, state: &mut State, now: Duration) -> Result<Arc<Root>, Failure> {
        if state.root_checked.is_none_or(|checked| now.saturating_sub(checked) >= FRESH_FOR) {
            state.root_checked = Some(now);
            match Root::open(&self.path, self.confinement) {
                Ok(root) => {
                    state.root_lost = false;
                    if !state.root.as_ref().is_some_and(|known| known.is_same(&root)) {
                        state.root = Some(Arc::new(root));
                        state.files.clear();
                    }
                }
                // A link that is removed and made anew is away for a moment.
                Err(cause) if !mem::replace(&mut state.root_lost, true) => {
                    let meanwhile =
                        if state.root.is_some() { "serving the one that was there" } else { "answering 503" };
                    let path = self.path.to_string_lossy();
                    log::error!("cannot open the folder {path:?}: {cause}; {meanwhile} until it can be opened");
                }
                Err(_) => {}
            }
        }
        state.root.clone().ok_or(Failure::ROOTLESS)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // It is whole at every moment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Keeps a file that was found, unless the folder is another one by now: other threads may have noticed meanwhile.
    fn remember(&mut self, name: &[u8], loaded: &Result<Place, Failure>, root: &Arc<Root>, now: Duration) {
        let is_current = self.root.as_ref().is_some_and(|current| Arc::ptr_eq(current, root));
        match loaded {
            Ok(Place::File(found)) if is_current => self.files.keep(name, Arc::clone(found), found.weight(), now),
            Ok(Place::File(_) | Place::Directory | Place::Other | Place::Absent) | Err(_) => self.files.forget(name),
        }
    }

    fn is_news(&mut self, path: &[u8], now: Duration) -> bool {
        self.complaints.retain(|_, said| now.saturating_sub(*said) < COMPLAIN_EVERY);
        let is_news = self.complaints.len() < MOST_COMPLAINTS && !self.complaints.contains_key(path);
        if is_news {
            self.complaints.insert(path.into(), now);
        }
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(path: &Path) -> Lookup {
        Lookup::new(path, Confinement::Beneath, 1, &super::super::Options::default())
    }

    #[test]
    fn what_is_wrong_with_a_name_is_said_once_a_minute_and_of_so_many_names_at_most() {
        let lookup = lookup(Path::new("/"));
        let said = |name: &[u8], now| {
            lookup.settle::<()>(Err(Failure::example(Reason::Denied)), name, (), now).unwrap_err();
            lookup.lock().complaints.get(name) == Some(&now)
        };
        let start = Duration::from_secs(1000);
        assert!(said(b"a", start));
        assert!(!said(b"a", start + COMPLAIN_EVERY / 2));
        assert!(said(b"a", start + COMPLAIN_EVERY));
        let others = (0..1000_u32).filter(|n| said(&n.to_ne_bytes(), start + COMPLAIN_EVERY)).count();
        assert_eq!(others, MOST_COMPLAINTS - 1);
    }

    #[test]
    fn starvation_is_said_once_and_over_with_the_next_file() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "text").unwrap();
        let lookup = lookup(folder.path());
        let starve = || {
            lookup.settle::<()>(Err(Failure::example(Reason::Exhausted)), b"x", (), Duration::ZERO).unwrap_err();
            lookup.starved.load(Ordering::Relaxed)
        };
        assert!(starve());
        while !matches!(lookup.find(b"file", Form::Plain, Duration::from_secs(9)), Ok(Place::File(_))) {
            std::thread::yield_now();
        }
        assert!(!lookup.starved.load(Ordering::Relaxed));
    }

    #[test]
    fn what_was_found_in_a_folder_that_was_switched_meanwhile_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("current");
        let make = || {
            std::fs::create_dir(&path).unwrap();
            std::fs::write(path.join("file"), "text").unwrap();
        };
        make();
        let (lookup, start) = (lookup(&path), Duration::from_secs(9));
        let old = lookup.look_for_root(&mut lookup.lock(), start).unwrap();
        let loaded = loop {
            match lookup.load(&old, b"file", Form::Plain, None) {
                Err(failure) if failure.reason == Reason::Contended => std::thread::yield_now(),
                loaded => break loaded,
            }
        };
        let keeps = |root: &Arc<Root>| {
            let mut state = lookup.lock();
            state.remember(b"file", &loaded, root, start);
            !state.files.is_empty()
        };
        assert!(keeps(&old));
        std::fs::rename(&path, dir.path().join("old")).unwrap();
        make();
        let new = lookup.look_for_root(&mut lookup.lock(), start + FRESH_FOR).unwrap();
        assert!(!keeps(&old));
        assert!(keeps(&new));
    }

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
