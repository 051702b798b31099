//! Files that are replaced, rewritten, truncated and deleted while they are read: every answer is one version, and no
//! old one.
//!
//! A version of a file consists of lines of 64 bytes, each with the version and its own number.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant, SystemTime};

use crate::support::{Connection, Launch, Reply, Server, wait_until};

const CLIENTS: usize = 8;
const LENGTHS_IN_LINES: [usize; 4] = [32, 320, 3_200, 49_152];
const RACE_LASTS: Duration = Duration::from_secs(6);
/// Between two changes by one writer; much more than a tick of the clock that dates files.
const PAUSE: Duration = Duration::from_millis(12);
/// Within so much a change is noticed: a second, and the time for which a request may wait on a machine that is busy.
const NOTICED: Duration = Duration::from_millis(1_500);

#[test]
fn every_answer_is_one_version_while_files_are_replaced_rewritten_and_truncated() {
    let launch = Launch::regrow().args(["--processPool", "2", "--socketQueueSize", "128"]);
    let root = launch.folder().join("site");
    fs::create_dir(&root).unwrap();
    let all = [How::Replaced, How::Rewritten, How::Overwritten];
    let subjects = all.map(|how| LENGTHS_IN_LINES.map(|lines| Subject::new(&root, how, lines)));
    let server = launch.arg(&root).start();
    let workers = sorted(server.worker_pids());

    let (race, over) = (&Race::new(server.address()), &AtomicBool::new(false));
    thread::scope(|scope| {
        let writers: Vec<_> = subjects.iter().map(|group| scope.spawn(|| write_until(over, group))).collect();
        let all = subjects.as_flattened();
        let clients: Vec<_> = (0..CLIENTS).map(|seed| scope.spawn(move || race.run(seed, all))).collect();
        let outcomes: Vec<_> = clients.into_iter().map(ScopedJoinHandle::join).collect();
        over.store(true, Ordering::SeqCst);
        for writer in writers {
            writer.join().expect("a writer that went on");
        }
        for client in outcomes {
            client.expect("a client that was content");
        }
    });

    let [whole, parts, cut, mixed_on_disk] =
        [&race.whole, &race.parts, &race.cut, &race.mixed_on_disk].map(|count| count.load(Ordering::SeqCst));
    eprintln!("{whole} whole answers, {parts} parts, {cut} cut off, {mixed_on_disk} read from a half-written file");
    assert!(whole >= 200 && parts >= 20, "too few to show anything");
    assert_eq!(sorted(server.worker_pids()), workers, "a worker died");
    let mut connections = warm(&server, &[]);
    let since = Instant::now();
    for subject in subjects.as_flattened() {
        let last = subject.last();
        wait_for_all(&server, &mut connections, &subject.target, |reply| reply.body == last);
    }
    assert!(since.elapsed() < NOTICED, "the last versions seen only after {:?}", since.elapsed());
}

/// How a file gets its next version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// By another file, renamed.
    Replaced,
    /// Truncated, then written piece by piece; now and then cut in half.
    Rewritten,
    /// By one write over what is there.
    Overwritten,
}

/// A file that changes.
struct Subject {
    how: How,
    lines: usize,
    path: PathBuf,
    target: String,
    /// One per version, from 0.
    history: Mutex<Vec<Change>>,
}

/// When a version was written.
#[derive(Clone, Copy)]
struct Change {
    began: Instant,
    /// None while it is being written.
    ended: Option<Instant>,
}

impl Subject {
    fn new(root: &Path, how: How, lines: usize) -> Self {
        let name = format!("{how:?}-{lines}");
        let subject =
            Self { how, lines, path: root.join(&name), target: format!("/{name}"), history: Mutex::default() };
        fs::write(&subject.path, subject.version(0)).unwrap();
        let now = Instant::now();
        subject.history.lock().unwrap().push(Change { began: now, ended: Some(now) });
        subject
    }

    fn version(&self, version: usize) -> Vec<u8> {
        content(version, self.length_of(version))
    }

    /// In lines.
    fn length_of(&self, version: usize) -> usize {
        self.lines + if self.how == How::Overwritten { 0 } else { version % 17 }
    }

