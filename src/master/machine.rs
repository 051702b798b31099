//! The supervision machine: everything the master decides. Inputs and the time go in, actions come out.
//!
//! ```text
//!           Start             first Ready, or WINCH
//! Created ─────────> Starting ─────────────────────> Running <──> reload, upgrade
//!    │ TERM QUIT INT    │ TERM QUIT INT                 │ TERM QUIT INT
//!    │                  │ or no worker can boot         │
//!    └──────────────────┴──────> Stopping <─────────────┘ or all was handed over
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

mod command;
mod failure;
mod health;
mod messages;
mod notice;
mod patience;
mod reload;
mod scale;
mod stop;
#[cfg(test)]
mod tests;
mod upgrade;

use std::time::Duration;

use self::command::Scaling;
use self::failure::Volume;
pub(crate) use self::failure::{Death, Exit, Failure};
pub(crate) use self::messages::{Action, Input, Observed, Plan, Signal, Work, WorkerSignal};
pub(crate) use self::notice::{Notice, StartFailed};
use self::reload::Reload;
use self::stop::Stop;
use self::upgrade::Upgrade;
use crate::board::{self, Identity, Pool};
use crate::master::children::{Child, Children, Life, Pid, Place, Slot, Spent, State};
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
    /// The generation in force.
    generation: u32,
    /// The last number that a generation was given, whatever became of it.
    last_generation: u32,
    /// What is under way beside the pool, while it runs.
    change: Option<Change>,
    /// A reload is wanted, and who waits for its outcome.
    reload_wanted: Option<Vec<u64>>,
    scaling: Vec<Scaling>,
    /// Who waits for the end of a stop.
    stop_tickets: Vec<u64>,
    /// What dead workers had done.
    done: Work,
    volume: Volume,
    last_failure: Option<Failure>,
    /// When TLS is to be tended next: where there is TLS, from the start until a stop begins.
    tend_deadline: Option<Duration>,
    /// When to look at all workers next, where they are limited.
    observe_deadline: Option<Duration>,
    /// Nobody is blamed for time before this instant.
    patience_from: Duration,
    /// When the last input came.
    seen: Duration,
}

