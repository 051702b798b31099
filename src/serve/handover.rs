//! Connections that loops hand over to each other: a request that waits behind a busy handler goes, with its connection
//! and all that was read of it, to a sibling whose handler is free; and what is idle at a worker that leaves goes to those
//! who go on.
//!
//! All workers share one pair of sockets for that, as they share the listener: whoever is free takes what comes, and what
//! nobody can take yet waits in the kernel for the first who can, also when its sender or its receiver dies. There are two
//! queues. Requests wait for a handler that is free. Idle connections wait for nobody: a loop whose handlers are busy takes
//! them too, for only a loop sees what their clients ask next, and can answer it at once or hand it on.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use super::connection::{Connection, Phase};
use super::executor::Executor;
use super::gate::STUCK_AFTER;
use super::idle::Idle;
use super::parcel::{self, DESCRIPTORS, Head, Stage};
use super::transport::Transport;
use super::{HANDOVER, IDLE_HANDOVER, Loop};
use crate::site::{Exchange, Trailers};
use crate::sys;
use crate::sys::message::{self, Patience};

/// How long a request waits before it is handed over, for moving it costs more than a short wait; and how long handlers
/// may all be at work, none finishing, before they count as stuck.
const PATIENCE: Duration = Duration::from_millis(5);

/// How soon a worker with requests that wait looks again for siblings that are free.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// How many requests are handed over at once for each sibling that is free. A worker whose own handlers are stuck hands
/// over all that have waited long enough, whether a sibling is free yet or not: the first that is takes the oldest, as if
/// there were one queue, and moving costs little beside handlers that take so long.
const BATCH: u64 = 8;

/// The two ends of the pair. Requests go in at `put` and come out at `take`; idle connections go the other way.
pub(crate) struct Ends {
    pub put: OwnedFd,
    pub take: OwnedFd,
}

impl Ends {
    pub fn open() -> io::Result<Self> {
        let (put, take) = message::pair()?;
        Ok(Self { put, take })
    }

    fn way_in(&self, queue: Queue) -> &OwnedFd {
        match queue {
            Queue::Requests => &self.put,
            Queue::Idle => &self.take,
        }
    }

    fn way_out(&self, queue: Queue) -> &OwnedFd {
        match queue {
            Queue::Requests => &self.take,
            Queue::Idle => &self.put,
        }
    }
}

/// What is waiting to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queue {
    Requests,
    Idle,
}

/// A loop's side of it.
pub(super) struct Handover {
    ends: Arc<Ends>,
    /// Requests are handed over, too: there are siblings who have handlers of their own. Where there are none, what a pool
    /// has left there before a reload is taken all the same.
    shares_requests: bool,
    /// The loop is told of requests that siblings hand over.
    listens: bool,
    /// There may be a request to take.
    has_some: bool,
    /// Since when the handlers are all at work, and none has finished.
    busy_since: Option<Duration>,
    /// Something was taken, and since then no handler has finished.
    sated: bool,
    /// The last handler finished so soon that one more does not wait for long.
    quick: bool,
    /// When to see to the requests that wait.
    look_deadline: Option<Duration>,
    /// Idle connections.
    pub idle: Idle,
    /// They give their room to what the next message brings, which would be lost without.
    spare: Vec<OwnedFd>,
}

impl Handover {
    pub fn new(ends: Arc<Ends>, shares_requests: bool) -> Self {
        Self {
            ends,
            shares_requests,
            listens: false,
            has_some: false,
            busy_since: None,
            sated: false,
            quick: true,
            look_deadline: None,
            idle: Idle::default(),
            spare: Vec::new(),
        }
    }

