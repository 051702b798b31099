//! The loop's timers: one list a kind, oldest first. All timers of a kind last equally long, so that setting,
//! clearing and finding the next one take constant time. Pure: knows connections as numbers and is told the time.

use std::time::Duration;

/// What a connection can be waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    /// The rest of a request's head, or the first request of a new connection.
    Header,
    /// The next bytes of a request's body.
    Body,
    /// That the client takes some of its response.
    Write,
    /// The next request of a kept connection.
    KeepAlive,
    /// The same, while the worker is draining.
    Drain,
    /// That the client hears of the end.
    Linger,
    /// An answer that nobody works at in sight: the handler has returned without one.
    Answer,
}

const KINDS: [Timer; 7] =
    [Timer::Header, Timer::Body, Timer::Write, Timer::KeepAlive, Timer::Drain, Timer::Linger, Timer::Answer];

/// How long each kind lasts; zero is for ever. Up to 20 days.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeouts {
    pub header_timeout: Duration,
    pub body_timeout: Duration,
    pub write_timeout: Duration,
    pub keep_alive_timeout: Duration,
    pub drain_timeout: Duration,
    pub linger_timeout: Duration,
    pub request_timeout: Duration,
}

impl Timeouts {
    const fn of(&self, timer: Timer) -> Duration {
        match timer {
            Timer::Header => self.header_timeout,
            Timer::Body => self.body_timeout,
            Timer::Write => self.write_timeout,
            Timer::KeepAlive => self.keep_alive_timeout,
            Timer::Drain => self.drain_timeout,
            Timer::Linger => self.linger_timeout,
            Timer::Answer => self.request_timeout,
        }
    }
}

/// At most one timer for each connection.
#[derive(Debug)]
pub(super) struct Timers {
    pub timeouts: Timeouts,
    nodes: Vec<Node>,
    lists: [List; KINDS.len()],
}

const NONE: u32 = u32::MAX;

/// 16 bytes for each connection.
#[derive(Clone, Copy, Debug)]
struct Node {
    previous: u32,
    next: u32,
    /// Milliseconds, wrapping; compared by difference only.
    since: u32,
    timer: Option<Timer>,
}

#[derive(Clone, Copy, Debug)]
struct List {
    oldest: u32,
    newest: u32,
}

impl Timers {
    pub fn new(timeouts: Timeouts) -> Self {
        let empty = List { oldest: NONE, newest: NONE };
        Self { timeouts, nodes: Vec::new(), lists: [empty; KINDS.len()] }
    }

    /// Starts `timer` for a connection, in place of the one it has.
    pub fn set(&mut self, index: usize, timer: Timer, now: Duration) {
        self.clear(index);
        let idle = Node { previous: NONE, next: NONE, since: 0, timer: None };
        if self.nodes.len() <= index {
            self.nodes.resize(index + 1, idle);
        }
        self.insert(index, timer, millis(now), self.lists[timer as usize].newest);
    }

    /// The same for a timer that began before: it takes its place among the others, counted from the newest.
    pub fn set_since(&mut self, index: usize, timer: Timer, since: Duration) {
        self.set(index, timer, since);
        let is_newer = |node: &Node| millis(since).wrapping_sub(node.since) > u32::MAX / 2;
        let mut previous = self.nodes[index].previous;
        while previous != NONE && is_newer(&self.nodes[previous as usize]) {
            previous = self.nodes[previous as usize].previous;
        }
        if previous != self.nodes[index].previous {
            self.clear(index);
            self.insert(index, timer, millis(since), previous);
        }
    }

    /// Puts a timer that is in no list behind `previous`.
    fn insert(&mut self, index: usize, timer: Timer, since: u32, previous: u32) {
        let list = &mut self.lists[timer as usize];
        let next = match previous {
            NONE => std::mem::replace(&mut list.oldest, link(index)),
            previous => std::mem::replace(&mut self.nodes[previous as usize].next, link(index)),
        };
        match next {
            NONE => list.newest = link(index),
            next => self.nodes[next as usize].previous = link(index),
        }
        self.nodes[index] = Node { previous, next, since, timer: Some(timer) };
    }

    /// Stops the timer of a connection, if it has one.
    pub fn clear(&mut self, index: usize) {
        let Some(node) = self.nodes.get_mut(index) else { return };
        let Some(timer) = node.timer.take() else { return };
        let Node { previous, next, .. } = *node;
        let list = &mut self.lists[timer as usize];
        match previous {
            NONE => list.oldest = next,
            previous => self.nodes[previous as usize].next = next,
        }
        match next {
            NONE => list.newest = previous,
            next => self.nodes[next as usize].previous = previous,
        }
    }

