//! What runs out: descriptors, processes, room on the disk. The server goes on with what it has, does not spin, says so
//! once in a while, and is whole again when there is enough. That memory runs out shows at a fork, which then fails as it
//! does for want of processes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use nix::unistd::Uid;

use crate::support::{
    Client, Launch, LimitedUser, all_children_of, children_of, is_alive, pattern, post, request, skip, wait_until,
};

/// User and system time, in hundredths of a second: fields 14 and 15 of proc(5) stat.
fn cpu_ticks(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields = stat.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2);
    fields.map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

#[test]
fn with_few_descriptors_it_waits_for_one_without_spinning_and_goes_on_when_there_is_one() {
    for limit in ["24", "40"] {
        let launch = Launch::regrow().args(["--processPool", "2", "--headerTimeout", "2s", "--socketQueueSize", "128"]);
        let server = launch.through(&["prlimit", &format!("--nofile={limit}:{limit}")]).start();
        let workers = server.worker_pids();
        let mut crowd: Vec<_> = (0..60).map(|_| Client::open(server.address())).collect();
        for client in &mut crowd {
            client.send("GET /");
        }
        let ticks = || workers.iter().copied().chain([server.pid()]).map(cpu_ticks).sum::<u64>();
        let before = ticks();
        // Two seconds, in which nothing is to be done for those who wait.
        assert_eq!(crowd[0].answer().status, 408, "{limit}");
        assert!(ticks() - before < 60, "it spins: {} ticks, {limit}", ticks() - before);
        drop(crowd);
        wait_until("an answer", || (Client::open(server.address()).get("/").status == 200).then_some(()));
        assert_eq!(server.worker_pids().len(), 2);
        assert!(workers.iter().all(|&pid| is_alive(pid)), "{limit}");
        assert!(server.log().lines().count() < 40, "few words");
    }
}

#[test]
fn without_descriptors_for_a_link_the_master_cannot_fork_and_tries_again() {
    let server = Launch::regrow().args(["--processPool", "2"]).start();
    let worker = server.worker_pids()[0];
    let allow = |most: usize| {
        let (pid, most) = (format!("--pid={}", server.pid()), format!("--nofile={most}:"));
        assert!(Command::new("prlimit").args([pid, most]).status().unwrap().success());
    };
    allow(3);
    server.signal(worker, Signal::SIGKILL);
    let line = server.wait_for_log("could not be forked");
    assert!(line.contains("Too many open files") && line.contains("next attempt in"), "{line}");
    assert_eq!(Client::open(server.address()).get("/").status, 200);
    let mark = server.log_mark();
    allow(1024);
    server.wait_until_complete(mark);
}

#[test]
fn without_processes_the_master_survives_the_loss_of_all_workers_and_recovers() {
    let Some(user) = LimitedUser::new("no process for a worker") else { return };
    let launch = Launch::regrow().args(["--processPool", "2", "--accessLog", "off", "--respawnDelayMax", "400ms"]);
    let server = launch.through(&user.wrapper()).start();
    user.allow_processes(server.pid(), 1);
    server.worker_pids().into_iter().for_each(|pid| server.signal(pid, Signal::SIGKILL));
    let attempts = || server.log().matches("could not be forked").count();
    wait_until("three attempts", || (attempts() >= 3).then_some(()));
    let mut waiting = Client::open(server.address());
    waiting.send(request("GET", "/"));
    let mark = server.log_mark();
    user.allow_processes(server.pid(), 64);
    server.wait_until_complete(mark);
    assert_eq!(waiting.answer().status, 200, "who waited in the queue is served");
}

#[test]
fn the_limit_of_processes_holds_for_workers_of_another_user_and_a_request_is_told_to_come_again() {
    if !Uid::effective().is_root() {
        return skip("no process for a request", "only root can have workers that run as another user");
    }
    // A number of nobody's, so that there are no other processes of that user.
    let user = (2_000_000 + std::process::id()).to_string();
    let launch = Launch::example("slow").args(["--forking", "1", "--user", &user, "--group", &user]);
    // The worker, the reporter, and one.
    let server = launch.through(&["prlimit", "--nproc=3:"]).start();
    let worker = server.worker_pids()[0];
    let [mut first, mut second] = [(); 2].map(|()| Client::open(server.address()));
    first.send(request("GET", "/?ms=1000"));
    wait_until("a process for the request", || children_of(worker).first().copied());
    let refused = second.get("/");
    assert!(refused.status == 503 && refused.field("retry-after").is_some(), "{refused:?}");
    assert_eq!(first.answer().status, 200);
    wait_until("no process left", || all_children_of(worker).is_empty().then_some(()));
    assert_eq!(second.get("/").status, 200);
}

