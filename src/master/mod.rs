//! The master: supervises the workers, serves nobody. It waits for signals, reports and deaths, gives them to the
//! machine, and has the effects do what the machine decides. Knows no HTTP and opens no file of the site.

mod children;
mod effects;
mod machine;
mod reporter;
mod reporters;

use std::collections::VecDeque;
use std::io;

use crate::listen::tls;
use crate::sys;
use crate::sys::process::Ended;
use crate::sys::signal::Signal as Received;
use effects::Effects;
use machine::{Action, Exit, Input, Machine, Plan, Signal};

pub(crate) use effects::Setup;

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
    let mut machine = Machine::new(plan(&setup));
    let mut effects = Effects::new(setup, signals)?;
    let mut inputs = VecDeque::from([Input::Start]);
    let mut actions = Vec::new();
    let mut exit_code = None;
    loop {
        effects.tend_reporter();
        while let Some(input) = inputs.pop_front() {
            machine.handle(sys::clock::monotonic(), input, &mut actions);
            effects.tell(machine.pool());
            for action in actions.drain(..) {
                if let Action::Exit { code } = action {
                    exit_code = Some(code);
                }
                inputs.extend(effects.perform(action));
            }
            if let Some(code) = exit_code {
                effects.end_reporters();
                return Ok(code);
            }
        }
        effects.wait(machine.next_deadline())?;
        inputs.extend(effects.signals().into_iter().filter_map(signal));
        inputs.extend(effects.reports().into_iter().map(|(pid, report)| Input::Reported { pid, report }));
        inputs.extend(effects.commands().into_iter().map(|(ticket, command)| Input::Command { ticket, command }));
        while let Some((pid, ended)) = sys::process::reap() {
            if !effects.was_reporter(pid, ended) {
                effects.mark_dead(pid);
                inputs.push_back(Input::Exited { pid, exit: exit(ended) });
            }
        }
        if machine.next_deadline().is_some_and(|deadline| deadline <= sys::clock::monotonic()) {
            inputs.push_back(Input::Deadline);
        }
    }
}

fn plan(setup: &Setup) -> Plan {
    let supervisor = &setup.config.supervisor;
    Plan {
        slots: setup.layout.workers,
        max_slots: setup.max_slots(),
        scalable: setup.layout.scalable,
        respawn_delay_max: *supervisor.respawn_delay_max,
        start_timeout: *supervisor.start_timeout,
        graceful_timeout: *supervisor.graceful_timeout,
        accept_window: setup.accept_window(),
        tls_period: setup.entrance.tls.as_ref().map(|_| tls::TICKET_LIFETIME),
        on_terminal: io::IsTerminal::is_terminal(&io::stdin()),
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
        Received::SIGHUP | Received::SIGUSR1 | Received::SIGUSR2 => {
            let name = received.as_str().trim_start_matches("SIG");
            log::warn!("{name} ignored: this version cannot reload, reopen logs or upgrade; stop and start it instead");
            return None;
        }
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
