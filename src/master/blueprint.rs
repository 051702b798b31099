//! What workers of one generation are forked from, and what its configuration says of them. Decides nothing.

use std::io::{self, IsTerminal};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::machine::Plan;
use crate::config::{Config, Layout};
use crate::h1;
use crate::listen::tls::{self, Keys};
use crate::listen::{Entrance, Listener};
use crate::log::sink::Sink;
use crate::serve::{Settings, other_descriptors};
use crate::sys::privileges::Account;
use crate::sys::process;
use crate::worker::Factory;

/// A pool can be scaled up to so many workers, or to twice what it began with.
const ROOM_FOR_WORKERS: u32 = 64;

/// Workers accept at least so long once a stop began, to empty the queue of the listener.
const ACCEPT_WINDOW_MIN: Duration = Duration::from_millis(200);

/// All that is needed to fork workers for a site.
pub(crate) struct Blueprint {
    pub config: Config,
    /// What the mode takes.
    pub layout: Layout,
    pub listeners: Vec<Arc<Listener>>,
    pub entrance: Entrance,
    /// Of TLS tickets, since there was TLS for the first time.
    pub keys: Option<Keys>,
    /// Where balancers ask how the pool is, if anywhere.
    pub status_listeners: Vec<Arc<Listener>>,
    pub factory: Rc<Factory>,
    /// Whose the workers and the reporter are, unless they stay what the master is.
    pub account: Option<Account>,
    pub error_log: Sink,
    pub access_log: Sink,
}

impl Blueprint {
    /// How long a worker that is told to stop goes on accepting, unless its siblings do.
    pub fn accept_window(&self) -> Duration {
        self.config.supervisor.drain_delay.max(ACCEPT_WINDOW_MIN)
    }

    /// What the machine is to keep up.
    pub fn plan(&self) -> Plan {
        let supervisor = &self.config.supervisor;
        let Layout { workers, scalable, .. } = self.layout;
        Plan {
            slots: workers,
            max_slots: if scalable { ROOM_FOR_WORKERS.max(workers.saturating_mul(2)) } else { workers },
            scalable,
            respawn_delay_max: *supervisor.respawn_delay_max,
            start_timeout: *supervisor.start_timeout,
            graceful_timeout: *supervisor.graceful_timeout,
            accept_window: self.accept_window(),
            request_timeout: Some(*supervisor.request_timeout).filter(|timeout| !timeout.is_zero()),
            max_memory: Some(*supervisor.max_memory).filter(|most| *most > 0),
            tls_period: self.entrance.tls.as_ref().map(|_| tls::TICKET_LIFETIME),
            is_heir: false,
            is_init: process::pid() == 1,
            on_terminal: io::stdin().is_terminal(),
        }
    }

    /// In a child: its privileges end here.
    pub fn become_account(&self) -> io::Result<()> {
        let assumed = self.account.as_ref().map_or(Ok(()), Account::assume);
        assumed.map_err(|cause| io::Error::other(format!("it cannot become its user: {cause}")))
    }

    /// Whether all of its listeners are also of the other one.
    pub fn listens_within(&self, other: &Self) -> bool {
        self.listeners.iter().all(|listener| other.has(listener))
    }

    /// Whether it listens there.
    pub fn has(&self, listener: &Arc<Listener>) -> bool {
        self.listeners.iter().any(|own| Arc::ptr_eq(own, listener))
    }

    /// The settings of each loop, for workers that may have so many descriptors.
    pub fn settings(&self, descriptors: u64) -> Settings {
        let (limits, layout) = (&self.config.limits, &self.layout);
        let room = room_for_connections(descriptors, other_descriptors(layout.runner));
        let max_connections = (*limits.max_connections).min(room).div_ceil(layout.loops.max(1) as usize);
        Settings {
            limits: h1::Limits {
                max_uri: *limits.max_uri,
                max_header_bytes: *limits.max_header_bytes,
                max_headers: *limits.max_headers,
                max_body: *limits.max_body,
            },
            body_in_memory: *limits.body_in_memory,
            max_connections,
            header_timeout: *limits.header_timeout,
            body_timeout: *limits.body_timeout,
            write_timeout: *limits.write_timeout,
            keep_alive_timeout: *limits.keep_alive_timeout,
            request_timeout: *self.config.supervisor.request_timeout,
        }
    }
}

/// How many connections a worker with so many descriptors can have: it needs some for `others`, but where they are few,
/// most are for clients.
fn room_for_connections(descriptors: u64, others: u64) -> usize {
    let others = others.min(descriptors / 4);
    usize::try_from(descriptors - others).unwrap_or(usize::MAX)
}
