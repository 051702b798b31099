//! The command line, generated from the table of options, and what is read for it: the file and the environment.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgMatches, Command, value_parser};

use super::CliExit;
use super::surroundings::{self, Purpose, Surroundings};
use crate::config::{Config, ENVIRONMENT_PREFIX, File, Mistake, Origin, Row, SECTIONS, Sources, Wrong, options};
use crate::listen::tls::Credentials;
use crate::sys::privileges::Account;

/// The whole command line.
pub(super) fn command() -> Command {
    Command::new("regrow")
        .version(env!("CARGO_PKG_VERSION"))
        .about(
            "Puts a website into production and keeps it there: a master, and workers that grow back when they fall.",
        )
        .after_help(EXAMPLES)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .subcommand(serve_arguments(
            Command::new("serve").about("Serve a folder, the site of a configuration file, or a welcome page"),
        ))
        .subcommand(serve_arguments(
            Command::new("check").about("Say what `serve` would run with the same arguments, or every mistake"),
        ))
        .subcommands(commands_to_a_server())
        .subcommand(
            Command::new("compress")
                .about("Make compressed neighbours (NAME.br, NAME.zst, NAME.gz) of a folder's files, for serve to send")
                .arg(
                    Arg::new(FOLDER)
                        .required(true)
                        .value_parser(value_parser!(PathBuf))
                        .help("The folder whose files, at any depth, get neighbours where that makes them smaller"),
                )
                .after_help(super::compress::HELP),
        )
        .subcommand(
            Command::new("options")
                .about("List every option with its default")
                .arg(Arg::new("json").long("json").num_args(0).help("As JSON"))
                .arg(
                    Arg::new("markdown").long("markdown").num_args(0).conflicts_with("json").help("As Markdown tables"),
                ),
        )
        .subcommand(
            Command::new("init").about("Write the commented configuration that we recommend for production").arg(
                Arg::new("FILE")
                    .value_parser(value_parser!(PathBuf))
                    .help("The file to write; it must not exist yet [default: standard output]"),
            ),
        )
}

/// What is asked of a server that runs.
fn commands_to_a_server() -> [Command; 5] {
    [
        Command::new("reload").about("Have a running server read its configuration again and replace its workers"),
        Command::new("stop")
            .about("Stop a running server, and wait until it has")
            .arg(Arg::new("now").long("now").num_args(0).help("Cut off what runs")),
        Command::new("reopen").about("Have a running server open its log files anew, after they were rotated"),
        Command::new("upgrade").about("Have a new binary take over from a running server, without a stop").arg(
            Arg::new("PROGRAM")
                .value_parser(value_parser!(PathBuf))
                .help("The new binary [default: what is now at the path that the server was started from]"),
        ),
        Command::new("scale")
            .about("Have a running process pool of so many workers")
            .arg(Arg::new("N").required(true).value_parser(value_parser!(u32)).help("How many; 0 retires all")),
    ]
    .map(command_arguments)
}

const EXAMPLES: &str = "\
Examples:
  regrow serve public                     serve the folder `public` on http://localhost:8080
  regrow serve public --processPool 4     with four workers
  regrow compress public                  make compressed neighbours of its files
  regrow init site.conf                   write a configuration for production,
  regrow check -c site.conf               see what it would run,
  regrow serve -c site.conf               and run it
  regrow reload -c site.conf              have it read that file again

Exit codes: 0 done, 1 failure while running, 2 usage or configuration,
3 the workers could not boot";

const PRECEDENCE: &str = "\
Every option can be said in the file (socketPort = 80), in the environment
(REGROW_socketPort=80) and as a flag (--socketPort 80). Flags win over the
environment, the environment over the file.
TIME takes ms, s, m or h; SIZE takes bytes, or k, m or g.";

/// Adds what says a configuration: FOLDER, the file, and a flag for each option.
fn serve_arguments(command: Command) -> Command {
    let folder = Arg::new(FOLDER)
        .value_parser(value_parser!(PathBuf))
        .help("The folder to serve at / [default: what the file says, else a welcome page]");
    command.arg(folder).arg(file()).args(flags()).after_help(PRECEDENCE)
}

/// Adds what says which server is meant: what `serve` takes, of which few options matter.
fn command_arguments(command: Command) -> Command {
    let flags = flags().map(|flag| {
        let matters = super::command::PLACE.iter().any(|name| flag.get_id() == name);
        flag.hide(!matters)
    });
    command.arg(file()).args(flags).after_help(WHICH_SERVER)
}

const WHICH_SERVER: &str = "\
Which server: the one whose control socket is at controlSocket, or by default
in a runtime folder under the name of its address. Say -c FILE and options as
for `serve` (all are taken), or --controlSocket FILE.
It waits for the outcome: exit code 0 done, 1 not done and why, 2 usage.";

fn file() -> Arg {
    Arg::new(CONFIG)
        .short('c')
        .long("config")
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .help("Read options from this file")
}

fn flags() -> impl Iterator<Item = Arg> {
    SECTIONS.iter().flat_map(|s| s.rows.iter().map(|row| flag(row, s.heading)))
}

