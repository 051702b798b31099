//! One file per command: arguments in, exit code out.
//!
//! Reads what the configuration is resolved from (arguments, environment, file) and prints what the commands found. What
//! the options are is the business of `config`.

mod arguments;
mod check;
mod command;
mod compress;
mod control_socket;
mod init;
mod options;
mod serve;
mod surroundings;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;
use std::thread;

use clap::error::{ContextKind, ContextValue, ErrorKind};

pub use serve::serve_app;

/// Runs the command that the arguments of the process ask for.
#[doc(hidden)]
pub fn cli_main() -> ExitCode {
    run(std::env::args_os()).finish()
}

fn run(args: impl IntoIterator<Item = OsString>) -> CliExit {
    let matches = match arguments::command().try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) => return error.into(),
    };
    match matches.subcommand() {
        Some(("serve", matches)) => serve::run(matches),
        Some(("check", matches)) => check::run(matches),
        Some(("compress", matches)) => compress::run(matches),
        Some(("options", matches)) => options::run(matches),
        Some(("init", matches)) => init::run(matches),
        Some((name @ ("reload" | "stop" | "reopen" | "upgrade" | "scale"), matches)) => command::run(name, matches),
        // clap lets no other name pass.
        Some(_) | None => CliExit::usage("regrow: no such command"),
    }
}

/// How many processors this process may run on.
fn processors() -> u32 {
    thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX))
}

/// What the exit code says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// Done: 0.
    Done,
    /// It failed while running: 1.
    Failed,
    /// Usage or configuration: 2.
    Usage,
    /// The workers could not boot: 3.
    Boot,
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        Self::from(match status {
            Status::Done => 0,
            Status::Failed => 1,
            Status::Usage => 2,
            Status::Boot => 3,
        })
    }
}

/// The end of a command: what it has to say, and its exit code.
#[derive(Debug)]
pub(crate) struct CliExit {
    /// For standard output.
    pub(crate) out: String,
    /// For standard error.
    pub(crate) err: String,
    /// The exit code.
    pub(crate) status: Status,
}

impl CliExit {
    fn new(status: Status) -> Self {
        let (out, err) = (String::new(), String::new());
        Self { out, err, status }
    }

    fn done(out: impl Into<String>) -> Self {
        let out = out.into();
        Self { out, ..Self::new(Status::Done) }
    }

    fn failed(err: impl Into<String>) -> Self {
        let err = err.into();
        Self { err, ..Self::new(Status::Failed) }
    }

    fn usage(err: impl Into<String>) -> Self {
        let err = err.into();
        Self { err, ..Self::new(Status::Usage) }
    }

    /// Prints what there is to say. A reader that leaves early (`regrow options | head`) is no failure.
    pub(crate) fn finish(self) -> ExitCode {
        let printed = print(io::stdout(), &self.out).and_then(|()| print(io::stderr(), &self.err));
        match printed {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Status::Failed.into(),
            Err(_) | Ok(()) => self.status.into(),
        }
    }
}

impl From<clap::Error> for CliExit {
    fn from(error: clap::Error) -> Self {
        let text = unknown_option(&error).unwrap_or_else(|| error.to_string());
        if error.use_stderr() { Self::usage(text) } else { Self::done(text) }
    }
}

/// An unknown flag in the words of an unknown option of the file: clap would advise to pass it as a value.
fn unknown_option(error: &clap::Error) -> Option<String> {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text),
        Some(_) | None => None,
    };
    let flag = context(ContextKind::InvalidArg).filter(|arg| arg.starts_with("--"))?;
    let remedy = match context(ContextKind::SuggestedArg) {
        Some(near) => format!("did you mean {near}?"),
        None => "`regrow options` lists all there are".to_owned(),
    };
    (error.kind() == ErrorKind::UnknownArgument).then(|| format!("{flag}: no such option; {remedy}"))
}

fn print(mut to: impl Write, text: &str) -> io::Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    to.write_all(text.trim_end().as_bytes())?;
    to.write_all(b"\n")?;
    to.flush()
}

#[cfg(test)]
mod tests;
