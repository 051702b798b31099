//! Accepting: which connections this loop takes, and when it leaves them to its siblings.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use mio::Token;

use super::connection::Connection;
use super::gate::{Move, STUCK_AFTER};
use super::timers::Timer;
use super::transport::Transport;
use super::{FIRST_LISTENER, LOOK_AGAIN, Loop};
use crate::site::Client;
use crate::sys;

/// What is accepted in one turn at most, so that those who are here already are not kept waiting.
const ACCEPTS_PER_TURN: usize = 16;

impl Loop {
    /// Joins or leaves the listeners, as the gate says.
    pub(super) fn move_listeners(&mut self) -> io::Result<()> {
        self.note_busy();
        self.gate.full = !self.has_room();
        match self.gate.next_move(self.env.now) {
            None => Ok(()),
            Some(Move::Join) => self.join(),
            Some(Move::Leave) => self.leave_listeners(),
            Some(Move::Rejoin) => self.leave_listeners().and_then(|()| self.join()),
        }
    }

    fn note_busy(&mut self) {
        let busy = self.env.executor.is_busy();
        self.record.set_busy(busy);
        self.gate.busy = busy && self.a_sibling_is_free();
    }

    /// To be asked by a worker that has said itself that it is busy.
    fn a_sibling_is_free(&self) -> bool {
        self.board.mean_connections(self.env.now, STUCK_AFTER).is_some()
    }

    fn join(&self) -> io::Result<()> {
        self.listeners
            .iter()
            .enumerate()
            .try_for_each(|(n, listener)| sys::epoll::add_exclusive(&self.poll, listener.as_fd(), token(n)))
    }

    fn leave_listeners(&self) -> io::Result<()> {
        self.listeners.iter().try_for_each(|listener| sys::epoll::remove(&self.poll, listener.as_fd()))
    }

    /// Takes connections, unless others should; while draining, until the time is over and the queues are empty.
    pub(super) fn accept(&mut self) {
        let window_is_over = self.accept_until.is_some_and(|at| at <= self.env.now);
        if !self.acceptable && !window_is_over {
            return;
        }
        self.acceptable = false;
        let mut emptied = true;
        for listener in 0..self.listeners.len() {
            emptied &= self.accept_from(listener);
        }
        if window_is_over && emptied {
            self.close_listeners();
        } else if window_is_over {
            self.accept_until = Some(self.env.now + LOOK_AGAIN);
        }
    }

    /// Whether the listener's queue is empty now.
    fn accept_from(&mut self, listener: usize) -> bool {
        for _ in 0..ACCEPTS_PER_TURN {
            let welcome = self.gate.is_open() || self.accept_until.is_some();
            if !welcome || !self.has_room() {
                return false;
            }
            match sys::socket::accept(self.listeners[listener].as_fd()) {
                Ok((socket, address)) => self.welcome(socket, address.map_or(Client::Unix, Client::Ip)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if is_the_clients(&error) => {}
                Err(error) => {
                    self.starve(&error);
                    return false;
                }
            }
        }
        false
    }

    /// At the limit the connection that has been idle longest can go.
    pub(super) fn has_room(&self) -> bool {
        self.table.len() < self.max_connections || self.longest_idle().is_some()
    }

    fn longest_idle(&self) -> Option<usize> {
        self.timers.oldest(Timer::KeepAlive).or_else(|| self.timers.oldest(Timer::Drain))
    }

    fn cut_longest_idle(&mut self) {
        if let Some(index) = self.longest_idle() {
            self.cut(index);
        }
    }

    /// Gives a connection its place; at the limit the one that has been idle longest makes room for it.
    pub(super) fn admit(&mut self, connection: Connection) -> usize {
        if self.table.len() >= self.max_connections {
            self.cut_longest_idle();
        }
        if !connection.awaits_introduction {
            self.env.meet(connection.client);
        }
        let index = self.table.insert(connection);
        self.record.set_connections(self.table.len());
        index
    }

    fn welcome(&mut self, socket: OwnedFd, client: Client) {
        let mut connection = Connection::new(socket, Transport::Plain, client);
        if self.env.entrance.proxy_protocol {
            if !self.env.may_introduce(client) {
                return self.env.tell_turned_away(client, &"only those that `trusted` names may connect");
            }
            connection.awaits_introduction = true;
        } else if let Err(refusal) = connection.begin(&self.env.entrance) {
            return log::error!("{client}: cannot begin: {refusal}; closing the connection");
        }
        let index = self.admit(connection);
        let mean = self.board.mean_connections(self.env.now, STUCK_AFTER).filter(|mean| mean.loops > 1);
        self.gate.accepted(self.table.len(), mean, self.env.now);
        self.drive(index);
        // The next connection must not wait behind this one's request.
        self.note_busy();
    }

    /// The machine has no descriptor or no memory for another connection: those that wait, wait a little longer.
    fn starve(&mut self, cause: &io::Error) {
        if self.gate.starved(self.env.now) {
            log::error!(
                "cannot accept connections: {cause}; trying again ten times a second (open connections: {}; \
                 raise the limit of open files or lower maxConnections)",
                self.table.len()
            );
        }
        self.cut_longest_idle();
    }

    pub(super) fn close_listeners(&mut self) {
        self.gate.closed = true;
        self.record.close();
        // A closed listener goes on reporting while another process holds it, so it must be taken out first.
        if self.gate.next_move(self.env.now).is_some() {
            if let Err(cause) = self.leave_listeners() {
                log::error!("cannot leave a listener: {cause}");
            }
        }
        self.listeners.clear();
        if self.board.stayers() == 0 {
            // Nobody else will come for what waits there.
            self.take_all();
        }
    }
}

const fn token(listener: usize) -> Token {
    Token(FIRST_LISTENER - listener)
}

/// Whether a failed accept(2) says only that this client is gone.
fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionReset, HostUnreachable, Interrupted, NetworkDown, NetworkUnreachable,
        PermissionDenied, TimedOut,
    };
    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionReset
            | HostUnreachable
            | Interrupted
            | NetworkDown
            | NetworkUnreachable
            // A firewall forbids it (accept(2)).
            | PermissionDenied
            | TimedOut
    )
}
