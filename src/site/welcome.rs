//! The page that a new Regrow shows while it has no site to serve. Knows nothing of folders.

use bytes::Bytes;
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};

use super::files::{UrlPath, reads, without_file};
use super::{Body, Exchange, Handler, Request, Response};
use crate::board::Identity;

/// Serves one page, at `/`, that says which worker answered.
#[derive(Debug)]
pub(crate) struct Welcome {
    html: Bytes,
}

impl Welcome {
    /// The page of the worker with this identity.
    pub(crate) fn new(identity: Identity) -> Self {
        let html = include_str!("welcome.html")
            .replace("{worker}", &identity.worker.to_string())
            .replace("{generation}", &identity.generation.to_string())
            .replace("{pid}", &identity.pid.to_string());
        Self { html: html.into() }
    }

    fn answer(&self, request: &Request) -> Result<Response, StatusCode> {
        reads(request.method())?;
        if !UrlPath::resolve(request.uri().path())?.decoded.is_empty() {
            return Err(StatusCode::NOT_FOUND);
        }
        let mut response = Response::new(Body::from(self.html.clone()));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(response)
    }
}

impl Handler for Welcome {
    fn handle(&self, exchange: Exchange) {
        let (request, responder) = exchange.into_parts();
        responder.respond(self.answer(&request).unwrap_or_else(without_file));
    }

    fn may_block(&self, _request: &Request) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::site::testing::{answer, field, get, text};

    fn welcome() -> Welcome {
        Welcome::new(Identity { worker: 2, generation: 3, pid: 4711 })
    }

    #[test]
    fn page_says_who_answered_and_may_not_be_stored() {
        let response = get(&welcome(), "/?again");
        assert_eq!(response.status(), 200);
        assert_eq!(field(&response, "content-type"), "text/html; charset=utf-8");
        assert_eq!(field(&response, "cache-control"), "no-store");
        let html = text(response);
        for said in ["<dd>2</dd>", "<dd>3</dd>", "<dd>4711</dd>", "regrow serve FOLDER", "regrow init"] {
            assert!(html.contains(said), "{said} is missing in\n{html}");
        }
    }

    #[test]
    fn page_is_one_small_file_that_loads_nothing() {
        let html = text(get(&welcome(), "/"));
        assert!(html.len() < 6 * 1024, "{} bytes", html.len());
        for loads in ["<script", "src=", "href=\"http", "url(", "@import"] {
            assert!(!html.contains(loads), "{loads}");
        }
    }

    #[test]
    fn nothing_else_is_there() {
        assert_eq!(get(&welcome(), "/index.html").status(), 404);
        assert_eq!(get(&welcome(), "/%2e%2e/").status(), 400);
        assert_eq!(answer(&welcome(), Method::HEAD, "/").status(), 200);
        assert_eq!(answer(&welcome(), Method::POST, "/").status(), 405);
    }
}
