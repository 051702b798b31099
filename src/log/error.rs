//! The error log: `log` records as one line each, with the identity of the process, through `env_logger`.
//!
//! It decides neither what is worth a line nor which process this is; it is the one place that reads the wall clock
//! for a log line, because `log` records carry none.

use std::any::Any;
use std::fmt::{self, Display, Write as _};
use std::io::{self, Write};
use std::panic::{self, Location, PanicHookInfo};
use std::sync::{Mutex, PoisonError, RwLock};
use std::thread;
use std::time::SystemTime;

use ::log::{Level, LevelFilter, Log, Metadata, Record, SetLoggerError};
use env_logger::{Builder, Logger, Target};

use super::sink::Sink;
use super::stamp::iso_stamp;
use super::volume::Volume;
use super::{LINE_MAX, can_forge};
use crate::sys;

/// What every line says of the process, and which one that is. Nobody holds it over a fork: who forks has one thread.
static IDENTITY: Mutex<(String, i32)> = Mutex::new((String::new(), 0));

/// What this process has said lately, where that is limited.
static VOLUME: Mutex<Option<Volume>> = Mutex::new(None);

/// What writes the lines, unless the application has a logger of its own. It is only changed where there is one thread.
static RUNNING: RwLock<Option<Running>> = RwLock::new(None);

struct Running {
    logger: Logger,
    /// The one of the logger.
    sink: Sink,
}

/// Sends all `log` records of this process and of those it forks to `sink`, down to `level`; the environment variable
/// `RUST_LOG` may refine that (`regrow::h1=debug`).
///
/// Fails when the application has set a logger of its own, which then stays.
pub(crate) fn init(sink: Sink, level: LevelFilter) -> Result<(), SetLoggerError> {
    ::log::set_logger(&Front)?;
    run(sink, level);
    Ok(())
}

/// Sends them elsewhere from now on, in this process and in those that it forks later. Does nothing where the application
/// has a logger of its own.
pub(crate) fn switch(sink: Sink, level: LevelFilter) {
    if self::sink().is_some() {
        run(sink, level);
    }
}

/// Where the records go now; none where the application has a logger of its own.
pub(crate) fn sink() -> Option<Sink> {
    let running = RUNNING.read().unwrap_or_else(PoisonError::into_inner);
    running.as_ref().map(|running| running.sink.clone())
}

fn run(sink: Sink, level: LevelFilter) {
    let logger = logger(sink.clone(), level, std::env::var("RUST_LOG").ok().as_deref());
    ::log::set_max_level(logger.filter());
    *RUNNING.write().unwrap_or_else(PoisonError::into_inner) = Some(Running { logger, sink });
}

/// What `log` knows of, for it takes a logger only once.
struct Front;

impl Front {
    fn ask<T: Default>(ask: impl FnOnce(&Logger) -> T) -> T {
        let running = RUNNING.read().unwrap_or_else(PoisonError::into_inner);
        running.as_ref().map(|running| ask(&running.logger)).unwrap_or_default()
    }
}

impl Log for Front {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        Self::ask(|logger| logger.enabled(metadata))
    }

    fn log(&self, record: &Record<'_>) {
        Self::ask(|logger| logger.log(record));
    }

    fn flush(&self) {
        Self::ask(Log::flush);
    }
}

/// Says which process this is, from now on: `master pid=42`. A worker does so right after the fork. One that lives for a
/// single request does not: its lines say whose child it is (`worker=0 gen=1 pid=42 child=43`).
pub(crate) fn set_identity(identity: impl Display) {
    let identity = (identity.to_string(), sys::process::pid());
    *IDENTITY.lock().unwrap_or_else(PoisonError::into_inner) = identity;
}

/// From now on each place in the code that complains is limited in how much it may say: a worker's clients can make it
/// complain as often as they like. The master counts failures by itself.
pub(crate) fn limit_volume() {
    *VOLUME.lock().unwrap_or_else(PoisonError::into_inner) = Some(Volume::default());
}

/// Whether a record is to be written, and how many of its kind were withheld before it.
fn admit(record: &Record<'_>) -> Option<u64> {
    let mut volume = VOLUME.lock().unwrap_or_else(PoisonError::into_inner);
    match (volume.as_mut(), record.file_static(), record.line()) {
        (Some(volume), Some(file), Some(line)) if record.level() <= Level::Warn => {
            volume.admit(sys::clock::monotonic(), (file, line))
        }
        _ => Some(0),
    }
}

