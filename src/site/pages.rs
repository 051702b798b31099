//! The short pages that say why there is nothing better to show.

use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue};

use super::{Body, Response};

/// A page that states `status` and nothing else.
pub(crate) fn page(status: StatusCode) -> Response {
    let reason = status.canonical_reason().unwrap_or("Error");
    let text = format!(
        "<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n<title>{code} {reason}</title>\n\
         <h1>{code} {reason}</h1>\n",
        code = status.as_str()
    );
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    response
}
