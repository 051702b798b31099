//! Regrow behind nginx, Apache and haproxy, from the sample files, over TCP and over its socket file.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use nix::sys::signal::Signal;

use crate::support::{
    Answer, Client, Connection, Front, Launch, Place, RunningFront, Server, Transport, checksum, curl, descriptors_of,
    get, pattern, request, wait_until,
};

/// Above every buffer that there is between.
const BIG: usize = 5_000_000;
/// Who ask while workers are killed.
const CLIENTS: usize = 4;
const KILLS: usize = 4;
/// Who asks, where that is looked at.
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 77));

#[test]
fn nginx_passes_a_site_on_as_it_is() {
    over_both(|transport| a_site_arrives_as_it_is(Front::Nginx, transport));
}

#[test]
fn apache_passes_a_site_on_as_it_is() {
    over_both(|transport| a_site_arrives_as_it_is(Front::Apache, transport));
}

#[test]
fn haproxy_passes_a_site_on_as_it_is() {
    over_both(|transport| a_site_arrives_as_it_is(Front::Haproxy, transport));
}

#[test]
fn an_application_behind_nginx_gets_bodies_whole_and_loses_no_get() {
    over_both(|transport| an_application_is_served(Front::Nginx, transport, 0));
}

#[test]
fn an_application_behind_apache_gets_bodies_whole_and_loses_only_what_dead_workers_had() {
    over_both(|transport| an_application_is_served(Front::Apache, transport, KILLS * CLIENTS));
}

#[test]
fn an_application_behind_haproxy_gets_bodies_whole_and_loses_hardly_a_get() {
    // HAProxy gives up a request whose connection is reset, as it is where the dead worker had not read all of it.
    over_both(|transport| an_application_is_served(Front::Haproxy, transport, KILLS));
}

#[test]
fn a_get_whose_worker_dies_is_sent_again_by_nginx_and_haproxy_and_a_post_by_nobody() {
    for (front, repeats) in [(Front::Nginx, true), (Front::Apache, false), (Front::Haproxy, true)] {
        let place = Place::new(Transport::Tcp);
        let server = place.start(Launch::example("faulty"), "site.ini", &[("[staticContent]\n/ = /srv/www\n", "")]);
        let running = front.start(&place);
        // nginx repeats only what it has sent over a kept connection.
        assert_eq!(get(running.address, "/").expect("an answer").status, 200);
        let found = answer_while_its_worker_dies(&server, &running, "GET");
        assert_eq!(found == 200, repeats, "{front:?}: {found}");
        assert_eq!(get(running.address, "/").expect("an answer").status, 200);
        let found = answer_while_its_worker_dies(&server, &running, "POST");
        assert_eq!(found, 502, "{front:?}");
    }
}

#[test]
fn tls_passed_through_by_haproxy_comes_with_the_address_of_the_client() {
    over_both(|transport| {
        let place = Place::new(transport);
        let site = place.folder.path();
        std::fs::write(site.join("small.txt"), "small\n").unwrap();
        let (key, certificate) = make_certificate(site);
        let changes = [
            ("/etc/ssl/private/example.org.key", key.as_str()),
            ("/etc/ssl/example.org.pem", &certificate),
            ("/ = /srv/www", &format!("/ = {}", site.display())),
        ];
        let mut server = place.start(Launch::regrow(), "site-tcp.ini", &changes);
        let running = Front::HaproxyTcp.start(&place);
        let (from, url) = (CLIENT.to_string(), format!("https://{}/small.txt", running.address));
        let got = curl(&["--insecure", "--interface", &from, &url]);
        assert_eq!(got.stdout, b"small\n", "{got:?}");
        assert_eq!(server.stop(), 0);
        assert!(server.access_log().starts_with("127.0.0.77 - - ["), "{}", server.access_log());
    });
}

fn make_certificate(folder: &Path) -> (String, String) {
    let [key, certificate] = ["key.pem", "certificate.pem"].map(|name| folder.join(name).display().to_string());
    let how = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=example.org";
    let made = Command::new("openssl").args(how.split(' ')).args(["-keyout", &key, "-out", &certificate]).output();
    assert!(made.as_ref().is_ok_and(|made| made.status.success()), "{made:?}");
    (key, certificate)
}

