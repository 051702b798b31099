//! What load balancers are told: the truth, whatever handlers and workers do, from the first moment to the last.

use std::net::{SocketAddr, TcpStream};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;

use crate::support::{Client, Launch, MODES, Server, Told, curl, is_alive, request, wait_until};

fn launch(example: &str, options: &[&str]) -> Launch {
    Launch::example(example).args(["--statusPort", "0", "--socketQueueSize", "64"]).options(options)
}

/// Status and body of the answer to such a question.
fn ask(address: SocketAddr, path: &str) -> (u16, Value) {
    let answer = Client::open(address).get(path);
    let said = serde_json::from_slice(&answer.body).unwrap_or_else(|why| panic!("{path}: {why}: {}", answer.text()));
    (answer.status, said)
}

fn status(server: &Server, path: &str) -> u16 {
    ask(server.status_address(), path).0
}

#[test]
fn a_pool_that_serves_is_healthy_and_ready_in_every_mode() {
    for (name, options) in MODES {
        let mut server = launch("slow", options).start();
        let wanted = if name == "processPool" { 2 } else { 1 };
        for path in ["/healthz", "/readyz"] {
            let (status, said) = ask(server.status_address(), path);
            assert_eq!(status, 200, "{name} {path}: {said}");
            assert_eq!(said["master"]["pid"], server.pid(), "{name}");
            assert_eq!(said["workers"], serde_json::json!({"wanted": wanted, "serving": wanted}), "{name}");
        }
        // The two are apart.
        assert_eq!(Client::open(server.status_address()).get("/").status, 404, "{name}");
        let told = Told::of(&Client::open(server.address()).get("/healthz"));
        assert_ne!(told.pid, server.reporter_pid(), "{name}: the site answers for its own paths");
        assert_eq!(server.stop(), 0, "{name}");
    }
}

#[test]
fn a_stop_is_told_at_once_and_until_it_is_over() {
    let mut server = launch("slow", &["--processPool", "2", "--drainDelay", "500ms"]).start();
    let address = server.status_address();
    let mut slow = Client::open(server.address());
    slow.send(request("GET", "/?ms=1500"));
    wait_until("a busy worker", || (ask(address, "/healthz").1["loops"]["busy"] == 1).then_some(()));
    server.tell(Signal::SIGTERM);
    server.wait_for_log("stopping");
    let (status, said) = ask(address, "/readyz");
    assert_eq!((status, said["master"]["phase"].as_str()), (503, Some("stopping")), "{said}");
    assert_eq!(Client::open(server.address()).get("/").status, 200, "it still accepts, until all have noticed");
    assert_eq!(ask(address, "/healthz").0, 200, "and is well");
    assert_eq!(slow.answer().status, 200);
    assert_eq!(server.exit_code(), 0);
    assert!(TcpStream::connect(address).is_err(), "nobody is left");
}

#[test]
fn readiness_is_refused_and_not_silent_when_every_process_is_told_to_stop() {
    let mut server = launch("slow", &["--processPool", "2"]).start();
    let address = server.status_address();
    let mut slow = Client::open(server.address());
    slow.send(request("GET", "/?ms=1000"));
    wait_until("a busy worker", || (ask(address, "/healthz").1["loops"]["busy"] == 1).then_some(()));
    killpg(Pid::from_raw(server.pid()), Signal::SIGTERM).unwrap();
    server.wait_for_log("stopping");
    for _ in 0..20 {
        assert_eq!(ask(address, "/readyz").0, 503);
    }
    assert_eq!(slow.answer().status, 200);
    assert_eq!(server.exit_code(), 0);
}

#[test]
fn the_answer_comes_while_every_handler_blocks_and_every_worker_is_stopped() {
    let server = launch("slow", &["--processPool", "2"]).start();
    let mut blocked: Vec<_> = (0..4).map(|_| Client::open(server.address())).collect();
    for client in &mut blocked {
        client.send(request("GET", "/?ms=60000"));
    }
    let address = server.status_address();
    let busy = || (ask(address, "/readyz").1["loops"]["busy"] == 2).then_some(());
    wait_until("two busy workers", busy);
    assert_eq!(ask(address, "/readyz").0, 200, "they are at work, which is no fault");
    for pid in server.worker_pids() {
        server.signal(pid, Signal::SIGSTOP);
    }
    // A process that runs when it is told to stop takes a moment.
    let said = wait_until("nobody who takes requests", || {
        let (code, said) = ask(address, "/readyz");
        (code == 503).then_some(said)
    });
    assert_eq!((&said["workers"]["serving"], &said["loops"]["taking"]), (&2.into(), &0.into()), "{said}");
}

