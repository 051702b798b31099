//! The bookkeeping of the pool: which slots are wanted, who lives in each, and until when each may take for what it does.
//!
//! It decides nothing and forks nothing: it must not know of signals to the master, phases, the plan or the log.

use std::time::Duration;

use crate::board::Identity;

/// A process, as the kernel numbers it.
pub(crate) type Pid = i32;

/// A slot forks at most ten times a second, whatever befalls its workers.
pub(crate) const FORK_SPACING: Duration = Duration::from_millis(100);

/// All slots that there can be; made once, so that the master's memory does not grow with deaths or scaling.
#[derive(Debug)]
pub(crate) struct Children {
    slots: Vec<Slot>,
}

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
}

impl Children {
    /// Room for so many processes at once.
    pub fn new(slots: u32) -> Self {
        Self { slots: (0..slots).map(Slot::new).collect() }
    }

    /// Every slot, in order.
    pub fn slots(&self) -> impl DoubleEndedIterator<Item = &Slot> {
        self.slots.iter()
    }

    /// Every slot, in order.
    pub fn slots_mut(&mut self) -> impl DoubleEndedIterator<Item = &mut Slot> {
        self.slots.iter_mut()
    }

    /// Every process that was not reaped.
    pub fn living(&self) -> impl Iterator<Item = &Child> {
        self.slots.iter().filter_map(Slot::child)
    }

    /// Every process that was not reaped.
    pub fn living_mut(&mut self) -> impl Iterator<Item = &mut Child> {
        self.slots.iter_mut().filter_map(Slot::child_mut)
    }

    /// How many slots are active.
    pub fn wanted(&self) -> u32 {
        count(self.slots.iter().filter(|slot| slot.wanted))
    }

    /// How many workers serve and are to go on serving.
    pub fn serving(&self) -> u32 {
        count(self.living().filter(|child| child.state == State::Serving))
    }

    /// The slot whose fork is being answered.
    pub fn forking_mut(&mut self, number: u32) -> Option<(&mut Slot, u32)> {
        let slot = self.slots.get_mut(number as usize)?;
        match slot.place {
            Place::Forking { generation } => Some((slot, generation)),
            Place::Vacant | Place::Occupied(_) => None,
        }
    }

    /// The slot that this process lives in.
    pub fn slot_mut(&mut self, pid: Pid) -> Option<&mut Slot> {
        self.slots.iter_mut().find(|slot| slot.child().is_some_and(|child| child.identity.pid == pid))
    }

    /// The slot for one worker more: the lowest number that no process has; where every free number has one that is
    /// on its way out, the lowest of those, whose worker comes when the old one has left.
    pub fn next_slot_mut(&mut self) -> Option<&mut Slot> {
        self.slots.iter_mut().filter(|slot| !slot.wanted).min_by_key(|slot| (slot.place != Place::Vacant, slot.number))
    }

    /// The slot for one worker fewer.
    pub fn last_wanted_mut(&mut self) -> Option<&mut Slot> {
        self.slots.iter_mut().rev().find(|slot| slot.wanted)
    }

    /// When something of a slot falls due next.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.slots.iter().filter_map(Slot::deadline).min()
    }

    /// Grants every child so much longer for what it does.
    pub fn postpone(&mut self, by: Duration) {
        self.living_mut().for_each(|child| child.postpone(by));
    }
}

impl Slot {
    fn new(number: u32) -> Self {
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

    fn awaits_fork(&self) -> bool {
        self.wanted && self.place == Place::Vacant
    }

    fn deadline(&self) -> Option<Duration> {
        match &self.place {
            Place::Occupied(child) => child.deadline(),
            Place::Vacant | Place::Forking { .. } => self.awaits_fork().then_some(self.fork_deadline),
        }
    }
}

impl Child {
    /// When our patience with it ends.
    pub fn deadline(&self) -> Option<Duration> {
        match self.state {
            State::Booting { ready_deadline: deadline }
            | State::Draining { drain_deadline: deadline }
            | State::Killed { reap_deadline: deadline, .. } => Some(deadline),
            State::Serving | State::Stuck { .. } => None,
        }
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

    fn postpone(&mut self, by: Duration) {
        match &mut self.state {
            State::Booting { ready_deadline: deadline }
            | State::Draining { drain_deadline: deadline }
            | State::Killed { reap_deadline: deadline, .. } => *deadline = deadline.saturating_add(by),
            State::Serving | State::Stuck { .. } => {}
        }
    }
}

fn count<T>(items: impl Iterator<Item = T>) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn occupied(worker: u32, pid: Pid, state: State) -> Place {
        Place::Occupied(Child { identity: Identity { worker, generation: 1, pid }, state })
    }

