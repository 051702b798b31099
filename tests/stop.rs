//! The ways out: nobody who is being served, or waits to be, is forgotten, and nothing is left behind.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::{Connection, Launch, Server, is_alive, wait_until};

fn faulty() -> Launch {
    Launch::example("faulty").args(["--socketQueueSize", "64"])
}

/// A connection whose request runs for so many milliseconds, and is running now.
fn slow_request(server: &Server, milliseconds: u32) -> Connection {
    let mut connection = Connection::open(server.address()).expect("a connection");
    let mark = server.log_mark();
    connection.ask(format_args!("/sleep/{milliseconds}")).expect("a request");
    server.wait_for_log_after(mark, "sleeping in ");
    connection
}

#[test]
fn term_quit_and_int_finish_what_runs_and_exit_0() {
    for signal in [Signal::SIGTERM, Signal::SIGQUIT, Signal::SIGINT] {
        let mut server = faulty().args(["--processPool", "2"]).start();
        let mut slow = slow_request(&server, 600);
        server.tell(signal);
        let reply = slow.answer().unwrap_or_else(|cause| panic!("{signal}: cut off: {cause}"));
        assert_eq!(reply.status, 200);
        assert!(reply.head.to_lowercase().contains("connection: close"), "{}", reply.head);
        assert_eq!(server.exit_code(), 0, "{signal}");
        let end = server.wait_for_log("requests were answered");
        assert!(end.contains("1 requests were answered, 0 were cut off"), "{end}");
        assert!(server.log().contains("2 workers drained as asked, 0 were cut off"));
    }
}

#[test]
fn clients_in_the_queue_are_served_before_the_server_stops() {
    let mut server = faulty().start();
    let worker = server.worker_pids()[0];
    server.signal(worker, Signal::SIGSTOP);
    let mut queued: Vec<_> = (0..30).map(|_| Connection::open(server.address()).unwrap()).collect();
    for connection in &mut queued {
        connection.ask("/").unwrap();
    }
    server.tell(Signal::SIGTERM);
    server.wait_for_log("stopping");
    server.signal(worker, Signal::SIGCONT);
    for connection in &mut queued {
        assert_eq!(connection.answer().expect("an answer").status, 200);
    }
    assert_eq!(server.exit_code(), 0);
}

#[test]
fn a_term_to_every_process_resets_nobody_in_the_queue() {
    for _ in 0..5 {
        let mut server = faulty().args(["--processPool", "2"]).start();
        let begun = Instant::now();
        let mut queued: Vec<_> = (0..20).map(|_| Connection::open(server.address()).unwrap()).collect();
        // The workers first: they must not take the signal for their own, and leave the queue to nobody.
        for worker in server.worker_pids() {
            server.signal(worker, Signal::SIGTERM);
        }
        server.tell(Signal::SIGTERM);
        for connection in &mut queued {
            connection.ask("/").unwrap();
            assert_eq!(connection.answer().expect("an answer").status, 200);
        }
        drop(queued);
        assert_eq!(server.exit_code(), 0);
        assert!(begun.elapsed() >= Duration::from_millis(200), "{:?}", begun.elapsed());
    }
}

#[test]
fn workers_that_do_not_serve_yet_end_with_their_master() {
    let server = faulty().env("FAULTY_START", "hang").args(["--processPool", "2"]).spawn();
    let workers = wait_until("workers", || Some(server.worker_pids()).filter(|pids| pids.len() == 2));
    server.tell(Signal::SIGKILL);
    for worker in workers {
        wait_until("the end of a worker that hangs", || (!is_alive(worker)).then_some(()));
    }
}

#[test]
fn requests_behind_a_slow_one_are_served_before_the_server_stops() {
    let mut server = faulty().start();
    let mut slow = slow_request(&server, 500);
    let mut behind: Vec<_> = (0..10).map(|_| Connection::open(server.address()).unwrap()).collect();
    for connection in &mut behind {
        connection.ask("/").unwrap();
    }
    server.tell(Signal::SIGTERM);
    assert_eq!(slow.answer().expect("an answer").status, 200);
    for connection in &mut behind {
        assert_eq!(connection.answer().expect("an answer").status, 200);
    }
    assert_eq!(server.exit_code(), 0);
}

#[test]
fn a_client_that_has_connected_and_said_nothing_yet_is_served_within_drain_delay() {
    let mut server = faulty().args(["--drainDelay", "2s"]).start();
    let mut silent: Vec<_> = (0..5).map(|_| Connection::open(server.address()).unwrap()).collect();
    server.tell(Signal::SIGTERM);
    server.wait_for_log("stopping");
    let mut late = Connection::open(server.address()).expect("new clients are taken until drainDelay is over");
    for connection in silent.iter_mut().chain([&mut late]) {
        assert_eq!(connection.get("/").expect("an answer").status, 200);
    }
    assert_eq!(server.exit_code(), 0);
}

