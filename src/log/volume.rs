//! How much one place in the code may say: what clients can provoke again and again must not fill the disk. Pure: knows
//! places and times, not what is said.

use std::collections::HashMap;
use std::time::Duration;

/// So many lines of a place are written within any [`WINDOW`]; the others are counted.
const LINES: u32 = 100;

const WINDOW: Duration = Duration::from_secs(10);

/// A file and a line.
pub(super) type Place = (&'static str, u32);

/// What was said lately; as large as the program has places that speak.
#[derive(Debug, Default)]
pub(super) struct Volume {
    places: HashMap<Place, Said>,
}

#[derive(Debug, Default)]
struct Said {
    since: Duration,
    lines: u32,
    withheld: u64,
}

impl Volume {
    /// Whether a line of `place` is to be written: then, how many of its lines were withheld before it.
    pub(super) fn admit(&mut self, now: Duration, place: Place) -> Option<u64> {
        let said = self.places.entry(place).or_default();
        if now.saturating_sub(said.since) >= WINDOW {
            said.since = now;
            said.lines = 0;
        }
        if said.lines == LINES {
            said.withheld += 1;
            return None;
        }
        said.lines += 1;
        Some(std::mem::take(&mut said.withheld))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn a_hundred_lines_of_a_place_in_ten_seconds_are_written_and_the_others_counted() {
        let mut volume = Volume::default();
        let written = (0..125).filter(|_| volume.admit(100 * S, ("a.rs", 1)).is_some()).count();
        assert_eq!(written, 100);
        assert_eq!(volume.admit(100 * S, ("a.rs", 2)), Some(0), "another place");
        assert_eq!(volume.admit(109 * S, ("a.rs", 1)), None);
        assert_eq!(volume.admit(110 * S, ("a.rs", 1)), Some(26));
        assert_eq!(volume.admit(110 * S, ("a.rs", 1)), Some(0));
    }
}
