//! The processes of the forking mode: what they hold, what they leave behind, and what becomes of those that die.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use nix::sys::signal::Signal;
use socket2::{Domain, Socket, Type};

use crate::support::{
    Client, End, Launch, Server, Told, all_children_of, children_of, descriptors_of, pattern, request, threads_of,
    time, wait_until,
};

const FORKING: [&str; 2] = ["--forking", "1"];

fn start(example: &str) -> (Server, i32) {
    let server = Launch::example(example).args(FORKING).args(["--socketQueueSize", "1024"]).start();
    let worker = server.worker_pids()[0];
    (server, worker)
}

/// Asks while nothing else runs; returns the process that runs the request.
fn ask_alone(client: &mut Client, worker: i32, target: &str) -> i32 {
    wait_until_childless(worker);
    client.send(request("GET", target));
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
    let child = ask_alone(&mut kept, worker, "/?ms=200");
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
    let child = ask_alone(&mut client, worker, "/?ms=1000");
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
    let child = ask_alone(&mut client, worker, "/?ms=2000");
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
        let mut client = open_narrow(server.address());
        client.send(request("GET", &target));
        assert!(client.more().unwrap() > 0);
        wait_until_childless(worker);
        assert!(client.answer().body == large[..length], "{target}");
    }
}

/// A connection on which little is under way: neither end holds much, and small segments are all there are.
fn open_narrow(to: SocketAddr) -> Client {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    socket.set_tcp_mss(536).unwrap();
    socket.connect(&to.into()).unwrap();
    Client::over(socket.into())
}

#[test]
fn a_process_that_dies_costs_its_own_request_only_and_is_explained() {
    let (server, worker) = start("faulty");
    let mut other = Client::open(server.address());
    ask_alone(&mut other, worker, "/sleep/1000");
    for (target, cause) in [("/exit/7", "exit code 7"), ("/exit/0", "exit code 0"), ("/abort", "signal 6 (ABRT)")] {
        let mark = server.log_mark();
        let mut client = Client::open(server.address());
        assert_eq!(client.get(target).status, 502, "{target}");
        expect_death(&server, mark, &format!("GET {target}"), cause);
        assert_eq!(client.get("/").status, 200, "{target}: the connection goes on");
    }
    assert_eq!(other.answer().status, 200);
    assert_eq!(server.worker_pids(), [worker]);
}

#[test]
fn a_process_that_is_killed_is_named_with_its_request() {
    let (server, worker) = start("slow");
    let mut client = Client::open(server.address());
    let victim = ask_alone(&mut client, worker, "/?ms=20000");
    server.signal(victim, Signal::SIGKILL);
    assert_eq!(client.answer().status, 502);
    let death = expect_death(&server, 0, "GET /?ms=20000", "signal 9 (KILL)");
    assert!(death.contains(&format!("child={victim} ")), "{death}");
    assert_eq!(Told::of(&client.get("/")).running, 1, "the dead do not count");
    wait_until_childless(worker);
}

fn expect_death(server: &Server, mark: usize, request: &str, cause: &str) -> String {
    let death = server.wait_for_log_after(mark, cause);
    assert!(death.contains(request) && death.contains("child="), "{death}");
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
fn a_site_that_keeps_a_thread_is_refused_where_it_would_be_forked_and_served_elsewhere() {
    let launch = |mode: &str| Launch::example("faulty").env("FAULTY_START", "keep a thread").arg(mode);
    let mut server = launch("--forking=1").spawn();
    let line = server.wait_for_log("the site has started threads (2 in all)");
    assert!(line.contains("say threading or processPool"), "{line}");
    assert_eq!(server.exit_code(), 3);
    let server = launch("--threading=1").start();
    assert_eq!(Client::open(server.address()).get("/").status, 200);
}
