//! Sinks over real files, devices, pipes and sockets.

use std::fs;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;

use super::*;

fn open(path: &Path) -> Sink {
    Sink::open(&LogTarget::File(path.to_owned())).unwrap()
}

fn read_all(mut reader: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).unwrap();
    bytes
}

/// A line of exactly `length` bytes, of one letter.
fn line(letter: u8, length: usize) -> Vec<u8> {
    let mut line = vec![letter; length - 1];
    line.push(b'\n');
    line
}

/// The number of lines; each must be of one letter and of the length that its letter stands for.
fn count_whole_lines(bytes: &[u8], length_of: impl Fn(u8) -> usize) -> u64 {
    assert_eq!(bytes.last(), Some(&b'\n'));
    let lines = bytes.split_inclusive(|&byte| byte == b'\n');
    lines.inspect(|&whole| assert_eq!(whole, line(whole[0], length_of(whole[0])), "torn line")).count() as u64
}

#[test]
fn a_file_is_made_private_and_appended_to() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    open(&path).write(b"one\n");
    open(&path).write(b"two\nthree\n");
    assert_eq!(fs::read(&path).unwrap(), b"one\ntwo\nthree\n");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o027, 0);
}

#[test]
fn clones_append_to_one_file_and_count_apart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let mut first = open(&path);
    let mut second = first.clone();
    first.write(b"a\n");
    second.write(b"b\n");
    first.write(b"c\n");
    assert_eq!(fs::read(&path).unwrap(), b"a\nb\nc\n");
}

#[test]
fn a_file_that_was_renamed_is_opened_anew_for_all_clones_and_under_the_same_number() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let mut first = open(&path);
    let mut second = first.clone();
    let number = first.descriptor().unwrap().as_raw_fd();
    first.write(b"a\n");
    fs::rename(&path, folder.path().join("old")).unwrap();
    second.write(b"b\n");
    first.reopen().unwrap();
    first.write(b"c\n");
    second.write(b"d\n");
    assert_eq!(first.descriptor().unwrap().as_raw_fd(), number);
    assert_eq!(fs::read(folder.path().join("old")).unwrap(), b"a\nb\n");
    assert_eq!(fs::read(&path).unwrap(), b"c\nd\n");
}

#[test]
fn a_file_that_cannot_be_opened_anew_goes_on_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let mut sink = open(&path);
    fs::remove_file(&path).unwrap();
    log_fd::make_fifo(&path);
    let no_reader = sink.reopen().unwrap_err().to_string();
    assert!(no_reader.contains("start the reader of that FIFO first"), "{no_reader}");
    let _reader = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let other_kind = sink.reopen().unwrap_err().to_string();
    assert!(other_kind.contains("it is not of the same kind as before; put a file there"), "{other_kind}");
    sink.write(b"a\n");
    assert_eq!(sink.lost(), 0);
}

#[test]
fn a_descriptor_from_elsewhere_takes_the_place_of_one_of_the_same_kind() {
    let folder = tempfile::tempdir().unwrap();
    let [mut sink, other] = ["log", "other"].map(|name| open(&folder.path().join(name)));
    let from = || other.descriptor().unwrap().try_clone_to_owned().unwrap();
    sink.replace(from()).unwrap();
    sink.write(b"a\n");
    assert_eq!(fs::read(folder.path().join("other")).unwrap(), b"a\n");
    let (_reader, writer) = log_fd::pipe();
    let pipe = Sink::over(writer);
    assert!(pipe.replace(from()).is_err() && pipe.descriptor().is_none() && pipe.reopen().is_ok());
    let off = Sink::open(&LogTarget::Off).unwrap();
    assert!(off.replace(from()).is_ok() && off.descriptor().is_none() && off.reopen().is_ok());
}

#[test]
fn a_batch_larger_than_a_pipe_takes_is_one_write_to_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let batch = line(b'x', 3000).repeat(20);
    let mut sink = open(&path);
    sink.write(&batch);
    assert_eq!(fs::read(&path).unwrap(), batch);
    assert_eq!(sink.lost(), 0);
}

#[test]
fn off_writes_nothing_and_loses_nothing() {
    let mut sink = Sink::open(&LogTarget::Off).unwrap();
    sink.write(b"a\n");
    assert!(sink.is_off());
    assert_eq!(sink.lost(), 0);
}

#[test]
fn a_full_disk_costs_lines_and_says_so() {
    let mut sink = open(Path::new("/dev/full"));
    sink.write(b"a\nb\nc\n");
    assert_eq!(sink.lost(), 3);
    assert_eq!(sink.loss_reason(), "no space left for /dev/full; free some");
}

#[test]
fn a_reader_that_has_gone_costs_lines() {
    let (reader, writer) = log_fd::pipe();
    let mut sink = Sink::over(writer);
    sink.write(b"a\n");
    drop(reader);
    sink.write(b"b\nc\n");
    assert_eq!(sink.lost(), 2);
    assert_eq!(sink.loss_reason(), "the reader of stdout has gone; restart it");
}

#[test]
fn a_socket_whose_peer_has_gone_costs_lines() {
    let (reader, writer) = UnixStream::pair().unwrap();
    let mut sink = Sink::over(writer);
    drop(reader);
    sink.write(b"a\n");
    assert_eq!(sink.lost(), 1);
}

