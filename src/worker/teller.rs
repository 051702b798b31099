//! What befalls the loops of a worker and its master must know, told once each. Knows the loops by their records.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use super::report::Report;
use crate::board::Record;
use crate::serve::Loop;
use crate::sys::{self, pipe};

/// After how many requests a worker is to be replaced.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lifetime {
    /// 0 is never.
    pub max_requests: u64,
    /// A number up to this is added, another in each worker.
    pub jitter: u64,
}

/// Shared by the loops of a worker.
pub(super) struct Teller {
    reports: OwnedFd,
    pid: i32,
    /// One of each loop.
    records: Vec<Record>,
    max_requests: Option<u64>,
    is_spent: AtomicBool,
    is_hung: AtomicBool,
}

impl Teller {
    pub fn new(reports: &OwnedFd, pid: i32, records: Vec<Record>, lifetime: Lifetime) -> io::Result<Self> {
        let (is_spent, is_hung) = (AtomicBool::new(false), AtomicBool::new(false));
        Ok(Self { reports: reports.try_clone()?, pid, records, max_requests: lifetime.draw(), is_spent, is_hung })
    }

    /// To be called by each loop after each turn.
    pub fn look_at(&self, serving: &Loop) {
        if serving.has_stuck_handler() && !self.is_hung.swap(true, Ordering::Relaxed) {
            self.tell(Report::Hung);
        }
        if self.has_answered_enough() && !self.is_spent.swap(true, Ordering::Relaxed) {
            self.tell(Report::Spent);
        }
    }

    fn has_answered_enough(&self) -> bool {
        let Some(most) = self.max_requests else { return false };
        !self.is_spent.load(Ordering::Relaxed) && self.records.iter().map(Record::served).sum::<u64>() >= most
    }

    /// Where that fails the master is gone, or it kills a worker of which it hears nothing.
    pub fn tell(&self, report: Report) {
        log::trace!("reporting {report:?}");
        if let Err(cause) = pipe::write(&self.reports, &report.write(self.pid)) {
            log::error!("cannot report {report:?} to the master: {cause}");
        }
    }
}

impl Lifetime {
    fn draw(self) -> Option<u64> {
        let Self { max_requests, jitter } = self;
        (max_requests > 0).then(|| max_requests + sys::random::below(jitter + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_without_a_limit_lives_for_ever_whatever_the_jitter() {
        assert_eq!(Lifetime { max_requests: 0, jitter: 99 }.draw(), None);
    }

    #[test]
    fn each_worker_has_a_limit_of_its_own_within_the_jitter() {
        assert_eq!(Lifetime { max_requests: 7, jitter: 0 }.draw(), Some(7));
        let drawn: Vec<_> = (0..100).filter_map(|_| Lifetime { max_requests: 1000, jitter: 500 }.draw()).collect();
        assert!(drawn.iter().all(|limit| (1000..=1500).contains(limit)), "{drawn:?}");
        assert!(drawn.iter().any(|limit| limit != &drawn[0]), "{drawn:?}");
    }
}
