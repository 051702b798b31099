use super::*;
use crate::config::{Config, File, Sources};
use crate::random::{Random, seeds};

/// As the configuration has them.
fn senders(text: &str) -> Senders {
    if text.is_empty() {
        return Senders::default();
    }
    let bytes = format!("[proxy]\ntrusted = {text}").into_bytes();
    let file = Some(File { name: "f".into(), folder: "/".into(), bytes });
    Config::resolve(&Sources { file, ..Sources::default() }).unwrap().proxy.trusted.value
}

fn fields(lines: &str) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in lines.lines().filter_map(|line| line.trim().split_once(':')) {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        map.append(name, HeaderValue::from_bytes(value.trim().as_bytes()).unwrap());
    }
    map
}

/// The front server of these tests.
const FRONT: &str = "10.0.0.9:5000";

/// What is found of a request with these fields that came, without TLS, from the server in front; and again.
fn traced(lines: &str) -> (String, bool, HeaderMap) {
    trace_from(Client::Ip(FRONT.parse().unwrap()), &senders("10.0.0.0/8 unix fd00::/8"), lines)
}

fn trace_from(client: Client, trusted: &Senders, lines: &str) -> (String, bool, HeaderMap) {
    let sender = Origin { client, https: false };
    let mut map = fields(lines);
    let origin = trace(sender, trusted, &mut map);
    let once = map.clone();
    assert_eq!((trace(sender, trusted, &mut map), &map), (origin, &once), "it is not the same again: {lines}");
    (origin.client.to_string(), origin.https, map)
}

fn client(lines: &str) -> String {
    traced(lines).0
}

fn names(map: &HeaderMap) -> Vec<&str> {
    let mut names: Vec<_> = map.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    names
}

const ALL: &str = "Host: a
    Forwarded: for=192.0.2.1;proto=https;host=evil
    forwarded: for=192.0.2.2
    X-Forwarded-For: 192.0.2.1
    X-Forwarded-For: 192.0.2.2
    X-Forwarded-Proto: https
    X-Forwarded-Host: evil
    X-Forwarded-Port: 1
    X-Forwarded-Anything: x
    X-Forwarded: x
    X-Real-IP: 192.0.2.1
    x_forwarded_for: 192.0.2.1
    X-Forwarded_Proto: https
    X_Real-IP: 192.0.2.1
    X-Real-IPs: none of them
    X-Real: none of them
    X-Forward: none of them
    Forwarded-For: none of them";

#[test]
fn of_those_who_are_not_trusted_every_such_field_is_removed_and_none_counts() {
    for (from, trusted) in [
        (Client::Ip("192.0.2.99:7".parse().unwrap()), ""),
        (Client::Ip("192.0.2.99:7".parse().unwrap()), "10.0.0.0/8 unix"),
        (Client::Unix, ""),
        (Client::Unix, "0.0.0.0/0 ::/0"),
    ] {
        let (client, https, map) = trace_from(from, &senders(trusted), ALL);
        assert_eq!((client, https), (from.to_string(), false), "{trusted}");
        assert_eq!(names(&map), ["forwarded-for", "host", "x-forward", "x-real", "x-real-ips"]);
        assert_eq!(map[HOST], "a");
    }
}

#[test]
fn what_comes_by_tls_from_nobody_that_is_trusted_came_by_https() {
    let sender = Origin { client: Client::Unix, https: true };
    assert_eq!(trace(sender, &Senders::default(), &mut fields("X-Forwarded-Proto: http")), sender);
}

#[test]
fn of_those_who_are_trusted_only_names_that_are_none_are_removed() {
    let (client, https, map) = traced(ALL);
    assert_eq!((client.as_str(), https), ("192.0.2.2", true));
    let rest = ["x-forwarded", "x-forwarded-anything", "x-forwarded-for", "x-forwarded-host", "x-forwarded-port"];
    assert_eq!(names(&map)[3..8], rest);
    assert!(!names(&map).iter().any(|name| name.contains('_') || *name == "forwarded"), "{map:?}");
}

