//! The lines of the access log, and its batches through real pipes.

use std::io::Read;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use serde_json::{Value, json};

use super::resolver::FarEnds;
use super::*;
use crate::board::Identity;
use crate::config::LogTarget;
use crate::log::can_forge;
use crate::sys::log_fd;

const IDENTITY: Identity = Identity { worker: 2, generation: 3, pid: 4711 };

/// 2026-11-22T17:03:07.123Z
fn entry() -> Entry<'static> {
    Entry {
        client: Some(Ipv4Addr::new(192, 0, 2, 17).into()),
        time: UNIX_EPOCH + Duration::from_millis(1_795_366_987_123),
        method: "GET",
        target: b"/x?y=1",
        version: Some(Version::HTTP_11),
        status: 200,
        body_bytes: 12_345,
        referer: Some(b"https://example.org/"),
        user_agent: Some(b"curl/8.5.0"),
        duration: Duration::from_micros(1_234),
    }
}

fn line(format: AccessFormat, entry: &Entry<'_>) -> String {
    let sink = Sink::open(&LogTarget::File(PathBuf::from("/dev/null"))).unwrap();
    let mut log = AccessLog::new(sink, format, IDENTITY, None);
    log.record(entry, Duration::ZERO);
    let mut line = String::from_utf8(log.batch).unwrap();
    assert!(line.len() <= LINE_MAX, "{}", line.len());
    assert_eq!(line.pop(), Some('\n'));
    assert!(!line.contains(can_forge), "{line:?}");
    line
}

fn combined(entry: &Entry<'_>) -> String {
    line(AccessFormat::Combined, entry)
}

fn json(entry: &Entry<'_>) -> Value {
    serde_json::from_str(&line(AccessFormat::Json, entry)).unwrap()
}

/// A quote, a backslash, line ends, terminal escapes, half a character: every byte there is.
fn all_bytes() -> Vec<u8> {
    (0..=255).collect()
}

#[test]
fn a_combined_line_is_that_of_apache_and_nginx() {
    assert_eq!(
        combined(&entry()),
        "192.0.2.17 - - [22/Nov/2026:17:03:07 +0000] \"GET /x?y=1 HTTP/1.1\" 200 12345 \"https://example.org/\" \"curl/8.5.0\""
    );
}

#[test]
fn what_is_absent_is_a_dash() {
    let bare =
        Entry { client: None, version: None, status: 400, body_bytes: 0, referer: None, user_agent: None, ..entry() };
    assert_eq!(combined(&bare), "unix: - - [22/Nov/2026:17:03:07 +0000] \"-\" 400 0 \"-\" \"-\"");
}

#[test]
fn clients_are_shown_in_their_shortest_form() {
    let of = |client: Ipv6Addr| Entry { client: Some(client.into()), ..entry() };
    let mapped = of(Ipv4Addr::new(10, 0, 0, 255).to_ipv6_mapped());
    assert!(combined(&mapped).starts_with("10.0.0.255 - - "));
    assert_eq!(json(&mapped)["client"], "10.0.0.255");
    assert!(combined(&of(Ipv6Addr::LOCALHOST)).starts_with("::1 - - "));
}

#[test]
fn a_json_line_has_every_key_in_order() {
    assert_eq!(
        line(AccessFormat::Json, &entry()),
        concat!(
            r#"{"time":"2026-11-22T17:03:07.123Z","client":"192.0.2.17","method":"GET","target":"/x?y=1","#,
            r#""version":"HTTP/1.1","status":200,"bytes":12345,"durationMs":1.234,"referer":"https://example.org/","#,
            r#""userAgent":"curl/8.5.0","worker":2,"generation":3,"pid":4711}"#
        )
    );
}

#[test]
fn what_is_absent_is_null_in_json() {
    let bare = Entry { client: None, version: None, referer: None, user_agent: None, ..entry() };
    let object = json(&bare);
    for key in ["method", "target", "version", "referer", "userAgent"] {
        assert_eq!(object[key], Value::Null, "{key}");
    }
    assert_eq!(object["client"], "unix:");
}

