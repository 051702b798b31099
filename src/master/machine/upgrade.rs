//! Upgrade: a new master boots its own workers on the same listeners. Once all of them serve, everything is its, and this
//! one drains and leaves; until then, whatever becomes of the new one, this one goes on as if nothing had been.

use std::path::PathBuf;
use std::time::Duration;

use super::command::refuse;
use super::messages::{Action, WorkerSignal};
use super::notice::{Notice, Short, Turnover};
use super::{Change, Exit, Machine, Phase, REAP_TIMEOUT};
use crate::master::children::Pid;

/// A new master on its way.
#[derive(Debug)]
pub(super) struct Upgrade {
    /// None until it was started.
    pid: Option<Pid>,
    /// It is killed when it is not ready by then. It gives up by itself before.
    ready_deadline: Duration,
    /// It was killed, for this reason.
    killed: Option<String>,
    ticket: Option<u64>,
    began: Duration,
}

impl Upgrade {
    /// When it is given up.
    pub fn deadline(&self) -> Option<Duration> {
        Some(self.ready_deadline).filter(|_| self.killed.is_none())
    }

    /// Grants it so much longer.
    pub fn postpone(&mut self, by: Duration) {
        self.ready_deadline = self.ready_deadline.saturating_add(by);
    }
}

impl Machine {
    /// An upgrade is wanted, by somebody who waits for the outcome or by a signal.
    pub(super) fn want_upgrade(
        &mut self,
        now: Duration,
        program: Option<PathBuf>,
        ticket: Option<u64>,
        actions: &mut Vec<Action>,
    ) {
        let refusal = match (&self.phase, &self.change) {
            _ if self.plan.is_init => Some(
                "this master is process 1, and when it left all would end; replace the container, or start Regrow behind an init",
            ),
            (Phase::Created | Phase::Starting { .. }, _) => Some("the server is starting; ask again when it serves"),
            (Phase::Stopping(_) | Phase::Gone, _) => Some("the server is stopping"),
            (Phase::Running, Some(Change::Upgrade(_))) => Some("an upgrade is under way; ask again when it is done"),
            (Phase::Running, Some(Change::Reload(_))) => Some("a reload is under way; ask again when it is done"),
            (Phase::Running, None) => None,
        };
        if let Some(why) = refusal {
            return refuse(ticket, Turnover::NotUpgraded { why: why.to_owned() }, actions);
        }
        // The new master waits for startTimeout itself, after it has read its configuration.
        let ready_deadline = now.saturating_add(self.plan.start_timeout).saturating_add(REAP_TIMEOUT);
        self.change = Some(Change::Upgrade(Upgrade { pid: None, ready_deadline, killed: None, ticket, began: now }));
        actions.push(Action::Upgrade { program });
    }

    /// The new master runs.
    pub(super) fn heir_started(&mut self, now: Duration, pid: Pid, actions: &mut Vec<Action>) {
        let Some(Change::Upgrade(upgrade)) = &mut self.change else { return };
        upgrade.pid = Some(pid);
        let within = upgrade.ready_deadline.saturating_sub(now);
        actions.push(Action::Say(Notice::Turnover(Turnover::Upgrading { pid, within })));
    }

    /// The new master has all its workers: everything is its.
    pub(super) fn heir_ready(&mut self, now: Duration, actions: &mut Vec<Action>) {
        match self.change.take() {
            Some(Change::Upgrade(Upgrade { killed: None, pid: Some(pid), ticket, began, .. })) => {
                let notice = Turnover::HandedOver { pid, took: now.saturating_sub(began) };
                let outcome = Ok(notice.to_string());
                actions.push(Action::Say(Notice::Turnover(notice)));
                self.leave_to_heir(now, actions);
                // Whoever waits for it may look at the pid file next.
                actions.extend(ticket.map(|ticket| Action::Answer { ticket, outcome }));
            }
            other => self.change = other,
        }
    }

    /// Whether it was the new master that has ended.
    pub(super) fn heir_exited(&mut self, pid: Pid, exit: Exit, actions: &mut Vec<Action>) -> bool {
        let Some(Change::Upgrade(upgrade)) = &mut self.change else { return false };
        if upgrade.pid != Some(pid) {
            return false;
        }
        let why = upgrade.killed.take().unwrap_or_else(|| {
            let meaning = match exit {
                Exit::Code(2) => " (wrong configuration or arguments)",
                Exit::Code(3) => " (its workers could not boot)",
                Exit::Code(_) | Exit::Signal(_) => "",
            };
            format!("the new master pid={pid} ended before it was ready: {exit}{meaning}; its lines in the error log say more")
        });
        self.conclude_upgrade(why, actions);
        true
    }

    /// Its time is over.
    pub(super) fn expire_upgrade(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let start_timeout = self.plan.start_timeout;
        let Some(Change::Upgrade(upgrade)) = &mut self.change else { return };
        if upgrade.deadline().is_some_and(|deadline| deadline <= now) {
            let pid = upgrade.pid.unwrap_or_default();
            let why = format!("the new master pid={pid} was not ready within startTimeout={}", Short(start_timeout));
            upgrade.killed = Some(why);
            actions.extend(upgrade.pid.map(|pid| Action::Signal { pid, signal: WorkerSignal::Kill }));
        }
    }

    /// This server stops, and so does what was to continue it.
    pub(super) fn end_heir(&mut self, actions: &mut Vec<Action>) {
        let Some(Change::Upgrade(Upgrade { pid, ticket, .. })) = self.change.take() else { return };
        actions.extend(pid.map(|pid| Action::Signal { pid, signal: WorkerSignal::Kill }));
        let outcome = Err("the server was stopped meanwhile".to_owned());
        actions.extend(ticket.map(|ticket| Action::Answer { ticket, outcome }));
    }

    /// There is no new master.
    pub(super) fn conclude_upgrade(&mut self, why: String, actions: &mut Vec<Action>) {
        let Some(Change::Upgrade(upgrade)) = self.change.take() else { return };
        refuse(upgrade.ticket, Turnover::NotUpgraded { why }, actions);
    }
}