#[test]
fn idle_connections_do_not_delay_a_stop() {
    let mut server = faulty().args(["--processPool", "2"]).start();
    let mut idle: Vec<_> = (0..20).map(|_| Connection::open(server.address()).unwrap()).collect();
    for connection in &mut idle {
        assert_eq!(connection.get("/").unwrap().status, 200);
    }
    let begun = Instant::now();
    assert_eq!(server.stop(), 0);
    assert!(begun.elapsed() < Duration::from_secs(8), "it took {:?}", begun.elapsed());
    assert!(idle.iter_mut().all(Connection::is_closed));
}

#[test]
fn a_second_term_changes_nothing_and_says_so() {
    let mut server = faulty().start();
    let mut slow = slow_request(&server, 700);
    server.tell(Signal::SIGTERM);
    server.wait_for_log("TERM: stopping");
    server.tell(Signal::SIGTERM);
    server.wait_for_log("TERM changes nothing");
    assert_eq!(slow.answer().expect("it is not cut off").status, 200);
    assert_eq!(server.exit_code(), 0);
}

#[test]
fn a_second_int_stops_at_once() {
    let mut server = faulty().args(["--processPool", "2"]).start();
    let mut slow = slow_request(&server, 60_000);
    let begun = Instant::now();
    server.tell(Signal::SIGINT);
    server.wait_for_log("INT: stopping");
    server.tell(Signal::SIGINT);
    server.exit_code();
    assert!(begun.elapsed() < Duration::from_secs(10), "it took {:?}", begun.elapsed());
    server.wait_for_log("stopping at once");
    server.wait_for_log("1 were cut off");
    assert!(slow.answer().is_err());
}

#[test]
fn graceful_timeout_cuts_off_what_does_not_end_and_says_what_it_was() {
    let mut server = faulty().args(["--gracefulTimeout", "300ms"]).start();
    let mut slow = slow_request(&server, 60_000);
    server.tell(Signal::SIGTERM);
    assert_eq!(server.exit_code(), 0);
    let death = server.wait_for_log("was cut off");
    assert!(death.contains("gracefulTimeout") && death.contains("GET /sleep/60000"), "{death}");
    server.wait_for_log("0 requests were answered, 1 were cut off");
    assert!(slow.answer().is_err());
}

#[test]
fn a_stop_during_the_start_is_heeded() {
    let mut server = faulty().env("FAULTY_START", "hang").args(["--gracefulTimeout", "300ms"]).spawn();
    wait_until("a worker", || (!server.worker_pids().is_empty()).then_some(()));
    server.tell(Signal::SIGTERM);
    assert_eq!(server.exit_code(), 0);
}

#[test]
fn workers_whose_master_is_killed_finish_leave_and_free_the_port() {
    let server = faulty().args(["--processPool", "4"]).start();
    let workers = server.worker_pids();
    let mut idle = Connection::open(server.address()).unwrap();
    assert_eq!(idle.get("/").unwrap().status, 200);
    let mut slow = slow_request(&server, 800);
    server.tell(Signal::SIGKILL);
    assert_eq!(slow.answer().expect("the answer of the orphaned worker").status, 200);
    for worker in workers {
        wait_until("the end of the orphaned worker", || (!is_alive(worker)).then_some(()));
    }
    assert!(idle.is_closed());
    TcpListener::bind(server.address()).expect("the port is free again");
}

#[test]
fn orphaned_workers_drop_the_listener_at_once_while_they_finish() {
    let server = faulty().args(["--processPool", "2"]).start();
    let mut slow = slow_request(&server, 3_000);
    server.tell(Signal::SIGKILL);
    let begun = Instant::now();
    wait_until("the port free again", || TcpListener::bind(server.address()).ok());
    assert!(begun.elapsed() < Duration::from_millis(2_500), "the slow request was over before");
    assert_eq!(slow.answer().expect("the answer").status, 200);
}

#[test]
fn a_worker_hears_that_its_master_is_gone_though_a_sibling_stands_still() {
    for (still, other) in [(0, 1), (1, 0)] {
        let server = faulty().args(["--processPool", "2"]).start();
        let [still, other] = [still, other].map(|slot| {
            let line = server.wait_for_log(&format!(": worker={slot} gen=1 pid="));
            let pid = line.rsplit("pid=").next().and_then(|rest| rest.split(' ').next());
            pid.and_then(|pid| pid.parse().ok()).expect("a pid")
        });
        server.signal(still, Signal::SIGSTOP);
        server.tell(Signal::SIGKILL);
        wait_until("the end of the other", || (!is_alive(other)).then_some(()));
    }
}
