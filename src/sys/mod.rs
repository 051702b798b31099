//! The only place for `unsafe`, nix, libc and the clock.

pub(crate) mod open_beneath;
