//! What was said, and what it resolves to. Pure: reads no file and no environment.
//!
//! `Sources` (what was said) go through `layers`, judged by the table in `options`, and come out as a [`Config`] whose
//! every value remembers where it was said, or as all the mistakes at once.

mod ini;
mod kind;
mod layers;
mod mistake;
mod mode;
mod options;
mod senders;

use std::fmt;
use std::ops::Deref;
use std::path::PathBuf;

pub(crate) use layers::ENVIRONMENT_PREFIX;
use layers::Layers;
pub(crate) use mistake::{Mistake, Wrong};
pub(crate) use mode::{Layout, Mode, Runner};
pub(crate) use options::{Change, Entries, Row, SECTIONS, Section, Shown, options};
use options::{Files, Limits, Log, Proxy, Server, Status, Supervisor};
pub(crate) use senders::Senders;

/// The resolved configuration of a site.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// `[server]`
    pub server: Server,
    /// `[staticContent]`; empty where nothing was said, which serves the embedded welcome page.
    pub static_content: Vec<StaticContent>,
    /// `[files]`
    pub files: Files,
    /// `[limits]`
    pub limits: Limits,
    /// `[supervisor]`
    pub supervisor: Supervisor,
    /// `[log]`
    pub log: Log,
    /// `[proxy]`
    pub proxy: Proxy,
    /// `[status]`
    pub status: Status,
}

impl Config {
    /// Resolves what was said, or says everything that is wrong with it.
    #[cfg(test)]
    pub fn resolve(sources: &Sources) -> Result<Self, Vec<Mistake>> {
        let (understood, mistakes) = Self::understand(sources);
        understood.filter(|_| mistakes.is_empty()).ok_or(mistakes)
    }

    /// What could be made out, with defaults in place of what could not, and the mistakes in the order in which they
    /// were said. It may run only where there is none; otherwise it serves to look for more of them.
    pub fn understand(sources: &Sources) -> (Option<Self>, Vec<Mistake>) {
        let layers = Layers::collect(sources);
        let built = Self::build(&layers);
        let mut mistakes = layers.mistakes;
        mistakes.sort_by(|a, b| a.origin.cmp(&b.origin));
        match built {
            Ok(config) => (Some(config), mistakes),
            Err(wrong) => {
                mistakes.push(Mistake::new(Origin::Default, "the defaults", wrong));
                (None, mistakes)
            }
        }
    }

    fn build(layers: &Layers) -> Result<Self, Wrong> {
        Ok(Self {
            server: Server::read(layers)?,
            static_content: layers.static_content.clone(),
            files: Files::read(layers)?,
            limits: Limits::read(layers)?,
            supervisor: Supervisor::read(layers)?,
            log: Log::read(layers)?,
            proxy: Proxy::read(layers)?,
            status: Status::read(layers)?,
        })
    }

    /// The options that are not as they were, and that only a restart changes.
    pub fn fixed_differences(&self, before: &Self) -> Vec<&'static str> {
        let pairs = self.show().into_iter().zip(before.show());
        let differ = pairs.filter(|(now, before)| now.value != before.value).map(|(now, _)| now.name);
        differ.filter(|name| options().any(|row| row.name == *name && row.change == Change::Restart)).collect()
    }

    /// Every option with its value, in the order of the table.
    pub fn show(&self) -> Vec<Shown<'_>> {
        let mut shown = self.server.show();
        shown.extend(self.files.show());
        shown.extend(self.limits.show());
        shown.extend(self.supervisor.show());
        shown.extend(self.log.show());
        shown.extend(self.proxy.show());
        shown.extend(self.status.show());
        shown
    }
}

/// A folder and the prefix below which it is served, or a file and the path at which it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StaticContent {
    /// Begins with `/` and does not end with one, save `/` itself. Not percent-encoded.
    pub prefix: String,
    /// Of the folder or file; absolute.
    pub path: PathBuf,
    /// Where it was said.
    pub origin: Origin,
}

/// Where a log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LogTarget {
    /// A file that is appended to, a FIFO or a device, at that absolute path.
    File(PathBuf),
    /// What the program was started with as standard output.
    Stdout,
    /// What the program was started with as standard error.
    Stderr,
    /// Nowhere.
    Off,
}

impl fmt::Display for LogTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Stdout => f.write_str("stdout"),
            Self::Stderr => f.write_str("stderr"),
            Self::Off => f.write_str("off"),
        }
    }
}

/// How a line of the access log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AccessFormat {
    /// The combined format of Apache and nginx.
    Combined,
    /// One JSON object a line.
    Json,
}

/// A resolved value that remembers where it was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting<T> {
    /// The value.
    pub value: T,
    /// Where it was said.
    pub origin: Origin,
}

impl<T> Deref for Setting<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// Where something was said. The order is that of the layers, the strongest last.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    /// Nowhere.
    Default,
    /// In a configuration file.
    File {
        /// The file as it was named.
        file: String,
        /// Counted from 1.
        line: usize,
    },
    /// By the environment variable of that name.
    Environment(String),
    /// By the flag of that name, without its dashes.
    Flag(String),
    /// By the FOLDER of the command line.
    Argument,
}

impl Origin {
    /// The strength of what was said there. A flag and an argument are one layer.
    fn layer(&self) -> u8 {
        match self {
            Self::Default => 0,
            Self::File { .. } => 1,
            Self::Environment(_) => 2,
            Self::Flag(_) | Self::Argument => 3,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { file, line } => write!(f, "{file}:{line}"),
            Self::Environment(name) => f.write_str(name),
            Self::Flag(name) => write!(f, "--{name}"),
            Self::Argument => f.write_str("FOLDER"),
        }
    }
}

/// What was said, and where relative paths start.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources {
    /// The configuration file, where there is one.
    pub file: Option<File>,
    /// The environment; names that do not begin with `REGROW_` are ignored.
    pub environment: Vec<(String, String)>,
    /// Flags by their names, without dashes.
    pub flags: Vec<(String, String)>,
    /// The FOLDER of the command line.
    pub folder: Option<PathBuf>,
    /// Absolute: what paths of the command line and the environment are relative to.
    pub current_folder: PathBuf,
}

/// A configuration file that has been read.
#[derive(Clone, Debug)]
pub(crate) struct File {
    /// As the user named it.
    pub name: String,
    /// Its absolute folder: what its paths are relative to.
    pub folder: PathBuf,
    /// Its contents.
    pub bytes: Vec<u8>,
}

#[cfg(test)]
mod tests;
