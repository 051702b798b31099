//! The requests of one loop on the scoreboard: those that run, as far as there is room, and the last that was answered.
//! Written with every request and so in constant time; read when the worker is dead, or while it writes.

use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Record, field, text};

/// How many words the table takes.
pub(super) const WORDS: usize = ENTRY_WORDS * (1 + ENTRIES);

/// One more than are told: the last request that was answered keeps its entry.
const ENTRIES: usize = 9;

/// The head of the table is as long as an entry.
const ENTRY_WORDS: usize = 64;

/// Words of the head.
mod head {
    /// A bit for each entry whose request runs.
    pub(super) const TAKEN: usize = 0;
    /// How many requests have begun.
    pub(super) const BEGUN: usize = 1;
    /// The entries of the last that has begun and the last that was answered, counted from 1.
    pub(super) const NEWEST: usize = 2;
    pub(super) const ANSWERED: usize = 3;
}

/// Words of an entry.
mod entry {
    use super::Range;

    /// Which of all requests it is.
    pub(super) const NUMBER: usize = 0;
    pub(super) const SINCE: usize = 1;
    pub(super) const CLIENT: Range<usize> = 2..5;
    pub(super) const REQUEST: Range<usize> = 8..64;
}

/// Where a request stands in the table: what its loop keeps until the request is over.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Entry {
    place: usize,
    /// 0 for a request that never began.
    number: u64,
}

/// A request that runs, or ran when its worker died.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Running {
    /// Method and target, as far as there was room for it.
    pub request: String,
    /// A client of a Unix socket has no address.
    pub client: Option<SocketAddr>,
    /// When it was complete, on the monotonic clock.
    pub since: Duration,
}

impl fmt::Display for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { request, client, .. } = self;
        match client {
            Some(client) if client.port() == 0 => write!(f, "{request} from {}", client.ip()),
            Some(client) => write!(f, "{request} from {client}"),
            None => f.write_str(request),
        }
    }
}

impl Record {
    /// A request is complete and goes to its handler; the master quotes it should this worker die. A client of a Unix
    /// socket has no address.
    pub fn begin_request(&self, method: &str, target: &[u8], client: Option<SocketAddr>, now: Duration) -> Entry {
        self.increment(field::RUNNING);
        self.requests().begin(method, target, client, now)
    }

    /// A request was answered.
    pub fn end_request(&self, entry: Entry) {
        self.increment(field::SERVED);
        self.count_off();
        self.requests().answer(entry);
    }

    /// A request ended without an answer: its client is gone.
    pub fn abandon_request(&self, entry: Entry) {
        self.count_off();
        self.requests().end(entry);
    }

    fn count_off(&self) {
        let running = self.word(field::RUNNING).load(Ordering::Relaxed);
        self.set(field::RUNNING, running.saturating_sub(1));
    }

    /// How many requests were answered.
    pub fn served(&self) -> u64 {
        self.word(field::SERVED).load(Ordering::Relaxed)
    }

    /// How many requests were handed to a handler and not yet answered.
    pub fn running(&self) -> u64 {
        self.word(field::RUNNING).load(Ordering::Relaxed)
    }

    /// The requests that run, the oldest first; of more than eight the oldest and the newest.
    pub fn running_requests(&self) -> Vec<Running> {
        self.requests().running()
    }

    /// The last request that was answered, if any was.
    pub fn last_request(&self) -> Option<String> {
        self.requests().answered().map(|request| request.to_string())
    }

    fn requests(&self) -> Requests {
        Requests { words: &self.words[field::REQUESTS] }
    }
}

/// The table in the words of a record.
#[derive(Clone, Copy)]
struct Requests {
    words: &'static [AtomicU64],
}

