//! `healthPath`: a worker answers itself before anybody else, and counts as ready only when that goes well.

use nix::sys::signal::Signal;

use crate::support::{Client, Connection, Launch, MODES, wait_until};

fn asking(example: &str, path: &str) -> Launch {
    Launch::example(example).args(["--healthPath", path, "--socketQueueSize", "64"])
}

#[test]
fn in_every_mode_a_worker_that_answers_is_ready() {
    for (mode, options) in MODES {
        for path in ["/who", "/quick/who"] {
            let server = asking("testbed", path).options(options).start();
            let asked = format!(r#""GET {path} HTTP/1.1" 200 "#);
            let lines = wait_until("a line of each worker", || {
                let log = server.access_log();
                (log.lines().count() == server.worker_pids().len()).then_some(log)
            });
            for line in lines.lines() {
                let is_it =
                    line.starts_with("unix: - - [") && line.contains(&asked) && line.contains("regrow health check");
                assert!(is_it, "{mode}: {line}");
            }
            let mut client = Client::open(server.address());
            assert_eq!(client.get("/who").status, 200, "{mode}");
            assert!(client.is_kept(), "{mode}");
        }
    }
}

#[test]
fn in_every_mode_one_that_answers_with_an_error_cannot_boot() {
    for (mode, options) in MODES {
        let mut server = asking("faulty", "/panic").options(options).spawn();
        assert_eq!(server.exit_code(), 3, "{mode}");
        let log = server.log();
        assert!(log.contains("its reason: healthPath = /panic answered 500 Internal Server Error"), "{mode}: {log}");
        assert!(!log.contains(" ready ("), "{mode}: {log}");
    }
}

#[test]
fn a_process_that_dies_over_it_is_an_error_too() {
    let mut server = asking("faulty", "/exit/7").args(["--forking", "1"]).spawn();
    assert_eq!(server.exit_code(), 3);
    let log = server.log();
    assert!(log.contains("its reason: healthPath = /exit/7 answered 502 Bad Gateway"), "{log}");
}

#[test]
fn a_worker_that_never_answers_is_ended_by_start_timeout() {
    for options in [&["--processPool", "2"][..], &["--forking", "1"], &["--threading", "1"]] {
        let mut server = asking("faulty", "/sleep/60000").args(["--startTimeout", "1s"]).options(options).spawn();
        assert_eq!(server.exit_code(), 3, "{options:?}");
        assert!(server.log().contains("sleeping in worker=0 "), "it was not asked");
    }
}

#[test]
fn a_stop_does_not_wait_for_the_answer() {
    for options in [&["--processPool", "2"][..], &["--forking", "1"]] {
        let launch = asking("faulty", "/sleep/3600000").options(options);
        let mut server = launch.args(["--gracefulTimeout", "1h", "--startTimeout", "1h"]).spawn();
        server.wait_for_log("sleeping in ");
        assert_eq!(server.stop(), 0, "{options:?}");
    }
}

#[test]
fn nobody_else_is_served_before_the_answer_is_there() {
    let server = asking("faulty", "/sleep/700").args(["--threading", "1"]).spawn();
    server.wait_for_log("sleeping in ");
    let mut early = Connection::open(server.address()).unwrap();
    assert_eq!(early.get("/").unwrap().status, 200);
    let log = wait_until("two lines", || Some(server.access_log()).filter(|log| log.lines().count() == 2));
    assert!(log.lines().next().is_some_and(|line| line.contains("GET /sleep/700 ")), "{log}");
}

#[test]
fn tls_and_the_proxy_protocol_are_no_obstacle() {
    let server = asking("testbed", "/quick/who").args(["--proxyProtocol", "1"]).tls("ec").start();
    wait_until("the answer", || server.access_log().contains(r#""GET /quick/who HTTP/1.1" 200 "#).then_some(()));
}

#[test]
fn a_worker_that_comes_later_is_asked_as_well() {
    let server = asking("testbed", "/who").args(["--processPool", "2"]).start();
    let mark = server.log_mark();
    server.tell(Signal::SIGTTIN);
    server.wait_for_log_after(mark, "ready (3 of 3 serve)");
    wait_until("all asked", || (server.access_log().matches("regrow health check").count() == 3).then_some(()));
}
