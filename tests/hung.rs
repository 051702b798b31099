//! Requests that nobody answers in time: their clients hear of it, the log says whose fault it is, and nobody else
//! notices.

use std::time::Duration;

use socket2::SockRef;

use crate::support::{Client, Launch, Server, children_of, request, time, wait_until};

/// What the server is told, and the least and the most that its clients wait.
const TIMEOUT: &str = "500ms";
const AT_LEAST: Duration = Duration::from_millis(450);
const AT_MOST: Duration = Duration::from_secs(3);

/// The modes in which a handler that is stuck keeps a thread.
const WITH_THREADS: [(&str, &[&str]); 4] = [
    ("single", &[]),
    ("threading", &["--threading", "1"]),
    ("processPool", &["--processPool", "2"]),
    ("threadPool", &["--threadPool", "2"]),
];

fn testbed(options: &[&str]) -> Server {
    let launch = Launch::example("testbed").args(["--requestTimeout", TIMEOUT]);
    launch.args(["--level", "trace"]).options(options).start()
}

fn address_of(client: &Client) -> String {
    client.stream.local_addr().unwrap().to_string()
}

/// Asks for what is not answered in time.
fn expect_504(server: &Server, target: &str) -> String {
    let mark = server.log_mark();
    let mut client = Client::open(server.address());
    let (answer, took) = time(|| client.get(target));
    assert_eq!(answer.status, 504, "{target}: {}", answer.text());
    assert!(answer.closes(), "{target}: {:?}", answer.fields);
    assert!((AT_LEAST..AT_MOST).contains(&took), "{target}: after {took:?}");
    let line = server.wait_for_log_after(mark, "beyond requestTimeout");
    assert!(line.contains(" error ") && line.contains(&format!("GET {target} from {}", address_of(&client))), "{line}");
    assert!(line.contains("answering 504"), "{line}");
    line
}

#[test]
fn a_handler_that_is_stuck_costs_its_client_a_504_and_its_worker_is_reported_once() {
    for (mode, options) in WITH_THREADS {
        let server = testbed(options);
        let line = expect_504(&server, "/slow?ms=60000");
        assert!(line.contains("its thread ends only with the worker"), "{mode}: {line}");
        server.wait_for_log("reporting Hung");
        expect_504(&server, "/slow?ms=60001");
        assert!(server.access_log().contains("\"GET /slow?ms=60000 HTTP/1.1\" 504 "), "{mode}");
        let mut client = Client::open(server.address());
        assert_eq!(client.get("/who").status, 200, "{mode}: others are served");
    }
}

#[test]
fn a_process_that_is_stuck_is_killed_and_nobody_else_notices() {
    let server = testbed(&["--forking", "1"]);
    let workers = server.worker_pids();
    let mut other = Client::open(server.address());
    let mut slower = Client::open(server.address());
    slower.send(request("GET", "/stream?chunks=8&size=10&ms=200"));
    let line = expect_504(&server, "/slow?ms=60000");
    assert!(line.contains("its process is killed"), "{line}");
    assert_eq!(slower.answer().body.len(), 80, "each chunk has its time");
    assert_eq!(other.get("/who").status, 200);
    drop((other, slower));
    wait_until("no process left", || children_of(workers[0]).is_empty().then_some(()));
    assert_eq!(server.worker_pids(), workers);
    let log = server.log();
    assert!(!log.contains("reporting Hung") && !log.contains("ended (signal 9"), "said once, and not reported");
}

#[test]
fn a_response_whose_next_chunk_does_not_come_is_cut_off() {
    let all = WITH_THREADS.into_iter().chain([("forking", ["--forking", "1"].as_slice())]);
    for (mode, options) in all {
        let server = testbed(options);
        let mut client = Client::open(server.address());
        client.send(request("GET", "/stream?chunks=4&size=10&ms=200"));
        assert_eq!(client.answer().body.len(), 40, "{mode}: each chunk has its time");
        client.send(request("GET", "/stream?chunks=2&size=10&ms=60000"));
        let (answer, took) = time(|| client.try_answer_to("GET"));
        assert!(answer.is_err(), "{mode}: {answer:?}");
        assert!((AT_LEAST..AT_MOST).contains(&took), "{mode}: after {took:?}");
        let line = server.wait_for_log("beyond requestTimeout");
        let expected = if mode == "forking" { "its process is killed" } else { "ends only with the worker" };
        assert!(line.contains("cutting the response off; ") && line.contains(expected), "{mode}: {line}");
    }
}

#[test]
fn what_waits_behind_a_stuck_handler_is_answered_in_the_end() {
    for (mode, options) in WITH_THREADS {
        let server = testbed(options);
        let mut stuck = Client::open(server.address());
        stuck.send(request("GET", "/slow?ms=60000"));
        let mut waiting: Vec<_> = (0..4).map(|_| Client::open(server.address())).collect();
        for client in &mut waiting {
            client.send(request("GET", "/slow?ms=200"));
        }
        for client in &mut waiting {
            assert_eq!(client.answer().status, 200, "{mode}: its time begins when its handler does");
        }
        assert_eq!(stuck.answer().status, 504, "{mode}");
    }
}