/// A disk of this size, until it is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None`, and a word on the test's output, where it cannot be.
    fn new(test: &str, at: &Path, size: &str) -> Option<Self> {
        fs::create_dir(at).unwrap();
        let size = format!("size={size},mode=1777");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(at).output();
        if !mounted.is_ok_and(|output| output.status.success()) {
            skip(test, "no small disk can be mounted");
            return None;
        }
        Some(Self(at.to_owned()))
    }

    /// Leaves no room on it.
    fn fill(&self) {
        let wrote = fs::write(self.0.join("filler"), vec![0; 16 << 20]);
        assert_eq!(wrote.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    }

    fn make_room(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn on_a_full_disk_log_lines_are_lost_and_told_of_and_requests_go_on_until_there_is_room_again() {
    let launch = Launch::regrow().args(["--processPool", "2", "--accessFormat", "json"]);
    let Some(disk) = SmallDisk::new("a full disk for logs", &launch.folder().join("disk"), "64k") else { return };
    let log = disk.0.join("access.log");
    let server = launch.arg("--accessLog").arg(&log).start();
    let ask = |target: &str| assert_eq!(Client::open(server.address()).get(target).status, 404);
    let text = || fs::read_to_string(&log).unwrap();
    ask("/first");
    wait_until("its line", || text().contains("/first").then_some(()));
    disk.fill();
    // What is left of the last page takes some lines.
    for n in 0.. {
        ask(&format!("/lost/{n}/{}", "x".repeat(1000)));
        if server.log().contains("access log: lost ") {
            break;
        }
        assert!(n < 1_000, "a page has no room for so much");
    }
    let line = server.wait_for_log("access log: lost ");
    assert!(line.contains("requests are served all the same"), "{line}");
    disk.make_room();
    wait_until("later lines", || {
        ask("/last");
        text().contains("/last").then_some(())
    });
    let whole = text();
    let lines = whole.lines().filter(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()).count();
    // One of each worker may be torn.
    assert!(whole.lines().count() - lines <= 2, "{whole}");
}

#[test]
fn bodies_on_a_full_disk_are_a_503_and_the_worker_goes_on() {
    let launch = Launch::example("testbed").args(["--bodyInMemory", "1k"]);
    let Some(disk) = SmallDisk::new("a full disk for bodies", &launch.folder().join("disk"), "256k") else { return };
    let server = launch.env("TMPDIR", &disk.0).start();
    let large = |length: usize| {
        let mut client = Client::open(server.address());
        client.send(post("/body", &pattern(length)));
        client.answer()
    };
    assert_eq!(large(100_000).status, 200);
    let refused = large(400_000);
    assert!(refused.status == 503 && refused.closes(), "{refused:?}");
    server.wait_for_log("cannot keep a request body in ");
    disk.fill();
    assert_eq!(large(100_000).status, 503);
    assert_eq!(Client::open(server.address()).get("/who").status, 200, "what needs no disk is answered");
    disk.make_room();
    assert_eq!(large(100_000).status, 200, "nothing is left of those before");
}

#[test]
fn log_files_that_reach_the_limit_of_a_file_cost_lines_and_a_new_file_ends_that() {
    let launch = Launch::regrow();
    let log = launch.folder().join("access.log");
    let server = launch.through(&["prlimit", "--fsize=2048:2048"]).start();
    let ask = |target: &str| assert_eq!(Client::open(server.address()).get(target).status, 404);
    for _ in 0..40 {
        ask("/before");
    }
    server.wait_for_log("access log: lost ");
    assert_eq!(fs::metadata(&log).unwrap().len(), 2048);
    fs::rename(&log, log.with_extension("old")).unwrap();
    server.tell(Signal::SIGUSR1);
    server.wait_for_log("the log files were reopened");
    ask("/after");
    wait_until("a line in the new file", || {
        fs::read_to_string(&log).unwrap_or_default().contains("/after").then_some(())
    });
}
