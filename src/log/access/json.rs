//! A line as one JSON object, with the same keys in the same order whatever the request.

use std::borrow::Cow;
use std::io;

use serde::ser::{SerializeMap, Serializer as _};
use serde_json::Serializer;
use serde_json::ser::Formatter;

use super::combined::version_name;
use super::{ELLIPSIS, Entry, METHOD_MAX, REFERER_MAX, TARGET_MAX, USER_AGENT_MAX};
use crate::board::Identity;
use crate::log::can_forge;
use crate::log::stamp::IsoStamp;

pub(super) fn push_line(out: &mut Vec<u8>, entry: &Entry<'_>, stamp: &IsoStamp, identity: Identity) {
    let start = out.len();
    match serialize(&mut *out, entry, stamp, identity) {
        Ok(()) => out.push(b'\n'),
        Err(_) => out.truncate(start), // cannot be: a Vec takes all and the keys are text
    }
}

/// Appends the client's name to the line that begins at `start`, the last one, as one more entry of the object.
///
/// The name has no character that JSON escapes.
pub(super) fn name_client(lines: &mut Vec<u8>, start: usize, name: Option<&str>) {
    if !lines[start..].ends_with(b"}\n") {
        return;
    }
    lines.truncate(lines.len() - 2);
    match name {
        Some(name) => lines.extend([",\"host\":\"", name, "\"}\n"].iter().flat_map(|part| part.bytes())),
        None => lines.extend_from_slice(b",\"host\":null}\n"),
    }
}

fn serialize(
    out: &mut Vec<u8>,
    entry: &Entry<'_>,
    stamp: &IsoStamp,
    identity: Identity,
) -> Result<(), serde_json::Error> {
    let parsed = entry.version.is_some();
    let mut json = Serializer::with_formatter(out, OneLine);
    let mut object = json.serialize_map(None)?;
    object.serialize_entry("time", &String::from_utf8_lossy(stamp))?;
    match entry.client {
        Some(address) => object.serialize_entry("client", &address.to_canonical())?,
        None => object.serialize_entry("client", "unix:")?,
    }
    object.serialize_entry("method", &parsed.then(|| clip(entry.method.as_bytes(), METHOD_MAX)))?;
    object.serialize_entry("target", &parsed.then(|| clip(entry.target, TARGET_MAX)))?;
    object.serialize_entry("version", &entry.version.map(version_name))?;
    object.serialize_entry("status", &entry.status)?;
    object.serialize_entry("bytes", &entry.body_bytes)?;
    object.serialize_entry("durationMs", &((entry.duration.as_secs_f64() * 1e6).round() / 1e3))?;
    object.serialize_entry("referer", &entry.referer.map(|referer| clip(referer, REFERER_MAX)))?;
    object.serialize_entry("userAgent", &entry.user_agent.map(|agent| clip(agent, USER_AGENT_MAX)))?;
    object.serialize_entry("worker", &identity.worker)?;
    object.serialize_entry("generation", &identity.generation)?;
    object.serialize_entry("pid", &identity.pid)?;
    object.end()
}

/// The text of `bytes`, cut so that it takes at most `limit` bytes once it is escaped.
fn clip(bytes: &[u8], limit: usize) -> Cow<'_, str> {
    // No byte gets shorter, so what is beyond the limit only shows that there is more.
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(limit + 4)]);
    let (mut length, mut cut) = (0, 0);
    for (at, c) in text.char_indices() {
        if length + ELLIPSIS.len() <= limit {
            cut = at;
        }
        length += escaped_length(c);
        if length > limit {
            return Cow::Owned(format!("{}{ELLIPSIS}", &text[..cut]));
        }
    }
    text
}

fn escaped_length(c: char) -> usize {
    match c {
        '"' | '\\' => 2,
        c if can_forge(c) => r"\u0000".len(), // at most: some have a short form
        c => c.len_utf8(),
    }
}

/// Compact JSON in which the characters that may stand in a JSON string, but could forge a line, are escaped too.
struct OneLine;

impl Formatter for OneLine {
    /// `fragment` has none of the characters that JSON itself escapes.
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        let mut plain = 0;
        for (at, c) in fragment.char_indices().filter(|&(_, c)| can_forge(c)) {
            out.write_all(&fragment.as_bytes()[plain..at])?;
            write!(out, "\\u{:04x}", u32::from(c))?; // all of them have four digits
            plain = at + c.len_utf8();
        }
        out.write_all(&fragment.as_bytes()[plain..])
    }
}
