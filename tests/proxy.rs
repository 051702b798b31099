//! Who the client is when another server stands in front: the PROXY protocol, the fields that forward, and whose word
//! counts.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use crate::support::{
    Client, Connection, End, Launch, MODES, PATIENCE, Server, Told, curl, request, skip, slow, wait_until,
};

const LINE: &[u8] = b"PROXY TCP4 203.0.113.7 192.0.2.1 56324 443\r\n";

/// For a health check.
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// Version 2 with this family and these addresses.
fn binary(family: u8, addresses: &[u8]) -> Vec<u8> {
    let length = u16::try_from(addresses.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n\x21", &[family][..], &length, addresses].concat()
}

/// From 203.0.113.8, port 56325.
fn binary_ipv4() -> Vec<u8> {
    binary(0x11, &[203, 0, 113, 8, 192, 0, 2, 1, 0xdc, 0x05, 0x01, 0xbb])
}

fn testbed(options: &[&str]) -> Server {
    Launch::example("testbed").options(options).start()
}

/// What the testbed says of who asks with these lines of fields.
fn told(client: &mut Client, fields: &str) -> String {
    client.send(format!("GET /client HTTP/1.1\r\nHost: test\r\n{fields}\r\n"));
    client.answer().text()
}

/// The same, of a connection that begins with these bytes.
fn told_after(server: &Server, header: &[u8], fields: &str) -> String {
    let mut client = Client::open(server.address());
    client.send(header);
    told(&mut client, fields)
}

fn open_from(n: u8, to: SocketAddr) -> Client {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, n)), 0).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    Client::over(TcpStream::from(socket))
}

/// Nothing may come before the end, whatever that is like.
fn expect_closed(client: &mut Client, what: &str) {
    let (rest, _) = client.rest();
    assert!(rest.is_empty(), "{what}: {}", rest.escape_ascii());
}

#[test]
fn in_every_mode_the_header_names_the_client_to_handlers_and_in_the_log() {
    for (mode, options) in MODES {
        let options = [options, &["--proxyProtocol", "1", "--trusted", "127.0.0.1"]].concat();
        let server = testbed(&options);
        for (header, expected) in [(LINE.to_vec(), "203.0.113.7:56324"), (binary_ipv4(), "203.0.113.8:56325")] {
            let mut client = Client::open(server.address());
            client.send([header, request("GET", "/client")].concat());
            assert_eq!(client.answer().text(), format!("client {expected}\nhttps false\nfield host: test\n"), "{mode}");
            let spoofed = told(&mut client, "X-Forwarded-For: 1.1.1.1\r\nx_forwarded_proto: https\r\n");
            assert_eq!(spoofed, format!("client {expected}\nhttps false\nfield host: test\n"), "{mode}");
        }
        let log = wait_until("all lines", || Some(server.access_log()).filter(|log| log.lines().count() == 4));
        let clients: Vec<_> = log.lines().filter_map(|line| line.split(' ').next()).collect();
        for address in ["203.0.113.7", "203.0.113.8"] {
            assert_eq!(clients.iter().filter(|client| **client == address).count(), 2, "{mode}: {log}");
        }
    }
}

#[test]
fn a_header_may_come_in_any_pieces_and_name_nobody() {
    let server = testbed(&["--proxyProtocol", "1"]);
    let ipv6 = binary(0x21, &[&[0x20, 1, 0xd, 0xb8], &[0; 11][..], &[7], &[9; 16], &[0, 80, 1, 1]].concat());
    for (header, expected) in [
        (LINE.to_vec(), Some("client 203.0.113.7:56324\n")),
        (b"PROXY TCP6 2001:db8::7 2001:db8::1 80 443\r\n".to_vec(), Some("client [2001:db8::7]:80\n")),
        (b"PROXY UNKNOWN\r\n".to_vec(), None),
        (b"PROXY UNKNOWN what ever\r\n".to_vec(), None),
        (binary_ipv4(), Some("client 203.0.113.8:56325\n")),
        (ipv6, Some("client [2001:db8::7]:80\n")),
        (binary(0x31, &[b'/'; 216]), Some("client unix:\n")),
        (binary(0, b"abc"), None),
        (LOCAL.to_vec(), None),
    ] {
        let mut client = Client::open(server.address());
        client.send_byte_by_byte(&[&header[..], &request("GET", "/client")].concat());
        let answer = client.answer().text();
        let own = format!("client {}\n", client.stream.local_addr().unwrap());
        assert!(answer.starts_with(expected.unwrap_or(&own)), "{}: {answer}", header.escape_ascii());
        assert!(client.is_kept());
    }
}

