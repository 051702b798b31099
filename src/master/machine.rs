//! The supervision machine: everything the master decides. Inputs and the time go in, actions come out.
//!
//! ```text
//!           Start             first Ready, or WINCH
//! Created ─────────> Starting ─────────────────────> Running
//!    │ TERM QUIT INT    │ TERM QUIT INT                 │ TERM QUIT INT
//!    │                  │ or no worker can boot         │
//!    └──────────────────┴──────> Stopping <─────────────┘
//!                                   │ no process left, or none that can be ended
//!                                  Gone
//! ```
//!
//! It must not know of system calls, clocks, descriptors or the scoreboard: `effects` acts, and tests replay any history
//! without forking. `now` is monotonic, counted from any epoch.
//!
//! **When the machine stood still.** `now` may leap when all was suspended or starved. Once a deadline is found to have
//! passed by more than [`STANDSTILL`], every worker and phase is granted the whole time since the last input again, so
//! that nobody is killed for time that nobody had. A worker then has at most that much more than its timeout. What the
//! machine cannot notice, and counts as time that passed: standing still up to the next deadline.

mod failure;
mod messages;
mod notice;
mod scale;
mod stop;
#[cfg(test)]
mod tests;

use std::time::Duration;

use self::failure::Volume;
pub(crate) use self::failure::{Death, Exit, Failure};
pub(crate) use self::messages::{Action, Input, Plan, Signal, WorkerSignal};
pub(crate) use self::notice::{Notice, StartFailed};
use self::stop::Stop;
use crate::board::{self, Identity, Pool};
use crate::master::children::{Child, Children, Life, Pid, Place, State};
use crate::worker::Report;

/// A start is given up when every slot failed so many times.
const START_FAILURES: u32 = 3;

/// A killed process that the kernel does not hand back within this time is no longer waited for.
const REAP_TIMEOUT: Duration = Duration::from_secs(5);

/// No busy machine wakes us so late for a deadline.
const STANDSTILL: Duration = Duration::from_secs(2);

/// What the master knows and wants.
#[derive(Debug)]
pub(crate) struct Machine {
    plan: Plan,
    phase: Phase,
    children: Children,
    /// What is forked from now on.
    generation: u32,
    volume: Volume,
    last_failure: Option<Failure>,
    /// When TLS is to be tended next: where there is TLS, from the start until a stop begins.
    tend_deadline: Option<Duration>,
    /// When the last input came.
    seen: Duration,
}

#[derive(Debug)]
enum Phase {
    /// Not told to fork yet.
    Created,
    /// No worker was ready yet; given up at the deadline.
    Starting { ready_deadline: Duration },
    /// The pool is kept up.
    Running,
    /// Nothing is forked any more, and all are to drain.
    Stopping(Stop),
    /// Over: inputs mean nothing.
    Gone,
}

impl Machine {
    /// A machine that waits for [`Input::Start`].
    pub fn new(plan: Plan) -> Self {
        Self {
            plan,
            phase: Phase::Created,
            children: Children::new(plan.max_slots.max(plan.slots)),
            generation: 1,
            volume: Volume::default(),
            last_failure: None,
            tend_deadline: None,
            seen: Duration::ZERO,
        }
    }

    /// Takes note of what happened by `now`, and appends what is to be done about it.
    pub fn handle(&mut self, now: Duration, input: Input, actions: &mut Vec<Action>) {
        if matches!(self.phase, Phase::Gone) {
            return;
        }
        self.forgive_standstill(now, actions);
        match input {
            Input::Start => self.start(now, actions),
            Input::Signal(signal) => self.signal(now, signal, actions),
            Input::Spawned { slot, pid } => self.spawned(now, slot, pid, actions),
            Input::SpawnFailed { slot, error } => self.not_spawned(now, slot, error, actions),
            Input::Reported { pid, report: Report::Ready } => self.ready(pid, actions),
            Input::Reported { report: Report::Spent | Report::Hung, .. } => {}
            Input::Command { ticket, .. } => {
                actions.push(Action::Answer { ticket, outcome: Err("this version cannot do that".to_owned()) });
            }
            Input::Exited { pid, exit } => self.exited(now, pid, exit, actions),
            Input::Deadline => self.expire(now, actions),
        }
        self.fork_due(now, actions);
        self.conclude(now, actions);
    }

