//! Who runs a request in each mode, and how many run at once: the table of the modes, told by the example `slow` itself.

use std::collections::HashSet;
use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::{Client, Server, Told, ask_at_once, request, slow, threads_of, wait_until};

/// The one worker of the modes that have one.
fn worker_of(server: &Server) -> i32 {
    let workers = server.worker_pids();
    assert_eq!(workers.len(), 1);
    workers[0]
}

fn pids(told: &[Told]) -> HashSet<i32> {
    told.iter().map(|told| told.pid).collect()
}

fn threads(told: &[Told]) -> HashSet<(i32, &str)> {
    told.iter().map(|told| (told.pid, told.thread.as_str())).collect()
}

/// The most that ran at once.
fn most(told: &[Told]) -> u64 {
    let most = told.iter().map(|told| told.running).max().unwrap();
    assert_eq!(told.iter().map(|told| told.peak).max(), Some(most), "{told:?}");
    most
}

#[test]
fn the_example_says_what_it_does_not_understand() {
    let server = slow(&[]);
    let mut client = Client::open(server.address());
    for target in ["/?ms=x", "/?ms=", "/?ms=-1", "/?ms=1.5", "/?ms=99999999999999999999"] {
        let answer = client.get(target);
        assert_eq!(answer.status, 400, "{target}");
        assert!(answer.text().contains("/?ms=1000"), "{}", answer.text());
    }
    assert!(client.get("/").text().contains(r#""ms":0}"#));
}

#[test]
fn the_example_does_not_count_the_requests_of_a_worker_that_was_killed() {
    let server = slow(&["--processPool", "2"]);
    let mut killed = Client::open(server.address());
    killed.send(request("GET", "/?ms=20000"));
    let other = wait_until("a request under way", || {
        let told = Told::of(&Client::open(server.address()).get("/"));
        (told.running == 2).then_some(told.pid)
    });
    let victim = server.worker_pids().into_iter().find(|pid| *pid != other).expect("the one that is held");
    server.signal(victim, Signal::SIGKILL);
    wait_until("its request forgotten", || {
        (Told::of(&Client::open(server.address()).get("/")).running == 1).then_some(())
    });
}

#[test]
fn single_one_request_runs_and_the_next_waits_for_its_turn() {
    let server = slow(&[]);
    let (told, took) = ask_at_once(&server, 4, 100);
    assert_eq!(pids(&told), [worker_of(&server)].into());
    assert_eq!(most(&told), 1, "{told:?}");
    assert!(took >= Duration::from_millis(400), "{took:?}");
}

#[test]
fn forking_each_request_runs_in_a_process_of_its_own() {
    let server = slow(&["--forking", "1"]);
    let (mut told, took) = ask_at_once(&server, 6, 300);
    assert_eq!(most(&told), 6, "{told:?}");
    assert!(took < Duration::from_millis(6 * 300), "{took:?}");
    let mut kept = Client::open(server.address());
    told.extend((0..20).map(|_| Told::of(&kept.get("/"))));
    let pids = pids(&told);
    assert_eq!(pids.len(), told.len(), "no process answers twice");
    assert!(!pids.contains(&server.pid()) && !pids.contains(&worker_of(&server)), "{pids:?}");
}

#[test]
fn forking_at_most_max_processes_run_and_the_others_wait() {
    let server = slow(&["--forking", "1", "--maxProcesses", "3"]);
    let (told, took) = ask_at_once(&server, 8, 150);
    assert_eq!(most(&told), 3, "{told:?}");
    assert!(took >= Duration::from_millis(3 * 150), "{took:?}");
}

#[test]
fn threading_each_request_runs_in_a_thread_of_its_own_that_ends_with_it() {
    let server = slow(&["--threading", "1"]);
    let worker = worker_of(&server);
    let before = threads_of(worker);
    let (mut told, took) = ask_at_once(&server, 6, 300);
    assert_eq!(most(&told), 6, "{told:?}");
    assert!(took < Duration::from_millis(6 * 300), "{took:?}");
    let mut kept = Client::open(server.address());
    told.extend((0..20).map(|_| Told::of(&kept.get("/"))));
    assert_eq!(pids(&told), [worker].into());
    assert_eq!(threads(&told).len(), told.len(), "no thread answers twice");
    wait_until("the threads gone", || (threads_of(worker) == before).then_some(()));
}

#[test]
fn threading_at_most_max_threads_run_and_the_others_wait() {
    let server = slow(&["--threading", "1", "--maxThreads", "3"]);
    let (told, took) = ask_at_once(&server, 8, 150);
    assert_eq!(most(&told), 3, "{told:?}");
    assert!(took >= Duration::from_millis(3 * 150), "{took:?}");
}

#[test]
fn thread_pool_its_threads_are_there_from_the_start_and_share_all_requests() {
    let server = slow(&["--threadPool", "3"]);
    let worker = worker_of(&server);
    let name = |thread| fs::read_to_string(format!("/proc/{thread}/comm")).unwrap_or_default();
    let handlers = || threads_of(worker).into_iter().filter(|&thread| name(thread).starts_with("handler-")).count();
    // A thread names itself, a moment after it was made.
    wait_until("three handler threads", || (handlers() == 3).then_some(()));
    let before = threads_of(worker);
    let (mut told, took) = ask_at_once(&server, 4, 300);
    assert_eq!(most(&told), 3, "{told:?}");
    assert!(took >= Duration::from_millis(600), "{took:?}");
    let mut kept = Client::open(server.address());
    told.extend((0..20).map(|_| Told::of(&kept.get("/"))));
    assert_eq!(pids(&told), [worker].into());
    assert_eq!(threads(&told).len(), 3, "{told:?}");
    assert_eq!(threads_of(worker), before);
}

#[test]
fn process_pool_each_process_runs_a_request() {
    let server = slow(&["--processPool", "4"]);
    let (told, took) = ask_at_once(&server, 4, 500);
    assert_eq!(pids(&told), server.worker_pids().into_iter().collect());
    assert_eq!(most(&told), 4, "{told:?}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    let (told, took) = ask_at_once(&server, 5, 200);
    assert_eq!(most(&told), 4, "{told:?}");
    assert!(took >= Duration::from_millis(400), "{took:?}");
}

#[test]
fn process_pool_with_handler_threads_each_process_runs_so_many() {
    let server = slow(&["--processPool", "2", "--handlerThreads", "3"]);
    let (told, took) = ask_at_once(&server, 6, 500);
    assert_eq!(most(&told), 6, "{told:?}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(threads(&told).len(), 6, "{told:?}");
    let (told, took) = ask_at_once(&server, 7, 200);
    assert_eq!(most(&told), 6, "{told:?}");
    assert!(took >= Duration::from_millis(400), "{took:?}");
}
