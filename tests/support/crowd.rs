//! Thousands of clients, who hold a connection each.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{Connection, PATIENCE};

/// Descriptors for everything else in this process, which runs other tests too.
pub const OTHERS: usize = 1_000;

/// Raises the limit of open files so far that there is room for so many clients, or as far as it goes; returns for how
/// many there is.
pub fn make_room_for(clients: usize) -> usize {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    let raised = hard.min((clients + OTHERS) as u64).max(soft);
    setrlimit(Resource::RLIMIT_NOFILE, raised, hard).expect("a limit that may be raised");
    usize::try_from(raised).unwrap_or(usize::MAX).saturating_sub(OTHERS).min(clients)
}

/// So many connections on which one request was answered.
pub fn hold(address: SocketAddr, number: usize) -> Vec<TcpStream> {
    let open = |_| {
        let mut connection = TcpStream::connect(address).expect("a connection");
        connection.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        ask(&mut connection);
        expect_answer(&mut connection);
        connection
    };
    thread::scope(|scope| {
        let threads: Vec<_> =
            (0..4).map(|part| scope.spawn(move || (part..number).step_by(4).map(open).collect::<Vec<_>>())).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("all were answered")).collect()
    })
}

/// A request without a body in its answer, so that one read takes it.
pub fn ask(connection: &mut TcpStream) {
    connection.write_all(b"HEAD / HTTP/1.1\r\nHost: test\r\n\r\n").expect("a connection that is still open");
}

pub fn expect_answer(connection: &mut TcpStream) {
    let mut head = [0; 1024];
    let length = connection.read(&mut head).expect("an answer");
    assert!(head[..length].starts_with(b"HTTP/1.1 200 "), "{:?}", String::from_utf8_lossy(&head[..length]));
    assert!(head[..length].ends_with(b"\r\n\r\n"));
}

/// Whoever comes is answered within a second.
pub fn expect_prompt_answers(address: SocketAddr) {
    for _ in 0..50 {
        let begun = Instant::now();
        let reply = Connection::open(address).and_then(|mut connection| connection.get("/")).expect("an answer");
        assert_eq!(reply.status, 200);
        assert!(begun.elapsed() < Duration::from_secs(1), "answered after {:?}", begun.elapsed());
    }
}
