//! The corpus of requests against a living server: what `tests/corpus/h1/README.md` promises, seen from outside.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use crate::support::{Answer, Client, End, Launch, MODES};

/// What would be answered if anything behind a refusal were taken for a request.
const SMUGGLED: &[u8] = b"\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: test\r\n\r\n";

struct Case {
    name: String,
    bytes: Vec<u8>,
    /// Word and value, a list for each request.
    requests: Vec<Vec<(String, String)>>,
    status: Option<u16>,
}

#[test]
fn valid_requests_are_answered_as_promised() {
    let cases = cases("valid");
    assert!(cases.len() >= 30);
    for (mode, options) in MODES {
        for quick in ["", "quick"] {
            let server = Launch::example("testbed").options(options).env("TESTBED", quick).start();
            for case in &cases {
                case.check(server.address(), false);
            }
            eprintln!("{mode} {quick}: fine");
        }
    }
}

#[test]
fn invalid_requests_are_refused_and_nothing_behind_them_is_heard() {
    let cases = cases("invalid");
    assert!(cases.len() >= 60);
    for (mode, options) in MODES {
        let server = Launch::example("testbed").options(options).start();
        for case in &cases {
            case.check(server.address(), false);
        }
        eprintln!("{mode}: fine");
    }
}

#[test]
fn requests_may_come_byte_by_byte() {
    let server = Launch::example("testbed").env("TESTBED", "quick").start();
    let short = |case: &Case| case.bytes.len() < 400;
    for case in cases("valid").into_iter().filter(short).chain(cases("invalid").into_iter().filter(short)) {
        case.check(server.address(), true);
    }
}

fn cases(folder: &str) -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/h1").join(folder);
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "http")).collect();
    paths.sort();
    paths.iter().map(|path| Case::read(path)).collect()
}

impl Case {
    fn read(path: &Path) -> Self {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let mut case = Self { name, bytes: fs::read(path).unwrap(), requests: Vec::new(), status: None };
        let expected = fs::read_to_string(path.with_extension("expect")).unwrap();
        for line in expected.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let (word, value) = line.split_once(' ').unwrap();
            match word {
                "status" => case.status = Some(value.parse().unwrap()),
                "method" => case.requests.push(vec![(word.into(), value.into())]),
                _ => case.requests.last_mut().unwrap().push((word.into(), value.into())),
            }
        }
        case
    }

    fn check(&self, server: SocketAddr, byte_by_byte: bool) {
        let mut client = Client::open(server);
        match (byte_by_byte, self.status) {
            (false, None) => client.send(&self.bytes),
            (false, Some(_)) => client.send([&self.bytes, SMUGGLED].concat()),
            (true, None) => client.send_byte_by_byte(&self.bytes),
            (true, Some(_)) => client.send_byte_by_byte(&[&self.bytes, SMUGGLED].concat()),
        }
        let mut closes = false;
        for request in &self.requests {
            let method = &request[0].1;
            let answer = client.try_answer_to(method).unwrap_or_else(|why| panic!("{}: {why}", self.name));
            self.compare(request, &answer, byte_by_byte);
            closes = answer.closes() || (says(request, "version", "1.0") && answer.field("connection").is_none());
        }
        match self.status {
            Some(status) => self.check_refusal(&mut client, status),
            None if closes => assert_eq!(client.end(), End::Closed, "{}", self.name),
            None => assert!(client.is_kept(), "{}", self.name),
        }
    }

    fn check_refusal(&self, client: &mut Client, status: u16) {
        let answer = client.try_answer_to("GET").unwrap_or_else(|why| panic!("{}: {why}", self.name));
        assert_eq!(answer.status, status, "{}", self.name);
        assert!(answer.closes(), "{}", self.name);
        assert_eq!(client.end(), End::Closed, "{}", self.name);
    }

    fn compare(&self, request: &[(String, String)], answer: &Answer, byte_by_byte: bool) {
        let name = &self.name;
        assert_eq!(answer.status, 200, "{name}");
        let told = answer.text();
        for (word, value) in request {
            match word.as_str() {
                // The crate does not tell the target as it was sent.
                "target" => {}
                "keep-alive" => assert_eq!(!answer.closes(), value == "yes", "{name}: keep-alive"),
                "expect-continue" => {
                    // What is sent byte by byte may still arrive in one piece, so that nobody waits for leave.
                    let most = usize::from(byte_by_byte && value == "yes");
                    assert!(answer.continues <= most, "{name}: {} times 100", answer.continues);
                }
                _ if says(request, "method", "HEAD") => assert!(told.is_empty(), "{name}: a body for HEAD"),
                _ => {
                    let line = format!("{word} {value}");
                    assert!(told.lines().any(|told| told == line.trim_end()), "{name}: no {line:?} in\n{told}");
                }
            }
        }
    }
}

fn says(request: &[(String, String)], word: &str, value: &str) -> bool {
    request.iter().any(|(of, said)| of == word && said == value)
}
