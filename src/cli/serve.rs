//! `regrow serve`: runs the site until it is told to stop.

use clap::ArgMatches;

use super::{CliExit, arguments};
use crate::config::Config;

pub(super) fn run(matches: &ArgMatches) -> CliExit {
    match arguments::settle(matches) {
        Ok((config, _notes)) => serve(config),
        Err(exit) => exit,
    }
}

// INTEGRATOR: the one call that is missing; it runs the master on `config`.
fn serve(_config: Config) -> CliExit {
    CliExit::done("serve")
}
