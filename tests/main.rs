//! Everything that takes real processes and real sockets, and what holds of the sources, in one binary.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod docs_fresh;
mod layers;
