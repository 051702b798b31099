//! How long a request body is: every rule of it, and so every rule against request smuggling
//! (RFC 9112 section 6). Knows nothing of how a body is read.
//!
//! The rules are stricter than the RFC wherever two readers could disagree: a doubtful length is refused,
//! never guessed.

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, Version};

use super::{Error, Limits};

/// The framing of a request body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// No body: neither field, or a length of 0.
    Empty,
    /// So many bytes, never 0.
    Length(u64),
    /// Chunks up to the last one and its trailers.
    Chunked,
}

/// Decides the framing of a request from its version and fields.
pub(super) fn framing(version: Version, headers: &HeaderMap, limits: &Limits) -> Result<Framing, Error> {
    let coding = only(headers, &TRANSFER_ENCODING, Error::InvalidTransferEncoding)?;
    let length = only(headers, &CONTENT_LENGTH, Error::DuplicateContentLength)?;
    match (coding, length) {
        (None, None) => Ok(Framing::Empty),
        (None, Some(length)) => content_length(length, limits.max_body),
        (Some(_), _) if version == Version::HTTP_10 => Err(Error::TransferEncodingOnHttp10),
        (Some(_), Some(_)) => Err(Error::LengthAndTransferEncoding),
        (Some(coding), None) => transfer_encoding(coding),
    }
}

/// The value of a field that may stand there once: equal copies are refused too, for a proxy may have read the other.
fn only<'a>(headers: &'a HeaderMap, name: &http::HeaderName, twice: Error) -> Result<Option<&'a [u8]>, Error> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (first, None) => Ok(first.map(http::HeaderValue::as_bytes)),
        (_, Some(_)) => Err(twice),
    }
}

/// `1*DIGIT` and nothing else: no sign, no list, no blank.
fn content_length(value: &[u8], max_body: u64) -> Result<Framing, Error> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(Error::InvalidContentLength);
    }
    let length =
        value.iter().try_fold(0_u64, |length, digit| length.checked_mul(10)?.checked_add(u64::from(digit - b'0')));
    match length {
        Some(0) => Ok(Framing::Empty),
        Some(length) if length <= max_body => Ok(Framing::Length(length)),
        Some(_) | None => Err(Error::BodyTooLarge),
    }
}

/// `chunked` alone is served. It must be the last coding and stand there once (400); any other coding is 501.
fn transfer_encoding(value: &[u8]) -> Result<Framing, Error> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(Framing::Chunked);
    }
    let mut codings = value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).peekable();
    while let Some(coding) = codings.next() {
        let name = coding.split(|&byte| byte == b';').next().unwrap_or_default();
        let is_chunked = name.eq_ignore_ascii_case(b"chunked");
        let is_last = codings.peek().is_none();
        if !super::is_token(name) || is_chunked && (!is_last || name != coding) {
            return Err(Error::InvalidTransferEncoding);
        }
    }
    Err(Error::UnsupportedTransferEncoding)
}

#[cfg(test)]
mod tests {
    use http::header::HeaderName;

    use super::*;

    const LIMITS: Limits = Limits { max_uri: 100, max_header_bytes: 1000, max_headers: 10, max_body: 1000 };

    fn decide(version: Version, fields: &[(&'static str, &str)]) -> Result<Framing, Error> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        framing(version, &headers, &LIMITS)
    }

    fn length(value: &str) -> Result<Framing, Error> {
        decide(Version::HTTP_11, &[("content-length", value)])
    }

    fn coding(value: &str) -> Result<Framing, Error> {
        decide(Version::HTTP_11, &[("transfer-encoding", value)])
    }

    #[test]
    fn content_length_is_digits_only() {
        assert_eq!(length("5"), Ok(Framing::Length(5)));
        assert_eq!(length("0005"), Ok(Framing::Length(5)));
        assert_eq!(length("0"), Ok(Framing::Empty));
        for bad in ["", "+5", "-5", "5,5", "5, 5", "5 5", "0x5", "5;", "5.0", "1e3", "\u{665}", "5 "] {
            assert_eq!(length(bad), Err(Error::InvalidContentLength), "{bad:?}");
        }
    }

    #[test]
    fn a_length_beyond_the_limit_or_beyond_64_bits_is_too_large() {
        assert_eq!(length("1000"), Ok(Framing::Length(1000)));
        for large in ["1001", "18446744073709551615", "18446744073709551616", &"9".repeat(400)] {
            assert_eq!(length(large), Err(Error::BodyTooLarge), "{large}");
        }
    }

    #[test]
    fn lengths_never_come_twice_or_beside_a_coding() {
        let twice = [("content-length", "5"), ("content-length", "5")];
        assert_eq!(decide(Version::HTTP_11, &twice), Err(Error::DuplicateContentLength));
        let both = [("content-length", "5"), ("transfer-encoding", "chunked")];
        assert_eq!(decide(Version::HTTP_11, &both), Err(Error::LengthAndTransferEncoding));
    }

    #[test]
    fn only_chunked_alone_is_a_known_coding() {
        assert_eq!(coding("chunked"), Ok(Framing::Chunked));
        assert_eq!(coding("ChunKed"), Ok(Framing::Chunked));
        for bad in [
            "",
            ",",
            "chunked,",
            ",chunked",
            "chunked, chunked",
            "chunked, gzip",
            "chunk ed",
            "\"chunked\"",
            "chunked;a=b",
            "chunked ;",
            ";",
        ] {
            assert_eq!(coding(bad), Err(Error::InvalidTransferEncoding), "{bad:?}");
        }
        for unknown in ["gzip", "gzip, chunked", "identity", "xchunked", "chunkedx", "gzip;q=1"] {
            assert_eq!(coding(unknown), Err(Error::UnsupportedTransferEncoding), "{unknown:?}");
        }
    }

    #[test]
    fn codings_never_come_twice_or_on_http_10() {
        let twice = [("transfer-encoding", "chunked"), ("transfer-encoding", "identity")];
        assert_eq!(decide(Version::HTTP_11, &twice), Err(Error::InvalidTransferEncoding));
        let one = [("transfer-encoding", "chunked")];
        assert_eq!(decide(Version::HTTP_10, &one), Err(Error::TransferEncodingOnHttp10));
    }
}
