//! What load balancers ask: whether the pool lives, and whether it takes requests. Reads the scoreboard and nothing else,
//! so that the answer depends on no worker.

use std::time::Duration;

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Body, Exchange, Handler, Request, Response, pages};
use crate::board::{Board, Phase};
use crate::sys;

/// A loop that has not come round for so long takes no requests, whatever it says of itself.
const STUCK_AFTER: Duration = Duration::from_secs(5);

/// Answers `/healthz` and `/readyz`.
pub(crate) struct Health {
    board: Board,
    /// The master's.
    pid: i32,
}

impl Health {
    pub fn new(board: Board, pid: i32) -> Self {
        Self { board, pid }
    }

    fn answer(&self, request: &Request) -> Response {
        let judge = match request.uri().path() {
            "/healthz" => alive,
            "/readyz" => ready,
            _ => return pages::page(StatusCode::NOT_FOUND),
        };
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = pages::page(StatusCode::METHOD_NOT_ALLOWED);
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        self.report(judge)
    }

    /// What `/readyz` is answered.
    pub fn readiness(&self) -> Response {
        self.report(ready)
    }

    fn report(&self, judge: Judge) -> Response {
        let load = self.board.load(sys::clock::monotonic(), STUCK_AFTER, sys::process::can_run);
        let pool = self.board.pool();
        let (status, why) = match judge(pool.phase, load.taking) {
            Ok(()) => (StatusCode::OK, Value::Null),
            Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why.into()),
        };
        let said = json!({
            "ok": status == StatusCode::OK,
            "reason": why,
            "master": {"pid": self.pid, "phase": pool.phase.as_str()},
            "workers": {"wanted": pool.wanted, "serving": pool.serving},
            "loops": {"taking": load.taking, "busy": load.busy},
            "connections": load.connections,
        });
        let mut response = Response::new(Body::from(format!("{said}\n")));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

impl Handler for Health {
    fn handle(&self, exchange: Exchange) {
        let (request, responder) = exchange.into_parts();
        responder.respond(self.answer(&request));
    }

    fn may_block(&self, _request: &Request) -> bool {
        false
    }
}

/// What is to be said of a pool in that phase of which so many loops take requests: nothing, or why it is not well.
type Judge = fn(Phase, u64) -> Result<(), &'static str>;

/// Whether it makes sense to let it be.
fn alive(phase: Phase, taking: u64) -> Result<(), &'static str> {
    match (phase, taking) {
        (Phase::Stopping | Phase::HandedOver, _) | (Phase::Running, 1..) => Ok(()),
        (Phase::Starting, _) => Err(STARTING),
        (Phase::Running, 0) => Err(NOBODY),
    }
}

/// Whether requests are to be sent here.
fn ready(phase: Phase, taking: u64) -> Result<(), &'static str> {
    match (phase, taking) {
        // The next master has all its workers.
        (Phase::HandedOver, _) | (Phase::Running, 1..) => Ok(()),
        (Phase::Starting, _) => Err(STARTING),
        (Phase::Stopping, _) => Err("it stops; what is under way is finished"),
        (Phase::Running, 0) => Err(NOBODY),
    }
}

const STARTING: &str = "it starts; no worker was ready yet";
const NOBODY: &str = "no worker takes requests; the error log says why";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::{Pool, Record};
    use crate::site::testing::{answer, field, get, text};

    fn board(phase: Phase, wanted: u32, serving: u32) -> (Board, Vec<Record>) {
        let board = Board::new(4).unwrap();
        board.tell(Pool { phase, wanted, serving });
        let records = board.claim(serving as usize).unwrap();
        records.iter().for_each(|record| record.open(sys::process::pid()));
        (board, records)
    }

    fn status(board: Board, path: &str) -> u16 {
        get(&Health::new(board, 7), path).status().as_u16()
    }

    #[test]
    fn health_and_readiness_follow_the_phase_and_the_workers() {
        for (phase, serving, healthy, ready) in [
            (Phase::Starting, 0, 503, 503),
            (Phase::Running, 0, 503, 503),
            (Phase::Running, 1, 200, 200),
            (Phase::Stopping, 1, 200, 503),
            (Phase::Stopping, 0, 200, 503),
            (Phase::HandedOver, 0, 200, 200),
        ] {
            let (board, _) = board(phase, 2, serving);
            assert_eq!((status(board, "/healthz"), status(board, "/readyz")), (healthy, ready), "{phase:?} {serving}");
        }
    }

    #[test]
    fn a_worker_that_has_hung_takes_no_requests() {
        let (hung, records) = board(Phase::Running, 1, 1);
        let now = sys::clock::monotonic();
        records.iter().for_each(|record| record.begin_turn(now.saturating_sub(STUCK_AFTER * 2)));
        assert_eq!(status(hung, "/readyz"), 503);
        records.iter().for_each(Record::end_turn);
        assert_eq!(status(hung, "/readyz"), 200, "it waits for events again");
    }

    #[test]
    fn the_answer_tells_what_is_known() {
        let response = get(&Health::new(board(Phase::Running, 3, 2).0, 7), "/healthz");
        assert_eq!(field(&response, "content-type"), "application/json");
        assert_eq!(field(&response, "cache-control"), "no-store");
        let said: Value = serde_json::from_str(&text(response)).unwrap();
        assert_eq!(said["master"], json!({"pid": 7, "phase": "running"}));
        assert_eq!(said["workers"], json!({"wanted": 3, "serving": 2}));
        assert_eq!(said["loops"], json!({"taking": 2, "busy": 0}));
        assert_eq!((&said["ok"], &said["reason"]), (&json!(true), &Value::Null));
    }

    #[test]
    fn anything_else_is_not_found_or_not_allowed() {
        assert_eq!(status(board(Phase::Running, 1, 1).0, "/"), 404);
        let post = answer(&Health::new(board(Phase::Running, 1, 1).0, 7), Method::POST, "/readyz");
        assert_eq!((post.status().as_u16(), field(&post, "allow")), (405, "GET, HEAD"));
    }
}