/// The status of a request whose worker is killed while it runs.
fn answer_while_its_worker_dies(server: &Server, front: &RunningFront, method: &str) -> u16 {
    let mark = server.log_mark();
    let mut connection = Connection::open(front.address).expect("a connection");
    let head = format!("{method} /sleep/300 HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n");
    connection.send(head.as_bytes()).expect("the front to take it");
    let line = server.wait_for_log_after(mark, "sleeping in");
    let worker = line.split("pid=").nth(1).and_then(|pid| pid.parse().ok()).expect("a pid");
    server.signal(worker, Signal::SIGKILL);
    connection.answer().expect("an answer").status
}

fn over_both(test: impl Fn(Transport)) {
    for transport in [Transport::Tcp, Transport::Unix] {
        test(transport);
    }
}

fn a_site_arrives_as_it_is(front: Front, transport: Transport) {
    let site = tempfile::tempdir().unwrap();
    std::fs::create_dir(site.path().join("folder")).unwrap();
    std::fs::write(site.path().join("small.txt"), "small\n").unwrap();
    std::fs::write(site.path().join("big.bin"), pattern(BIG)).unwrap();
    let place = Place::new(transport);
    let folder = format!("/ = {}", site.path().display());
    let mut server = place.start(Launch::regrow(), "site.ini", &[("/ = /srv/www", &folder)]);
    let running = front.start(&place);

    files_are_answered(&mut Client::open(running.address));
    // Once is enough: haproxy hopes for three seconds before it gives up.
    if transport == Transport::Tcp {
        the_front_comes_back_with_its_server(&running, &mut server, || {
            place.start(Launch::regrow(), "site.ini", &[("/ = /srv/www", &folder)])
        });
    }
}

fn files_are_answered(client: &mut Client) {
    let small = client.get("/small.txt");
    assert_eq!((small.status, small.text().as_str()), (200, "small\n"));
    let big = client.get("/big.bin");
    assert_eq!((big.status, big.body.len(), checksum(&big.body)), (200, BIG, checksum(&pattern(BIG))));

    let head = ask(client, "HEAD", "/big.bin", "");
    assert_eq!((head.status, head.field("content-length")), (200, Some("5000000")));
    let tag = small.field("etag").expect("a tag");
    assert_eq!(ask(client, "GET", "/small.txt", &format!("If-None-Match: {tag}\r\n")).status, 304);
    let range = ask(client, "GET", "/big.bin", "Range: bytes=1000000-1000999\r\n");
    assert_eq!((range.status, &range.body[..]), (206, &pattern(1_001_000)[1_000_000..]));

    let missing = client.get("/missing");
    assert_eq!(missing.status, 404);
    let moved = client.get("/folder");
    assert_eq!((moved.status, moved.field("location")), (301, Some("/folder/")), "{moved:?}");
}

/// While its only server is away there are errors, and none as soon as it is back.
fn the_front_comes_back_with_its_server(front: &RunningFront, server: &mut Server, start: impl FnOnce() -> Server) {
    assert_eq!(server.stop(), 0);
    let reply = get(front.address, "/small.txt").expect("an answer");
    assert!(matches!(reply.status, 502 | 503), "{reply:?}");
    let _server = start();
    assert_eq!(Client::open(front.address).get("/small.txt").text(), "small\n");
}

/// Of the GETs that workers had when they were killed, at most so many are lost.
fn an_application_is_served(front: Front, transport: Transport, most_lost: usize) {
    let place = Place::new(transport);
    let changes = [("[staticContent]\n/ = /srv/www\n", ""), ("processPool = 4", "processPool = 3")];
    let server = place.start(Launch::example("testbed"), "site.ini", &changes);
    let running = front.start(&place);
    bodies_arrive_whole(&mut Client::open(running.address));
    the_client_is_told_and_not_what_it_says_of_itself(running.address);
    wait_until("the client in the access log", || {
        let log = server.access_log();
        log.lines().find(|line| line.contains("GET /told "))?.starts_with("127.0.0.77 - - [").then_some(())
    });
    connections_are_kept(&server, running.address);
    many_are_answered(running.address);
    let lost = lost_while_workers_die(&server, running.address);
    assert!(lost <= most_lost, "{lost} GETs lost over {transport:?}");
}

