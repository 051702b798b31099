//! TTIN, TTOU and WINCH: which slots are wanted. Retired workers finish at leisure, up to `gracefulTimeout`.
//!
//! WINCH wants none; each TTIN after it wants one again, also where the mode has just one worker.

use std::time::Duration;

use super::messages::{Action, Signal};
use super::notice::Notice;
use super::{Machine, Phase, ask_to_drain};

impl Machine {
    /// Changes how many workers there are to be.
    pub(super) fn scale(&mut self, now: Duration, signal: Signal, actions: &mut Vec<Action>) {
        match self.phase {
            Phase::Starting { .. } | Phase::Running if self.change.is_none() => {}
            Phase::Starting { .. } | Phase::Running => return actions.push(Action::Say(Notice::NotNow { signal })),
            Phase::Created | Phase::Stopping(_) | Phase::Gone => {
                return actions.push(Action::Say(Notice::Ignored { signal }));
            }
        }
        match signal {
            Signal::Ttin => self.one_more(now, actions),
            Signal::Ttou => self.one_fewer(now, actions),
            Signal::Winch if self.plan.on_terminal => actions.push(Action::Say(Notice::Resized)),
            Signal::Winch => self.retire_all(now, actions),
            Signal::Term | Signal::Quit | Signal::Int | Signal::Hup | Signal::Usr1 | Signal::Usr2 => {}
        }
    }

    pub(super) fn one_more(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let wanted = self.children.wanted() + 1;
        if !self.plan.scalable && wanted > self.plan.slots {
            return actions.push(Action::Say(Notice::NotScalable { signal: Signal::Ttin }));
        }
        actions.push(Action::Say(match self.children.next_slot_mut() {
            Some(slot) => {
                slot.want(now);
                Notice::ScaledUp { slot: slot.number, wanted }
            }
            None => Notice::AtMost { max_slots: self.plan.max_slots },
        }));
    }

    pub(super) fn one_fewer(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if !self.plan.scalable {
            return actions.push(Action::Say(Notice::NotScalable { signal: Signal::Ttou }));
        }
        let wanted = self.children.wanted().saturating_sub(1);
        let drain_deadline = now.saturating_add(self.plan.graceful_timeout);
        match self.children.last_wanted_mut().filter(|_| wanted > 0) {
            Some(slot) => {
                slot.wanted = false;
                actions.push(Action::Say(Notice::ScaledDown { slot: slot.number, wanted }));
                slot.child_mut().into_iter().for_each(|child| ask_to_drain(child, drain_deadline, actions));
                let number = slot.number;
                self.relieve(now, number, actions);
            }
            None => actions.push(Action::Say(Notice::AtLeast)),
        }
    }

    /// With nobody wanted there is nobody to wait for either, so this ends a start as the first ready worker does.
    pub(super) fn retire_all(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let drain_deadline = now.saturating_add(self.plan.graceful_timeout);
        self.phase = Phase::Running;
        actions.push(Action::Say(Notice::Retired { workers: self.children.wanted() }));
        self.children.slots_mut().for_each(|slot| slot.wanted = false);
        self.children.living_mut().for_each(|child| ask_to_drain(child, drain_deadline, actions));
    }
}
