//! What the logs say is whole and true, whatever clients send and whatever becomes of the files.

use std::fs;
use std::thread;

use serde_json::Value;

use crate::support::{Connection, Launch, Server, get, wait_until};

const CLIENTS: usize = 4;
const REQUESTS: usize = 250;

/// Many requests at once, with what could disturb a log.
fn send_many(server: &Server) {
    let address = server.address();
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            scope.spawn(move || {
                let mut connection = Connection::open(address).unwrap();
                for n in 0..REQUESTS {
                    let request = format!(
                        "GET /{client}/{n}?q=%0d%0a127.0.0.1 HTTP/1.1\r\nHost: test\r\nReferer: \"a\\b\" c\r\n\
                         User-Agent: \u{9b}31m\t\"GET / HTTP/1.1\" 200\r\n\r\n"
                    );
                    connection.send(request.as_bytes()).unwrap();
                    assert_eq!(connection.answer().unwrap().status, 404);
                }
            });
        }
    });
}

/// The fields of a line in the combined format: blanks separate them, but not within `"…"` and `[…]`.
fn combined_fields(line: &str) -> Vec<String> {
    let (mut fields, mut field, mut closing) = (Vec::new(), String::new(), None);
    for c in line.chars() {
        match (closing, c) {
            (None, ' ') => fields.push(std::mem::take(&mut field)),
            (None, '"') => closing = Some('"'),
            (None, '[') => closing = Some(']'),
            (Some(end), c) if c == end => closing = None,
            (_, c) => field.push(c),
        }
    }
    assert_eq!(closing, None, "an open quote in {line}");
    fields.push(field);
    fields
}

#[test]
fn combined_lines_are_whole_and_parse_whatever_clients_send() {
    let mut server = Launch::regrow().args(["--processPool", "3", "--socketQueueSize", "64"]).start();
    send_many(&server);
    assert_eq!(server.stop(), 0);
    let log = server.access_log();
    assert!(log.is_ascii(), "nothing but printable ASCII and line ends");
    assert_eq!(log.lines().count(), CLIENTS * REQUESTS);
    for line in log.lines() {
        let fields = combined_fields(line);
        assert_eq!(fields.len(), 9, "{line}");
        assert_eq!((fields[0].as_str(), fields[5].as_str()), ("127.0.0.1", "404"), "{line}");
        assert!(fields[4].starts_with("GET /") && fields[4].ends_with("?q=%0d%0a127.0.0.1 HTTP/1.1"), "{line}");
        assert_eq!(fields[7], r"\x22a\x5Cb\x22 c", "{line}");
    }
}

