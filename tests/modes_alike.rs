//! Whoever runs the requests, clients see the same: bodies arrive whole in both directions, and a handler's mistakes
//! cost nobody else anything. (`http_corpus.rs` sends its requests in every mode, too.)

use std::fs;

use nix::sys::signal::Signal;

use crate::support::{
    Client, End, Framing, Launch, LimitedUser, MODES, Server, checksum, pattern, post, request, slow, threads_of,
};

/// The example `testbed` in each mode, and the name of the mode.
fn testbeds(options: &'static [&str]) -> impl Iterator<Item = (&'static str, Server)> {
    MODES
        .into_iter()
        .map(|(mode, mode_options)| (mode, Launch::example("testbed").options(mode_options).options(options).start()))
}

#[test]
fn a_response_of_every_kind_arrives_whole() {
    for (mode, server) in testbeds(&[]) {
        let large = pattern(10 << 20);
        let path = server.folder().join("large");
        fs::write(&path, &large).unwrap();
        let file = format!("/file?path={}", path.display());
        let mut client = Client::open(server.address());
        for (target, framing, body) in [
            ("/status?code=204", Framing::None, &[][..]),
            ("/status?code=304", Framing::None, &[]),
            ("/big?bytes=0", Framing::Length(0), &[]),
            ("/big?bytes=100", Framing::Length(100), &large[..100]),
            ("/big?bytes=10485760", Framing::Length(10 << 20), &large),
            (&file, Framing::Length(10 << 20), &large),
            (&format!("{file}&from=251&to=5000251"), Framing::Length(5_000_000), &large[..5_000_000]),
            ("/stream?chunks=0", Framing::Chunked, &[]),
            ("/stream?chunks=500&size=1001", Framing::Chunked, &large[..500_500]),
            ("/stream?chunks=500&size=1001&length=500500", Framing::Length(500_500), &large[..500_500]),
            ("/twice", Framing::Length(4), b"once"),
            ("/later?ms=20", Framing::Length(5), b"later"),
        ] {
            let answer = client.get(target);
            assert!(answer.framing == framing && answer.body == body, "{mode} {target}: {:?}", answer.fields);
        }
        client.send(request("HEAD", "/big?bytes=10485760"));
        assert_eq!(client.answer_to("HEAD").framing, Framing::Length(10 << 20), "{mode}");
        client.send([request("GET", "/big?bytes=3"), request("GET", "/who"), request("GET", "/big?bytes=4")].concat());
        let lengths = [(); 3].map(|()| client.answer().body.len());
        assert!(lengths[0] == 3 && lengths[1] > 4 && lengths[2] == 4, "{mode}: pipelined {lengths:?}");
    }
}