    /// All that it has open.
    pub fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        self.spare.iter().chain([&self.ends.put, &self.ends.take]).map(AsRawFd::as_raw_fd)
    }

    /// Puts an idle connection where others take it.
    pub fn put_idle(&self, connection: &Connection) -> io::Result<()> {
        parcel::put_idle(self.ends.way_in(Queue::Idle), connection)
    }

    /// The kernel says that there is a request to take.
    pub fn has_some(&mut self) {
        self.has_some = true;
    }

    /// A handler has finished: what siblings hand over is no more to wait than what clients of this worker ask.
    fn has_progressed(&mut self, now: Duration) {
        self.quick = !self.is_stuck(now);
        (self.busy_since, self.sated) = (None, false);
    }

    /// Whether there is room for what a message brings.
    fn has_spare(&mut self) -> bool {
        while self.spare.len() < DESCRIPTORS {
            match self.ends.take.try_clone() {
                Ok(descriptor) => self.spare.push(descriptor),
                Err(_) => return false,
            }
        }
        true
    }

    /// When to come round although nothing has happened.
    pub fn next_deadline(&self) -> Option<Duration> {
        let until_stuck = self.busy_since.filter(|_| self.listens).map(|since| since + PATIENCE);
        [self.look_deadline, self.idle.next_deadline(), until_stuck].into_iter().flatten().min()
    }

    /// Whether a loop whose handlers are `busy` would take more.
    fn is_willing(&mut self, busy: bool, now: Duration) -> bool {
        if !busy {
            (self.busy_since, self.sated) = (None, false);
            return true;
        }
        self.busy_since.get_or_insert(now);
        self.quick && !self.sated && !self.is_stuck(now)
    }

    /// Whether no handler has finished for a while.
    fn is_stuck(&self, now: Duration) -> bool {
        self.busy_since.is_some_and(|since| now >= since + PATIENCE)
    }
}

impl Loop {
    /// Joins those who take what is handed over, or leaves.
    pub(super) fn move_handover(&mut self) -> io::Result<()> {
        let (busy, now) = (self.env.executor.is_busy(), self.env.now);
        let Some(handover) = &mut self.handover else { return Ok(()) };
        let (may, has_spare) = (!self.gate.full && !self.gate.closed, handover.has_spare());
        let requests = may && handover.is_willing(busy, now) && has_spare;
        let idle = handover.idle.is_willing(may, has_spare, now);
        let Handover { ends, listens, idle: Idle { listens: listens_idle, .. }, .. } = handover;
        let poll = &self.poll;
        let move_to = |listens: &mut bool, wanted: bool, queue: Queue, token| {
            let way_out = ends.way_out(queue).as_fd();
            match (std::mem::replace(listens, wanted), wanted) {
                (false, true) => sys::epoll::add_exclusive(poll, way_out, token),
                (true, false) => sys::epoll::remove(poll, way_out),
                (true, true) | (false, false) => Ok(()),
            }
        };
        move_to(listens, requests, Queue::Requests, HANDOVER)?;
        move_to(listens_idle, idle, Queue::Idle, IDLE_HANDOVER)
    }

    /// Takes what others have handed over: idle connections, and requests until the handlers are at work; then hands over
    /// what waits too long, and what is idle where this worker leaves.
    pub(super) fn hand_over(&mut self) {
        let Some(handover) = &mut self.handover else { return };
        if std::mem::take(&mut handover.idle.has_some) {
            self.take_idle();
        }
        let Some(handover) = &mut self.handover else { return };
        if std::mem::take(&mut handover.has_some) {
            self.take_until_busy();
        }
        self.give();
        self.give_idle();
    }

    /// What has waited longest is taken up before clients of this worker ask more: their next requests come in a moment.
    pub(super) fn handler_finished(&mut self) {
        let Some(handover) = &mut self.handover else { return };
        handover.has_progressed(self.env.now);
        if self.board.has_some_to_take() && !self.env.executor.is_busy() && !self.gate.full && !self.gate.closed {
            self.take_until_busy();
        }
    }

    /// Takes at least one.
    fn take_until_busy(&mut self) {
        let room = |serving: &Self| serving.table.len() < serving.max_connections;
        while self.take_one(Queue::Requests) && !self.env.executor.is_busy() && room(self) {}
        if let Some(handover) = &mut self.handover {
            handover.sated = true;
        }
    }

    /// Takes all that is left: this worker is the last, or one of them.
    pub(super) fn take_all(&mut self) {
        while self.take_one(Queue::Requests) {}
        self.take_all_idle();
    }

