//! The master's side of its reporters: the present one, those that leave because another took over, and what is said
//! between them and the master. Forks nobody, and waits for nobody.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use crate::site::control::{Command, Outcome, QUESTION_BYTES, Told, read_question};
use crate::sys::message::{self, Patience};

/// How long it takes at least from one fork to the next, and at most, when they end again and again.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// What is read of one reporter before the master sees to something else.
const QUESTIONS_PER_TURN: usize = 64;

/// The reporters that live, and when there is to be another.
#[derive(Debug, Default)]
pub(super) struct Reporters {
    present: Option<Reporter>,
    leaving: Vec<Reporter>,
    /// The present one has what was exchanged since it was forked.
    outdated: bool,
    /// How many there have been.
    count: u32,
    pace: Pace,
}

/// One that was forked.
#[derive(Debug)]
struct Reporter {
    pid: i32,
    /// No other has it: the tickets of its questions begin with it.
    number: u32,
    link: Link,
}

impl Reporters {
    /// Whether one is to be forked now.
    pub fn is_due(&self, now: Duration) -> bool {
        self.present.is_none() && self.pace.fork_deadline <= now
    }

    /// When to ask again although nothing has happened.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.present.is_none().then_some(self.pace.fork_deadline)
    }

    /// One was forked, at whose other end of this link it listens.
    pub fn forked(&mut self, pid: i32, link: OwnedFd, now: Duration) {
        self.count += 1;
        self.outdated = false;
        self.pace.forked(now);
        let link = Link { socket: Some(link), unsent: VecDeque::new() };
        self.present = Some(Reporter { pid, number: self.count, link });
    }

    /// It could not be forked. Returns whether to say so.
    pub fn not_forked(&mut self, now: Duration) -> bool {
        self.pace.forked(now);
        self.pace.failed(now)
    }

    /// A child has ended: whether it was one of them, and what is to be made of it.
    pub fn ended(&mut self, pid: i32, now: Duration) -> Option<End> {
        if let Some(place) = self.leaving.iter().position(|reporter| reporter.pid == pid) {
            self.leaving.swap_remove(place);
            return Some(End::Asked);
        }
        self.present.take_if(|reporter| reporter.pid == pid)?;
        Some(if self.pace.failed(now) { End::News } else { End::Known })
    }

    /// Has the present one leave, so that another can take over at once.
    pub fn replace(&mut self, now: Duration) {
        self.leave();
        self.pace = Pace { fork_deadline: now, ..Pace::default() };
    }

    /// Has the present one answer what it was asked, and leave.
    pub fn leave(&mut self) {
        if let Some(mut reporter) = self.present.take() {
            reporter.link.tell(&Told::Leave);
            self.leaving.push(reporter);
        }
    }

    /// The present one is to be replaced, for log files were opened anew since it was forked.
    pub fn note_outdated(&mut self) {
        self.outdated = true;
    }

    /// Whether to replace the present one now: one after the other, however often something is exchanged.
    pub fn is_outdated(&self) -> bool {
        self.outdated && self.leaving.is_empty()
    }

    /// Tells all of them that the master is about to end.
    pub fn end(&mut self) {
        self.all_mut().for_each(|reporter| reporter.link.tell(&Told::End));
    }

    /// Their processes.
    pub fn pids(&self) -> Vec<i32> {
        self.all().map(|reporter| reporter.pid).collect()
    }

    /// What can be read when one of them says something.
    pub fn readable(&self) -> Vec<BorrowedFd<'_>> {
        self.all().filter_map(|reporter| reporter.link.socket.as_ref().map(OwnedFd::as_fd)).collect()
    }

    /// What can be written when one of them has room for what it is still to be told.
    pub fn writable(&self) -> Vec<BorrowedFd<'_>> {
        let behind = self.all().filter(|reporter| !reporter.link.unsent.is_empty());
        behind.filter_map(|reporter| reporter.link.socket.as_ref().map(OwnedFd::as_fd)).collect()
    }

    /// What they have asked, each with its ticket; tells them what they had no room for.
    pub fn questions(&mut self) -> Vec<(u64, Command)> {
        let mut questions = Vec::new();
        for reporter in self.present.iter_mut().chain(&mut self.leaving) {
            reporter.link.flush();
            for (serial, command) in reporter.link.hear(reporter.pid) {
                questions.push((u64::from(reporter.number) << 32 | u64::from(serial), command));
            }
        }
        questions
    }

    /// Tells the one that asked, if it still lives.
    pub fn answer(&mut self, ticket: u64, outcome: Outcome) {
        let serial = u32::try_from(ticket & u64::from(u32::MAX)).unwrap_or(0);
        let asked = self.all_mut().find(|reporter| u64::from(reporter.number) == ticket >> 32);
        match asked {
            Some(reporter) => reporter.link.tell(&Told::Outcome(serial, outcome)),
            None => log::debug!("whoever asked {ticket} is gone: {outcome:?}"),
        }
    }

    fn all(&self) -> impl Iterator<Item = &Reporter> {
        self.present.iter().chain(&self.leaving)
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut Reporter> {
        self.present.iter_mut().chain(&mut self.leaving)
    }
}