impl Requests {
    pub fn begin(self, method: &str, target: &[u8], client: Option<SocketAddr>, now: Duration) -> Entry {
        let place = self.free_place();
        let number = self.load(head::BEGUN).wrapping_add(1);
        let words = self.entry(place);
        // Whoever reads an entry that is being written finds a text made of two, but a text.
        self.set(head::BEGUN, number);
        words[entry::NUMBER].store(number, Ordering::Relaxed);
        words[entry::SINCE].store(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        text::write(&words[entry::REQUEST], &[method.as_bytes(), b" ", target]);
        text::write_address(&words[entry::CLIENT], client);
        self.set(head::NEWEST, place as u64 + 1);
        self.set(head::TAKEN, self.load(head::TAKEN) | 1 << place);
        Entry { place, number }
    }

    /// Any that no request has; where all are taken, the one of the request that began last: the next is the likelier to
    /// do harm, and the others have run for longest.
    fn free_place(self) -> usize {
        let reserved = self.place_in(head::ANSWERED).unwrap_or(ENTRIES - 1);
        let taken = self.load(head::TAKEN) | 1 << reserved;
        let free = (!taken).trailing_zeros() as usize;
        if free < ENTRIES { free } else { self.place_in(head::NEWEST).unwrap_or(0) }
    }

    /// It was answered.
    pub fn answer(self, which: Entry) {
        if self.end(which) {
            self.set(head::ANSWERED, which.place as u64 + 1);
        }
    }

    /// It is over. Returns whether it still had its entry.
    pub fn end(self, which: Entry) -> bool {
        let has_entry = self.entry(which.place)[entry::NUMBER].load(Ordering::Relaxed) == which.number;
        if has_entry {
            self.set(head::TAKEN, self.load(head::TAKEN) & !(1 << which.place));
        }
        has_entry && which.number != 0
    }

    /// Those that run, the oldest first.
    pub fn running(self) -> Vec<Running> {
        let taken = self.load(head::TAKEN);
        let mut places: Vec<usize> = (0..ENTRIES).filter(|place| taken & 1 << place != 0).collect();
        places.sort_by_key(|&place| self.entry(place)[entry::NUMBER].load(Ordering::Relaxed));
        places.into_iter().filter_map(|place| self.read(place)).collect()
    }

    /// The last that was answered, if any was.
    pub fn answered(self) -> Option<Running> {
        self.read(self.place_in(head::ANSWERED)?)
    }

    fn place_in(self, word: usize) -> Option<usize> {
        let place = usize::try_from(self.load(word)).ok()?.checked_sub(1)?;
        Some(place.min(ENTRIES - 1))
    }

    fn read(self, place: usize) -> Option<Running> {
        let words = self.entry(place);
        let request = text::read(&words[entry::REQUEST])?;
        let client = text::read_address(&words[entry::CLIENT]);
        let since = Duration::from_nanos(words[entry::SINCE].load(Ordering::Relaxed));
        Some(Running { request, client, since })
    }

    fn entry(self, place: usize) -> &'static [AtomicU64] {
        let start = (1 + place) * ENTRY_WORDS;
        &self.words[start..start + ENTRY_WORDS]
    }

    fn load(self, word: usize) -> u64 {
        self.words[word].load(Ordering::Relaxed)
    }

    fn set(self, word: usize, to: u64) {
        self.words[word].store(to, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn requests() -> Requests {
        Requests { words: crate::sys::shared::words(WORDS).unwrap() }
    }

    fn begin(requests: Requests, number: u32) -> Entry {
        requests.begin("GET", format!("/{number}").as_bytes(), None, number * MS)
    }

    fn told(requests: Requests) -> String {
        requests
            .running()
            .iter()
            .map(|of| format!("{of} since {} ms", of.since.as_millis()))
            .collect::<Vec<_>>()
            .join(", ")
    }

    #[test]
    fn all_that_run_are_told_the_oldest_first_and_the_last_that_was_answered() {
        let requests = requests();
        assert_eq!((requests.running(), requests.answered()), (vec![], None));
        let entries: Vec<_> = (1..=3).map(|number| begin(requests, number)).collect();
        requests.answer(entries[0]);
        begin(requests, 4);
        requests.end(entries[1]);
        begin(requests, 5);
        assert_eq!(told(requests), "GET /3 since 3 ms, GET /4 since 4 ms, GET /5 since 5 ms");
        assert_eq!(requests.answered().unwrap().to_string(), "GET /1", "which nothing has written over");
    }

    #[test]
    fn of_too_many_the_oldest_and_the_newest_are_told() {
        let requests = requests();
        requests.answer(begin(requests, 99));
        let entries: Vec<_> = (1..=12).map(|number| begin(requests, number)).collect();
        let expected: Vec<_> = [1, 2, 3, 4, 5, 6, 7, 12].map(|n| format!("GET /{n} since {n} ms")).into();
        assert_eq!(told(requests), expected.join(", "));
        for entry in &entries[7..11] {
            requests.answer(*entry);
        }
        assert_eq!(told(requests), expected.join(", "), "those had lost their entries");
        assert_eq!(requests.answered().unwrap().to_string(), "GET /99");
        for entry in &entries {
            requests.answer(*entry);
        }
        assert_eq!((told(requests), requests.answered().unwrap().to_string()), (String::new(), "GET /12".to_owned()));
    }

    #[test]
    fn a_request_that_never_began_ends_without_a_trace() {
        let requests = requests();
        begin(requests, 1);
        requests.answer(Entry::default());
        assert_eq!((told(requests), requests.answered()), ("GET /1 since 1 ms".to_owned(), None));
        let untouched = Requests { words: crate::sys::shared::words(WORDS).unwrap() };
        untouched.answer(Entry::default());
        assert_eq!(untouched.answered(), None);
    }

    #[test]
    fn whatever_the_words_are_reading_and_writing_find_a_place() {
        let requests = requests();
        requests.words.iter().for_each(|word| word.store(u64::MAX, Ordering::Relaxed));
        requests.running();
        requests.answered();
        requests.answer(begin(requests, 1));
    }
}
