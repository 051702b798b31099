//! Requests whose time is over: their clients are answered in place of the handler, and whoever answers later finds
//! nobody. Knows no process; that a thread is stuck which only ends with its process, the loop's owner is told.

use std::time::Duration;

use http::StatusCode;

use super::Loop;
use super::connection::{Flight, Phase};
use super::drive::Drive;
use super::executor::Running;
use crate::site::ExchangeKey;

/// A loop that looks so much later than it meant to was not run meanwhile, nor were the handlers: the machine or the
/// process was held up.
const HELD_UP: Duration = Duration::from_secs(2);

impl Loop {
    /// Whether a handler was given up that goes on running.
    pub fn has_stuck_handler(&self) -> bool {
        self.has_stuck_handler
    }

    /// Gives up what has run for too long beside the loop.
    pub(super) fn end_overdue(&mut self) {
        let (now, timeout) = (self.env.now, self.env.request_timeout);
        let Some(look_at) = self.env.look_at_jobs.filter(|at| *at <= now) else { return };
        if now.saturating_sub(look_at) > HELD_UP {
            self.env.look_at_jobs = Some(now + timeout);
            return;
        }
        while let Some(given_up) = self.env.executor.give_up(now.saturating_sub(timeout), now) {
            self.give_up(given_up);
        }
        self.env.look_at_jobs = self.env.executor.oldest(now).map(|since| since + timeout);
    }

    fn give_up(&mut self, job: Running) {
        let flight = self.flight_of(job.key);
        let found = flight.and_then(|flight| Some((flight.phase, flight.underway.as_ref()?.asked())));
        let (phase, asked) = found.map_or((None, job.asked), |(phase, asked)| (Some(phase), Some(asked)));
        let client = match phase {
            Some(Phase::Handling) => "answering 504",
            Some(Phase::Pulling) => "cutting the response off",
            Some(Phase::Receiving | Phase::Sending) => "its answer goes on",
            None => "its client is gone or has its answer",
        };
        let handler = if self.env.executor.forks() {
            "its process is killed"
        } else {
            "its thread ends only with the worker, which is to be replaced"
        };
        let asked = asked.as_deref().unwrap_or("a request");
        let age = self.env.now.saturating_sub(job.since).as_secs_f64();
        log::error!("{asked}: the handler has run for {age:.1} s, beyond requestTimeout; {client}; {handler}");
        self.has_stuck_handler |= !self.env.executor.forks();
        match phase {
            Some(Phase::Handling) => self.answer_for_handler(job.key.index),
            Some(Phase::Pulling) => self.cut(job.key.index),
            Some(Phase::Receiving | Phase::Sending) | None => {}
        }
    }

    /// The handler has returned, and nobody has answered since.
    pub(super) fn time_out_answer(&mut self, index: usize) {
        let flight = self.table.get(index).and_then(|connection| connection.flight.as_deref());
        if let Some(underway) = flight.and_then(|flight| flight.underway.as_ref()) {
            let age = self.env.now.saturating_sub(underway.started).as_secs_f64();
            log::error!(
                "{}: the handler has returned, but after {age:.1} s, beyond requestTimeout, nobody has answered; \
                 answering 504",
                underway.asked()
            );
            self.answer_for_handler(index);
        }
    }

    fn answer_for_handler(&mut self, index: usize) {
        let Some(connection) = self.table.get_mut(index) else { return };
        let mut drive = Drive::new(index, connection, &mut self.env);
        drive.answer_for_handler(StatusCode::GATEWAY_TIMEOUT);
        let outcome = drive.run();
        self.settle(index, outcome);
    }

    /// What is under way on the connection of an exchange, unless that is another by now.
    pub(super) fn flight_of(&mut self, key: ExchangeKey) -> Option<&mut Flight> {
        let flight = self.table.get_mut(key.index)?.flight.as_deref_mut()?;
        let is_it = flight.underway.as_ref().is_some_and(|of| of.serial == key.serial);
        is_it.then_some(flight)
    }
}
