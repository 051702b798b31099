//! Answers as late as it is asked to, and tells who did it: `cargo run --example slow -- --processPool 4`, then
//! `curl 'localhost:8080/?ms=1000'` in several terminals at once.

#[path = "slow/gauge.rs"]
mod gauge;

use std::process::{self, ExitCode};
use std::thread;
use std::time::Duration;

use regrow::http::StatusCode;
use regrow::http::header::{CONTENT_TYPE, HeaderValue};
use regrow::{Request, Response, serve_app};

use gauge::{Gauge, Running};

const MOST_MS: u64 = 60_000;

fn main() -> ExitCode {
    // What is opened here, before the first fork, is shared by all processes of the server.
    let notes = match gauge::notes() {
        Ok(notes) => notes,
        Err(why) => {
            eprintln!("slow: cannot make a temporary file: {why}");
            return ExitCode::FAILURE;
        }
    };
    // The outer closure runs once in each worker; the inner one, which it returns, answers all requests of that worker.
    serve_app(move |worker| {
        let gauge = Gauge::new(worker, notes.try_clone()?);
        Ok(move |request: Request| answer(&gauge, request.uri().query().unwrap_or_default()))
    })
}

fn answer(gauge: &Gauge, query: &str) -> Response {
    let ms = match asked_ms(query) {
        Ok(ms) => ms,
        Err(why) => return reply(StatusCode::BAD_REQUEST, "text/plain", why),
    };
    match gauge.measure(|| thread::sleep(Duration::from_millis(ms))) {
        Ok(running) => reply(StatusCode::OK, "application/json", report(running, ms)),
        Err(why) => reply(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", format!("cannot count who runs: {why}")),
    }
}

fn asked_ms(query: &str) -> Result<u64, String> {
    let Some(said) = query.split('&').find_map(|pair| pair.strip_prefix("ms=")) else { return Ok(0) };
    let ms = said.parse().map_err(|_| format!("ms is a number of milliseconds, as in /?ms=1000, and not {said:?}"))?;
    Ok(MOST_MS.min(ms))
}

fn report(Running { now, peak }: Running, ms: u64) -> String {
    let (pid, thread) = (process::id(), thread::current());
    let thread = format!("{} {:?}", thread.name().unwrap_or("unnamed"), thread.id());
    format!(r#"{{"pid":{pid},"thread":"{thread}","running":{now},"peak":{peak},"ms":{ms}}}"#)
}

fn reply(status: StatusCode, content_type: &'static str, mut said: String) -> Response {
    said.push('\n');
    let mut response = Response::new(said.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
