//! Who sent a request, and how they came, where a server in front tells: `X-Forwarded-For`, `-Proto` and `-Host`, or
//! `Forwarded` (RFC 7239). Pure: knows no connection, and is told whose word counts.
//!
//! A field is as good as who sent it. Of those who are not trusted, all such fields are removed, so that nobody behind
//! takes them for true. Each trusted server has put whom it speaks for behind what it was told: the list is read from
//! its end, for as long as those who wrote it are trusted.
//!
//! `Forwarded` counts only where none of the three others came. A server that writes one kind and lets the other pass is
//! common, and its clients must not choose which is believed: one that writes `Forwarded` only must delete the others.

#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use http::header::{FORWARDED, HOST};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::config::Senders;
use crate::h1;
use crate::site::{Client, Origin};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Where the request came from, as far as it can be believed. What cannot be is removed from its fields, and `Host` is
/// what the client asked for. `sender` is the other end of the connection. The same again gives the same.
pub(super) fn trace(sender: Origin, trusted: &Senders, fields: &mut HeaderMap) -> Origin {
    if !trusts(trusted, sender.client) {
        remove(fields, is_forwarding);
        return sender;
    }
    // Fields with these names are none that servers in front write, and programs that read `-` as `_` mix them up.
    remove(fields, |name| is_forwarding(name) && name.contains(&b'_'));
    let (origin, host) =
        if [X_FORWARDED_FOR, X_FORWARDED_PROTO, X_FORWARDED_HOST].iter().any(|x| fields.contains_key(x)) {
            fields.remove(FORWARDED);
            trace_x(sender, trusted, fields)
        } else if let Some(elements) = forwarded_elements(fields) {
            trace_elements(sender, trusted, &elements)
        } else {
            fields.remove(FORWARDED);
            (sender, None)
        };
    if let Some(host) = host {
        fields.insert(HOST, host);
    }
    origin
}

fn trusts(trusted: &Senders, client: Client) -> bool {
    trusted.contain(client.address().map(|address| address.ip()))
}

/// Most requests have none: that is one look at each name.
fn remove(fields: &mut HeaderMap, is_unwanted: impl Fn(&[u8]) -> bool) {
    let unwanted: Vec<_> = fields.keys().filter(|name| is_unwanted(name.as_str().as_bytes())).cloned().collect();
    for name in unwanted {
        fields.remove(name);
    }
}

/// Whether a name, which is in lower case, is one of these with `-` or `_`: `forwarded`, `x-real-ip`, `x-forwarded` and
/// whatever begins so.
fn is_forwarding(name: &[u8]) -> bool {
    let begins = |with: &[u8]| {
        name.len() >= with.len()
            && name.iter().zip(with).all(|(&byte, &wanted)| byte == wanted || byte == b'_' && wanted == b'-')
    };
    match name.first() {
        Some(b'f') => name == b"forwarded",
        Some(b'x') => begins(b"x-forwarded") || begins(b"x-real-ip") && name.len() == b"x-real-ip".len(),
        Some(_) | None => false,
    }
}

fn trace_x(sender: Origin, trusted: &Senders, fields: &HeaderMap) -> (Origin, Option<HeaderValue>) {
    let mut client = sender.client;
    for node in from_the_end(fields, &X_FORWARDED_FOR) {
        let Some(named) = client_at(node) else { break };
        client = named;
        if !trusts(trusted, client) {
            break;
        }
    }
    let https = is_https(from_the_end(fields, &X_FORWARDED_PROTO).next(), sender.https);
    (Origin { client, https }, host(from_the_end(fields, &X_FORWARDED_HOST).next()))
}

/// The members of a list, the last first; the field's lines are one list, and empty members are none (RFC 9110,
/// sections 5.3 and 5.6.1).
fn from_the_end<'a>(fields: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    let lines = fields.get_all(name).into_iter().rev();
    let members = lines.flat_map(|line| line.as_bytes().rsplit(|&byte| byte == b','));
    members.map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}

/// Who came by neither is who came to us.
fn is_https(scheme: Option<&[u8]>, otherwise: bool) -> bool {
    match scheme {
        Some(scheme) if scheme.eq_ignore_ascii_case(b"https") => true,
        Some(scheme) if scheme.eq_ignore_ascii_case(b"http") => false,
        Some(_) | None => otherwise,
    }
}

/// A host that can stand in `Host`.
fn host(said: Option<&[u8]>) -> Option<HeaderValue> {
    said.filter(|said| h1::is_host(said)).and_then(|said| HeaderValue::from_bytes(said).ok())
}

