//! What the effects do about reporters: fork them, hear them, replace them, and see them off.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use super::effects::{CANNOT_START, Effects};
use super::machine::WorkerSignal;
use super::reporter;
use super::reporters::{End, Reporters};
use crate::site::control::Command;
use crate::sys;
use crate::sys::message;
use crate::sys::pipe;
use crate::sys::process::{self, Ended};

impl Effects {
    /// What people have asked for, each with its ticket.
    pub fn commands(&mut self) -> Vec<(u64, Command)> {
        self.reporters.questions()
    }

    /// Sees to it that there is a reporter, where one is wanted.
    pub fn tend_reporter(&mut self) {
        let now = sys::clock::monotonic();
        if self.reporters.is_outdated() {
            self.reporters.replace(now);
        }
        if !self.wants_reporter() || !self.reporters.is_due(now) {
            return;
        }
        let forked = message::pair().and_then(|(own, other)| {
            let pid = process::fork_child(|| self.run_reporter(other))?;
            Ok((pid, own))
        });
        match forked {
            Ok((pid, own)) => self.reporters.forked(pid, own, now),
            Err(cause) if self.reporters.not_forked(now) => {
                ::log::error!("cannot fork the reporter: {cause}; until it can, statusPort and controlSocket are mute");
            }
            Err(_) => {}
        }
    }

    pub(super) fn wants_reporter(&self) -> bool {
        let has_listener = self.seat.control_listener.is_some() || !self.blueprint.status_listeners.is_empty();
        has_listener && self.predecessor.is_none() && !self.handed_over
    }

    /// Puts another reporter in the place of the present one, with the listeners and the scoreboard there are now. The
    /// one before answers what it was asked, and leaves.
    pub fn replace_reporter(&mut self) {
        self.reporters.replace(sys::clock::monotonic());
        self.tend_reporter();
    }

    /// The end: outcomes reach whoever waits for them, nobody answers for a master that is gone, and its port is free
    /// for the next one.
    pub fn end_reporters(&mut self) {
        const TO_LEAVE: Duration = Duration::from_secs(1);
        self.reporters.end();
        let reporters = self.reporters.pids();
        let stayed = self.reap(reporters, TO_LEAVE);
        for &pid in &stayed {
            self.send(pid, WorkerSignal::Kill);
        }
        for pid in self.reap(stayed, TO_LEAVE) {
            ::log::error!("the reporter pid={pid} does not end; its port is taken until it does");
        }
    }

    /// Waits until these children have ended. Returns those that have not within `patience`.
    fn reap(&self, mut pids: Vec<i32>, patience: Duration) -> Vec<i32> {
        let deadline = sys::clock::monotonic() + patience;
        loop {
            pids.retain(|&pid| process::reap_child(pid).is_none());
            let left = deadline.saturating_sub(sys::clock::monotonic());
            if pids.is_empty() || left.is_zero() {
                return pids;
            }
            // Each end comes with a SIGCHLD; what other signals say is too late.
            if pipe::wait(&[self.signals.as_fd()], &[], Some(left)).is_err() {
                return pids;
            }
            self.signals.take();
        }
    }

    /// In the child, which is given its end of the link.
    fn run_reporter(&mut self, link: OwnedFd) -> i32 {
        self.workers.clear();
        self.reporters = Reporters::default();
        self.seat.pid_file = None;
        // A queue that it held would have clients wait for nobody.
        self.blueprint.listeners.clear();
        (self.coming, self.handover, self.heir, self.predecessor) = (None, None, None, None);
        if let Err(cause) = self.blueprint.become_account() {
            ::log::error!("the reporter cannot start: {cause}");
            return CANNOT_START;
        }
        reporter::run(reporter::Start {
            status_listeners: std::mem::take(&mut self.blueprint.status_listeners),
            control_listener: self.seat.control_listener.take(),
            link,
            board: self.board,
            master: self.pid,
        })
    }

    /// Whether the child that has ended was a reporter.
    pub fn was_reporter(&mut self, pid: i32, ended: Ended) -> bool {
        let end = self.reporters.ended(pid, sys::clock::monotonic());
        match end {
            Some(End::News) => ::log::warn!("the reporter pid={pid} ended with {ended}; replacing it"),
            Some(End::Known | End::Asked) => ::log::debug!("the reporter pid={pid} ended with {ended}"),
            None => {}
        }
        end.is_some()
    }
}
