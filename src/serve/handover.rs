//! Connections that siblings hand over to each other: a request that waits behind a busy handler goes, with its
//! connection and all that was read of it, to a worker whose handler is free.
//!
//! All workers of a pool share one socket for that, as they share the listener: whoever is free takes what comes, and
//! what nobody can take yet waits in the kernel for the first who can, also when its sender or its receiver dies.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use super::connection::{Connection, Phase};
use super::executor::Executor;
use super::gate::STUCK_AFTER;
use super::transport::Transport;
use super::{HANDOVER, Loop};
use crate::h1;
use crate::site::{Client, Exchange, Trailers};
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

/// A longer message has its bytes in a file in memory.
const INLINE_BYTES: usize = 60 << 10;

/// What a message brings at most: a connection, and a file with its bytes.
const DESCRIPTORS: usize = 2;

/// The socket's two ends: where connections are put, and where they are taken out.
pub(crate) struct Ends {
    pub put: OwnedFd,
    pub take: OwnedFd,
}

impl Ends {
    pub fn open() -> io::Result<Self> {
        let (put, take) = message::pair()?;
        Ok(Self { put, take })
    }
}

/// A loop's side of it.
pub(super) struct Handover {
    ends: Ends,
    /// The loop is told of what siblings hand over.
    listens: bool,
    /// There may be something to take.
    has_some: bool,
    /// Since when the handlers are all at work, and none has finished.
    busy_since: Option<Duration>,
    /// Something was taken, and since then no handler has finished.
    sated: bool,
    /// The last handler finished so soon that one more does not wait for long.
    quick: bool,
    /// When to see to the requests that wait.
    look_deadline: Option<Duration>,
    /// They give their room to what the next message brings, which would be lost without.
    spare: Vec<OwnedFd>,
}

impl Handover {
    pub fn new(ends: Ends) -> Self {
        let (listens, has_some, sated, quick) = (false, false, false, true);
        Self { ends, listens, has_some, busy_since: None, sated, quick, look_deadline: None, spare: Vec::new() }
    }

