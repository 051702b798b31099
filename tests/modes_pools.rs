//! In a pool no request waits while somebody is free, whichever connection it came on.

use std::time::Duration;

use crate::support::{Client, Server, Told, request, slow, time, wait_until};

/// A handler that holds its process for so long that an answer within half of it came from elsewhere.
const STUCK: &str = "/?ms=2000";
const PROMPT: Duration = Duration::from_secs(1);

/// Clients whose connections are all kept by one worker, and its pid.
fn clients_of_one_worker(server: &Server, number: usize) -> (Vec<Client>, i32) {
    let mut clients: Vec<(Client, i32)> = Vec::new();
    for _ in 0..20 * number {
        let mut client = Client::open(server.address());
        let pid = Told::of(&client.get("/")).pid;
        clients.push((client, pid));
        if clients.iter().filter(|(_, of)| *of == pid).count() == number {
            clients.retain(|(_, of)| *of == pid);
            return (clients.into_iter().map(|(client, _)| client).collect(), pid);
        }
    }
    panic!("none of {} workers has got {number} of {} connections", server.worker_pids().len(), clients.len());
}

/// Waits until so many requests run, and one more that asks how many.
fn wait_until_running(server: &Server, number: u64) {
    wait_until("slow requests under way", || {
        let told = Told::of(&Client::open(server.address()).get("/"));
        (told.running == number + 1).then_some(())
    });
}

#[test]
fn process_pool_a_kept_connection_does_not_wait_for_its_stuck_worker() {
    let server = slow(&["--processPool", "2"]);
    let (mut clients, pid) = clients_of_one_worker(&server, 3);
    let (mut stuck, mut split, mut kept) = (clients.remove(0), clients.remove(0), clients.remove(0));
    stuck.send(request("GET", STUCK));
    wait_until_running(&server, 1);
    let (told, took) = time(|| Told::of(&kept.get("/")));
    assert!(took < PROMPT && told.pid != pid, "{told:?} after {took:?}");

    // A request of which a part has arrived when its worker gets stuck, or that is pipelined, is like any other.
    let ((), took) = time(|| {
        split.send("GET /?ms=1 HTTP/1.1\r\nHo");
        split
            .send("st: test\r\n\r\nGET /?ms=2 HTTP/1.1\r\nHost: test\r\n\r\nGET /?ms=3 HTTP/1.1\r\nHost: test\r\n\r\n");
        for ms in 1..=3 {
            let answer = split.answer();
            assert!(answer.text().contains(&format!(r#""ms":{ms}}}"#)), "{}", answer.text());
            assert_ne!(Told::of(&answer).pid, pid);
        }
        for _ in 0..10 {
            Told::of(&split.get("/"));
            Told::of(&kept.get("/"));
        }
    });
    assert!(took < PROMPT, "{took:?}");
    assert_eq!(Told::of(&stuck.answer()).pid, pid);
    for client in [&mut stuck, &mut split, &mut kept] {
        assert!(client.is_kept());
    }
}

#[test]
fn process_pool_what_waits_for_all_goes_to_whoever_is_free_first() {
    let server = slow(&["--processPool", "2"]);
    let (mut clients, _) = clients_of_one_worker(&server, 6);
    let ((), took) = time(|| {
        for client in &mut clients {
            client.send(request("GET", "/?ms=300"));
        }
        for client in &mut clients {
            Told::of(&client.answer());
        }
    });
    assert!(
        took < Duration::from_millis(4 * 300),
        "three for each take {:?}: {took:?}",
        Duration::from_millis(3 * 300)
    );
}

#[test]
fn thread_pool_a_kept_connection_does_not_wait_for_a_stuck_thread() {
    let server = slow(&["--threadPool", "2"]);
    let mut stuck = Client::open(server.address());
    Told::of(&stuck.get("/"));
    stuck.send(request("GET", STUCK));
    wait_until_running(&server, 1);
    let mut kept = Client::open(server.address());
    let (told, took) = time(|| (0..20).map(|_| Told::of(&kept.get("/"))).collect::<Vec<_>>());
    assert!(took < PROMPT, "{took:?}");
    let held = Told::of(&stuck.answer()).thread;
    assert!(told.iter().all(|told| told.thread != held), "{held} was held: {told:?}");
}
