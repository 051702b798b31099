//! What is asked in HTTP and what the master is asked, without sockets.

use std::sync::Arc;

use super::*;
use crate::board::{Board, Phase, Pool};
use crate::site::testing::{Asked, field, text};

/// Questions that were put to the master.
type Questions = Arc<Mutex<Vec<(u32, Command)>>>;

fn control() -> (Control, Questions) {
    let questions = Questions::default();
    let asked = Arc::clone(&questions);
    let ask = move |message: &[u8]| {
        asked.lock().unwrap().push(read_question(message).unwrap());
        Ok(())
    };
    (Control::new(health(), Box::new(ask)), questions)
}

fn health() -> Health {
    let board = Board::new(1).unwrap();
    board.tell(Pool { phase: Phase::Starting, wanted: 1, serving: 0 });
    Health::new(board, 7)
}

fn ask(control: &Control, method: &str, path: &str, body: &str) -> Asked {
    let body = RequestBody::from(bytes::Bytes::copy_from_slice(body.as_bytes()));
    Asked::new(control, http::Request::builder().method(method).uri(path).body(body).unwrap())
}

/// Status and message of an answer that must be there.
fn answer(asked: &Asked) -> (u16, bool, String) {
    let response = asked.response().expect("an answer");
    assert_eq!(field(&response, "content-type"), "application/json");
    let status = response.status().as_u16();
    let said: Value = serde_json::from_str(&text(response)).unwrap();
    (status, said["ok"].as_bool().unwrap(), said["message"].as_str().unwrap().to_owned())
}

#[test]
fn a_command_is_answered_when_its_outcome_comes_and_not_before() {
    let (control, questions) = control();
    let first = ask(&control, "POST", "/reload", "");
    let second = ask(&control, "POST", "/scale", r#"{"workers": 3}"#);
    assert_eq!(*questions.lock().unwrap(), [(1, Command::Reload), (2, Command::Scale { workers: 3 })]);
    assert!(first.response().is_none() && second.response().is_none());
    control.answer(2, Err("not in this mode".into()));
    control.answer(9, Ok("nobody asked".into()));
    assert_eq!(answer(&second), (409, false, "not in this mode".into()));
    assert!(first.response().is_none());
    control.answer(1, Ok("done".into()));
    assert_eq!(answer(&first), (200, true, "done".into()));
}

#[test]
fn every_command_has_its_path_and_its_fields() {
    let program = |path: &str| Command::Upgrade { program: Some(path.into()) };
    for (path, body, command) in [
        ("/reload", "{}", Command::Reload),
        ("/stop", "", Command::Stop { now: false }),
        ("/stop", r#"{"now": false}"#, Command::Stop { now: false }),
        ("/stop", r#"{"now": true}"#, Command::Stop { now: true }),
        ("/reopen", " {} ", Command::Reopen),
        ("/upgrade", "", Command::Upgrade { program: None }),
        ("/upgrade", r#"{"program": "/opt/new regrow"}"#, program("/opt/new regrow")),
        ("/scale", r#"{"workers": 0}"#, Command::Scale { workers: 0 }),
    ] {
        let (control, questions) = control();
        ask(&control, "POST", path, body);
        assert_eq!(*questions.lock().unwrap(), [(1, command)], "{path} {body}");
    }
}

#[test]
fn what_is_no_command_is_refused_and_not_asked() {
    let (control, questions) = control();
    for (path, body, word) in [
        ("/reload", "{", "no JSON"),
        ("/reload", "[]", "object"),
        ("/reload", r#"{"now": true}"#, "now: /reload has no such field"),
        ("/stop", r#"{"now": 1}"#, "true or false"),
        ("/upgrade", r#"{"program": "regrow"}"#, "absolute"),
        ("/upgrade", r#"{"program": 1}"#, "absolute"),
        ("/upgrade", "{\"program\": \"/a\\u0000\"}", "absolute"),
        ("/scale", "", "how many"),
        ("/scale", r#"{"workers": -1}"#, "-1: say how many"),
        ("/scale", r#"{"workers": 4294967296}"#, "how many"),
        ("/scale", r#"{"workers": "2"}"#, "how many"),
    ] {
        let (status, ok, message) = answer(&ask(&control, "POST", path, body));
        assert_eq!((status, ok), (400, false), "{path} {body}");
        assert!(message.contains(word), "{path} {body}: {message}");
    }
    assert_eq!(answer(&ask(&control, "POST", "/", "")).0, 404);
    assert_eq!(answer(&ask(&control, "GET", "/x", "")).0, 404);
    for (method, path, allow) in [("GET", "/stop", "POST"), ("POST", "/status", "GET, HEAD"), ("PUT", "/scale", "POST")]
    {
        let asked = ask(&control, method, path, "");
        let response = asked.response().unwrap();
        assert_eq!((response.status().as_u16(), field(&response, "allow")), (405, allow), "{method} {path}");
    }
    assert!(questions.lock().unwrap().is_empty());
}

#[test]
fn so_many_commands_are_open_at_once_and_no_more() {
    let (control, questions) = control();
    let open: Vec<_> = (0..MOST_OPEN).map(|_| ask(&control, "POST", "/reload", "")).collect();
    let (status, _, message) = answer(&ask(&control, "POST", "/reload", ""));
    assert_eq!(status, 503);
    assert!(message.contains("64 commands wait"), "{message}");
    assert_eq!(questions.lock().unwrap().len(), MOST_OPEN);
    control.answer(5, Ok("done".into()));
    assert_eq!(answer(&open[4]).0, 200);
    assert!(ask(&control, "POST", "/stop", "").response().is_none(), "there is room again");
}

#[test]
fn at_the_end_of_the_master_nobody_is_left_waiting() {
    let (control, questions) = control();
    let waiting = ask(&control, "POST", "/stop", "");
    control.end();
    for asked in [waiting, ask(&control, "POST", "/reload", "")] {
        let (status, ok, message) = answer(&asked);
        assert_eq!((status, ok), (503, false));
        assert!(message.contains("the master ends"), "{message}");
    }
    assert_eq!(questions.lock().unwrap().len(), 1);
}

#[test]
fn a_master_that_cannot_be_asked_is_told() {
    let control = Control::new(health(), Box::new(|_| Err(io::ErrorKind::WouldBlock.into())));
    let (status, _, message) = answer(&ask(&control, "POST", "/reload", ""));
    assert_eq!(status, 503);
    assert!(message.contains("cannot be asked"), "{message}");
}

#[test]
fn the_status_is_that_of_readyz() {
    let (control, _) = control();
    let response = ask(&control, "GET", "/status", "").response().unwrap();
    assert_eq!(response.status().as_u16(), 503);
    let said: Value = serde_json::from_str(&text(response)).unwrap();
    assert_eq!((&said["ok"], &said["master"]["phase"]), (&json!(false), &json!("starting")));
}
