//! Deaths in the log: who, how, why as far as anybody knows, and at what; and requests that are there whenever workers die.

mod offenders;

use std::fmt;
use std::time::Duration;

use self::offenders::Offenders;
use super::children::Life;
use super::machine::{Death, Exit};
use crate::board::Record;
use crate::sys;
use crate::sys::cgroup::OomKills;
use crate::sys::signal::Signal;

const OUT_OF_MEMORY: &str = "; the kernel killed it for want of memory (the OOM killer): raise the memory limit, have fewer \
                             workers, or set maxMemory, at which a worker is replaced before";
const FROM_OUTSIDE: &str = "; not by this master: somebody sent it KILL, or the machine ran out of memory (see dmesg)";

/// What is remembered from one death to the next.
pub(super) struct Deaths {
    oom_kills: Option<OomKills>,
    /// How many there were when we looked last.
    oom_kills_seen: u64,
    offenders: Offenders,
}

impl Deaths {
    pub fn new() -> Self {
        let oom_kills = OomKills::find();
        let oom_kills_seen = oom_kills.as_ref().and_then(OomKills::read).unwrap_or(0);
        Self { oom_kills, oom_kills_seen, offenders: Offenders::default() }
    }

    /// Logs a death, its reason if the worker could say it, and what it was doing.
    pub fn explain(&mut self, death: &Death, records: &[Record]) {
        let now = sys::clock::monotonic();
        let out_of_memory = is_killed_by_others(death) && self.has_run_out_of_memory();
        log::log!(death.level(), "{death}{}", Circumstances { death, records, now, out_of_memory });
        if is_failure(death) {
            for request in records.iter().flat_map(Record::running_requests) {
                if let Some(offence) = self.offenders.note(&request.request, now) {
                    log::error!("{offence}");
                }
            }
        }
    }

    /// Whether the kernel has killed one more than those that we know of.
    fn has_run_out_of_memory(&mut self) -> bool {
        let Some(kills) = self.oom_kills.as_ref().and_then(OomKills::read) else { return false };
        let more = kills > self.oom_kills_seen;
        // One each time: each has a death of its own.
        self.oom_kills_seen = if more { self.oom_kills_seen + 1 } else { kills };
        more
    }
}

fn is_killed(death: &Death) -> bool {
    death.exit == Exit::Signal(Signal::SIGKILL as i32)
}

/// Whether it was killed while this master had no reason to.
fn is_killed_by_others(death: &Death) -> bool {
    match death.life {
        Life::Booting | Life::Serving | Life::Draining => is_killed(death),
        Life::Overdue | Life::CutOff | Life::Hung | Life::Frozen | Life::Withdrawn => false,
    }
}

/// Whether what ran may be to blame.
fn is_failure(death: &Death) -> bool {
    match death.life {
        Life::Serving | Life::Hung => true,
        Life::Draining => !death.as_asked(),
        Life::Booting | Life::Overdue | Life::CutOff | Life::Frozen | Life::Withdrawn => false,
    }
}

/// What the scoreboard tells of a dead worker.
struct Circumstances<'a> {
    death: &'a Death,
    /// Of each of its loops.
    records: &'a [Record],
    now: Duration,
    /// The kernel killed a process of ours for want of memory since we looked last.
    out_of_memory: bool,
}

impl fmt::Display for Circumstances<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { death, records, .. } = self;
        if death.as_asked() {
            return write!(f, "; it answered {} requests", records.iter().map(Record::served).sum::<u64>());
        }
        // One that is killed had no time to say why; what it has said it said of something else.
        let had_a_say = !is_killed(death);
        if is_killed_by_others(death) {
            f.write_str(if self.out_of_memory { OUT_OF_MEMORY } else { FROM_OUTSIDE })?;
        }
        if let Some(words) = records.iter().find_map(Record::reason).filter(|_| had_a_say) {
            write!(f, "; its reason: {words}")?;
        }
        let count = records.iter().map(Record::running).sum::<u64>();
        let mut running: Vec<_> = records.iter().flat_map(Record::running_requests).collect();
        running.sort_by_key(|request| request.since);
        if let Some(last) = running.pop() {
            let age = |since: Duration| self.now.saturating_sub(since).as_secs_f64();
            write!(f, "; {count} requests were cut off, the last of them: {last} ({:.1} s)", age(last.since))?;
            for (n, request) in running.iter().rev().enumerate() {
                let joint = if n == 0 { ", before it:" } else { "," };
                write!(f, "{joint} {request} ({:.1} s)", age(request.since))?;
            }
            return Ok(());
        }
        match records.iter().find_map(Record::last_request) {
            Some(request) => write!(f, "; its last request, which it had answered: {request}"),
            None => Ok(()),
        }
    }
}
