//! What clients send: one request after the other, many at once, slowly, too much, or wrong.

use std::io::Write;
use std::time::Duration;

use crate::support::{Client, End, Framing, Launch, Server, checksum, pattern, post, request, time};

fn testbed() -> Launch {
    Launch::example("testbed").args(["--socketQueueSize", "1024"])
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = testbed().start();
    let file = server.folder().join("large");
    std::fs::write(&file, pattern(200_000)).unwrap();
    let file = format!("/file?path={}", file.display());
    let asked = |n: usize| match n % 8 {
        0 => "/slow?ms=3".to_owned(),
        1 => "/quick/big?bytes=5".to_owned(),
        2 => file.clone(),
        3 => "/stream?chunks=30&size=3000".to_owned(),
        4 => format!("/quick{file}"),
        5 => "/later?ms=3".to_owned(),
        6 => "/quick/stream?chunks=50&size=1000".to_owned(),
        _ => "/quick/big?bytes=90000".to_owned(),
    };
    let expected = |n: usize| match n % 8 {
        0 => b"slow".to_vec(),
        1 => pattern(5),
        2 | 4 => pattern(200_000),
        3 | 7 => pattern(90_000),
        5 => b"later".to_vec(),
        _ => pattern(50_000),
    };
    let mut client = Client::open(server.address());
    client.send((0..100).flat_map(|n| request("GET", &asked(n))).collect::<Vec<_>>());
    for n in 0..100 {
        let answer = client.answer();
        assert_eq!(answer.status, 200);
        assert!(answer.body == expected(n), "the {n}th answer, to {}", asked(n));
    }
    assert!(client.is_kept());
}

#[test]
fn a_request_that_closes_is_the_last_of_its_pipeline() {
    let server = testbed().start();
    let mut client = Client::open(server.address());
    let closing = "GET /2 HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".as_bytes();
    client.send([&request("GET", "/1"), closing, &request("GET", "/3")].concat());
    assert!(client.answer().text().contains("path /1"));
    let last = client.answer();
    assert!(last.text().contains("path /2") && last.closes());
    assert_eq!(client.end(), End::Closed);
}

#[test]
fn head_has_the_fields_of_get_and_no_body() {
    let server = testbed().start();
    let file = format!("/file?path={}/Cargo.toml&from=3", env!("CARGO_MANIFEST_DIR"));
    let mut client = Client::open(server.address());
    let targets = ["/quick/big?bytes=7", "/big?bytes=70000", "/slow", &file, "/status?code=404"];
    for target in targets {
        let get = client.get(target);
        client.send(request("HEAD", target));
        let head = client.answer_to("HEAD");
        assert_eq!((head.status, &head.framing), (get.status, &get.framing), "{target}");
        let without_date =
            |fields: &[(String, String)]| fields.iter().filter(|(name, _)| name != "date").cloned().collect::<Vec<_>>();
        assert_eq!(without_date(&head.fields), without_date(&get.fields), "{target}");
    }
    client.send(request("HEAD", "/stream?chunks=3&size=3"));
    assert_eq!(client.answer_to("HEAD").status, 200);
    assert!(client.is_kept());
}

