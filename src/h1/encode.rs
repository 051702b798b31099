//! Responses: decides how a body travels and whether the connection lives on, and writes heads and chunk
//! frames. Knows nothing of where a body comes from.

use http::header::{CONTENT_LENGTH, DATE, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};

use super::head::names_option;

/// The interim response a client waits for after `Expect: 100-continue` (RFC 9110 section 15.2.1).
pub(crate) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// Ends the data of a chunk.
pub(crate) const CHUNK_END: &[u8] = b"\r\n";
/// Ends a chunked body without trailers.
pub(crate) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// How a response body travels (RFC 9112 section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transfer {
    /// No byte of a body follows the head, whatever body the handler gave.
    None,
    /// So many bytes.
    Length(u64),
    /// In chunks, ended by [`LAST_CHUNK`].
    Chunked,
    /// Until the connection is closed: the only way to send an unknown length to an HTTP/1.0 client.
    UntilClose,
}

/// How a response is sent; made by [`plan`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    /// What follows the head.
    pub transfer: Transfer,
    /// Whether the connection may serve another request afterwards.
    pub keep_alive: bool,
    /// The `Content-Length` field. With [`Transfer::None`] it tells what a `GET` would give.
    content_length: Option<u64>,
}

/// Decides transfer and persistence. `length` is that of the body; `None` for a stream, whose length is what the
/// handler has set as `Content-Length`, if it has. `may_keep` says whether client and server would keep the
/// connection; a handler that sets `Connection: close` and a body without an end overrule it.
///
/// A 1xx as a final answer is a mistake of the handler that leaves the client waiting, so it closes the connection.
pub(crate) fn plan(
    method: &Method,
    version: Version,
    status: StatusCode,
    headers: &HeaderMap,
    length: Option<u64>,
    may_keep: bool,
) -> Plan {
    let (transfer, content_length) = match (status, length.or_else(|| announced(headers))) {
        (status, _) if status.is_informational() || status == StatusCode::NO_CONTENT => (Transfer::None, None),
        (StatusCode::RESET_CONTENT, _) => (Transfer::None, Some(0)),
        (StatusCode::NOT_MODIFIED, _) => (Transfer::None, announced(headers)),
        // An empty body given to HEAD says nothing: many handlers leave the body out of it.
        (_, length) if method == Method::HEAD => (Transfer::None, announced(headers).or(length.filter(|&n| n > 0))),
        (_, Some(length)) => (Transfer::Length(length), Some(length)),
        (_, None) if version == Version::HTTP_10 => (Transfer::UntilClose, None),
        (_, None) => (Transfer::Chunked, None),
    };
    let has_an_end = transfer != Transfer::UntilClose && !status.is_informational();
    let keep_alive = may_keep && has_an_end && !names_option(headers, b"close");
    Plan { transfer, keep_alive, content_length }
}

/// The length that the handler set: of a stream, or of what a GET would give (RFC 9110 section 8.6).
fn announced(headers: &HeaderMap) -> Option<u64> {
    let value = headers.get(CONTENT_LENGTH)?.as_bytes();
    let digits = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse().ok()
}

