//! What a person may ask of the master, what comes of it, and how both are written between the master and the process
//! that speaks for it: short texts, each a message of its own.

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

/// No question is longer.
pub(crate) const QUESTION_BYTES: usize = 8 << 10;

/// Nothing that is told is longer.
pub(crate) const TOLD_BYTES: usize = 33 << 10;

/// An outcome in more words than these is cut.
const OUTCOME_BYTES: usize = 32 << 10;

/// `7 stop now`: a command, and the number by which its outcome finds whoever asked.
pub(crate) fn write_question(serial: u32, command: &Command) -> Vec<u8> {
    let words = match command {
        Command::Reload => "reload".to_owned(),
        Command::Stop { now: false } => "stop".to_owned(),
        Command::Stop { now: true } => "stop now".to_owned(),
        Command::Reopen => "reopen".to_owned(),
        Command::Upgrade { program: None } => "upgrade".to_owned(),
        Command::Upgrade { program: Some(path) } => format!("upgrade {}", path.display()),
        Command::Scale { workers } => format!("scale {workers}"),
    };
    format!("{serial} {words}").into_bytes()
}

/// What [`write_question`] wrote.
pub(crate) fn read_question(message: &[u8]) -> Option<(u32, Command)> {
    let (serial, words) = std::str::from_utf8(message).ok()?.split_once(' ')?;
    let command = match words.split_once(' ') {
        None if words == "reload" => Command::Reload,
        None if words == "stop" => Command::Stop { now: false },
        None if words == "reopen" => Command::Reopen,
        None if words == "upgrade" => Command::Upgrade { program: None },
        Some(("stop", "now")) => Command::Stop { now: true },
        Some(("upgrade", path)) => Command::Upgrade { program: Some(path.into()) },
        Some(("scale", workers)) => Command::Scale { workers: workers.parse().ok()? },
        Some(_) | None => return None,
    };
    Some((serial.parse().ok()?, command))
}

/// What the master tells the process that speaks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// The outcome of the question with this number.
    Outcome(u32, Outcome),
    /// Another process takes over: accept nothing more, and end when all is answered.
    Leave,
    /// The master is about to end: no outcome will come any more.
    End,
}

impl Told {
    /// `7 done WORDS`, `7 failed WORDS`, `leave` or `end`.
    pub fn write(&self) -> Vec<u8> {
        let text = match self {
            Self::Outcome(serial, Ok(done)) => format!("{serial} done {}", cut(done)),
            Self::Outcome(serial, Err(why)) => format!("{serial} failed {}", cut(why)),
            Self::Leave => "leave".to_owned(),
            Self::End => "end".to_owned(),
        };
        text.into_bytes()
    }

    /// What [`write`](Self::write) wrote.
    pub fn read(message: &[u8]) -> Option<Self> {
        match std::str::from_utf8(message).ok()? {
            "leave" => Some(Self::Leave),
            "end" => Some(Self::End),
            text => {
                let mut words = text.splitn(3, ' ');
                let serial = words.next()?.parse().ok()?;
                match (words.next()?, words.next()?.to_owned()) {
                    ("done", done) => Some(Self::Outcome(serial, Ok(done))),
                    ("failed", why) => Some(Self::Outcome(serial, Err(why))),
                    _ => None,
                }
            }
        }
    }
}

fn cut(words: &str) -> String {
    if words.len() <= OUTCOME_BYTES {
        return words.to_owned();
    }
    let end = (0..=OUTCOME_BYTES).rev().find(|&end| words.is_char_boundary(end)).unwrap_or(0);
    format!("{}\n… (cut here; the error log has the rest)", &words[..end])
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_read_as_it_was_written() {
        let program = |path: &str| Command::Upgrade { program: Some(path.into()) };
        for command in [
            Command::Reload,
            Command::Stop { now: false },
            Command::Stop { now: true },
            Command::Reopen,
            Command::Upgrade { program: None },
            program("/opt/a b/c\nd"),
            program(&format!("/{}", "x".repeat(4094))),
            Command::Scale { workers: 0 },
            Command::Scale { workers: u32::MAX },
        ] {
            let message = write_question(7, &command);
            assert!(message.len() <= QUESTION_BYTES);
            assert_eq!(read_question(&message), Some((7, command)));
        }
    }

    #[test]
    fn what_is_no_question_is_none() {
        for message in ["", "7", "7 ", "x reload", "-1 reload", "7 reload now", "7 stop later", "7 scale", "7 scale x"]
        {
            assert_eq!(read_question(message.as_bytes()), None, "{message}");
        }
        assert_eq!(read_question(b"7 upgrade /\xff"), None);
    }

    #[test]
    fn what_is_told_is_read_as_it_was_written() {
        let (done, why) = (Ok("2 workers serve".to_owned()), Err("a:1: x\n\nb:2: y".to_owned()));
        for told in [Told::Outcome(1, done), Told::Outcome(u32::MAX, why), Told::Leave, Told::End] {
            assert_eq!(Told::read(&told.write()), Some(told));
        }
        assert_eq!(Told::read(&Told::Outcome(3, Ok(String::new())).write()), Some(Told::Outcome(3, Ok(String::new()))));
        for message in ["", "leave ", "7", "7 done", "7 maybe x", "x done y"] {
            assert_eq!(Told::read(message.as_bytes()), None, "{message}");
        }
    }

    #[test]
    fn an_outcome_in_too_many_words_is_cut_between_two_characters() {
        let long = Told::Outcome(u32::MAX, Err("é".repeat(40_000)));
        let message = long.write();
        assert!(message.len() <= TOLD_BYTES, "{}", message.len());
        let Some(Told::Outcome(u32::MAX, Err(why))) = Told::read(&message) else { panic!("it can be read") };
        assert!(why.starts_with("éé") && why.ends_with("the error log has the rest)"));
    }
}
