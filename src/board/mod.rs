//! The scoreboard: one shared mapping, made before the first fork. The master claims a record for each loop of a worker
//! before it forks it; that loop writes it; the master and the siblings read it, also after the worker's death, until the
//! master releases it. Decides nothing.

mod requests;
mod text;

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::sys;
pub(crate) use requests::Entry;

/// Which worker this is: one identity in every log line and on every page that shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its place in the pool, from 0.
    pub worker: u32,
    /// Workers forked from one configuration share their generation, from 1.
    pub generation: u32,
    /// Its process.
    pub pid: i32,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker={} gen={} pid={}", self.worker, self.generation, self.pid)
    }
}

/// The whole scoreboard.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Board {
    words: &'static [AtomicU64],
}

/// A record and the header have whole cache lines of their own. What is never used of them takes no memory.
const RECORD_WORDS: usize = field::REQUESTS.end;

/// Words of the header.
mod header {
    pub(super) const RECORDS_IN_USE: usize = 0;
    pub(super) const PUT: usize = 1;
    pub(super) const TAKEN: usize = 2;
    pub(super) const PHASE: usize = 3;
    pub(super) const WANTED: usize = 4;
    pub(super) const SERVING: usize = 5;
}

/// Words of a record.
mod field {
    pub(super) const PID: usize = 0;
    pub(super) const CONNECTIONS: usize = 1;
    pub(super) const BUSY: usize = 2;
    pub(super) const TURN_SINCE: usize = 3;
    pub(super) const TAKES_CONNECTIONS: usize = 4;
    pub(super) const RETIRED: usize = 5;
    pub(super) const CLAIMED: usize = 6;
    pub(super) const SERVED: usize = 9;
    pub(super) const RUNNING: usize = 10;
    pub(super) const REASON: std::ops::Range<usize> = 64..128;
    pub(super) const REQUESTS: std::ops::Range<usize> = 128..128 + super::requests::WORDS;
}

impl Board {
    /// A scoreboard with room for so many loops. Memory is taken where records are used.
    pub fn new(records: usize) -> io::Result<Self> {
        Ok(Self { words: sys::shared::words((records + 1) * RECORD_WORDS)? })
    }

    /// Records for so many loops, empty, for a worker that is about to be forked (the master); none where there is no room.
    pub fn claim(&self, loops: usize) -> Option<Vec<Record>> {
        let room = self.words.len() / RECORD_WORDS - 1;
        let free = |place: &usize| self.at(*place).word(field::CLAIMED).load(Ordering::Relaxed) == 0;
        let places: Vec<_> = (0..room).filter(free).take(loops).collect();
        if places.len() < loops {
            return None;
        }
        let end = places.last().map_or(0, |last| last + 1);
        self.words[header::RECORDS_IN_USE].fetch_max(end as u64, Ordering::Relaxed);
        let records: Vec<_> = places.into_iter().map(|place| self.at(place)).collect();
        for record in &records {
            record.clear();
            record.set(field::CLAIMED, 1);
        }
        Some(records)
    }

    /// The mean number of connections of the loops that can take more: those that stay, are waiting for events or came
    /// round less than `stuck_after` ago, and whose handler is free.
    pub fn mean_connections(&self, now: Duration, stuck_after: Duration) -> Option<Mean> {
        let mut mean = Mean { connections: 0, loops: 0 };
        for place in 0..self.records_in_use() {
            let record = self.at(place);
            if record.can_take_more(now, stuck_after) {
                mean.connections += record.word(field::CONNECTIONS).load(Ordering::Relaxed);
                mean.loops += 1;
            }
        }
        (mean.loops > 0).then_some(mean)
    }

    /// A connection was put where siblings take it.
    pub fn note_put(&self) {
        self.words[header::PUT].fetch_add(1, Ordering::Relaxed);
    }

    /// One was taken from there.
    pub fn note_taken(&self) {
        self.words[header::TAKEN].fetch_add(1, Ordering::Relaxed);
    }

