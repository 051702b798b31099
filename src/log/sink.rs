//! Where log lines go: an owned descriptor that is written in whole lines and never waited for.
//!
//! What cannot be written at once is lost and counted. It knows nothing of what a line says.

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::sync::Arc;

use memchr::{memchr, memchr_iter, memrchr};

use super::LINE_MAX;
use crate::config::LogTarget;
use crate::sys::log_fd;

/// An open log, shared with other processes: each write is whole lines, so that lines never tear.
#[derive(Debug)]
pub(crate) struct Sink {
    target: LogTarget,
    /// None when the log is off.
    output: Option<Arc<Output>>,
    /// The last write ended within a line.
    torn: bool,
    lost: u64,
    last_failure: Option<io::Error>,
}

impl Sink {
    /// Opens the log: a file for appending, or a descriptor of our own to what stdout or stderr is.
    pub fn open(target: &LogTarget) -> Result<Self, OpenError> {
        let opened = match target {
            LogTarget::File(path) => log_fd::open_for_append(path).and_then(Output::of).map(Some),
            LogTarget::Stdout => Output::inherited(io::stdout()).map(Some),
            LogTarget::Stderr => Output::inherited(io::stderr()).map(Some),
            LogTarget::Off => Ok(None),
        };
        match opened {
            Ok(output) => Ok(Self::new(target.clone(), output)),
            Err(cause) => Err(OpenError { target: target.clone(), cause }),
        }
    }

    fn new(target: LogTarget, output: Option<Output>) -> Self {
        Self { target, output: output.map(Arc::new), torn: false, lost: 0, last_failure: None }
    }

    /// Opens a file anew, for the old one may have been renamed, and all that share this log in this process write to the
    /// new one at once. Where that fails, they go on with the old one. Nothing is done where the log is no file.
    pub fn reopen(&self) -> Result<(), OpenError> {
        match &self.target {
            LogTarget::File(path) => log_fd::open_for_append(path)
                .and_then(|file| self.replace(file.into()))
                .map_err(|cause| OpenError { target: self.target.clone(), cause }),
            LogTarget::Stdout | LogTarget::Stderr | LogTarget::Off => Ok(()),
        }
    }

    /// Where the log is a file, what another process needs to [take its place](Self::replace).
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        let is_file = matches!(self.target, LogTarget::File(_));
        self.output.as_ref().filter(|_| is_file).map(|output| output.file().as_fd())
    }

    /// All that share this log in this process write to `from` from now on. Nothing is done where the log is off.
    ///
    /// # Errors
    /// `InvalidInput` where a file would become a pipe, or the like: they are written in other ways.
    pub fn replace(&self, from: OwnedFd) -> io::Result<()> {
        let Some(output) = &self.output else { return Ok(()) };
        let new = Output::of(from.into())?;
        if mem::discriminant(&new) != mem::discriminant(&**output) {
            return Err(io::Error::new(ErrorKind::InvalidInput, "it is not of the same kind as before"));
        }
        log_fd::put_in_place(new.file(), output.file())
    }

    /// True when nothing is to be logged, so that lines need not be formatted.
    pub fn is_off(&self) -> bool {
        self.output.is_none()
    }

    /// Writes lines that all end in `\n` and are at most [`LINE_MAX`] long. Never waits; lines that fail are counted.
    pub fn write(&mut self, whole_lines: &[u8]) {
        let Some(output) = self.output.clone() else { return };
        let mut rest = whole_lines;
        while !rest.is_empty() {
            let (piece, after) = split_at_line_end(rest, output.write_limit());
            self.write_piece(&output, piece);
            rest = after;
        }
    }

    /// How many lines this sink could not write so far.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Why the last lost line was lost, with a remedy.
    pub fn loss_reason(&self) -> String {
        let Some(failure) = &self.last_failure else { return "no line was lost".to_owned() };
        match failure.kind() {
            ErrorKind::WouldBlock => format!("the reader of {} does not keep up", self.target),
            ErrorKind::BrokenPipe => format!("the reader of {} has gone; restart it", self.target),
            ErrorKind::StorageFull => format!("no space left for {}; free some", self.target),
            ErrorKind::WriteZero => {
                format!("{} took only a part: it is full, or its reader does not keep up", self.target)
            }
            ErrorKind::InvalidInput => format!("a line for {} was longer than {LINE_MAX} bytes", self.target),
            _ => format!("cannot write to {}: {failure}; check the disk or name another file", self.target),
        }
    }

    fn write_piece(&mut self, output: &Output, piece: &[u8]) {
        let written = self.end_torn_line(output).and_then(|()| output.write(piece));
        self.settle(piece, written);
    }

    /// Counts what is missing once `written` bytes of `piece` were taken, or none.
    fn settle(&mut self, piece: &[u8], written: io::Result<usize>) {
        match written {
            Ok(written) if written >= piece.len() => {}
            Ok(written) => {
                let (done, missing) = piece.split_at(written);
                self.torn = done.last().map_or(self.torn, |&byte| byte != b'\n');
                self.lose(missing, ErrorKind::WriteZero.into());
            }
            Err(failure) => self.lose(piece, failure),
        }
    }

    /// Ends what is left of a torn line, so that it cannot merge with the next one.
    fn end_torn_line(&mut self, output: &Output) -> io::Result<()> {
        if self.torn {
            output.write(b"\n")?;
            self.torn = false;
        }
        Ok(())
    }

    fn lose(&mut self, lines: &[u8], failure: io::Error) {
        self.lost += memchr_iter(b'\n', lines).count() as u64;
        self.last_failure = Some(failure);
    }
}

