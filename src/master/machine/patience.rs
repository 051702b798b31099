//! When patience ends, and what is done then; and that nobody is blamed for time that nobody had.

use std::time::Duration;

use super::messages::Action;
use super::notice::{Notice, StartFailed};
use super::{Change, Machine, Phase, STANDSTILL, kill};
use crate::master::children::{Child, Life, State};

impl Machine {
    /// Ends everybody's patience that is to end by now, and tends what is to be tended.
    pub(super) fn expire(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let due = |child: &&mut Child| child.deadline().is_some_and(|deadline| deadline <= now);
        for child in self.children.living_mut().filter(due) {
            match child.state {
                State::Booting { .. } => kill(child, Life::Overdue, now, actions),
                State::Draining { .. } => kill(child, Life::CutOff, now, actions),
                State::Killed { life, .. } => {
                    child.state = State::Stuck { life };
                    actions.push(Action::Say(Notice::Unkillable { worker: child.identity }));
                }
                State::Serving => kill(child, Life::Frozen, now, actions),
                State::Stuck { .. } => {}
            }
        }
        self.expire_reload(now, actions);
        self.expire_upgrade(now, actions);
        if self.observe_deadline.is_some_and(|deadline| deadline <= now) {
            self.observe_soon(now);
            actions.push(Action::Observe);
        }
        if self.volume.deadline().is_some_and(|deadline| deadline <= now) {
            actions.extend(self.volume.sum_up().map(Action::Say));
        }
        if self.tend_deadline.is_some_and(|deadline| deadline <= now) {
            self.tend_tls(now, actions);
        }
        if matches!(self.phase, Phase::Starting { ready_deadline } if ready_deadline <= now) {
            let start_timeout = self.plan.start_timeout;
            self.give_up(now, StartFailed::TimedOut { start_timeout }, actions);
        }
    }

    pub(super) fn forgive_standstill(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let passed = now.saturating_sub(self.seen);
        self.seen = self.seen.max(now);
        let missed = |deadline: Duration| now > deadline.saturating_add(STANDSTILL);
        if !self.patience_deadline().is_some_and(missed) {
            return;
        }
        self.patience_from = now;
        self.children.postpone(passed);
        self.scaling.iter_mut().for_each(|scaling| scaling.postpone(passed));
        match &mut self.change {
            Some(Change::Reload(reload)) => reload.postpone(passed),
            Some(Change::Upgrade(upgrade)) => upgrade.postpone(passed),
            None => {}
        }
        match &mut self.phase {
            Phase::Starting { ready_deadline } => *ready_deadline = ready_deadline.saturating_add(passed),
            Phase::Stopping(stop) => stop.postpone(passed),
            Phase::Created | Phase::Running | Phase::Gone => {}
        }
        actions.push(Action::Say(Notice::StoodStill { at_most: passed }));
    }
}