    /// Whether there was something to take.
    pub(super) fn take_one(&mut self, queue: Queue) -> bool {
        let Some(handover) = &mut self.handover else { return false };
        if !handover.has_spare() {
            return false;
        }
        handover.spare.clear();
        let received = message::receive(handover.ends.way_out(queue), &mut self.env.buffer, Patience::DoNotWait);
        self.note_received(queue, &received);
        let (n, descriptors) = match received {
            Ok((n @ 1.., descriptors)) => (n, descriptors),
            Err(cause) if cause.kind() == io::ErrorKind::InvalidData => {
                log::error!("no descriptor was left for a connection that another loop handed over; it is lost");
                return true;
            }
            Ok(_) | Err(_) => return false,
        };
        let mut descriptors = descriptors.into_iter();
        if let (Some(socket), Some((head, bytes))) = (descriptors.next(), Head::read(&self.env.buffer[..n])) {
            let bytes = match descriptors.next() {
                None => bytes.to_vec(),
                Some(file) => match sys::shared::read_all(file) {
                    Ok(bytes) => bytes,
                    Err(cause) => {
                        log::error!("cannot read what a sibling handed over: {cause}; closing that connection");
                        return true;
                    }
                },
            };
            self.adopt(socket, head, bytes);
        }
        true
    }

    /// Siblings want to know whether requests wait.
    fn note_received<T>(&self, queue: Queue, received: &io::Result<(usize, T)>) {
        let there_was_one = match received {
            Ok((n, _)) => *n > 0,
            Err(cause) => cause.kind() == io::ErrorKind::InvalidData,
        };
        match (queue, there_was_one) {
            (Queue::Requests, true) => self.board.note_taken(),
            (Queue::Requests, false) => self.board.note_none_left(),
            (Queue::Idle, _) => {}
        }
    }

    /// A connection of another loop is this one's from now on.
    fn adopt(&mut self, socket: OwnedFd, head: Head, bytes: Vec<u8>) {
        // A client that has left meanwhile is nobody to answer to.
        if sys::socket::peer(socket.as_fd()).is_err() {
            return;
        }
        let mut connection = Connection::new(socket, Transport::Plain, head.client);
        connection.is_stranger = head.is_stranger;
        connection.kept = head.stage != Stage::Fresh;
        if let Stage::Asked(began) = head.stage {
            let mut flight = self.env.take_flight();
            flight.input = bytes;
            flight.began_elsewhere = Some(began);
            connection.flight = Some(flight);
        }
        let index = self.admit(connection);
        self.drive(index);
    }

    /// Hands over requests that have waited too long: all of them, or as many as the siblings that are free can take.
    fn give(&mut self) {
        let now = self.env.now;
        let look_deadline = self.next_look();
        let due = look_deadline.is_some_and(|at| at <= now);
        if due && self.may_give() {
            let free = self.board.mean_connections(now, STUCK_AFTER).map_or(0, |mean| mean.loops);
            let stuck = self.handover.as_ref().is_some_and(|handover| handover.is_stuck(now));
            let most = if stuck { u64::MAX } else { free * BATCH };
            let given = (0..most).take_while(|_| self.give_one()).count();
            log::trace!("handed over {given} connections");
        }
        if let Some(handover) = &mut self.handover {
            handover.look_deadline = look_deadline.map(|at| if due { now + LOOK_AGAIN } else { at });
        }
    }

    fn next_look(&self) -> Option<Duration> {
        let Executor::Pool(pool) = &self.env.executor else { return None };
        let handover = self.handover.as_ref().filter(|handover| handover.shares_requests)?;
        let soonest = pool.waiting_since()? + PATIENCE;
        Some(handover.look_deadline.map_or(soonest, |at| at.max(soonest)))
    }

    /// While the whole server stops, everybody keeps what he has; and so does the last one.
    fn may_give(&self) -> bool {
        let retired = self.record.is_retired();
        (self.accept_until.is_none() || retired) && self.board.stayers() > usize::from(!retired)
    }

