//! Host names in the access log: looked up by a process beside each worker, checked, and waited for by nothing but
//! their lines.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::{
    Connection, Dns, Launch, MODES, Question, Record, Server, all_children_of, children_of, get, is_alive, skip, time,
    wait_until,
};

/// How long a line waits for a name.
const DEADLINE: Duration = Duration::from_secs(2);

/// How long the system's resolver goes on asking a silent server (resolv.conf(5)).
const LOOKUP: Duration = Duration::from_secs(10);

fn client(n: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 0, n).into()
}

/// Has this client ask for `/n`.
fn ask_from(n: u8, server: &Server) {
    let reply =
        Connection::open_from(client(n), server.address()).and_then(|mut connection| connection.get(format!("/{n}")));
    assert!(reply.unwrap().status < 500);
}

/// The client of the line of `/n`, once it is written.
fn name_of(n: u8, server: &Server) -> String {
    wait_until(&format!("the line of /{n}"), || named(n, &server.access_log()))
}

fn named(n: u8, log: &str) -> Option<String> {
    let request = format!("\"GET /{n} ");
    let line = log.lines().find(|line| line.contains(&request))?;
    line.split(' ').next().map(ToOwned::to_owned)
}

/// The only process of the only worker.
fn resolver(server: &Server) -> i32 {
    let [worker] = server.worker_pids()[..] else { panic!("one worker") };
    let [resolver] = children_of(worker)[..] else { panic!("one resolver") };
    resolver
}

/// A server that asks this name server and nobody else, or why there cannot be one.
fn serve_with(dns: &Dns) -> Result<Server, String> {
    let launch = Launch::regrow().args(["--reverseDNS", "1", "--socketQueueSize", "64"]);
    let words = dns.only_for_one_program(launch.folder())?;
    Ok(launch.through(&words.each_ref().map(String::as_str)).start())
}

#[test]
fn in_every_mode_the_name_of_a_client_is_logged_beside_its_address_in_json() {
    // What this machine calls itself.
    let found = Command::new("getent").args(["hosts", "127.0.0.1"]).output();
    let found = found.map(|output| String::from_utf8(output.stdout).unwrap()).unwrap_or_default();
    let Some(name) = found.split_whitespace().nth(1) else {
        return skip("the name of this machine", "it has none, or there is no getent to ask for it");
    };
    for (mode, options) in MODES {
        let launch = Launch::regrow().args(["--reverseDNS", "1", "--accessFormat", "json"]);
        let server = launch.options(options).start();
        // Enough for every loop to have some: each asks for itself.
        let mut connections: Vec<_> = (0..8).map(|_| Connection::open(server.address()).unwrap()).collect();
        for connection in &mut connections {
            connection.get("/").unwrap();
        }
        let log = wait_until("all lines", || Some(server.access_log()).filter(|log| log.lines().count() == 8));
        for line in log.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            assert_eq!((&line["client"], &line["host"]), (&json!("127.0.0.1"), &json!(name)), "{mode}");
        }
    }
}

#[test]
fn only_a_name_that_leads_back_to_its_address_is_believed() {
    const TITLE: &str = "names that are checked";
    let answer = |question: &Question<'_>| match *question {
        Question::Ptr("2.0.0.127.in-addr.arpa") => Record::Ptr("honest.example"),
        Question::A("honest.example") => Record::A(Ipv4Addr::new(127, 0, 0, 2)),
        Question::Ptr("3.0.0.127.in-addr.arpa") => Record::Ptr("bank.example"),
        Question::A("bank.example") => Record::A(Ipv4Addr::new(192, 0, 2, 1)),
        Question::Ptr("4.0.0.127.in-addr.arpa") => Record::Ptr("nowhere.example"),
        Question::Ptr("5.0.0.127.in-addr.arpa") => Record::Ptr("a b\n127.0.0.1 - -.example"),
        Question::A("a b\n127.0.0.1 - -.example") => Record::A(Ipv4Addr::new(127, 0, 0, 5)),
        // Which is 127.0.0.6, and reads as another address.
        Question::Ptr("6.0.0.127.in-addr.arpa") => Record::Ptr("0177.0.0.6"),
        Question::Ptr(_) | Question::A(_) | Question::Other => Record::Missing,
    };
    let dns = match Dns::start(answer) {
        Ok(dns) => dns,
        Err(why) => return skip(TITLE, &format!("a name server cannot be started: {why}")),
    };
    let server = match serve_with(&dns) {
        Ok(server) => server,
        Err(why) => return skip(TITLE, &why),
    };
    for n in 2..=7 {
        ask_from(n, &server);
    }
    let shown = (2..=7).map(|n| name_of(n, &server)).collect::<Vec<_>>();
    assert_eq!(shown, ["honest.example", "127.0.0.3", "127.0.0.4", "127.0.0.5", "127.0.0.6", "127.0.0.7"]);
    assert_eq!(server.access_log().lines().count(), 6);
}

