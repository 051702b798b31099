//! Reload: a new generation boots beside the one in force, and takes its place once all of it serves; or it is withdrawn,
//! and everything is as before.
//!
//! One generation is started at a time, and none before the workers of those before it have left. Reloads that are asked
//! for meanwhile are one reload, afterwards.

use std::time::Duration;

use super::command::refuse;
use super::failure::Failure;
use super::messages::{Action, Plan};
use super::notice::{Notice, Short, Turnover};
use super::{Change, Machine, Phase, START_FAILURES, ask_to_drain, kill};
use crate::master::children::{Child, Life, Slot, State};
use crate::site::control::Outcome;

/// A generation that is to come.
#[derive(Debug)]
pub(super) struct Reload {
    pub generation: u32,
    stage: Stage,
    /// Who waits for the outcome.
    tickets: Vec<u64>,
    began: Duration,
}

#[derive(Debug)]
enum Stage {
    /// Its configuration is being read.
    Preparing,
    /// Its workers boot: given up at the deadline.
    Booting { plan: Plan, ready_deadline: Duration },
}

impl Reload {
    /// When it is given up.
    pub fn deadline(&self) -> Option<Duration> {
        match self.stage {
            Stage::Preparing => None,
            Stage::Booting { ready_deadline, .. } => Some(ready_deadline),
        }
    }

    /// Grants it so much longer.
    pub fn postpone(&mut self, by: Duration) {
        match &mut self.stage {
            Stage::Preparing => {}
            Stage::Booting { ready_deadline, .. } => *ready_deadline = ready_deadline.saturating_add(by),
        }
    }

    pub fn into_tickets(self) -> Vec<u64> {
        self.tickets
    }
}

impl Machine {
    /// A reload is wanted, by somebody who waits for the outcome or by a signal.
    pub(super) fn want_reload(&mut self, ticket: Option<u64>, actions: &mut Vec<Action>) {
        if matches!(self.phase, Phase::Stopping(_) | Phase::Gone) {
            return refuse(ticket, Turnover::NoReload, actions);
        }
        self.reload_wanted.get_or_insert_default().extend(ticket);
        if !self.can_reload() {
            actions.push(Action::Say(Notice::Turnover(Turnover::ReloadLater)));
        }
    }

    fn can_reload(&self) -> bool {
        // A process that the kernel holds may stay for ever.
        let is_stuck = |slot: &&Slot| matches!(slot.child(), Some(Child { state: State::Stuck { .. }, .. }));
        let outgoing = self.children.outgoing().iter().filter(|slot| !is_stuck(slot));
        let drained = outgoing.into_iter().all(|slot| slot.generation() == Some(self.generation));
        matches!(self.phase, Phase::Running) && self.change.is_none() && drained
    }

    /// Begins the reload that is wanted, if any is and nothing is in its way.
    pub(super) fn begin_reload(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if !self.can_reload() {
            return;
        }
        let Some(tickets) = self.reload_wanted.take() else { return };
        self.last_generation += 1;
        let generation = self.last_generation;
        self.change = Some(Change::Reload(Reload { generation, stage: Stage::Preparing, tickets, began: now }));
        actions.push(Action::Say(Notice::Turnover(Turnover::Reloading { generation })));
        actions.push(Action::Prepare { generation });
    }

    /// Its configuration is good: its workers are forked.
    pub(super) fn prepared(&mut self, now: Duration, of: u32, plan: Plan, actions: &mut Vec<Action>) {
        match &mut self.change {
            Some(Change::Reload(Reload { generation, stage: stage @ Stage::Preparing, .. })) if *generation == of => {
                *stage = Stage::Booting { plan, ready_deadline: now.saturating_add(plan.start_timeout) };
                self.children.expect_generation(plan.slots, now);
            }
            Some(Change::Reload(_) | Change::Upgrade(_)) | None => actions.push(Action::Abandon),
        }
    }

    /// Its configuration is not.
    pub(super) fn not_prepared(&mut self, of: u32, error: String, actions: &mut Vec<Action>) {
        match self.change.take() {
            Some(Change::Reload(reload)) if reload.generation == of => {
                let notice = Turnover::NotReloaded { generation: of, in_force: self.generation, why: error };
                conclude_reload(reload, Err(notice), actions);
            }
            other => self.change = other,
        }
    }

