//! Why a request was refused, and the status that says so. Every error ends the connection: after it nobody
//! can say where the next request begins.

use std::fmt;

use http::StatusCode;

/// A request that is not served. The sources are RFC 9110 (semantics) and RFC 9112 (HTTP/1.1) where a variant
/// names none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Error {
    /// The first byte is that of a TLS handshake record (RFC 8446 section 5.1).
    TlsOnPlainPort,
    /// The method is empty, holds a byte that is no token character, or is not followed by one space.
    InvalidMethod,
    /// The method is longer than [`super::head::MAX_METHOD`] bytes (RFC 9112 section 3).
    MethodTooLong,
    /// `CONNECT`: this server is not a proxy.
    ConnectUnsupported,
    /// The request-target holds a forbidden byte or has a form that its method does not allow (RFC 9112 section 3.2).
    InvalidTarget,
    /// The request-target is longer than `max_uri`.
    TargetTooLong,
    /// What follows the request-target is not a version and a line end.
    InvalidVersion,
    /// A well-formed version whose major number is not 1, such as that of the HTTP/2 preface.
    UnsupportedVersion,
    /// A LF without CR, or a CR without LF (RFC 9112 section 2.2).
    InvalidLineEnd,
    /// A field line that starts with a blank: obsolete folding (RFC 9112 section 5.2).
    ObsoleteFolding,
    /// A field line with a malformed name, a blank before its colon, or a control byte in its value.
    InvalidField,
    /// The field section is longer than `max_header_bytes`.
    HeaderTooLarge,
    /// The field section has more than `max_headers` lines.
    TooManyFields,
    /// HTTP/1.1 without `Host` (RFC 9112 section 3.2).
    MissingHost,
    /// More than one `Host`.
    DuplicateHost,
    /// `Host` is not a host and an optional port.
    InvalidHost,
    /// An expectation other than `100-continue` (RFC 9110 section 10.1.1).
    UnknownExpectation,
    /// `Content-Length` is not a plain decimal number.
    InvalidContentLength,
    /// More than one `Content-Length`, equal or not.
    DuplicateContentLength,
    /// Both `Content-Length` and `Transfer-Encoding` (RFC 9112 section 6.3).
    LengthAndTransferEncoding,
    /// `Transfer-Encoding` in an HTTP/1.0 request (RFC 9112 section 6.1).
    TransferEncodingOnHttp10,
    /// `Transfer-Encoding` is malformed, repeated, or `chunked` is not its last coding.
    InvalidTransferEncoding,
    /// A transfer coding other than `chunked`.
    UnsupportedTransferEncoding,
    /// The body is longer than `max_body`.
    BodyTooLarge,
    /// A chunk size, extension or end that breaks RFC 9112 section 7.1.
    InvalidChunk,
    /// More extension bytes than a chunk, or a whole body, may have.
    ChunkExtensionTooLarge,
    /// A trailer field that decides framing, routing, authentication or how the content is read (RFC 9110 section 6.5.1).
    ForbiddenTrailer,
}

impl Error {
    /// The status of the answer that is sent before the connection is closed.
    pub fn status(self) -> StatusCode {
        match self {
            Self::TlsOnPlainPort
            | Self::InvalidMethod
            | Self::InvalidTarget
            | Self::InvalidVersion
            | Self::InvalidLineEnd
            | Self::ObsoleteFolding
            | Self::InvalidField
            | Self::MissingHost
            | Self::DuplicateHost
            | Self::InvalidHost
            | Self::InvalidContentLength
            | Self::DuplicateContentLength
            | Self::LengthAndTransferEncoding
            | Self::TransferEncodingOnHttp10
            | Self::InvalidTransferEncoding
            | Self::InvalidChunk
            | Self::ForbiddenTrailer => StatusCode::BAD_REQUEST,
            Self::BodyTooLarge | Self::ChunkExtensionTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::UnknownExpectation => StatusCode::EXPECTATION_FAILED,
            Self::HeaderTooLarge | Self::TooManyFields => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::MethodTooLong | Self::ConnectUnsupported | Self::UnsupportedTransferEncoding => {
                StatusCode::NOT_IMPLEMENTED
            }
            Self::UnsupportedVersion => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TlsOnPlainPort => "a tls handshake was sent to a plain http port",
            Self::InvalidMethod => "the request does not start with a method and one space",
            Self::MethodTooLong => "the method is too long",
            Self::ConnectUnsupported => "connect is for proxies, which this server is not",
            Self::InvalidTarget => "the request target is malformed or not allowed for the method",
            Self::TargetTooLong => "the request target is longer than maxUri",
            Self::InvalidVersion => "the request line does not end with a version such as HTTP/1.1",
            Self::UnsupportedVersion => "the http version is not 1.0 or 1.1",
            Self::InvalidLineEnd => "a line does not end with CR LF",
            Self::ObsoleteFolding => "a field line starts with a blank (obsolete folding)",
            Self::InvalidField => "a field line has a malformed name or a control byte in its value",
            Self::HeaderTooLarge => "the fields are longer than maxHeaderBytes",
            Self::TooManyFields => "there are more fields than maxHeaders",
            Self::MissingHost => "the host field is missing",
            Self::DuplicateHost => "there is more than one host field",
            Self::InvalidHost => "the host field is not a host and an optional port",
            Self::UnknownExpectation => "the expectation is not 100-continue",
            Self::InvalidContentLength => "content-length is not a plain decimal number",
            Self::DuplicateContentLength => "there is more than one content-length",
            Self::LengthAndTransferEncoding => "there are both content-length and transfer-encoding",
            Self::TransferEncodingOnHttp10 => "transfer-encoding in an HTTP/1.0 request",
            Self::InvalidTransferEncoding => "transfer-encoding is malformed, repeated or does not end in chunked",
            Self::UnsupportedTransferEncoding => "a transfer coding other than chunked",
            Self::BodyTooLarge => "the body is longer than maxBody",
            Self::InvalidChunk => "the chunked body is malformed",
            Self::ChunkExtensionTooLarge => "the chunk extensions are too long",
            Self::ForbiddenTrailer => "a trailer field that belongs in the header",
        })
    }
}

impl std::error::Error for Error {}
