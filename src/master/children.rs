//! The bookkeeping of the pool: which slots are wanted, who lives in each, and until when each may take for what it does.
//!
//! It decides nothing and forks nothing: it must not know of signals to the master, phases, the plan or the log.

mod slot;

use std::time::Duration;

pub(crate) use slot::{Child, Life, Place, Slot, Spent, State, Stopped};

/// A process, as the kernel numbers it.
pub(crate) type Pid = i32;

/// Every process there is, by the slot that it lives in.
#[derive(Debug)]
pub(crate) struct Children {
    /// The pool: all slots that it can have.
    slots: Vec<Slot>,
    /// Those of the generation that is to become the pool once all of them serve; empty while there is none.
    coming: Vec<Slot>,
    /// Slots that are no longer of the pool, none of them wanted: each is left with its process, and goes with it. One that
    /// still serves goes on until its successor, which has its number, is ready.
    outgoing: Vec<Slot>,
}

impl Children {
    /// A pool of up to so many.
    pub fn new(slots: u32) -> Self {
        Self { slots: vacant(slots), coming: Vec::new(), outgoing: Vec::new() }
    }

    /// Every slot of the pool, in order.
    pub fn slots(&self) -> impl DoubleEndedIterator<Item = &Slot> {
        self.slots.iter()
    }

    /// Every slot of the pool, in order.
    pub fn slots_mut(&mut self) -> impl DoubleEndedIterator<Item = &mut Slot> {
        self.slots.iter_mut()
    }

    /// Every slot of the generation to come.
    pub fn coming(&self) -> &[Slot] {
        &self.coming
    }

    /// Every slot of the generation to come.
    pub fn coming_mut(&mut self) -> &mut [Slot] {
        &mut self.coming
    }

    /// How many of the generation to come serve, and how many are to.
    pub fn coming_count(&self) -> (u32, u32) {
        (count(self.coming.iter().filter(|slot| slot.serves())), count(self.coming.iter()))
    }

    /// Every slot whose process is to leave, or goes on only until another one can.
    pub fn outgoing(&self) -> &[Slot] {
        &self.outgoing
    }

    /// Every slot whose process is to leave, or goes on only until another one can.
    pub fn outgoing_mut(&mut self) -> &mut [Slot] {
        &mut self.outgoing
    }

    /// Every slot that has, or may get, a process.
    pub fn all(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().chain(&self.coming).chain(&self.outgoing)
    }

    /// Every slot that has, or may get, a process.
    pub fn all_mut(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.slots.iter_mut().chain(&mut self.coming).chain(&mut self.outgoing)
    }

    /// Every process that was not reaped.
    pub fn living(&self) -> impl Iterator<Item = &Child> {
        self.all().filter_map(Slot::child)
    }

    /// Every process that was not reaped.
    pub fn living_mut(&mut self) -> impl Iterator<Item = &mut Child> {
        self.all_mut().filter_map(Slot::child_mut)
    }

    /// How many slots of the pool are active.
    pub fn wanted(&self) -> u32 {
        count(self.slots.iter().filter(|slot| slot.wanted))
    }

    /// How many workers serve, those included that go on until another one can.
    pub fn serving(&self) -> u32 {
        count(self.slots.iter().chain(&self.outgoing).filter(|slot| slot.serves()))
    }

    /// Whether every active slot of the pool has a worker that serves.
    pub fn is_complete(&self) -> bool {
        self.slots.iter().filter(|slot| slot.wanted).all(Slot::serves)
    }

    /// Whether every slot of the generation to come has a worker that serves.
    pub fn coming_is_complete(&self) -> bool {
        self.coming.iter().all(Slot::serves)
    }

    /// The slot whose fork is being answered.
    pub fn forking_mut(&mut self, number: u32, generation: u32) -> Option<&mut Slot> {
        self.all_mut().find(|slot| slot.number == number && slot.place == Place::Forking { generation })
    }