    /// When [`Input::Deadline`] is due: after one was handled, never at once again. `None` when only something from
    /// outside can change anything.
    pub fn next_deadline(&self) -> Option<Duration> {
        [self.patience_deadline(), self.tend_deadline].into_iter().flatten().min()
    }

    /// When somebody's patience ends. Tending is not among it: it waits for nobody, and cannot come too late for anybody.
    fn patience_deadline(&self) -> Option<Duration> {
        let phase = match &self.phase {
            Phase::Starting { ready_deadline } => Some(*ready_deadline),
            Phase::Created | Phase::Running | Phase::Stopping(_) => None,
            Phase::Gone => return None,
        };
        [phase, self.children.next_deadline(), self.volume.deadline()].into_iter().flatten().min()
    }

    /// How the pool is now.
    pub fn pool(&self) -> Pool {
        let phase = match self.phase {
            Phase::Created | Phase::Starting { .. } => board::Phase::Starting,
            Phase::Running => board::Phase::Running,
            Phase::Stopping(_) | Phase::Gone => board::Phase::Stopping,
        };
        Pool { phase, wanted: self.children.wanted(), serving: self.children.serving() }
    }

    fn start(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if !matches!(self.phase, Phase::Created) {
            return;
        }
        self.tend_tls(now, actions);
        self.phase = Phase::Starting { ready_deadline: now.saturating_add(self.plan.start_timeout) };
        self.children.slots_mut().take(self.plan.slots as usize).for_each(|slot| slot.want(now));
    }

    fn tend_tls(&mut self, now: Duration, actions: &mut Vec<Action>) {
        self.tend_deadline = self.plan.tls_period.map(|period| now.saturating_add(period));
        actions.extend(self.tend_deadline.map(|_| Action::TendTls));
    }

    fn signal(&mut self, now: Duration, signal: Signal, actions: &mut Vec<Action>) {
        match signal {
            Signal::Term | Signal::Quit | Signal::Int => self.stop(now, signal, actions),
            Signal::Ttin | Signal::Ttou | Signal::Winch => self.scale(now, signal, actions),
        }
    }

    /// A fork succeeded. It may be unwanted by now: such a worker is asked to drain like any other.
    fn spawned(&mut self, now: Duration, slot: u32, pid: Pid, actions: &mut Vec<Action>) {
        let Some((slot, generation)) = self.children.forking_mut(slot) else { return };
        let identity = Identity { worker: slot.number, generation, pid };
        let state = State::Booting { ready_deadline: now.saturating_add(self.plan.start_timeout) };
        let mut child = Child { identity, state };
        match &self.phase {
            Phase::Stopping(stop) => stop.dismiss(now, &mut child, actions),
            Phase::Created | Phase::Starting { .. } | Phase::Running | Phase::Gone if slot.wanted => {}
            Phase::Created | Phase::Starting { .. } | Phase::Running | Phase::Gone => {
                ask_to_drain(&mut child, now.saturating_add(self.plan.graceful_timeout), actions);
            }
        }
        slot.place = Place::Occupied(child);
    }

    fn not_spawned(&mut self, now: Duration, number: u32, error: String, actions: &mut Vec<Action>) {
        let Some((slot, _)) = self.children.forking_mut(number) else { return };
        slot.place = Place::Vacant;
        if !slot.wanted {
            return;
        }
        let delay = slot.fail(now, self.plan.respawn_delay_max);
        let failure = Failure::NotForked { slot: number, error: error.clone() };
        slot.quiet = !self.volume.admit(now, &failure);
        if !slot.quiet {
            actions.push(Action::Say(Notice::NotForked { slot: number, error, delay }));
        }
        self.boot_failed(now, failure, actions);
    }

    /// A report of a worker that was asked to drain or killed meanwhile comes too late to mean anything.
    fn ready(&mut self, pid: Pid, actions: &mut Vec<Action>) {
        let Some(slot) = self.children.slot_mut(pid) else { return };
        let Some(child) = slot.child_mut() else { return };
        if !matches!(child.state, State::Booting { .. }) {
            return;
        }
        child.state = State::Serving;
        let worker = child.identity;
        slot.failures = 0;
        let told = !slot.quiet;
        if let Phase::Starting { .. } = self.phase {
            self.phase = Phase::Running;
        }
        if told {
            let (serving, wanted) = (self.children.serving(), self.children.wanted());
            actions.push(Action::Say(Notice::Ready { worker, serving, wanted }));
        }
    }

