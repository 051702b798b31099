//! A worker that leaves while others go on loses nobody: its idle connections are theirs at once, what runs is answered,
//! and what cannot change hands is told so.

use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::{
    Client, Connection, End, Launch, Server, TlsClient, VERSIONS, descriptors_of, is_alive, make_room_for, request,
    wait_until,
};

/// Asked of a handler, and of the loop itself.
const WHO: &str = "/who";
const QUICK: &str = "/quick/who";

fn pool(workers: &str) -> Launch {
    Launch::example("testbed").args(["--processPool", workers, "--socketQueueSize", "1024"])
}

/// Clients with a kept connection each, of which every worker has some.
fn kept_clients(server: &Server, clients: usize) -> Vec<Client> {
    let come = |_| {
        let mut client = Client::open(server.address());
        assert_eq!(client.get(QUICK).status, 200);
        client
    };
    (0..clients).map(come).collect()
}

/// A client whose connection is with this worker.
fn client_of(server: &Server, worker: &str) -> Client {
    wait_until("a connection with that worker", || {
        let mut client = Client::open(server.address());
        client.get(QUICK).text().starts_with(worker).then_some(client)
    })
}

fn pid_of(client: &mut Client) -> i32 {
    client.get(QUICK).text().rsplit('=').next().and_then(|pid| pid.parse().ok()).expect("a pid")
}

/// Has the worker with the highest number leave, and waits until it has.
fn retire_one(server: &Server) {
    let before = server.worker_pids().len();
    server.tell(Signal::SIGTTOU);
    wait_until("one worker fewer", || (server.worker_pids().len() < before).then_some(()));
}

#[test]
fn idle_connections_are_handed_over_and_none_is_closed() {
    let server = pool("3").start();
    let mut clients = kept_clients(&server, 60);
    retire_one(&server);
    retire_one(&server);
    for client in &mut clients {
        let answer = client.get(WHO);
        assert!(answer.status == 200 && !answer.closes(), "{answer:?}");
        assert!(answer.text().starts_with("worker=0 "), "{}", answer.text());
        client.send([request("GET", QUICK), request("GET", WHO), request("GET", QUICK)].concat());
        for _ in 0..3 {
            assert_eq!(client.answer().status, 200);
        }
    }
}

#[test]
fn more_idle_connections_than_the_queue_holds_are_handed_over_in_turn() {
    let clients = 2 * 400;
    assert_eq!(make_room_for(clients), clients);
    let server = pool("2").start();
    let mut clients = kept_clients(&server, clients);
    let (staying, leaving) =
        (pid_of(&mut client_of(&server, "worker=0 ")), pid_of(&mut client_of(&server, "worker=1 ")));
    let had = descriptors_of(leaving).len();
    assert!(had > 350, "it has its share: {had}");
    server.signal(staying, Signal::SIGSTOP);
    server.tell(Signal::SIGTTOU);
    wait_until("a full queue", || (descriptors_of(leaving).len() + 200 < had).then_some(()));
    assert!(is_alive(leaving), "it still has the others");
    server.signal(staying, Signal::SIGCONT);
    wait_until("its end", || (!is_alive(leaving)).then_some(()));
    for client in &mut clients {
        assert!(client.get(QUICK).text().starts_with("worker=0 "));
    }
}

#[test]
fn a_request_that_is_sent_while_its_connection_changes_hands_is_answered() {
    let server = pool("2").start();
    let mut clients = kept_clients(&server, 40);
    let staying = pid_of(&mut client_of(&server, "worker=0 "));
    server.signal(staying, Signal::SIGSTOP);
    // They are in the queue now, and nobody's.
    retire_one(&server);
    for client in &mut clients {
        client.send(request("GET", WHO));
    }
    server.signal(staying, Signal::SIGCONT);
    for client in &mut clients {
        let answer = client.answer();
        assert!(answer.status == 200 && !answer.closes(), "{answer:?}");
    }
}

