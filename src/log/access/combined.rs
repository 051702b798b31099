//! A line in the combined format of Apache and nginx: `ip - - [stamp] "GET /x HTTP/1.1" 200 123 "ref" "ua"`.
//!
//! Written for every request, so by appending bytes alone: the formatting machinery would cost several times as much.

use std::io::Write;
use std::net::IpAddr;

use http::Version;

use super::{ELLIPSIS, Entry, METHOD_MAX, REFERER_MAX, TARGET_MAX, USER_AGENT_MAX};

pub(super) fn push_line(out: &mut Vec<u8>, entry: &Entry<'_>, stamp: &[u8]) {
    push_client(out, entry.client);
    out.extend_from_slice(b" - - [");
    out.extend_from_slice(stamp);
    out.extend_from_slice(b"] \"");
    push_request(out, entry);
    out.extend_from_slice(b"\" ");
    push_decimal(out, entry.status);
    out.push(b' ');
    push_decimal(out, entry.body_bytes);
    push_quoted(out, entry.referer, REFERER_MAX);
    push_quoted(out, entry.user_agent, USER_AGENT_MAX);
    out.push(b'\n');
}

/// Puts the client's name, if there is one, where the line that begins at `start` has the address.
pub(super) fn name_client(lines: &mut Vec<u8>, start: usize, name: Option<&str>) {
    let address = lines[start..].iter().position(|&byte| byte == b' ');
    if let (Some(name), Some(length)) = (name, address) {
        lines.splice(start..start + length, name.bytes());
    }
}

fn push_client(out: &mut Vec<u8>, client: Option<IpAddr>) {
    match client.map(|address| address.to_canonical()) {
        None => out.extend_from_slice(b"unix:"),
        Some(IpAddr::V4(address)) => {
            for (place, octet) in address.octets().into_iter().enumerate() {
                if place > 0 {
                    out.push(b'.');
                }
                push_decimal(out, octet);
            }
        }
        Some(IpAddr::V6(address)) => {
            let _ = write!(out, "{address}"); // a Vec takes all
        }
    }
}

fn push_request(out: &mut Vec<u8>, entry: &Entry<'_>) {
    let Some(version) = entry.version else {
        out.push(b'-');
        return;
    };
    push_escaped(out, entry.method.as_bytes(), METHOD_MAX);
    out.push(b' ');
    push_escaped(out, entry.target, TARGET_MAX);
    out.push(b' ');
    out.extend_from_slice(version_name(version).as_bytes());
}

pub(super) fn version_name(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        Version::HTTP_3 => "HTTP/3.0",
        _ => "HTTP/1.1",
    }
}

/// ` "value"`, where no value is a dash.
fn push_quoted(out: &mut Vec<u8>, value: Option<&[u8]>, limit: usize) {
    out.extend_from_slice(b" \"");
    push_escaped(out, value.unwrap_or(b"-"), limit);
    out.push(b'"');
}

/// Appends up to `limit` bytes, those that could end the field, the line or its meaning as `\xHH` (as nginx does).
fn push_escaped(out: &mut Vec<u8>, bytes: &[u8], limit: usize) {
    // Looking at all bytes, instead of stopping at the first, is what lets the compiler take many at a time.
    let plain = bytes.iter().fold(true, |plain, &byte| plain & is_plain(byte));
    if plain && bytes.len() <= limit {
        out.extend_from_slice(bytes);
    } else {
        push_escaped_bytewise(out, bytes, limit);
    }
}

fn push_escaped_bytewise(out: &mut Vec<u8>, bytes: &[u8], limit: usize) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let end = out.len() + limit;
    let mut cut = out.len(); // where there is room for the ellipsis
    for &byte in bytes {
        if is_plain(byte) {
            out.push(byte);
        } else {
            let (high, low) = (usize::from(byte >> 4), usize::from(byte & 15)); // below 16
            out.extend_from_slice(&[b'\\', b'x', HEX[high], HEX[low]]);
        }
        if out.len() > end {
            out.truncate(cut);
            out.extend_from_slice(ELLIPSIS.as_bytes());
            return;
        }
        if out.len() + ELLIPSIS.len() <= end {
            cut = out.len();
        }
    }
}

fn is_plain(byte: u8) -> bool {
    matches!(byte, 0x20..=0x7e) && byte != b'"' && byte != b'\\'
}

fn push_decimal(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}