#[test]
fn json_lines_are_whole_and_parse_whatever_clients_send() {
    let mut server =
        Launch::regrow().args(["--processPool", "3", "--socketQueueSize", "64", "--accessFormat", "json"]).start();
    let workers = server.worker_pids();
    send_many(&server);
    assert_eq!(server.stop(), 0);
    let log = server.access_log();
    assert_eq!(log.lines().count(), CLIENTS * REQUESTS);
    for line in log.lines() {
        let entry: Value = serde_json::from_str(line).unwrap_or_else(|cause| panic!("{cause}: {line}"));
        assert!(line.chars().all(|c| !c.is_control()), "{line}");
        assert_eq!(entry["status"], 404);
        assert_eq!(entry["client"], "127.0.0.1");
        assert_eq!(entry["referer"], r#""a\b" c"#);
        assert!(entry["userAgent"].as_str().is_some_and(|agent| agent.starts_with("\u{9b}31m\t\"GET")), "{line}");
        assert!(entry["pid"].as_i64().is_some_and(|pid| workers.iter().any(|&w| i64::from(w) == pid)), "{line}");
    }
}

#[test]
fn control_characters_of_a_target_or_a_field_make_no_line_of_their_own() {
    let mut server = Launch::regrow().start();
    let forgeries = [
        "GET /\x1b[2J HTTP/1.1\r\nHost: test\r\n\r\n",
        "GET /a\rforged HTTP/1.1\r\nHost: test\r\n\r\n",
        "GET /a\nforged HTTP/1.1\r\nHost: test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: test\r\nUser-Agent: a\rforged\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: test\r\nUser-Agent: a\nforged\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: test\r\nUser-Agent: a\x1b[2J\r\n\r\n",
    ];
    for forgery in forgeries {
        let mut connection = Connection::open(server.address()).unwrap();
        connection.send(forgery.as_bytes()).unwrap();
        assert_eq!(connection.answer().unwrap().status, 400, "{forgery:?}");
    }
    assert_eq!(server.stop(), 0);
    let log = server.access_log();
    assert_eq!(log.lines().count(), forgeries.len(), "{log}");
    assert!(log.lines().all(|line| line.starts_with("127.0.0.1 - - [") && combined_fields(line).len() == 9), "{log}");
    assert!(log.bytes().all(|byte| byte == b'\n' || (0x20..0x7f).contains(&byte)), "{log}");
}

#[test]
fn a_full_disk_costs_log_lines_and_no_request() {
    let mut server = Launch::regrow().args(["--processPool", "2", "--accessLog", "/dev/full"]).start();
    let mut connection = Connection::open(server.address()).unwrap();
    for _ in 0..2_000 {
        assert_eq!(connection.get("/").unwrap().status, 200);
    }
    assert_eq!(server.worker_pids().len(), 2);
    let told = server.log().lines().filter(|line| line.contains("os error 28") || line.contains("No space")).count();
    assert!(told <= 10, "{told} lines about a full disk");
    assert_eq!(server.stop(), 0);
}

#[test]
fn a_full_disk_of_the_error_log_costs_no_request() {
    let launch = Launch::regrow().args(["--processPool", "2", "--socketQueueSize", "64", "--errorLog", "/dev/full"]);
    let socket = launch.folder().join("site.sock");
    let launch = launch.arg("--socketFile").arg(&socket).listening_elsewhere();
    let mut server = launch.spawn();
    let reply = wait_until("an answer", || crate::support::get_unix(&socket, "/").ok());
    assert_eq!(reply.status, 200);
    assert_eq!(server.stop(), 0);
}

#[test]
fn log_files_that_vanish_cost_lines_and_no_request() {
    let launch = Launch::regrow().args(["--processPool", "2", "--socketQueueSize", "64"]);
    let folder = launch.folder().join("logs");
    fs::create_dir(&folder).unwrap();
    let mut server = launch.arg("--accessLog").arg(folder.join("access.log")).start();
    assert_eq!(get(server.address(), "/").unwrap().status, 200);
    fs::remove_dir_all(&folder).unwrap();
    for _ in 0..50 {
        assert_eq!(get(server.address(), "/").unwrap().status, 200);
    }
    assert_eq!(server.stop(), 0);
}

#[test]
fn every_line_of_the_error_log_has_time_level_and_identity() {
    let mut server = Launch::example("faulty").args(["--processPool", "2", "--socketQueueSize", "64"]).start();
    assert_eq!(get(server.address(), "/panic").unwrap().status, 500);
    assert!(get(server.address(), "/exit/3").is_err());
    server.wait_for_log("exit code 3");
    assert_eq!(server.stop(), 0);
    let log = server.log();
    for line in log.lines() {
        let (head, said) = line.split_once(": ").unwrap_or_else(|| panic!("no identity: {line}"));
        let words: Vec<_> = head.split_whitespace().collect();
        assert!(words[0].len() == 24 && words[0].ends_with('Z'), "{line}");
        assert!(["error", "warn", "info"].contains(&words[1]), "{line}");
        match words[2..] {
            ["master", pid] => assert_eq!(pid, format!("pid={}", server.pid()), "{line}"),
            [worker, "gen=1", pid] => assert!(worker.starts_with("worker=") && pid.starts_with("pid="), "{line}"),
            _ => panic!("whose line is it: {line}"),
        }
        assert!(!said.is_empty(), "{line}");
    }
    assert!(log.lines().any(|line| line.contains(" worker=") && line.contains("a handler's mistake")), "{log}");
}