/// What is to take the place of what there is. One at a time.
#[derive(Debug)]
enum Change {
    /// Of the workers, by a new generation.
    Reload(Reload),
    /// Of all, by a new master.
    Upgrade(Upgrade),
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
            last_generation: 1,
            change: None,
            reload_wanted: None,
            scaling: Vec::new(),
            stop_tickets: Vec::new(),
            done: Work::default(),
            volume: Volume::default(),
            last_failure: None,
            tend_deadline: None,
            observe_deadline: None,
            patience_from: Duration::ZERO,
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
            Input::Command { ticket, command } => self.command(now, ticket, command, actions),
            Input::Spawned { slot, generation, pid } => self.spawned(now, slot, generation, pid, actions),
            Input::SpawnFailed { slot, generation, error } => self.not_spawned(now, slot, generation, error, actions),
            Input::Reported { pid, report: Report::Ready } => self.ready(now, pid, actions),
            Input::Reported { pid, report: Report::Spent } => self.spend(pid, Spent::Requests, actions),
            Input::Reported { pid, report: Report::Hung } => self.hung(now, pid, actions),
            Input::Exited { pid, exit, work } => self.exited(now, pid, exit, work, actions),
            Input::Stopped { pid } => self.stopped(now, pid, actions),
            Input::Continued { pid } => self.continued(pid, actions),
            Input::Observed(all) => self.observed(now, &all, actions),
            Input::Prepared { generation, plan } => self.prepared(now, generation, plan, actions),
            Input::NotPrepared { generation, error } => self.not_prepared(generation, error, actions),
            Input::HeirStarted { pid } => self.heir_started(now, pid, actions),
            Input::HeirNotStarted { error } => self.conclude_upgrade(error, actions),
            Input::HeirReady => self.heir_ready(now, actions),
            Input::Deadline => self.expire(now, actions),
        }
        self.children.forget_the_gone();
        self.succeed_one();
        self.begin_reload(now, actions);
        self.fork_due(now, actions);
        self.answer_scaling(now, actions);
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
        let change = match &self.change {
            Some(Change::Reload(reload)) => reload.deadline(),
            Some(Change::Upgrade(upgrade)) => upgrade.deadline(),
            None => None,
        };
        let scaling = self.scaling.iter().map(Scaling::deadline).min();
        let children = self.children.next_deadline();
        [phase, change, scaling, children, self.observe_deadline, self.volume.deadline()].into_iter().flatten().min()
    }

    /// How the pool is now.
    pub fn pool(&self) -> Pool {
        let phase = match &self.phase {
            Phase::Created | Phase::Starting { .. } => board::Phase::Starting,
            Phase::Running => board::Phase::Running,
            Phase::Stopping(stop) if stop.hands_over() => board::Phase::HandedOver,
            Phase::Stopping(_) | Phase::Gone => board::Phase::Stopping,
        };
        Pool { phase, wanted: self.children.wanted(), serving: self.children.serving() }
    }

    fn start(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if !matches!(self.phase, Phase::Created) {
            return;
        }
        self.tend_tls(now, actions);
        self.observe_soon(now);
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
            Signal::Hup => self.want_reload(None, actions),
            Signal::Usr1 => actions.push(Action::Reopen { ticket: None }),
            Signal::Usr2 => self.want_upgrade(now, None, None, actions),
        }
    }

    /// A fork succeeded. It may be unwanted by now: such a worker is asked to drain like any other.
    fn spawned(&mut self, now: Duration, slot: u32, generation: u32, pid: Pid, actions: &mut Vec<Action>) {
        let (start_timeout, drain_deadline) = (self.plan.start_timeout, self.drain_deadline(now));
        let Some(slot) = self.children.forking_mut(slot, generation) else { return };
        let identity = Identity { worker: slot.number, generation, pid };
        let mut child = Child::new(identity, now.saturating_add(start_timeout));
        match &self.phase {
            Phase::Stopping(stop) => stop.dismiss(now, &mut child, actions),
            Phase::Created | Phase::Starting { .. } | Phase::Running | Phase::Gone if slot.wanted => {}
            Phase::Created | Phase::Starting { .. } | Phase::Running | Phase::Gone => {
                ask_to_drain(&mut child, drain_deadline, actions);
            }
        }
        slot.place = Place::Occupied(child);
    }

    fn not_spawned(&mut self, now: Duration, number: u32, generation: u32, error: String, actions: &mut Vec<Action>) {
        let Some(slot) = self.children.forking_mut(number, generation) else { return };
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
    fn ready(&mut self, now: Duration, pid: Pid, actions: &mut Vec<Action>) {
        let Some(slot) = self.children.slot_mut(pid) else { return };
        let Some(child) = slot.child_mut() else { return };
        if !matches!(child.state, State::Booting { .. }) {
            return;
        }
        child.state = State::Serving;
        let worker = child.identity;
        slot.failures = 0;
        let told = !slot.quiet;
        let in_force = worker.generation == self.generation;
        if told {
            let (serving, wanted) =
                if in_force { (self.children.serving(), self.children.wanted()) } else { self.children.coming_count() };
            actions.push(Action::Say(Notice::Ready { worker, serving, wanted }));
        }
        if in_force {
            self.relieve(now, worker.worker, actions);
            self.perhaps_run(actions);
        } else {
            self.perhaps_commit(now, actions);
        }
    }

    /// The first worker ends the start; the last one, where another master waits for all of them.
    fn perhaps_run(&mut self, actions: &mut Vec<Action>) {
        if matches!(self.phase, Phase::Starting { .. }) && (!self.plan.is_heir || self.children.is_complete()) {
            self.phase = Phase::Running;
            actions.extend(self.plan.is_heir.then_some(Action::TakeOver));
        }
    }

    fn exited(&mut self, now: Duration, pid: Pid, exit: Exit, work: Work, actions: &mut Vec<Action>) {
        if self.heir_exited(pid, exit, actions) {
            return;
        }
        let Some(slot) = self.children.slot_mut(pid) else { return };
        let Some(child) = slot.child() else { return };
        let death = Death { worker: child.identity, exit, life: child.life() };
        slot.place = Place::Vacant;
        self.done.answered += work.answered;
        self.done.cut_off += work.cut_off;
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
        self.perhaps_withdraw(now, &failure, actions);
        self.last_failure = Some(failure);
        let failed = |slot: &Slot| slot.failures >= START_FAILURES;
        let (failures, wanted) = self
            .children
            .slots()
            .filter(|slot| slot.wanted)
            .fold((0, 0), |(failures, wanted), slot| (failures + u32::from(failed(slot)), wanted + 1));
        let exhausted = failures == wanted || (self.plan.is_heir && failures > 0);
        if exhausted && matches!(self.phase, Phase::Starting { .. }) {
            self.give_up(now, StartFailed::Exhausted, actions);
        }
    }

    fn fork_due(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let generation = self.generation;
        for slot in self.children.slots_mut().filter(|slot| slot.due(now)) {
            slot.fork(now, generation);
            actions.push(Action::Spawn { slot: slot.number, generation });
        }
        let Some(Change::Reload(Reload { generation, .. })) = self.change else { return };
        for slot in self.children.coming_mut().iter_mut().filter(|slot| slot.due(now)) {
            slot.fork(now, generation);
            actions.push(Action::Spawn { slot: slot.number, generation });
        }
    }

    /// Until when a worker may drain that is asked to now, while the server goes on.
    fn drain_deadline(&self, now: Duration) -> Duration {
        now.saturating_add(self.plan.graceful_timeout)
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
