//! The way out: a graceful stop, an immediate one, and a start that is given up. All end in one [`Action::Exit`].
//!
//! TERM, QUIT and the first INT begin a graceful stop. While one runs, TERM and QUIT change nothing. INT counts only
//! INTs: where TERM or QUIT began the stop, the first INT is warned of what the second does, and the second stops at
//! once; where INT began it, the next one does.

use std::time::Duration;

use super::failure::{Death, Exit};
use super::messages::{Action, Plan, Signal};
use super::notice::{Closing, Notice, StartFailed, Turnover};
use super::{Machine, Phase, ask_to_drain, kill};
use crate::master::children::{Child, Life, Place, State};

/// A stop under way.
#[derive(Debug)]
pub(super) struct Stop {
    pace: Pace,
    began: Duration,
    /// Another master serves from now on.
    hands_over: bool,
    report: Closing,
}

#[derive(Debug)]
enum Pace {
    /// Workers finish what they do.
    Graceful { drain_deadline: Duration, interrupts: u32 },
    /// Workers are killed, and the program ends with this code.
    AtOnce { code: i32 },
}

impl Stop {
    /// Sends a worker away at the pace of this stop.
    pub(super) fn dismiss(&self, now: Duration, child: &mut Child, actions: &mut Vec<Action>) {
        match self.pace {
            Pace::Graceful { drain_deadline, .. } => ask_to_drain(child, drain_deadline, actions),
            Pace::AtOnce { .. } => kill(child, Life::CutOff, now, actions),
        }
    }

    /// Keeps the report.
    pub(super) fn count(&mut self, death: &Death) {
        const KILL: i32 = 9;
        let count = match death.life {
            _ if death.as_asked() => &mut self.report.left,
            Life::CutOff | Life::Overdue if death.exit == Exit::Signal(KILL) => &mut self.report.cut_off,
            Life::Booting
            | Life::Overdue
            | Life::Serving
            | Life::Draining
            | Life::CutOff
            | Life::Hung
            | Life::Frozen
            | Life::Withdrawn => &mut self.report.died,
        };
        *count += 1;
    }

    /// Grants so much longer to workers that are still to come.
    pub(super) fn postpone(&mut self, by: Duration) {
        match &mut self.pace {
            Pace::Graceful { drain_deadline, .. } => *drain_deadline = drain_deadline.saturating_add(by),
            Pace::AtOnce { .. } => {}
        }
    }

    pub(super) fn hands_over(&self) -> bool {
        self.hands_over
    }

    fn code(&self) -> i32 {
        match self.pace {
            Pace::AtOnce { code } if code != 0 => code,
            Pace::Graceful { .. } | Pace::AtOnce { .. } => i32::from(self.report.stuck > 0),
        }
    }
}

impl Machine {
    /// TERM, QUIT or INT came.
    pub(super) fn stop(&mut self, now: Duration, signal: Signal, actions: &mut Vec<Action>) {
        let interrupt = signal == Signal::Int;
        match &mut self.phase {
            Phase::Created | Phase::Starting { .. } | Phase::Running => self.begin_graceful(now, signal, actions),
            Phase::Stopping(Stop { pace: Pace::Graceful { interrupts, .. }, .. }) if interrupt => {
                *interrupts += 1;
                if *interrupts > 1 {
                    self.hurry(now, actions);
                } else {
                    actions.push(Action::Say(Notice::InterruptAgain));
                }
            }
            Phase::Stopping(_) => actions.push(Action::Say(Notice::AlreadyStopping { signal })),
            Phase::Gone => {}
        }
    }

    /// Ends a start that leads nowhere.
    pub(super) fn give_up(&mut self, now: Duration, why: StartFailed, actions: &mut Vec<Action>) {
        actions.push(Action::Say(Notice::StartFailed { why, last: self.last_failure.take() }));
        self.begin(now, Pace::AtOnce { code: 3 }, Action::BeginStop, actions);
    }

    /// Ends the program once nobody is left, or nobody who can be ended.
    pub(super) fn conclude(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let Phase::Stopping(stop) = &mut self.phase else { return };
        let mut stuck = 0;
        for slot in self.children.all() {
            match &slot.place {
                Place::Vacant => {}
                Place::Occupied(Child { state: State::Stuck { .. }, .. }) => stuck += 1,
                Place::Occupied(_) | Place::Forking { .. } => return,
            }
        }
        stop.report.stuck = stuck;
        stop.report.took = now.saturating_sub(stop.began);
        stop.report.done = self.done;
        actions.extend(self.volume.sum_up().map(Action::Say));
        let notice = Notice::Stopped(stop.report);
        let outcome = Ok(notice.to_string());
        let tickets = self.stop_tickets.drain(..);
        actions.extend(tickets.map(|ticket| Action::Answer { ticket, outcome: outcome.clone() }));
        actions.push(Action::Say(notice));
        actions.push(Action::Exit { code: stop.code() });
        self.phase = Phase::Gone;
    }

    fn begin_graceful(&mut self, now: Duration, signal: Signal, actions: &mut Vec<Action>) {
        let Plan { accept_window, graceful_timeout, .. } = self.plan;
        let within = accept_window.saturating_add(graceful_timeout);
        let workers = self.workers();
        actions.push(Action::Say(Notice::Stopping { signal, workers, within }));
        let pace =
            Pace::Graceful { drain_deadline: now.saturating_add(within), interrupts: u32::from(signal == Signal::Int) };
        self.begin(now, pace, Action::BeginStop, actions);
    }

    /// Everything is another master's: all workers leave.
    pub(super) fn leave_to_heir(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if let Some(tickets) = self.reload_wanted.take() {
            let outcome = Err(Turnover::LeftToHeir.to_string());
            actions.push(Action::Say(Notice::Turnover(Turnover::LeftToHeir)));
            actions.extend(tickets.into_iter().map(|ticket| Action::Answer { ticket, outcome: outcome.clone() }));
        }
        let pace = Pace::Graceful { drain_deadline: self.drain_deadline(now), interrupts: 0 };
        self.begin(now, pace, Action::HandOver, actions);
    }

    /// `let_go` is said first.
    fn begin(&mut self, now: Duration, pace: Pace, let_go: Action, actions: &mut Vec<Action>) {
        let stop = Stop { pace, began: now, hands_over: let_go == Action::HandOver, report: Closing::default() };
        self.disappoint(actions);
        actions.push(let_go);
        (self.tend_deadline, self.observe_deadline) = (None, None);
        self.children.all_mut().for_each(|slot| slot.wanted = false);
        self.children.living_mut().for_each(|child| stop.dismiss(now, child, actions));
        self.phase = Phase::Stopping(stop);
    }

    pub(super) fn hurry(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if !matches!(self.phase, Phase::Stopping(Stop { pace: Pace::Graceful { .. }, .. })) {
            return;
        }
        actions.push(Action::Say(Notice::StoppingAtOnce { workers: self.workers() }));
        self.children.living_mut().for_each(|child| kill(child, Life::CutOff, now, actions));
        if let Phase::Stopping(stop) = &mut self.phase {
            stop.pace = Pace::AtOnce { code: 0 };
        }
    }

    fn workers(&self) -> u32 {
        u32::try_from(self.children.living().count()).unwrap_or(u32::MAX)
    }
}