    /// There was none left to take.
    pub fn note_none_left(&self) {
        self.words[header::TAKEN].store(self.words[header::PUT].load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Whether there is one to take, probably: one who dies between an act and its note leaves this wrong for a while.
    pub fn has_some_to_take(&self) -> bool {
        let load = |word: usize| self.words[word].load(Ordering::Relaxed);
        load(header::PUT) != load(header::TAKEN)
    }

    /// How many loops take connections, now or once their handlers are free, and are not to leave while others stay.
    pub fn stayers(&self) -> usize {
        (0..self.records_in_use()).filter(|&place| self.at(place).stays()).count()
    }

    /// Says how the pool is (the master).
    pub fn tell(&self, pool: Pool) {
        let set = |word: usize, to: u64| self.words[word].store(to, Ordering::Relaxed);
        set(header::PHASE, pool.phase as u64);
        set(header::WANTED, pool.wanted.into());
        set(header::SERVING, pool.serving.into());
    }

    /// What the master said last.
    pub fn pool(&self) -> Pool {
        let load = |word: usize| u32::try_from(self.words[word].load(Ordering::Relaxed)).unwrap_or(u32::MAX);
        let all = [Phase::Starting, Phase::Running, Phase::Stopping, Phase::HandedOver];
        let phase = all.into_iter().find(|&phase| phase as u32 == load(header::PHASE)).unwrap_or(Phase::Starting);
        Pool { phase, wanted: load(header::WANTED), serving: load(header::SERVING) }
    }

    /// What all loops do that serve, where one that has not come round for `stuck_after`, or whose process cannot run,
    /// takes no connections.
    pub fn load(&self, now: Duration, stuck_after: Duration, can_run: impl Fn(i32) -> bool) -> Load {
        let mut load = Load { taking: 0, busy: 0, connections: 0 };
        for record in (0..self.records_in_use()).map(|place| self.at(place)).filter(Record::is_open) {
            let busy = record.word(field::BUSY).load(Ordering::Relaxed) != 0;
            let takes = record.stays() && !record.is_stuck(now, stuck_after) && can_run(record.pid());
            load.taking += u64::from(takes);
            load.busy += u64::from(busy);
            load.connections += record.word(field::CONNECTIONS).load(Ordering::Relaxed);
        }
        load
    }

    fn records_in_use(&self) -> usize {
        usize::try_from(self.words[header::RECORDS_IN_USE].load(Ordering::Relaxed)).unwrap_or(0)
    }

    fn at(&self, place: usize) -> Record {
        let start = (place + 1) * RECORD_WORDS;
        Record { words: &self.words[start..start + RECORD_WORDS] }
    }
}

/// How the pool is, as its master sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pool {
    pub phase: Phase,
    /// How many workers there are to be.
    pub wanted: u32,
    /// How many have said that they serve.
    pub serving: u32,
}

/// Where the master is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No worker was ready yet.
    Starting = 0,
    Running = 1,
    /// A stop has begun.
    Stopping = 2,
    /// Another master serves in its place; this one finishes and leaves.
    HandedOver = 3,
}

impl Phase {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::HandedOver => "handed over",
        }
    }
}

/// What the loops of all workers do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Load {
    /// Loops that take connections, at once or once their handlers are free.
    pub taking: u64,
    /// Loops whose handlers are all at work.
    pub busy: u64,
    pub connections: u64,
}

/// How a worker is to leave that leaves alone, while the server goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retirement {
    /// Others accept from the same listeners, and take its idle connections over.
    ToOthers = 1,
    /// Others take its idle connections over, but some of its listeners are nobody's afterwards: it empties their queues.
    LastAtListener = 2,
    /// Nobody serves for now. What waits in the queues is left there; idle connections are closed once they are quiet.
    Alone = 3,
}

impl Retirement {
    const ALL: [Self; 3] = [Self::ToOthers, Self::LastAtListener, Self::Alone];
}

/// A sum and what it is to be divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mean {
    pub connections: u64,
    pub loops: u64,
}

/// What one loop of a worker says of itself. Only that loop writes it, except that the master clears it for the next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record {
    words: &'static [AtomicU64],
}

