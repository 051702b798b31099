//! What a request for a file must be, and what it is answered with once the file is found. Knows no file system.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, RANGE,
    RETRY_AFTER,
};
use http::{Method, StatusCode, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use super::found::Found;
use super::path::UrlPath;
use crate::h1::conditional::{Verdict, evaluate, range_holds};
use crate::h1::range::{Selection, content_range, select, unsatisfied};
use crate::site::{Body, Piece, Request, Response, pages};
use crate::sys;

/// The methods that files know.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");

/// Whether a method reads, as files can be.
///
/// # Errors
/// 204 for OPTIONS, 405 for those that do not.
pub(crate) fn reads(method: &Method) -> Result<(), StatusCode> {
    match *method {
        Method::GET | Method::HEAD => Ok(()),
        Method::OPTIONS => Err(StatusCode::NO_CONTENT),
        _ => Err(StatusCode::METHOD_NOT_ALLOWED),
    }
}

/// What answers instead of a file: a page that states `status`, with the field that the status wants.
pub(crate) fn without_file(status: StatusCode) -> Response {
    let mut response = pages::page(status);
    match status {
        StatusCode::NO_CONTENT => {
            response = Response::new(Body::empty());
            *response.status_mut() = status;
            response.headers_mut().insert(ALLOW, METHODS);
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            response.headers_mut().insert(ALLOW, METHODS);
        }
        StatusCode::SERVICE_UNAVAILABLE => {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        _ => {}
    }
    response
}

/// The file, the part of it that is asked for, or that the client has it already.
///
/// # Errors
/// 412 where a condition fails.
pub(super) fn with_file(request: &Request, found: &Found) -> Result<Response, StatusCode> {
    let headers = request.headers();
    let by_range = asks_for_parts(request);
    let validators = found.validators(by_range);
    match evaluate(headers, &validators) {
        Verdict::Failed => return Err(StatusCode::PRECONDITION_FAILED),
        Verdict::NotModified => return Ok(response(StatusCode::NOT_MODIFIED, found.no_body())),
        Verdict::Proceed => {}
    }
    let by_range = by_range && range_holds(headers, &validators);
    match if by_range { select(headers, found.len()) } else { Selection::Whole } {
        // Of an empty body it cannot be told whether HEAD left it out, or there is none.
        Selection::Whole if found.len() == 0 => {
            Ok(with_field(Response::new(found.whole()), CONTENT_LENGTH, "0".to_owned()))
        }
        Selection::Whole => Ok(Response::new(found.whole())),
        Selection::Part(part) => {
            let said = content_range(&part, found.len());
            let partial = response(StatusCode::PARTIAL_CONTENT, found.part(part));
            Ok(with_field(partial, CONTENT_RANGE, said))
        }
        Selection::Parts(parts) => Ok(multipart(found, parts)),
        Selection::Unsatisfiable => {
            let page = pages::page(StatusCode::RANGE_NOT_SATISFIABLE);
            Ok(with_field(page, CONTENT_RANGE, unsatisfied(found.len())))
        }
    }
}

/// The same for a file that stands in for another that is not there: it may not be stored under that name. A 304 says
/// so too, for its fields replace those that were stored (RFC 9111, section 4.3.4).
///
/// # Errors
/// As [`with_file`].
pub(super) fn with_fallback(request: &Request, found: &Found) -> Result<Response, StatusCode> {
    let mut response = with_file(request, &found.without_cache_control())?;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}

/// Whether parts of a file are asked for: no other method than GET has ranges (RFC 9110, section 14.2).
pub(super) fn asks_for_parts(request: &Request) -> bool {
    request.method() == Method::GET && request.headers().contains_key(RANGE)
}

/// Several parts in one body (RFC 9110, section 14.6).
fn multipart(found: &Found, parts: Vec<std::ops::Range<u64>>) -> Response {
    let boundary = boundary(&RandomState::new(), sys::clock::monotonic());
    let media_type = found.media_type.to_str().unwrap_or_default();
    let mut pieces = Vec::with_capacity(parts.len() * 2 + 1);
    for part in parts {
        let line_end = if pieces.is_empty() { "" } else { "\r\n" };
        let said = content_range(&part, found.len());
        let head = format!("{line_end}--{boundary}\r\nContent-Type: {media_type}\r\nContent-Range: {said}\r\n\r\n");
        pieces.push(Piece::Bytes(Bytes::from(head)));
        pieces.push(found.piece(part));
    }
    pieces.push(Piece::Bytes(Bytes::from(format!("\r\n--{boundary}--\r\n"))));
    let partial = response(StatusCode::PARTIAL_CONTENT, found.pieces(pieces));
    with_field(partial, CONTENT_TYPE, format!("multipart/byteranges; boundary={boundary}"))
}

/// What no file has inside, as nobody knows it before. Processes that were forked from one have its `keys`; what they
/// are asked at different moments differs all the same.
fn boundary(keys: &RandomState, moment: Duration) -> String {
    format!("{:016x}{:016x}", keys.hash_one((moment, 0)), keys.hash_one((moment, 1)))
}

/// A redirect to the folder `path`, written without `/` at its end, so that its relative links work.
///
/// It goes to where the path leads, not to what was asked: `//host/` would be a whole reference to another host
/// (RFC 3986, section 4.2).
///
/// # Errors
/// 400 for a query that no field can hold.
pub(super) fn redirect_into(path: &UrlPath, uri: &Uri) -> Result<Response, StatusCode> {
    const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    // The root has one slash: two would begin a host.
    let end = if path.decoded.is_empty() { "" } else { "/" };
    let path = percent_encode(&path.decoded, ENCODED);
    let location = match uri.query() {
        Some(query) => format!("/{path}{end}?{query}"),
        None => format!("/{path}{end}"),
    };
    let location = HeaderValue::try_from(location).map_err(|_| StatusCode::BAD_REQUEST)?;
    let mut response = pages::page(StatusCode::MOVED_PERMANENTLY);
    response.headers_mut().insert(LOCATION, location);
    Ok(response)
}

fn response(status: StatusCode, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

fn with_field(mut response: Response, name: HeaderName, value: String) -> Response {
    // What is said of ranges and boundaries is digits, letters and blanks.
    if let Ok(value) = HeaderValue::try_from(value) {
        response.headers_mut().insert(name, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_forked_from_one_write_other_boundaries() {
        let keys = RandomState::new();
        let boundaries = [1, 2].map(|nanoseconds| boundary(&keys, Duration::from_nanos(nanoseconds)));
        assert_ne!(boundaries[0], boundaries[1]);
        assert!(boundaries.iter().all(|boundary| boundary.len() == 32 && boundary[..16] != boundary[16..]));
    }
}
