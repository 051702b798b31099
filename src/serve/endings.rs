//! How connections end when nobody closes them in order: their time is over, or what the client still sends is in the way.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use http::StatusCode;

use super::Loop;
use super::drive::Drive;
use super::timers::Timer;
use crate::sys;

/// How long a client is listened to after its last answer, so that it hears the end before the connection goes.
pub(super) const LINGER_TIMEOUT: Duration = Duration::from_secs(2);

impl Loop {
    pub(super) fn expire_timers(&mut self) {
        while let Some((index, timer)) = self.timers.expired(self.env.now) {
            match timer {
                Timer::Header | Timer::Body => self.time_out(index),
                Timer::Write => self.time_out_write(index),
                Timer::Linger => self.end_lingering(index),
                Timer::Answer => self.time_out_answer(index),
                Timer::KeepAlive | Timer::Drain => self.cut(index),
            }
        }
    }

    /// A client that is still taking the last answer gets the time of one that is being sent to, and no more.
    fn end_lingering(&mut self, index: usize) {
        let Some(connection) = self.table.get_mut(index) else { return };
        match sys::socket::untaken(connection.socket.as_fd()) {
            Ok(1..) => self.timers.set(index, Timer::Write, self.env.now),
            Ok(_) | Err(_) => self.cut(index),
        }
    }

    /// Nothing more could be sent for so long. A slow client may yet be taking what the socket holds, which epoll does
    /// not tell until a good part of it is gone, so it is cut only when it has taken nothing since the last look.
    fn time_out_write(&mut self, index: usize) {
        let Some(connection) = self.table.get_mut(index) else { return };
        let Some(flight) = connection.flight.as_deref_mut() else { return self.cut(index) };
        let untaken = sys::socket::untaken(connection.socket.as_fd()).ok();
        if untaken.is_none() || std::mem::replace(&mut flight.untaken, untaken) == untaken {
            self.cut(index);
        } else {
            self.timers.set(index, Timer::Write, self.env.now);
        }
    }

    /// A request did not come in time: 408, unless nothing of it came at all (RFC 9110 section 15.5.9).
    fn time_out(&mut self, index: usize) {
        let Some(connection) = self.table.get_mut(index) else { return };
        if connection.flight.is_none() {
            return self.cut(index);
        }
        let mut drive = Drive::new(index, connection, &mut self.env);
        drive.refuse(StatusCode::REQUEST_TIMEOUT);
        let outcome = drive.run();
        self.settle(index, outcome);
    }

    pub(super) fn begin_to_linger(&mut self, index: usize) {
        let Some(connection) = self.table.get_mut(index) else { return };
        sys::socket::end_sending(connection.socket.as_fd());
        connection.lingering = true;
        self.timers.set(index, Timer::Linger, self.env.now);
        self.watch_connection(index);
        self.linger(index);
    }

    /// Throws away what a client still sends, a buffer full each time.
    pub(super) fn linger(&mut self, index: usize) {
        let Some(connection) = self.table.get_mut(index) else { return };
        match sys::socket::receive(connection.socket.as_fd(), &mut self.env.buffer) {
            Ok(1..) => self.queue(index),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(0) | Err(_) => self.close(index),
        }
    }
}