impl Record {
    /// It may be claimed again, for its worker is dead and told of (the master).
    pub fn release(&self) {
        self.set(field::CLAIMED, 0);
    }

    fn clear(&self) {
        for word in self.words {
            word.store(0, Ordering::Relaxed);
        }
    }

    /// The worker is there and takes connections.
    pub fn open(&self, pid: i32) {
        self.set(field::PID, u64::from(pid.unsigned_abs()));
        self.set(field::TAKES_CONNECTIONS, 1);
    }

    /// The worker takes no more connections, or is gone.
    pub fn close(&self) {
        self.set(field::TAKES_CONNECTIONS, 0);
    }

    /// The worker is dead: nothing is its own any more (the master).
    pub fn mark_dead(&self) {
        self.set(field::PID, 0);
        self.close();
    }

    /// The worker is asked to drain while others stay or come (the master, before the signal).
    pub fn retire(&self, retirement: Retirement) {
        self.word(field::RETIRED).store(retirement as u64, Ordering::Release);
    }

    /// How this worker is to leave, if it is to.
    pub fn retirement(&self) -> Option<Retirement> {
        let word = self.word(field::RETIRED).load(Ordering::Acquire);
        Retirement::ALL.into_iter().find(|retirement| *retirement as u64 == word)
    }

    /// Whether the queues of the listeners, or this worker's connections, are others' from now on.
    pub fn is_retired(&self) -> bool {
        self.retirement().is_some()
    }

    /// How many connections are open.
    pub fn set_connections(&self, open: usize) {
        self.set(field::CONNECTIONS, open as u64);
    }

    /// Whether a handler runs that keeps other requests waiting.
    pub fn set_busy(&self, busy: bool) {
        self.set(field::BUSY, u64::from(busy));
    }

    /// The loop has woken up at `now`.
    pub fn begin_turn(&self, now: Duration) {
        self.set(field::TURN_SINCE, millis(now).max(1));
    }

    /// The loop is about to wait for events.
    pub fn end_turn(&self) {
        self.set(field::TURN_SINCE, 0);
    }

    /// Since when the loop is at it, on the monotonic clock to the millisecond; none while it waits for events.
    pub fn turn_since(&self) -> Option<Duration> {
        let since = self.word(field::TURN_SINCE).load(Ordering::Relaxed);
        (since != 0).then(|| Duration::from_millis(since))
    }

    /// Why the worker will end, or what went wrong last.
    pub fn set_reason(&self, words: &str) {
        text::write(&self.words[field::REASON], &[words.as_bytes()]);
    }

    /// The same, before what was said until now: that led to it.
    pub fn precede_reason(&self, words: &str) {
        text::precede(&self.words[field::REASON], &[words.as_bytes(), b"; before that: "]);
    }

    /// Why the worker ended, if it could say.
    pub fn reason(&self) -> Option<String> {
        text::read(&self.words[field::REASON])
    }

    fn can_take_more(&self, now: Duration, stuck_after: Duration) -> bool {
        let is_busy = self.word(field::BUSY).load(Ordering::Relaxed) != 0;
        self.stays() && !is_busy && !self.is_stuck(now, stuck_after)
    }

    /// Whether the loop has not come round for so long.
    fn is_stuck(&self, now: Duration, stuck_after: Duration) -> bool {
        let turn_since = self.word(field::TURN_SINCE).load(Ordering::Relaxed);
        turn_since != 0 && millis(now).saturating_sub(turn_since) > millis(stuck_after)
    }

    /// Whether a worker that lives writes it.
    fn is_open(&self) -> bool {
        self.pid() != 0
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.word(field::PID).load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// A worker that was asked to leave may not have heard of it yet.
    fn stays(&self) -> bool {
        self.word(field::TAKES_CONNECTIONS).load(Ordering::Relaxed) != 0 && !self.is_retired()
    }

    fn word(&self, field: usize) -> &'static AtomicU64 {
        &self.words[field]
    }

    fn set(&self, field: usize, value: u64) {
        self.word(field).store(value, Ordering::Relaxed);
    }