/// Appends status line, fields and blank line. `encoded` are more fields, from [`encode_field`]. `version` is that of
/// the request; the answer is always HTTP/1.1 (RFC 9110 section 6.2). `date` is the current time as an IMF-fixdate, sent
/// unless the handler set `Date`.
///
/// Fields of the handler that belong to the connection or to the framing are left out: those are the plan's.
/// No field can be split, for the types of `http` hold no CR, LF or NUL.
pub(crate) fn encode_head(
    out: &mut Vec<u8>,
    version: Version,
    status: StatusCode,
    headers: &HeaderMap,
    encoded: &[u8],
    plan: &Plan,
    date: &[u8; 29],
) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    for (name, value) in headers {
        if !is_ours(name.as_str()) {
            encode_field(out, name, value);
        }
    }
    out.extend_from_slice(encoded);
    if !headers.contains_key(DATE) {
        field(out, "date", date);
    }
    encode_framing(out, plan);
    match (plan.keep_alive, version) {
        (false, _) => field(out, "connection", b"close"),
        (true, Version::HTTP_10) => field(out, "connection", b"keep-alive"),
        (true, _) => {}
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends one field: so that those which are the same in many heads are made once. Not for those that are the plan's.
pub(crate) fn encode_field(out: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    debug_assert!(!is_ours(name.as_str()), "{name} is the plan's");
    field(out, name.as_str(), value.as_bytes());
}

/// Appends a request that was received whole, to be received again elsewhere: never longer than it was, so that no limit
/// is in its way, and with its body behind its head. Not for a target with an authority, which may have lengthened
/// `Host`.
pub(crate) fn encode_request(
    out: &mut Vec<u8>,
    method: &Method,
    target: &[u8],
    version: Version,
    headers: &HeaderMap,
    body: &[u8],
) {
    let version: &[u8] = if version == Version::HTTP_10 { b" HTTP/1.0\r\n" } else { b" HTTP/1.1\r\n" };
    for part in [method.as_str().as_bytes(), b" ", target, version] {
        out.extend_from_slice(part);
    }
    // The body is no longer in chunks.
    let kept = |name: &&HeaderName| ![TRANSFER_ENCODING, CONTENT_LENGTH].contains(*name);
    for (name, value) in headers.iter().filter(|(name, _)| kept(name)) {
        for part in [name.as_str().as_bytes(), b":", value.as_bytes(), b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
    if headers.contains_key(TRANSFER_ENCODING) || headers.contains_key(CONTENT_LENGTH) {
        for part in [&b"content-length:"[..], itoa::Buffer::new().format(body.len()).as_bytes(), b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body);
}

fn encode_framing(out: &mut Vec<u8>, plan: &Plan) {
    if let Some(length) = plan.content_length {
        field(out, "content-length", itoa::Buffer::new().format(length).as_bytes());
    }
    match plan.transfer {
        Transfer::Chunked => field(out, "transfer-encoding", b"chunked"),
        Transfer::None | Transfer::Length(_) | Transfer::UntilClose => {}
    }
}

/// Appends the line before a chunk of `length` bytes of data; [`CHUNK_END`] goes behind them. A chunk of 0 bytes
/// would end the body, so for an empty piece nothing may be written at all.
pub(crate) fn encode_chunk_head(out: &mut Vec<u8>, length: usize) {
    debug_assert_ne!(length, 0, "an empty chunk ends the body");
    let digits = (usize::BITS - length.leading_zeros()).div_ceil(4).max(1);
    for place in (0..digits).rev() {
        let digit = (length >> (place * 4)) & 0xf;
        out.push(b"0123456789abcdef"[digit]); // 0xf at most
    }
    out.extend_from_slice(b"\r\n");
}

/// The fields that this layer decides, by the lower-case names that `http` gives.
fn is_ours(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "content-length"
            | "keep-alive"
            | "proxy-connection"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &[u8; 29] = b"Sun, 06 Nov 1994 08:49:37 GMT";

    fn fields(list: &[(&'static str, &'static str)]) -> HeaderMap {
        list.iter().map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    fn head(
        method: &Method,
        version: Version,
        status: u16,
        headers: &HeaderMap,
        length: Option<u64>,
        keep: bool,
    ) -> String {
        let status = StatusCode::from_u16(status).unwrap();
        let plan = plan(method, version, status, headers, length, keep);
        let mut out = Vec::new();
        encode_head(&mut out, version, status, headers, b"", &plan, NOW);
        String::from_utf8(out).unwrap()
    }

    fn get(status: u16, headers: &HeaderMap, length: Option<u64>) -> String {
        head(&Method::GET, Version::HTTP_11, status, headers, length, true)
    }

    #[test]
    fn a_known_length_is_announced() {
        let expected = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\ncontent-length: 1234567890\r\n\r\n";
        assert_eq!(get(200, &fields(&[("content-type", "text/plain")]), Some(1_234_567_890)), expected);
        assert!(get(200, &HeaderMap::new(), Some(0)).contains("\r\ncontent-length: 0\r\n"));
        assert!(get(200, &HeaderMap::new(), Some(u64::MAX)).contains(": 18446744073709551615\r\n"));
    }

    #[test]
    fn an_unknown_length_is_chunked_on_11_and_closes_on_10() {
        let chunked = get(200, &HeaderMap::new(), None);
        assert!(chunked.contains("\r\ntransfer-encoding: chunked\r\n") && !chunked.contains("connection"), "{chunked}");
        let old = plan(&Method::GET, Version::HTTP_10, StatusCode::OK, &HeaderMap::new(), None, true);
        assert_eq!((old.transfer, old.keep_alive), (Transfer::UntilClose, false));
        let text = head(&Method::GET, Version::HTTP_10, 200, &HeaderMap::new(), None, true);
        assert!(text.contains("\r\nconnection: close\r\n") && !text.contains("chunked"), "{text}");
    }

    #[test]
    fn persistence_is_said_where_it_is_not_the_default() {
        let say = |version, keep| head(&Method::GET, version, 200, &HeaderMap::new(), Some(1), keep);
        assert!(!say(Version::HTTP_11, true).contains("connection"));
        assert!(say(Version::HTTP_11, false).contains("\r\nconnection: close\r\n"));
        assert!(say(Version::HTTP_10, true).contains("\r\nconnection: keep-alive\r\n"));
        assert!(say(Version::HTTP_10, false).contains("\r\nconnection: close\r\n"));
    }

    #[test]
    fn a_handler_can_close_the_connection() {
        let headers = fields(&[("connection", "X, Close")]);
        assert!(get(200, &headers, Some(1)).contains("\r\nconnection: close\r\n"));
    }

    #[test]
    fn answers_without_a_body_announce_none() {
        for status in [101, 204] {
            let text = get(status, &fields(&[("content-length", "5")]), Some(5));
            assert!(!text.contains("content-length") && !text.contains("transfer-encoding"), "{text}");
        }
        assert!(get(205, &HeaderMap::new(), Some(5)).contains("\r\ncontent-length: 0\r\n"));
        for status in [101, 204, 205, 304] {
            for length in [Some(5), None] {
                let status = StatusCode::from_u16(status).unwrap();
                let plan = plan(&Method::GET, Version::HTTP_10, status, &HeaderMap::new(), length, true);
                assert_eq!(plan.transfer, Transfer::None);
                assert_eq!(plan.keep_alive, !status.is_informational());
            }
        }
    }

    #[test]
    fn not_modified_tells_only_the_length_the_handler_knows() {
        assert!(!get(304, &HeaderMap::new(), Some(0)).contains("content-length"));
        let told = get(304, &fields(&[("content-length", "5")]), Some(0));
        assert!(told.contains("\r\ncontent-length: 5\r\n"), "{told}");
    }

    #[test]
    fn head_has_the_length_of_get_and_no_body() {
        let say = |headers: &HeaderMap, length| head(&Method::HEAD, Version::HTTP_11, 200, headers, length, true);
        assert!(say(&HeaderMap::new(), Some(5)).contains("\r\ncontent-length: 5\r\n"));
        assert!(say(&fields(&[("content-length", "7")]), Some(0)).contains("\r\ncontent-length: 7\r\n"));
        assert!(!say(&HeaderMap::new(), Some(0)).contains("content-length"));
        assert!(!say(&fields(&[("content-length", "+7")]), None).contains("content-length"));
        let plan = plan(&Method::HEAD, Version::HTTP_10, StatusCode::OK, &HeaderMap::new(), None, true);
        assert_eq!((plan.transfer, plan.keep_alive), (Transfer::None, true));
    }

    #[test]
    fn fields_of_the_connection_are_ours() {
        let headers = fields(&[
            ("connection", "keep-alive, x"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("trailer", "x"),
            ("proxy-connection", "close"),
            ("content-length", "99"),
            ("date", "Mon, 07 Nov 1994 08:49:37 GMT"),
            ("x-a", "1"),
        ]);
        let expected = "HTTP/1.1 200 OK\r\ndate: Mon, 07 Nov 1994 08:49:37 GMT\r\nx-a: 1\r\ncontent-length: 5\r\n\r\n";
        assert_eq!(get(200, &headers, Some(5)), expected);
    }

    #[test]
    fn fields_that_are_encoded_already_stand_with_the_others() {
        let mut encoded = Vec::new();
        encode_field(&mut encoded, &HeaderName::from_static("etag"), &HeaderValue::from_static("\"1\""));
        assert_eq!(encoded, b"etag: \"1\"\r\n");
        let plan = plan(&Method::GET, Version::HTTP_11, StatusCode::OK, &HeaderMap::new(), Some(0), true);
        let mut out = Vec::new();
        encode_head(&mut out, Version::HTTP_11, StatusCode::OK, &fields(&[("x-a", "1")]), &encoded, &plan, NOW);
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\nx-a: 1\r\netag: \"1\"\r\ndate: "), "{text}");
    }

    #[test]
    fn repeated_fields_stay_apart() {
        let mut headers = HeaderMap::new();
        headers.append("set-cookie", HeaderValue::from_static("a=1"));
        headers.append("set-cookie", HeaderValue::from_static("b=2"));
        let text = get(200, &headers, Some(5));
        assert!(text.contains("\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n"), "{text}");
    }

    #[test]
    fn a_status_without_a_known_reason_keeps_its_blank() {
        assert!(get(299, &HeaderMap::new(), Some(0)).starts_with("HTTP/1.1 299 \r\n"));
    }

    #[test]
    fn no_field_can_hold_a_line_end() {
        for byte in (0..=31).filter(|&byte| byte != b'\t').chain([127]) {
            assert!(HeaderValue::from_bytes(&[b'a', byte, b'b']).is_err(), "{byte}");
            assert!(HeaderName::from_bytes(&[b'a', byte, b'b']).is_err(), "{byte}");
        }
        let mut headers = HeaderMap::new();
        for byte in (32..=255).filter(|&byte| byte != 127).chain(*b"\t") {
            headers.append("x", HeaderValue::from_bytes(&[byte]).unwrap());
        }
        let plan = plan(&Method::GET, Version::HTTP_11, StatusCode::OK, &headers, None, true);
        let mut out = Vec::new();
        encode_head(&mut out, Version::HTTP_11, StatusCode::OK, &headers, b"", &plan, NOW);
        let lines = headers.len() + 4; // status, date, transfer-encoding, blank
        assert_eq!(out.split(|&byte| byte == b'\n').count() - 1, lines);
        assert_eq!(out.windows(2).filter(|pair| pair == b"\r\n").count(), lines);
    }

    #[test]
    fn chunk_sizes_are_hexadecimal() {
        for length in [1, 9, 10, 15, 16, 255, 256, 65536, usize::MAX] {
            let mut out = Vec::new();
            encode_chunk_head(&mut out, length);
            assert_eq!(out, format!("{length:x}\r\n").into_bytes());
        }
    }
}