    fn write_next(&self) {
        let version = self.history.lock().unwrap().len();
        let content = self.version(version);
        self.history.lock().unwrap().push(Change { began: Instant::now(), ended: None });
        match self.how {
            How::Replaced => {
                let new = self.path.with_extension("new");
                fs::write(&new, content).unwrap();
                fs::rename(new, &self.path).unwrap();
            }
            How::Rewritten => {
                let mut file = File::create(&self.path).unwrap();
                content.chunks(64 << 10).for_each(|chunk| file.write_all(chunk).unwrap());
            }
            How::Overwritten => {
                let file = File::options().write(true).open(&self.path).unwrap();
                file.write_all_at(&content, 0).unwrap();
            }
        }
        self.history.lock().unwrap()[version].ended = Some(Instant::now());
    }

    fn cut_in_half(&self) {
        let file = File::options().write(true).open(&self.path).unwrap();
        file.set_len(self.lines as u64 / 2 * LINE as u64).unwrap();
    }

    /// What it is in the end: the last version, whole.
    fn last(&self) -> Vec<u8> {
        self.version(self.history.lock().unwrap().len() - 1)
    }

    /// Whether the next version was there long before `asked`.
    fn is_stale(&self, version: usize, asked: Instant) -> bool {
        let next = self.history.lock().unwrap().get(version + 1).and_then(|next| next.ended);
        next.is_some_and(|next| asked.checked_duration_since(next).is_some_and(|age| age > NOTICED))
    }

    /// Whether the file itself, between these instants, was partly of that version and partly of the one before.
    fn was_mixed(&self, version: usize, from: Instant, to: Instant) -> bool {
        let change = self.history.lock().unwrap()[version];
        self.how == How::Overwritten && change.began <= to && change.ended.is_none_or(|ended| ended >= from)
    }
}

fn write_until(over: &AtomicBool, group: &[Subject]) {
    let mut round = 0;
    while !over.load(Ordering::SeqCst) {
        for subject in group {
            if subject.how == How::Rewritten && round % 3 == 2 {
                subject.cut_in_half();
            } else {
                subject.write_next();
            }
            thread::sleep(PAUSE);
        }
        round += 1;
    }
    group.iter().for_each(Subject::write_next);
}

/// What the clients of a race have seen.
struct Race {
    address: SocketAddr,
    until: Instant,
    whole: AtomicUsize,
    parts: AtomicUsize,
    cut: AtomicUsize,
    /// Read while the file itself was one.
    mixed_on_disk: AtomicUsize,
    /// Which content an entity tag stands for: version and length.
    tags: Mutex<HashMap<(String, String), (usize, usize)>>,
}

impl Race {
    fn new(address: SocketAddr) -> Self {
        let counter = AtomicUsize::default;
        let until = Instant::now() + RACE_LASTS;
        let (whole, parts, cut, mixed_on_disk) = (counter(), counter(), counter(), counter());
        Self { address, until, whole, parts, cut, mixed_on_disk, tags: Mutex::default() }
    }

    /// A client that reads over a kept connection. Every second one reads so slowly that files change underneath.
    fn run(&self, seed: usize, subjects: &[Subject]) {
        let open = if seed % 2 == 0 { Connection::open } else { Connection::open_narrow };
        let mut connection = open(self.address).expect("nobody is refused");
        let mut known: HashMap<&str, (String, usize)> = HashMap::new();
        let mut random = seed;
        while Instant::now() < self.until {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let subject = &subjects[(random >> 33) % subjects.len()];
            let wanted = known.get(subject.target.as_str()).filter(|_| (random >> 50) % 3 == 0);
            match self.ask(&mut connection, subject, wanted) {
                Ok((tag, length)) if length >= 4 * LINE => drop(known.insert(&subject.target, (tag, length))),
                Ok(_) => {}
                Err(cause) => {
                    assert_ne!(subject.how, How::Replaced, "{} is never cut off: {cause}", subject.target);
                    self.cut.fetch_add(1, Ordering::SeqCst);
                    connection = open(self.address).expect("nobody is refused");
                }
            }
        }
    }

