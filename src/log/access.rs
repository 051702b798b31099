//! The access log: one line per answered request, gathered into batches.
//!
//! Nothing that a client sends can end a line, drive a terminal or make a line longer than [`LINE_MAX`]. It knows
//! neither connections nor when to flush; the forms of a line are in `combined` and `json`.

mod combined;
mod json;

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use http::Version;

use super::LINE_MAX;
use super::sink::Sink;
use super::stamp::DateCache;
use crate::board::Identity;
use crate::config::AccessFormat;

/// Lost lines are told at most this often.
const LOSS_INTERVAL: Duration = Duration::from_secs(10);

/// The most bytes that a field takes in a line, escaped: together, with all the rest, they stay within [`LINE_MAX`].
const METHOD_MAX: usize = 32;
const TARGET_MAX: usize = 2048;
const REFERER_MAX: usize = 1024;
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
    /// Whole lines that are not written yet, less than twice [`LINE_MAX`] bytes.
    batch: Vec<u8>,
    /// Of the lost lines, those that the error log has told of.
    reported: u64,
    next_report: Duration,
}

impl AccessLog {
    pub fn new(sink: Sink, format: AccessFormat, identity: Identity) -> Self {
        let dates = DateCache::new();
        Self { sink, format, identity, dates, batch: Vec::new(), reported: 0, next_report: Duration::ZERO }
    }

    /// Adds a line to the batch. When that [is full](Self::is_full), it is to be flushed.
    pub fn record(&mut self, entry: &Entry<'_>) {
        if self.sink.is_off() {
            return;
        }
        match self.format {
            AccessFormat::Combined => combined::push_line(&mut self.batch, entry, self.dates.combined(entry.time)),
            AccessFormat::Json => json::push_line(&mut self.batch, entry, &self.dates.iso(entry.time), self.identity),
        }
    }

    /// True when there is enough for a write.
    pub fn is_full(&self) -> bool {
        self.batch.len() >= LINE_MAX
    }

    /// True when nothing waits to be written.
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// Writes the batch at once or loses it; tells the error log of lost lines, at most every ten seconds.
    ///
    /// `now` is monotonic.
    pub fn flush(&mut self, now: Duration) {
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