    /// The kernel says that there is something to take.
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
        self.look_deadline.into_iter().chain(until_stuck).min()
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
        let busy = self.env.executor.is_busy();
        let Some(handover) = &mut self.handover else { return Ok(()) };
        let may = !self.gate.full && !self.gate.closed;
        let wanted = may && handover.is_willing(busy, self.env.now) && handover.has_spare();
        match (handover.listens, wanted) {
            (false, true) => sys::epoll::add_exclusive(&self.poll, handover.ends.take.as_fd(), HANDOVER)?,
            (true, false) => sys::epoll::remove(&self.poll, handover.ends.take.as_fd())?,
            (true, true) | (false, false) => {}
        }
        handover.listens = wanted;
        Ok(())
    }

    /// Takes what siblings have handed over, until the handlers are at work; then hands over what waits too long.
    pub(super) fn hand_over(&mut self) {
        let Some(handover) = &mut self.handover else { return };
        if std::mem::take(&mut handover.has_some) {
            self.take_until_busy();
        }
        self.give();
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
        while self.take_one() && !self.env.executor.is_busy() && room(self) {}
        if let Some(handover) = &mut self.handover {
            handover.sated = true;
        }
    }

    /// Takes all that is left: this worker is the last, or one of them.
    pub(super) fn take_all(&mut self) {
        while self.take_one() {}
    }

    /// Whether there was something to take.
    fn take_one(&mut self) -> bool {
        let Some(handover) = &mut self.handover else { return false };
        if !handover.has_spare() {
            return false;
        }
        handover.spare.clear();
        let (n, descriptors) = match message::receive(&handover.ends.take, &mut self.env.buffer, Patience::DoNotWait) {
            Ok((n @ 1.., descriptors)) => (n, descriptors),
            Err(cause) if cause.kind() == io::ErrorKind::InvalidData => {
                log::error!("no descriptor was left for a connection that a sibling handed over; it is lost");
                self.board.note_taken();
                return true;
            }
            Ok(_) | Err(_) => {
                self.board.note_none_left();
                return false;
            }
        };
        self.board.note_taken();
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

    /// A connection of a sibling is this worker's from now on.
    fn adopt(&mut self, socket: OwnedFd, head: Head, bytes: Vec<u8>) {
        // A client that has left meanwhile is nobody to answer to.
        if sys::socket::peer(socket.as_fd()).is_err() {
            return;
        }
        let mut connection = Connection::new(socket, Transport::Plain, head.client);
        connection.is_stranger = head.is_stranger;
        let mut flight = self.env.take_flight();
        flight.input = bytes;
        flight.began_elsewhere = Some(head.began);
        connection.kept = true;
        connection.flight = Some(flight);
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
        let soonest = pool.waiting_since()? + PATIENCE;
        let look_deadline = self.handover.as_ref().and_then(|handover| handover.look_deadline);
        Some(look_deadline.map_or(soonest, |at| at.max(soonest)))
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
        let sent = self.table.get(index).map(|connection| put(&handover.ends.put, connection, &exchange));
        if !matches!(sent, Some(Ok(()))) {
            // There is no room, or no memory, for it now.
            pool.put_back(exchange, since);
            return false;
        }
        self.board.note_put();
        exchange.release();
        if let Some(connection) = self.table.get_mut(index) {
            if let Some(underway) = connection.flight.as_deref().and_then(|flight| flight.underway.as_ref()) {
                self.record.abandon_request(underway.entry);
            }
            connection.unwatch(self.poll.registry());
        }
        self.close(index);
        true
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

/// Puts a connection, with its request and what came after, where siblings take it.
fn put(socket: &OwnedFd, connection: &Connection, exchange: &Exchange) -> io::Result<()> {
    let missing = || io::Error::from(io::ErrorKind::NotFound);
    let flight = connection.flight.as_deref().ok_or_else(missing)?;
    let underway = flight.underway.as_ref().ok_or_else(missing)?;
    let request = exchange.request();
    let body = request.body().in_memory().ok_or_else(missing)?;
    let Connection { client, is_stranger, .. } = *connection;
    let mut message = Head { began: underway.started, client, is_stranger }.write();
    let head_bytes = message.len();
    h1::encode_request(&mut message, request.method(), &underway.target, request.version(), request.headers(), body);
    message.extend_from_slice(&flight.input);
    let connection = connection.socket.as_raw_fd();
    if message.len() <= INLINE_BYTES {
        return message::send(socket, &message, &[connection], Patience::DoNotWait);
    }
    let (head, bytes) = message.split_at(head_bytes);
    let file = sys::shared::file_with(bytes)?;
    message::send(socket, head, &[connection, file.as_raw_fd()], Patience::DoNotWait)
}

/// What a message begins with: what its receiver can find out neither from the bytes behind it nor from the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    /// When the request's head was complete.
    began: Duration,
    client: Client,
    is_stranger: bool,
}

impl Head {
    /// As a line.
    fn write(&self) -> Vec<u8> {
        let client = self.client.address().map_or_else(|| UNIX.to_owned(), |address| address.to_string());
        format!("{} {client} {}\n", self.began.as_nanos(), self.is_stranger).into_bytes()
    }

    /// And what is behind it.
    fn read(message: &[u8]) -> Option<(Self, &[u8])> {
        let (line, behind) = message.split_at(message.iter().position(|&byte| byte == b'\n')?);
        let mut words = std::str::from_utf8(line).ok()?.split(' ');
        let began = Duration::from_nanos(words.next()?.parse().ok()?);
        let client = match words.next()? {
            UNIX => Client::Unix,
            address => Client::Ip(address.parse().ok()?),
        };
        let is_stranger = words.next()?.parse().ok()?;
        Some((Self { began, client, is_stranger }, &behind[1..]))
    }
}

/// A client without an address.
const UNIX: &str = "unix";

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn handover() -> Handover {
        Handover::new(Ends::open().unwrap())
    }

    #[test]
    fn who_asks_and_since_when_goes_with_a_connection() {
        let address = |text: &str| Client::Ip(text.parse().unwrap());
        for client in [Client::Unix, address("203.0.113.7:0"), address("[::ffff:1.2.3.4]:5"), address("[fe80::1%3]:80")]
        {
            for is_stranger in [false, true] {
                let head = Head { began: 5 * MS, client, is_stranger };
                let message = [&head.write()[..], b"GET /\n\n"].concat();
                assert_eq!(Head::read(&message), Some((head, &b"GET /\n\n"[..])));
            }
        }
        for wrong in ["", "1 unix false", "1 unix\n", "1 nobody false\n", "x unix false\n"] {
            assert_eq!(Head::read(wrong.as_bytes()), None, "{wrong}");
        }
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
