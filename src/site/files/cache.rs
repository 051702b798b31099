//! What was found under a name, kept for the next who asks, within bounds. Pure; knows nothing of files.
//!
//! Two generations: what is asked for is in the young one, or moves there; when that is full, the old one is let go and
//! the young one is the old one. What is asked for often stays, whatever else is asked for once, and nothing is sorted.

use std::collections::HashMap;
use std::mem;
use std::time::Duration;

/// Values by their names.
#[derive(Debug)]
pub(super) struct Cache<V> {
    young: Generation<V>,
    old: Generation<V>,
    /// What one generation may hold.
    room: Weight,
}

/// A value, and when it was last known to be right.
#[derive(Clone, Debug)]
pub(super) struct Kept<V> {
    pub value: V,
    pub checked: Duration,
    weight: Weight,
}

/// What something costs to keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Weight {
    pub bytes: usize,
    pub descriptors: usize,
}

#[derive(Debug)]
struct Generation<V> {
    by_name: HashMap<Box<[u8]>, Kept<V>>,
    weight: Weight,
}

/// About what an entry takes beyond the bytes that it counts: its name, its place in the table, its head.
const ENTRY_BYTES: usize = 1024;

impl<V: Clone> Cache<V> {
    /// One that holds no more than `room`.
    pub(super) fn new(room: Weight) -> Self {
        let room = Weight { bytes: room.bytes / 2, descriptors: room.descriptors / 2 };
        Self { young: Generation::default(), old: Generation::default(), room }
    }

    pub(super) fn find(&mut self, name: &[u8]) -> Option<Kept<V>> {
        if let Some(kept) = self.young.by_name.get(name) {
            return Some(kept.clone());
        }
        let (name, kept) = self.old.remove(name)?;
        self.insert(name, kept.clone());
        Some(kept)
    }

    /// Keeps `value`, which is right at `now`, in place of what was kept under that name.
    pub(super) fn keep(&mut self, name: &[u8], value: V, weight: Weight, now: Duration) {
        self.forget(name);
        let weight = Weight { bytes: weight.bytes + name.len() + ENTRY_BYTES, ..weight };
        if weight.fits(self.room) {
            self.insert(name.into(), Kept { value, checked: now, weight });
        }
    }

    pub(super) fn forget(&mut self, name: &[u8]) {
        if self.young.remove(name).is_none() {
            self.old.remove(name);
        }
    }

    /// Lets go of what was not checked after `moment`.
    pub(super) fn forget_unchecked_since(&mut self, moment: Duration) {
        self.young.retain(|kept| kept.checked > moment);
        self.old.retain(|kept| kept.checked > moment);
    }

    pub(super) fn clear(&mut self) {
        self.young = Generation::default();
        self.old = Generation::default();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.young.by_name.is_empty() && self.old.by_name.is_empty()
    }

    fn insert(&mut self, name: Box<[u8]>, kept: Kept<V>) {
        if !self.young.weight.plus(kept.weight).fits(self.room) {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(name, kept);
    }
}

impl<V> Generation<V> {
    fn insert(&mut self, name: Box<[u8]>, kept: Kept<V>) {
        self.weight = self.weight.plus(kept.weight);
        self.by_name.insert(name, kept);
    }

    fn remove(&mut self, name: &[u8]) -> Option<(Box<[u8]>, Kept<V>)> {
        let (name, kept) = self.by_name.remove_entry(name)?;
        self.weight = self.weight.minus(kept.weight);
        Some((name, kept))
    }

    fn retain(&mut self, is_wanted: impl Fn(&Kept<V>) -> bool) {
        let weight = &mut self.weight;
        self.by_name.retain(|_, kept| {
            let wanted = is_wanted(kept);
            if !wanted {
                *weight = weight.minus(kept.weight);
            }
            wanted
        });
    }
}

impl<V> Default for Generation<V> {
    fn default() -> Self {
        Self { by_name: HashMap::new(), weight: Weight::default() }
    }
}

impl Weight {
    fn plus(self, other: Self) -> Self {
        Self { bytes: self.bytes + other.bytes, descriptors: self.descriptors + other.descriptors }
    }

    fn minus(self, other: Self) -> Self {
        Self { bytes: self.bytes - other.bytes, descriptors: self.descriptors - other.descriptors }
    }

