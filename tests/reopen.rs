//! Rotation of logs: once they were renamed and the master told, every process writes to new files, and no line is lost.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use nix::sys::signal::Signal;
use nix::unistd::Uid;

use crate::support::{Connection, Launch, Server, get_unix, wait_until};

/// A server with both logs in a folder of their own, which it reaches by a socket.
struct Rotated {
    server: Server,
    logs: PathBuf,
    socket: PathBuf,
}

impl Rotated {
    fn start(options: &[&str]) -> Self {
        let launch = Launch::regrow().options(options).args(["--socketQueueSize", "1024"]);
        let (logs, socket) = (launch.folder().join("logs"), launch.folder().join("site.sock"));
        fs::create_dir(&logs).unwrap();
        fs::set_permissions(&logs, Permissions::from_mode(0o700)).unwrap();
        let launch =
            launch.arg("--accessLog").arg(logs.join("access.log")).arg("--errorLog").arg(logs.join("error.log"));
        let server = launch.arg("--socketFile").arg(&socket).listening_elsewhere().spawn();
        let rotated = Self { server, logs, socket };
        rotated.wait_for("error.log", "serve)", 1);
        wait_until("an answer", || rotated.get().ok());
        rotated
    }

    fn get(&self) -> std::io::Result<u16> {
        get_unix(&self.socket, "/").map(|reply| reply.status)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.logs.join(name)).unwrap_or_default()
    }

    fn wait_for(&self, name: &str, text: &str, times: usize) {
        wait_until(&format!("{text:?} in {name}"), || (self.read(name).matches(text).count() >= times).then_some(()));
    }

    fn rename(&self, n: usize) {
        for name in ["access.log", "error.log"] {
            fs::rename(self.logs.join(name), self.logs.join(format!("{name}.{n}"))).unwrap();
        }
    }

    /// Renames both logs, and waits until no process has an old one open.
    fn rotate(&self, n: usize) {
        self.rename(n);
        self.server.tell(Signal::SIGUSR1);
        self.wait_for("error.log", "the log files were reopened", 1);
        self.wait_until_let_go();
    }

    fn wait_until_let_go(&self) {
        let processes = || self.server.worker_pids().into_iter().chain([self.server.pid()]);
        wait_until("nobody holding an old log", || {
            let held: Vec<_> = processes().flat_map(|pid| open_files(pid, &self.logs)).collect();
            held.iter().all(|path| path.extension().is_some_and(|end| end == "log")).then_some(())
        });
    }

    fn lines_of(&self, stem: &str) -> usize {
        let entries = fs::read_dir(&self.logs).unwrap().map(|entry| entry.unwrap().path());
        let logs = entries.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(stem));
        logs.map(|path| fs::read_to_string(path).unwrap().lines().count()).sum()
    }
}

/// What a process has open in this folder, by the names that it has now.
fn open_files(pid: i32, folder: &Path) -> Vec<PathBuf> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    descriptors.filter_map(|fd| fs::read_link(fd.path()).ok()).filter(|path| path.starts_with(folder)).collect()
}

#[test]
fn lines_go_to_the_new_files_and_none_is_lost_under_load() {
    let user: &[&str] = if Uid::effective().is_root() { &["--user", "nobody"] } else { &[] };
    for mode in [["--processPool", "4"], ["--threadPool", "4"]] {
        let mut rotated = Rotated::start(&[&mode, user].concat());
        // One was answered at its start.
        let (asked, is_over) = (AtomicUsize::new(1), AtomicBool::new(false));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while !is_over.load(Ordering::Relaxed) {
                        let mut connection = Connection::open_unix(&rotated.socket).unwrap();
                        for _ in 0..20 {
                            assert_eq!(connection.get("/").unwrap().status, 200);
                            asked.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
            for n in 0..10 {
                rotated.rotate(n);
                let [old, before] = [rotated.read(&format!("access.log.{n}")), rotated.read("access.log")];
                wait_until("lines in the new file", || (rotated.read("access.log").len() > before.len()).then_some(()));
                assert_eq!(rotated.read(&format!("access.log.{n}")).len(), old.len(), "{mode:?}: written to the old");
            }
            is_over.store(true, Ordering::Relaxed);
        });
        assert_eq!(rotated.server.stop(), 0);
        assert_eq!(rotated.lines_of("access"), asked.load(Ordering::Relaxed), "{mode:?}");
        assert!(rotated.read("error.log").contains("requests were answered"), "the master writes there too");
    }
}