/// How a reporter ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// As it was told to.
    Asked,
    /// By itself, which is to be said.
    News,
    /// By itself, as others before it: that was said.
    Known,
}

/// The master's end of the connection with a reporter.
#[derive(Debug)]
struct Link {
    /// Until its other end is closed.
    socket: Option<OwnedFd>,
    /// What there was no room for. A reporter asks no more than it can be told, so this does not grow.
    unsent: VecDeque<Vec<u8>>,
}

impl Link {
    fn tell(&mut self, told: &Told) {
        self.unsent.push_back(told.write());
        self.flush();
    }

    fn flush(&mut self) {
        let Some(socket) = &self.socket else { return self.unsent.clear() };
        while let Some(message) = self.unsent.front() {
            match message::send(socket, message, &[], Patience::DoNotWait) {
                Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => return,
                // One that is gone needs to hear nothing.
                Ok(()) | Err(_) => drop(self.unsent.pop_front()),
            }
        }
    }

    fn hear(&mut self, pid: i32) -> Vec<(u32, Command)> {
        let mut questions = Vec::new();
        let mut buffer = [0; QUESTION_BYTES];
        for _ in 0..QUESTIONS_PER_TURN {
            let Some(socket) = &self.socket else { break };
            let length = match message::receive(socket, &mut buffer, Patience::DoNotWait) {
                Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => break,
                Err(cause) if cause.kind() == io::ErrorKind::InvalidData => 0,
                // Closed: it says no more, and would be said to be readable for ever.
                Ok((0, _)) | Err(_) => {
                    self.socket = None;
                    break;
                }
                Ok((length, _)) => length,
            };
            match read_question(&buffer[..length]) {
                Some(question) => questions.push(question),
                None => log::error!("the reporter pid={pid} asks something unknown, which is ignored"),
            }
        }
        questions
    }
}

/// How soon another one is forked: at once, later and later when they do not live long. Pure.
#[derive(Debug, Default)]
struct Pace {
    /// Not before then.
    fork_deadline: Duration,
    born: Duration,
    /// How many in a row did not live long.
    failures: u32,
}

impl Pace {
    fn forked(&mut self, now: Duration) {
        self.born = now;
        self.fork_deadline = now + PAUSE.saturating_mul(1 << self.failures.min(5)).min(PAUSE_MAX);
    }