/// An address, with or without a port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
/// `unknown` and names that hide one (RFC 7239, section 6) are none; the port may be hidden.
fn client_at(node: &[u8]) -> Option<Client> {
    let node = std::str::from_utf8(node).ok()?;
    let (address, port) = if let Some(rest) = node.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let port = if port.is_empty() { None } else { Some(port.strip_prefix(':')?) };
        (address.parse::<Ipv6Addr>().ok()?.into(), port)
    } else if let Ok(address) = node.parse::<Ipv6Addr>() {
        (IpAddr::from(address), None)
    } else {
        let (address, port) = node.split_once(':').map_or((node, None), |(address, port)| (address, Some(port)));
        (address.parse::<Ipv4Addr>().ok()?.into(), port)
    };
    let port = port.map_or(Some(0), port_of)?;
    Some(Client::Ip(SocketAddr::new(address.to_canonical(), port)))
}

fn port_of(text: &str) -> Option<u16> {
    let is_hidden = text.strip_prefix('_').is_some_and(|rest| {
        !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    });
    if is_hidden {
        return Some(0);
    }
    let is_number = (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}

/// What one server says of the request that it was sent.
#[derive(Debug, Default, PartialEq, Eq)]
struct Element {
    client: Option<Vec<u8>>,
    scheme: Option<Vec<u8>>,
    host: Option<Vec<u8>>,
}

/// Scheme and host are what is said by the element that names the client; where none does, by the last.
fn trace_elements(sender: Origin, trusted: &Senders, elements: &[Element]) -> (Origin, Option<HeaderValue>) {
    let (mut client, mut telling) = (sender.client, elements.last());
    for element in elements.iter().rev() {
        let Some(named) = element.client.as_deref().and_then(client_at) else { break };
        (client, telling) = (named, Some(element));
        if !trusts(trusted, client) {
            break;
        }
    }
    let https = is_https(telling.and_then(|element| element.scheme.as_deref()), sender.https);
    (Origin { client, https }, host(telling.and_then(|element| element.host.as_deref())))
}

/// The elements of `Forwarded`; none where it breaks a rule anywhere, for then nobody knows who wrote what of it.
fn forwarded_elements(fields: &HeaderMap) -> Option<Vec<Element>> {
    let mut elements = Vec::new();
    for line in fields.get_all(FORWARDED) {
        let mut rest = line.as_bytes();
        while !rest.is_empty() {
            let (element, behind) = element(rest)?;
            elements.extend(element);
            rest = behind.get(1..).unwrap_or_default();
        }
    }
    Some(elements)
}

/// `for=192.0.2.1;proto=https`, up to the comma or the end; an empty one is none.
fn element(mut rest: &[u8]) -> Option<(Option<Element>, &[u8])> {
    let (mut element, mut is_empty) = (Element::default(), true);
    loop {
        rest = rest.trim_ascii_start();
        match rest.first() {
            None | Some(b',') => return Some(((!is_empty).then_some(element), rest)),
            Some(b';') => rest = &rest[1..],
            Some(_) => {
                let (name, value, behind) = pair(rest)?;
                element.set(name, value)?;
                (rest, is_empty) = (behind.trim_ascii_start(), false);
                if !matches!(rest.first(), None | Some(b',' | b';')) {
                    return None;
                }
            }
        }
    }
}

impl Element {
    /// Each of them may be said once.
    fn set(&mut self, name: &[u8], value: Vec<u8>) -> Option<()> {
        let place = match name.to_ascii_lowercase().as_slice() {
            b"for" => &mut self.client,
            b"proto" => &mut self.scheme,
            b"host" => &mut self.host,
            _ => return Some(()),
        };
        place.replace(value).is_none().then_some(())
    }
}

/// `name=token` or `name="quoted"`, and what is behind it.
fn pair(bytes: &[u8]) -> Option<(&[u8], Vec<u8>, &[u8])> {
    let (name, rest) = bytes.split_at(bytes.iter().position(|&byte| byte == b'=')?);
    let rest = &rest[1..];
    let (value, behind) = if let Some(rest) = rest.strip_prefix(b"\"") {
        quoted(rest)?
    } else {
        let end = rest.iter().position(|byte| b",; \t".contains(byte)).unwrap_or(rest.len());
        let (token, behind) = rest.split_at(end);
        (h1::is_token(token).then(|| token.to_vec())?, behind)
    };
    h1::is_token(name).then_some((name, value, behind))
}

/// What stands up to the closing quote, without the `\` before escaped characters (RFC 9110, section 5.6.4).
fn quoted(bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let (mut value, mut is_escaped) = (Vec::new(), false);
    for (at, &byte) in bytes.iter().enumerate() {
        match byte {
            b'"' if !is_escaped => return Some((value, &bytes[at + 1..])),
            b'\\' if !is_escaped => is_escaped = true,
            _ => {
                value.push(byte);
                is_escaped = false;
            }
        }
    }
    None
}
