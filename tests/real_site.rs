//! A real site that nobody here wrote, every byte of it, while workers are killed throughout.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::Instant;

use nix::sys::signal::Signal;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::support::{Connection, Launch, PATIENCE, Reply, Server, time, wait_until};

const FILES: usize = 2_400;
const CONNECTIONS: usize = 6;
const WORKERS: usize = 3;
/// A worker is killed each time so many more files have arrived.
const FILES_PER_KILL: usize = 80;
const ATTEMPTS: usize = 5;

#[test]
fn a_real_site_arrives_whole_while_workers_are_killed() {
    let folder = real_site();
    let files = pick(&folder, FILES);
    let server = Launch::regrow().arg(&folder).args(["--processPool", "3", "--socketQueueSize", "128"]).start();
    let visit = Visit::new(&server, &folder);

    let kills = thread::scope(|scope| {
        let killer = scope.spawn(|| visit.kill_throughout());
        let shares = files.chunks(FILES.div_ceil(CONNECTIONS));
        let readers: Vec<_> = shares.map(|share| scope.spawn(|| visit.read_all(share))).collect();
        let read: Vec<_> = readers.into_iter().map(ScopedJoinHandle::join).collect();
        visit.over.store(true, Ordering::SeqCst);
        let kills = killer.join().expect("a killer that went on");
        for read in read {
            read.expect("a reader that has read all");
        }
        kills
    });

    let failures = visit.failures.load(Ordering::SeqCst);
    eprintln!("{FILES} files of {}: {kills} kills, {failures} requests cut off", folder.display());
    assert_eq!(visit.arrived.load(Ordering::SeqCst), FILES);
    assert!(kills >= 20, "only {kills} kills");
    assert!(failures <= kills * CONNECTIONS, "{failures} failures, but only {kills} kills");
    wait_until("the pool complete again", || (server.worker_pids().len() == WORKERS).then_some(()));
    visit.read_all(&files[..100]);
    assert_eq!(visit.failures.load(Ordering::SeqCst), failures, "nobody was killed any more");
}

/// What a crawler keeps of a page: its target, entity tag and date.
type Known = (String, String, String);

#[test]
fn a_real_site_crawled_twice_is_sent_once() {
    let folder = real_site();
    let (mut files, mut folders) = (Vec::new(), Vec::new());
    walk(&folder, &folder, &mut files);
    files.iter().filter(|file| file.ends_with("index.html")).for_each(|index| folders.extend(index.parent()));
    let server = Launch::regrow().arg(&folder).args(["--processPool", "2", "--socketQueueSize", "128"]).start();

    let address = server.address();
    let (pages, first) = time(|| {
        in_shares(&folders, |folders| visit_folders(address, &folder, folders));
        in_shares(&files, |files| read_files(address, &folder, files))
    });
    let pages: Vec<Known> = pages.into_iter().flatten().collect();
    let ((), second) = time(|| drop(in_shares(&pages, |pages| revalidate(address, pages))));
    eprintln!("{} files, {} folders: read in {first:?}, revalidated in {second:?}", files.len(), folders.len());
    assert_eq!(pages.len(), files.len());
}

/// Works off all of it at once, each share over a connection of its own.
fn in_shares<T: Sync, R: Send>(all: &[T], work: impl Fn(&[T]) -> R + Sync) -> Vec<R> {
    thread::scope(|scope| {
        let shares = all.chunks(all.len().div_ceil(CONNECTIONS).max(1));
        let workers: Vec<_> = shares.map(|share| scope.spawn(|| work(share))).collect();
        workers.into_iter().map(|worker| worker.join().expect("a client that was content")).collect()
    })
}

