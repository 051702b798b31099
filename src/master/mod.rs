//! The master: supervises the workers, serves nobody. It waits for signals, reports and deaths, gives them to the
//! machine, and has the effects do what the machine decides. Knows no HTTP and opens no file of the site.

mod blueprint;
mod children;
mod deaths;
mod effects;
mod estate;
mod machine;
mod reporter;
mod reporters;
mod reporting;
mod turnover;
mod workers;

use std::collections::VecDeque;
use std::io;

use crate::sys;
use crate::sys::process::{Change, Ended};
use crate::sys::signal::Signal as Received;
use effects::Effects;
use machine::{Action, Exit, Input, Machine, Signal};

pub(crate) use blueprint::Blueprint;
pub(crate) use effects::{Seat, Setup};
pub(crate) use estate::{Estate, Invocation};

/// Signals that the master or its workers answer to; TTIN and the like would otherwise end or stop the process.
const SIGNALS: [Received; 10] = [
    Received::SIGTERM,
    Received::SIGQUIT,
    Received::SIGINT,
    Received::SIGCHLD,
    Received::SIGHUP,
    Received::SIGUSR1,
    Received::SIGUSR2,
    Received::SIGTTIN,
    Received::SIGTTOU,
    Received::SIGWINCH,
];

/// Supervises until all is over, and says with which exit code.
pub(crate) fn run(setup: Setup) -> io::Result<i32> {
    let threads = sys::process::threads();
    if threads > 1 {
        // A forked worker would lack them, and hold for ever what locks they held.
        let why = format!("it has {threads} threads; start threads where the site is built, not before serve_app");
        return Err(io::Error::other(why));
    }
    sys::signal::ignore_write_failures()?;
    let signals = sys::signal::Signals::install(&SIGNALS)?;
    let mut effects = Effects::new(setup, signals)?;
    let mut machine = Machine::new(effects.plan());
    let mut inputs = VecDeque::from([Input::Start]);
    loop {
        effects.tend_reporter();
        if let Some(code) = decide(&mut machine, &mut effects, &mut inputs) {
            effects.end_reporters();
            return Ok(code);
        }
        effects.bury();
        effects.wait(machine.next_deadline())?;
        inputs.extend(effects.signals().into_iter().filter_map(signal));
        inputs.extend(effects.inputs());
        while let Some((pid, change)) = sys::process::next_change() {
            inputs.extend(changed(&mut effects, pid, change));
        }
        if machine.next_deadline().is_some_and(|deadline| deadline <= sys::clock::monotonic()) {
            inputs.push_back(Input::Deadline);
        }
    }
}

/// Has the machine decide on everything that has happened, and the effects do it. Returns the exit code at the end.
fn decide(machine: &mut Machine, effects: &mut Effects, inputs: &mut VecDeque<Input>) -> Option<i32> {
    let mut actions = Vec::new();
    while let Some(input) = inputs.pop_front() {
        machine.handle(sys::clock::monotonic(), input, &mut actions);
        // At the end, what was told before stands: it may be the next master's.
        if !actions.iter().any(|action| matches!(action, Action::Exit { .. })) {
            effects.tell(machine.pool());
        }
        let mut exit_code = None;
        for action in actions.drain(..) {
            if let Action::Exit { code } = action {
                exit_code = Some(code);
            }
            inputs.extend(effects.perform(action));
        }
        if exit_code.is_some() {
            return exit_code;
        }
    }
    None
}

/// What the machine must know of what befell a child.
fn changed(effects: &mut Effects, pid: i32, change: Change) -> Option<Input> {
    match change {
        Change::Ended(ended) if effects.was_reporter(pid, ended) => None,
        Change::Ended(ended) => Some(Input::Exited { pid, exit: exit(ended), work: effects.mark_dead(pid) }),
        Change::Stopped => Some(Input::Stopped { pid }),
        Change::Continued => Some(Input::Continued { pid }),
    }
}

/// What a signal means to the machine, if it means anything there. SIGCHLD has done its work by waking the loop.
fn signal(received: Received) -> Option<Input> {
    let signal = match received {
        Received::SIGTERM => Signal::Term,
        Received::SIGQUIT => Signal::Quit,
        Received::SIGINT => Signal::Int,
        Received::SIGTTIN => Signal::Ttin,
        Received::SIGTTOU => Signal::Ttou,
        Received::SIGWINCH => Signal::Winch,
        Received::SIGHUP => Signal::Hup,
        Received::SIGUSR1 => Signal::Usr1,
        Received::SIGUSR2 => Signal::Usr2,
        _ => return None,
    };
    Some(Input::Signal(signal))
}

fn exit(ended: Ended) -> Exit {
    match ended {
        Ended::Code(code) => Exit::Code(code),
        Ended::Signal(number) => Exit::Signal(number),
    }
}