#[test]
fn what_is_no_header_is_closed_without_a_word() {
    let server = testbed(&["--proxyProtocol", "1", "--level", "debug"]);
    let mut too_long = binary(0, &[0; 4081]);
    too_long.truncate(16);
    for bytes in [
        request("GET", "/"),
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc".to_vec(),
        b"PROXY TCP4 203.0.113.7 192.0.2.1 56324 443\n".to_vec(),
        b"PROXY TCP4 203.0.113.7 192.0.2.1 56324 65536\r\n".to_vec(),
        [b"PROXY UNKNOWN ", &[b'x'; 200][..]].concat(),
        b"\r\n\r\n\0\r\nQUIT\n\x11".to_vec(),
        binary(0x11, &[0; 11]),
        binary(0x41, &[0; 12]),
        binary(0x11, &[[0; 12].as_slice(), &[3, 0, 4, 1, 2, 3, 4]].concat()),
        too_long,
    ] {
        let mut client = Client::open(server.address());
        client.send(&bytes);
        expect_closed(&mut client, &bytes.escape_ascii().to_string());
    }
    let log = wait_until("a line for each", || {
        Some(server.log()).filter(|log| log.matches("begins with the PROXY protocol: ").count() == 10)
    });
    let warnings = log.lines().filter(|line| line.contains(" warn ") && line.contains("turned away")).count();
    assert_eq!(warnings, 1, "{log}");
    assert!(told_after(&server, LINE, "").starts_with("client 203.0.113.7:56324\n"));
    wait_until("the only line", || server.access_log().ends_with('\n').then_some(()));
    assert_eq!(server.access_log().lines().count(), 1, "{}", server.access_log());
}

#[test]
fn health_checks_that_say_nothing_more_are_no_news() {
    let mut server = testbed(&["--proxyProtocol", "1", "--headerTimeout", "1m"]);
    let mark = server.log_mark();
    for header in [LOCAL, b"PROXY UNKNOWN\r\n", &LOCAL[..7], b""] {
        let mut client = Client::open(server.address());
        client.send(header);
        client.end_sending();
        assert_eq!(client.end(), if header.len() == 7 { End::Reset } else { End::Closed });
    }
    let during = server.log()[mark..].to_owned();
    assert_eq!(server.stop(), 0);
    assert!(during.is_empty() && server.access_log().is_empty(), "{during}{}", server.access_log());
}

#[test]
fn a_header_that_does_not_end_has_the_time_of_a_head_whatever_comes() {
    let server = testbed(&["--proxyProtocol", "1", "--headerTimeout", "300ms"]);
    for part in [&LINE[..20], &binary_ipv4()[..20], &[LINE, b"GET"].concat(), &[]] {
        let mut client = Client::open(server.address());
        client.send(part);
        let (rest, _) = client.rest();
        let is_head = part.ends_with(b"GET");
        assert_eq!(rest.starts_with(b"HTTP/1.1 408 "), is_head, "{}", rest.escape_ascii());
        assert!(is_head || rest.is_empty(), "{}", rest.escape_ascii());
    }
    // A byte now and then, for longer than anybody waits here.
    let mut header = binary(0, &[0; 4000]).into_iter();
    let mut stream = server.connect();
    stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < PATIENCE, "it is still open after {} bytes", 4016 - header.len());
        let written = stream.write_all(&[header.next().unwrap()]);
        match stream.read(&mut [0]) {
            Ok(1..) => panic!("an answer"),
            Err(why) if written.is_ok() && why.kind() == ErrorKind::WouldBlock => {}
            Ok(0) | Err(_) => break,
        }
    }
}