#[test]
fn a_worker_that_is_forked_meanwhile_does_not_miss_it() {
    let mut rotated = Rotated::start(&["--processPool", "2"]);
    for n in 0..8 {
        let victim = rotated.server.worker_pids()[0];
        if n % 2 == 0 {
            rotated.server.signal(victim, Signal::SIGKILL);
        }
        rotated.rename(n);
        rotated.server.tell(Signal::SIGUSR1);
        if n % 2 == 1 {
            rotated.server.signal(victim, Signal::SIGKILL);
        }
        rotated.wait_for("error.log", "the log files were reopened", 1);
        wait_until("two workers", || {
            let workers = rotated.server.worker_pids();
            (workers.len() == 2 && !workers.contains(&victim)).then_some(())
        });
        rotated.wait_until_let_go();
    }
    assert_eq!(rotated.get().unwrap(), 200);
    assert_eq!(rotated.server.stop(), 0);
}

#[test]
fn a_worker_says_its_errors_in_the_new_file() {
    let launch = Launch::example("faulty").args(["--processPool", "2"]);
    let (log, socket) = (launch.folder().join("error.log"), launch.folder().join("site.sock"));
    let launch = launch.arg("--errorLog").arg(&log).arg("--socketFile").arg(&socket).listening_elsewhere();
    let server = launch.spawn();
    let panics = || fs::read_to_string(&log).unwrap_or_default().matches("a handler's mistake").count();
    wait_until("an answer", || get_unix(&socket, "/panic").ok().filter(|reply| reply.status == 500));
    wait_until("a line", || (panics() == 1).then_some(()));
    fs::rename(&log, log.with_extension("old")).unwrap();
    server.tell(Signal::SIGUSR1);
    wait_until("a line in the new file", || {
        get_unix(&socket, "/panic").unwrap();
        (panics() > 0).then_some(())
    });
}

#[test]
fn where_a_new_file_cannot_be_made_the_old_one_goes_on() {
    let mut rotated = Rotated::start(&["--processPool", "2"]);
    let gone = rotated.logs.with_extension("gone");
    fs::rename(&rotated.logs, &gone).unwrap();
    rotated.server.tell(Signal::SIGUSR1);
    let read = |name: &str| fs::read_to_string(gone.join(name)).unwrap();
    let line = wait_until("a line about it", || {
        read("error.log").lines().find(|line| line.contains("cannot open the log")).map(ToOwned::to_owned)
    });
    for log in ["error.log", "access.log"] {
        assert!(line.contains(&format!("{log}: No such file or directory")), "{line}");
    }
    assert!(line.contains("make its folder first"), "{line}");
    let lines = read("access.log").lines().count();
    assert_eq!(rotated.get().unwrap(), 200);
    assert_eq!(rotated.server.stop(), 0);
    assert!(read("access.log").lines().count() > lines);
}

#[test]
fn a_worker_without_a_free_descriptor_takes_the_new_files_all_the_same() {
    let rotated = Rotated::start(&["--headerTimeout", "60s"]);
    let worker = rotated.server.worker_pids()[0];
    let limit = fs::read_dir(format!("/proc/{worker}/fd")).unwrap().count() + 10;
    let args = [format!("--pid={worker}"), format!("--nofile={limit}:{limit}")];
    assert!(std::process::Command::new("prlimit").args(args).status().unwrap().success());
    let mut crowd: Vec<_> = (0..30).map(|_| Connection::open_unix(&rotated.socket).unwrap()).collect();
    for client in &mut crowd {
        client.send(b"GET /").unwrap();
    }
    rotated.wait_for("error.log", "cannot accept connections", 1);
    rotated.rotate(1);
    assert!(!rotated.read("error.log").contains("reopen once more"), "{}", rotated.read("error.log"));
    drop(crowd);
    wait_until("an answer", || rotated.get().ok());
}

#[test]
fn a_worker_that_stands_still_holds_up_neither_the_master_nor_the_others() {
    let rotated = Rotated::start(&["--processPool", "2"]);
    let workers = rotated.server.worker_pids();
    rotated.server.signal(workers[0], Signal::SIGSTOP);
    let reopen = || {
        let said = rotated.read("error.log").lines().count();
        rotated.server.tell(Signal::SIGUSR1);
        let outcome = || rotated.read("error.log").lines().nth(said).map(ToOwned::to_owned);
        wait_until("an outcome", outcome)
    };
    let cannot = format!("the worker pid={} cannot be told", workers[0]);
    assert!((0..5_000).any(|_| reopen().contains(&cannot)), "a link has room for so much");
    rotated.server.signal(workers[0], Signal::SIGCONT);
    wait_until("a worker that listens again", || reopen().contains("were reopened").then_some(()));
    rotated.rotate(1);
    assert_eq!(rotated.get().unwrap(), 200);
    wait_until("two workers, and a reporter that says it is one", || {
        (rotated.server.worker_pids().len() == 2).then_some(())
    });
}