    fn exited(&mut self, now: Duration, pid: Pid, exit: Exit, actions: &mut Vec<Action>) {
        let Some(slot) = self.children.slot_mut(pid) else { return };
        let Some(child) = slot.child() else { return };
        let death = Death { worker: child.identity, exit, life: child.life() };
        slot.place = Place::Vacant;
        let failure = Failure::Died(death);
        slot.quiet = !death.as_asked() && !self.volume.admit(now, &failure);
        if !slot.quiet {
            actions.push(Action::Explain(death));
        }
        if let Phase::Stopping(stop) = &mut self.phase {
            return stop.count(&death);
        }
        let booting = matches!(death.life, Life::Booting | Life::Overdue);
        if booting && slot.wanted {
            let delay = slot.fail(now, self.plan.respawn_delay_max);
            if !slot.quiet {
                let (slot, failures) = (slot.number, slot.failures);
                actions.push(Action::Say(Notice::BackingOff { slot, failures, delay }));
            }
            self.boot_failed(now, failure, actions);
        }
    }

    fn boot_failed(&mut self, now: Duration, failure: Failure, actions: &mut Vec<Action>) {
        self.last_failure = Some(failure);
        let exhausted = self.children.slots().filter(|slot| slot.wanted).all(|slot| slot.failures >= START_FAILURES);
        if exhausted && matches!(self.phase, Phase::Starting { .. }) {
            self.give_up(now, StartFailed::Exhausted, actions);
        }
    }

    /// Ends everybody's patience that is to end by now, and tends what is to be tended.
    fn expire(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let due = |child: &&mut Child| child.deadline().is_some_and(|deadline| deadline <= now);
        for child in self.children.living_mut().filter(due) {
            match child.state {
                State::Booting { .. } => kill(child, Life::Overdue, now, actions),
                State::Draining { .. } => kill(child, Life::CutOff, now, actions),
                State::Killed { life, .. } => {
                    child.state = State::Stuck { life };
                    actions.push(Action::Say(Notice::Unkillable { worker: child.identity }));
                }
                State::Serving | State::Stuck { .. } => {}
            }
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

    fn fork_due(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let generation = self.generation;
        for slot in self.children.slots_mut().filter(|slot| slot.due(now)) {
            slot.fork(now, generation);
            actions.push(Action::Spawn { slot: slot.number, generation });
        }
    }

    fn forgive_standstill(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let passed = now.saturating_sub(self.seen);
        self.seen = self.seen.max(now);
        let missed = |deadline: Duration| now > deadline.saturating_add(STANDSTILL);
        if !self.patience_deadline().is_some_and(missed) {
            return;
        }
        self.children.postpone(passed);
        match &mut self.phase {
            Phase::Starting { ready_deadline } => *ready_deadline = ready_deadline.saturating_add(passed),
            Phase::Stopping(stop) => stop.postpone(passed),
            Phase::Created | Phase::Running | Phase::Gone => {}
        }
        actions.push(Action::Say(Notice::StoodStill { at_most: passed }));
    }
}

/// Lets a worker finish; one that was asked or killed before is left to that.
fn ask_to_drain(child: &mut Child, drain_deadline: Duration, actions: &mut Vec<Action>) {
    match child.state {
        State::Booting { .. } | State::Serving => {
            child.state = State::Draining { drain_deadline };
            actions.push(Action::Signal { pid: child.identity.pid, signal: WorkerSignal::Term });
        }
        State::Draining { .. } | State::Killed { .. } | State::Stuck { .. } => {}
    }
}

/// Ends a worker; one that was killed before is left to that.
fn kill(child: &mut Child, life: Life, now: Duration, actions: &mut Vec<Action>) {
    match child.state {
        State::Booting { .. } | State::Serving | State::Draining { .. } => {
            child.state = State::Killed { life, reap_deadline: now.saturating_add(REAP_TIMEOUT) };
            actions.push(Action::Signal { pid: child.identity.pid, signal: WorkerSignal::Kill });
        }
        State::Killed { .. } | State::Stuck { .. } => {}
    }
}
