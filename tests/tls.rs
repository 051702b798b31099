//! TLS as clients meet it: versions, ciphers and chains, sessions that any worker resumes, handshakes that break off at
//! every byte, and ends that a client can tell from being cut off.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::{
    Authority, Client, Launch, MODES, PATIENCE, Server, TlsClient, TlsStream, VERSIONS, checksum, curl, descriptors_of,
    exchange, pattern, request, wait_until,
};

const MB: usize = 1 << 20;

fn testbed() -> Launch {
    Launch::example("testbed").args(["--socketQueueSize", "256"]).tls("ec")
}

fn url(server: &Server, target: &str) -> String {
    format!("https://localhost:{}{target}", server.address().port())
}

/// curl, which knows the authority.
fn fetch(server: &Server, args: &[&str], target: &str) -> Vec<u8> {
    let root = Authority::here().file("root.pem");
    let (root, url) = (root.display().to_string(), url(server, target));
    // The name may resolve to an address on which it does not listen.
    let resolve = format!("localhost:{0}:127.0.0.1", server.address().port());
    let output = curl(&[&["--cacert", &root, "--resolve", &resolve, "--fail"], args, &[&url]].concat());
    assert!(output.status.success(), "{args:?} {target}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// What `openssl s_client` prints about a handshake.
fn s_client(server: &Server, args: &[&str]) -> String {
    let root = Authority::here().file("root.pem");
    let to = server.address().to_string();
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &to, "-CAfile"]).arg(root).args(args);
    let output = command.stdin(Stdio::null()).output().expect("openssl is installed");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

fn open(server: &Server) -> TlsStream {
    TlsClient::new(&VERSIONS).connect(server.address())
}

#[test]
fn every_mode_serves_files_bodies_and_streams() {
    for (name, options) in MODES {
        let server = testbed().options(options).start();
        let file = server.folder().join("big");
        std::fs::write(&file, pattern(5 * MB + 3)).unwrap();
        let target = format!("/file?path={}", file.display());
        assert!(fetch(&server, &[], &target) == pattern(5 * MB + 3), "{name}: a file");
        assert!(fetch(&server, &[], "/big?bytes=3000000") == pattern(3_000_000), "{name}: bytes");
        assert!(fetch(&server, &[], "/stream?chunks=40&size=9999") == pattern(40 * 9999), "{name}: a stream");
        let sum = format!("{:x}", checksum(&pattern(5 * MB + 3)));
        let upload = format!("@{}", file.display());
        let said = fetch(&server, &["--data-binary", &upload, "-H", "Expect:"], "/body");
        assert!(String::from_utf8_lossy(&said).ends_with(&sum), "{name}: an upload");
        let two = fetch(&server, &["-w", "%{num_connects} %{http_version}\n", &url(&server, "/who")], "/who");
        let two = String::from_utf8_lossy(&two).into_owned();
        assert!(two.contains("1 1.1\n") && two.contains("0 1.1\n"), "{name}: a kept connection: {two}");
    }
}

#[test]
fn a_site_of_files_is_served_with_ranges_and_validators() {
    let launch = Launch::regrow().args(["--processPool", "2"]).tls("rsa");
    let site = launch.folder().join("site");
    std::fs::create_dir(&site).unwrap();
    std::fs::write(site.join("big"), pattern(2 * MB)).unwrap();
    std::fs::write(site.join("index.html"), "home").unwrap();
    let server = launch.arg(&site).start();
    assert_eq!(fetch(&server, &[], "/"), b"home");
    assert_eq!(fetch(&server, &["-r", "16383-16384"], "/big"), pattern(2 * MB)[16_383..=16_384]);
    assert_eq!(fetch(&server, &["-r", "-40000"], "/big"), pattern(2 * MB)[2 * MB - 40_000..]);
    let head = String::from_utf8_lossy(&fetch(&server, &["-I"], "/big")).into_owned();
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("content-length: 2097152"), "{head}");
}