    /// Asks for a file, or the middle of it where it is still the wanted one; returns its entity tag and length.
    fn ask(
        &self,
        from: &mut Connection,
        subject: &Subject,
        wanted: Option<&(String, usize)>,
    ) -> Result<(String, usize), std::io::Error> {
        let target = &subject.target;
        let mut request = format!("GET {target} HTTP/1.1\r\nHost: test\r\n");
        let part = wanted.map(|(tag, length)| (tag, length / LINE / 4 * LINE, length / LINE / 4 * LINE * 3));
        if let Some((tag, start, end)) = part {
            let _ = write!(request, "Range: bytes={start}-{}\r\nIf-Range: {tag}\r\n", end - 1);
        }
        let asked = Instant::now();
        from.send(format!("{request}\r\n").as_bytes())?;
        let mut reply = from.head()?;
        let began = Instant::now();
        from.body(&mut reply.body)?;

        let tag = reply.field("etag").unwrap_or_else(|| panic!("no tag for {target}: {}", reply.head)).to_owned();
        let length = match (reply.status, part) {
            (200, _) => reply.body.len(),
            (206, Some((known, start, end))) => {
                assert_eq!(*known, tag, "{target}");
                let length = wanted.map_or(0, |(_, length)| *length);
                let range = format!("bytes {start}-{}/{length}", end - 1);
                assert_eq!(reply.field("content-range"), Some(range.as_str()), "{target}");
                length
            }
            _ => panic!("{request}{}", reply.head),
        };
        let first_line = if reply.status == 206 { part.map_or(0, |(_, start, _)| start / LINE) } else { 0 };
        self.judge(subject, &reply.body, first_line, &tag, length, (asked, began));
        let counter = if reply.status == 206 { &self.parts } else { &self.whole };
        counter.fetch_add(1, Ordering::SeqCst);
        Ok((tag, length))
    }

    fn judge(
        &self,
        subject: &Subject,
        body: &[u8],
        first_line: usize,
        tag: &str,
        length: usize,
        (asked, began): (Instant, Instant),
    ) {
        let target = &subject.target;
        let versions = versions(body, first_line).unwrap_or_else(|why| panic!("{target}: {why}"));
        let &[version] = versions.as_slice() else {
            let Some(&newest) = versions.iter().max() else { return };
            // Who reads while it is written may overtake the writer more than once.
            let is_of_two = versions.iter().all(|version| version + 1 >= newest);
            let is_excused = is_of_two && subject.was_mixed(newest, asked, began);
            assert!(is_excused, "{target} from line {first_line} is a mixture of the versions {versions:?}");
            self.mixed_on_disk.fetch_add(1, Ordering::SeqCst);
            return;
        };
        assert!(!subject.is_stale(version, asked), "{target}: version {version} is too old");
        let whole = subject.length_of(version) * LINE;
        let fits = if subject.how == How::Rewritten { length <= whole } else { length == whole };
        assert!(fits, "{target}: version {version} has {whole} bytes, not {length}");
        let mut tags = self.tags.lock().unwrap();
        let meant = *tags.entry((target.clone(), tag.to_owned())).or_insert((version, length));
        assert_eq!(meant, (version, length), "{target}: the tag {tag} of two contents");
    }
}

/// Bytes, with the line feed.
const LINE: usize = 64;

fn content(version: usize, lines: usize) -> Vec<u8> {
    let mut text = String::with_capacity(lines * LINE);
    for line in 0..lines {
        let _ = writeln!(text, "{version:08} {line:08} {:.<45}", "");
    }
    text.into_bytes()
}

/// The versions that the lines come from, or why these are not consecutive lines of versions.
fn versions(body: &[u8], first_line: usize) -> Result<Vec<usize>, String> {
    let mut versions = Vec::new();
    for (line, expected) in body.chunks(LINE).zip(first_line..) {
        let (version, number) = (line.get(..8).and_then(decimal), line.get(9..17).and_then(decimal));
        let (Some(version), Some(number), Some(&b'\n')) = (version, number, line.get(LINE - 1)) else {
            return Err(format!("line {expected} is {:?}", line.escape_ascii().to_string()));
        };
        if number != expected {
            return Err(format!("line {expected} is number {number} of version {version}"));
        }
        if versions.last() != Some(&version) {
            versions.push(version);
        }
    }
    Ok(versions)
}