    fn fits(self, room: Self) -> bool {
        self.bytes <= room.bytes && self.descriptors <= room.descriptors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const LIGHT: Weight = Weight { bytes: 0, descriptors: 1 };

    fn cache(descriptors: usize) -> Cache<u32> {
        Cache::new(Weight { bytes: 1 << 30, descriptors })
    }

    fn value(cache: &mut Cache<u32>, name: &[u8]) -> Option<u32> {
        cache.find(name).map(|kept| kept.value)
    }

    impl Cache<u32> {
        fn weight(&self) -> Weight {
            self.young.weight.plus(self.old.weight)
        }

        fn counted(&self) -> Weight {
            let all = self.young.by_name.values().chain(self.old.by_name.values());
            all.fold(Weight::default(), |sum, kept| sum.plus(kept.weight))
        }
    }

    #[test]
    fn what_is_kept_is_found_until_it_is_forgotten() {
        let mut cache = cache(10);
        cache.keep(b"a", 1, LIGHT, MS);
        cache.keep(b"b", 2, LIGHT, MS);
        cache.keep(b"a", 3, LIGHT, 2 * MS);
        assert_eq!(
            (value(&mut cache, b"a"), value(&mut cache, b"b"), value(&mut cache, b"c")),
            (Some(3), Some(2), None)
        );
        assert_eq!(cache.find(b"a").unwrap().checked, 2 * MS);
        cache.forget(b"a");
        assert_eq!(value(&mut cache, b"a"), None);
        cache.clear();
        assert!(cache.is_empty());
    }

    #[test]
    fn what_is_asked_for_often_outlives_what_is_asked_for_once() {
        let mut cache = cache(20);
        cache.keep(b"often", 0, LIGHT, MS);
        for n in 0..1000_u32 {
            cache.keep(&n.to_ne_bytes(), n, LIGHT, MS);
            assert_eq!(value(&mut cache, b"often"), Some(0), "{n}");
        }
        assert_eq!(value(&mut cache, &0_u32.to_ne_bytes()), None);
        assert_eq!(value(&mut cache, &999_u32.to_ne_bytes()), Some(999));
    }

    #[test]
    fn bounds_hold_whatever_is_done() {
        let room = Weight { bytes: 60_000, descriptors: 12 };
        let mut cache = Cache::new(room);
        let mut random: u64 = 7;
        let mut next = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % below
        };
        let mut found = 0;
        for n in 0..20_000_u32 {
            let name = next(40).to_ne_bytes();
            match next(10) {
                0..4 => {
                    let weight =
                        Weight { bytes: usize::try_from(next(6000)).unwrap(), descriptors: usize::from(next(2) == 0) };
                    cache.keep(&name, n, weight, n * MS);
                }
                4..8 => found += u32::from(cache.find(&name).is_some()),
                8 => cache.forget(&name),
                _ => cache.forget_unchecked_since(n.saturating_sub(50) * MS),
            }
            assert!(cache.weight().fits(room), "{:?}", cache.weight());
            assert_eq!(cache.weight(), cache.counted());
        }
        assert!(found > 1000, "{found}");
    }

    #[test]
    fn what_is_too_heavy_is_not_kept_and_leaves_the_rest_alone() {
        let mut cache = Cache::new(Weight { bytes: 10_000, descriptors: 2 });
        cache.keep(b"a", 1, LIGHT, MS);
        cache.keep(b"b", 2, Weight { bytes: 6000, descriptors: 0 }, MS);
        assert_eq!((value(&mut cache, b"a"), value(&mut cache, b"b")), (Some(1), None));
        let mut none = Cache::new(Weight { bytes: 10_000, descriptors: 1 });
        none.keep(b"a", 1, LIGHT, MS);
        assert_eq!(value(&mut none, b"a"), None);
    }

    #[test]
    fn what_nobody_checked_for_long_is_let_go() {
        let mut cache = cache(4);
        for (name, at) in [(b"a", 1), (b"b", 5), (b"c", 9)] {
            cache.keep(name, 0, LIGHT, at * MS);
        }
        cache.forget_unchecked_since(5 * MS);
        assert_eq!([b"a", b"b", b"c"].map(|name| cache.find(name).is_some()), [false, false, true]);
    }
}
