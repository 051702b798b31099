//! What servers send: framing, failures that a client must notice, large files, and clients that do not take it.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::time::Duration;

use crate::support::{Client, End, Framing, Launch, Server, curl, pattern, request, time, wait_until};

fn testbed() -> Launch {
    Launch::example("testbed").args(["--socketQueueSize", "1024"])
}

fn url(server: &Server, target: &str) -> String {
    format!("http://{}{target}", server.address())
}

/// Fast enough to make, and no two MiB are alike.
fn large_file(server: &Server, mebibytes: usize) -> (String, Vec<u8>) {
    let mut bytes = pattern(mebibytes << 20);
    for (n, block) in bytes.chunks_mut(1 << 20).enumerate() {
        block[n] = b'!';
    }
    let path = server.folder().join("large");
    fs::write(&path, &bytes).unwrap();
    (path.display().to_string(), bytes)
}

#[test]
fn a_stream_travels_in_chunks_or_until_the_end_of_the_connection() {
    let server = testbed().start();
    for prefix in ["", "/quick"] {
        let target = format!("{prefix}/stream?chunks=50&size=1001");
        let mut client = Client::open(server.address());
        let answer = client.get(&target);
        assert_eq!(answer.framing, Framing::Chunked);
        assert!(answer.body == pattern(50_050));
        let answer = client.get(&format!("{target}&length=50050"));
        assert_eq!(answer.framing, Framing::Length(50_050));
        assert!(answer.body == pattern(50_050));
        assert!(client.get(&format!("{prefix}/stream?chunks=5&size=0")).body.is_empty());
        client.send(format!("GET {target} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
        let answer = client.answer();
        assert_eq!((answer.framing, answer.closes()), (Framing::UntilClose, true));
        assert!(answer.body == pattern(50_050));
        let fetched = curl(&[&url(&server, &target)]);
        assert!(fetched.status.success() && fetched.stdout == pattern(50_050));
    }
}

#[test]
fn a_client_notices_a_stream_that_cannot_go_on() {
    let server = testbed().start();
    let pids = server.worker_pids();
    for (target, why) in [
        ("/stream?chunks=9&size=1000&fail=5", "the source is dry"),
        ("/stream?chunks=9&size=1000&fail=0", "the source is dry"),
        ("/stream?chunks=9&size=1000&panic=5", "a mistake of the stream"),
        ("/stream?chunks=9&size=1000&length=9001", "ended before its Content-Length"),
        ("/stream?chunks=9&size=1000&length=8999", "longer than its Content-Length"),
    ] {
        for target in [target.to_owned(), format!("/quick{target}")] {
            let mark = server.log_mark();
            for version in ["--http1.0", "--http1.1"] {
                let fetched = curl(&[version, &url(&server, &target)]);
                assert!(!fetched.status.success(), "curl {version} {target} takes it for whole");
            }
            server.wait_for_log_after(mark, why);
        }
    }
    assert_eq!(server.worker_pids(), pids);
}

#[test]
fn a_handler_cannot_break_the_framing() {
    let server = testbed().start();
    let mut client = Client::open(server.address());
    let answer = client.get("/framing");
    assert_eq!((answer.framing, answer.text().as_str()), (Framing::Length(4), "fine"));
    for name in ["keep-alive", "connection", "trailer", "upgrade"] {
        assert_eq!(answer.field(name), None, "{:?}", answer.fields);
    }
    for (query, told) in [
        ("value=fine", "set"),
        ("value=a%0d%0aset-cookie:%20b", "refused: name false, value true"),
        ("value=a%0ab", "refused: name false, value true"),
        ("value=a%0db", "refused: name false, value true"),
        ("value=a%00b", "refused: name false, value true"),
        ("name=a%0d%0ab&value=c", "refused: name true, value false"),
        ("name=a:b&value=c", "refused: name true, value false"),
    ] {
        let answer = client.get(&format!("/field?{query}"));
        assert_eq!(answer.text(), told, "{query}");
        assert_eq!((answer.field("set-cookie"), answer.field("a")), (None, None), "{query}");
    }
    assert_eq!(client.get("/field?value=fine").field("x-said"), Some("fine"));
}

#[test]
fn a_status_without_a_body_has_none_and_keeps_the_connection() {
    let server = testbed().start();
    let mut client = Client::open(server.address());
    for (code, framing) in [(204, Framing::None), (205, Framing::Length(0)), (304, Framing::None)] {
        let answer = client.get(&format!("/status?code={code}"));
        assert_eq!((answer.status, answer.framing, answer.body.len()), (code, framing, 0));
    }
    assert_eq!(client.get("/status?code=101").status, 500, "an interim status is no answer");
    assert_eq!(Client::open(server.address()).get("/status?code=599").status, 599);
}

#[test]
fn a_large_file_arrives_whole() {
    let server = testbed().start();
    let (path, bytes) = large_file(&server, 64);
    let fetched = curl(&[&url(&server, &format!("/quick/file?path={path}"))]);
    assert!(fetched.status.success() && fetched.stdout == bytes);
    let mut client = Client::open(server.address());
    let answer = client.get(&format!("/file?path={path}&from=1048570&to=9000001"));
    assert!(answer.body == bytes[1_048_570..9_000_001]);
    assert!(client.get(&format!("/file?path={path}&from=7&to=7")).body.is_empty());
    assert!(client.is_kept());
}

#[test]
fn a_slow_reader_gets_every_byte() {
    let server = testbed().start();
    let (path, bytes) = large_file(&server, 8);
    for target in [format!("/file?path={path}"), "/quick/big?bytes=8388608".to_owned()] {
        let mut client = Client::open(server.address());
        nix::sys::socket::setsockopt(&client.stream, nix::sys::socket::sockopt::RcvBuf, &65_536).unwrap();
        client.send(request("GET", &target));
        // While this one holds its breath, others are served.
        for _ in 0..20 {
            assert_eq!(Client::open(server.address()).get("/quick/who").status, 200);
        }
        let mut small = vec![0; 999];
        let mut taken = Vec::new();
        for _ in 0..200 {
            std::thread::sleep(Duration::from_millis(1));
            let n = client.stream.read(&mut small).unwrap();
            taken.extend_from_slice(&small[..n]);
        }
        let (rest, _) = {
            client.end_sending();
            client.rest()
        };
        taken.extend(rest);
        let start = taken.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap() + 4;
        let expected = if target.starts_with("/file") { &bytes } else { &pattern(8 << 20) };
        assert!(&taken[start..] == expected.as_slice(), "{target}");
    }
}

#[test]
fn a_file_that_shrinks_under_way_cuts_the_connection() {
    let server = testbed().start();
    let (path, _) = large_file(&server, 64);
    let mut client = Client::open(server.address());
    client.send(request("GET", &format!("/file?path={path}")));
    assert!(client.more().unwrap() > 0);
    OpenOptions::new().write(true).open(&path).unwrap().set_len(1 << 20).unwrap();
    let (rest, end) = client.rest();
    assert!(rest.len() < 64 << 20);
    assert_eq!(end, End::Reset);
    server.wait_for_log("the file changed meanwhile");
}

#[test]
fn a_client_that_leaves_in_the_middle_does_no_harm() {
    let server = testbed().start();
    let pids = server.worker_pids();
    let before = open_sockets(pids[0]);
    let (path, _) = large_file(&server, 16);
    let file = format!("/file?path={path}");
    for target in [&file, "/quick/stream?chunks=1000000&size=1000", "/stream?chunks=1000000&size=1000", "/slow?ms=30"] {
        for _ in 0..5 {
            let mut client = Client::open(server.address());
            client.send(request("GET", target));
            if !target.starts_with("/slow") {
                assert!(client.more().unwrap() > 0);
            }
        }
    }
    assert_eq!(Client::open(server.address()).get("/who").status, 200);
    assert_eq!(server.worker_pids(), pids);
    wait_until("their connections and files given back", || (open_sockets(pids[0]) <= before).then_some(()));
}

/// Sockets and files of a process.
fn open_sockets(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

#[test]
fn a_client_that_takes_nothing_is_cut_off_and_notices() {
    let server = testbed().args(["--writeTimeout", "300ms"]).start();
    let pid = server.worker_pids()[0];
    let before = open_sockets(pid);
    let (path, _) = large_file(&server, 64);
    let targets =
        [format!("/file?path={path}"), "/big?bytes=60000000".to_owned(), "/stream?chunks=100000&size=1000".to_owned()];
    let mut clients: Vec<_> = targets.iter().map(|target| (Client::open(server.address()), target)).collect();
    for (client, target) in &mut clients {
        // Even where only the end of the connection says how long the body is.
        client.send(format!("GET {target} HTTP/1.0\r\n\r\n"));
        assert!(client.more().unwrap() > 0);
    }
    wait_until("all cut off", || (open_sockets(pid) <= before).then_some(()));
    for (client, target) in &mut clients {
        assert_eq!(client.rest().1, End::Reset, "{target}");
    }
}

#[test]
fn a_client_that_takes_a_little_now_and_then_is_not_cut_off() {
    let server = testbed().args(["--writeTimeout", "500ms"]).start();
    let (path, bytes) = large_file(&server, 8);
    let mut client = Client::open(server.address());
    client.send(request("GET", &format!("/file?path={path}")));
    let mut buffer = vec![0; 1 << 20];
    let (mut taken, took) = time(|| {
        let mut taken = 0;
        for _ in 0..6 {
            std::thread::sleep(Duration::from_millis(200));
            taken += client.stream.read(&mut buffer).unwrap();
        }
        taken
    });
    assert!(took > Duration::from_secs(1));
    while taken < bytes.len() {
        let n = client.stream.read(&mut buffer).unwrap();
        assert!(n > 0, "cut off after {taken}");
        taken += n;
    }
}

#[test]
fn python_and_curl_agree_that_it_is_http() {
    let server = testbed().start();
    let path = server.folder().join("upload");
    fs::write(&path, pattern(100_000)).unwrap();
    let upload = format!("@{}", path.display());
    let expected = format!("100000 100000 {:x}", crate::support::checksum(&pattern(100_000)));
    for extra in [&["--http1.1"][..], &["--http1.0"], &["-H", "Transfer-Encoding: chunked"], &["-H", "Expect:"]] {
        let told = curl(&[&["--data-binary", &upload, &url(&server, "/body")], extra].concat());
        assert!(told.status.success() && told.stdout == expected.as_bytes(), "{extra:?}: {told:?}");
    }
    let head = curl(&["--head", "--fail", &url(&server, "/big?bytes=123456")]);
    assert!(String::from_utf8_lossy(&head.stdout).contains("123456"), "{head:?}");
    let script = "\
import http.client, sys
connection = http.client.HTTPConnection(sys.argv[1], timeout=20)
for n in range(50):
    for target, length in (('/big?bytes=%d' % n, n), ('/stream?chunks=%d&size=7' % n, 7 * n)):
        connection.request('GET', target)
        answer = connection.getresponse()
        assert answer.status == 200 and len(answer.read()) == length, target
    connection.request('POST', '/body', iter([b'abc'] * n), encode_chunked=True, headers={'Transfer-Encoding': 'chunked'})
    assert connection.getresponse().read().startswith(b'%d %d ' % (3 * n, 3 * n))
";
    let mut python = std::process::Command::new("python3");
    let told = python.args(["-c", script, &server.address().to_string()]).output().unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
}

#[test]
fn a_sparse_gigabyte_passes_without_being_held() {
    let server = testbed().start();
    let path = server.folder().join("sparse");
    File::create(&path).unwrap().set_len(1 << 30).unwrap();
    let target = url(&server, &format!("/file?path={}", path.display()));
    let fetched = curl(&["--output", "/dev/null", "--write-out", "%{size_download}", &target]);
    assert_eq!(String::from_utf8_lossy(&fetched.stdout), (1 << 30).to_string());
    let status = fs::read_to_string(format!("/proc/{}/status", server.worker_pids()[0])).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 64 << 10, "{peak} kB at most");
}