fn decimal(digits: &[u8]) -> Option<usize> {
    digits.iter().try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + usize::from(digit - b'0')))
}

#[test]
fn an_answer_whose_file_changes_underneath_is_whole_or_cut_off() {
    // More than waits in the sockets between a server and a client that does not read.
    const LINES: usize = 24 << 20 >> 6;
    let launch = Launch::regrow().args(["--processPool", "2"]);
    let root = launch.folder().join("site");
    fs::create_dir(&root).unwrap();
    let server = launch.arg(&root).start();
    let workers = sorted(server.worker_pids());
    let (path, [old, new]) = (root.join("large"), [1, 2].map(|version| content(version, LINES)));

    let overwrite = || File::options().write(true).open(&path).unwrap().write_all_at(&new, 0).unwrap();
    let rewrite = || fs::write(&path, &new).unwrap();
    let shorten = || File::options().write(true).open(&path).unwrap().set_len(1 << 20).unwrap();
    let replace = || {
        fs::write(root.join("new"), &new).unwrap();
        fs::rename(root.join("new"), &path).unwrap();
    };
    let delete = || fs::remove_file(&path).unwrap();
    let changes: [(&str, &dyn Fn(), bool); 5] = [
        ("overwritten", &overwrite, false),
        ("rewritten", &rewrite, false),
        ("shortened", &shorten, false),
        ("replaced", &replace, true),
        ("deleted", &delete, true),
    ];
    // What was written to lately may be sent otherwise.
    let ages = [0, 60].map(Duration::from_secs);
    for ((name, change, arrives), age) in changes.into_iter().flat_map(|change| ages.map(|age| (change, age))) {
        fs::write(root.join("new"), &old).unwrap();
        let date = SystemTime::now() - age;
        File::options().write(true).open(root.join("new")).unwrap().set_modified(date).unwrap();
        fs::rename(root.join("new"), &path).unwrap();
        let mut connection = wait_until("the old file", || {
            let mut connection = Connection::open_narrow(server.address()).unwrap();
            connection.ask("/large").unwrap();
            let reply = connection.head().unwrap();
            let mut line = [0; LINE];
            let is_old = reply.body.len() == old.len() && connection.body(&mut line).is_ok() && old.starts_with(&line);
            is_old.then_some(connection)
        });
        change();
        let mut rest = vec![0; old.len() - LINE];
        let whole = connection.body(&mut rest).is_ok();
        assert_eq!(whole, arrives, "a file {age:?} old that is {name} meanwhile");
        assert!(!whole || rest == old[LINE..], "{name}: a mixture");
    }
    assert_eq!(sorted(server.worker_pids()), workers, "a worker died");
}