#[test]
fn versions_1_2_and_1_3_are_spoken_and_no_older_ones() {
    for kind in ["ec", "rsa"] {
        let server = Launch::regrow().tls(kind).start();
        for (version, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
            for server_name in [&["-noservername"][..], &["-servername", "localhost"]] {
                let said = s_client(&server, &[&[version, "-verify_return_error"], server_name].concat());
                let fine = said.contains(&format!("New, {name}")) && said.contains("Verify return code: 0 (ok)");
                assert!(fine, "{kind} {version} {server_name:?}: {said}");
            }
        }
        for version in ["-tls1", "-tls1_1"] {
            let said = s_client(&server, &[version, "-cipher", "ALL:@SECLEVEL=0"]);
            assert!(said.contains("alert") && said.contains("Cipher is (NONE)"), "{kind} {version}: {said}");
        }
    }
}

#[test]
fn only_ciphers_with_forward_secrecy_and_authentication_are_agreed_on() {
    let server = Launch::regrow().tls("rsa").start();
    let agreed = |args: &[&str]| s_client(&server, args).contains("New, TLSv1.");
    for cipher in ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"] {
        assert!(agreed(&["-tls1_3", "-ciphersuites", cipher]), "{cipher}");
    }
    for cipher in ["ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-CHACHA20-POLY1305"] {
        assert!(agreed(&["-tls1_2", "-cipher", cipher]), "{cipher}");
    }
    for cipher in ["AES128-GCM-SHA256", "AES256-SHA", "DHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-SHA256", "aNULL"] {
        let cipher = format!("{cipher}:@SECLEVEL=0");
        assert!(!agreed(&["-tls1_2", "-cipher", &cipher]), "{cipher}");
    }
    let said = s_client(&server, &["-alpn", "h2,http/1.1"]);
    assert!(said.contains("ALPN protocol: http/1.1"), "{said}");
}

#[test]
fn keys_are_exchanged_beyond_the_reach_of_quantum_computers_where_the_client_can() {
    let server = testbed().start();
    let mut stream = open(&server);
    stream.write_all(&request("GET", "/who")).unwrap();
    assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
    let group = stream.conn.negotiated_key_exchange_group().expect("one is agreed on");
    assert_eq!(group.name(), rustls::NamedGroup::X25519MLKEM768);
}

