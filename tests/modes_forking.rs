//! The processes of the forking mode: what they hold, what they leave behind, and what becomes of those that die.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt::RcvBuf};

use crate::support::{
    Client, End, Launch, LimitedUser, Server, Told, all_children_of, children_of, descriptors_of, pattern, request,
    threads_of, time, wait_until,
};

const FORKING: [&str; 2] = ["--forking", "1"];

fn start(example: &str) -> (Server, i32) {
    let server = Launch::example(example).args(FORKING).args(["--socketQueueSize", "1024"]).start();
    let worker = server.worker_pids()[0];
    (server, worker)
}

/// The process that runs the only request there is.
fn wait_for_child(worker: i32) -> i32 {
    wait_until("a process for the request", || children_of(worker).first().copied())
}

fn wait_until_childless(worker: i32) {
    wait_until("no process left, not even a dead one", || all_children_of(worker).is_empty().then_some(()));
}

#[test]
fn nothing_is_left_of_a_process_and_the_one_that_forks_has_one_thread() {
    let (server, worker) = start("slow");
    Told::of(&Client::open(server.address()).get("/"));
    wait_until_childless(worker);
    let before = descriptors_of(worker).len();
    let mut kept = Client::open(server.address());
    for _ in 0..50 {
        Told::of(&kept.get("/"));
        Told::of(&Client::open(server.address()).get("/"));
    }
    kept.send(request("GET", "/?ms=200"));
    let child = wait_for_child(worker);
    assert_eq!((threads_of(worker).len(), threads_of(child).len()), (1, 1));
    assert_eq!(Told::of(&kept.answer()).pid, child);
    drop(kept);
    wait_until_childless(worker);
    wait_until("its descriptors given back", || (descriptors_of(worker).len() <= before).then_some(()));
}

#[test]
fn a_process_holds_no_socket_but_the_one_to_its_loop() {
    let (server, worker) = start("slow");
    let mut others: Vec<_> = (0..5).map(|_| Client::open(server.address())).collect();
    for client in &mut others {
        Told::of(&client.get("/"));
    }
    let mut client = Client::open(server.address());
    client.send(request("GET", "/?ms=1000"));
    let child = wait_for_child(worker);
    let sockets = || descriptors_of(child).into_iter().filter(|to| to.starts_with("socket:")).count();
    wait_until("all but one closed", || (sockets() <= 1).then_some(()));
    assert_eq!(Told::of(&client.answer()).pid, child);
}

#[test]
fn a_connection_that_is_closed_while_a_process_runs_ends_at_once() {
    let (server, worker) = start("slow");
    let mut closed = Client::open(server.address());
    Told::of(&closed.get("/"));
    let mut client = Client::open(server.address());
    client.send(request("GET", "/?ms=2000"));
    let child = wait_for_child(worker);
    let (end, took) = time(|| {
        closed.send("GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        Told::of(&closed.answer());
        closed.end()
    });
    assert!(end == End::Closed && took < Duration::from_secs(1), "{end:?} after {took:?}");
    assert_eq!(Told::of(&client.answer()).pid, child);
}

#[test]
fn a_slow_reader_holds_no_process() {
    let (server, worker) = start("testbed");
    let large = pattern(64 << 20);
    let path = server.folder().join("large");
    fs::write(&path, &large).unwrap();
    for (target, length) in [
        (format!("/file?path={}", path.display()), 64 << 20),
        ("/big?bytes=10485760".to_owned(), 10 << 20),
        ("/stream?chunks=1024&size=1024".to_owned(), 1 << 20),
    ] {
        let mut client = Client::open(server.address());
        setsockopt(&client.stream, RcvBuf, &65_536).unwrap();
        client.send(request("GET", &target));
        assert!(client.more().unwrap() > 0);
        wait_until_childless(worker);
        assert!(client.answer().body == large[..length], "{target}");
    }
}

#[test]
fn a_process_that_dies_costs_its_own_request_only_and_is_explained() {
    let (server, worker) = start("faulty");
    let mut other = Client::open(server.address());
    other.send(request("GET", "/sleep/1000"));
    let sleeper = wait_for_child(worker);
    for (target, cause) in [("/exit/7", "exit code 7"), ("/exit/0", "exit code 0"), ("/abort", "signal 6 (ABRT)")] {
        let mark = server.log_mark();
        let mut client = Client::open(server.address());
        assert_eq!(client.get(target).status, 502, "{target}");
        expect_death(&server, mark, &format!("GET {target}"), cause);
        assert_eq!(client.get("/").status, 200, "{target}: the connection goes on");
    }
    let (mark, mut client) = (server.log_mark(), Client::open(server.address()));
    client.send(request("GET", "/sleep/10000"));
    let is_new = |pid: &i32| *pid != sleeper;
    let victim = wait_until("its process", || children_of(worker).into_iter().find(is_new));
    server.signal(victim, Signal::SIGKILL);
    assert_eq!(client.answer().status, 502);
    let death = expect_death(&server, mark, "GET /sleep/10000", "signal 9 (KILL)");
    assert!(death.contains(&format!("pid={victim}")), "{death}");
    assert_eq!(other.answer().status, 200);
    assert_eq!(server.worker_pids(), [worker]);
    wait_until_childless(worker);
}

fn expect_death(server: &Server, mark: usize, request: &str, cause: &str) -> String {
    let death = server.wait_for_log_after(mark, cause);
    assert!(death.contains(request) && death.contains("pid="), "{death}");
    death
}

#[test]
fn files_come_from_processes_of_their_own() {
    let launch = Launch::regrow();
    fs::write(launch.folder().join("page.html"), "<h1>page</h1>").unwrap();
    let folder = launch.folder().to_owned();
    let server = launch.arg(folder).args(FORKING).start();
    let worker = server.worker_pids()[0];
    let mut client = Client::open(server.address());
    for _ in 0..3 {
        let before = faults_of_children(worker);
        assert_eq!(client.get("/page.html").text(), "<h1>page</h1>");
        wait_until_childless(worker);
        assert!(faults_of_children(worker) > before, "no process has ended meanwhile");
    }
}

/// Page faults of the children that a process has waited for: every process has some. Field 11 of proc(5) stat.
fn faults_of_children(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let field = stat.rsplit(')').next().unwrap().split_whitespace().nth(8);
    field.and_then(|faults| faults.parse().ok()).unwrap()
}

#[test]
fn a_process_that_cannot_be_made_is_a_503_that_asks_to_come_again() {
    let Some(user) = LimitedUser::new("a fork that fails for a request") else { return };
    let server = Launch::example("slow").args(FORKING).args(["--accessLog", "off"]).through(&user.wrapper()).start();
    let worker = server.worker_pids()[0];
    user.allow_processes(worker, 1);
    let mut client = Client::open(server.address());
    for _ in 0..2 {
        let answer = client.get("/");
        assert_eq!(answer.status, 503);
        let after = answer.field("retry-after").and_then(|seconds| seconds.parse::<u32>().ok());
        assert!(after.is_some_and(|seconds| seconds > 0), "{answer:?}");
    }
    server.wait_for_log("fork");
    user.allow_processes(worker, 64);
    wait_until("a process again", || (client.get("/").status == 200).then_some(()));
}
