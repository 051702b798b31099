//! Idle connections change hands: a worker that leaves gives its own to those who go on.

use std::io;
use std::time::Duration;

use super::Loop;
use super::gate::{RETURN_AFTER, STARVED_FOR, STUCK_AFTER, is_above};
use super::handover::Queue;
use super::timers::Timer;

/// How many are taken in one turn at most, so that those who are here already are not kept waiting.
const TAKEN_PER_TURN: usize = 16;

/// How soon to go on giving where the queue was full: it holds some hundred, which are soon taken.
const GIVE_AGAIN: Duration = Duration::from_millis(2);

/// A loop's side of the queue.
#[derive(Debug, Default)]
pub(super) struct Idle {
    /// The loop is told of what is in the queue.
    pub listens: bool,
    /// There may be something to take.
    pub has_some: bool,
    /// They are left to others until then.
    away_until: Option<Duration>,
    /// This worker leaves: what is idle is others' from now on.
    gives: bool,
    /// When to go on giving those for whom there was no room.
    give_deadline: Option<Duration>,
}

impl Idle {
    /// Whether to take what comes: a loop that leaves, or that has no room, is not to; one without spare descriptors or with
    /// more connections than its siblings comes back after a while.
    pub fn is_willing(&mut self, has_room: bool, has_spare: bool, now: Duration) -> bool {
        if self.away_until.is_some_and(|until| until <= now) {
            self.away_until = None;
        }
        if !has_room || self.gives || self.away_until.is_some() {
            return false;
        }
        if !has_spare {
            self.away_until = Some(now + STARVED_FOR);
        }
        has_spare
    }

    /// When to come round although nothing has happened.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.away_until.into_iter().chain(self.give_deadline).min()
    }

    /// Others go on, and get what is idle, now and later.
    fn begin_to_give(&mut self, now: Duration) {
        if !std::mem::replace(&mut self.gives, true) {
            self.give_deadline = Some(now);
        }
    }

    /// Whether to give what there is.
    fn is_to_give(&mut self, now: Duration) -> bool {
        let due = self.gives && self.give_deadline.is_none_or(|at| at <= now);
        if due {
            self.give_deadline = None;
        }
        due
    }
}

impl Loop {
    /// Others go on, and get what is idle here.
    pub(super) fn begin_to_give_idle(&mut self) {
        if let Some(handover) = &mut self.handover {
            handover.idle.begin_to_give(self.env.now);
        }
    }

    /// Takes at least one, for the kernel may have told nobody else of it; and more while this loop has not clearly more
    /// than its siblings.
    pub(super) fn take_idle(&mut self) {
        for _ in 0..TAKEN_PER_TURN {
            if !self.take_one(Queue::Idle) || !self.has_room() {
                return;
            }
            let mean = self.board.mean_connections(self.env.now, STUCK_AFTER);
            if mean.is_some_and(|mean| is_above(self.table.len() as u64, mean)) {
                if let Some(handover) = &mut self.handover {
                    handover.idle.away_until = Some(self.env.now + RETURN_AFTER);
                }
                return;
            }
        }
    }

    /// Takes all that is left, unless it was given to others: this worker is the last, or one of them.
    pub(super) fn take_all_idle(&mut self) {
        let gives = self.handover.as_ref().is_some_and(|handover| handover.idle.gives);
        while !gives && self.take_one(Queue::Idle) {}
    }

    /// Gives what is idle, as much as there is room for. A request that its client sends meanwhile is in the socket, and
    /// goes with it.
    pub(super) fn give_idle(&mut self) {
        let now = self.env.now;
        if !self.handover.as_mut().is_some_and(|handover| handover.idle.is_to_give(now)) {
            return;
        }
        if self.timers.oldest(Timer::Drain).is_none() {
            return;
        }
        let idle = self.table.iter().filter(|(_, connection)| connection.is_portable());
        let idle: Vec<_> = idle.map(|(index, _)| index).collect();
        let given = idle.into_iter().try_for_each(|index| self.give_one_idle(index));
        if let (Some(handover), Err(why)) = (&mut self.handover, given) {
            log::trace!("an idle connection cannot be handed over yet: {why}");
            handover.idle.give_deadline = Some(now + GIVE_AGAIN);
        }
    }

    fn give_one_idle(&mut self, index: usize) -> io::Result<()> {
        if let (Some(handover), Some(connection)) = (&self.handover, self.table.get(index)) {
            handover.put_idle(connection)?;
            self.let_go(index);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn who_has_room_takes_what_comes_and_who_leaves_does_not() {
        let mut idle = Idle::default();
        assert!(idle.is_willing(true, true, MS));
        assert!(!idle.is_willing(false, true, MS));
        assert_eq!(idle.next_deadline(), None, "room comes with an event");
        idle.begin_to_give(MS);
        assert!(!idle.is_willing(true, true, MS));
    }

    #[test]
    fn without_a_spare_descriptor_it_looks_again_after_a_while() {
        let mut idle = Idle::default();
        assert!(!idle.is_willing(true, false, MS));
        assert_eq!(idle.next_deadline(), Some(101 * MS));
        assert!(!idle.is_willing(true, true, 100 * MS));
        assert!(idle.is_willing(true, true, 101 * MS));
        assert_eq!(idle.next_deadline(), None);
    }

    #[test]
    fn a_deadline_that_has_passed_wakes_nobody_again() {
        let mut idle = Idle { away_until: Some(MS), ..Idle::default() };
        assert!(!idle.is_willing(false, true, 2 * MS));
        assert_eq!(idle.next_deadline(), None);
    }

    #[test]
    fn it_gives_at_once_and_then_whenever_the_loop_comes_round_unless_there_was_no_room() {
        let mut idle = Idle::default();
        assert!(!idle.is_to_give(MS));
        idle.begin_to_give(MS);
        assert_eq!(idle.next_deadline(), Some(MS));
        assert!(idle.is_to_give(MS));
        idle.begin_to_give(2 * MS);
        assert_eq!(idle.next_deadline(), None, "said again, it is nothing new");
        assert!(idle.is_to_give(2 * MS));
        idle.give_deadline = Some(4 * MS);
        assert!(!idle.is_to_give(3 * MS));
        assert!(idle.is_to_give(4 * MS));
    }
}