    /// One writer only: no read-modify-write cycle is needed.
    fn increment(&self, field: usize) {
        let word = self.word(field);
        word.store(word.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn one_of(board: &Board) -> Record {
        board.claim(1).unwrap()[0]
    }

    fn open(board: &Board, connections: usize) -> Record {
        let record = one_of(board);
        record.open(100);
        record.set_connections(connections);
        record
    }

    #[test]
    fn workers_that_are_stuck_busy_or_gone_are_left_out_of_the_mean() {
        let board = Board::new(8).unwrap();
        assert_eq!(board.mean_connections(100 * MS, 8 * MS), None);
        open(&board, 3);
        open(&board, 5).begin_turn(90 * MS);
        open(&board, 50).set_busy(true);
        open(&board, 50).close();
        open(&board, 50).retire(Retirement::ToOthers);
        open(&board, 7).begin_turn(95 * MS);
        assert_eq!(board.mean_connections(100 * MS, 8 * MS), Some(Mean { connections: 10, loops: 2 }));
        assert_eq!(board.stayers(), 4, "all but the one that is gone and the one that is to go");
    }

    #[test]
    fn a_record_has_one_owner_until_it_is_released() {
        let board = Board::new(3).unwrap();
        let (one, two) = (board.claim(2).unwrap(), one_of(&board));
        assert!(board.claim(1).is_none(), "there is no room");
        one[1].end_request(Entry::default());
        two.end_request(Entry::default());
        one[1].release();
        assert!(board.claim(2).is_none(), "nor for two");
        assert_eq!(one_of(&board).served(), 0, "it is empty");
        assert_eq!(two.served(), 1);
    }

    #[test]
    fn a_record_remembers_the_last_request_and_how_many_run() {
        let record = one_of(&Board::new(1).unwrap());
        assert_eq!((record.last_request(), record.reason()), (None, None));
        let begin = |method, target, client: Option<&str>| {
            record.begin_request(method, target, client.map(|client| client.parse().unwrap()), MS)
        };
        begin("GET", b"/a?b", None);
        assert_eq!((record.last_request(), record.running()), (None, 1));
        record.end_request(begin("GET", b"/b", Some("192.0.2.1:0")));
        assert_eq!(record.last_request().unwrap(), "GET /b from 192.0.2.1", "of whom a server in front told no port");
        let c = begin("POST", b"/c", Some("192.0.2.1:99"));
        record.end_request(c);
        assert_eq!(record.last_request().unwrap(), "POST /c from 192.0.2.1:99");
        record.abandon_request(begin("GET", b"/gone", None));
        assert_eq!(record.last_request().unwrap(), "POST /c from 192.0.2.1:99");
        assert_eq!((record.running(), record.served()), (1, 2));
        assert_eq!(record.running_requests()[0].to_string(), "GET /a?b");
        record.set_reason("out of ideas");
        assert_eq!(record.reason().unwrap(), "out of ideas");
        record.precede_reason("gave up");
        assert_eq!(record.reason().unwrap(), "gave up; before that: out of ideas");
    }

    #[test]
    fn a_loop_that_waits_for_events_is_at_nothing() {
        let record = one_of(&Board::new(1).unwrap());
        assert_eq!(record.turn_since(), None);
        record.begin_turn(7 * MS);
        assert_eq!(record.turn_since(), Some(7 * MS));
        record.end_turn();
        assert_eq!(record.turn_since(), None);
    }

    #[test]
    fn what_was_put_can_be_taken_once() {
        let board = Board::new(1).unwrap();
        assert!(!board.has_some_to_take());
        board.note_put();
        board.note_put();
        board.note_taken();
        assert!(board.has_some_to_take());
        board.note_none_left();
        assert!(!board.has_some_to_take(), "somebody died before he noted it");
    }

    #[test]
    fn a_dead_worker_takes_no_more_connections() {
        let board = Board::new(4).unwrap();
        let record = open(&board, 5);
        record.end_request(Entry::default());
        record.mark_dead();
        assert_eq!(record.served(), 1);
        assert_eq!(board.stayers(), 0);
        assert_eq!(board.mean_connections(MS, 8 * MS), None);
    }
}
