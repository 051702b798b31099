//! A slot of the pool, who lives in it, and until when he may take for what he does.

use std::time::Duration;

use crate::board::Identity;

/// A slot forks at most ten times a second, whatever befalls its workers.
const FORK_SPACING: Duration = Duration::from_millis(100);

/// A numbered place in the pool.
#[derive(Debug)]
pub(crate) struct Slot {
    /// Its number, from 0.
    pub number: u32,
    /// Active: whenever it is vacant, a worker is forked for it.
    pub wanted: bool,
    /// Attempts in a row that ended before a worker was ready.
    pub failures: u32,
    /// Its last failure was counted instead of logged, so its next worker comes without a word too.
    pub quiet: bool,
    /// No fork before this instant.
    pub fork_deadline: Duration,
    /// Who lives there.
    pub place: Place,
}

/// What is in a slot.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Nobody.
    Vacant,
    /// A fork was asked for and not yet answered.
    Forking {
        /// What the worker is forked from.
        generation: u32,
    },
    /// A process that was not reaped yet.
    Occupied(Child),
}

/// A process in a slot.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Child {
    /// Which worker it is.
    pub identity: Identity,
    /// How far its life went.
    pub state: State,
    /// It has reached a limit, and a successor is wanted: for this reason.
    pub spent: Option<Spent>,
    /// A signal from outside has stopped it (SIGSTOP). Killed when it does not go on by then; none where it may stand
    /// still for ever.
    pub stopped: Option<Stopped>,
}

/// Why a worker is to be replaced that does nothing wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spent {
    /// It answered `maxRequests` requests.
    Requests,
    /// It has so many bytes of memory, more than `maxMemory`.
    Memory(u64),
}

/// A worker that a signal has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stopped {
    /// When our patience with that ends.
    pub cont_deadline: Option<Duration>,
}

/// How far the life of a child went, with the instant at which our patience ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Forked, and not heard of yet.
    Booting {
        /// Killed when it did not report by then.
        ready_deadline: Duration,
    },
    /// It reported that it accepts connections.
    Serving,
    /// Asked to drain and leave.
    Draining {
        /// Killed when it is still there by then.
        drain_deadline: Duration,
    },
    /// Killed, and not reaped yet.
    Killed {
        /// What we killed it for: how its death will be told.
        life: Life,
        /// Given up when the kernel did not hand it back by then.
        reap_deadline: Duration,
    },
    /// Killed in vain, and no longer waited for: the kernel holds it (state D in ps(1)).
    Stuck {
        /// What we killed it for.
        life: Life,
    },
}

/// The part of its life in which a worker died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// Before it was ready.
    Booting,
    /// Killed by us, because it was not ready in time.
    Overdue,
    /// While it served.
    Serving,
    /// After it was asked to drain.
    Draining,
    /// Killed by us, because it did not leave in time or we were told to stop at once.
    CutOff,
    /// Killed by us, because its loop had not come round for `requestTimeout`.
    Hung,
    /// Killed by us, because a signal had stopped it for `requestTimeout`.
    Frozen,
    /// Killed by us before it was ready, because the generation that it was of does not come.
    Withdrawn,
}

impl Slot {
    pub(super) fn new(number: u32) -> Self {
        let fork_deadline = Duration::ZERO;
        Self { number, wanted: false, failures: 0, quiet: false, fork_deadline, place: Place::Vacant }
    }

    /// Who lives there.
    pub fn child(&self) -> Option<&Child> {
        match &self.place {
            Place::Occupied(child) => Some(child),
            Place::Vacant | Place::Forking { .. } => None,
        }
    }

    /// Who lives there.
    pub fn child_mut(&mut self) -> Option<&mut Child> {
        match &mut self.place {
            Place::Occupied(child) => Some(child),
            Place::Vacant | Place::Forking { .. } => None,
        }
    }

