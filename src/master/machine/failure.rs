//! Deaths and failed forks, how they are told, and how many of them are told: a crash loop must not fill the disk.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use log::Level;

use super::notice::Notice;
use crate::board::Identity;
use crate::master::children::Life;

/// So many failures are told one by one within any [`WINDOW`]; the others are counted.
pub(crate) const SHOWN_MAX: usize = 10;

/// How long counted failures wait to be summed up.
pub(crate) const WINDOW: Duration = Duration::from_secs(10);

/// How a process ended (wait(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

/// The end of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Death {
    /// Who died.
    pub worker: Identity,
    /// How.
    pub exit: Exit,
    /// In which part of its life.
    pub life: Life,
}

/// A slot without the worker that it should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It died.
    Died(Death),
    /// It could not be forked.
    NotForked {
        /// For which slot.
        slot: u32,
        /// Operation and cause.
        error: String,
    },
}

/// Decides which failures are told and which are only counted.
#[derive(Debug, Default)]
pub(crate) struct Volume {
    /// When the latest failures were told; at most [`SHOWN_MAX`].
    shown: VecDeque<Duration>,
    withheld: Option<Withheld>,
}

#[derive(Debug)]
struct Withheld {
    count: u64,
    last: Failure,
    deadline: Duration,
}

impl Volume {
    /// True when this failure is to be told; otherwise it is counted.
    pub fn admit(&mut self, now: Duration, failure: &Failure) -> bool {
        let outdated = |told: &Duration| now.saturating_sub(*told) >= WINDOW;
        if self.shown.len() >= SHOWN_MAX && !self.shown.front().is_some_and(outdated) {
            self.withhold(now, failure.clone());
            return false;
        }
        if self.shown.len() >= SHOWN_MAX {
            self.shown.pop_front();
        }
        self.shown.push_back(now);
        true
    }

    /// When the counted ones are to be summed up.
    pub fn deadline(&self) -> Option<Duration> {
        self.withheld.as_ref().map(|withheld| withheld.deadline)
    }

    /// The sum of those counted since the last sum, if any.
    pub fn sum_up(&mut self) -> Option<Notice> {
        let Withheld { count, last, .. } = self.withheld.take()?;
        Some(Notice::Withheld { count, last })
    }

    fn withhold(&mut self, now: Duration, failure: Failure) {
        let deadline = now.saturating_add(WINDOW);
        match &mut self.withheld {
            Some(withheld) => {
                withheld.count += 1;
                withheld.last = failure;
            }
            none @ None => *none = Some(Withheld { count: 1, last: failure, deadline }),
        }
    }
}

impl Death {
    /// It did as it was told: this is an answer to our signal, not a failure. Code 0 counts even when our KILL was on its
    /// way; TERM counts because it may come before the worker is able to catch it.
    pub fn as_asked(&self) -> bool {
        const TERM: i32 = 15;
        match self.life {
            Life::Draining => matches!(self.exit, Exit::Code(0) | Exit::Signal(TERM)),
            Life::CutOff => self.exit == Exit::Code(0),
            Life::Withdrawn => true,
            Life::Booting | Life::Overdue | Life::Serving | Life::Hung | Life::Frozen => false,
        }
    }

