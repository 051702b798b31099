//! Loops of a worker beside its first: a thread each. They watch nothing by themselves; what the worker is told, it tells
//! them.

use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crate::board::Record;
use crate::serve::{Loop, Turn};
use crate::site::{Delivery, Outbox, guard};
use crate::sys::process;

/// The threads, and how to reach their loops.
pub(crate) struct Beside {
    threads: Vec<JoinHandle<()>>,
    outboxes: Vec<Arc<Outbox>>,
}

/// The exit code of a worker that lost a loop.
const FAILED: i32 = 1;

impl Beside {
    /// Starts a thread for each loop, where `look` is called after each turn.
    pub fn start(loops: Vec<(Loop, Record)>, look: impl Fn(&Loop) + Clone + Send + 'static) -> Result<Self, String> {
        let outboxes = loops.iter().map(|(serving, _)| serving.outbox()).collect();
        let start = |(serving, record)| {
            let look = look.clone();
            Builder::new().name("loop".into()).spawn(move || run(serving, record, look))
        };
        let threads = loops.into_iter().map(start).collect::<Result<_, _>>();
        Ok(Self { threads: threads.map_err(|why| format!("cannot start a loop's thread: {why}"))?, outboxes })
    }

    /// Has all of them drain, as [`Loop::drain`] says.
    pub fn drain(&self, window: Duration, patience: Option<Duration>) {
        for outbox in &self.outboxes {
            outbox.post(Delivery::Drain(window, patience));
        }
    }

    /// Whether none is left to wait for.
    pub fn has_finished(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Waits until all of them have drained.
    pub fn join(self) -> Result<(), String> {
        let ends = self.threads.into_iter().map(JoinHandle::join);
        ends.collect::<Result<_, _>>().map_err(|_| "a loop panicked".to_owned())
    }
}

/// A worker with a loop less would look well and serve badly: it ends, to be replaced.
fn run(mut serving: Loop, record: Record, look: impl Fn(&Loop)) {
    record.open(process::pid());
    let end = guard(|| {
        loop {
            let turn = serving.turn();
            look(&serving);
            match turn {
                Ok(Turn::Served | Turn::Watched) => {}
                Ok(Turn::Finished) => break Ok(()),
                Err(why) => break Err(why),
            }
        }
    });
    match end {
        Some(Ok(())) => serving.close_log(),
        Some(Err(why)) => {
            let why = format!("a loop cannot go on: {why}");
            record.set_reason(&why);
            log::error!("{why}");
            process::exit_now(FAILED);
        }
        // The panic hook has said why.
        None => process::exit_now(FAILED),
    }
}
