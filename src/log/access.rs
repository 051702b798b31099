//! The access log: one line per answered request, gathered into batches.
//!
//! Nothing that a client sends can end a line, drive a terminal or make a line longer than [`LINE_MAX`]. It knows
//! neither connections nor when to flush; the forms of a line are in `combined` and `json`, the names of clients in
//! `naming`.

mod combined;
mod json;
mod names;
mod naming;
mod resolver;

use std::net::IpAddr;
use std::os::fd::RawFd;
use std::time::{Duration, SystemTime};

use http::Version;

use super::LINE_MAX;
use super::sink::Sink;
use super::stamp::DateCache;
use crate::board::Identity;
use crate::config::AccessFormat;
use naming::Naming;

pub(crate) use resolver::Resolver;

/// Lost lines are told at most this often.
const LOSS_INTERVAL: Duration = Duration::from_secs(10);

/// The most bytes that a field takes in a line, escaped: together, with all the rest, they stay within [`LINE_MAX`].
const METHOD_MAX: usize = 32;
const TARGET_MAX: usize = 2048;
const REFERER_MAX: usize = 896;
const USER_AGENT_MAX: usize = 512;

/// Ends a field that was cut; ASCII, as the combined format is.
const ELLIPSIS: &str = "...";

/// What is said of one request.
#[derive(Debug, Clone)]
pub(crate) struct Entry<'a> {
    /// None for a Unix domain socket.
    pub client: Option<IpAddr>,
    /// When it was answered, by the wall clock.
    pub time: SystemTime,
    pub method: &'a str,
    /// The request target as it came.
    pub target: &'a [u8],
    /// None when the request could not be parsed: then method and target are not shown.
    pub version: Option<Version>,
    pub status: u16,
    /// The bytes of the body that were sent.
    pub body_bytes: u64,
    pub referer: Option<&'a [u8]>,
    pub(crate) user_agent: Option<&'a [u8]>,
    /// From the first byte of the request to the last of the response.
    pub duration: Duration,
}

/// The access log of one loop.
#[derive(Debug)]
pub(crate) struct AccessLog {
    sink: Sink,
    format: AccessFormat,
    identity: Identity,
    dates: DateCache,
    /// None where clients are shown by their addresses.
    naming: Option<Naming>,
    /// Whole lines that are not written yet, less than twice [`LINE_MAX`] bytes and those that a name has just released.
    batch: Vec<u8>,
    /// Of the lost lines, those that the error log has told of.
    reported: u64,
    next_report: Duration,
}

impl AccessLog {
    /// With a resolver, clients are shown by their host names.
    pub fn new(sink: Sink, format: AccessFormat, identity: Identity, resolver: Option<Resolver>) -> Self {
        let dates = DateCache::new();
        let naming = resolver.map(|resolver| Naming::new(resolver, format));
        Self { sink, format, identity, dates, naming, batch: Vec::new(), reported: 0, next_report: Duration::ZERO }
    }

    /// Looks a client's name up, where clients are named, so that it is there by the time of its first line.
    ///
    /// `now` is monotonic, here and below.
    pub fn meet(&mut self, client: IpAddr, now: Duration) {
        if let Some(naming) = &mut self.naming {
            naming.meet(client, now, &mut self.batch);
        }
    }

    /// Adds a line to the batch, or keeps it until the name of its client is known. When the batch
    /// [is full](Self::is_full), it is to be flushed.
    pub fn record(&mut self, entry: &Entry<'_>, now: Duration) {
        if self.sink.is_off() {
            return;
        }
        if let Some(client) = entry.client {
            self.meet(client, now);
        }
        let start = self.batch.len();
        match self.format {
            AccessFormat::Combined => combined::push_line(&mut self.batch, entry, self.dates.combined(entry.time)),
            AccessFormat::Json => json::push_line(&mut self.batch, entry, &self.dates.iso(entry.time), self.identity),
        }
        if let Some(naming) = &mut self.naming {
            naming.finish_line(entry.client, now, &mut self.batch, start);
        }
    }

    /// What the loop uses that a process which it forks is not to hold.
    pub fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        self.naming.iter().flat_map(Naming::descriptors)
    }

    /// True when there is enough for a write.
    pub fn is_full(&self) -> bool {
        self.batch.len() >= LINE_MAX
    }

    /// True when nothing waits to be written, or for a name.
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty() && !self.naming.as_ref().is_some_and(Naming::is_holding)
    }

    /// Writes the batch at once or loses it; tells the error log of lost lines, at most every ten seconds. Lines that
    /// wait for a name stay, until their time has come.
    pub fn flush(&mut self, now: Duration) {
        if let Some(naming) = self.naming.as_mut().filter(|naming| naming.is_holding()) {
            naming.release(now, &mut self.batch);
        }
        self.sink.write(&self.batch);
        self.batch.clear();
        if let Some(lost) = self.loss_to_report(now) {
            let reason = self.sink.loss_reason();
            ::log::warn!("access log: lost {lost} lines: {reason} (requests are served all the same)");
        }
    }

    fn loss_to_report(&mut self, now: Duration) -> Option<u64> {
        let lost = self.sink.lost() - self.reported;
        if lost == 0 || now < self.next_report {
            return None;
        }
        self.reported = self.sink.lost();
        self.next_report = now.saturating_add(LOSS_INTERVAL);
        Some(lost)
    }
}

#[cfg(test)]
mod tests;