    /// How loud to tell it.
    pub fn level(&self) -> Level {
        match self.life {
            Life::Draining | Life::CutOff if self.as_asked() => Level::Info,
            Life::Withdrawn => Level::Info,
            Life::CutOff => Level::Warn,
            Life::Booting | Life::Overdue | Life::Serving | Life::Draining | Life::Hung | Life::Frozen => Level::Error,
        }
    }
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match self.life {
            Life::Draining | Life::CutOff if self.as_asked() => "drained as asked",
            Life::Booting => "died before it was ready",
            Life::Overdue => "was killed, because it was not ready within startTimeout",
            Life::Serving => "died while serving",
            Life::Draining => "died after it was asked to drain",
            Life::Withdrawn => "was withdrawn before it was ready",
            Life::Hung => "was killed, because its loop had not come round within requestTimeout",
            Life::Frozen => "was killed, because a signal had stopped it and it did not go on within requestTimeout",
            Life::CutOff => "was cut off, because it had not left within gracefulTimeout or all are to stop at once",
        };
        write!(f, "{} {how}: {}", self.worker, self.exit)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Died(death) => death.fmt(f),
            Self::NotForked { slot, error } => write!(f, "worker={slot} could not be forked: {error}"),
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(number) => match signal_name(number) {
                Some(name) => write!(f, "signal {number} ({name})"),
                None => write!(f, "signal {number}"),
            },
        }
    }
}

/// Only those whose number is the same everywhere (signal(7), "Signal numbering for standard signals").
fn signal_name(number: i32) -> Option<&'static str> {
    Some(match number {
        1 => "HUP",
        2 => "INT",
        3 => "QUIT",
        4 => "ILL",
        5 => "TRAP",
        6 => "ABRT",
        8 => "FPE",
        9 => "KILL",
        11 => "SEGV",
        13 => "PIPE",
        14 => "ALRM",
        15 => "TERM",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn death(life: Life, exit: Exit) -> Death {
        Death { worker: Identity { worker: 2, generation: 3, pid: 4711 }, exit, life }
    }

    fn admitted(volume: &mut Volume, now_ms: u64, times: usize) -> usize {
        let failure = Failure::Died(death(Life::Serving, Exit::Signal(11)));
        (0..times).filter(|_| volume.admit(Duration::from_millis(now_ms), &failure)).count()
    }

    #[test]
    fn ten_are_told_in_any_ten_seconds_wherever_they_begin() {
        let mut volume = Volume::default();
        assert_eq!(admitted(&mut volume, 0, 1), 1);
        assert_eq!(admitted(&mut volume, 9_900, 20), 9);
        assert_eq!(admitted(&mut volume, 10_100, 20), 1, "only the first one is older than the window");
        assert_eq!(admitted(&mut volume, 19_900, 20), 9);
    }

    #[test]
    fn the_rest_is_summed_up_once_with_the_last_of_them() {
        let mut volume = Volume::default();
        admitted(&mut volume, 0, 10);
        assert_eq!((volume.deadline(), volume.sum_up()), (None, None));
        admitted(&mut volume, 1_000, 3);
        admitted(&mut volume, 2_000, 4);
        assert_eq!(volume.deadline(), Some(Duration::from_secs(11)));
        let sum = volume.sum_up().unwrap().to_string();
        assert!(sum.starts_with("7 more failures") && sum.contains("pid=4711 died while serving"), "{sum}");
        assert_eq!((volume.deadline(), volume.sum_up()), (None, None));
    }

    #[test]
    fn leaving_as_asked_is_no_failure() {
        assert!(death(Life::Draining, Exit::Code(0)).as_asked());
        assert!(death(Life::Draining, Exit::Signal(15)).as_asked());
        assert!(death(Life::CutOff, Exit::Code(0)).as_asked());
        assert!(!death(Life::Draining, Exit::Signal(11)).as_asked());
        assert!(!death(Life::CutOff, Exit::Signal(9)).as_asked());
        assert!(!death(Life::Serving, Exit::Code(0)).as_asked());
    }

    #[test]
    fn a_death_says_who_when_and_how() {
        let said = death(Life::Serving, Exit::Signal(11)).to_string();
        assert_eq!(said, "worker=2 gen=3 pid=4711 died while serving: signal 11 (SEGV)");
        let said = death(Life::Booting, Exit::Code(101)).to_string();
        assert_eq!(said, "worker=2 gen=3 pid=4711 died before it was ready: exit code 101");
        assert_eq!(Exit::Signal(34).to_string(), "signal 34");
    }
}