#[test]
fn no_byte_of_a_client_forges_a_combined_line() {
    let bytes = all_bytes();
    let line = combined(&Entry { target: &bytes, referer: Some(&bytes), user_agent: Some(b"\"\n\\"), ..entry() });
    assert!(line.bytes().all(|byte| (0x20..=0x7e).contains(&byte)));
    assert!(line.ends_with(r#" "\x22\x0A\x5C""#));
    assert_eq!(line.matches('"').count(), 6);
    for shown in [r"\x00\x01", r"\x09\x0A\x0B", r"\x1F !\x22#$%&", r"[\x5C]", r"~\x7F\x80", r"\xFE\xFF"] {
        assert_eq!(line.matches(shown).count(), 2, "{shown}");
    }
}

#[test]
fn no_byte_of_a_client_forges_a_json_line() {
    let bytes = all_bytes();
    let object = json(&Entry { target: &bytes, referer: Some(&bytes), user_agent: Some(&bytes), ..entry() });
    assert_eq!(object["target"], *String::from_utf8_lossy(&bytes));
    let odd = "\u{7f}\u{9b}2J\u{2028}\u{202e}ü日😀\"\\";
    assert_eq!(json(&Entry { target: odd.as_bytes(), ..entry() })["target"], odd);
}

#[test]
fn a_line_never_exceeds_4096_bytes_and_shows_the_cut() {
    let largest = |bytes: &'static [u8]| Entry {
        client: Some(Ipv6Addr::from([0xabcd; 8]).into()),
        method: std::str::from_utf8(bytes).unwrap_or("METHOD"),
        target: bytes,
        status: u16::MAX,
        body_bytes: u64::MAX,
        referer: Some(bytes),
        user_agent: Some(bytes),
        duration: Duration::MAX,
        ..entry()
    };
    for unit in
        [&b"x"[..], b"\"", b"\n", b"\xff", b"\x1b", b"\xe2\x80\xa8", "ü".as_bytes(), "😀".as_bytes(), b"\xf0\x9f"]
    {
        let bytes: &'static [u8] = unit.repeat(9000).leak();
        let text = combined(&largest(bytes));
        assert_eq!(text.matches("... HTTP/1.1").count(), 1, "{unit:?}");
        assert_eq!(text.matches("...\"").count(), 2, "{unit:?}");
        let object = json(&largest(bytes));
        for (key, limit) in [("target", TARGET_MAX), ("referer", REFERER_MAX), ("userAgent", USER_AGENT_MAX)] {
            let value = object[key].as_str().unwrap();
            assert!(value.ends_with("...") && value.len() <= limit, "{unit:?} {key}");
        }
    }
    let every_number = Identity { worker: u32::MAX, generation: u32::MAX, pid: i32::MAX };
    let sink = Sink::open(&LogTarget::Stderr).unwrap();
    let (resolver, far_ends) = Resolver::pair();
    let mut log = AccessLog::new(sink, AccessFormat::Json, every_number, Some(resolver));
    log.record(&largest(b"\x1b".repeat(9000).leak()), S);
    far_ends.call(&"x".repeat(253));
    let line = batch(&mut log, S);
    assert!((LINE_MAX - 200..=LINE_MAX).contains(&line.len()), "{}", line.len());
}

#[test]
fn a_field_of_just_the_limit_stays_whole() {
    for length in [USER_AGENT_MAX - 1, USER_AGENT_MAX] {
        let agent = [vec![b'x'; length - 4], b"\"\"".to_vec()].concat(); // escaped in JSON: length
        let object = json(&Entry { user_agent: Some(&agent), ..entry() });
        assert_eq!(object["userAgent"].as_str().unwrap().as_bytes(), agent);
    }
    let agent = vec![b'x'; USER_AGENT_MAX];
    assert!(combined(&Entry { user_agent: Some(&agent), ..entry() }).ends_with("xxxx\""));
    let agent = [&agent[4..], b"\n"].concat();
    assert!(combined(&Entry { user_agent: Some(&agent), ..entry() }).ends_with("x\\x0A\""));
    let agent = [&agent[..], b"x"].concat();
    let cut = combined(&Entry { user_agent: Some(&agent), ..entry() });
    assert!(cut.ends_with(&format!("\"{}...\"", "x".repeat(USER_AGENT_MAX - 4))), "{cut}");
}

#[test]
fn lines_are_gathered_and_flushed_in_order() {
    let (mut reader, writer) = log_fd::pipe();
    let mut log = AccessLog::new(Sink::over(writer), AccessFormat::Combined, IDENTITY, None);
    assert!(log.is_empty());
    let mut count = 0;
    while !log.is_full() {
        log.record(&Entry { status: 100 + count, ..entry() }, Duration::ZERO);
        count += 1;
    }
    assert!(!log.is_empty());
    log.flush(Duration::ZERO);
    assert!(log.is_empty() && !log.is_full());
    drop(log);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    let statuses: Vec<u16> = text.lines().map(|line| line.split(' ').nth(8).unwrap().parse().unwrap()).collect();
    assert_eq!(statuses, (100..100 + count).collect::<Vec<_>>());
}

#[test]
fn a_log_that_is_off_keeps_nothing() {
    let mut log = AccessLog::new(Sink::open(&LogTarget::Off).unwrap(), AccessFormat::Json, IDENTITY, None);
    log.record(&entry(), Duration::ZERO);
    assert!(log.is_empty());
    log.flush(Duration::ZERO);
}

#[test]
fn lost_lines_are_reported_once_per_interval() {
    let sink = Sink::open(&LogTarget::File(PathBuf::from("/dev/full"))).unwrap();
    let mut log = AccessLog::new(sink, AccessFormat::Combined, IDENTITY, None);
    let mut lose_at = |seconds: u64| {
        log.record(&entry(), Duration::ZERO);
        log.sink.write(&std::mem::take(&mut log.batch));
        log.loss_to_report(Duration::from_secs(seconds))
    };
    assert_eq!([0, 1, 9, 10, 11, 21].map(&mut lose_at), [Some(1), None, None, Some(3), None, Some(2)]);
    assert_eq!(log.loss_to_report(Duration::from_secs(60)), None);
}

/// A log whose clients are named by the test.
fn naming_log(format: AccessFormat) -> (AccessLog, FarEnds) {
    let (resolver, far_ends) = Resolver::pair();
    let sink = Sink::open(&LogTarget::File(PathBuf::from("/dev/null"))).unwrap();
    (AccessLog::new(sink, format, IDENTITY, Some(resolver)), far_ends)
}

/// The batch that the next flush would write.
fn batch(log: &mut AccessLog, now: Duration) -> String {
    log.naming.as_mut().unwrap().release(now, &mut log.batch);
    String::from_utf8(std::mem::take(&mut log.batch)).unwrap()
}

const S: Duration = Duration::from_secs(1);

#[test]
fn a_line_waits_for_the_name_of_its_client_and_shows_it() {
    let (mut log, far_ends) = naming_log(AccessFormat::Combined);
    let address = line(AccessFormat::Combined, &entry());
    let named = address.replace("192.0.2.17 - - ", "a.example - - ");
    log.meet(entry().client.unwrap(), S);
    log.record(&entry(), S);
    log.record(&Entry { client: None, ..entry() }, S);
    assert!(batch(&mut log, S).starts_with("unix: - - ["), "others do not wait");
    assert!(!log.is_empty() && !log.is_full());
    log.record(&entry(), S);
    far_ends.call("a.example");
    assert_eq!(batch(&mut log, S), format!("{named}\n{named}\n"));
    assert!(log.is_empty());
    log.record(&entry(), 2 * S);
    assert_eq!(batch(&mut log, S), format!("{named}\n"));
    assert_eq!(far_ends.question(), None, "asked once");
}

#[test]
fn a_line_has_the_address_where_there_is_no_name_or_no_answer_in_time() {
    let (mut log, far_ends) = naming_log(AccessFormat::Combined);
    let address = format!("{}\n", line(AccessFormat::Combined, &entry()));
    log.record(&entry(), S);
    log.flush(2 * S);
    assert!(!log.is_empty());
    assert_eq!(batch(&mut log, 3 * S), address);
    log.record(&entry(), 4 * S);
    assert_eq!(batch(&mut log, 4 * S), address);
    far_ends.call("");
    assert_eq!(batch(&mut log, 5 * S), "");
    log.record(&entry(), 5 * S);
    assert_eq!(batch(&mut log, 5 * S), address);
    assert_eq!(far_ends.question(), None);
}

#[test]
fn a_log_that_ends_writes_what_waits() {
    let (mut reader, writer) = log_fd::pipe();
    let (resolver, _far_ends) = Resolver::pair();
    let mut log = AccessLog::new(Sink::over(writer), AccessFormat::Combined, IDENTITY, Some(resolver));
    log.record(&entry(), S);
    log.flush(Duration::MAX);
    drop(log);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, format!("{}\n", line(AccessFormat::Combined, &entry())));
}

