//! Clients who hold connections hold nothing else: not by thousands, not by being slow, in no mode.

use std::thread;
use std::time::Duration;

use crate::support::{
    Client, MODES, ask, expect_answer, expect_prompt_answers, hold, make_room_for, post, request, skip, slow, time,
};

const CROWD: usize = 5_000;

#[test]
fn process_pool_two_workers_serve_thousands_who_keep_their_connections() {
    serve_a_crowd(&["--processPool", "2"]);
}

#[test]
fn thread_pool_two_threads_serve_thousands_who_keep_their_connections() {
    serve_a_crowd(&["--threadPool", "2"]);
}

fn serve_a_crowd(options: &[&str]) {
    let room = make_room_for(CROWD);
    if room < CROWD {
        return skip("a crowd", &format!("the limit of open files (ulimit -n) leaves room for {room} of {CROWD}"));
    }
    let server = slow(options);
    let address = server.address();
    let mut crowd = hold(address, CROWD);
    thread::scope(|scope| {
        let prompt = scope.spawn(|| expect_prompt_answers(address));
        // All ask before anybody reads.
        crowd.iter_mut().for_each(ask);
        crowd.iter_mut().for_each(expect_answer);
        prompt.join().expect("those who come meanwhile are served");
    });
}

#[test]
fn slow_and_silent_clients_delay_nobody_in_any_mode() {
    for (mode, options) in MODES {
        let server = slow(options);
        let open = |_| Client::open(server.address());
        let mut preconnected: Vec<_> = (0..10).map(open).collect();
        let mut silent: Vec<_> = (0..10).map(open).collect();
        let mut byte_by_byte = Client::open(server.address());
        let (asked, body) = (request("GET", "/"), post("/", b"0123456789"));
        for (n, client) in silent.iter_mut().enumerate() {
            client.send(if n % 2 == 0 { &asked[..20] } else { &body[..body.len() - 5] });
        }
        for &byte in &asked {
            byte_by_byte.send([byte]);
            let (answer, took) = time(|| Client::open(server.address()).get("/"));
            assert!(answer.status == 200 && took < Duration::from_secs(1), "{mode}: {took:?}");
        }
        assert_eq!(byte_by_byte.answer().status, 200, "{mode}");
        for (n, client) in silent.iter_mut().enumerate() {
            client.send(if n % 2 == 0 { &asked[20..] } else { &body[body.len() - 5..] });
            assert_eq!(client.answer().status, 200, "{mode}");
        }
        assert!(preconnected.iter_mut().all(|client| client.get("/").status == 200), "{mode}");
    }
}