#[test]
fn a_handler_that_holds_up_its_loop_is_found_out() {
    let server = launch("testbed", &[]).env("TESTBED", "quick").start();
    let mut held = Client::open(server.address());
    let address = server.status_address();
    held.send(request("GET", "/slow?ms=60000"));
    wait_until("an answer that says so", || (ask(address, "/readyz").0 == 503).then_some(()));
    assert_eq!(ask(address, "/healthz").0, 503);
}

#[test]
fn the_port_is_free_when_the_master_has_ended() {
    for _ in 0..5 {
        let mut server = launch("slow", &[]).start();
        let address = server.status_address();
        assert_eq!(server.stop(), 0);
        std::net::TcpListener::bind(address).expect("nobody holds it");
    }
}

#[test]
fn a_site_that_cannot_be_built_is_neither_healthy_nor_ready() {
    let server = launch("faulty", &["--startTimeout", "60s"]).env("FAULTY_START", "hang").spawn();
    let (code, said) = ask(server.status_address(), "/healthz");
    assert_eq!((code, said["master"]["phase"].as_str()), (503, Some("starting")), "{said}");
    assert_eq!(status(&server, "/readyz"), 503);
}

#[test]
fn the_size_of_the_pool_shows_as_it_changes() {
    let server = launch("slow", &["--processPool", "3"]).start();
    let address = server.status_address();
    let serving = |n: u32| (ask(address, "/healthz").1["workers"]["serving"] == n).then_some(());
    server.tell(Signal::SIGTTOU);
    wait_until("one fewer", || serving(2));
    server.tell(Signal::SIGTTIN);
    wait_until("one more", || serving(3));
    server.tell(Signal::SIGWINCH);
    wait_until("none", || serving(0));
    let (code, said) = ask(address, "/readyz");
    assert_eq!((code, &said["workers"]["wanted"]), (503, &Value::from(0)), "{said}");
}

#[test]
fn a_reporter_that_is_killed_comes_back() {
    let server = launch("slow", &["--processPool", "2"]).start();
    let first = server.reporter_pid();
    // Whoever asks meanwhile waits in the queue of the listener, which the master keeps.
    for _ in 0..2 {
        let reporter = server.reporter_pid();
        server.signal(reporter, Signal::SIGKILL);
        server.wait_for_log(&format!("the reporter pid={reporter} ended with signal 9 (KILL)"));
        assert_eq!(status(&server, "/readyz"), 200);
    }
    assert!(!is_alive(first));
    assert!(!server.log().contains("worker=0 gen=1 pid=0"), "it is no worker");
}

#[test]
fn a_master_that_is_killed_leaves_no_reporter() {
    let server = launch("slow", &["--processPool", "2"]).start();
    let (reporter, address) = (server.reporter_pid(), server.status_address());
    server.signal(server.pid(), Signal::SIGKILL);
    wait_until("its end", || (!is_alive(reporter)).then_some(()));
    wait_until("nobody there", || TcpStream::connect(address).is_err().then_some(()));
}

#[test]
fn the_reporter_holds_no_door_open_that_the_workers_have_left() {
    let mut server = launch("slow", &["--processPool", "2"]).start();
    let mut slow = Client::open(server.address());
    slow.send(request("GET", "/?ms=1500"));
    let (site, address) = (server.address(), server.status_address());
    wait_until("a busy worker", || (ask(address, "/healthz").1["loops"]["busy"] == 1).then_some(()));
    server.tell(Signal::SIGTERM);
    // The worker that is at work has closed its listener too.
    wait_until("refusal", || TcpStream::connect(site).is_err().then_some(()));
    assert_eq!(ask(address, "/readyz").0, 503);
    assert_eq!(slow.answer().status, 200);
    assert_eq!(server.exit_code(), 0);
}

#[test]
fn only_questions_are_answered() {
    let server = launch("slow", &[]).start();
    let url = |path: &str| format!("http://{}{path}", server.status_address());
    let head = curl(&["-I", &url("/readyz")]);
    assert!(String::from_utf8_lossy(&head.stdout).starts_with("HTTP/1.1 200"));
    let post = curl(&["-i", "-d", "x", &url("/readyz")]);
    let post = String::from_utf8_lossy(&post.stdout).to_lowercase();
    assert!(post.starts_with("http/1.1 405") && post.contains("allow: get, head"), "{post}");
    assert_eq!(server.access_log(), "", "the log is for clients of the site");
}

#[test]
fn a_port_that_is_taken_is_named_with_its_option() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let mut server = Launch::regrow().args(["--statusPort", &port]).spawn();
    assert_eq!(server.exit_code(), 1);
    assert!(server.log().contains("statusPort") && server.log().contains(&port), "{}", server.log());
}