#[test]
fn a_worker_with_a_stuck_thread_leaves_once_its_connections_are_done() {
    for (mode, options) in WITH_THREADS {
        let mut server = testbed(options);
        expect_504(&server, "/slow?ms=60000");
        let (code, took) = time(|| server.stop());
        assert!(code == 0 && took < Duration::from_secs(5), "{mode}: {code} after {took:?}");
    }
}

#[test]
fn a_handler_whose_client_has_left_is_stuck_all_the_same() {
    for (mode, options) in WITH_THREADS.into_iter().chain([("forking", ["--forking", "1"].as_slice())]) {
        let server = testbed(options);
        let mut client = Client::open(server.address());
        let address = address_of(&client);
        let sign = server.folder().join("sign");
        let target = format!("/slow?ms=60000&sign={}", sign.display());
        client.send(request("GET", &target));
        wait_until("the handler to run", || sign.exists().then_some(()));
        SockRef::from(&client.stream).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        let line = server.wait_for_log("beyond requestTimeout");
        assert!(line.contains(&format!("GET {target} from {address}")), "{mode}: {line}");
        assert!(line.contains("its client is gone or"), "{mode}: {line}");
    }
}

#[test]
fn an_exchange_that_nobody_answers_is_a_504_and_no_fault_of_the_worker() {
    for (mode, options) in WITH_THREADS {
        let server = testbed(options);
        for target in ["/keep", "/quick/keep"] {
            let line = expect_504(&server, target);
            assert!(line.contains("the handler has returned"), "{mode}: {line}");
        }
        assert!(!server.log().contains("reporting Hung"), "{mode}");
    }
    let line = expect_504(&testbed(&["--forking", "1"]), "/keep");
    assert!(line.contains("its process is killed"), "{line}");
}

#[test]
fn an_answer_that_comes_too_late_harms_nobody() {
    let server = testbed(&["--processPool", "2"]);
    for target in ["/later?ms=900", "/quick/later?ms=900", "/slow?ms=900"] {
        expect_504(&server, target);
        // Until the late answer has come, and a while longer.
        for _ in 0..100 {
            assert_eq!(Client::open(server.address()).get("/slow?ms=6").text(), "slow");
        }
        assert_eq!(Client::open(server.address()).get("/later?ms=50").text(), "later");
    }
    assert!(!server.log().contains("panic") && !server.log().contains(" died "));
}

#[test]
fn slow_clients_and_idle_connections_are_no_fault_of_a_handler() {
    for (mode, options) in WITH_THREADS.into_iter().chain([("forking", ["--forking", "1"].as_slice())]) {
        let server = testbed(options);
        let pids = server.worker_pids();
        let mut idle = Client::open(server.address());
        assert_eq!(idle.get("/who").status, 200);
        let mut slow_to_ask = Client::open(server.address());
        slow_to_ask.send("GET /who HTTP/1.1\r\nHo");
        let mut slow_to_read: Vec<_> = (0..2).map(|_| Client::open(server.address())).collect();
        slow_to_read[0].send(request("GET", "/big?bytes=10000000"));
        slow_to_read[1].send(request("GET", "/stream?chunks=10&size=1000000"));
        std::thread::sleep(3 * AT_LEAST);
        slow_to_ask.send("st: test\r\n\r\n");
        assert_eq!(slow_to_ask.answer().status, 200, "{mode}");
        for client in &mut slow_to_read {
            assert_eq!(client.answer().body.len(), 10_000_000, "{mode}");
        }
        assert_eq!(idle.get("/who").status, 200, "{mode}");
        assert!(!server.log().contains("requestTimeout"), "{mode}");
        assert_eq!(server.worker_pids(), pids, "{mode}");
    }
}

#[test]
fn without_a_timeout_a_handler_has_for_ever() {
    let server = Launch::example("testbed").args(["--requestTimeout", "0"]).start();
    for target in ["/slow?ms=700", "/later?ms=700"] {
        assert_eq!(Client::open(server.address()).get(target).status, 200, "{target}");
    }
}

#[test]
fn a_worker_that_has_answered_enough_says_so_once_and_goes_on() {
    for (mode, options) in WITH_THREADS.into_iter().chain([("forking", ["--forking", "1"].as_slice())]) {
        let server = testbed(&[options, &["--maxRequests", "20"]].concat());
        let mut client = Client::open(server.address());
        for n in 1..=19 {
            assert_eq!(client.get("/quick/who").status, 200, "{mode}");
            assert!(!server.log().contains("reporting Spent"), "{mode}: after {n}");
        }
        for _ in 0..5 {
            assert_eq!(Client::open(server.address()).get("/quick/who").status, 200, "{mode}");
        }
        server.wait_for_log("reporting Spent");
        assert_eq!(server.log().matches("reporting Spent").count(), 1, "{mode}");
    }
}