    /// The slot that this process lives in.
    pub fn slot_mut(&mut self, pid: Pid) -> Option<&mut Slot> {
        self.all_mut().find(|slot| slot.child().is_some_and(|child| child.identity.pid == pid))
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

    /// Gives the slot of this process to a successor: whoever lives there becomes outgoing, and goes on as it is.
    pub fn make_room(&mut self, pid: Pid) {
        let lives = |slot: &&mut Slot| slot.child().is_some_and(|child| child.identity.pid == pid);
        if let Some(slot) = self.slots.iter_mut().chain(&mut self.coming).find(lives) {
            self.outgoing.push(slot.leave());
        }
    }

    /// A generation of so many slots is to come, each to be forked now.
    pub fn expect_generation(&mut self, slots: u32, now: Duration) {
        self.coming = vacant(slots);
        self.coming.iter_mut().for_each(|slot| slot.want(now));
    }

    /// What was to come is the pool from now on, which can have up to so many slots; whoever lived there is outgoing.
    pub fn turn_over(&mut self, max_slots: u32) {
        let mut slots = std::mem::take(&mut self.coming);
        slots.extend((count(slots.iter())..max_slots).map(Slot::new));
        let before = std::mem::replace(&mut self.slots, slots);
        self.outgoing.extend(before.into_iter().filter_map(Slot::into_outgoing));
    }

    /// What was to come does not: whoever lives there is outgoing.
    pub fn withdraw(&mut self) {
        let withdrawn = std::mem::take(&mut self.coming);
        self.outgoing.extend(withdrawn.into_iter().filter_map(Slot::into_outgoing));
    }

    /// Forgets outgoing slots whose process is no more.
    pub fn forget_the_gone(&mut self) {
        self.outgoing.retain(|slot| slot.place != Place::Vacant);
    }

    /// When something of a slot falls due next.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.all().filter_map(Slot::deadline).min()
    }

    /// Grants every child so much longer for what it does.
    pub fn postpone(&mut self, by: Duration) {
        self.living_mut().for_each(|child| child.postpone(by));
    }
}

fn vacant(slots: u32) -> Vec<Slot> {
    (0..slots).map(Slot::new).collect()
}

fn count<T>(items: impl Iterator<Item = T>) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::Identity;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn occupied(worker: u32, pid: Pid, state: State) -> Place {
        let identity = Identity { worker, generation: 1, pid };
        Place::Occupied(Child { state, ..Child::new(identity, ms(0)) })
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
        assert!(children.forking_mut(0, 7).is_none());
        assert_eq!(children.forking_mut(1, 7).map(|slot| slot.number), Some(1));
        assert!(children.forking_mut(1, 6).is_none() && children.forking_mut(2, 7).is_none());
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

    #[test]
    fn a_successor_gets_the_slot_and_whoever_lived_there_goes_on_beside_it() {
        let mut children = pool("ss");
        children.make_room(101);
        assert_eq!((children.wanted(), children.serving(), children.is_complete()), (2, 2, false));
        assert_eq!(children.outgoing().iter().map(|slot| slot.number).collect::<Vec<_>>(), [1]);
        assert!(children.slots().nth(1).unwrap().due(ms(0)));
        children.slot_mut(101).unwrap().place = Place::Vacant;
        children.forget_the_gone();
        assert!(children.outgoing().is_empty());
    }

    #[test]
    fn a_generation_becomes_the_pool_with_room_for_more_or_is_withdrawn() {
        for comes in [true, false] {
            let mut children = pool("sv");
            children.expect_generation(3, ms(5));
            children.coming[0].place = occupied(0, 200, State::Serving);
            children.coming[1].fork(ms(5), 2);
            assert!(!children.coming_is_complete());
            if comes {
                children.turn_over(5);
                assert_eq!((children.slots().count(), children.wanted(), children.serving()), (5, 3, 2));
                assert_eq!(children.outgoing().len(), 1, "the one that lives");
            } else {
                children.withdraw();
                assert_eq!((children.slots().count(), children.wanted(), children.serving()), (2, 1 + 1, 2));
                assert_eq!(children.outgoing().len(), 2, "the one that lives and the one whose fork is not answered");
            }
            assert!(children.forking_mut(1, 2).is_some(), "the answer finds its slot");
            assert!(children.coming().is_empty());
        }
    }
}
