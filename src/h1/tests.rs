//! What the parts of `h1` do together. `replay.rs` runs bytes in every way they can arrive, `corpus.rs` does it
//! with the files of `tests/corpus/h1`, `fuzz.rs` with mutations of them, `again.rs` with requests that are written anew.

mod again;
mod corpus;
mod fuzz;
mod replay;

use http::{HeaderMap, Method, StatusCode, Version};

use self::replay::{Seen, every_way};
use super::*;

/// The defaults of the program.
const LIMITS: Limits = Limits { max_uri: 8 << 10, max_header_bytes: 16 << 10, max_headers: 100, max_body: 16 << 20 };

#[test]
fn a_whole_exchange() {
    let mut receiver = Receiver::new();
    let mut input = b"POST /echo HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\nhello".to_vec();
    let mut body = Vec::new();
    let mut request = None;
    loop {
        let (consumed, event) = receiver.receive(&input, &LIMITS).unwrap();
        match event {
            Event::NeedMore => panic!("a connection would read more bytes here"),
            Event::Head(head) => request = Some(head),
            Event::Data(range) => body.extend_from_slice(&input[range]),
            Event::End { .. } => break,
        }
        input.drain(..consumed);
    }
    assert!(receiver.is_idle());

    let request = request.unwrap();
    let (status, headers) = (StatusCode::OK, HeaderMap::new());
    let length = Some(body.len() as u64);
    let plan = plan(&request.method, request.version, status, &headers, length, request.keep_alive);
    let mut output = Vec::new();
    encode_head(&mut output, request.version, status, &headers, b"", &plan, b"Sun, 06 Nov 1994 08:49:37 GMT");
    output.extend_from_slice(&body);
    assert!(plan.keep_alive);
    assert_eq!(
        String::from_utf8(output).unwrap(),
        "HTTP/1.1 200 OK\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\ncontent-length: 5\r\n\r\nhello"
    );
}

#[test]
fn a_receiver_is_small() {
    assert!(size_of::<Receiver>() <= 64, "{}", size_of::<Receiver>());
}

/// The error that the bytes give, in whatever way they arrive.
fn error_under(input: impl AsRef<[u8]>, limits: &Limits) -> Option<Error> {
    match every_way(input.as_ref(), limits).seen.pop() {
        Some(Seen::Error(error)) => Some(error),
        Some(Seen::Head(_) | Seen::Data(_) | Seen::End(_)) | None => None,
    }
}

fn error(input: impl AsRef<[u8]>) -> Option<Error> {
    error_under(input, &LIMITS)
}

#[test]
fn the_first_byte_shows_what_is_no_request() {
    assert_eq!(error("\x16"), Some(Error::TlsOnPlainPort));
    for byte in (0..=255).filter(|&byte| byte != 0x16 && byte != b'\r' && !TOKEN[usize::from(byte)]) {
        assert_eq!(error([byte]), Some(Error::InvalidMethod), "{byte:#x}");
    }
    for byte in (0..=255).filter(|&byte| TOKEN[usize::from(byte)]) {
        assert_eq!(error([byte]), None, "{byte:#x}");
    }
}