#[test]
fn addresses_are_read_from_the_end_for_as_long_as_those_who_wrote_them_are_trusted() {
    for (value, expected) in [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1, 192.0.2.2", "192.0.2.2"),
        ("192.0.2.1, 192.0.2.2, 10.1.1.1", "192.0.2.2"),
        ("192.0.2.1, 10.2.2.2:99, fd00::1", "192.0.2.1"),
        ("10.3.3.3, 10.2.2.2, 10.1.1.1", "10.3.3.3"),
        ("10.3.3.3:8080", "10.3.3.3:8080"),
        ("192.0.2.1:8080", "192.0.2.1:8080"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:8080", "[2001:db8::1]:8080"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("192.0.2.1, ::ffff:10.1.1.1", "192.0.2.1"),
        (" ,, 192.0.2.1 ,\t, ", "192.0.2.1"),
        ("", FRONT),
        (",", FRONT),
        ("unknown", FRONT),
        ("192.0.2.1, unknown", FRONT),
        ("192.0.2.1, unknown, 10.1.1.1", "10.1.1.1"),
        ("192.0.2.1, _hidden, 10.1.1.1", "10.1.1.1"),
        ("192.0.2.1, 10.1.1.1 x, 10.2.2.2", "10.2.2.2"),
        ("192.0.2.1 10.1.1.1", FRONT),
        ("192.0.2.01", FRONT),
        ("192.0.2.1:", FRONT),
        ("192.0.2.1:+8", FRONT),
        ("192.0.2.1:65536", FRONT),
        ("[192.0.2.1]", FRONT),
        ("[2001:db8::1", FRONT),
        ("[2001:db8::1]8", FRONT),
        ("fe80::1%eth0", FRONT),
        ("\"192.0.2.1\"", FRONT),
    ] {
        assert_eq!(client(&format!("X-Forwarded-For: {value}")), expected, "{value:?}");
    }
    assert_eq!(client("X-Forwarded-For: 192.0.2.1, 192.0.2.2\nX-Forwarded-For: 10.1.1.1"), "192.0.2.2");
    let behind_a_socket = trace_from(Client::Unix, &senders("unix"), "X-Forwarded-For: 192.0.2.1, 192.0.2.2");
    assert_eq!(behind_a_socket.0, "192.0.2.2");
    assert_eq!(trace_from(Client::Unix, &senders("unix"), "X-Forwarded-For: x").0, "unix:");
}

#[test]
fn the_scheme_is_what_the_last_server_says_and_else_that_of_the_connection() {
    for (value, expected) in [
        ("https", true),
        ("HTTPS", true),
        ("http, https", true),
        ("https, http", false),
        ("https,", true),
        ("http", false),
        ("on", false),
        ("", false),
    ] {
        assert_eq!(traced(&format!("X-Forwarded-Proto: {value}")).1, expected, "{value}");
    }
    let by_tls = Origin { client: Client::Ip(FRONT.parse().unwrap()), https: true };
    let trusted = senders("10.0.0.9");
    for (lines, expected) in [("", true), ("X-Forwarded-Proto: http", false), ("X-Forwarded-Proto: ws", true)] {
        assert_eq!(trace(by_tls, &trusted, &mut fields(lines)).https, expected, "{lines}");
    }
}

#[test]
fn the_host_is_what_the_last_server_says_where_that_is_one() {
    for (value, expected) in [
        ("www.example.com", "www.example.com"),
        ("evil, www.example.com:8443", "www.example.com:8443"),
        ("www.example.com, a/b", "a"),
        ("a b", "a"),
        ("", "a"),
    ] {
        let (_, _, map) = traced(&format!("Host: a\nX-Forwarded-Host: {value}"));
        assert_eq!(map[HOST], expected, "{value}");
        assert_eq!(map.get_all(HOST).iter().count(), 1);
    }
    assert_eq!(traced("X-Forwarded-Host: b").2[HOST], "b", "HTTP/1.0 may come without");
}

#[test]
fn forwarded_counts_where_none_of_the_others_came() {
    for (value, expected, https, host) in [
        ("for=192.0.2.1", "192.0.2.1", false, "a"),
        ("For=192.0.2.1;PROTO=https;hOst=b;by=10.0.0.9", "192.0.2.1", true, "b"),
        ("for=192.0.2.1 ; proto=https ;, ", "192.0.2.1", true, "a"),
        (r#"for="[2001:db8::1]:80";host="b:80""#, "[2001:db8::1]:80", false, "b:80"),
        (r#"for="192.0.2.1:_port""#, "192.0.2.1", false, "a"),
        (r#"for="192\.0.2.1";ext=" , ; \" for=1.1.1.1""#, "192.0.2.1", false, "a"),
        ("for=192.0.2.1;proto=https;host=b, for=10.1.1.1;proto=http;host=c", "192.0.2.1", true, "b"),
        ("for=192.0.2.9;proto=https;host=b, for=192.0.2.1;host=c", "192.0.2.1", false, "c"),
        ("for=_hidden;proto=https, for=10.1.1.1;host=c", "10.1.1.1", false, "c"),
        ("for=unknown;proto=https;host=b", FRONT, true, "b"),
        ("proto=https", FRONT, true, "a"),
        ("for=192.0.2.1, proto=https", FRONT, true, "a"),
        ("host=\"a b\"", FRONT, false, "a"),
        ("", FRONT, false, "a"),
        (" ; , ;; ", FRONT, false, "a"),
    ] {
        let (client, by, map) = traced(&format!("Host: a\nForwarded: {value}"));
        assert_eq!((client.as_str(), by, &map[HOST]), (expected, https, &HeaderValue::from_static(host)), "{value}");
        assert!(map.contains_key(FORWARDED));
    }
    assert_eq!(client("Forwarded: for=192.0.2.1, for=192.0.2.2\nForwarded: for=10.1.1.1"), "192.0.2.2");
    for other in ["X-Forwarded-For: 192.0.2.7", "X-Forwarded-Proto: http", "X-Forwarded-Host: b"] {
        let (client, https, map) = traced(&format!("Forwarded: for=192.0.2.1;proto=https\n{other}"));
        assert!(client != "192.0.2.1" && !https && !map.contains_key(FORWARDED), "{other}: {client}");
    }
}

#[test]
fn forwarded_that_breaks_a_rule_anywhere_is_removed() {
    for value in [
        "for",
        "for=",
        "for =192.0.2.1",
        "for= 192.0.2.1",
        "=192.0.2.1",
        "for=192.0.2.1:80",
        "for=[2001:db8::1]",
        "for=192.0.2.1 proto=https",
        "for=192.0.2.1;for=192.0.2.2",
        "for=192.0.2.1;FOR=192.0.2.1",
        "proto=https;proto=http",
        r#"for="192.0.2.1"#,
        r#"for="192.0.2.1\"#,
        r#"for="192.0.2.1"x"#,
        // What the client began, and the server in front went on with.
        r#"for=";x=, for=192.0.2.1"#,
        r#"for="a", x=", for="192.0.2.1""#,
        r#"for=192.0.2.9, x="\, for="[2001:db8::1]""#,
    ] {
        let (client, https, map) = traced(&format!("Forwarded: {value}"));
        assert_eq!((client.as_str(), https, map.contains_key(FORWARDED)), (FRONT, false, false), "{value}");
    }
    assert_eq!(client("Forwarded: for=\"\nForwarded: for=192.0.2.1"), FRONT);
}

/// No panic, and the same again, whatever the fields are. `REGROW_FUZZ_SECONDS=600` runs longer, with others.
#[test]
fn fields_of_any_kind_are_traced() {
    const NAMES: [&str; 6] =
        ["Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X_Forwarded_For", "Host"];
    const PIECES: [&str; 27] = [
        "for=192.0.2.7;",
        "for=10.0.0.1, ",
        ", 10.0.0.1,",
        "for=",
        "proto=",
        "host=",
        "by=",
        "\"",
        "\\",
        ",",
        ";",
        " ",
        "=",
        ":",
        "[",
        "]",
        "_",
        "10.0.0.1",
        "192.0.2.1",
        "2001:db8::1",
        ":80",
        "https",
        "http",
        "a.example",
        "unknown",
        "\u{e9}",
        "%",
    ];
    let trusted = senders("10.0.0.0/8");
    let mut named = 0;
    for seed in seeds(20_000) {
        let mut random = Random::new(seed);
        let mut below = |bound| random.below(bound);
        let mut lines = String::new();
        for _ in 0..=below(3) {
            lines.push_str(NAMES[below(NAMES.len())]);
            lines.push_str(": ");
            (0..below(8)).for_each(|_| lines.push_str(PIECES[below(PIECES.len())]));
            lines.push('\n');
        }
        let (client, _, map) = trace_from(Client::Ip(FRONT.parse().unwrap()), &trusted, &lines);
        named += usize::from(client != FRONT);
        assert!(map.keys().all(|name| !name.as_str().contains('_')), "seed {seed}: {lines}");
    }
    assert!(named > 200, "hardly any of them named a client: {named}");
}
