//! Nobody is kept waiting by somebody else: not by greed, not by numbers, not by a busy worker.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use crate::support::{Client, End, Launch, pattern, post, request, time, wait_until};

fn testbed() -> Launch {
    Launch::example("testbed").args(["--socketQueueSize", "1024"])
}

/// 50 requests, half of them on a connection of their own.
fn fifty_requests(server: SocketAddr) -> Duration {
    let fifty = || {
        let mut kept = Client::open(server);
        for _ in 0..25 {
            assert_eq!(kept.get("/quick/who").status, 200);
            assert_eq!(Client::open(server).get("/quick/who").status, 200);
        }
    };
    time(fifty).1
}

#[test]
fn a_connection_that_never_stops_asking_does_not_starve_others() {
    be_greedy(&request("GET", "/quick/big?bytes=300"));
}

#[test]
fn a_connection_that_never_stops_sending_does_not_starve_others() {
    be_greedy(&post("/quick/body", &pattern(20_000)));
}

fn be_greedy(asked: &[u8]) {
    let server = testbed().start();
    let address = server.address();
    let done = Arc::new(AtomicBool::new(false));
    let greedy = Client::open(address).stream;
    let mut reader = greedy.try_clone().unwrap();
    let writes = {
        let (mut greedy, done, many) = (greedy, Arc::clone(&done), asked.repeat(2000));
        thread::spawn(move || {
            let mut rounds = 0;
            while !done.load(Ordering::SeqCst) && greedy.write_all(&many).is_ok() {
                rounds += 1;
            }
            let _ = greedy.shutdown(std::net::Shutdown::Both);
            rounds
        })
    };
    let (tell, up_to_speed) = std::sync::mpsc::channel();
    let reads = thread::spawn(move || {
        let mut buffer = vec![0; 1 << 20];
        let mut total = 0;
        while let Ok(n @ 1..) = reader.read(&mut buffer) {
            total += n;
            if total > 100_000 {
                let _ = tell.send(());
            }
        }
        total
    });
    up_to_speed.recv().unwrap();
    let took = fifty_requests(address);
    done.store(true, Ordering::SeqCst);
    assert!(writes.join().unwrap() > 0 && reads.join().unwrap() > 100_000, "it was greedy");
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn a_large_body_in_chunks_of_one_byte_does_not_starve_others() {
    let server = testbed().args(["--bodyInMemory", "0"]).start();
    let (address, done) = (server.address(), Arc::new(AtomicBool::new(false)));
    let mut sender = Client::open(address).stream;
    sender.write_all(b"POST /quick/body HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
    let (until, (began, begins)) = (Arc::clone(&done), mpsc::channel());
    let sends = thread::spawn(move || {
        let many = b"1\r\nx\r\n".repeat(100_000);
        for _ in 0..100 {
            if until.load(Ordering::SeqCst) || sender.write_all(&many).is_err() {
                break;
            }
            // Nobody listens after the first time.
            let _ = began.send(());
        }
    });
    begins.recv().expect("something is sent");
    let took = fifty_requests(address);
    done.store(true, Ordering::SeqCst);
    sends.join().unwrap();
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn large_downloads_and_uploads_do_not_starve_others() {
    let server = testbed().args(["--maxBody", "4g"]).start();
    let address = server.address();
    let path = server.folder().join("sparse");
    File::create(&path).unwrap().set_len(1 << 30).unwrap();
    let target = format!("/quick/file?path={}", path.display());
    let download = thread::spawn(move || {
        let mut client = Client::open(address).stream;
        client.write_all(&request("GET", &target)).unwrap();
        std::io::copy(&mut client.take(1 << 30), &mut std::io::sink()).unwrap()
    });
    let upload = thread::spawn(move || {
        let mut client = Client::open(address);
        client.send(format!("POST /body HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", 256 << 20));
        let piece = vec![0; 1 << 20];
        for _ in 0..256 {
            client.send(&piece);
        }
        client.answer().text()
    });
    let took = fifty_requests(address);
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(download.join().unwrap(), 1 << 30);
    assert!(upload.join().unwrap().starts_with("268435456 268435456 "));
}

#[test]
fn one_that_does_not_take_its_answers_does_not_starve_others() {
    let server = testbed().start();
    let mut stubborn = Client::open(server.address());
    stubborn.stream.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    let many = request("GET", "/quick/big?bytes=30000").repeat(1000);
    while stubborn.stream.write_all(&many).is_ok() {}
    let took = fifty_requests(server.address());
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn at_the_limit_the_longest_idle_connection_makes_room() {
    let server = testbed().args(["--maxConnections", "8"]).start();
    let mut kept: Vec<_> = (0..8)
        .map(|_| {
            let mut client = Client::open(server.address());
            assert_eq!(client.get("/quick/who").status, 200);
            client
        })
        .collect();
    // The first is now the one that was idle for the shortest time.
    assert_eq!(kept[0].get("/quick/who").status, 200);
    let mut one_more = Client::open(server.address());
    assert_eq!(one_more.get("/quick/who").status, 200);
    assert_eq!(kept.remove(1).end(), End::Closed);
    for client in &mut kept {
        assert!(client.is_kept());
    }
}

#[test]
fn when_all_connections_are_at_work_a_new_one_waits_for_the_first_that_is_free() {
    let server = testbed().args(["--maxConnections", "3"]).start();
    let mut busy: Vec<_> = (0..3).map(|_| Client::open(server.address())).collect();
    for client in &mut busy {
        client.send(request("GET", "/later?ms=300"));
    }
    let (status, took) = time(|| Client::open(server.address()).get("/quick/who").status);
    assert_eq!(status, 200);
    assert!(took < Duration::from_secs(3), "{took:?}");
    for client in &mut busy {
        assert_eq!(client.answer().text(), "later");
    }
}

/// The connections of the busiest worker, by the mean of all, of clients who come as `arrive` says.
fn imbalance(workers: u32, arrive: impl Fn(SocketAddr) -> Vec<Client>) -> f64 {
    let server = testbed().arg("--processPool").arg(workers.to_string()).start();
    let mut clients = arrive(server.address());
    let mut counts: HashMap<String, u32> = HashMap::new();
    for client in &mut clients {
        *counts.entry(client.get("/quick/who").text()).or_default() += 1;
    }
    let busiest = *counts.values().max().unwrap();
    f64::from(busiest) * f64::from(workers) / f64::from(u32::try_from(clients.len()).unwrap())
}

fn median_of_three(mut measure: impl FnMut() -> f64) -> f64 {
    let mut measured = [measure(), measure(), measure()];
    measured.sort_by(f64::total_cmp);
    measured[1]
}

#[test]
fn clients_that_come_one_by_one_spread_evenly() {
    let one_by_one = |server| {
        let come = |_| {
            let mut client = Client::open(server);
            assert_eq!(client.get("/quick/who").status, 200);
            client
        };
        (0..200).map(come).collect()
    };
    let median = median_of_three(|| imbalance(4, one_by_one));
    assert!(median <= 1.10, "the busiest has {median} times the mean");
}

#[test]
fn clients_that_come_at_once_spread_evenly() {
    let at_once = |server| {
        let mut clients: Vec<_> = (0..200).map(|_| Client::open(server)).collect();
        for client in &mut clients {
            client.send(request("GET", "/quick/who"));
        }
        for client in &mut clients {
            assert_eq!(client.answer().status, 200);
        }
        clients
    };
    let median = median_of_three(|| imbalance(4, at_once));
    assert!(median <= 1.10, "the busiest has {median} times the mean");
}

#[test]
fn no_new_connection_waits_behind_a_busy_worker_while_a_sibling_is_idle() {
    let server = testbed().args(["--processPool", "4"]).start();
    let mut fastest = Duration::MAX;
    // One fair round of three is proof enough; the machine has other things to do as well.
    for _ in 0..3 {
        let mut clients: Vec<_> = (0..4).map(|_| Client::open(server.address())).collect();
        let ((), took) = time(|| {
            for client in &mut clients {
                client.send(request("GET", "/slow?ms=300"));
            }
            for client in &mut clients {
                assert_eq!(client.answer().status, 200);
            }
        });
        fastest = fastest.min(took);
    }
    assert!(fastest < Duration::from_millis(550), "two after each other: {fastest:?}");
}

#[test]
fn out_of_descriptors_a_worker_goes_on_with_those_it_has_and_does_not_spin() {
    let server = testbed().start();
    let worker = server.worker_pids()[0];
    let limit = fs::read_dir(format!("/proc/{worker}/fd")).unwrap().count() + 10;
    let mut prlimit = std::process::Command::new("prlimit");
    assert!(
        prlimit.args(["--pid", &worker.to_string(), &format!("--nofile={limit}:{limit}")]).status().unwrap().success()
    );
    let mut kept = Client::open(server.address());
    assert_eq!(kept.get("/quick/who").status, 200);
    let mut crowd: Vec<_> = (0..30).map(|_| Client::open(server.address())).collect();
    for client in &mut crowd {
        client.send("GET /quick/wh");
    }
    server.wait_for_log("cannot accept connections");
    let before = cpu_ticks(worker);
    thread::sleep(Duration::from_millis(500));
    assert!(cpu_ticks(worker) - before < 25, "it spins");
    assert!(server.log().matches("cannot accept connections").count() < 30, "a line each time");
    drop(crowd);
    wait_until("a new client served", || {
        (Client::open(server.address()).get("/quick/who").status == 200).then_some(())
    });
}

/// User and system time, in hundredths of a second: fields 14 and 15 of proc(5) stat.
fn cpu_ticks(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields = stat.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2);
    fields.map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}
