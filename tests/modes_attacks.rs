//! What could harm the server in one mode or another: clients that leave at the wrong moment, requests and answers made
//! to cost much, processes that are killed, and the want of descriptors.

use std::fs;
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use socket2::SockRef;

use crate::support::{Client, Launch, Server, children_of, is_alive, post, request, wait_until};

const FORKING: &[&str] = &["--forking", "1"];

fn start(args: &[&str]) -> (Server, i32) {
    let server = launch(args).start();
    let worker = server.worker_pids()[0];
    (server, worker)
}

fn launch(args: &[&str]) -> Launch {
    let launch = Launch::example("testbed").args(["--socketQueueSize", "1024"]);
    args.iter().copied().fold(launch, Launch::arg)
}

/// The only process that runs for a request.
fn child_of(worker: i32) -> i32 {
    wait_until("a process for the request", || children_of(worker).first().copied())
}

fn wait_until_childless(worker: i32) {
    wait_until("the end of all processes for requests", || children_of(worker).is_empty().then_some(()));
}

/// A client that has begun to take the answer, and takes no more.
fn stalled(server: &Server, target: &str) -> Client {
    let mut client = Client::open(server.address());
    SockRef::from(&client.stream).set_recv_buffer_size(4096).unwrap();
    client.send(request("GET", target));
    assert!(client.more().unwrap() > 0);
    client
}

/// Waits until a process has done nothing for a while.
fn wait_until_stuck(pid: i32) {
    let mut last = (ticks(pid), Instant::now());
    wait_until("a process that does nothing", || {
        let now = ticks(pid);
        if now != last.0 {
            last = (now, Instant::now());
        }
        (last.1.elapsed() > Duration::from_millis(200)).then_some(())
    });
}

/// The processor's time it has had, and where it is: fields 14 and 15 of proc(5) stat, in hundredths of a second.
fn ticks(pid: i32) -> Vec<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2).map(ToOwned::to_owned).collect()
}

fn reset(client: Client) {
    SockRef::from(&client.stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
}

#[test]
fn forking_a_client_that_leaves_a_stream_is_no_error_of_its_process() {
    let (server, worker) = start(FORKING);
    let client = stalled(&server, "/stream?chunks=1000000&size=30000");
    wait_until_stuck(child_of(worker));
    drop(client);
    wait_until_childless(worker);
    assert_eq!(Client::open(server.address()).get("/who").status, 200);
    assert!(!server.log().contains(" error "), "{}", server.log());
}

#[test]
fn forking_a_stream_of_single_bytes_does_not_fill_the_memory_of_its_loop() {
    let (server, worker) = start(FORKING);
    let before = resident(worker);
    let _client = stalled(&server, "/stream?chunks=3000000&size=1");
    wait_until_stuck(child_of(worker));
    wait_until_stuck(worker);
    let after = resident(worker);
    assert!(after < before + (12 << 10), "from {before} to {after} KiB");
}

fn resident(pid: i32) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn forking_a_process_holds_no_file_of_another_request() {
    let (server, worker) = start(&["--forking", "1", "--bodyInMemory", "1k"]);
    let mut uploads = Client::open(server.address());
    uploads.send(&post("/body", &vec![b'x'; 200_000])[..100_000]);
    let answered = stalled(&server, "/big?bytes=8000000");
    wait_until_childless(worker);
    wait_until("the upload's file and the answer's", || (open_files(worker).len() == 2).then_some(()));
    let mut other = Client::open(server.address());
    other.send(request("GET", "/slow?ms=20000"));
    let child = child_of(worker);
    wait_until("what it inherited to be closed", || open_files(child).is_empty().then_some(()));
    drop(answered);
}

/// Those without a name that it has open.
fn open_files(pid: i32) -> Vec<String> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let targets = descriptors.filter_map(|entry| fs::read_link(entry.path()).ok()?.to_str().map(ToOwned::to_owned));
    targets.filter(|target| target.ends_with(" (deleted)")).collect()
}

