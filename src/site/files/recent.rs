//! Files that were opened a moment ago: for that moment they are answered again without asking the file system.
//! Knows nothing of requests. A file that was replaced or removed is seen once the moment is over; one that was written
//! to in place is, where it is sent from its descriptor, seen at once.

use std::collections::HashMap;
use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::HeaderMap;

use crate::site::{Body, Response};

/// How long a file is taken for what it was when it was opened.
const FRESH_FOR: Duration = Duration::from_millis(500);

/// How many files of a folder are kept at most, and how many of them as descriptors.
const MAX_FILES: usize = 256;
const MAX_DESCRIPTORS: usize = 32;

/// A file that was opened: its head, and its bytes or its descriptor.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub headers: HeaderMap,
    pub content: Content,
}

#[derive(Clone, Debug)]
pub(super) enum Content {
    Bytes(Bytes),
    File(Arc<File>, u64),
}

impl Found {
    pub(super) fn into_response(self) -> Response {
        let mut response = Response::new(match self.content {
            Content::Bytes(bytes) => Body::from(bytes),
            Content::File(file, len) => Body::file(file, 0..len),
        });
        *response.headers_mut() = self.headers;
        response
    }
}

/// The files of a folder that were opened a moment ago, by their paths.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<Files>);

#[derive(Debug, Default)]
struct Files {
    by_path: HashMap<Box<[u8]>, Kept>,
    swept: Duration,
}

#[derive(Debug)]
struct Kept {
    found: Found,
    opened: Duration,
    /// Of a file that is sent from its descriptor.
    written: Option<SystemTime>,
}

impl Recent {
    /// The file at `path`, where it was opened a moment before `now`.
    pub(super) fn find(&self, path: &[u8], now: Duration) -> Option<Found> {
        let mut files = self.lock();
        files.sweep(now);
        let kept = files.by_path.get(path)?;
        (kept.is_fresh(now) && kept.is_unchanged()).then(|| kept.found.clone())
    }

    /// Keeps a file that was opened at `now`, if there is room.
    pub(super) fn keep(&self, path: &[u8], now: Duration, found: &Found) {
        let mut files = self.lock();
        let large = matches!(found.content, Content::File(..));
        let descriptors = if large { files.descriptors() } else { 0 };
        if files.by_path.len() < MAX_FILES && descriptors < MAX_DESCRIPTORS {
            let written = found.content.written();
            files.by_path.insert(path.into(), Kept { found: found.clone(), opened: now, written });
        }
    }

    /// Lets go of all files: descriptors have run out.
    pub(super) fn clear(&self) {
        self.lock().by_path.clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Files> {
        // The map is whole at every moment.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Files {
    fn descriptors(&self) -> usize {
        self.by_path.values().filter(|kept| matches!(kept.found.content, Content::File(..))).count()
    }

    /// Lets go of what is no longer fresh, at the next request for the folder.
    fn sweep(&mut self, now: Duration) {
        if now.saturating_sub(self.swept) >= FRESH_FOR {
            self.swept = now;
            self.by_path.retain(|_, kept| kept.is_fresh(now));
        }
    }
}

impl Kept {
    fn is_fresh(&self, now: Duration) -> bool {
        now.saturating_sub(self.opened) < FRESH_FOR
    }

    fn is_unchanged(&self) -> bool {
        match self.found.content {
            Content::Bytes(_) => true,
            Content::File(..) => self.written.is_some() && self.written == self.found.content.written(),
        }
    }
}

impl Content {
    /// When the file was written to last, if it is sent from its descriptor and still as long as it was.
    fn written(&self) -> Option<SystemTime> {
        match self {
            Self::Bytes(_) => None,
            Self::File(file, len) => {
                let now = file.metadata().ok().filter(|now| now.len() == *len)?;
                now.modified().ok()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn text(text: &'static str) -> Found {
        Found { headers: HeaderMap::new(), content: Content::Bytes(Bytes::from_static(text.as_bytes())) }
    }

    fn shown(found: Option<Found>) -> Option<Bytes> {
        match found?.content {
            Content::Bytes(bytes) => Some(bytes),
            Content::File(..) => None,
        }
    }

    #[test]
    fn a_file_is_remembered_for_half_a_second_and_then_let_go() {
        let recent = Recent::default();
        recent.keep(b"a", 1000 * MS, &text("one"));
        assert_eq!(shown(recent.find(b"a", 1499 * MS)).unwrap(), "one");
        assert!(recent.find(b"b", 1499 * MS).is_none());
        assert!(recent.find(b"a", 1500 * MS).is_none());
        assert!(recent.find(b"b", 2000 * MS).is_none());
        assert!(recent.lock().by_path.is_empty());
        recent.keep(b"a", 2100 * MS, &text("two"));
        assert_eq!(shown(recent.find(b"a", 2200 * MS)).unwrap(), "two");
    }

    #[test]
    fn a_file_sent_from_its_descriptor_is_forgotten_when_it_is_written_to() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"four").unwrap();
        let recent = Recent::default();
        let content = Content::File(Arc::new(file.try_clone().unwrap()), 4);
        recent.keep(b"a", MS, &Found { headers: HeaderMap::new(), content });
        assert!(recent.find(b"a", MS).is_some());
        file.write_all(b" more").unwrap();
        assert!(recent.find(b"a", MS).is_none());
    }

    #[test]
    fn no_more_files_are_held_than_there_is_room_for() {
        let recent = Recent::default();
        for n in 0..1000_u32 {
            recent.keep(&n.to_ne_bytes(), MS, &text("x"));
        }
        assert_eq!(recent.lock().by_path.len(), MAX_FILES);
        recent.find(b"", 1000 * MS);
        recent.keep(b"a", 1000 * MS, &text("x"));
        assert_eq!(recent.lock().by_path.len(), 1);
    }
}