#[test]
fn names_that_never_come_delay_no_response_and_their_lines_only_to_the_deadline() {
    const TITLE: &str = "names that never come";
    let answer = |question: &Question<'_>| match *question {
        Question::Ptr("2.0.0.127.in-addr.arpa") => Record::Ptr("honest.example"),
        Question::A("honest.example") => Record::A(Ipv4Addr::new(127, 0, 0, 2)),
        Question::Ptr(_) | Question::A(_) => Record::Silence,
        Question::Other => Record::Missing,
    };
    let dns = match Dns::start(answer) {
        Ok(dns) => dns,
        Err(why) => return skip(TITLE, &format!("a name server cannot be started: {why}")),
    };
    let mut server = match serve_with(&dns) {
        Ok(server) => server,
        Err(why) => return skip(TITLE, &why),
    };
    let start = Instant::now();
    ask_from(100, &server);
    ask_from(2, &server);
    // One lookup hangs, and does not hold up another.
    assert_eq!(name_of(2, &server), "honest.example");
    assert_eq!(named(100, &server.access_log()), None, "its line waits");
    // More of them than are looked up at once.
    for n in 101..=120 {
        let ((), took) = time(|| ask_from(n, &server));
        assert!(took < DEADLINE, "{took:?}");
    }
    for n in 100..=120 {
        assert_eq!(name_of(n, &server), client(n).to_string());
    }
    assert!(start.elapsed() < LOOKUP, "{:?}", start.elapsed());
    ask_from(121, &server);
    let (exit_code, took) = time(|| server.stop());
    assert_eq!(exit_code, 0);
    assert!(took < LOOKUP, "{took:?}");
    assert_eq!(name_of(121, &server), client(121).to_string(), "a line that waits is written at the end");
}

#[test]
fn a_resolver_has_nothing_of_its_worker_and_goes_with_it() {
    let server = Launch::regrow().args(["--reverseDNS", "1"]).start();
    let resolver = resolver(&server);
    let open = || fs::read_dir(format!("/proc/{resolver}/fd")).unwrap().count();
    // Standard streams, questions and answers.
    wait_until("the resolver to close what it does not need", || (open() == 5).then_some(()));
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGQUIT, Signal::SIGHUP] {
        server.signal(resolver, signal); // as a terminal or a service manager sends them to all processes
    }
    ask_from(1, &server);
    name_of(1, &server);
    assert!(is_alive(resolver));
    server.signal(server.worker_pids()[0], Signal::SIGKILL);
    wait_until("the end of the resolver", || (!is_alive(resolver)).then_some(()));
}

#[test]
fn a_resolver_that_dies_costs_names_and_nothing_else() {
    let mut server = Launch::regrow().args(["--reverseDNS", "1"]).start();
    let resolver = resolver(&server);
    let worker = server.worker_pids()[0];
    server.signal(resolver, Signal::SIGKILL);
    wait_until("the end of the resolver", || (!is_alive(resolver)).then_some(()));
    for n in 1..=3 {
        ask_from(n, &server);
        assert_eq!(name_of(n, &server), client(n).to_string());
    }
    assert!(all_children_of(worker).is_empty(), "it was reaped");
    assert_eq!(server.worker_pids(), [worker]);
    assert_eq!(server.stop(), 0);
    let log = server.log();
    let told = log.lines().filter(|line| line.contains(" error ")).collect::<Vec<_>>();
    assert_eq!(told.len(), 1, "{log}");
    assert!(told[0].contains(&format!("the resolver (pid={resolver}) is gone: signal 9 (KILL);")), "{log}");
}

#[test]
fn nothing_is_looked_up_for_a_log_that_has_no_names() {
    for launch in [Launch::regrow(), Launch::regrow().args(["--reverseDNS", "1", "--accessLog", "off"])] {
        let server = launch.start();
        assert_eq!(get(server.address(), "/").unwrap().status, 200);
        assert!(all_children_of(server.worker_pids()[0]).is_empty());
    }
}