#[test]
fn http10_closes_unless_asked_to_keep() {
    let server = testbed().start();
    let mut client = Client::open(server.address());
    client.send("GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let kept = client.answer();
    assert_eq!(kept.field("connection"), Some("keep-alive"));
    client.send("GET /b HTTP/1.0\r\n\r\n");
    assert!(client.answer().text().contains("path /b"));
    assert_eq!(client.end(), End::Closed);
}

#[test]
fn a_client_that_has_ended_its_side_is_answered() {
    let server = testbed().start();
    for target in ["/slow?ms=50", "/quick/who", "/later?ms=50", "/quick/big?bytes=3000000"] {
        let mut client = Client::open(server.address());
        client.send(request("GET", target));
        client.end_sending();
        assert_eq!(client.answer().status, 200, "{target}");
        assert_eq!(client.end(), End::Closed, "{target}");
    }
}

#[test]
fn the_end_is_noticed_also_when_it_comes_with_the_last_bytes() {
    let server = testbed().start();
    for last in ["Host: test\r\n\r\n", "Host:"] {
        for _ in 0..20 {
            let mut client = Client::open(server.address());
            assert_eq!(client.get("/quick/who").status, 200);
            client.send("GET /quick/who HTTP/1.1\r\n");
            client.send(last);
            client.end_sending();
            let ((_, end), took) = time(|| client.rest());
            assert_eq!(end, End::Closed);
            assert!(took < Duration::from_secs(5), "after {took:?}");
        }
    }
}

#[test]
fn leave_to_continue_is_given_once_and_only_to_who_waits() {
    let server = testbed().args(["--maxBody", "1000"]).start();
    let head = |length: usize| {
        format!("POST /body HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n")
    };
    let mut waiting = Client::open(server.address());
    waiting.send(head(6));
    assert!(waiting.more().unwrap() > 0, "leave is given");
    waiting.send("abc");
    waiting.send("def");
    let answer = waiting.answer();
    assert_eq!((answer.continues, answer.status), (1, 200));
    assert!(answer.text().starts_with("6 6 "));

    waiting.send([head(3).as_bytes(), b"abc"].concat());
    assert_eq!(waiting.answer().continues, 0, "nobody waits");
    assert!(waiting.is_kept());

    let mut too_long = Client::open(server.address());
    too_long.send(head(1001));
    let answer = too_long.answer();
    assert_eq!((answer.continues, answer.status), (0, 413));
    assert_eq!(too_long.end(), End::Closed);

    let mut other = Client::open(server.address());
    other.send("POST / HTTP/1.1\r\nHost: test\r\nExpect: a-miracle\r\nContent-Length: 3\r\n\r\n");
    assert_eq!(other.answer().status, 417);
    assert_eq!(other.end(), End::Closed);
}

#[test]
fn bodies_arrive_whole_in_memory_and_in_files_plain_and_chunked() {
    let server = testbed().args(["--bodyInMemory", "4k", "--maxBody", "100k"]).start();
    let mut client = Client::open(server.address());
    for length in [0, 1, 4095, 4096, 4097, 65_536, 100 << 10] {
        let body = pattern(length);
        let expected = format!("{length} {length} {:x}", checksum(&body));
        client.send(post("/body", &body));
        assert_eq!(client.answer().text(), expected);
        client.send(chunked(&body, 1000));
        assert_eq!(client.answer().text(), expected, "chunked");
    }
    client.send(
        "POST /x HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nX-Sum: 7\r\n\r\n",
    );
    let told = client.answer().text();
    assert!(told.contains("body \"abc\"") && told.contains("trailer x-sum: 7"), "{told}");
}

fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let mut bytes = b"POST /quick/body HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for chunk in body.chunks(size) {
        bytes.extend([format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

#[test]
fn a_body_too_large_is_refused_and_the_refusal_reaches_who_still_sends() {
    let server = testbed().args(["--maxBody", "100k"]).start();
    let body = pattern(8 << 20);
    for request in [post("/body", &body), chunked(&body, 50_000)] {
        let mut client = Client::open(server.address());
        let sent = client.stream.write_all(&request);
        assert!(sent.is_ok(), "the server listens to the end: {sent:?}");
        let answer = client.answer();
        assert_eq!((answer.status, answer.closes()), (413, true));
        assert_eq!(client.end(), End::Closed);
    }
}

#[test]
fn what_is_too_long_or_unknown_has_a_status_of_its_own() {
    let limits = ["--maxUri", "100", "--maxHeaderBytes", "600", "--maxHeaders", "5"];
    let server = testbed().args(limits).start();
    let long = "x".repeat(100);
    for (bytes, status) in [
        (format!("GET /{} HTTP/1.1\r\nHost: test\r\n\r\n", &long[1..]), 200),
        (format!("GET /{long} HTTP/1.1\r\nHost: test\r\n\r\n"), 414),
        (format!("GET / HTTP/1.1\r\nHost: test\r\n{}\r\n", "a: b\r\n".repeat(4)), 200),
        (format!("GET / HTTP/1.1\r\nHost: test\r\n{}\r\n", "a: b\r\n".repeat(5)), 431),
        (format!("GET / HTTP/1.1\r\nHost: test\r\na: {}\r\n\r\n", long.repeat(6)), 431),
        ("BREW-LONG-ENOUGH / HTTP/1.1\r\nHost: test\r\n\r\n".to_owned(), 200),
        ("CONNECT test:80 HTTP/1.1\r\nHost: test\r\n\r\n".to_owned(), 501),
        ("POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: gzip, chunked\r\n\r\n".to_owned(), 501),
        ("GET / HTTP/3.0\r\nHost: test\r\n\r\n".to_owned(), 505),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
    ] {
        let mut client = Client::open(server.address());
        client.send(&bytes);
        let answer = client.answer();
        assert_eq!(answer.status, status, "{bytes}");
        if status == 200 {
            assert!(client.is_kept(), "{bytes}");
        } else {
            assert_eq!(client.end(), End::Closed, "{bytes}");
        }
    }
}

fn impatient() -> Server {
    testbed().args(["--headerTimeout", "400ms", "--bodyTimeout", "400ms", "--keepAliveTimeout", "400ms"]).start()
}

#[test]
fn a_request_that_does_not_become_complete_is_answered_408() {
    let server = impatient();
    for begun in ["GET / HT", "\r\n", "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nabc"] {
        let mut client = Client::open(server.address());
        client.send(begun);
        let (answer, took) = time(|| client.answer());
        assert_eq!((answer.status, answer.closes()), (408, true), "{begun:?}");
        assert!(took >= Duration::from_millis(350), "{begun:?} after {took:?}");
        assert_eq!(client.end(), End::Closed);
    }
}

#[test]
fn a_head_has_its_time_however_often_a_byte_comes_and_a_body_as_long_as_bytes_come() {
    let server = impatient();
    let mut dripping = Client::open(server.address());
    dripping.stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    dripping.send("GET / HTTP/1.1\r\nHost: test\r\n");
    let mut drips = 0;
    while dripping.more().is_err() && drips < 100 {
        dripping.send("a: b\r\n");
        drips += 1;
    }
    assert!((4..60).contains(&drips), "{drips} drips");
    assert_eq!(dripping.answer().status, 408);

    let mut slow = Client::open(server.address());
    slow.send("POST /body HTTP/1.1\r\nHost: test\r\nContent-Length: 16\r\n\r\n");
    slow.stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    for _ in 0..16 {
        assert!(slow.more().is_err(), "no answer before the end");
        slow.send("x");
    }
    slow.stream.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
    assert!(slow.answer().text().starts_with("16 16 "));
}

#[test]
fn every_head_has_a_time_of_its_own() {
    let server = impatient();
    let mut client = Client::open(server.address());
    client.send("GET /quick HTTP/1.1\r\n");
    // Each piece ends one request and begins the next, so that there is never a moment between two.
    for n in 1..12 {
        std::thread::sleep(Duration::from_millis(60));
        client.send("Host: test\r\n\r\nGET /quick HTTP/1.1\r\n");
        assert_eq!(client.answer().status, 200, "request {n}");
    }
}

#[test]
fn a_connection_on_which_nothing_comes_is_closed_without_a_word() {
    let server = impatient();
    assert_eq!(Client::open(server.address()).end(), End::Closed);
    let mut kept = Client::open(server.address());
    assert_eq!(kept.get("/").status, 200);
    let (end, took) = time(|| kept.end());
    assert_eq!(end, End::Closed);
    assert!(took >= Duration::from_millis(350), "{took:?}");
}

#[test]
fn without_a_keep_alive_timeout_each_answer_is_the_last() {
    let server = testbed().args(["--keepAliveTimeout", "0"]).start();
    let mut client = Client::open(server.address());
    let answer = client.get("/");
    assert!(answer.closes(), "{:?}", answer.fields);
    assert_eq!(client.end(), End::Closed);
}

#[test]
fn a_client_may_leave_at_every_byte() {
    let server = testbed().start();
    let pids = server.worker_pids();
    let requests =
        [request("GET", "/stream?chunks=3&size=100"), post("/body", b"some bytes"), chunked(b"some bytes", 3)];
    for request in &requests {
        for length in 0..=request.len() {
            let mut client = Client::open(server.address());
            client.send(&request[..length]);
            if length % 2 == 0 {
                let _ = nix::sys::socket::setsockopt(
                    &client.stream,
                    nix::sys::socket::sockopt::Linger,
                    &nix::libc::linger { l_onoff: 1, l_linger: 0 },
                );
            }
        }
    }
    assert_eq!(Client::open(server.address()).get("/").status, 200);
    assert_eq!(server.worker_pids(), pids);
    assert_eq!(Client::open(server.address()).get("/body").framing, Framing::Length(20));
}