/// Makes every panic one error line, with its place and thread, and passes the same text to `note`.
///
/// `note` must not panic: that would abort the process.
pub(crate) fn install_panic_hook(note: impl Fn(&str) + Send + Sync + 'static) {
    panic::set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
        let thread = thread::current();
        let text = panic_text(info.payload(), info.location(), thread.name());
        ::log::error!("{text}");
        note(&text);
    }));
}

/// The message last, because a line that is too long loses its end.
fn panic_text(payload: &dyn Any, location: Option<&Location<'_>>, thread: Option<&str>) -> String {
    let literal = payload.downcast_ref::<&str>().copied();
    let message = literal.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no message)");
    let thread = thread.unwrap_or("unnamed");
    match location {
        Some(place) => format!("panic at {}:{} (thread {thread}): {message}", place.file(), place.line()),
        None => format!("panic (thread {thread}): {message}"),
    }
}

fn logger(sink: Sink, level: LevelFilter, refinement: Option<&str>) -> Logger {
    let mut builder = Builder::new();
    builder.filter_level(level);
    if let Some(directives) = refinement {
        builder.parse_filters(directives);
    }
    builder.format(|out, record: &Record<'_>| {
        match admit(record) {
            None => return Ok(()),
            Some(0) => {}
            Some(n) => {
                out.write_all(&format_line(record.level(), format_args!("{n} lines like the next were withheld")))?;
            }
        }
        out.write_all(&format_line(record.level(), *record.args()))
    });
    builder.target(Target::Pipe(Box::new(Lines { sink, reported: 0 })));
    builder.build()
}

/// The writing end that `env_logger` calls with one line at a time.
struct Lines {
    sink: Sink,
    /// Of the lost lines, those that the log itself has told of.
    reported: u64,
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let lost_before = self.sink.lost();
        self.sink.write(line);
        if self.sink.lost() == lost_before && lost_before > self.reported {
            let missing = lost_before - self.reported;
            self.reported = lost_before;
            let reason = self.sink.loss_reason();
            let note = format!("{missing} lines of this log were lost before the last one: {reason}");
            self.sink.write(&format_line(Level::Warn, format_args!("{note}")));
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `2026-11-22T17:03:07.123Z info  master pid=42: message`, whatever the message holds.
fn format_line(level: Level, message: fmt::Arguments<'_>) -> Vec<u8> {
    let mut line = Line::new(SystemTime::now(), level);
    // The only error is that of a full line, whose rest is left out.
    let _ = line.write_fmt(message);
    line.finish()
}

const ELLIPSIS: &str = "…";

/// A line under construction, in which nothing can end the line early or make it longer than [`LINE_MAX`].
struct Line {
    text: Vec<u8>,
    /// Where to cut when the line gets too long: there is room for the ellipsis.
    cut: usize,
}

impl Line {
    fn new(now: SystemTime, level: Level) -> Self {
        let mut text = Vec::with_capacity(256);
        text.extend_from_slice(&iso_stamp(now));
        text.extend_from_slice(level_name(level));
        // A copy: the message is foreign code, which may log or panic, and must not find the lock taken.
        let (identity, owner) = IDENTITY.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut line = Self { cut: text.len(), text };
        let _ = match sys::process::pid() {
            pid if pid == owner || owner == 0 => write!(line, "{identity}: "), // as in format_line
            child => write!(line, "{identity} child={child}: "),
        };
        line
    }

    fn finish(mut self) -> Vec<u8> {
        self.text.push(b'\n');
        self.text
    }

    fn push(&mut self, c: char) {
        match c {
            '\n' => self.text.extend_from_slice(b"\\n"),
            '\r' => self.text.extend_from_slice(b"\\r"),
            '\t' => self.text.extend_from_slice(b"\\t"),
            c if can_forge(c) => self.text.extend_from_slice(c.escape_unicode().to_string().as_bytes()),
            c => self.text.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            self.push(c);
            if self.text.len() >= LINE_MAX {
                self.text.truncate(self.cut);
                self.text.extend_from_slice(ELLIPSIS.as_bytes());
                return Err(fmt::Error);
            }
            if self.text.len() + ELLIPSIS.len() < LINE_MAX {
                self.cut = self.text.len();
            }
        }
        Ok(())
    }
}

/// Padded to one width.
fn level_name(level: Level) -> &'static [u8] {
    match level {
        Level::Error => b" error ",
        Level::Warn => b" warn  ",
        Level::Info => b" info  ",
        Level::Debug => b" debug ",
        Level::Trace => b" trace ",
    }
}

#[cfg(test)]
mod tests;
