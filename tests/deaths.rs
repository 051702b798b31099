//! What is said of a worker that is dead: why, and what it was at.

use std::path::PathBuf;
use std::time::Duration;
use std::{fs, thread};

use nix::sys::signal::Signal;

use crate::support::{Client, Launch, Server, request, wait_until};

fn testbed(options: &[&str]) -> Server {
    Launch::example("testbed").options(options).start()
}

fn death(server: &Server, mark: usize) -> String {
    server.wait_for_log_after(mark, "died while serving")
}

#[test]
fn a_signal_from_outside_names_who_sent_it() {
    let server = testbed(&["--processPool", "2"]);
    for (signal, shown) in [(Signal::SIGSEGV, "11 (SEGV)"), (Signal::SIGABRT, "6 (ABRT)"), (Signal::SIGFPE, "8 (FPE)")]
    {
        let mark = server.log_mark();
        server.signal(server.worker_pids()[0], signal);
        let line = death(&server, mark);
        let name = signal.as_str().trim_start_matches("SIG");
        assert!(
            line.contains(&format!("signal {shown}; its reason: {name} sent by pid {} uid ", std::process::id())),
            "{line}"
        );
        server.wait_until_complete(mark);
    }
    let mark = server.log_mark();
    server.signal(server.worker_pids()[0], Signal::SIGTERM);
    let line = death(&server, mark);
    assert!(line.contains(&format!("TERM or QUIT sent by pid {} uid ", std::process::id())), "{line}");
}

#[test]
fn a_signal_of_its_own_is_told_as_such() {
    let server = testbed(&["--processPool", "2"]);
    for (target, name) in
        [("/raise?signal=SEGV", "SEGV"), ("/quick/raise?signal=BUS", "BUS"), ("/raise?signal=ABRT", "ABRT")]
    {
        let mark = server.log_mark();
        Client::open(server.address()).send(request("GET", target));
        let line = death(&server, mark);
        assert!(line.contains(&format!("its reason: {name} raised by the process itself")), "{line}");
        assert!(line.contains(&format!("GET {target} from 127.0.0.1:")), "{line}");
        server.wait_until_complete(mark);
    }
}

#[test]
fn a_stack_that_overflows_is_told_of_on_any_thread() {
    for (options, target) in [
        (["--processPool", "2"], "/overflow"),
        (["--processPool", "2"], "/quick/overflow"),
        (["--threading", "1"], "/overflow"),
        (["--threadPool", "2"], "/quick/overflow"),
    ] {
        let server = testbed(&options);
        Client::open(server.address()).send(request("GET", target));
        let line = death(&server, 0);
        assert!(line.contains("signal 6 (ABRT)"), "as Rust has it: {line}");
        assert!(line.contains("its reason: SEGV at address 0x") && line.contains("(the end of the stack"), "{line}");
        assert!(server.log().contains("has overflowed its stack"), "what Rust says of it");
    }
}

#[test]
fn all_requests_that_a_worker_was_at_are_named_with_their_age() {
    for options in [["--threading", "1"], ["--threadPool", "3"]] {
        let server = testbed(&options);
        let mut answered = Client::open(server.address());
        assert_eq!(answered.get("/who").status, 200);
        let mut clients: Vec<_> = (0..3).map(|_| Client::open(server.address())).collect();
        for (n, client) in clients.iter_mut().enumerate() {
            client.send(request("GET", &format!("/slow?ms=60000&n={n}")));
        }
        wait_until("all three to run", || {
            let most = answered.get("/quick/most").text();
            (most == "3").then_some(())
        });
        let mark = server.log_mark();
        server.signal(server.worker_pids()[0], Signal::SIGKILL);
        let line = death(&server, mark);
        assert!(line.contains("3 requests were cut off, the last of them: "), "{line}");
        for (n, client) in clients.iter().enumerate() {
            let address = client.stream.local_addr().unwrap();
            assert!(line.contains(&format!("GET /slow?ms=60000&n={n} from {address} (")), "{n}: {line}");
        }
        assert!(!line.contains("its reason"), "a killed one could not say why: {line}");
    }
}

#[test]
fn an_abort_is_told_before_the_panic_that_led_to_it() {
    let server = testbed(&["--processPool", "2"]);
    for pid in server.worker_pids() {
        let mark = server.log_mark();
        // Either worker may answer.
        wait_until("a panic in this worker", || {
            Client::open(server.address()).get("/panic");
            server.log()[mark..].lines().any(|line| line.contains(&format!("pid={pid}: panic at"))).then_some(())
        });
        server.signal(pid, Signal::SIGABRT);
        let line = death(&server, mark);
        assert!(line.contains("ABRT sent by pid ") && line.contains("; before that: panic at "), "{line}");
        assert!(line.contains("a mistake of the handler"), "{line}");
    }
}

/// A control group with so much memory, until it is dropped; none where this user cannot make one.
struct SmallMemory(PathBuf);

impl SmallMemory {
    fn new(limit: &str) -> Option<Self> {
        let unified = ("/sys/fs/cgroup", "memory.max");
        [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), unified].into_iter().find_map(|(root, file)| {
            let group = Self(PathBuf::from(root).join(format!("regrow-test-{}", std::process::id())));
            fs::create_dir(&group.0).ok()?;
            fs::write(group.0.join(file), limit).ok()?;
            Some(group)
        })
    }
}

impl Drop for SmallMemory {
    fn drop(&mut self) {
        // Processes that were just killed are in it for a moment yet.
        for _ in 0..500 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn the_oom_killer_is_told_from_a_stranger_and_a_request_that_was_there_three_times_is_pointed_out() {
    let Some(group) = SmallMemory::new("62914560") else {
        eprintln!("skipped: no control group with a limit of memory can be made here");
        return;
    };
    let enter = format!("echo $$ > {}/cgroup.procs && exec \"$0\" \"$@\"", group.0.display());
    let server = Launch::example("testbed").args(["--processPool", "2"]).through(&["sh", "-c", &enter]).start();
    for _ in 0..3 {
        let mark = server.log_mark();
        Client::open(server.address()).send(request("GET", "/big?bytes=150000000"));
        let line = death(&server, mark);
        assert!(line.contains("signal 9 (KILL); the kernel killed it for want of memory"), "{line}");
        server.wait_until_complete(mark);
    }
    server.wait_for_log("GET /big was running in 3 workers when they died");
    let mark = server.log_mark();
    server.signal(server.worker_pids()[0], Signal::SIGKILL);
    let line = death(&server, mark);
    assert!(line.contains("not by this master: somebody sent it KILL"), "{line}");
    drop(server);
}