#[test]
fn one_blank_line_before_a_request_is_let_pass() {
    assert_eq!(error("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), None);
    assert_eq!(error("\r\n\r"), Some(Error::InvalidMethod));
    assert_eq!(error("\n"), Some(Error::InvalidMethod));
    assert_eq!(error("\rG"), Some(Error::InvalidLineEnd));
}

#[test]
fn a_method_ends_within_its_limit() {
    let longest = "M".repeat(head::MAX_METHOD);
    assert_eq!(error(format!("{longest} / HTTP/1.1\r\nHost: a\r\n\r\n")), None);
    assert_eq!(error(format!("{longest}M")), Some(Error::MethodTooLong));
    assert_eq!(error(longest), None);
}

#[test]
fn a_target_holds_visible_ascii_that_clients_send() {
    for byte in 0..=255 {
        let request = [b"GET /?", &[byte][..], b"x HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
        let is_valid = byte.is_ascii_graphic() && !b"\"<>#".contains(&byte);
        let expected = if is_valid { None } else { Some(Error::InvalidTarget) };
        // A blank ends the target: what follows is no version.
        let expected = if byte == b' ' { Some(Error::InvalidVersion) } else { expected };
        assert_eq!(error(&request), expected, "{byte:#x}");
    }
}

#[test]
fn a_long_target_is_refused_before_its_line_ends() {
    let limits = Limits { max_uri: 10, ..LIMITS };
    assert_eq!(error_under("GET /123456789 HTTP/1.1\r\nHost: a\r\n\r\n", &limits), None);
    assert_eq!(error_under("GET /123456789", &limits), None);
    assert_eq!(error_under("GET /1234567890", &limits), Some(Error::TargetTooLong));
}

#[test]
fn versions_are_1_or_505_or_nonsense() {
    let with = |version: &str| error(format!("GET / {version}\r\nHost: a\r\n\r\n"));
    for good in ["HTTP/1.0", "HTTP/1.1", "HTTP/1.2", "HTTP/1.9"] {
        assert_eq!(with(good), None, "{good}");
    }
    for other in ["HTTP/2.0", "HTTP/0.9", "HTTP/3.0", "HTTP/9.9", "HTTP/0.0"] {
        assert_eq!(with(other), Some(Error::UnsupportedVersion), "{other}");
    }
    for bad in [
        "",
        "HTTP/1",
        "HTTP/2",
        "HTTP/1.",
        "HTTP/.1",
        "HTTP/1.10",
        "HTTP/11.1",
        "http/1.1",
        "HTTP/1.1 ",
        " HTTP/1.1",
        "HTTP/1,1",
        "HTTP/1.x",
        "HTTP/1.1\r",
        "HTTP /1.1",
        "HTTPS/1.1",
        "HTCPCP/1.0",
        "ICY",
        "\0HTTP/1.1",
    ] {
        assert_eq!(with(bad), Some(Error::InvalidVersion), "{bad:?}");
    }
    assert_eq!(error("GET / HTTP/1.1\n"), Some(Error::InvalidLineEnd));
    assert_eq!(error("PRI * HTTP/2.0\r\n"), Some(Error::UnsupportedVersion));
}

#[test]
fn field_values_hold_no_control_byte() {
    for byte in 0..=255 {
        let request = [b"GET / HTTP/1.1\r\nHost: a\r\nX: a", &[byte][..], b"b\r\n\r\n"].concat();
        let expected = match byte {
            b'\n' => Some(Error::InvalidLineEnd),
            b'\t' | b' '..=b'~' | 0x80.. => None,
            _ => Some(Error::InvalidField),
        };
        assert_eq!(error(&request), expected, "{byte:#x}");
    }
}

#[test]
fn field_names_are_tokens() {
    for byte in 0..=255 {
        let request = [b"GET / HTTP/1.1\r\nHost: a\r\nX", &[byte][..], b"Y: b\r\n\r\n"].concat();
        let expected = match byte {
            b'\n' => Some(Error::InvalidLineEnd),
            b':' => None, // the name is `X` then
            _ if TOKEN[usize::from(byte)] => None,
            _ => Some(Error::InvalidField),
        };
        assert_eq!(error(&request), expected, "{byte:#x}");
    }
}

#[test]
fn a_large_header_is_refused_before_it_ends() {
    let limits = Limits { max_header_bytes: 20, ..LIMITS };
    let head = "GET / HTTP/1.1\r\n";
    assert_eq!(error_under(format!("{head}Host: a\r\nX: 567890\r\n\r\n"), &limits), Some(Error::HeaderTooLarge));
    assert_eq!(error_under(format!("{head}Host: a\r\nX: 56789\r\n\r\n"), &limits), Some(Error::HeaderTooLarge));
    assert_eq!(error_under(format!("{head}Host: a\r\nX: 5678\r\n\r\n"), &limits), None);
    assert_eq!(error_under(format!("{head}Host: a\r\nX: 567890123"), &limits), Some(Error::HeaderTooLarge));
    assert_eq!(error_under(format!("{head}Host: a\r\nX: 56789012"), &limits), None);
}

#[test]
fn many_fields_are_refused_at_the_first_byte_too_many() {
    let limits = Limits { max_headers: 2, ..LIMITS };
    let head = "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n";
    assert_eq!(error_under(format!("{head}\r\n"), &limits), None);
    assert_eq!(error_under(format!("{head}Y"), &limits), Some(Error::TooManyFields));
}

#[test]
fn more_fields_than_the_stack_holds_are_read() {
    for count in [31, 32, 33, 99] {
        let fields = "X: y\r\n".repeat(count);
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let trace = every_way(request.as_bytes(), &LIMITS);
        let Some(Seen::Head(head)) = trace.seen.first() else { panic!("{trace:?}") };
        assert_eq!(head.fields.len(), count + 1);
    }
}

#[test]
fn the_body_limit_counts_chunks_together() {
    let limits = Limits { max_body: 8, ..LIMITS };
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(error_under(format!("{head}4\r\nabcd\r\n4\r\nefgh\r\n0\r\n\r\n"), &limits), None);
    assert_eq!(error_under(format!("{head}4\r\nabcd\r\n5\r"), &limits), Some(Error::BodyTooLarge));
    assert_eq!(error_under(format!("{head}ffffffffffffffff;"), &LIMITS), Some(Error::BodyTooLarge));
    let unlimited = Limits { max_body: u64::MAX, ..LIMITS };
    assert_eq!(error_under(format!("{head}ffffffffffffffff\r\nabc"), &unlimited), None);
}

#[test]
fn chunk_extensions_are_bounded_per_chunk_and_together() {
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(error(format!("{head}0;{}\r\n\r\n", "a".repeat(1023))), None);
    assert_eq!(error(format!("{head}0;{}", "a".repeat(1024))), Some(Error::ChunkExtensionTooLarge));
    assert_eq!(error(format!("{head}0{}", " ".repeat(1025))), Some(Error::ChunkExtensionTooLarge));
    let long_chunk = format!("1;{}\r\nx\r\n", "a".repeat(1023));
    assert_eq!(error(format!("{head}{}0\r\n\r\n", long_chunk.repeat(16))), None);
    assert_eq!(error(format!("{head}{}0;", long_chunk.repeat(16))), Some(Error::ChunkExtensionTooLarge));
}

#[test]
fn chunk_sizes_are_hexadecimal_digits_only() {
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for byte in 0..=255_u8 {
        let request = [head.as_bytes(), &[byte]].concat();
        let expected = if byte.is_ascii_hexdigit() { None } else { Some(Error::InvalidChunk) };
        assert_eq!(error(&request), expected, "{byte:#x}");
    }
    assert_eq!(error(format!("{head}0000000000000001\r\nx\r\n0\r\n\r\n")), None);
    assert_eq!(error(format!("{head}00000000000000001")), Some(Error::InvalidChunk));
}

#[test]
fn trailers_have_the_limits_of_a_header() {
    let limits = Limits { max_header_bytes: 60, max_headers: 2, ..LIMITS };
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n";
    assert_eq!(error_under(format!("{head}A: a\r\nB: b\r\n\r\n"), &limits), None);
    assert_eq!(error_under(format!("{head}A: a\r\nB: b\r\nC"), &limits), Some(Error::TooManyFields));
    assert_eq!(error_under(format!("{head}A: {}", "a".repeat(58)), &limits), Some(Error::HeaderTooLarge));
}

#[test]
fn forbidden_trailers_are_refused() {
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n";
    for name in [
        "Content-Length",
        "Transfer-Encoding",
        "Host",
        "Trailer",
        "Authorization",
        "Content-Type",
        "Content-Encoding",
        "Cookie",
        "Set-Cookie",
        "Connection",
        "TE",
        "Expect",
        "Range",
        "If-Match",
        "X-Forwarded-For",
        "Forwarded",
    ] {
        assert_eq!(error(format!("{head}{name}: 1\r\n\r\n")), Some(Error::ForbiddenTrailer), "{name}");
    }
    assert_eq!(error(format!("{head}X-Checksum: 1\r\n\r\n")), None);
}

#[test]
fn no_unconsumed_rest_outgrows_its_bound() {
    // `replay` asserts it for every case; here the bound is reached.
    let limits = Limits { max_uri: 10, max_header_bytes: 50, ..LIMITS };
    let method = "M".repeat(head::MAX_METHOD);
    let longest = format!("{method} /123456789 HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(38));
    assert_eq!(longest.len(), limits.max_unconsumed());
    assert_eq!(error_under(&longest, &limits), None);
    assert_eq!(error_under(format!("{longest}x"), &limits), Some(Error::HeaderTooLarge));
}

#[test]
fn every_error_is_a_refusal() {
    let input = "GET / HTTP/1.0\r\n\r\n";
    assert_eq!(error(input), None);
    for error in [Error::TlsOnPlainPort, Error::BodyTooLarge, Error::UnsupportedVersion, Error::UnknownExpectation] {
        assert!(error.status().is_client_error() || error.status().is_server_error());
        assert!(!error.to_string().ends_with('.'));
    }
}

#[test]
fn later_minor_versions_are_read_as_11() {
    let trace = every_way(b"GET / HTTP/1.7\r\nHost: a\r\n\r\n", &LIMITS);
    let Some(Seen::Head(head)) = trace.seen.first() else { panic!("{trace:?}") };
    assert_eq!((head.version, &head.method), (Version::HTTP_11, &Method::GET));
}
