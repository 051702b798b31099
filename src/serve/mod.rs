//! The connection loop, its timers, and the executor that runs handlers.
