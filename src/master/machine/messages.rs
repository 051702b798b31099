//! What goes into the machine and what comes out of it: plain values, no behaviour.

use std::fmt;
use std::time::Duration;

use super::failure::{Death, Exit};
use super::notice::Notice;
use crate::master::children::Pid;
use crate::site::control::{Command, Outcome};
use crate::worker::Report;

/// What the machine is to keep up, from the configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// How many workers there are to be.
    pub slots: u32,
    /// How many processes there may be at once, those on their way out included: the room on the scoreboard.
    pub max_slots: u32,
    /// Whether the number of workers may be changed: in a process pool only.
    pub scalable: bool,
    /// The longest pause between attempts that end before a worker is ready.
    pub respawn_delay_max: Duration,
    /// How long a worker may take until it is ready.
    pub start_timeout: Duration,
    /// How long a worker may take to finish what it does.
    pub graceful_timeout: Duration,
    /// How long workers go on accepting once a stop began.
    pub accept_window: Duration,
    /// How often TLS is to be tended, where there is TLS.
    pub tls_period: Option<Duration>,
    /// Whether the master is in the foreground of a terminal, which sends WINCH whenever it is resized.
    pub on_terminal: bool,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// Everything is bound: fork.
    Start,
    /// A signal to the master.
    Signal(Signal),
    /// The answer to [`Action::Spawn`]: it forked.
    Spawned {
        /// The slot of the action.
        slot: u32,
        /// The new process.
        pid: Pid,
    },
    /// The answer to [`Action::Spawn`]: it could not fork.
    SpawnFailed {
        /// The slot of the action.
        slot: u32,
        /// Operation and cause, for the log.
        error: String,
    },
    /// A worker reported something.
    Reported {
        /// Its process.
        pid: Pid,
        /// What.
        report: Report,
    },
    /// A person asked for something over the control socket; answered by [`Action::Answer`] once it is known what became
    /// of it.
    Command {
        /// Names the question; no other has it.
        ticket: u64,
        /// What is asked for.
        command: Command,
    },
    /// A child was reaped. Pids that the machine did not spawn are nothing to it (orphans, as PID 1).
    Exited {
        /// The process that is no more.
        pid: Pid,
        /// How it ended.
        exit: Exit,
    },
    /// The instant of `next_deadline()` came. Last in a turn of the loop: after signals, reports and reaping, so that
    /// nobody is killed for being late whose report lies there unread. Too early is harmless.
    Deadline,
}

/// The signals to the master that the machine has an answer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// Stop gracefully.
    Term,
    /// Stop gracefully.
    Quit,
    /// Stop gracefully; said a second time, at once.
    Int,
    /// One worker more.
    Ttin,
    /// One worker fewer.
    Ttou,
    /// Retire all workers, keep master and listeners.
    Winch,
}

/// What the effects layer is to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Fork a worker; answer with [`Input::Spawned`] or [`Input::SpawnFailed`] before anything else of it is reported.
    Spawn {
        /// Where it is to live.
        slot: u32,
        /// What it is to be forked from.
        generation: u32,
    },
    /// Send a signal to a worker.
    Signal {
        /// Its process, which was not reaped yet.
        pid: Pid,
        /// Which signal.
        signal: WorkerSignal,
    },
    /// Let go of what brings new connections: clear `TCP_DEFER_ACCEPT`, unlink the socket file, close the listeners.
    /// Once, before every [`Action::Exit`].
    BeginStop,
    /// Change the keys of tickets, and say when the certificate is about to expire, or has.
    TendTls,
    /// Tell whoever asked what became of it; once for every [`Input::Command`].
    Answer {
        /// Of the question.
        ticket: u64,
        /// What became of it.
        outcome: Outcome,
    },
    /// Log a death, with the last request of the worker from the scoreboard.
    Explain(Death),
    /// Log anything else.
    Say(Notice),
    /// The end: no process is left, or none that can be ended.
    Exit {
        /// For the parent: 0 done, 1 a worker could not be ended, 3 no worker could boot.
        code: i32,
    },
}

/// What a worker is told by signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WorkerSignal {
    /// Drain and leave.
    Term,
    /// End now.
    Kill,
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Term => "TERM",
            Self::Quit => "QUIT",
            Self::Int => "INT",
            Self::Ttin => "TTIN",
            Self::Ttou => "TTOU",
            Self::Winch => "WINCH",
        })
    }
}
