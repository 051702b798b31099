//! The error log's lines, through `env_logger` and a real pipe.

use std::fs::File;
use std::io::Read;
use std::sync::Arc;

use ::log::Log;

use super::*;
use crate::board::Identity;
use crate::sys::log_fd;

/// A logger that writes to a pipe, with the reading end.
fn piped(level: LevelFilter, refinement: Option<&str>) -> (Logger, File) {
    let (reader, writer) = log_fd::pipe();
    (logger(Sink::over(writer), level, refinement), reader)
}

fn log(logger: &Logger, level: Level, target: &str, message: &str) {
    logger.log(&Record::builder().level(level).target(target).args(format_args!("{message}")).build());
}

fn read_all(mut reader: File) -> String {
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    text
}

fn message_of(line: &[u8]) -> &str {
    let line = std::str::from_utf8(line).unwrap().strip_suffix('\n').unwrap();
    assert!(!line.contains('\n'));
    line.split_once(": ").unwrap().1
}

fn escaped(message: &str) -> String {
    message_of(&format_line(Level::Info, format_args!("{message}"))).to_owned()
}

#[test]
fn a_record_is_a_line_with_stamp_level_and_identity() {
    set_identity(format_args!("master pid=42"));
    let (logger, reader) = piped(LevelFilter::Info, None);
    log(&logger, Level::Info, "regrow", "ready");
    set_identity(Identity { worker: 2, generation: 3, pid: 4711 });
    log(&logger, Level::Error, "regrow", "oops");
    drop(logger);
    let text = read_all(reader);
    let lines: Vec<_> = text.lines().map(|line| line.split_at(24)).collect();
    assert_eq!(lines[0].1, " info  master pid=42: ready");
    assert_eq!(lines[1].1, " error worker=2 gen=3 pid=4711: oops");
    let today = iso_stamp(SystemTime::now());
    assert_eq!(lines[0].0[..4], *std::str::from_utf8(&today[..4]).unwrap());
    assert!(lines[0].0.ends_with('Z'));
}

#[test]
fn the_level_filters_and_rust_log_refines_it() {
    let (logger, reader) = piped(LevelFilter::Warn, Some("regrow::h1=debug"));
    log(&logger, Level::Info, "regrow::serve", "hidden");
    log(&logger, Level::Debug, "regrow::h1", "shown");
    log(&logger, Level::Warn, "regrow::serve", "warned");
    drop(logger);
    let text = read_all(reader);
    assert_eq!(text.lines().map(|line| line.rsplit(' ').next().unwrap()).collect::<Vec<_>>(), ["shown", "warned"]);
}

#[test]
fn a_message_cannot_forge_a_line_or_drive_a_terminal() {
    assert_eq!(escaped("a\nb\r\n\tc"), r"a\nb\r\n\tc");
    assert_eq!(escaped("\u{1b}[2J\u{7f}\u{9b}31m\0"), r"\u{1b}[2J\u{7f}\u{9b}31m\u{0}");
    assert_eq!(escaped("a\u{2028}b\u{202e}c"), r"a\u{2028}b\u{202e}c");
    assert_eq!(escaped("straße \"quoted\" \\ 日本"), "straße \"quoted\" \\ 日本");
}

#[test]
fn a_line_ends_at_4096_bytes_with_an_ellipsis() {
    for unit in ["x", "ü", "日", "😀", "\n", "\u{1b}"] {
        for shift in 0..8 {
            let message = format!("{}{}", "y".repeat(shift), unit.repeat(LINE_MAX));
            let line = format_line(Level::Info, format_args!("{message}{message}"));
            assert!(line.len() <= LINE_MAX && line.len() > LINE_MAX - 16, "{unit:?} {}", line.len());
            assert!(message_of(&line).ends_with('…'));
        }
    }
}

#[test]
fn a_line_of_exactly_4096_bytes_stays_whole() {
    let mut line = Line::new(SystemTime::now(), Level::Info);
    let room = LINE_MAX - 1 - line.text.len();
    line.write_str(&"x".repeat(room)).unwrap();
    assert_eq!(line.finish().len(), LINE_MAX);
}

#[test]
fn lost_lines_are_told_once_the_log_can_be_written_again() {
    let (mut reader, writer) = log_fd::pipe();
    let mut lines = Lines { sink: Sink::over(writer), reported: 0 };
    let full = [&[b'x'; LINE_MAX - 1][..], b"\n"].concat();
    (0..1000).for_each(|_| lines.write_all(&full).unwrap());
    let lost = lines.sink.lost();
    assert!(lost > 0);
    reader.read_exact(&mut [0; 4 * LINE_MAX]).unwrap();
    lines.write_all(b"first\n").unwrap();
    lines.write_all(b"second\n").unwrap();
    drop(lines);
    let text = read_all(reader);
    let tail: Vec<_> = text.lines().skip_while(|line| *line != "first").collect();
    assert_eq!(tail.len(), 3);
    assert!(tail[1].contains(&format!("{lost} lines of this log were lost")), "{}", tail[1]);
    assert!(tail[1].ends_with("the reader of stdout does not keep up"), "{}", tail[1]);
}

#[test]
fn a_panic_is_noted_with_message_place_and_thread() {
    let texts = Arc::new(Mutex::new(Vec::new()));
    let previous = panic::take_hook();
    let copies = Arc::clone(&texts);
    install_panic_hook(move |text| copies.lock().unwrap().push(text.to_owned()));
    let broken = |body: fn()| thread::Builder::new().name("breaking".into()).spawn(body).unwrap().join().unwrap_err();
    broken(|| panic!("a literal"));
    broken(|| panic!("number {}", 7));
    broken(|| panic::panic_any(7));
    panic::set_hook(previous);
    // Other tests may panic meanwhile.
    let texts = texts.lock().unwrap();
    let noted: Vec<_> = texts.iter().filter(|text| text.contains("(thread breaking)")).collect();
    assert!(noted.iter().all(|text| text.starts_with("panic at src/log/error/tests.rs:")), "{noted:?}");
    let messages: Vec<_> = noted.iter().map(|text| text.rsplit_once("): ").unwrap().1).collect();
    assert_eq!(messages, ["a literal", "number 7", "(no message)"]);
}

#[test]
fn what_is_logged_goes_elsewhere_once_sink_and_level_were_exchanged() {
    let [first, second] = [(); 2].map(|()| log_fd::pipe());
    switch(Sink::over(&first.1), LevelFilter::Trace);
    assert!(sink().is_none(), "nothing is exchanged that was not set");
    init(Sink::over(&first.1), LevelFilter::Warn).unwrap();
    let say = || {
        ::log::warn!(target: "exchange", "a warning");
        ::log::info!(target: "exchange", "a word");
    };
    say();
    switch(Sink::over(&second.1), LevelFilter::Info);
    say();
    assert!(init(Sink::over(&first.1), LevelFilter::Trace).is_err(), "only once");
    switch(Sink::open(&crate::config::LogTarget::Off).unwrap(), LevelFilter::Off);
    let said = [first, second].map(|(reader, writer)| {
        drop(writer);
        let text = read_all(reader);
        (text.matches("a warning\n").count(), text.matches("a word\n").count())
    });
    assert_eq!(said, [(1, 0), (1, 1)]);
}