#[test]
fn without_a_resolver_lines_have_addresses_and_do_not_wait() {
    let (mut log, far_ends) = naming_log(AccessFormat::Combined);
    drop(far_ends);
    log.record(&entry(), S);
    assert_eq!(log.batch, format!("{}\n", line(AccessFormat::Combined, &entry())).into_bytes());
}

#[test]
fn lines_that_find_no_room_among_the_questions_do_not_wait() {
    let (mut log, _far_ends) = naming_log(AccessFormat::Combined);
    let many = (0..10_000).map(|n| Ipv4Addr::from(n).into());
    let waiting = many.take_while(|&client| {
        log.record(&Entry { client: Some(client), ..entry() }, S);
        log.batch.is_empty()
    });
    assert!((100..10_000).contains(&waiting.count()));
}

#[test]
fn an_address_of_ipv4_is_looked_up_as_one() {
    let (mut log, far_ends) = naming_log(AccessFormat::Combined);
    log.record(&Entry { client: Some(Ipv4Addr::new(192, 0, 2, 17).to_ipv6_mapped().into()), ..entry() }, S);
    log.record(&entry(), S);
    assert!(far_ends.question().is_some());
    assert_eq!(far_ends.question(), None);
}

#[test]
fn a_named_json_line_keeps_the_address() {
    let (mut log, far_ends) = naming_log(AccessFormat::Json);
    for client in [entry().client, None] {
        log.record(&Entry { client, ..entry() }, S);
    }
    far_ends.call("a.example");
    let lines = batch(&mut log, S);
    let objects: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let shown: Vec<_> = objects.iter().map(|object| (&object["client"], &object["host"])).collect();
    assert_eq!(shown, [(&json!("unix:"), &Value::Null), (&json!("192.0.2.17"), &json!("a.example"))]);
    assert!(lines.ends_with("\"pid\":4711,\"host\":\"a.example\"}\n"), "{lines}");
}

#[test]
fn all_fields_of_json_are_of_the_expected_type() {
    let object = json(&Entry { duration: Duration::from_nanos(2_000_400), ..entry() });
    assert_eq!(object["durationMs"], json!(2.0));
    assert!(object["bytes"].is_u64() && object["status"].is_u64() && object["pid"].is_u64());
}
