//! What comes to the loop from those who run handlers: answers, chunks, and news of threads and processes.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

use super::Loop;
use super::connection::Phase;
use super::drive::Drive;
use super::executor::Executor;
use crate::site::{Delivery, ExchangeKey, Outbox};

impl Loop {
    /// Sees to what handlers posted.
    pub(super) fn take_deliveries(&mut self) {
        let mut deliveries = std::mem::take(&mut self.deliveries);
        self.env.outbox.collect(&mut deliveries);
        for delivery in deliveries.drain(..) {
            match delivery {
                Delivery::JobDone => {
                    self.env.executor.job_done();
                    self.handler_finished();
                }
                Delivery::Drain(window, patience) => self.drain(window, patience),
                Delivery::Response(key, response) => {
                    if let Some(mut drive) = self.find(key, Phase::Handling) {
                        drive.respond(response);
                        let outcome = drive.run();
                        self.settle(key.index, outcome);
                    }
                }
                Delivery::Chunk(key, chunks, chunk) => {
                    if let Some(mut drive) = self.find(key, Phase::Pulling) {
                        drive.take_chunk(chunks, chunk);
                        let outcome = drive.run();
                        self.settle(key.index, outcome);
                    }
                }
            }
        }
        self.deliveries = deliveries;
    }

    /// The connection whose exchange is at this point, unless it is gone.
    fn find(&mut self, key: ExchangeKey, phase: Phase) -> Option<Drive<'_>> {
        let connection = self.table.get_mut(key.index)?;
        let flight = connection.flight.as_deref()?;
        let is_it = flight.phase == phase && flight.underway.as_ref().is_some_and(|of| of.serial == key.serial);
        is_it.then(|| Drive::new(key.index, connection, &mut self.env))
    }

    /// Forks for requests that wait for a process of their own.
    pub(super) fn start_processes(&mut self) {
        let Self { env, table, listeners, poll, watched, .. } = self;
        if let Executor::Processes(processes) = &mut env.executor {
            processes.start(|| {
                let connections = table.iter().flat_map(|(_, connection)| connection.descriptors());
                let listeners = listeners.iter().map(|listener| listener.as_fd().as_raw_fd());
                let own = watched.iter().copied().chain([poll.as_raw_fd()]);
                connections.chain(listeners).chain(own).chain(env.access.descriptors()).collect()
            });
        }
    }

    /// Takes note of processes that have ended: SIGCHLD has come.
    pub fn reap(&mut self) {
        if let Executor::Processes(processes) = &mut self.env.executor {
            processes.reap();
        }
        self.take_deliveries();
        self.start_processes();
    }

    /// Where other threads leave what they have for this loop.
    pub fn outbox(&self) -> Arc<Outbox> {
        Arc::clone(&self.env.outbox)
    }
}