    /// Of whoever lives here, or will in a moment.
    pub fn generation(&self) -> Option<u32> {
        match &self.place {
            Place::Vacant => None,
            Place::Forking { generation } => Some(*generation),
            Place::Occupied(child) => Some(child.identity.generation),
        }
    }

    /// True when its worker serves.
    pub fn serves(&self) -> bool {
        self.child().is_some_and(|child| child.state == State::Serving)
    }

    /// Whoever lives here leaves it; the slot stays, vacant.
    pub(super) fn leave(&mut self) -> Self {
        let place = std::mem::replace(&mut self.place, Place::Vacant);
        Self { place, ..Self::new(self.number) }
    }

    /// What is left of a slot that is no longer one, if anything is.
    pub(super) fn into_outgoing(mut self) -> Option<Self> {
        Some(self.leave()).filter(|slot| slot.place != Place::Vacant)
    }

    /// True when a worker is to be forked now.
    pub fn due(&self, now: Duration) -> bool {
        self.awaits_fork() && self.fork_deadline <= now
    }

    /// A fork is asked for.
    pub fn fork(&mut self, now: Duration, generation: u32) {
        self.fork_deadline = now.saturating_add(FORK_SPACING);
        self.place = Place::Forking { generation };
    }

    /// Makes it active with a clean record: what befell earlier workers here is no reason to wait, the rate of forks is.
    pub fn want(&mut self, now: Duration) {
        self.wanted = true;
        self.failures = 0;
        self.quiet = false;
        // The last fork is not after now, so this is never too early.
        self.fork_deadline = self.fork_deadline.min(now.saturating_add(FORK_SPACING));
    }

    /// Counts an attempt that ended before its worker was ready, and how long the next one waits.
    pub fn fail(&mut self, now: Duration, delay_max: Duration) -> Duration {
        let doublings = self.failures.min(20);
        self.failures = self.failures.saturating_add(1);
        let delay = FORK_SPACING.saturating_mul(1 << doublings).min(delay_max);
        self.fork_deadline = self.fork_deadline.max(now.saturating_add(delay));
        self.fork_deadline.saturating_sub(now)
    }

    pub(super) fn awaits_fork(&self) -> bool {
        self.wanted && self.place == Place::Vacant
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        match &self.place {
            Place::Occupied(child) => child.deadline(),
            Place::Vacant | Place::Forking { .. } => self.awaits_fork().then_some(self.fork_deadline),
        }
    }
}

impl Child {
    /// One that was forked just now.
    pub fn new(identity: Identity, ready_deadline: Duration) -> Self {
        Self { identity, state: State::Booting { ready_deadline }, spent: None, stopped: None }
    }

    /// When our patience with it ends.
    pub fn deadline(&self) -> Option<Duration> {
        match self.state {
            State::Booting { ready_deadline: deadline }
            | State::Draining { drain_deadline: deadline }
            | State::Killed { reap_deadline: deadline, .. } => Some(deadline),
            State::Serving => self.cont_deadline(),
            State::Stuck { .. } => None,
        }
    }

    /// When our patience ends with its standing still.
    pub fn cont_deadline(&self) -> Option<Duration> {
        self.stopped.and_then(|stopped| stopped.cont_deadline)
    }

    /// How its death would be told if it died now.
    pub fn life(&self) -> Life {
        match self.state {
            State::Booting { .. } => Life::Booting,
            State::Serving => Life::Serving,
            State::Draining { .. } => Life::Draining,
            State::Killed { life, .. } | State::Stuck { life } => life,
        }
    }

    pub(super) fn postpone(&mut self, by: Duration) {
        if let Some(Stopped { cont_deadline: Some(deadline) }) = &mut self.stopped {
            *deadline = deadline.saturating_add(by);
        }
        match &mut self.state {
            State::Booting { ready_deadline: deadline }
            | State::Draining { drain_deadline: deadline }
            | State::Killed { reap_deadline: deadline, .. } => *deadline = deadline.saturating_add(by),
            State::Serving | State::Stuck { .. } => {}
        }
    }
}