#[test]
fn a_full_pipe_never_blocks() {
    let (mut reader, writer) = log_fd::pipe();
    let mut sink = Sink::over(writer);
    let batch = line(b'x', 1000).repeat(1000);
    sink.write(&batch);
    let lost = sink.lost();
    assert!(lost > 0);
    assert_eq!(sink.loss_reason(), "the reader of stdout does not keep up");

    let mut page = [0; 8192];
    reader.read_exact(&mut page).unwrap();
    sink.write(b"heard again\n");
    assert_eq!(sink.lost(), lost);
    drop(sink);
    let text = [&page[..], &read_all(reader)].concat();
    assert!(text.ends_with(b"\nheard again\n"));
    let whole = count_whole_lines(text.strip_suffix(b"heard again\n").unwrap(), |_| 1000);
    assert_eq!(whole + lost, 1000);
}

#[test]
fn a_full_pipe_that_cannot_be_opened_anew_never_blocks() {
    let (reader, writer) = log_fd::pipe();
    let mut sink = Sink::new(LogTarget::Stdout, Some(Output::Stream(writer)));
    sink.write(&line(b'x', 1000).repeat(1000));
    let lost = sink.lost();
    assert!(lost > 0);
    drop(sink);
    assert_eq!(count_whole_lines(&read_all(reader), |_| 1000) + lost, 1000);
}

#[test]
fn a_full_socket_never_blocks() {
    let (reader, writer) = UnixStream::pair().unwrap();
    let mut sink = Sink::over(writer);
    sink.write(&line(b'x', 1000).repeat(2000));
    let lost = sink.lost();
    assert!(lost > 0);
    drop(sink);
    assert_eq!(count_whole_lines(&read_all(reader), |_| 1000) + lost, 2000);
}

#[test]
fn the_descriptor_that_strangers_share_stays_blocking() {
    let (reader, mut writer) = log_fd::pipe();
    let mut sink = Sink::over(&writer);
    sink.write(b"ours\n");
    // Three times what a pipe holds: a non-blocking write would fail.
    let theirs = line(b'x', 200_000);
    let stranger = thread::spawn(move || writer.write_all(&theirs).unwrap());
    drop(sink);
    assert_eq!(read_all(reader).len(), 5 + 200_000);
    stranger.join().unwrap();
}

#[test]
fn eight_writers_never_tear_lines_in_a_pipe() {
    fn length_of(letter: u8) -> usize {
        if letter % 2 == 0 { LINE_MAX } else { 100 + usize::from(letter) }
    }
    let write = |mut sink: Sink, letter: u8| {
        let batch = line(letter, length_of(letter)).repeat(10);
        for _ in 0..200 {
            sink.write(&batch);
            thread::yield_now();
        }
        sink.lost()
    };
    let (reader, writer) = log_fd::pipe();
    // Clones share one description, as after a fork; forked writers would hold the pipes of other tests open.
    let sink = Sink::over(writer);
    let reading = thread::spawn(move || read_all(reader));
    let writers: Vec<_> = (b'a'..=b'h').map(|letter| (sink.clone(), letter)).collect();
    drop(sink);
    let writers: Vec<_> =
        writers.into_iter().map(|(sink, letter)| thread::spawn(move || write(sink, letter))).collect();
    let lost: u64 = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
    let whole = count_whole_lines(&reading.join().unwrap(), length_of);
    assert_eq!(whole + lost, 8 * 200 * 10);
    assert!(whole >= 16, "an empty pipe takes 16 pieces");
}

#[test]
fn a_partial_write_is_ended_before_the_next_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let mut sink = open(&path);
    fs::write(&path, "first\ntor").unwrap();
    sink.settle(b"first\ntorn\nthird\n", Ok(9));
    assert_eq!(sink.lost(), 2);
    sink.write(b"next\n");
    sink.write(b"last\n");
    assert_eq!(sink.lost(), 2);
    assert_eq!(fs::read_to_string(&path).unwrap(), "first\ntor\nnext\nlast\n");
}

#[test]
fn a_partial_write_of_whole_lines_tears_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let mut sink = open(&path);
    fs::write(&path, "first\n").unwrap();
    sink.settle(b"first\nsecond\n", Ok(6));
    assert_eq!(sink.lost(), 1);
    sink.write(b"next\n");
    assert_eq!(fs::read_to_string(&path).unwrap(), "first\nnext\n");
}

#[test]
fn a_line_too_long_for_one_piece_is_lost_alone() {
    let (reader, writer) = log_fd::pipe();
    let mut sink = Sink::over(writer);
    sink.write(&[&b"before\n"[..], &line(b'x', LINE_MAX + 1), b"after\n"].concat());
    assert_eq!(sink.lost(), 1);
    drop(sink);
    assert_eq!(read_all(reader), b"before\nafter\n");
}

#[test]
fn failing_to_open_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let message = |path: PathBuf| Sink::open(&LogTarget::File(path)).unwrap_err().to_string();
    let missing = folder.path().join("none/access.log");
    assert_eq!(
        message(missing.clone()),
        format!(
            "cannot open the log {}: No such file or directory (os error 2); make its folder first",
            missing.display()
        )
    );
    assert!(message(folder.path().to_owned()).ends_with("name a file in that folder"));
}

#[test]
fn a_fifo_without_a_reader_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fifo");
    log_fd::make_fifo(&path);
    let message = Sink::open(&LogTarget::File(path)).unwrap_err().to_string();
    assert!(message.contains("start the reader of that FIFO first"), "{message}");
}
