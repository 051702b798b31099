//! The four forms of a request-target (RFC 9112 section 3.2) and the syntax of a host. Knows nothing of the
//! other parts of a request.

use std::net::Ipv6Addr;

use bytes::Bytes;
use http::uri::InvalidUri;
use http::{Method, Uri};

use super::Error;

/// The bytes a request-target may hold: visible ASCII without `"`, `<`, `>` and `#`, which every client encodes.
/// ``[ ] { } | ^ \ ` `` are against RFC 3986 too, but browsers send them as they are
/// (<https://url.spec.whatwg.org/#query-percent-encode-set>).
pub(super) const TARGET: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = b'!';
    while byte <= b'~' {
        table[byte as usize] = !matches!(byte, b'"' | b'<' | b'>' | b'#');
        byte += 1;
    }
    table
};

/// Reads a request-target of [`TARGET`] bytes: origin-form, absolute-form with `http` or `https`, or the
/// asterisk-form of `OPTIONS`.
pub(super) fn parse(method: &Method, target: &Bytes) -> Result<Uri, Error> {
    if method == Method::CONNECT {
        return Err(Error::ConnectUnsupported);
    }
    let is_origin = target.starts_with(b"/");
    let is_asterisk = &target[..] == b"*" && method == Method::OPTIONS;
    if !is_origin && !is_asterisk && !is_absolute(target) {
        return Err(Error::InvalidTarget);
    }
    let uri = Uri::from_maybe_shared(target.clone()).map_err(|error| refusal(&error, target))?;
    let authority_is_valid = uri.authority().is_none_or(|authority| is_host(authority.as_str().as_bytes()));
    // Browsers send `\` and a backtick in a query only; in a path `\` is a `/` to some systems.
    if authority_is_valid && !uri.path().contains(['\\', '`']) { Ok(uri) } else { Err(Error::InvalidTarget) }
}

fn is_absolute(target: &[u8]) -> bool {
    let starts_with =
        |scheme: &[u8]| target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    starts_with(b"http://") || starts_with(b"https://")
}

/// `http::Uri` holds less than 64 KiB, whatever `max_uri` says.
fn refusal(_: &InvalidUri, target: &[u8]) -> Error {
    if target.len() >= usize::from(u16::MAX) { Error::TargetTooLong } else { Error::InvalidTarget }
}

/// Whether this is `uri-host [ ":" port ]` with a host that is not empty (RFC 9110 section 7.2, RFC 3986
/// section 3.2.2). User information is none, and neither are zones and future address literals.
pub(crate) fn is_host(value: &[u8]) -> bool {
    let (host, rest) = match value.iter().position(|&byte| byte == b']') {
        Some(end) => value.split_at(end + 1),
        None => value.split_at(value.iter().position(|&byte| byte == b':').unwrap_or(value.len())),
    };
    let host_is_valid = match host.strip_prefix(b"[") {
        Some(literal) => is_ipv6(literal.strip_suffix(b"]").unwrap_or_default()),
        None => is_name(host),
    };
    host_is_valid && (rest.is_empty() || rest.strip_prefix(b":").is_some_and(is_port))
}

fn is_ipv6(literal: &[u8]) -> bool {
    std::str::from_utf8(literal).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok())
}

/// A `reg-name` (which includes IPv4 addresses) of at least one character.
fn is_name(host: &[u8]) -> bool {
    let mut rest = host;
    while let Some((&byte, after)) = rest.split_first() {
        rest = match (byte, after) {
            (b'%', [high, low, after @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => after,
            (byte, after) if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte) => after,
            (_, _) => return false,
        };
    }
    !host.is_empty()
}

fn is_port(digits: &[u8]) -> bool {
    let value = digits.iter().try_fold(0_u16, |value, digit| {
        digit.is_ascii_digit().then(|| value.checked_mul(10)?.checked_add(u16::from(digit - b'0')))?
    });
    value.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_or_addresses_with_an_optional_port() {
        for good in ["a", "a.example:80", "a:", "127.0.0.1:65535", "[::1]", "[2001:db8::1]:8080", "a_b", "%41", "a,b"] {
            assert!(is_host(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            ":80",
            "a:b",
            "a:65536",
            "a:-1",
            "a:80:80",
            "u@a",
            "a b",
            "a/b",
            "a?b",
            "a#b",
            "[::1",
            "::1",
            "[::1]x",
            "[]",
            "[a]",
            "[v1.a]",
            "[fe80::1%25eth0]",
            "x[::1]",
            "%4",
            "%zz",
            "a\tb",
            "a]",
            "]",
            "é",
            "a\\b",
            "<a>",
        ] {
            assert!(!is_host(bad.as_bytes()), "{bad}");
        }
    }

    fn path(method: &Method, target: &'static str) -> Result<String, Error> {
        parse(method, &Bytes::from_static(target.as_bytes())).map(|uri| uri.path().to_owned())
    }

    #[test]
    fn each_form_is_taken_where_it_is_allowed() {
        assert_eq!(path(&Method::GET, "/a?b"), Ok("/a".to_owned()));
        assert_eq!(path(&Method::GET, "//a/b"), Ok("//a/b".to_owned()));
        assert_eq!(path(&Method::GET, "/?q=\\`^{}[]|"), Ok("/".to_owned()));
        assert_eq!(path(&Method::GET, "HTTP://a.example"), Ok("/".to_owned()));
        assert_eq!(path(&Method::GET, "https://a.example/b"), Ok("/b".to_owned()));
        assert_eq!(path(&Method::GET, "http://[::1]:80/b"), Ok("/b".to_owned()));
        assert_eq!(path(&Method::GET, "http://a?b"), Ok("/".to_owned()));
        assert_eq!(path(&Method::OPTIONS, "*"), Ok("*".to_owned()));
    }

    #[test]
    fn other_forms_are_refused() {
        for target in [
            "*",
            "a",
            "a.example:80",
            "a/b",
            "ftp://a/b",
            "http:/a",
            "http://",
            "http:///a",
            "http://u@a/",
            "http://u:p@a/",
            "http://a:b/",
            "http://:80/",
            "http://[::1/",
            "file:///etc/passwd",
            "mailto:a",
            "?a",
            "/a\\b",
            "/`",
        ] {
            assert_eq!(path(&Method::GET, target), Err(Error::InvalidTarget), "{target}");
        }
        assert_eq!(path(&Method::OPTIONS, "**"), Err(Error::InvalidTarget));
        assert_eq!(path(&Method::CONNECT, "a.example:80"), Err(Error::ConnectUnsupported));
        assert_eq!(path(&Method::CONNECT, "/"), Err(Error::ConnectUnsupported));
    }

    #[test]
    fn a_target_that_the_uri_type_cannot_hold_is_too_long() {
        let target = Bytes::from(format!("/{}", "a".repeat(70_000)));
        assert_eq!(parse(&Method::GET, &target), Err(Error::TargetTooLong));
    }
}