fn bodies_arrive_whole(client: &mut Client) {
    let body = pattern(1 << 20);
    let expected = format!("{} {:x}", body.len(), checksum(&body));
    let mut head = format!("POST /body HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    head.extend_from_slice(&body);
    client.send(head);
    let told = client.answer();
    assert!(told.status == 200 && told.text().ends_with(&expected), "{told:?}");

    client.send("POST /body HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n");
    for chunk in body.chunks(100_000) {
        client.send(format!("{:x}\r\n", chunk.len()));
        client.send(chunk);
        client.send("\r\n");
    }
    client.send("0\r\n\r\n");
    let told = client.answer();
    assert!(told.status == 200 && told.text().ends_with(&expected), "{told:?}");

    let stream = client.get("/stream?chunks=20&size=5000");
    assert_eq!((stream.status, checksum(&stream.body)), (200, checksum(&pattern(100_000))));
    let asked = client.get("/a%2Fb%20c/..;x%7Ey");
    assert!(asked.text().contains("path /a%2Fb%20c/..;x%7Ey\n"), "{}", asked.text());
}

fn the_client_is_told_and_not_what_it_says_of_itself(front: SocketAddr) {
    let mut connection = Connection::open_from(CLIENT, front).expect("a connection");
    let said = "Forwarded: for=192.0.2.6;proto=https;host=evil\r\nX-Forwarded-For: 192.0.2.6\r\n\
                X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n";
    connection.send(format!("GET /told HTTP/1.1\r\nHost: example.org\r\n{said}\r\n").as_bytes()).expect("a connection");
    let told = connection.answer().expect("an answer").text();
    let fields: BTreeSet<_> = told.lines().filter(|line| line.contains("forwarded")).collect();
    let expected = BTreeSet::from([
        "field x-forwarded-for: 127.0.0.77",
        "field x-forwarded-host: example.org",
        "field x-forwarded-proto: http",
    ]);
    // Apache also says its own name.
    let server = BTreeSet::from(["field x-forwarded-server: example.org"]);
    assert_eq!(&fields - &server, expected, "{told}");
    assert!(told.contains("field host: example.org\n"), "{told}");
}

/// The sockets that Regrow has are the same after fifty requests.
fn connections_are_kept(server: &Server, front: SocketAddr) {
    let mut client = Client::open(front);
    // The first request of a client may have a connection of its own.
    let mut ask = || assert_eq!(client.get("/quick/who").status, 200);
    (0..2).for_each(|_| ask());
    let before = sockets_of(server);
    (0..50).for_each(|_| ask());
    let after = sockets_of(server);
    let new: Vec<_> = after.difference(&before).collect();
    assert!(!after.is_empty() && new.is_empty(), "{new:?} besides {before:?}");
}

fn sockets_of(server: &Server) -> BTreeSet<String> {
    let descriptors = server.worker_pids().into_iter().flat_map(descriptors_of);
    descriptors.filter(|to| to.starts_with("socket:")).collect()
}

fn many_are_answered(front: SocketAddr) {
    thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|| {
                let slow = Client::open(front).get("/slow?ms=20");
                assert_eq!((slow.status, slow.text().as_str()), (200, "slow"));
            });
        }
    });
}

fn lost_while_workers_die(server: &Server, front: SocketAddr) -> usize {
    let (over, answered, lost) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let ask_throughout = || {
        let mut client = Client::open(front);
        while !over.load(Ordering::SeqCst) {
            client.send(request("GET", "/slow?ms=5"));
            let answer = client.try_answer_to("GET").map(|answer| (answer.status, answer.closes()));
            let counter = if matches!(answer, Ok((200, _))) { &answered } else { &lost };
            counter.fetch_add(1, Ordering::SeqCst);
            if !matches!(answer, Ok((200, false))) {
                client = Client::open(front);
            }
        }
    };
    thread::scope(|scope| {
        (0..CLIENTS).for_each(|_| drop(scope.spawn(ask_throughout)));
        for _ in 0..KILLS {
            let goal = answered.load(Ordering::SeqCst) + 20;
            wait_until("more answers", || (answered.load(Ordering::SeqCst) >= goal).then_some(()));
            let mark = server.log_mark();
            server.signal(server.worker_pids()[0], Signal::SIGKILL);
            server.wait_until_complete(mark);
        }
        over.store(true, Ordering::SeqCst);
    });
    let lost = lost.load(Ordering::SeqCst);
    eprintln!("{KILLS} kills: {answered:?} answered, {lost} lost");
    lost
}

fn ask(client: &mut Client, method: &str, target: &str, fields: &str) -> Answer {
    client.send(format!("{method} {target} HTTP/1.1\r\nHost: test\r\n{fields}\r\n"));
    client.answer_to(method)
}