pub(super) const FOLDER: &str = "FOLDER";
const CONFIG: &str = "config";

fn flag(row: &'static Row, heading: &'static str) -> Arg {
    Arg::new(row.name)
        .long(row.name)
        .value_name(row.shape.value)
        .help(format!("{} [default: {}]", row.help, row.shown_default()))
        .help_heading(heading)
}

/// The arguments of a process that takes exactly those of `regrow serve`; `args` begin with its own name.
pub(super) fn serve_matches(args: impl IntoIterator<Item = OsString>) -> Result<ArgMatches, CliExit> {
    // clap shows the process's own name, the first argument, in place of this one.
    Ok(serve_arguments(Command::new("serve")).try_get_matches_from(args)?)
}

/// A configuration without a mistake, and what was found around it.
#[derive(Debug)]
pub(super) struct Settled {
    pub(super) config: Config,
    /// What is worth knowing.
    pub(super) notes: Vec<String>,
    /// Where TLS is wanted.
    pub(super) credentials: Option<Credentials>,
    /// Whose the workers are to be, where that is said.
    pub(super) account: Option<Account>,
}

/// The configuration and what is worth knowing about it, or every mistake in it and around it.
pub(super) fn settle(matches: &ArgMatches, purpose: Purpose) -> Result<Settled, CliExit> {
    let mut mistakes = Vec::new();
    let sources = read_sources(matches, &mut mistakes);
    let (understood, found) = Config::understand(&sources);
    mistakes.extend(found);
    let mut around =
        understood.as_ref().map_or_else(Surroundings::default, |config| surroundings::examine(config, purpose));
    mistakes.append(&mut around.mistakes);
    mistakes.sort_by(|a, b| a.origin.cmp(&b.origin));
    match understood {
        Some(config) if mistakes.is_empty() => {
            let Surroundings { notes, credentials, account, .. } = around;
            Ok(Settled { config, notes, credentials, account })
        }
        Some(_) | None => Err(refuse(&mistakes)),
    }
}

/// What could not even be read is added to `unread`.
pub(super) fn read_sources(matches: &ArgMatches, unread: &mut Vec<Mistake>) -> Sources {
    let current_folder = std::env::current_dir().unwrap_or_else(|cause| {
        let wrong = Wrong::new(format!("cannot be found: {cause}"), "change to a folder that exists, and start again");
        unread.push(Mistake::new(Origin::Argument, "the current folder", wrong));
        PathBuf::new()
    });
    let file = matches.get_one::<PathBuf>(CONFIG);
    let flags = options().filter_map(|row| {
        let text = matches.get_one::<String>(row.name)?;
        Some((row.name.to_owned(), text.clone()))
    });
    Sources {
        file: file.and_then(|path| read_file(path, &current_folder, unread)),
        environment: read_environment(std::env::vars_os(), unread),
        flags: flags.collect(),
        // Commands to a running server take none.
        folder: matches.try_get_one(FOLDER).ok().flatten().cloned(),
        current_folder,
    }
}

fn read_file(path: &Path, current_folder: &Path, unread: &mut Vec<Mistake>) -> Option<File> {
    match std::fs::read(path) {
        Ok(bytes) => Some(File {
            name: path.display().to_string(),
            folder: current_folder.join(path).parent().unwrap_or(current_folder).to_owned(),
            bytes,
        }),
        Err(error) => {
            let remedy = "name a file that you may read; `regrow init` writes one";
            let wrong = Wrong::new(format!("cannot be read ({error})"), remedy);
            let quote = path.display().to_string();
            unread.push(Mistake::new(Origin::Flag(CONFIG.to_owned()), quote, wrong));
            None
        }
    }
}

fn read_environment(
    variables: impl Iterator<Item = (OsString, OsString)>,
    unread: &mut Vec<Mistake>,
) -> Vec<(String, String)> {
    let mut environment = Vec::new();
    for (name, value) in variables {
        let Ok(name) = name.into_string() else {
            continue;
        };
        if !name.starts_with(ENVIRONMENT_PREFIX) {
            continue;
        }
        match value.into_string() {
            Ok(value) => environment.push((name, value)),
            Err(value) => {
                let wrong = Wrong::new("not UTF-8", "set it to UTF-8 text");
                let quote = value.to_string_lossy();
                unread.push(Mistake::new(Origin::Environment(name), quote, wrong));
            }
        }
    }
    environment.sort();
    environment
}

/// All mistakes, one a line, and their number.
pub(super) fn refuse(mistakes: &[Mistake]) -> CliExit {
    const MOST: usize = 50;
    let mut text = String::new();
    for mistake in mistakes.iter().take(MOST) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{mistake}");
    }
    if mistakes.len() > MOST {
        let _ = writeln!(text, "... and {} more", mistakes.len() - MOST);
    }
    let plural = if mistakes.len() == 1 { "" } else { "s" };
    let _ = writeln!(text, "\nregrow: {} mistake{plural} in the configuration", mistakes.len());
    CliExit::usage(text)
}