#[test]
fn a_request_with_a_body_of_any_length_arrives_whole() {
    for (mode, server) in testbeds(&["--bodyInMemory", "4k"]) {
        let mut client = Client::open(server.address());
        for length in [0, 10, 4096, 4097, 1_000_000] {
            let body = pattern(length);
            client.send(post("/body", &body));
            assert_eq!(client.answer().text(), format!("{length} {length} {:x}", checksum(&body)), "{mode}");
            client.send(b"POST /body HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n");
            for chunk in body.chunks(1000) {
                client.send([format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
            }
            client.send(b"0\r\n\r\n");
            assert_eq!(client.answer().text(), format!("{length} {length} {:x}", checksum(&body)), "{mode} chunked");
        }
    }
}

#[test]
fn a_mistake_of_the_handler_is_a_500_and_costs_no_worker_and_no_connection() {
    for (mode, server) in testbeds(&[]) {
        let workers = server.worker_pids();
        let mut client = Client::open(server.address());
        // A thread that is made when it is first needed is there from now on.
        assert_eq!(client.get("/who").status, 200, "{mode}");
        let threads = || workers.iter().map(|&worker| threads_of(worker)).collect::<Vec<_>>();
        let before = threads();
        for (target, reason) in [("/panic", "a mistake of the handler"), ("/drop", "dropped without an answer")] {
            let mark = server.log_mark();
            for _ in 0..3 {
                assert_eq!(client.get(target).status, 500, "{mode} {target}");
            }
            server.wait_for_log_after(mark, reason);
        }
        assert_eq!(client.get("/who").status, 200, "{mode}");
        assert_eq!(server.worker_pids(), workers, "{mode}");
        if mode.ends_with("Pool") || mode == "single" {
            assert_eq!(threads(), before, "{mode}: the threads live on");
        }
    }
}

#[test]
fn a_stream_that_breaks_off_is_noticed() {
    for (mode, server) in testbeds(&[]) {
        for target in [
            "/stream?chunks=9&size=1000&fail=5",
            "/stream?chunks=9&size=1000&panic=5",
            "/stream?chunks=9&size=1000&length=9001",
        ] {
            let mut client = Client::open(server.address());
            client.send(request("GET", target));
            assert!(client.try_answer_to("GET").is_err(), "{mode} {target}");
        }
        assert_eq!(Client::open(server.address()).get("/who").status, 200, "{mode}");
    }
}

#[test]
fn a_process_or_a_thread_that_cannot_be_made_is_a_503_that_asks_to_come_again() {
    for mode in ["--forking", "--threading"] {
        let Some(user) = LimitedUser::new("a process or a thread that cannot be made") else { return };
        let server = Launch::example("slow").args([mode, "1", "--accessLog", "off"]).through(&user.wrapper()).start();
        let worker = server.worker_pids()[0];
        user.allow_processes(worker, 1);
        let mut client = Client::open(server.address());
        for _ in 0..2 {
            let answer = client.get("/");
            assert_eq!(answer.status, 503, "{mode}");
            let after = answer.field("retry-after").and_then(|seconds| seconds.parse::<u32>().ok());
            assert!(after.is_some_and(|seconds| seconds > 0), "{mode}: {answer:?}");
        }
        server.wait_for_log("answering 503");
        user.allow_processes(worker, 64);
        assert_eq!(client.get("/").status, 200, "{mode}");
    }
}

#[test]
fn a_graceful_stop_finishes_what_runs_and_what_waits() {
    for (mode, options) in MODES {
        let mut server = slow(options);
        // More than run at once in the pools.
        let mut clients: Vec<_> = (0..3).map(|_| Client::open(server.address())).collect();
        for client in &mut clients {
            client.send(request("GET", "/?ms=300"));
        }
        server.tell(Signal::SIGTERM);
        for mut client in clients {
            let answer = client.answer();
            assert!(answer.status == 200 && answer.closes() && client.end() == End::Closed, "{mode}: {answer:?}");
        }
        assert_eq!(server.exit_code(), 0, "{mode}");
    }
}

#[test]
fn files_are_served_alike() {
    for (mode, options) in MODES {
        let launch = Launch::regrow();
        let (folder, page) = (launch.folder().to_owned(), pattern(100_000));
        fs::write(folder.join("page.bin"), &page).unwrap();
        let server = launch.arg(folder).options(options).start();
        let mut client = Client::open(server.address());
        let whole = client.get("/page.bin");
        assert!(whole.status == 200 && whole.body == page, "{mode}");
        let tag = whole.field("etag").expect("a tag").to_owned();
        let mut ask = |method: &str, field: &str| {
            client.send(format!("{method} /page.bin HTTP/1.1\r\nHost: test\r\n{field}\r\n\r\n"));
            client.answer_to(method)
        };
        assert_eq!(ask("GET", &format!("If-None-Match: {tag}")).status, 304, "{mode}");
        assert_eq!(ask("HEAD", "X: y").framing, Framing::Length(100_000), "{mode}");
        let part = ask("GET", "Range: bytes=10-50009");
        assert!(part.status == 206 && part.body == page[10..50_010], "{mode}");
        let parts = ask("GET", "Range: bytes=0-40000,99000-");
        assert!(parts.status == 206 && contains(&parts.body, &page[..=40_000]), "{mode}");
        assert!(contains(&parts.body, &page[99_000..]), "{mode}");
        assert_eq!(client.get("/missing").status, 404, "{mode}");
        assert!(client.is_kept(), "{mode}");
    }
}

fn contains(body: &[u8], part: &[u8]) -> bool {
    body.windows(part.len()).any(|window| window == part)
}