    /// One of its workers is ready: perhaps it was the last.
    pub(super) fn perhaps_commit(&mut self, now: Duration, actions: &mut Vec<Action>) {
        match self.change.take() {
            Some(Change::Reload(Reload { stage: Stage::Booting { plan, .. }, generation, tickets, began }))
                if self.children.coming_is_complete() =>
            {
                self.commit(now, plan, generation, actions);
                let workers = plan.slots;
                let reload = Reload { generation, stage: Stage::Preparing, tickets, began };
                let took = now.saturating_sub(began);
                conclude_reload(reload, Ok(Turnover::Reloaded { generation, workers, took }), actions);
            }
            other => self.change = other,
        }
    }

    fn commit(&mut self, now: Duration, plan: Plan, generation: u32, actions: &mut Vec<Action>) {
        let drain_deadline = self.drain_deadline(now);
        self.plan = Plan { is_heir: false, ..plan };
        self.generation = generation;
        self.children.turn_over(plan.max_slots.max(plan.slots));
        actions.push(Action::Commit);
        for child in self.children.outgoing_mut().iter_mut().filter_map(|slot| slot.child_mut()) {
            ask_to_drain(child, drain_deadline, actions);
        }
        let until_next = plan.tls_period.map(|period| now.saturating_add(period));
        self.tend_deadline = until_next.map(|next| self.tend_deadline.map_or(next, |due| due.min(next)));
        self.observe_soon(now);
    }

    /// One of its workers could not boot: once that has happened to one of them too often, it is withdrawn.
    pub(super) fn perhaps_withdraw(&mut self, now: Duration, failure: &Failure, actions: &mut Vec<Action>) {
        if self.children.coming().iter().any(|slot| slot.failures >= START_FAILURES) {
            let why = format!("a worker failed {START_FAILURES} times before it was ready; the last: {failure}");
            self.withdraw(now, why, actions);
        }
    }

    /// Its time is over.
    pub(super) fn expire_reload(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let Some(Change::Reload(reload)) = &self.change else { return };
        let Stage::Booting { plan, ready_deadline } = &reload.stage else { return };
        if *ready_deadline <= now {
            let ready = self.children.coming().iter().filter(|slot| slot.serves()).count();
            let mut why = format!(
                "{ready} of {} workers were ready within startTimeout={}",
                self.children.coming().len(),
                Short(plan.start_timeout)
            );
            if let Some(failure) = &self.last_failure {
                why = format!("{why}; the last failure: {failure}");
            }
            self.withdraw(now, why, actions);
        }
    }

    fn withdraw(&mut self, now: Duration, why: String, actions: &mut Vec<Action>) {
        match self.change.take() {
            Some(Change::Reload(reload)) => {
                self.children.withdraw();
                actions.push(Action::Abandon);
                self.dismiss_withdrawn(now, reload.generation, actions);
                let (generation, in_force) = (reload.generation, self.generation);
                conclude_reload(reload, Err(Turnover::NotReloaded { generation, in_force, why }), actions);
            }
            other => self.change = other,
        }
    }

    /// Those that serve already finish what they do; the others do nothing that could be finished.
    fn dismiss_withdrawn(&mut self, now: Duration, generation: u32, actions: &mut Vec<Action>) {
        let drain_deadline = self.drain_deadline(now);
        let children = self.children.outgoing_mut().iter_mut().filter_map(|slot| slot.child_mut());
        for child in children.filter(|child| child.identity.generation == generation) {
            match child.state {
                State::Booting { .. } => kill(child, Life::Withdrawn, now, actions),
                State::Serving => ask_to_drain(child, drain_deadline, actions),
                State::Draining { .. } | State::Killed { .. } | State::Stuck { .. } => {}
            }
        }
    }

    /// This server stops. Who waits for a reload that is under way.
    pub(super) fn end_reload(&mut self) -> Vec<u64> {
        match self.change.take() {
            Some(Change::Reload(reload)) => reload.into_tickets(),
            other => {
                self.change = other;
                Vec::new()
            }
        }
    }
}

fn conclude_reload(reload: Reload, outcome: Result<Turnover, Turnover>, actions: &mut Vec<Action>) {
    let said: Outcome = match &outcome {
        Ok(notice) => Ok(notice.to_string()),
        Err(notice) => Err(notice.to_string()),
    };
    actions.push(Action::Say(Notice::Turnover(outcome.unwrap_or_else(|notice| notice))));
    let tickets = reload.into_tickets().into_iter();
    actions.extend(tickets.map(|ticket| Action::Answer { ticket, outcome: said.clone() }));
}
