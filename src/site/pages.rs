//! The short pages that say why there is nothing better to show.

use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue};

use super::{Body, Response};

/// A page that states `status` and nothing else.
pub(crate) fn page(status: StatusCode) -> Response {
    explained(status, "")
}

/// A page that states `status` and a sentence, which is put there as it is.
pub(crate) fn explained(status: StatusCode, sentence: &str) -> Response {
    let mut response = Response::new(Body::from(html(status, sentence)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    response
}

/// The empty icon keeps browsers from asking for one.
fn html(status: StatusCode, sentence: &str) -> String {
    let code = status.as_str();
    let reason = status.canonical_reason().unwrap_or("Error");
    format!(
        "<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n\
         <meta name=viewport content=\"width=device-width\">\n<link rel=icon href=data:,>\n\
         <title>{code} {reason}</title>\n<style>\n\
         :root{{color-scheme:light dark}}\n\
         body{{margin:0;min-height:100vh;display:grid;place-content:center;text-align:center;\
         font:1.2rem/1.4 system-ui,sans-serif}}\n\
         h1{{margin:0;font-size:1em;font-weight:400}}\n\
         b{{display:block;font-size:5em;line-height:1;font-weight:200;color:#2f8f4e;font-variant-numeric:tabular-nums}}\n\
         </style>\n<h1><b>{code}</b> {reason}</h1>\n{sentence}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_is_small_and_states_its_status() {
        for code in (300..600).filter_map(|code| StatusCode::from_u16(code).ok()) {
            let html = html(code, "");
            assert!(html.len() < 1024, "{code}: {} bytes", html.len());
            assert!(html.contains(&format!("<b>{}</b>", code.as_str())));
        }
        assert!(html(StatusCode::NOT_FOUND, "").contains("<title>404 Not Found</title>"));
    }
}