    /// One slot per letter: `s`erving, `l`eaving (not wanted), `v`acant and wanted, `-` vacant and not wanted.
    fn pool(picture: &str) -> Children {
        let mut children = Children::new(u32::try_from(picture.len()).unwrap());
        for ((slot, letter), pid) in children.slots_mut().zip(picture.chars()).zip(100..) {
            slot.wanted = matches!(letter, 's' | 'v');
            slot.place = match letter {
                's' => occupied(slot.number, pid, State::Serving),
                'l' => occupied(slot.number, pid, State::Draining { drain_deadline: ms(500) }),
                _ => Place::Vacant,
            };
        }
        children
    }

    fn next_slot(picture: &str) -> Option<u32> {
        pool(picture).next_slot_mut().map(|slot| slot.number)
    }

    #[test]
    fn one_more_takes_the_lowest_number_without_a_process() {
        assert_eq!(next_slot("ss--"), Some(2));
        assert_eq!(next_slot("s-s-"), Some(1));
        assert_eq!(next_slot("sl--"), Some(2));
    }

    #[test]
    fn one_more_waits_for_a_leaving_worker_only_when_no_number_is_free() {
        assert_eq!(next_slot("sll"), Some(1));
        assert_eq!(next_slot("svs"), None);
    }

    #[test]
    fn one_fewer_takes_the_highest_active_slot_vacant_or_not() {
        let last = |picture| pool(picture).last_wanted_mut().map(|slot| slot.number);
        assert_eq!(last("ssl-"), Some(1));
        assert_eq!(last("sv-"), Some(1));
        assert_eq!(last("l-"), None);
    }

    #[test]
    fn a_process_is_found_by_its_pid_and_strangers_are_not() {
        let mut children = pool("s-l");
        assert_eq!(children.slot_mut(102).map(|slot| slot.number), Some(2));
        assert!(children.slot_mut(101).is_none());
    }

    #[test]
    fn only_an_open_fork_can_be_answered() {
        let mut children = pool("sv");
        children.slots_mut().last().unwrap().fork(ms(0), 7);
        assert!(children.forking_mut(0).is_none());
        assert_eq!(children.forking_mut(1).map(|(_, generation)| generation), Some(7));
        assert!(children.forking_mut(2).is_none());
    }

    #[test]
    fn counts_tell_active_slots_from_serving_workers() {
        let children = pool("sslv-");
        assert_eq!((children.wanted(), children.serving(), children.living().count()), (3, 2, 3));
    }

    #[test]
    fn the_delay_doubles_from_100_ms_up_to_the_maximum() {
        let mut slot = Slot::new(0);
        let delays: Vec<_> = (0..6).map(|_| slot.fail(slot.fork_deadline, ms(1000))).collect();
        assert_eq!(delays, [100, 200, 400, 800, 1000, 1000].map(ms));
        slot.failures = u32::MAX;
        assert_eq!(slot.fail(slot.fork_deadline, ms(1000)), ms(1000));
    }

    #[test]
    fn forks_are_100_ms_apart_even_without_a_delay() {
        let mut slot = Slot::new(0);
        slot.want(ms(5));
        assert!(slot.due(ms(5)));
        slot.fork(ms(5), 1);
        slot.place = Place::Vacant;
        assert_eq!(slot.fail(ms(6), ms(0)), ms(99));
        assert!(!slot.due(ms(104)) && slot.due(ms(105)));
    }

    #[test]
    fn wanting_a_slot_again_forgets_its_failures_but_not_its_last_fork() {
        let mut slot = Slot::new(0);
        slot.want(ms(0));
        slot.fork(ms(0), 1);
        slot.place = Place::Vacant;
        for _ in 0..9 {
            slot.fail(ms(10), ms(30_000));
        }
        slot.want(ms(20));
        assert_eq!(slot.failures, 0);
        assert!(!slot.due(ms(99)) && slot.due(ms(120)));
    }

    #[test]
    fn the_next_deadline_is_the_earliest_of_all_slots() {
        assert_eq!(pool("ss-").next_deadline(), None);
        assert_eq!(pool("sl-").next_deadline(), Some(ms(500)));
        assert_eq!(pool("slv").next_deadline(), Some(ms(0)), "a vacant slot is due at once");
    }

    #[test]
    fn postponing_moves_what_has_a_deadline() {
        let mut children = pool("sl");
        children.postpone(ms(1000));
        assert_eq!(children.next_deadline(), Some(ms(1500)));
    }
}
