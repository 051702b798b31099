//! What goes into the machine and what comes out of it: plain values, no behaviour.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::failure::{Death, Exit};
use super::notice::Notice;
use crate::master::children::Pid;
use crate::site::control::{Command, Outcome};
use crate::worker::Report;

/// What the machine is to keep up, from the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// How long a loop may take to come round, or a worker stand still, where that is limited.
    pub request_timeout: Option<Duration>,
    /// How many bytes of memory a worker may have, where that is limited.
    pub max_memory: Option<u64>,
    /// How often TLS is to be tended, where there is TLS.
    pub tls_period: Option<Duration>,
    /// Whether another master waits for this one to take over: it does so once all its workers serve, or not at all.
    pub is_heir: bool,
    /// Whether the master is process 1, whose end would be that of all others.
    pub is_init: bool,
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
        /// The generation of the action.
        generation: u32,
        /// The new process.
        pid: Pid,
    },
    /// The answer to [`Action::Spawn`]: it could not fork.
    SpawnFailed {
        /// The slot of the action.
        slot: u32,
        /// The generation of the action.
        generation: u32,
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
        /// What it had done.
        work: Work,
    },
    /// A signal has stopped a child (SIGSTOP, SIGTSTP).
    Stopped {
        /// Its process.
        pid: Pid,
    },
    /// A child that was stopped goes on (SIGCONT).
    Continued {
        /// Its process.
        pid: Pid,
    },
    /// The answer to [`Action::Observe`].
    Observed(Vec<Observed>),
    /// The answer to [`Action::Prepare`]: workers of this generation can be forked.
    Prepared {
        /// Of the action.
        generation: u32,
        /// What its configuration says.
        plan: Plan,
    },
    /// The answer to [`Action::Prepare`]: there is something wrong with the configuration, or around it.
    NotPrepared {
        /// Of the action.
        generation: u32,
        /// All of it.
        error: String,
    },
    /// The answer to [`Action::Upgrade`]: the new master runs, and boots its workers.
    HeirStarted {
        /// Its process.
        pid: Pid,
    },
    /// The answer to [`Action::Upgrade`]: there is no new master.
    HeirNotStarted {
        /// Operation, object and cause.
        error: String,
    },
    /// The new master has all its workers, and waits for this one to let go.
    HeirReady,
    /// The instant of `next_deadline()` came. Last in a turn of the loop: after signals, reports and reaping, so that
    /// nobody is killed for being late whose report lies there unread. Too early is harmless.
    Deadline,
}

/// What a worker has done in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Work {
    /// Requests that it answered.
    pub answered: u64,
    /// Requests that it had begun and will not answer.
    pub cut_off: u64,
}

/// What the scoreboard and the kernel say of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Observed {
    /// Its process.
    pub pid: Pid,
    /// Since when one of its loops has not come round; none where all wait for events.
    pub turn_since: Option<Duration>,
    /// How many bytes of memory it has, where that is limited.
    pub memory: Option<u64>,
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
    /// Read the configuration again and replace all workers.
    Hup,
    /// Open the log files anew.
    Usr1,
    /// Let a new master take over.
    Usr2,
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
    /// Read the configuration again and open what it says, beside what there is; answer with [`Input::Prepared`] or
    /// [`Input::NotPrepared`].
    Prepare {
        /// The number of the generation that would be forked from it.
        generation: u32,
    },
    /// What was prepared is in force. What only the generation before it had is let go of.
    Commit,
    /// What was prepared is not to be. What only it had is let go of.
    Abandon,
    /// Start a new master with everything that this one listens on; answer with [`Input::HeirStarted`] or
    /// [`Input::HeirNotStarted`], and, as long as it lives, with [`Input::HeirReady`] when it is.
    Upgrade {
        /// Its binary; where none is given, that of this master.
        program: Option<PathBuf>,
    },
    /// Everything is the new master's: let go of it without a trace. Instead of [`Action::BeginStop`].
    HandOver,
    /// Tell the master that waits that this one has all its workers, and take over what it lets go of.
    TakeOver,
    /// Open the log files anew, here and in all workers; tell whoever asked what became of it.
    Reopen {
        /// Of the question, where it was no signal.
        ticket: Option<u64>,
    },
    /// Look at all workers; answer with [`Input::Observed`].
    Observe,
    /// Let go of what brings new connections: clear `TCP_DEFER_ACCEPT`, unlink the socket file, close the listeners.
    /// Once, before every [`Action::Exit`], unless all was handed over.
    BeginStop,
    /// Change the keys of tickets, and say when the certificate is about to expire, or has.
    TendTls,
    /// Tell whoever asked what became of it; once for every [`Input::Command`] but [`Command::Reopen`].
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
            Self::Hup => "HUP",
            Self::Usr1 => "USR1",
            Self::Usr2 => "USR2",
        })
    }
}