#[test]
fn switching_the_link_to_a_release_deploys_it() {
    const SWITCHES: usize = 30;
    let launch = Launch::regrow().args(["--processPool", "2", "--socketQueueSize", "128"]);
    let folder = launch.folder().to_owned();
    let files = [("/small", 32), ("/deep/medium", 1_600), ("/deep/large", 20_000)];
    for release in 0..2 {
        let root = folder.join(format!("release-{release}"));
        fs::create_dir_all(root.join("deep")).unwrap();
        for (target, lines) in files {
            fs::write(root.join(&target[1..]), content(release, lines)).unwrap();
        }
    }
    let switch_to = |release: usize| {
        symlink(format!("release-{release}"), folder.join("next")).unwrap();
        fs::rename(folder.join("next"), folder.join("current")).unwrap();
    };
    switch_to(0);
    let server = launch.arg(folder.join("current")).start();
    let mut connections = warm(&server, &files.map(|(target, _)| target));

    let (over, answers) = (AtomicBool::new(false), AtomicUsize::new(0));
    let read = |connection: &mut Connection| {
        while !over.load(Ordering::SeqCst) {
            for (target, lines) in files {
                let reply = connection.get(target).unwrap_or_else(|cause| panic!("{target} is cut off: {cause}"));
                assert_eq!((reply.status, reply.body.len()), (200, lines * LINE), "{target}: {}", reply.head);
                let versions = versions(&reply.body, 0).unwrap_or_else(|why| panic!("{target}: {why}"));
                assert_eq!(versions.len(), 1, "{target} is of both releases");
                answers.fetch_add(1, Ordering::SeqCst);
            }
        }
    };
    thread::scope(|scope| {
        let readers: Vec<_> = connections.iter_mut().map(|connection| scope.spawn(|| read(connection))).collect();
        for switch in 1..=SWITCHES {
            let seen = answers.load(Ordering::SeqCst);
            switch_to(switch % 2);
            thread::sleep(PAUSE * 4);
            let goes_on = || answers.load(Ordering::SeqCst) > seen || readers.iter().any(ScopedJoinHandle::is_finished);
            wait_until("answers between switches", || goes_on().then_some(()));
        }
        over.store(true, Ordering::SeqCst);
    });
    eprintln!("{} answers during {SWITCHES} switches", answers.load(Ordering::SeqCst));

    for release in [1, 0, 1] {
        switch_to(release);
        let since = Instant::now();
        for (target, lines) in files {
            let new = content(release, lines);
            wait_for_all(&server, &mut connections, target, |reply| reply.body == new);
        }
        assert!(since.elapsed() < NOTICED, "{:?}", since.elapsed());
    }
}

#[test]
fn whatever_happens_to_a_file_is_noticed_by_all_workers() {
    let launch = Launch::regrow().args(["--processPool", "2"]);
    let root = launch.folder().join("site");
    fs::create_dir(&root).unwrap();
    let server = launch.arg(&root).start();
    let mut connections = warm(&server, &[]);
    for lines in LENGTHS_IN_LINES {
        let path = root.join("file");
        let mut becomes = |what: &str, change: &dyn Fn(), status: u16, body: Option<&[u8]>| {
            change();
            let since = Instant::now();
            let is_seen = |reply: &Reply| reply.status == status && body.is_none_or(|body| reply.body == body);
            wait_for_all(&server, &mut connections, "/file", is_seen);
            assert!(since.elapsed() < NOTICED, "{what}, {lines} lines: {:?}", since.elapsed());
        };
        let [first, second] = [1, 2].map(|version| content(version, lines));
        let longer = [second.as_slice(), b"more"].concat();
        let half = &second[..second.len() / 2];
        let open = || File::options().write(true).open(&path).unwrap();
        becomes("made", &|| fs::write(&path, &first).unwrap(), 200, Some(&first));
        becomes("overwritten", &|| open().write_all_at(&second, 0).unwrap(), 200, Some(&second));
        becomes("appended to", &|| open().write_all_at(b"more", second.len() as u64).unwrap(), 200, Some(&longer));
        becomes("truncated", &|| open().set_len(half.len() as u64).unwrap(), 200, Some(half));
        becomes("emptied", &|| open().set_len(0).unwrap(), 200, Some(&[]));
        becomes("deleted", &|| fs::remove_file(&path).unwrap(), 404, None);
    }
}

/// Connections, so many that every worker has some, over each of which these were asked for.
fn warm(server: &Server, targets: &[&str]) -> Vec<Connection> {
    let mut connections: Vec<_> = (0..CLIENTS).map(|_| Connection::open(server.address()).unwrap()).collect();
    for connection in &mut connections {
        for target in targets {
            assert_eq!(connection.get(target).unwrap().status, 200, "{target}");
        }
    }
    connections
}

/// Asks over each of the connections until the answer is as it should be. An answer may be cut off, where the server
/// sees only while it sends that the file is another.
fn wait_for_all(server: &Server, connections: &mut [Connection], target: &str, is_seen: impl Fn(&Reply) -> bool) {
    for connection in connections {
        wait_until(target, || {
            let reply = connection.get(target);
            if reply.is_err() {
                *connection = Connection::open(server.address()).unwrap();
            }
            reply.is_ok_and(|reply| is_seen(&reply)).then_some(())
        });
    }
}

fn sorted(mut pids: Vec<i32>) -> Vec<i32> {
    pids.sort_unstable();
    pids
}
