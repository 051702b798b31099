//! Thousands of idle connections cost memory, little of it, and nothing else.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::support::{Connection, Launch, Server, skip};

const WANTED: usize = 10_000;
const AT_LEAST: usize = 3_000;
/// Descriptors for everything else in this process, which runs other tests too.
const OTHERS: usize = 1_000;
const BYTES_PER_CONNECTION: usize = 256;
/// What does not grow with the number of connections: tables grow in steps, and logs and stacks are touched.
const SLACK: usize = 256 << 10;

#[test]
fn ten_thousand_idle_connections_cost_little_and_hold_nobody_up() {
    let number = WANTED.min(raise_descriptors().saturating_sub(OTHERS));
    assert!(number >= AT_LEAST, "raise the limit of open files (ulimit -n) to {} or more", WANTED + OTHERS);
    if number < WANTED {
        skip("part of the idle connections", &format!("the limit of open files allows {number} of {WANTED}"));
    }
    let server = Launch::regrow()
        .args(["--processPool", "2", "--socketQueueSize", "1024", "--keepAliveTimeout", "1h", "--accessLog", "off"])
        .start();
    let address = server.address();
    drop(hold(address, 300));
    let before = memory(&server);

    let mut held = hold(address, number);
    answer_at_once(address);
    let grown = memory(&server).saturating_sub(before);
    eprintln!("{number} idle connections: {grown} bytes, {} each", grown / number);
    for connection in held.iter_mut().step_by(97) {
        ask(connection);
    }
    assert!(grown <= number * BYTES_PER_CONNECTION + SLACK, "{} bytes for {number}: {} each", grown, grown / number);
}

/// So many connections on which one request was answered.
fn hold(address: SocketAddr, number: usize) -> Vec<TcpStream> {
    let open = |_| {
        let mut connection = TcpStream::connect(address).expect("a connection");
        ask(&mut connection);
        connection
    };
    thread::scope(|scope| {
        let threads: Vec<_> =
            (0..4).map(|part| scope.spawn(move || (part..number).step_by(4).map(open).collect::<Vec<_>>())).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("all were answered")).collect()
    })
}

/// A request without a body in its answer, so that one read takes it.
fn ask(connection: &mut TcpStream) {
    connection.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    connection.write_all(b"HEAD / HTTP/1.1\r\nHost: test\r\n\r\n").expect("a connection that is still open");
    let mut head = [0; 1024];
    let length = connection.read(&mut head).expect("an answer");
    assert!(head[..length].starts_with(b"HTTP/1.1 200 "), "{:?}", String::from_utf8_lossy(&head[..length]));
    assert!(head[..length].ends_with(b"\r\n\r\n"));
}

fn answer_at_once(address: SocketAddr) {
    for _ in 0..50 {
        let begun = Instant::now();
        let reply = Connection::open(address).and_then(|mut connection| connection.get("/")).expect("an answer");
        assert_eq!(reply.status, 200);
        assert!(begun.elapsed() < Duration::from_secs(1), "answered after {:?}", begun.elapsed());
    }
}

/// What the server's processes hold, in bytes; what they share is counted once.
fn memory(server: &Server) -> usize {
    server.worker_pids().into_iter().chain([server.pid()]).map(proportional_set).sum()
}

/// `Pss` of proc(5), `smaps_rollup`.
fn proportional_set(pid: i32) -> usize {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("what the process holds");
    let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).expect("a line of it");
    let kilobytes: usize = pss.trim().trim_end_matches(" kB").parse().expect("a number of kB");
    kilobytes << 10
}

fn raise_descriptors() -> usize {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    let wanted = (WANTED + OTHERS) as u64;
    let raised = hard.min(wanted).max(soft);
    setrlimit(Resource::RLIMIT_NOFILE, raised, hard).expect("a limit that may be raised");
    usize::try_from(raised).unwrap_or(usize::MAX)
}