    /// The timer that a connection has.
    pub fn current(&self, index: usize) -> Option<Timer> {
        self.nodes.get(index).and_then(|node| node.timer)
    }

    /// The connection that has had this timer longest.
    pub fn oldest(&self, timer: Timer) -> Option<usize> {
        let oldest = self.lists[timer as usize].oldest;
        (oldest != NONE).then_some(oldest as usize)
    }

    /// A connection whose timer has run out, and the timer, which is cleared.
    pub fn expired(&mut self, now: Duration) -> Option<(usize, Timer)> {
        let due = |timer: &Timer| self.left(*timer, now) == Some(Duration::ZERO);
        let timer = KINDS.into_iter().find(due)?;
        let index = self.oldest(timer)?;
        self.clear(index);
        Some((index, timer))
    }

    /// How long it is until the next timer runs out.
    pub fn next_timeout(&self, now: Duration) -> Option<Duration> {
        KINDS.into_iter().filter_map(|timer| self.left(timer, now)).min()
    }

    /// How long it is until the oldest of a kind runs out.
    fn left(&self, timer: Timer, now: Duration) -> Option<Duration> {
        let timeout = self.timeouts.of(timer);
        let since = self.nodes[self.oldest(timer)?].since;
        let elapsed = Duration::from_millis(u64::from(millis(now).wrapping_sub(since)));
        (timeout > Duration::ZERO).then(|| timeout.saturating_sub(elapsed))
    }
}

/// The table of connections is bounded far below this.
fn link(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(NONE)
}

#[allow(clippy::cast_possible_truncation)] // wraps on purpose
fn millis(now: Duration) -> u32 {
    now.as_millis() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn timers() -> Timers {
        Timers::new(Timeouts {
            header_timeout: 10 * S,
            body_timeout: 30 * S,
            write_timeout: Duration::ZERO,
            keep_alive_timeout: 75 * S,
            drain_timeout: S,
            linger_timeout: 2 * S,
            request_timeout: 30 * S,
        })
    }

    #[test]
    fn timers_run_out_in_the_order_of_their_deadlines() {
        let mut t = timers();
        t.set(0, Timer::KeepAlive, S);
        t.set(1, Timer::Header, 2 * S);
        t.set(2, Timer::Header, 3 * S);
        assert_eq!(t.next_timeout(3 * S), Some(9 * S));
        assert_eq!(t.expired(11 * S), None);
        assert_eq!(t.expired(12 * S), Some((1, Timer::Header)));
        assert_eq!(t.expired(12 * S), None);
        assert_eq!(t.expired(100 * S), Some((2, Timer::Header)));
        assert_eq!(t.expired(100 * S), Some((0, Timer::KeepAlive)));
        assert_eq!((t.expired(100 * S), t.next_timeout(100 * S)), (None, None));
    }

    #[test]
    fn a_timeout_of_zero_never_runs_out() {
        let mut t = timers();
        t.set(0, Timer::Write, S);
        assert_eq!((t.next_timeout(9999 * S), t.expired(9999 * S)), (None, None));
    }

    #[test]
    fn setting_again_moves_to_the_end_and_clearing_anywhere_keeps_the_list_whole() {
        let mut t = timers();
        for index in 0..4 {
            t.set(index, Timer::KeepAlive, S);
        }
        t.set(0, Timer::KeepAlive, 2 * S);
        t.clear(2);
        t.clear(2);
        t.clear(99);
        assert_eq!(t.oldest(Timer::KeepAlive), Some(1));
        let mut order = Vec::new();
        while let Some((index, _)) = t.expired(100 * S) {
            order.push(index);
        }
        assert_eq!(order, [1, 3, 0]);
        assert_eq!(t.oldest(Timer::KeepAlive), None);
    }

    #[test]
    fn a_timer_that_began_before_others_runs_out_before_them() {
        let mut t = timers();
        for (index, since) in [(0, 5), (1, 9), (2, 7), (3, 5), (4, 1), (5, 9)] {
            t.set_since(index, Timer::Answer, since * S);
        }
        t.set_since(1, Timer::Answer, 2 * S);
        let order: Vec<_> = std::iter::from_fn(|| t.expired(100 * S)).map(|(index, _)| index).collect();
        assert_eq!(order, [4, 1, 0, 3, 2, 5]);
        assert_eq!(t.oldest(Timer::Answer), None);
    }

    #[test]
    fn the_clock_may_pass_the_range_of_its_milliseconds() {
        let mut t = timers();
        let wrap = Duration::from_millis(u64::from(u32::MAX));
        t.set(0, Timer::Header, wrap.saturating_sub(S));
        assert_eq!(t.next_timeout(wrap + S), Some(8 * S));
        assert_eq!(t.expired(wrap + 9 * S), Some((0, Timer::Header)));
    }
}
