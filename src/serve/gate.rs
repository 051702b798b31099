//! Whether this worker's loop listens: the rule that spreads connections evenly over the workers. Pure.
//!
//! A worker leaves the listener to its siblings for a moment when it has clearly more connections than the mean of
//! those that can take more, and while its handler is busy. `EPOLLEXCLUSIVE` wakes the same waiter again and again,
//! so a worker goes to the end of that queue after some accepts, by leaving and joining.

use std::time::Duration;

use crate::board::Mean;

/// A sibling that has not come round for so long is stuck, and is left out of the mean.
pub(super) const STUCK_AFTER: Duration = Duration::from_millis(8);

/// How long a worker above the mean stays away before it looks again. All may be away at the same time, each
/// waiting for the others to catch up, so this bounds how long a connection waits for that: with 10 ms, 10,000
/// clients took 9 s to be let in by two workers.
pub(super) const RETURN_AFTER: Duration = Duration::from_millis(1);

/// How long a worker that could not get a descriptor or memory for a connection stays away.
pub(super) const STARVED_FOR: Duration = Duration::from_millis(100);

/// How often it says so.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// After so many accepts a worker goes to the end of the listener's queue.
const REJOIN_AFTER: u32 = 16;

/// What is to be done with the listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    Join,
    Leave,
    /// Leave, and join at the end of the queue.
    Rejoin,
}

/// Reasons not to listen, and whether the loop listens now.
#[derive(Debug, Default)]
pub(super) struct Gate {
    listens: bool,
    accepts: u32,
    /// A handler runs that would keep a new request waiting, and there are siblings.
    pub busy: bool,
    /// The table of connections is full.
    pub full: bool,
    /// The worker accepts no more.
    pub closed: bool,
    away_until: Option<Duration>,
    /// That accepts fail for want of something was said, and is not said again before then.
    told_until: Option<Duration>,
}

impl Gate {
    /// A connection was accepted, of which the worker now has `own`.
    pub fn accepted(&mut self, own: usize, mean: Option<Mean>, now: Duration) {
        self.accepts += 1;
        if mean.is_some_and(|mean| is_above(own as u64, mean)) {
            self.away_until = Some(now + RETURN_AFTER);
        }
    }

    /// No descriptor or no memory was left for a connection. Returns whether to say so.
    pub fn starved(&mut self, now: Duration) -> bool {
        self.away_until = Some(now + STARVED_FOR);
        let say_so = self.told_until.is_none_or(|until| until <= now);
        if say_so {
            self.told_until = Some(now + TOLD_EVERY);
        }
        say_so
    }

    /// Whether to go on accepting within this turn.
    pub fn is_open(&self) -> bool {
        !self.busy && !self.full && !self.closed && self.away_until.is_none()
    }

    /// What is to be done now, if anything.
    pub fn next_move(&mut self, now: Duration) -> Option<Move> {
        if self.away_until.is_some_and(|until| until <= now) {
            self.away_until = None;
        }
        let (wanted, tired) = (self.is_open(), self.accepts >= REJOIN_AFTER);
        let next = match (self.listens, wanted) {
            (false, true) => Move::Join,
            (true, false) => Move::Leave,
            (true, true) if tired => Move::Rejoin,
            (true, true) | (false, false) => return None,
        };
        self.accepts = 0;
        self.listens = wanted;
        Some(next)
    }

    /// When to ask again although nothing has happened.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.away_until
    }
}

/// Whether `own` is above the mean plus one and a thirty-second of it: the more connections there are, the less it
/// matters where one more goes, and the less often workers stay away.
pub(super) fn is_above(own: u64, mean: Mean) -> bool {
    32 * own * mean.loops > 33 * mean.connections + 32 * mean.loops
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn listening() -> Gate {
        let mut gate = Gate::default();
        assert_eq!(gate.next_move(MS), Some(Move::Join));
        assert_eq!(gate.next_move(MS), None);
        gate
    }

    #[test]
    fn a_worker_above_the_mean_plus_one_leaves_and_comes_back() {
        let mut gate = listening();
        gate.accepted(6, Some(Mean { connections: 20, loops: 4 }), MS);
        assert_eq!(gate.next_move(MS), None, "6 is not above 5 + 1");
        gate.accepted(1031, Some(Mean { connections: 4000, loops: 4 }), MS);
        assert_eq!(gate.next_move(MS), None, "nor is 1031 above 1000 + 1 + 1000 / 32");
        gate.accepted(7, Some(Mean { connections: 21, loops: 4 }), MS);
        assert!(!gate.is_open());
        assert_eq!(gate.next_move(MS), Some(Move::Leave));
        assert_eq!(gate.next_move(MS), None);
        assert_eq!(gate.next_deadline(), Some(2 * MS));
        assert_eq!(gate.next_move(2 * MS), Some(Move::Join));
    }

    #[test]
    fn a_worker_without_siblings_never_stays_away() {
        let mut gate = listening();
        for own in 1..9 {
            gate.accepted(own, None, MS);
            assert!(gate.is_open());
        }
    }

    #[test]
    fn after_some_accepts_a_worker_goes_to_the_end_of_the_queue() {
        let mut gate = listening();
        let moves: Vec<_> = (0..32)
            .map(|_| {
                gate.accepted(1, None, MS);
                gate.next_move(MS)
            })
            .collect();
        assert_eq!(moves.iter().filter(|m| **m == Some(Move::Rejoin)).count(), 2, "{moves:?}");
        assert_eq!(moves[15], Some(Move::Rejoin));
    }

    #[test]
    fn a_busy_full_or_draining_worker_does_not_listen() {
        for reason in 0..3 {
            let mut gate = listening();
            let set = |gate: &mut Gate, to| match reason {
                0 => gate.busy = to,
                1 => gate.full = to,
                _ => gate.closed = to,
            };
            set(&mut gate, true);
            assert_eq!(gate.next_move(MS), Some(Move::Leave));
            set(&mut gate, false);
            assert_eq!(gate.next_move(MS), Some(Move::Join));
        }
    }

    #[test]
    fn a_worker_out_of_descriptors_stays_away_for_a_while() {
        let mut gate = listening();
        assert!(gate.starved(MS), "that is news");
        assert!(!gate.starved(MS), "and then no more");
        assert!(!gate.starved(9 * Duration::from_secs(1)));
        assert!(gate.starved(11 * Duration::from_secs(1)), "until much later");
        gate.starved(MS);
        assert_eq!(gate.next_move(50 * MS), Some(Move::Leave));
        assert_eq!(gate.next_move(101 * MS), Some(Move::Join));
    }
}