/// Each folder is redirected to its index page.
fn visit_folders(server: SocketAddr, root: &Path, folders: &[&Path]) {
    let mut connection = Connection::open(server).expect("no connection is refused");
    for folder in folders {
        let target = target(folder);
        let slash = if target == "/" { target.clone() } else { format!("{target}/") };
        if target != "/" {
            let reply = connection.get(format!("{target}?query")).expect("an answer");
            let location = format!("{slash}?query");
            assert_eq!((reply.status, reply.field("location")), (301, Some(location.as_str())), "{target}");
        }
        let page = connection.get(&slash).expect("an answer");
        let index = fs::read(root.join(folder).join("index.html")).expect("a file of the site");
        assert!(page.status == 200 && page.body == index, "{slash}: {}", page.head);
        let tag = page.field("etag").expect("an entity tag");
        let again = ask(&mut connection, &slash, "If-None-Match", tag);
        assert_eq!((again.status, again.field("etag")), (304, Some(tag)), "{slash}");
    }
}

fn read_files(server: SocketAddr, root: &Path, files: &[PathBuf]) -> Vec<Known> {
    let mut connection = Connection::open(server).expect("no connection is refused");
    let read = |file: &PathBuf| {
        let target = target(file);
        let reply = connection.get(&target).unwrap_or_else(|cause| panic!("{target}: {cause}"));
        assert_eq!(reply.status, 200, "{target}: {}", reply.head);
        assert!(reply.body == fs::read(root.join(file)).expect("a file of the site"), "{target} differs from its file");
        let field =
            |name| reply.field(name).unwrap_or_else(|| panic!("no {name} for {target}: {}", reply.head)).to_owned();
        let (tag, date) = (field("etag"), field("last-modified"));
        assert!(tag.len() > 2 && tag.starts_with('"') && tag.ends_with('"'), "a strong tag: {tag}");
        (target, tag, date)
    };
    files.iter().map(read).collect()
}

/// Asks for each page by turns with its tag and with its date: nothing is sent a second time.
fn revalidate(server: SocketAddr, pages: &[Known]) {
    let mut connection = Connection::open(server).expect("no connection is refused");
    for (number, (target, tag, date)) in pages.iter().enumerate() {
        let by_tag = number % 2 == 0;
        let (name, value) = if by_tag { ("If-None-Match", tag) } else { ("If-Modified-Since", date) };
        // A body would be taken for the next answer, and that is none.
        let reply = ask(&mut connection, target, name, value);
        assert_eq!((reply.status, reply.field("etag")), (304, Some(tag.as_str())), "{target}: {}", reply.head);
    }
    let last = ask(&mut connection, "/", "Connection", "close");
    assert!(last.status < 500 && connection.is_closed(), "more than was asked for");
}

fn ask(connection: &mut Connection, target: &str, name: &str, value: &str) -> Reply {
    let request = format!("GET {target} HTTP/1.1\r\nHost: test\r\n{name}: {value}\r\n\r\n");
    connection.send(request.as_bytes()).unwrap_or_else(|cause| panic!("{target}: {cause}"));
    connection.answer().unwrap_or_else(|cause| panic!("{target}: {cause}"))
}

/// Several readers of one site, and one who kills its workers.
struct Visit<'a> {
    server: &'a Server,
    address: SocketAddr,
    folder: &'a Path,
    arrived: AtomicUsize,
    failures: AtomicUsize,
    over: AtomicBool,
}

impl<'a> Visit<'a> {
    fn new(server: &'a Server, folder: &'a Path) -> Self {
        Self {
            server,
            address: server.address(),
            folder,
            arrived: AtomicUsize::new(0),
            failures: AtomicUsize::new(0),
            over: AtomicBool::new(false),
        }
    }