#[test]
fn sslscan_finds_nothing_weak() {
    for kind in ["ec", "rsa"] {
        let server = Launch::regrow().tls(kind).start();
        let to = server.address().to_string();
        // Its search for groups waits for seconds; there are few, and what has forward secrecy is tested above.
        let output = Command::new("sslscan").args(["--no-groups", "--xml=-", &to]).output();
        let output = output.expect("sslscan is installed");
        let found = String::from_utf8_lossy(&output.stdout).into_owned();
        let on = found.lines().filter(|line| line.contains("<protocol") && line.contains(r#"enabled="1""#));
        let on: Vec<_> = on.map(str::trim).collect();
        assert_eq!(on.len(), 2, "{found}");
        assert!(on.iter().all(|line| line.contains(r#"version="1.2""#) || line.contains(r#"version="1.3""#)), "{on:?}");
        let ciphers: Vec<_> = found.lines().filter(|line| line.contains("<cipher ")).collect();
        assert_eq!(ciphers.len(), 6, "{found}");
        let good = |line: &&&str| line.contains(r#"strength="strong""#) || line.contains(r#"strength="acceptable""#);
        assert_eq!(ciphers.iter().filter(good).count(), 6, "{found}");
        for weak in [r#"vulnerable="1""#, r#"secure="0" supported="1""#, r#"<compression supported="1""#, "<error"] {
            assert!(!found.contains(weak), "{weak} in {found}");
        }
    }
}

/// Connects so many times, one after the other; returns the pids that answered, and how often a session was resumed.
fn reconnect(client: &TlsClient, server: &Server, times: usize) -> (Vec<i32>, usize) {
    let mut resumed = 0;
    let pids = (0..times).map(|_| {
        let (said, again) = client.get(server.address(), "/");
        resumed += usize::from(again);
        let (_, body) = said.split_once("\r\n\r\n").expect("a body");
        let told: serde_json::Value = serde_json::from_str(body).expect("what slow tells");
        i32::try_from(told["pid"].as_i64().expect("a pid")).expect("a pid")
    });
    let mut pids: Vec<_> = pids.collect();
    pids.sort_unstable();
    pids.dedup();
    (pids, resumed)
}

#[test]
fn any_worker_resumes_the_session_of_another_also_when_all_were_replaced() {
    let server = Launch::example("slow").args(["--processPool", "4", "--socketQueueSize", "256"]).tls("ec").start();
    for version in VERSIONS {
        let client = TlsClient::new(&[version]);
        let (before, resumed) = reconnect(&client, &server, 100);
        assert_eq!(resumed, 99, "all but the first, {version:?}");
        assert!(before.len() > 1, "they have all landed on one worker");
        for pid in server.worker_pids() {
            let mark = server.log_mark();
            server.signal(pid, Signal::SIGKILL);
            server.wait_until_complete(mark);
        }
        let (after, resumed) = reconnect(&client, &server, 20);
        assert_eq!(resumed, 20, "with workers of which none had met the client, {version:?}");
        assert!(after.iter().all(|pid| !before.contains(pid)), "{before:?} {after:?}");
    }
}

#[test]
fn a_client_of_another_make_resumes_too() {
    let server = Launch::regrow().args(["--processPool", "2"]).tls("ec").start();
    let (session, root) = (server.folder().join("session"), Authority::here().file("root.pem"));
    let run = |version: &str, how: &str| {
        // It waits for the end of the connection: TLS 1.3 tells of sessions after the handshake.
        let line = format!(
            "printf 'GET / HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' | \
             openssl s_client -ign_eof -connect {} -CAfile {} {version} {how} {} 2>&1",
            server.address(),
            root.display(),
            session.display()
        );
        let output = Command::new("timeout").args(["20", "sh", "-c", &line]).output().expect("a shell");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    for version in ["-tls1_2", "-tls1_3"] {
        let first = run(version, "-sess_out");
        assert!(first.contains("New, TLS"), "{first}");
        let again = run(version, "-sess_in");
        assert!(again.contains("Reused, TLS") && again.contains("HTTP/1.1 200 OK"), "{again}");
    }
}

#[test]
fn a_handshake_that_breaks_off_at_any_byte_harms_nobody() {
    let server = testbed().args(["--processPool", "2"]).start();
    let workers = server.worker_pids();
    for version in VERSIONS {
        let client = TlsClient::new(&[version]);
        let last = "GET /who HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let mut stream = TcpStream::connect(server.address()).unwrap();
        let whole = exchange(&mut client.begin(), &mut stream, last.as_bytes()).unwrap().len();
        for cut in 0..whole {
            break_off(&client, &server, cut, last.as_bytes());
        }
    }
    let descriptors = |pid: &i32| descriptors_of(*pid).iter().filter(|to| to.starts_with("socket:")).count();
    let idle = wait_until("the connections gone", || {
        let open: Vec<_> = workers.iter().map(descriptors).collect();
        open.iter().all(|&open| open < 12).then_some(open)
    });
    assert!(!server.log().contains("panic"), "{idle:?}");
    assert_eq!(workers.len(), server.worker_pids().iter().filter(|pid| workers.contains(pid)).count());
    assert!(fetch(&server, &[], "/who").starts_with(b"worker="));
}

/// Sends the first `cut` bytes of what a client would, hearing what the server says in between; then leaves, by turns in
/// order, by reset, or having said that it will say no more.
fn break_off(client: &TlsClient, server: &Server, cut: usize, said: &[u8]) {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    let mut connection = client.begin();
    connection.writer().write_all(said).unwrap();
    let mut left = cut;
    while left > 0 {
        let mut flight = Vec::new();
        while connection.wants_write() {
            connection.write_tls(&mut flight).unwrap();
        }
        let part = &flight[..flight.len().min(left)];
        stream.write_all(part).unwrap();
        left -= part.len();
        if left > 0 && connection.read_tls(&mut stream).unwrap_or(0) > 0 {
            connection.process_new_packets().unwrap();
        }
    }
    match cut % 3 {
        0 => drop(stream),
        1 => {
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        }
        _ => {
            stream.shutdown(Shutdown::Write).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            // Whatever it says, it closes.
            let _ = stream.read_to_end(&mut Vec::new());
        }
    }
}

#[test]
fn a_handshake_byte_by_byte_succeeds() {
    let server = testbed().start();
    for version in VERSIONS {
        let mut stream = TlsClient::new(&[version]).connect(server.address());
        stream.conn.writer().write_all(b"GET /who HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        while stream.conn.is_handshaking() || stream.conn.wants_write() {
            let mut flight = Vec::new();
            while stream.conn.wants_write() {
                stream.conn.write_tls(&mut flight).unwrap();
            }
            for byte in flight {
                stream.sock.write_all(&[byte]).unwrap();
            }
            if stream.conn.is_handshaking() {
                stream.conn.read_tls(&mut stream.sock).unwrap();
                stream.conn.process_new_packets().unwrap();
            }
        }
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        assert!(said.contains("worker="), "{said}");
    }
}

#[test]
fn a_slow_or_endless_handshake_ends_with_the_header_timeout() {
    let server = testbed().args(["--headerTimeout", "400ms"]).start();
    let mut hello = Vec::new();
    TlsClient::new(&VERSIONS).begin().write_tls(&mut hello).unwrap();
    // Part of a hello and no more; one that comes drop by drop; and a handshake of which the client's end never comes.
    for pieces in [vec![&hello[..5]], hello.chunks(1).collect(), vec![&hello[..]]] {
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(30))).unwrap();
        let deadline = Instant::now() + PATIENCE;
        let mut pieces = pieces.into_iter();
        loop {
            if let Some(piece) = pieces.next() {
                let _ = stream.write_all(piece);
            }
            match stream.read(&mut [0; 4096]) {
                Ok(0) => break,
                Ok(_) => {}
                Err(why) if why.kind() == ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
            assert!(Instant::now() < deadline, "it goes on for ever");
        }
    }
}

#[test]
fn a_hello_without_end_is_cut_before_it_costs_memory() {
    let server = testbed().start();
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // One handshake message of 65,280 bytes, in records of 4096.
    let mut hello = vec![1, 0, 0xff, 0];
    hello.resize(60_000, 0);
    let records = hello.chunks(4096).map(|part| {
        let length = u16::try_from(part.len()).unwrap().to_be_bytes();
        [&[0x16, 3, 1], &length[..], part].concat()
    });
    let sent = records.map(|record| stream.write_all(&record).map(|()| record.len())).map_while(Result::ok);
    let sent: usize = sent.sum();
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said);
    assert!(sent > 0 && said.len() <= 7, "no more than an alert: {said:?}");
    assert!(fetch(&server, &[], "/who").starts_with(b"worker="));
}

#[test]
fn records_that_say_nothing_do_not_keep_an_idle_connection() {
    let server = testbed().args(["--keepAliveTimeout", "400ms"]).start();
    let mut stream = open(&server);
    stream.write_all(&request("GET", "/who")).unwrap();
    assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
    stream.sock.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let deadline = Instant::now() + PATIENCE;
    // A change of keys is a record without a word for HTTP.
    while stream.conn.refresh_traffic_keys().is_ok() && stream.flush().is_ok() {
        match stream.read(&mut [0; 64]) {
            Err(why) if why.kind() == ErrorKind::WouldBlock => {}
            Ok(0) | Err(_) => break,
            Ok(_) => panic!("nothing was asked"),
        }
        assert!(Instant::now() < deadline, "it is kept for ever");
    }
}

#[test]
fn what_is_not_tls_is_told_so() {
    let server = testbed().start();
    let mut client = Client::open(server.address());
    let answer = client.get("/");
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("https://") && answer.closes(), "{}", answer.text());
    client.end();
    let page = curl(&[&format!("http://{}/", server.address())]);
    assert!(String::from_utf8_lossy(&page.stdout).contains("This port speaks HTTPS"));
    // Neither HTTP nor TLS: an alert, and the end.
    let mut client = Client::open(server.address());
    client.send([0x16, 3, 1, 0, 4, 0xff, 0xff, 0xff, 0xff]);
    let (said, _) = client.rest();
    assert_eq!(said.first(), Some(&21), "{said:?}");
    let refused =
        wait_until("the refusal in the log", || Some(server.access_log()).filter(|log| log.contains(" 400 ")));
    assert!(refused.contains("\"-\""), "{refused}");
}

#[test]
fn a_client_can_tell_the_end_from_being_cut_off() {
    let server = testbed().args(["--keepAliveTimeout", "300ms"]).start();
    for target in ["/who", "/stream?chunks=3&size=5"] {
        // The response has no length, so only close_notify says that it is whole.
        let mut stream = open(&server);
        stream.write_all(format!("GET {target} HTTP/1.0\r\n\r\n").as_bytes()).unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap_or_else(|why| panic!("{target}: {why}"));
    }
    let mut idle = open(&server);
    idle.write_all(&request("GET", "/who")).unwrap();
    idle.read_to_end(&mut Vec::new()).expect("the end of an idle connection is announced");
    let mut broken = open(&server);
    broken.write_all(b"GET /stream?chunks=3&size=5&fail=2 HTTP/1.0\r\n\r\n").unwrap();
    broken.read_to_end(&mut Vec::new()).expect_err("what is broken off has no end");
}

#[test]
fn a_client_that_ends_its_session_is_answered_first() {
    let server = testbed().start();
    let mut stream = open(&server);
    stream.write_all(&request("GET", "/slow?ms=100")).unwrap();
    stream.conn.send_close_notify();
    let mut said = String::new();
    stream.read_to_string(&mut said).expect("an answer, and the end");
    assert!(said.starts_with("HTTP/1.1 200") && said.ends_with("slow"), "{said}");
}

#[test]
fn a_client_that_ends_its_session_before_it_has_read_its_answer_loses_nothing_of_it() {
    let server = testbed().start();
    let mut stream = open(&server);
    stream.write_all(b"GET /quick/big?bytes=1000000 HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
    // More than the client's side of the kernel holds: the rest waits on the side of the server, which is done.
    wait_until("the answer", || Some(server.access_log()).filter(|log| log.contains("/quick/big")));
    stream.conn.send_close_notify();
    stream.flush().unwrap();
    stream.sock.shutdown(Shutdown::Write).unwrap();
    let mut said = Vec::new();
    stream.read_to_end(&mut said).expect("all of it, and the end");
    assert!(said.ends_with(&pattern(1_000_000)));
}

#[test]
fn pipelined_requests_in_one_record_are_answered_in_order() {
    let server = testbed().start();
    let mut stream = open(&server);
    let many =
        [request("GET", "/big?bytes=20000"), request("GET", "/quick/who"), request("GET", "/stream?chunks=2&size=9")];
    let last = b"GET /last HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".to_vec();
    stream.write_all(&[many.concat(), last].concat()).unwrap();
    let mut said = Vec::new();
    stream.read_to_end(&mut said).unwrap();
    let said = String::from_utf8_lossy(&said);
    let places: Vec<_> = ["content-length: 20000", "worker=", "transfer-encoding", "path /last"]
        .iter()
        .map(|word| said.find(word).unwrap_or_else(|| panic!("no {word}")))
        .collect();
    assert!(places.is_sorted(), "{places:?}");
}

#[test]
fn a_client_that_reads_slowly_gets_everything() {
    let server = testbed().start();
    let mut stream = open(&server);
    // More than the kernel holds for it.
    let asked = format!("GET /big?bytes={} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n", 16 * MB);
    stream.write_all(asked.as_bytes()).unwrap();
    // While it does not read, others are served.
    assert!(fetch(&server, &[], "/quick/who").starts_with(b"worker="));
    let mut said = Vec::new();
    stream.read_to_end(&mut said).unwrap();
    assert!(said.ends_with(&pattern(16 * MB)));
}

#[test]
fn a_stop_lets_requests_finish_and_says_so() {
    let mut server = testbed().args(["--processPool", "2"]).start();
    let mut busy = open(&server);
    busy.write_all(&request("GET", "/slow?ms=600")).unwrap();
    let mut idle = open(&server);
    idle.write_all(&request("GET", "/quick/who")).unwrap();
    assert!(idle.read(&mut [0; 4096]).unwrap() > 0);
    server.tell(Signal::SIGTERM);
    let mut said = String::new();
    busy.read_to_string(&mut said).expect("an answer, and the end");
    assert!(said.contains("connection: close") && said.ends_with("slow"), "{said}");
    idle.read_to_end(&mut Vec::new()).expect("the end is announced");
    assert_eq!(server.exit_code(), 0);
}

#[test]
fn a_request_on_a_kept_session_waits_for_its_own_worker() {
    // The session cannot be moved to another process, and nothing is lost for it.
    let server = Launch::example("slow").args(["--processPool", "2", "--socketQueueSize", "256"]).tls("ec").start();
    let client = TlsClient::new(&VERSIONS);
    let mut streams: Vec<_> = (0..6).map(|_| client.connect(server.address())).collect();
    for stream in &mut streams {
        stream.write_all(&request("GET", "/?ms=1")).unwrap();
        assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
    }
    for stream in &mut streams {
        stream.write_all(b"GET /?ms=50 HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
    }
    for stream in &mut streams {
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    }
}