    fn give_one(&mut self) -> bool {
        let (Executor::Pool(pool), Some(handover)) = (&self.env.executor, &self.handover) else { return false };
        let before = self.env.now.saturating_sub(PATIENCE);
        let Some((exchange, since)) = pool.withdraw(before, |exchange| self.can_go(exchange)) else { return false };
        let index = exchange.key().index;
        let sent = self
            .table
            .get(index)
            .map(|connection| parcel::put_request(handover.ends.way_in(Queue::Requests), connection, &exchange));
        if !matches!(sent, Some(Ok(()))) {
            // There is no room, or no memory, for it now.
            pool.put_back(exchange, since);
            return false;
        }
        self.board.note_put();
        exchange.release();
        self.let_go(index);
        true
    }

    /// A connection is somebody else's, too, and here it is closed.
    pub(super) fn let_go(&mut self, index: usize) {
        if let Some(connection) = self.table.get_mut(index) {
            if let Some(underway) = connection.flight.as_deref().and_then(|flight| flight.underway.as_ref()) {
                self.record.abandon_request(underway.entry);
            }
            connection.unwatch(self.poll.registry());
        }
        self.close(index);
    }

    /// Whether a request can go elsewhere: its connection waits for nothing but the answer and has no TLS session, which
    /// no other process could go on with, and the request can be written as it came.
    fn can_go(&self, exchange: &Exchange) -> bool {
        let (key, request) = (exchange.key(), exchange.request());
        let connection = self.table.get(key.index).filter(|connection| !connection.is_tls());
        let flight = connection.and_then(|connection| connection.flight.as_deref());
        let waits = flight.is_some_and(|flight| {
            let is_it = flight.underway.as_ref().is_some_and(|underway| underway.serial == key.serial);
            is_it && flight.phase == Phase::Handling && flight.sent == flight.out.len()
        });
        let plain = request.uri().authority().is_none() && request.extensions().get::<Trailers>().is_none();
        waits && plain && request.body().in_memory().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn handover() -> Handover {
        Handover::new(Arc::new(Ends::open().unwrap()), true)
    }

    #[test]
    fn a_worker_takes_more_while_its_handlers_are_free_and_for_a_while_when_they_are_not() {
        let mut handover = handover();
        assert!(handover.is_willing(false, MS));
        assert!(handover.is_willing(true, 2 * MS), "it may be over soon");
        assert!(handover.is_willing(true, 6 * MS));
        assert!(!handover.is_willing(true, 7 * MS), "it is not");
        assert!(!handover.is_willing(true, 900 * MS));
        assert!(handover.is_willing(false, 901 * MS));
        assert!(handover.is_willing(true, 902 * MS), "another one");
    }

    #[test]
    fn one_that_has_taken_something_takes_more_once_a_handler_has_finished() {
        let mut handover = handover();
        handover.sated = true;
        assert!(!handover.is_willing(true, MS));
        // Its own clients keep it at work all the time: theirs and what was handed over take turns.
        handover.has_progressed(2 * MS);
        assert!(handover.is_willing(true, 3 * MS));
        handover.sated = true;
        assert!(handover.is_willing(false, 4 * MS));
        assert!(handover.is_willing(true, 4 * MS), "it was free meanwhile");
    }

    #[test]
    fn one_with_slow_handlers_takes_nothing_more_while_they_are_at_work() {
        let mut handover = handover();
        handover.is_willing(true, MS);
        handover.has_progressed(100 * MS);
        assert!(!handover.is_willing(true, 100 * MS), "what it took would wait for another of that kind");
        assert!(handover.is_willing(false, 101 * MS));
        assert!(!handover.is_willing(true, 102 * MS));
        handover.has_progressed(103 * MS);
        assert!(handover.is_willing(true, 103 * MS), "that was a quick one");
    }

    #[test]
    fn the_loop_comes_round_when_its_handlers_are_stuck_and_when_requests_have_waited() {
        let mut handover = handover();
        assert_eq!(handover.next_deadline(), None);
        handover.listens = true;
        handover.is_willing(true, 2 * MS);
        assert_eq!(handover.next_deadline(), Some(7 * MS));
        handover.look_deadline = Some(4 * MS);
        assert_eq!(handover.next_deadline(), Some(4 * MS));
        (handover.listens, handover.look_deadline) = (false, None);
        assert_eq!(handover.next_deadline(), None, "it has left");
    }
}
