//! What a person may ask of the master, and how it is asked: the words of the control socket.

use std::fmt;
use std::path::PathBuf;

/// Something for the master to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Read the configuration again and replace all workers.
    Reload,
    /// Stop: gracefully, or at once.
    Stop {
        /// Cut off what runs.
        now: bool,
    },
    /// Open the log files anew.
    Reopen,
    /// Let another master take over, of the binary on disk or of this one.
    Upgrade {
        /// The binary; where none is given, the one this master was started from.
        program: Option<PathBuf>,
    },
    /// Have so many workers.
    Scale {
        /// How many.
        workers: u32,
    },
}

/// What became of a command: what was done, or why not, in words for whoever asked.
pub(crate) type Outcome = Result<String, String>;

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reload => f.write_str("reload"),
            Self::Stop { now: false } => f.write_str("stop"),
            Self::Stop { now: true } => f.write_str("stop --now"),
            Self::Reopen => f.write_str("reopen"),
            Self::Upgrade { program: None } => f.write_str("upgrade"),
            Self::Upgrade { program: Some(program) } => write!(f, "upgrade {}", program.display()),
            Self::Scale { workers } => write!(f, "scale {workers}"),
        }
    }
}