    /// It ended, or was not even born. Returns whether to say so: the more often it is the same, the more seldom.
    fn failed(&mut self, now: Duration) -> bool {
        let lived_long = now.saturating_sub(self.born) > PAUSE_MAX;
        self.failures = if lived_long { 1 } else { self.failures.saturating_add(1) };
        self.failures.is_power_of_two()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    /// Reporters of which one was forked, and its end of the link.
    fn one(pid: i32) -> (Reporters, OwnedFd) {
        let mut reporters = Reporters::default();
        let link = fork(&mut reporters, pid, S);
        (reporters, link)
    }

    fn fork(reporters: &mut Reporters, pid: i32, now: Duration) -> OwnedFd {
        let (own, other) = message::pair().unwrap();
        reporters.forked(pid, own, now);
        other
    }

    fn say(link: &OwnedFd, text: &str) {
        message::send(link, text.as_bytes(), &[], Patience::DoNotWait).unwrap();
    }

    fn heard(link: &OwnedFd) -> Vec<Told> {
        let mut buffer = vec![0; 40_000];
        let next = || {
            let (length, _) = message::receive(link, &mut buffer, Patience::DoNotWait).ok()?;
            Told::read(&buffer[..length])
        };
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn it_is_forked_again_at_once_and_then_later_and_later() {
        let mut pace = Pace::default();
        let (mut now, mut pauses, mut said) = (9 * S, Vec::new(), 0);
        for _ in 0..8 {
            pace.forked(now);
            said += u32::from(pace.failed(now));
            pauses.push(pace.fork_deadline.saturating_sub(now).as_secs());
            now = pace.fork_deadline;
        }
        assert_eq!((pauses, said), (vec![1, 2, 4, 8, 16, 30, 30, 30], 4));
        pace.forked(now);
        assert!(pace.failed(now + 31 * S), "after a long life");
        assert!(pace.fork_deadline < now + 31 * S, "at once");
    }

    #[test]
    fn only_its_own_end_counts() {
        let (mut reporters, _link) = one(7);
        assert!(!reporters.is_due(90 * S) && reporters.next_deadline().is_none());
        assert_eq!(reporters.ended(8, 90 * S), None);
        assert_eq!(reporters.ended(7, 90 * S), Some(End::News));
        assert!(reporters.is_due(90 * S));
        assert!(reporters.not_forked(90 * S));
        assert_eq!((reporters.is_due(91 * S), reporters.next_deadline()), (false, Some(92 * S)));
    }

    #[test]
    fn an_outcome_finds_the_reporter_that_asked_also_when_it_leaves() {
        let (mut reporters, first) = one(7);
        say(&first, "5 reload");
        let asked = reporters.questions();
        assert_eq!(asked.iter().map(|(_, command)| command.clone()).collect::<Vec<_>>(), [Command::Reload]);
        reporters.replace(2 * S);
        assert!(reporters.is_due(2 * S), "at once");
        let second = fork(&mut reporters, 8, 2 * S);
        say(&second, "5 stop");
        let asked_then = reporters.questions();
        assert_ne!(asked[0].0, asked_then[0].0, "two questions of one serial");
        reporters.answer(asked[0].0, Ok("done".into()));
        assert_eq!(heard(&first), [Told::Leave, Told::Outcome(5, Ok("done".into()))]);
        assert_eq!(heard(&second), []);
        assert_eq!(reporters.ended(7, 3 * S), Some(End::Asked));
        reporters.answer(asked[0].0, Ok("again".into()));
        reporters.end();
        assert_eq!(heard(&second), [Told::End]);
        assert_eq!(reporters.pids(), [8]);
    }

    #[test]
    fn what_is_no_question_is_ignored_and_the_next_is_heard() {
        let (mut reporters, link) = one(7);
        for text in ["x", "1 fly", "1 upgrade /\u{0}\u{1}", &"y".repeat(QUESTION_BYTES + 1), "2 reopen"] {
            say(&link, text);
        }
        let commands: Vec<_> = reporters.questions().into_iter().map(|(_, command)| command).collect();
        assert_eq!(commands.last(), Some(&Command::Reopen));
        assert_eq!(commands.len(), 2, "{commands:?}");
    }

    #[test]
    fn a_closed_link_is_watched_no_more() {
        let (mut reporters, link) = one(7);
        say(&link, "1 reload");
        drop(link);
        assert_eq!(reporters.readable().len(), 1);
        let asked = reporters.questions();
        assert_eq!(asked.len(), 1, "what it said before");
        assert!(reporters.readable().is_empty());
        reporters.answer(asked[0].0, Ok(String::new()));
        assert!(reporters.writable().is_empty());
    }

    #[test]
    fn what_there_is_no_room_for_is_told_later_and_in_order() {
        let (mut reporters, link) = one(7);
        let long = "x".repeat(30_000);
        for serial in 1..=64 {
            reporters.answer(1 << 32 | serial, Err(long.clone()));
        }
        assert_eq!(reporters.writable().len(), 1, "it is behind");
        let mut serials = Vec::new();
        while serials.len() < 64 {
            let told = heard(&link);
            assert!(!told.is_empty());
            serials.extend(told.into_iter().map(|told| match told {
                Told::Outcome(serial, _) => serial,
                other => panic!("{other:?}"),
            }));
            reporters.questions();
        }
        assert_eq!(serials, (1..=64).collect::<Vec<_>>());
        assert!(reporters.writable().is_empty());
    }
}
