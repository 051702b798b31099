//! Regrow puts a website into production and keeps it there with nobody watching.
//!
//! A master process binds the socket, forks a fixed pool of workers that accept on the inherited descriptor, and grows
//! back every worker that falls. The program `regrow` serves a site from a configuration file; with this crate a Rust
//! application is that site. This one is complete; it takes the options of `regrow serve`:
//!
//! ```no_run
#![doc = include_str!("../examples/hello.rs")]
//! ```
//!
//! [`serve_app`] is given a factory, which builds a [`Handler`] in each worker after the fork. A handler gets an
//! [`Exchange`] that it may answer now or later, from any thread; a plain `Fn(Request) -> Response`, as above, is a
//! handler too. It runs beside the connection loop, so that it may block; one that cannot is made by [`quick`] and runs
//! in the loop.
//!
//! # The layers
//!
//! Right may use left; starred layers are pure: no system call, no clock, no randomness.
//!
//! ```text
//! sys · config* · h1*  <  board · listen · log  <  site  <  serve  <  worker  <  master (machine*)  <  cli  <  bin
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod board;
mod cli;
mod config;
mod h1;
mod listen;
mod log;
mod master;
#[cfg(test)]
mod random;
mod serve;
mod site;
#[allow(unsafe_code)]
mod sys;
mod worker;

pub use bytes;
pub use http;

pub use board::Identity;
pub use cli::{cli_main, serve_app};
pub use site::{Body, Client, Exchange, Handler, Request, RequestBody, Responder, Response, Trailers, quick};