#[test]
fn only_those_who_are_trusted_may_say_who_comes() {
    let server = testbed(&["--proxyProtocol", "1", "--trusted", "127.0.0.2 192.0.2.0/24", "--level", "debug"]);
    for _ in 0..3 {
        let mut stranger = Client::open(server.address());
        // What is sent to a socket that is closed already may be refused.
        let _ = stranger.stream.write_all(LINE);
        expect_closed(&mut stranger, "a stranger");
    }
    let mut front = open_from(2, server.address());
    front.send(LINE);
    assert!(told(&mut front, "").starts_with("client 203.0.113.7:56324\n"));
    let log = wait_until("a line for each", || {
        Some(server.log()).filter(|log| log.matches("only those that `trusted` names").count() == 3)
    });
    let warnings: Vec<_> = log.lines().filter(|line| line.contains(" warn ") && line.contains("turned away")).collect();
    assert_eq!(warnings.len(), 1, "{log}");
    assert!(warnings[0].contains("127.0.0.1:") && warnings[0].contains("proxyProtocol = 1"), "{log}");
}

#[test]
fn a_header_where_none_belongs_is_a_400_and_the_end() {
    let (with, without) = (testbed(&["--proxyProtocol", "1"]), testbed(&[]));
    for header in [LINE.to_vec(), b"PROXY UNKNOWN\r\n".to_vec(), LOCAL.to_vec(), binary_ipv4()] {
        let ask = request("GET", "/client");
        for (server, bytes, answers) in [
            (&without, [&header[..], &ask].concat(), 0),
            (&without, [&ask, &header[..], &ask].concat(), 1),
            (&with, [LINE, &header, &ask].concat(), 0),
            (&with, [LINE, &ask, &header, &ask].concat(), 1),
        ] {
            let mut client = Client::open(server.address());
            client.send(&bytes);
            for _ in 0..answers {
                assert_eq!(client.answer().status, 200);
            }
            let answer = client.answer();
            assert!(answer.status == 400 && answer.closes(), "{}: {answer:?}", bytes.escape_ascii());
            assert_eq!(client.end(), End::Closed);
        }
    }
}

#[test]
fn curl_is_announced() {
    let server = testbed(&["--proxyProtocol", "1"]);
    let url = format!("http://{}/client", server.address());
    let output = curl(&["--haproxy-protocol", "--write-out", "%{local_ip}:%{local_port}", &url]);
    let said = String::from_utf8(output.stdout).unwrap();
    let own = said.lines().last().unwrap().to_owned();
    assert!(said.starts_with(&format!("client {own}\nhttps false\n")), "{said}");
    let plain = curl(&[&url]);
    assert!(!plain.status.success() && plain.stdout.is_empty(), "{plain:?}");
}

/// Sends what it is given before TLS begins, then asks.
const TLS_BEHIND_A_HEADER: &str = r"
import socket, ssl, sys
host, port = sys.argv[1].rsplit(':', 1)
raw = socket.create_connection((host, int(port)), 20)
raw.sendall(bytes.fromhex(sys.argv[2]))
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
tls = context.wrap_socket(raw)
for _ in range(2):
    tls.sendall(b'GET /client HTTP/1.1\r\nHost: test\r\nX-Forwarded-Proto: http\r\n\r\n')
    answer = tls.recv(65536)
    print(answer.split(b'\r\n\r\n')[1].decode())
";

#[test]
fn tls_begins_behind_the_header() {
    let launch = Launch::example("testbed").args(["--proxyProtocol", "1", "--sslKeyFile", "key.pem"]);
    let (key, certificate) = (launch.folder().join("key.pem"), launch.folder().join("certificate.pem"));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]);
    openssl.args(["-subj", "/CN=localhost", "-keyout"]).arg(key).arg("-out").arg(certificate);
    assert!(openssl.output().expect("openssl is installed").status.success());
    let server = launch.args(["--sslCertificateFile", "certificate.pem"]).start();
    for (header, expected) in [(LINE.to_vec(), "203.0.113.7:56324"), (binary_ipv4(), "203.0.113.8:56325")] {
        let hex = header.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
        let mut python = Command::new("python3");
        let output = python.args(["-c", TLS_BEHIND_A_HEADER, &server.address().to_string(), &hex]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let expected = format!("client {expected}\nhttps true\nfield host: test\n\n").repeat(2);
        assert_eq!(said, expected, "{}", String::from_utf8_lossy(&output.stderr));
    }
    for bytes in [request("GET", "/"), b"\x16\x03\x01\x02\0\x01\0\x01\xfc".to_vec()] {
        let mut client = Client::open(server.address());
        client.send(&bytes);
        expect_closed(&mut client, "TLS says nothing before the header");
    }
    let mut twice = Client::open(server.address());
    twice.send([LINE, LINE, &request("GET", "/")].concat());
    assert_eq!(twice.answer().status, 400, "the second is no TLS");
}