#[test]
fn forking_processes_die_with_their_worker() {
    let (server, worker) = start(FORKING);
    Client::open(server.address()).send(request("GET", "/slow?ms=60000"));
    let child = child_of(worker);
    server.signal(worker, Signal::SIGKILL);
    wait_until("the end of the process", || (!is_alive(child)).then_some(()));
}

#[test]
fn what_waits_for_a_client_that_has_reset_its_connection_is_not_done() {
    for mode in [&[][..], &["--threading", "1", "--maxThreads", "1"], &["--forking", "1", "--maxProcesses", "1"]] {
        let (server, _) = start(mode);
        let mut first = Client::open(server.address());
        first.send(request("GET", "/slow?ms=1000"));
        let clients: Vec<_> = (0..20).map(|_| Client::open(server.address())).collect();
        for mut client in clients {
            client.send(request("GET", "/slow?ms=2000"));
            reset(client);
        }
        let asked = Instant::now();
        assert_eq!(Client::open(server.address()).get("/who").status, 200);
        assert_eq!(first.answer().status, 200);
        // One of them may have begun at once.
        assert!(asked.elapsed() < Duration::from_secs(6), "{mode:?}: {:?}", asked.elapsed());
    }
}

#[test]
fn process_pool_a_worker_without_descriptors_loses_nothing_that_is_handed_over() {
    let server = launch(&["--processPool", "2"]).start();
    let mut clients: Vec<_> = (0..40).map(|_| Client::open(server.address())).collect();
    let mut whose = clients.iter_mut().map(|client| client.get("/quick/who").text()).collect::<Vec<_>>().into_iter();
    let first = whose.as_slice()[0].clone();
    let (mut own, others): (Vec<_>, Vec<_>) = clients.into_iter().partition(|_| whose.next().unwrap() == first);
    let sibling = *server.worker_pids().iter().find(|pid| !first.ends_with(&format!("pid={pid}"))).unwrap();
    assert!(own.len() > 10 && others.len() > 10, "{} and {}", own.len(), others.len());
    limit_descriptors(sibling, first_free_descriptor(sibling));
    // Some with their bytes in a file of their own.
    for body in [0, 100_000] {
        for client in &mut own {
            client.send(post("/slow?ms=50", &vec![b'x'; body]));
        }
        for client in &mut own {
            assert_eq!(client.answer().status, 200);
        }
    }
}

fn first_free_descriptor(pid: i32) -> usize {
    (0..1000).find(|n| fs::symlink_metadata(format!("/proc/{pid}/fd/{n}")).is_err()).unwrap()
}

fn limit_descriptors(pid: i32, limit: usize) {
    let args = ["--pid".to_owned(), pid.to_string(), format!("--nofile={limit}:{limit}")];
    assert!(Command::new("prlimit").args(args).status().unwrap().success());
}

#[test]
fn thread_pool_each_loop_hears_that_the_master_is_gone_also_during_a_stop() {
    // Connections are spread over the loops; which has which is not told.
    for asks in 0..2 {
        let (server, worker) = start(&["--threadPool", "2", "--gracefulTimeout", "2s"]);
        let address = server.address();
        let mut clients: Vec<_> = (0..2).map(|_| Client::open(server.address())).collect();
        for client in &mut clients {
            assert_eq!(client.get("/quick/who").status, 200);
        }
        clients[asks].send(request("GET", "/slow?ms=60000"));
        wait_until("a request at work", || {
            (Client::open(server.address()).get("/quick/most").text() == "1").then_some(())
        });
        server.tell(Signal::SIGTERM);
        let _ = clients[1 - asks].end();
        wait_until("closed listeners", || TcpStream::connect(address).is_err().then_some(()));
        server.tell(Signal::SIGKILL);
        wait_until("the end of the worker", || (!is_alive(worker)).then_some(()));
    }
}
