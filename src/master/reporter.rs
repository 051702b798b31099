//! The reporter: the process that speaks for the master, apart from all workers, so that it answers whatever becomes of
//! them. Load balancers ask it how the pool is, on statusPort; people give it commands, on the control socket, which it
//! passes to the master. The two are loops apart: nothing that comes through the network can reach a command.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use crate::board::{Board, Identity, Record};
use crate::config::{self, AccessFormat, LogTarget};
use crate::h1;
use crate::listen::{Entrance, Listener};
use crate::log;
use crate::log::access::AccessLog;
use crate::log::sink::Sink;
use crate::serve::{Loop, Parts, Runner, Settings, Turn};
use crate::site::Handler;
use crate::site::control::{Control, TOLD_BYTES, Told};
use crate::site::health::Health;
use crate::sys::message::{self, Patience};
use crate::sys::{process, signal};
use crate::worker::Beside;

/// Balancers and people need no more, and a site's `[limits]` are not for them.
const SETTINGS: Settings = Settings {
    limits: h1::Limits { max_uri: 1 << 10, max_header_bytes: 8 << 10, max_headers: 64, max_body: 64 << 10 },
    body_in_memory: 64 << 10,
    max_connections: 256,
    header_timeout: Duration::from_secs(10),
    body_timeout: Duration::from_secs(10),
    write_timeout: Duration::from_secs(10),
    keep_alive_timeout: Duration::from_secs(75),
    request_timeout: Duration::ZERO,
};

/// How long one that is to end still takes those that have connected already, and waits for what they ask.
const ACCEPT_WINDOW: Duration = Duration::from_millis(10);

/// The same where another takes its place and nobody waits for its end: a person's command that has connected may be slow to
/// ask on a busy machine.
const LEAVE_WINDOW: Duration = Duration::from_millis(500);

/// How long answers that are known may take to their clients once it is to leave.
const LAST_WORDS: Duration = Duration::from_millis(800);

/// The exit codes.
const DONE: i32 = 0;
const FAILED: i32 = 1;

/// What a reporter starts with.
pub(super) struct Start {
    /// For load balancers.
    pub status_listeners: Vec<Arc<Listener>>,
    /// For people.
    pub control_listener: Option<Arc<Listener>>,
    /// To the master.
    pub link: OwnedFd,
    pub board: Board,
    /// The master's pid.
    pub master: i32,
}

/// Runs from the fork to the end, which comes when the master says so or is gone. Signals come to nothing: a service
/// manager may send them to every process, and balancers must hear of a stop until it is over.
pub(super) fn run(start: Start) -> i32 {
    let named = process::set_name(c"regrow-reporter");
    let pid = process::pid();
    log::error::set_identity(format_args!("reporter pid={pid}"));
    log::error::limit_volume();
    let alive =
        named.and_then(|()| process::die_with_parent(Some(start.master))).and_then(|()| signal::ignore_in_child());
    match alive.map_err(|cause| cause.to_string()).and_then(|()| serve(start, pid)) {
        Ok(()) => DONE,
        Err(cause) => {
            ::log::error!("cannot answer on statusPort and controlSocket: {cause}");
            FAILED
        }
    }
}

fn serve(start: Start, pid: i32) -> Result<(), String> {
    let failed = |cause: io::Error| cause.to_string();
    let Start { status_listeners, control_listener, link, board, master } = start;
    let link = Arc::new(link);
    let to_master = Arc::clone(&link);
    let ask = move |question: &[u8]| message::send(&to_master, question, &[], Patience::DoNotWait);
    let control = Arc::new(Control::new(Health::new(board, master), Box::new(ask)));
    let status = if status_listeners.is_empty() {
        Vec::new()
    } else {
        vec![new_loop(status_listeners, Arc::new(Health::new(board, master)), pid).map_err(failed)?]
    };
    let (mut serving, record) =
        new_loop(control_listener.into_iter().collect(), Arc::clone(&control) as _, pid).map_err(failed)?;
    serving.watch(link.as_fd()).map_err(failed)?;
    let status = Beside::start(status, |_: &Loop| {})?;
    record.open(pid);
    loop {
        match serving.turn().map_err(failed)? {
            Turn::Served => {}
            Turn::Finished => break,
            Turn::Watched => {
                let (window, patience) = match hear(&link, &control).map_err(failed)? {
                    Wish::Stay => continue,
                    Wish::Leave => (LEAVE_WINDOW, None),
                    Wish::End => (ACCEPT_WINDOW, Some(LAST_WORDS)),
                };
                status.drain(ACCEPT_WINDOW, Some(LAST_WORDS));
                serving.drain(window, patience);
            }
        }
    }
    status.join()
}

/// What the master wants of its reporter.
enum Wish {
    Stay,
    /// To leave when the last command has its outcome.
    Leave,
    /// To leave at once.
    End,
}

/// Takes what the master has said.
fn hear(link: &OwnedFd, control: &Control) -> io::Result<Wish> {
    let mut wish = Wish::Stay;
    let mut buffer = vec![0; TOLD_BYTES];
    loop {
        let length = match message::receive(link, &mut buffer, Patience::DoNotWait) {
            Ok((0, _)) => return Err(io::Error::other("the master is gone")),
            Ok((length, _)) => length,
            Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => return Ok(wish),
            Err(cause) => return Err(cause),
        };
        match Told::read(&buffer[..length]) {
            Some(Told::Outcome(serial, outcome)) => control.answer(serial, outcome),
            Some(Told::Leave) => wish = Wish::Leave,
            Some(Told::End) => {
                control.end();
                wish = Wish::End;
            }
            None => return Err(io::Error::other("the master speaks otherwise")),
        }
    }
}

/// A loop and its record on a scoreboard of its own: to the workers it is no sibling. Its handler never blocks.
fn new_loop(listeners: Vec<Arc<Listener>>, handler: Arc<dyn Handler>, pid: i32) -> io::Result<(Loop, Record)> {
    const NO_THREADS: config::Runner = config::Runner::Pool(0);
    let board = Board::new(1)?;
    let record =
        board.claim(1).and_then(|records| records.first().copied()).ok_or_else(|| io::Error::other("no record"))?;
    let identity = Identity { worker: 0, generation: 1, pid };
    let off = Sink::open(&LogTarget::Off).map_err(io::Error::other)?;
    let parts = Parts {
        listeners,
        entrance: Entrance::default(),
        handover: None,
        shares_requests: false,
        runner: Runner::start(NO_THREADS, &handler)?,
        handler,
        access: AccessLog::new(off, AccessFormat::Combined, identity, None),
        board,
        record,
    };
    Ok((Loop::new(&SETTINGS, parts)?, record))
}
