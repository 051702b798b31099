//! What tests on random input share: seeds, and numbers that a seed replays. Knows nothing of what is tested.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// So many seeds, or as many as the seconds of `REGROW_FUZZ_SECONDS` allow; these are others at every start.
pub(crate) fn seeds(count: u64) -> impl Iterator<Item = u64> {
    let seconds: Option<u64> = std::env::var("REGROW_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |time| time.as_secs() << 20);
    let start = seconds.map_or(1, |_| now());
    let deadline = Instant::now() + Duration::from_secs(seconds.unwrap_or(0));
    (start..).take_while(move |seed| *seed < start + count || Instant::now() < deadline)
}

/// Marsaglia's xorshift64*, so that a failure is replayed from its seed.
pub(crate) struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next()).unwrap() % bound
    }
}
