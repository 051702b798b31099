//! The only place for `unsafe`, nix, libc and the clock.