impl Clone for Sink {
    /// The same log for another thread or process, which counts its own losses.
    fn clone(&self) -> Self {
        Self { target: self.target.clone(), output: self.output.clone(), torn: false, lost: 0, last_failure: None }
    }
}

/// What a descriptor is decides how it is written without waiting.
#[derive(Debug)]
enum Output {
    /// Never waits for a reader, and appending keeps any length in one piece.
    Regular(File),
    Socket(File),
    /// Pipes, FIFOs, terminals and other devices.
    Stream(File),
}

impl Output {
    fn of(file: File) -> io::Result<Self> {
        let kind = file.metadata()?.file_type();
        Ok(if kind.is_file() {
            Self::Regular(file)
        } else if kind.is_socket() {
            Self::Socket(file)
        } else {
            Self::Stream(file)
        })
    }

    fn file(&self) -> &File {
        let (Self::Regular(file) | Self::Socket(file) | Self::Stream(file)) = self;
        file
    }

    /// A descriptor of our own that the program was started with.
    fn inherited(fd: impl AsFd) -> io::Result<Self> {
        Ok(match Self::of(fd.as_fd().try_clone_to_owned()?.into())? {
            Self::Stream(duplicate) => Self::Stream(log_fd::reopen_or_duplicate(duplicate.as_fd())?),
            Self::Regular(duplicate) => Self::Regular(duplicate),
            Self::Socket(duplicate) => Self::Socket(duplicate),
        })
    }

    /// The most bytes that arrive in one piece among those of other writers.
    fn write_limit(&self) -> usize {
        match self {
            Self::Regular(_) => usize::MAX,
            Self::Socket(_) | Self::Stream(_) => LINE_MAX,
        }
    }

    fn write(&self, piece: &[u8]) -> io::Result<usize> {
        if piece.len() > self.write_limit() {
            return Err(ErrorKind::InvalidInput.into());
        }
        match self {
            Self::Regular(file) => (&*file).write(piece),
            Self::Socket(file) => log_fd::send_at_once(file, piece),
            // Asked each time because the description may be a shared one, without O_NONBLOCK.
            Self::Stream(file) if log_fd::is_writable(file) => (&*file).write(piece),
            Self::Stream(_) => Err(ErrorKind::WouldBlock.into()),
        }
    }
}

/// As many whole lines as fit into `limit` bytes, or one line that does not fit; and the lines after them.
fn split_at_line_end(lines: &[u8], limit: usize) -> (&[u8], &[u8]) {
    if lines.len() <= limit {
        return (lines, &[]);
    }
    let last_that_fits = memrchr(b'\n', &lines[..limit]); // limit < lines.len()
    let end = last_that_fits.or_else(|| memchr(b'\n', lines)).map_or(lines.len(), |at| at + 1);
    lines.split_at(end)
}

/// A log that could not be opened.
#[derive(Debug)]
pub(crate) struct OpenError {
    target: LogTarget,
    cause: io::Error,
}

impl fmt::Display for OpenError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let remedy = match self.cause.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => "make its folder first",
            ErrorKind::PermissionDenied => "let the user that starts the master write there, or name another file",
            ErrorKind::InvalidInput => "put a file there that is like the one before, or restart",
            ErrorKind::IsADirectory => "name a file in that folder",
            _ if log_fd::has_no_reader(&self.cause) => {
                "start the reader of that FIFO first (a socket cannot be opened)"
            }
            _ => "name another file, or use stdout, stderr or off",
        };
        write!(out, "cannot open the log {}: {}; {remedy}", self.target, self.cause)
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

#[cfg(test)]
impl Sink {
    /// A sink over a descriptor as it would be inherited.
    pub fn over(fd: impl AsFd) -> Self {
        Self::new(LogTarget::Stdout, Some(Output::inherited(fd).unwrap()))
    }
}

#[cfg(test)]
mod tests;
