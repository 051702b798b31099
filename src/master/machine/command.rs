//! What a person asks for over the control socket: the same as the signals, but with an answer.

use std::time::Duration;

use super::messages::{Action, Signal};
use super::notice::{Notice, Short, Turnover};
use super::{Machine, Phase};
use crate::site::control::Command;

/// Somebody waits until as many workers serve as he asked for.
#[derive(Debug)]
pub(super) struct Scaling {
    ticket: u64,
    ready_deadline: Duration,
}

impl Scaling {
    /// When it is answered in any case.
    pub fn deadline(&self) -> Duration {
        self.ready_deadline
    }

    /// Grants so much longer.
    pub fn postpone(&mut self, by: Duration) {
        self.ready_deadline = self.ready_deadline.saturating_add(by);
    }
}

impl Machine {
    pub(super) fn command(&mut self, now: Duration, ticket: u64, command: Command, actions: &mut Vec<Action>) {
        actions.push(Action::Say(Notice::Asked { command: command.clone() }));
        match command {
            Command::Reload => self.want_reload(Some(ticket), actions),
            Command::Stop { now: at_once } => self.stop_for(now, ticket, at_once, actions),
            Command::Reopen => actions.push(Action::Reopen { ticket: Some(ticket) }),
            Command::Upgrade { program } => self.want_upgrade(now, program, Some(ticket), actions),
            Command::Scale { workers } => self.scale_to(now, ticket, workers, actions),
        }
    }

    fn scale_to(&mut self, now: Duration, ticket: u64, workers: u32, actions: &mut Vec<Action>) {
        if let Some(why) = self.cannot_scale_to(workers) {
            actions.push(Action::Answer { ticket, outcome: Err(why) });
            return;
        }
        if workers == 0 {
            self.retire_all(now, actions);
        }
        // Each step ends: it changes how many are wanted, which were found to be possible.
        while self.children.wanted() < workers && self.children.wanted() < self.plan.max_slots {
            self.one_more(now, actions);
        }
        while self.children.wanted() > workers.max(1) {
            self.one_fewer(now, actions);
        }
        self.scaling.push(Scaling { ticket, ready_deadline: now.saturating_add(self.plan.start_timeout) });
    }

    fn cannot_scale_to(&self, workers: u32) -> Option<String> {
        let (most, fixed) = (self.plan.max_slots, self.plan.slots);
        match self.phase {
            Phase::Created | Phase::Starting { .. } => {
                Some("the server is starting; ask again when it serves".to_owned())
            }
            Phase::Stopping(_) | Phase::Gone => Some("the server is stopping".to_owned()),
            Phase::Running if self.change.is_some() => {
                Some("a reload or an upgrade is under way; ask again when it is done".to_owned())
            }
            Phase::Running if !self.plan.scalable && workers > fixed => {
                Some("only a process pool can be scaled; set processPool=n to have one".to_owned())
            }
            Phase::Running if workers > most => Some(format!("there is no room for more than {most} workers")),
            Phase::Running => None,
        }
    }

    /// Answers those who wait for workers: when all are there, or when that has taken too long.
    pub(super) fn answer_scaling(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if self.scaling.is_empty() {
            return;
        }
        let (complete, serving, wanted) =
            (self.children.is_complete(), self.children.serving(), self.children.wanted());
        let (last, start_timeout) = (self.last_failure.as_ref(), self.plan.start_timeout);
        self.scaling.retain(|scaling| {
            let outcome = if complete {
                Ok(format!("{wanted} workers serve"))
            } else if scaling.ready_deadline <= now {
                let last = last.map(|failure| format!("; the last failure: {failure}")).unwrap_or_default();
                Err(format!("{serving} of {wanted} workers serve after startTimeout={}{last}", Short(start_timeout)))
            } else {
                return true;
            };
            actions.push(Action::Answer { ticket: scaling.ticket, outcome });
            false
        });
    }

    /// Nobody is to wait for what will not come: the server stops.
    pub(super) fn disappoint(&mut self, actions: &mut Vec<Action>) {
        let scaling = std::mem::take(&mut self.scaling).into_iter().map(|scaling| scaling.ticket);
        let reloads = self.reload_wanted.take().unwrap_or_default();
        let reload = self.end_reload();
        for ticket in scaling.chain(reloads).chain(reload) {
            actions.push(Action::Answer { ticket, outcome: Err("the server was stopped meanwhile".to_owned()) });
        }
        self.end_heir(actions);
    }

    fn stop_for(&mut self, now: Duration, ticket: u64, at_once: bool, actions: &mut Vec<Action>) {
        self.stop_tickets.push(ticket);
        if !matches!(self.phase, Phase::Stopping(_)) {
            self.stop(now, Signal::Term, actions);
        }
        if at_once {
            self.hurry(now, actions);
        }
    }
}

/// Says why something is not done, in the log and to whoever asked for it.
pub(super) fn refuse(ticket: Option<u64>, notice: Turnover, actions: &mut Vec<Action>) {
    let outcome = Err(notice.to_string());
    actions.push(Action::Say(Notice::Turnover(notice)));
    actions.extend(ticket.map(|ticket| Action::Answer { ticket, outcome }));
}
