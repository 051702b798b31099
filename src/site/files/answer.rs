//! What a request for a file must be, and the answers that need no file. Knows no file system.

use http::header::{ALLOW, HeaderValue, LOCATION, RETRY_AFTER};
use http::{Method, StatusCode, Uri};

use super::UrlPath;
use crate::site::{Body, Request, Response, pages};

/// Where a request for a file leads.
///
/// # Errors
/// 405, or 204 for OPTIONS, where the method does not read; what [`UrlPath::resolve`] says of the path.
pub(crate) fn asked_path(request: &Request) -> Result<UrlPath, StatusCode> {
    match *request.method() {
        Method::GET | Method::HEAD => UrlPath::resolve(request.uri().path()),
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
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        StatusCode::SERVICE_UNAVAILABLE => {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        _ => {}
    }
    response
}

/// A redirect from a folder without `/` at its end to the same with it, so that its relative links work.
///
/// # Errors
/// 400 for a path that no field can hold.
pub(crate) fn redirect_into(uri: &Uri) -> Result<Response, StatusCode> {
    // More than one slash would name another host: `//host/` is a whole reference (RFC 3986, section 4.2).
    let path = uri.path().trim_start_matches(['/', '\\']);
    let location = match uri.query() {
        Some(query) => format!("/{path}/?{query}"),
        None => format!("/{path}/"),
    };
    let location = HeaderValue::try_from(location).map_err(|_| StatusCode::BAD_REQUEST)?;
    let mut response = pages::page(StatusCode::MOVED_PERMANENTLY);
    response.headers_mut().insert(LOCATION, location);
    Ok(response)
}
