//! Regrow puts a website into production and keeps it there.
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
mod serve;
mod site;
#[allow(unsafe_code)]
mod sys;
mod worker;

pub use board::Identity;
pub use cli::{cli_main, serve_app};
pub use config::{
    AccessFormat, Config, Files, Limits, Log, LogTarget, Mode, Origin, Server, Setting, StaticContent, Supervisor,
};
pub use site::{Body, Client, Exchange, Handler, Request, RequestBody, Responder, Response, Trailers, quick};
