//! The error log and the access log: whole lines that no client can forge and no reader can hold up.
//!
//! The master opens the sinks, the workers inherit them over the fork. A log that cannot be written costs log lines,
//! never requests. This module knows nothing of the loop that flushes it.

pub(crate) mod access;
pub(crate) mod error;
pub(crate) mod sink;
pub(crate) mod stamp;
mod volume;

/// No line is longer, its newline included: pipes take up to `PIPE_BUF` bytes in one piece (pipe(7)).
pub(crate) const LINE_MAX: usize = 4096;

/// True for characters that end a line, drive a terminal or reorder the text of a line, so that they could forge one.
fn can_forge(c: char) -> bool {
    let separates = matches!(c, '\u{2028}' | '\u{2029}');
    let reorders = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || separates || reorders
}
