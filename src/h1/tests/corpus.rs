//! The files of `tests/corpus/h1`; its `README.md` describes their format.

use std::fs;
use std::path::{Path, PathBuf};

use super::LIMITS;
use super::replay::{Fields, Seen, SeenHead, every_way};

/// One `.http` file and what its `.expect` file says.
pub(super) struct Case {
    path: PathBuf,
    pub(super) bytes: Vec<u8>,
    expectation: Vec<(String, String)>,
}

/// What was read, in the words of an `.expect` file.
#[derive(Default)]
struct Outcome {
    requests: Vec<(SeenHead, Vec<u8>, Fields)>,
    status: Option<String>,
}

#[test]
fn valid_files_give_what_they_promise() {
    let cases = cases_in("valid");
    assert!(cases.len() >= 30, "{} files", cases.len());
    for case in cases {
        case.check();
        assert!(case.expectation.iter().all(|(key, _)| key != "status"), "{}", case.path.display());
    }
}

#[test]
fn invalid_files_are_refused_with_their_status() {
    let cases = cases_in("invalid");
    assert!(cases.len() >= 60, "{} files", cases.len());
    for case in cases {
        case.check();
        assert!(case.expectation.iter().any(|(key, _)| key == "status"), "{}", case.path.display());
    }
}

/// All files, in the order of their names.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = cases_in("valid");
    cases.extend(cases_in("invalid"));
    cases
}

fn cases_in(folder: &str) -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/h1").join(folder);
    let files = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|end| end == "http")).collect();
    paths.sort();
    paths.into_iter().map(Case::read).collect()
}

impl Case {
    fn read(path: PathBuf) -> Self {
        let bytes = fs::read(&path).unwrap();
        let text = fs::read_to_string(path.with_extension("expect")).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        let expectation = lines
            .map(|line| line.split_once(' ').unwrap_or_else(|| panic!("{}: {line}", path.display())))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        Self { path, bytes, expectation }
    }

    fn check(&self) {
        let outcome = self.outcome();
        let name = self.path.display();
        let mut index = 0;
        for (key, value) in &self.expectation {
            index += usize::from(key == "method");
            let found = if key == "status" {
                outcome.status.clone()
            } else {
                let request = outcome.requests.get(index.wrapping_sub(1));
                request.map(|request| described(request, key, value))
            };
            assert_eq!(found.as_deref(), Some(value.as_str()), "{name}: {key}");
        }
        assert_eq!(index, outcome.requests.len(), "{name}: number of requests");
    }

    fn outcome(&self) -> Outcome {
        let trace = every_way(&self.bytes, &LIMITS);
        let mut outcome = Outcome::default();
        let mut current = None;
        for seen in trace.seen {
            match seen {
                Seen::Head(head) => current = Some((*head, Vec::new())),
                Seen::Data(data) => current.as_mut().unwrap().1 = data,
                Seen::End(trailers) => {
                    let (head, body) = current.take().unwrap();
                    outcome.requests.push((head, body, trailers));
                }
                Seen::Error(error) => outcome.status = Some(error.status().as_str().to_owned()),
            }
        }
        assert!(trace.idle || outcome.status.is_some(), "{}: the last request does not end", self.path.display());
        outcome
    }
}

/// What the request has for `key`. `value` names the field where `key` is `field` or `trailer`.
fn described((head, body, trailers): &(SeenHead, Vec<u8>, Fields), key: &str, value: &str) -> String {
    let yes_or_no = |yes| if yes { "yes" } else { "no" }.to_owned();
    match key {
        "method" => head.method.to_string(),
        "target" => head.target.escape_ascii().to_string(),
        "path" => head.uri.parse::<http::Uri>().unwrap().path().to_owned(),
        "version" => format!("{:?}", head.version).replace("HTTP/", ""),
        "keep-alive" => yes_or_no(head.keep_alive),
        "expect-continue" => yes_or_no(head.expect_continue),
        "body" => format!("\"{}\"", body.escape_ascii()),
        "field" => found_field(&head.fields, value),
        "trailer" => found_field(trailers, value),
        _ => panic!("unknown word {key:?} in an .expect file"),
    }
}

/// `name: value`, with the values of equal names joined by ` | `.
fn found_field(fields: &Fields, expected: &str) -> String {
    let wanted = expected.split(':').next().unwrap();
    let values = fields.iter().filter(|(name, _)| name == wanted);
    let values: Vec<String> = values.map(|(_, value)| value.escape_ascii().to_string()).collect();
    format!("{wanted}: {}", values.join(" | ")).trim_end().to_owned()
}
