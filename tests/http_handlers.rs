//! Handlers that take long, answer elsewhere, or fail; and who must not notice.

use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Client, Launch, request, time, wait_until};

fn testbed() -> Launch {
    Launch::example("testbed").args(["--socketQueueSize", "1024"])
}

#[test]
fn a_panic_is_a_500_and_a_line_and_no_lost_worker() {
    let server = testbed().args(["--processPool", "2"]).start();
    let mut pids = server.worker_pids();
    for target in ["/panic", "/quick/panic", "/drop", "/quick/drop"] {
        let mark = server.log_mark();
        let mut client = Client::open(server.address());
        assert_eq!(client.get(target).status, 500, "{target}");
        assert!(client.is_kept(), "{target}");
        let reason = if target.ends_with("panic") { "a mistake of the handler" } else { "dropped without an answer" };
        assert!(server.wait_for_log_after(mark, reason).contains("worker="), "{target}");
    }
    for target in ["/fragile", "/quick/fragile"] {
        let mut client = Client::open(server.address());
        assert_eq!(client.get(target).status, 200, "{target}");
        assert!(client.is_kept(), "{target}");
    }
    let mut client = Client::open(server.address());
    assert!(client.get("/panic-before").status < 600, "whatever it is, it is an answer");
    server.wait_for_log("asked whether it may block");
    assert!(client.is_kept());
    let mut after = server.worker_pids();
    pids.sort_unstable();
    after.sort_unstable();
    assert_eq!(after, pids);
}

#[test]
fn an_answer_may_come_later_from_anywhere() {
    let server = testbed().start();
    for target in ["/later?ms=100", "/quick/later?ms=100"] {
        let mut clients: Vec<_> = (0..20).map(|_| Client::open(server.address())).collect();
        let ((), took) = time(|| {
            for client in &mut clients {
                client.send(request("GET", target));
            }
            for client in &mut clients {
                assert_eq!(client.answer().text(), "later");
            }
        });
        assert!(took < Duration::from_secs(1), "one after the other: {took:?}");
    }
    assert_eq!(Client::open(server.address()).get("/twice").text(), "once");
}

#[test]
fn an_answer_that_comes_after_its_client_has_gone_reaches_nobody_else() {
    let server = testbed().start();
    for _ in 0..20 {
        Client::open(server.address()).send(request("GET", "/later?ms=50"));
    }
    for _ in 0..40 {
        let mut client = Client::open(server.address());
        client.send(request("GET", "/slow?ms=5"));
        assert_eq!(client.answer().text(), "slow");
    }
}

#[test]
fn a_slow_handler_does_not_stall_the_loop() {
    let server = testbed().start();
    let mut slow = Client::open(server.address());
    slow.send(request("GET", "/slow?ms=1000"));
    let start = Instant::now();
    let mut kept = Client::open(server.address());
    let fastest = (0..10).map(|_| time(|| kept.get("/quick/who").status)).min_by_key(|(_, took)| *took).unwrap();
    assert!(fastest.0 == 200 && fastest.1 < Duration::from_millis(50), "{fastest:?}");
    assert_eq!(Client::open(server.address()).get("/quick/who").status, 200);
    assert!(start.elapsed() < Duration::from_millis(900), "after {:?}", start.elapsed());
    assert_eq!(slow.answer().text(), "slow");
}

#[test]
fn slow_handlers_everywhere_do_not_delay_quick_ones() {
    let server = testbed().args(["--processPool", "2"]).start();
    let mut slow: Vec<_> = (0..20).map(|_| Client::open(server.address())).collect();
    for client in &mut slow {
        client.send(request("GET", "/slow?ms=150"));
    }
    let start = Instant::now();
    for n in 0..10 {
        let (status, took) = time(|| Client::open(server.address()).get("/quick/who").status);
        assert_eq!(status, 200);
        assert!(took < Duration::from_millis(500), "request {n} after {took:?}");
    }
    assert!(start.elapsed() < Duration::from_secs(1), "all after {:?}", start.elapsed());
    for client in &mut slow {
        assert_eq!(client.answer().text(), "slow");
    }
}

#[test]
fn in_one_worker_requests_run_one_after_the_other() {
    let server = testbed().start();
    let mut clients: Vec<_> = (0..10).map(|_| Client::open(server.address())).collect();
    for client in &mut clients {
        client.send(request("GET", "/slow?ms=20"));
    }
    for client in &mut clients {
        assert_eq!(client.answer().status, 200);
    }
    assert_eq!(clients[0].get("/most").text(), "1");
}

#[test]
fn a_slow_stream_does_not_stall_the_loop() {
    let server = testbed().start();
    let mut slow = Client::open(server.address());
    slow.send(request("GET", "/stream?chunks=10&size=5&ms=50"));
    let mut kept = Client::open(server.address());
    for _ in 0..5 {
        let (status, took) = time(|| kept.get("/quick/who").status);
        assert!(status == 200 && took < Duration::from_millis(200), "{took:?}");
    }
    assert_eq!(slow.answer().body.len(), 50);
}

#[test]
fn a_request_that_waits_for_its_turn_outlives_a_panic_before_it() {
    let server = testbed().start();
    let address = server.address();
    let threads: Vec<_> = (0..8)
        .map(|n| {
            thread::spawn(move || {
                let target = if n % 2 == 0 { "/panic" } else { "/slow?ms=10" };
                let mut client = Client::open(address);
                (0..5).map(|_| client.get(target).status).all(|status| status == if n % 2 == 0 { 500 } else { 200 })
            })
        })
        .collect();
    assert!(threads.into_iter().all(|thread| thread.join().unwrap()));
    wait_until("every panic logged", || (server.log().matches("a mistake of the handler").count() == 20).then_some(()));
}
