//! Everything that takes real processes and real sockets, in one binary.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

mod http_corpus;
mod http_fairness;
mod http_garbage;
mod http_handlers;
mod http_requests;
mod http_responses;
mod http_static;
mod supervision;