#[test]
fn fields_of_those_who_are_not_trusted_do_not_count_and_do_not_arrive() {
    let spoof = "X-Forwarded-For: 127.0.0.1\r\nForwarded: for=127.0.0.1;proto=https;host=evil\r\nX-Real-IP: 127.0.0.1\r\n\
                 X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nX_Forwarded_For: 127.0.0.1\r\nX-Kept: yes\r\n";
    for options in [&[][..], &["--trusted", "192.0.2.0/24 unix"]] {
        let server = testbed(options);
        let mut client = open_from(9, server.address());
        let own = client.stream.local_addr().unwrap();
        let expected = format!("client {own}\nhttps false\nfield host: test\nfield x-kept: yes\n");
        assert_eq!(told(&mut client, spoof), expected);
        let line = wait_until("the line", || server.access_log().lines().next().map(ToOwned::to_owned));
        assert!(line.starts_with("127.0.0.9 - - "), "{line}");
    }
}

#[test]
fn in_every_mode_a_trusted_server_says_who_asks_and_how_they_came() {
    for (mode, options) in MODES {
        let options = [options, &["--trusted", "127.0.0.1 10.0.0.0/8", "--accessFormat", "json"]].concat();
        let server = testbed(&options);
        let mut client = Client::open(server.address());
        let said = told(
            &mut client,
            "X-Forwarded-For: 1.1.1.1, 203.0.113.7, 10.0.0.2\r\nX-Forwarded-Proto: https\r\nForwarded: for=2.2.2.2\r\n\
             X-Forwarded-Host: www.example.com\r\nx_forwarded_for: 1.1.1.1\r\n",
        );
        assert!(said.starts_with("client 203.0.113.7\nhttps true\n"), "{mode}: {said}");
        assert!(said.contains("field host: www.example.com\n"), "{mode}: {said}");
        assert!(!said.contains('_') && !said.contains("field forwarded:"), "{mode}: {said}");
        // Each request of a kept connection may be another client's.
        let said = told(&mut client, "Forwarded: for=\"[2001:db8::7]:80\";proto=http\r\n");
        assert!(said.starts_with("client [2001:db8::7]:80\nhttps false\n"), "{mode}: {said}");
        let said = told(&mut client, "");
        assert!(said.starts_with(&format!("client {}\n", client.stream.local_addr().unwrap())), "{mode}: {said}");
        let log = wait_until("all lines", || Some(server.access_log()).filter(|log| log.lines().count() == 3));
        let clients = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["client"].clone());
        let expected = [json!("203.0.113.7"), json!("2001:db8::7"), json!("127.0.0.1")];
        assert_eq!(clients.collect::<Vec<_>>(), expected, "{mode}");
    }
}

#[test]
fn fields_count_by_who_the_header_names() {
    let server = testbed(&["--proxyProtocol", "1", "--trusted", "127.0.0.1 198.51.100.0/24"]);
    let fields = "X-Forwarded-For: 203.0.113.9\r\n";
    let trusted = b"PROXY TCP4 198.51.100.1 192.0.2.1 1 2\r\n";
    assert!(told_after(&server, trusted, fields).starts_with("client 203.0.113.9\n"));
    assert!(told_after(&server, LOCAL, fields).starts_with("client 203.0.113.9\n"));
    assert!(told_after(&server, LINE, fields).starts_with("client 203.0.113.7:56324\n"));
    // Who knows whose fields these are?
    for header in [&b"PROXY UNKNOWN\r\n"[..], &binary(0, b""), &binary(0x31, &[0; 216])] {
        let said = told_after(&server, header, fields);
        assert!(!said.contains("203.0.113.9"), "{}: {said}", header.escape_ascii());
    }
}

