//! The clock that deadlines are kept by.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Time since some fixed moment, the same for all processes of this machine; never goes back and does not
/// count while the machine is suspended (`CLOCK_MONOTONIC`).
pub(crate) fn monotonic() -> Duration {
    // The clock exists on every system we build for, and the call can fail in no other way (clock_gettime(2)).
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
}
