//! Workers that are alive and yet to be replaced: those that are spent, whose successor comes first, one at a time; and
//! those that hang, which are replaced at once.

use std::time::Duration;

use super::messages::{Action, Observed};
use super::notice::{Care, Notice};
use super::{Machine, Phase, ask_to_drain, kill};
use crate::master::children::{Life, Pid, Slot, Spent, State, Stopped};

/// How often memory is looked at, where it is limited.
const MEMORY_PERIOD: Duration = Duration::from_secs(1);

/// It is not looked more often than this.
const OBSERVE_PERIOD_MIN: Duration = Duration::from_millis(10);

impl Machine {
    /// A worker has reached a limit. It goes on until its successor is ready.
    pub(super) fn spend(&mut self, pid: Pid, spent: Spent, actions: &mut Vec<Action>) {
        let Some(child) = self.children.slot_mut(pid).and_then(|slot| slot.child_mut()) else { return };
        if child.state == State::Serving && child.spent.is_none() {
            child.spent = Some(spent);
            let (worker, limit) = (child.identity, self.plan.max_memory);
            actions.push(Action::Say(Notice::Care(Care::Spent { worker, spent, limit })));
        }
    }

    /// Has the next one that is spent succeeded, unless another one is being.
    pub(super) fn succeed_one(&mut self) {
        let busy = self.children.outgoing().iter().any(Slot::serves);
        if busy || self.change.is_some() || !matches!(self.phase, Phase::Running) {
            return;
        }
        let is_spent =
            |slot: &&Slot| slot.wanted && slot.serves() && slot.child().is_some_and(|child| child.spent.is_some());
        let next = self.children.slots().find(is_spent).and_then(|slot| slot.child()).map(|child| child.identity.pid);
        next.into_iter().for_each(|pid| self.children.make_room(pid));
    }

    /// The worker of a slot is ready: whoever has gone on in its place until now may leave.
    pub(super) fn relieve(&mut self, now: Duration, slot: u32, actions: &mut Vec<Action>) {
        let drain_deadline = self.drain_deadline(now);
        let before = self.children.outgoing_mut().iter_mut().filter(|outgoing| outgoing.number == slot);
        for child in before.filter_map(|outgoing| outgoing.child_mut()) {
            if child.state == State::Serving {
                ask_to_drain(child, drain_deadline, actions);
            }
        }
    }

    /// A handler of this worker does not end, while its loop goes on: it finishes what else it does, and its successor
    /// starts at once.
    pub(super) fn hung(&mut self, now: Duration, pid: Pid, actions: &mut Vec<Action>) {
        let drain_deadline = self.drain_deadline(now);
        let crowded = self.children.outgoing().len() >= self.plan.max_slots as usize;
        let Some(child) = self.children.slot_mut(pid).and_then(|slot| slot.child_mut()) else { return };
        if child.state != State::Serving {
            return;
        }
        actions.push(Action::Say(Notice::Care(Care::Hung { worker: child.identity })));
        if crowded {
            // Not one more that takes its time.
            kill(child, Life::CutOff, now, actions);
        } else {
            ask_to_drain(child, drain_deadline, actions);
        }
        self.children.make_room(pid);
    }

    /// A signal from outside has stopped a worker.
    pub(super) fn stopped(&mut self, now: Duration, pid: Pid, actions: &mut Vec<Action>) {
        let timeout = self.plan.request_timeout;
        let Some(child) = self.children.slot_mut(pid).and_then(|slot| slot.child_mut()) else { return };
        if child.stopped.is_none() {
            let cont_deadline = timeout.map(|timeout| now.saturating_add(timeout));
            child.stopped = Some(Stopped { cont_deadline });
            actions.push(Action::Say(Notice::Care(Care::Frozen { worker: child.identity, within: timeout })));
        }
    }

    /// It goes on.
    pub(super) fn continued(&mut self, pid: Pid, actions: &mut Vec<Action>) {
        let Some(child) = self.children.slot_mut(pid).and_then(|slot| slot.child_mut()) else { return };
        if child.stopped.take().is_some() {
            actions.push(Action::Say(Notice::Care(Care::Thawed { worker: child.identity })));
        }
    }

    /// Sees to what was seen, and when to look again.
    pub(super) fn observed(&mut self, now: Duration, all: &[Observed], actions: &mut Vec<Action>) {
        let mut next = self.observe_period().map(|period| now.saturating_add(period));
        for seen in all {
            let turn_since = seen.turn_since.map(|since| since.max(self.patience_from));
            let deadline = turn_since.zip(self.plan.request_timeout).map(|(since, most)| since.saturating_add(most));
            if deadline.is_some_and(|deadline| deadline <= now) {
                self.end_hung(now, seen.pid, turn_since.unwrap_or(now), actions);
                continue;
            }
            next = deadline.into_iter().chain(next).min();
            match (seen.memory, self.plan.max_memory) {
                (Some(has), Some(most)) if has > most => self.spend(seen.pid, Spent::Memory(has), actions),
                _ => {}
            }
        }
        self.observe_deadline = next.map(|next| next.max(now.saturating_add(OBSERVE_PERIOD_MIN)));
    }

    /// Begins to look, where there is something to look for.
    pub(super) fn observe_soon(&mut self, now: Duration) {
        self.observe_deadline = self.observe_period().map(|period| now.saturating_add(period));
    }

    /// A loop that does not come round can be asked for nothing.
    fn end_hung(&mut self, now: Duration, pid: Pid, since: Duration, actions: &mut Vec<Action>) {
        let Some(child) = self.children.slot_mut(pid).and_then(|slot| slot.child_mut()) else { return };
        if child.state == State::Serving && child.stopped.is_none() {
            let hung_for = now.saturating_sub(since);
            actions.push(Action::Say(Notice::Care(Care::LoopHung { worker: child.identity, hung_for })));
            kill(child, Life::Hung, now, actions);
        }
    }

    fn observe_period(&self) -> Option<Duration> {
        let memory = self.plan.max_memory.map(|_| MEMORY_PERIOD);
        self.plan.request_timeout.into_iter().chain(memory).min()
    }
}