#[test]
fn behind_a_unix_socket_unix_is_who_is_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("site.sock");
    let launch = Launch::example("testbed").listening_elsewhere().args(["--trusted", "unix"]);
    let server = launch.arg("--socketFile").arg(&path).start();
    let mut connection = Connection::open_unix(&path).unwrap();
    connection.send(b"GET /client HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.7\r\n\r\n").unwrap();
    assert!(connection.answer().unwrap().text().starts_with("client 203.0.113.7\n"));
    assert!(connection.get("/client").unwrap().text().starts_with("client unix:\n"));
    let log = wait_until("both lines", || Some(server.access_log()).filter(|log| log.lines().count() == 2));
    assert!(log.starts_with("203.0.113.7 - - ") && log.contains("\nunix: - - "), "{log}");
}

#[test]
fn a_refusal_and_a_death_are_logged_with_the_client() {
    let server = Launch::example("faulty").args(["--trusted", "127.0.0.1", "--maxBody", "10"]).start();
    let mut client = Client::open(server.address());
    client.send(
        "POST / HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: 203.0.113.7\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n",
    );
    assert_eq!(client.answer().status, 413);
    let line = wait_until("the line", || server.access_log().lines().next().map(ToOwned::to_owned));
    assert!(line.starts_with("203.0.113.7 - - ") && line.contains(" 413 "), "{line}");
    let mark = server.log_mark();
    let mut client = Client::open(server.address());
    client.send("GET /abort HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: 203.0.113.7\r\n\r\n");
    let death = server.wait_for_log_after(mark, "died while serving");
    assert!(death.contains("GET /abort from 203.0.113.7 ("), "{death}");
}

#[test]
fn a_request_that_is_handed_to_a_sibling_takes_its_client_along() {
    let server = slow(&["--processPool", "2", "--proxyProtocol", "1"]);
    let mut of_worker: Vec<(i32, Client)> = Vec::new();
    let (mut stuck, mut kept, pid) = loop {
        assert!(of_worker.len() < 40, "no worker gets two of {} connections", of_worker.len());
        let mut client = Client::open(server.address());
        client.send(LINE);
        let pid = Told::of(&client.get("/")).pid;
        if let Some(place) = of_worker.iter().position(|(of, _)| *of == pid) {
            break (of_worker.remove(place).1, client, pid);
        }
        of_worker.push((pid, client));
    };
    stuck.send(request("GET", "/?ms=1000"));
    // It runs once the worker that has it takes longer over another.
    let moved = wait_until("a request that another worker answers", || {
        Some(Told::of(&kept.get("/moved")).pid).filter(|of| *of != pid)
    });
    assert_ne!(moved, pid);
    assert_eq!(Told::of(&kept.get("/after")).pid, moved, "the connection has moved, too");
    drop((stuck, of_worker));
    let log = wait_until("the last line", || Some(server.access_log()).filter(|log| log.contains("GET /after ")));
    assert!(log.lines().all(|line| line.starts_with("203.0.113.7 - - ")), "{log}");
}

#[test]
fn the_name_that_is_looked_up_is_that_of_the_client() {
    let found = Command::new("getent").args(["hosts", "127.0.0.1"]).output();
    let found = found.map(|output| String::from_utf8(output.stdout).unwrap()).unwrap_or_default();
    let Some(name) = found.split_whitespace().nth(1) else {
        return skip("the name of a client behind another server", "this machine has none");
    };
    let server =
        Launch::regrow().args(["--reverseDNS", "1", "--accessFormat", "json", "--trusted", "127.0.0.9"]).start();
    let mut front = open_from(9, server.address());
    front.send("GET / HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: 127.0.0.1\r\n\r\n");
    assert_eq!(front.answer().status, 200);
    let line = wait_until("the line", || server.access_log().lines().next().map(ToOwned::to_owned));
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&line["client"], &line["host"]), (&json!("127.0.0.1"), &json!(name)));
}

#[test]
fn a_folder_is_found_by_its_path_alone_whatever_stands_in_front() {
    let launch = Launch::regrow().args(["--trusted", "127.0.0.1"]);
    let folder = launch.folder().to_owned();
    fs::create_dir_all(folder.join("site/sub")).unwrap();
    let server = launch.arg(folder.join("site")).start();
    let mut client = Client::open(server.address());
    client.send(
        "GET /sub HTTP/1.1\r\nHost: inside:8080\r\nX-Forwarded-Host: www.example.com\r\nX-Forwarded-Proto: https\r\n\r\n",
    );
    let answer = client.answer();
    assert_eq!((answer.status, answer.field("location")), (301, Some("/sub/")));
}