#[test]
fn connections_that_have_asked_nothing_yet_are_handed_over() {
    let launch = pool("2").listening_elsewhere();
    let path = launch.folder().join("socket");
    let server = launch.arg("--socketFile").arg(&path).start();
    let open = |server: &Server| server.worker_pids().into_iter().map(|pid| descriptors_of(pid).len()).sum::<usize>();
    let before = open(&server);
    let mut silent: Vec<_> = (0..20).map(|_| Connection::open_unix(&path).unwrap()).collect();
    wait_until("all accepted", || (open(&server) >= before + silent.len()).then_some(()));
    retire_one(&server);
    for connection in &mut silent {
        let reply = connection.get(WHO).unwrap();
        assert!(reply.text().starts_with("worker=0 "), "{}", reply.text());
        assert_eq!(reply.field("connection"), None, "{}", reply.head);
    }
}

#[test]
fn who_a_client_is_goes_with_its_connection() {
    let server = pool("2").args(["--proxyProtocol", "1"]).start();
    let said = "client 203.0.113.7:40000\n";
    let introduced = |_| {
        let mut client = Client::open(server.address());
        client.send("PROXY TCP4 203.0.113.7 127.0.0.1 40000 80\r\n");
        assert!(client.get("/quick/client").text().starts_with(said));
        client
    };
    let mut clients: Vec<_> = (0..20).map(introduced).collect();
    retire_one(&server);
    for client in &mut clients {
        let answer = client.get("/quick/client");
        assert!(answer.text().starts_with(said) && !answer.closes(), "{answer:?}");
    }
}

#[test]
fn a_worker_whose_handler_is_busy_takes_idle_connections_too() {
    let server = pool("2").start();
    let mut moved = client_of(&server, "worker=1 ");
    let mut slow = client_of(&server, "worker=0 ");
    slow.send(request("GET", "/slow?ms=3000"));
    retire_one(&server);
    assert!(moved.get(QUICK).text().starts_with("worker=0 "));
    slow.stream.set_nonblocking(true).unwrap();
    let none_yet = slow.stream.read(&mut [0]).map_err(|why| why.kind());
    assert_eq!(none_yet, Err(ErrorKind::WouldBlock), "the slow one was answered first");
    slow.stream.set_nonblocking(false).unwrap();
    assert_eq!(slow.answer().text(), "slow");
}

#[test]
fn what_has_begun_is_finished_by_the_worker_that_leaves() {
    let server = pool("2").start();
    let (mut partly, mut running) = (client_of(&server, "worker=1 "), client_of(&server, "worker=1 "));
    let mut idle = client_of(&server, "worker=1 ");
    let leaving = pid_of(&mut idle);
    let half = request("GET", QUICK);
    partly.send(&half[..20]);
    running.send(request("GET", "/later?ms=500"));
    // Whoever has taken in these has taken in those.
    assert_eq!(idle.get(QUICK).status, 200);
    server.tell(Signal::SIGTTOU);
    wait_until("a handover", || idle.get(QUICK).text().starts_with("worker=0 ").then_some(()));
    assert!(is_alive(leaving));
    partly.send(&half[20..]);
    for (client, of) in [(&mut partly, "worker=1 "), (&mut running, "later")] {
        let answer = client.answer();
        assert!(answer.status == 200 && answer.closes() && answer.text().starts_with(of), "{answer:?}");
        assert_eq!(client.end(), End::Closed);
    }
    wait_until("its end", || (!is_alive(leaving)).then_some(()));
}

/// Requests on kept connections until it is done: none may fail but on a connection whose end was announced.
fn ask_on(server: &Server, done: &AtomicBool, closed: &AtomicUsize, targets: [&str; 2]) -> usize {
    let (mut answers, mut client) = (0, Client::open(server.address()));
    while !done.load(Ordering::SeqCst) {
        let answer = client.get(targets[answers % targets.len()]);
        assert_eq!(answer.status, 200);
        answers += 1;
        if answer.closes() {
            closed.fetch_add(1, Ordering::SeqCst);
            client = Client::open(server.address());
        }
    }
    answers
}