    fn read_all(&self, files: &[PathBuf]) {
        let mut connection = self.connect();
        for file in files {
            let target = target(file);
            let reply = self.read(&mut connection, &target);
            assert_eq!(reply.status, 200, "{target}: {}", reply.head);
            let expected = fs::read(self.folder.join(file)).expect("a file of the site");
            assert!(reply.body == expected, "{target} differs from its file");
            self.arrived.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Asks once more when a kill has cut the answer off; the next kill may hit that one too.
    fn read(&self, connection: &mut Connection, target: &str) -> Reply {
        for _ in 0..ATTEMPTS {
            if let Ok(reply) = connection.get(target) {
                return reply;
            }
            self.failures.fetch_add(1, Ordering::SeqCst);
            *connection = self.connect();
        }
        panic!("{target} was cut off {ATTEMPTS} times")
    }

    fn connect(&self) -> Connection {
        Connection::open(self.address).expect("no connection is refused")
    }

    /// Kills the oldest worker again and again; returns how often.
    fn kill_throughout(&self) -> usize {
        let mut kills = 0;
        let mut by_age = Vec::new();
        while self.wait_for_arrivals((kills + 1) * FILES_PER_KILL) {
            wait_until("every slot taken", || {
                let pids = self.server.worker_pids();
                by_age.retain(|pid| pids.contains(pid));
                by_age.extend(pids.iter().filter(|pid| !by_age.contains(pid)).copied().collect::<Vec<_>>());
                (by_age.len() == WORKERS).then_some(())
            });
            self.server.signal(by_age.remove(0), Signal::SIGKILL);
            kills += 1;
        }
        kills
    }

    /// False when there is nothing more to wait for.
    fn wait_for_arrivals(&self, number: usize) -> bool {
        let deadline = Instant::now() + PATIENCE * 3;
        let enough = || self.arrived.load(Ordering::SeqCst) >= number;
        while !enough() {
            if self.over.load(Ordering::SeqCst) || Instant::now() > deadline {
                return false;
            }
            thread::yield_now();
        }
        true
    }
}

/// What may stand in a path as it is (RFC 3986 section 3.3), less what is rare enough to be worth trying encoded.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~');

fn target(file: &Path) -> String {
    format!("/{}", utf8_percent_encode(file.to_str().expect("a name in UTF-8"), ENCODED))
}

/// So many files, from all over the site.
fn pick(folder: &Path, number: usize) -> Vec<PathBuf> {
    let mut all = Vec::new();
    walk(folder, folder, &mut all);
    all.sort();
    let step = (all.len() / number).max(1);
    let picked: Vec<_> = all.into_iter().step_by(step).take(number).collect();
    assert_eq!(picked.len(), number, "{} has too few files; {REMEDY}", folder.display());
    picked
}

/// Plain files below `folder`, whose names neither begin with a dot nor are links.
fn walk(root: &Path, folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, Ok(kind)) = (entry.path(), entry.file_type()) else { continue };
        let Some(name) = entry.file_name().to_str().map(ToOwned::to_owned) else { continue };
        if name.starts_with('.') {
            continue;
        }
        if kind.is_dir() {
            walk(root, &path, found);
        } else if kind.is_file() {
            found.push(path.strip_prefix(root).expect("a path below the root").to_owned());
        }
    }
}

const REMEDY: &str = "install the Rust documentation (`rustup component add rust-docs`) or a large -doc package (Debian: \
                      rust-doc or python3-doc), or set REGROW_TEST_SITE to a folder of at least 2,400 files";

/// The folder that `REGROW_TEST_SITE` names, the documentation of the Rust toolchain, or a large one of Debian.
fn real_site() -> PathBuf {
    if let Some(folder) = std::env::var_os("REGROW_TEST_SITE").filter(|folder| !folder.is_empty()) {
        return folder.into();
    }
    let packages = fs::read_dir("/usr/share/doc").into_iter().flatten().flatten().map(|entry| entry.path());
    let packages = packages.filter(|path| path.is_dir() && path.to_str().is_some_and(|path| path.ends_with("-doc")));
    let candidates = toolchain_documentation().into_iter().chain(packages);
    candidates.into_iter().find(|folder| is_large(folder)).unwrap_or_else(|| panic!("no real site to serve: {REMEDY}"))
}

fn toolchain_documentation() -> Option<PathBuf> {
    let output = Command::new("rustc").args(["--print", "sysroot"]).output().ok()?;
    let sysroot = String::from_utf8(output.stdout).ok()?;
    Some(Path::new(sysroot.trim()).join("share/doc/rust/html"))
}

fn is_large(folder: &Path) -> bool {
    let mut files = Vec::new();
    walk(folder, folder, &mut files);
    files.len() >= FILES
}