#[test]
fn no_request_fails_while_workers_come_and_go() {
    let server = Arc::new(pool("3").start());
    let (done, closed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let threads: Vec<_> = (0..6)
        .map(|number| {
            let (server, done, closed) = (Arc::clone(&server), Arc::clone(&done), Arc::clone(&closed));
            let targets = if number % 2 == 0 { [QUICK, WHO] } else { [QUICK, "/slow?ms=3"] };
            thread::spawn(move || ask_on(&server, &done, &closed, targets))
        })
        .collect();
    let mut idle = kept_clients(&server, 30);
    for _ in 0..5 {
        retire_one(&server);
        retire_one(&server);
        for serving in 2..=3 {
            let mark = server.log_mark();
            server.tell(Signal::SIGTTIN);
            server.wait_for_log_after(mark, &format!("ready ({serving} of {serving} serve)"));
        }
        for client in &mut idle {
            let answer = client.get(QUICK);
            assert!(answer.status == 200 && !answer.closes(), "{answer:?}");
        }
    }
    done.store(true, Ordering::SeqCst);
    let answers: usize = threads.into_iter().map(|thread| thread.join().expect("no failure")).sum();
    let closed = closed.load(Ordering::SeqCst);
    assert!(answers > 100, "{answers}");
    // Only what runs when a worker leaves: at each of ten retirements at most one of each client.
    assert!(closed <= 60, "{closed} connections were closed");
}

#[test]
fn a_connection_with_tls_stays_and_hears_of_the_end() {
    let server = pool("2").tls("ec").start();
    let ask = |stream: &mut crate::support::TlsStream| {
        stream.write_all(&request("GET", QUICK)).unwrap();
        let mut buffer = vec![0; 4096];
        let n = stream.read(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..n]).to_lowercase()
    };
    let client = TlsClient::new(&VERSIONS);
    let leaving = || {
        wait_until("a connection with that worker", || {
            let mut stream = client.connect(server.address());
            ask(&mut stream).contains("worker=1 ").then_some(stream)
        })
    };
    let (mut asking, mut quiet) = (leaving(), leaving());
    let mark = server.log_mark();
    server.tell(Signal::SIGTTOU);
    let answer = wait_until("the last answer", || {
        let answer = ask(&mut asking);
        assert!(answer.starts_with("http/1.1 200 "), "{answer}");
        answer.contains("connection: close").then_some(answer)
    });
    assert!(answer.contains("worker=1 "), "{answer}");
    for stream in [&mut asking, &mut quiet] {
        assert_eq!(stream.read(&mut [0]).unwrap(), 0, "an end in order");
    }
    wait_until("its end", || (server.worker_pids().len() == 1).then_some(()));
    assert!(!server.log()[mark..].contains("cut off"), "{}", server.log());
}

#[test]
fn when_all_leave_idle_connections_are_closed_once_they_are_quiet() {
    let server = pool("2").start();
    let (mut asking, mut quiet) = (kept_clients(&server, 10), kept_clients(&server, 10));
    server.tell(Signal::SIGWINCH);
    for client in &mut asking {
        wait_until("the last answer", || client.get(QUICK).closes().then_some(()));
    }
    for client in &mut quiet {
        assert_eq!(client.end(), End::Closed);
    }
    wait_until("no worker left", || server.worker_pids().is_empty().then_some(()));
    let mut waiting = Client::open(server.address());
    waiting.send(request("GET", WHO));
    server.tell(Signal::SIGTTIN);
    assert_eq!(waiting.answer().status, 200);
}

#[test]
fn a_receiver_at_its_limit_makes_room_as_for_new_connections() {
    let server = pool("2").args(["--maxConnections", "10"]).start();
    let mut clients = kept_clients(&server, 16);
    retire_one(&server);
    wait_until("the limit kept", || {
        let open = clients.iter_mut().filter(|client| is_open(client)).count();
        assert!(open >= 10, "{open}");
        (open == 10).then_some(())
    });
    for client in clients.iter_mut().filter_map(|client| is_open(client).then_some(client)) {
        assert_eq!(client.get(QUICK).status, 200);
    }
}

fn is_open(client: &Client) -> bool {
    client.stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    let peeked = client.stream.peek(&mut [0]);
    client.stream.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
    peeked.is_err()
}
