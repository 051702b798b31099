//! Workers that are replaced although they live, because they are spent or hang, and what commands do to the pool: nobody
//! else notices.

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{
    Client, Launch, Load, Server, failed, get, get_unix, is_alive, request, wait_for_end, wait_until,
};

fn pool(options: &[&str]) -> Server {
    let launch = Launch::example("testbed").args(["--processPool", "2", "--socketQueueSize", "1024"]);
    launch.options(options).start()
}

/// How many workers serve, as the master says.
fn serving(server: &Server) -> u64 {
    let reply = get_unix(&server.control_socket(), "/status").unwrap();
    let said: Value = serde_json::from_slice(&reply.body).unwrap();
    said["workers"]["serving"].as_u64().unwrap()
}

fn pid_in(said: &str) -> i32 {
    let pid = said.rsplit("pid=").next().and_then(|rest| rest.split_whitespace().next());
    pid.and_then(|pid| pid.parse().ok()).unwrap_or_else(|| panic!("no pid in {said}"))
}

/// A worker, and a request that its handler is at.
fn busy_worker(server: &Server, target: &str) -> (i32, Client) {
    let mut client = Client::open(server.address());
    let pid = pid_in(&client.get("/quick/who").text());
    client.send(request("GET", target));
    (pid, client)
}

#[test]
fn workers_that_have_answered_enough_are_replaced_one_by_one_and_nobody_notices() {
    let server = pool(&["--maxRequests", "200", "--maxRequestsJitter", "50"]);
    let first = server.worker_pids();
    let load = Load::on(server.address(), &["/quick/who", "/who"]);
    wait_until("ten successors", || {
        assert!(serving(&server) >= 2, "fewer than there are to be");
        (server.log().matches(" ready (").count() >= 12).then_some(())
    });
    load.end();
    wait_for_end(&first);
    let log = server.log();
    assert!(!log.contains(" died ") && !log.contains("were cut off"), "{log}");
    // Each successor is ready before the next of those that are spent gets one: never are two of them away.
    let said = "has answered maxRequests requests: it is replaced once its successor is ready";
    assert!(log.matches(said).count() >= 10);
}

#[test]
fn a_worker_that_takes_too_much_memory_is_replaced_once_its_successor_is_ready() {
    let server = pool(&["--maxMemory", "100m"]);
    let mut client = Client::open(server.address());
    let spent = pid_in(&client.get("/quick/leak?bytes=200000000").text());
    let line = server.wait_for_log("of memory, more than maxMemory=100m");
    assert!(line.contains(&format!("pid={spent} ")), "{line}");
    wait_for_end(&[spent]);
    let answer = client.get("/quick/who");
    assert!(pid_in(&answer.text()) != spent && !answer.closes(), "{answer:?}");
    wait_until("two workers", || (server.worker_pids().len() == 2).then_some(()));
    server.wait_for_log(&format!("pid={spent} drained as asked"));
    let log = server.log();
    let (ready, left) = (log.rfind(" ready (").unwrap(), log.rfind(&format!("pid={spent} drained")).unwrap());
    assert!(ready < left, "its successor came first");
}

#[test]
fn a_worker_that_is_stopped_lives_if_it_goes_on_in_time_and_is_replaced_if_not() {
    let server = pool(&["--requestTimeout", "1s"]);
    let workers = server.worker_pids();
    server.signal(workers[0], Signal::SIGSTOP);
    server.wait_for_log(&format!(
        "pid={} was stopped by a signal from outside: it is killed unless it goes on",
        workers[0]
    ));
    server.signal(workers[0], Signal::SIGCONT);
    server.wait_for_log(&format!("pid={} goes on", workers[0]));
    let mark = server.log_mark();
    server.signal(workers[1], Signal::SIGSTOP);
    server.wait_for_log_after(mark, &format!("pid={} was stopped by a signal", workers[1]));
    let line = server.wait_for_log_after(mark, "signal 9 (KILL)");
    assert!(line.contains(&format!("pid={} ", workers[1])), "{line}");
    server.wait_until_complete(mark);
    assert!(is_alive(workers[0]) && !is_alive(workers[1]));
    assert_eq!(get(server.address(), "/who").unwrap().status, 200);
}

#[test]
fn a_worker_whose_loop_does_not_come_round_is_killed_and_replaced() {
    let server = pool(&["--requestTimeout", "500ms"]);
    let (hung, mut client) = busy_worker(&server, "/quick/slow?ms=60000");
    let line = server.wait_for_log("does not come round for");
    assert!(line.contains(&format!("pid={hung} ")) && line.contains("longer than requestTimeout"), "{line}");
    let line = server.wait_for_log("signal 9 (KILL)");
    assert!(line.contains("GET /quick/slow?ms=60000 from 127.0.0.1:"), "{line}");
    assert!(client.try_answer_to("GET").is_err());
    wait_until("two workers", || (server.worker_pids().len() == 2 && !is_alive(hung)).then_some(()));
    assert_eq!(get(server.address(), "/quick/who").unwrap().status, 200);
}

#[test]
fn a_worker_whose_handler_hangs_has_a_successor_at_once_and_finishes_what_else_it_does() {
    let server = pool(&["--requestTimeout", "500ms"]);
    let mut idle: Vec<_> = (0..20).map(|_| Client::open(server.address())).collect();
    idle.iter_mut().for_each(|client| assert_eq!(client.get("/quick/who").status, 200));
    let mut stuck = Client::open(server.address());
    stuck.send(request("GET", "/slow?ms=60000"));
    assert_eq!(stuck.answer().status, 504);
    let hung = pid_in(&server.wait_for_log("has a request that is over requestTimeout: it finishes what else it does"));
    wait_for_end(&[hung]);
    wait_until("two that serve", || (serving(&server) == 2).then_some(()));
    for client in &mut idle {
        let answer = client.get("/quick/who");
        assert!(pid_in(&answer.text()) != hung && !answer.closes(), "{answer:?}");
    }
}

#[test]
fn scale_returns_when_so_many_serve() {
    let server = pool(&[]);
    let load = Load::on(server.address(), &["/quick/who", "/slow?ms=3"]);
    for workers in [5, 1, 3, 2] {
        let said = server.obey(&["scale", &workers.to_string()]);
        assert!(said.contains(&format!("{workers} workers serve")), "{said}");
        assert!(serving(&server) == workers);
        wait_until("no more than these", || (server.worker_pids().len() as u64 == workers).then_some(()));
    }
    load.end();
    server.obey(&["scale", "0"]);
    wait_until("nobody", || server.worker_pids().is_empty().then_some(()));
    let mut waiting = Client::open(server.address());
    waiting.send(request("GET", "/who"));
    server.obey(&["scale", "2"]);
    assert_eq!(waiting.answer().status, 200);
    assert!(server.fail(&["scale", "100000"]).contains("there is no room for more than"));
}

#[test]
fn stop_returns_when_all_is_over_and_says_what_was_done() {
    let mut server = pool(&[]);
    let mut client = Client::open(server.address());
    for _ in 0..7 {
        assert_eq!(client.get("/who").status, 200);
    }
    server.signal(server.worker_pids()[0], Signal::SIGKILL);
    wait_until("two that serve", || (server.log().matches(" ready (").count() == 3).then_some(()));
    let mut running = Client::open(server.address());
    let sign = server.folder().join("sign");
    running.send(request("GET", &format!("/slow?ms=700&sign={}", sign.display())));
    wait_until("a handler that runs", || sign.exists().then_some(()));
    let said = server.obey(&["stop"]);
    assert!(
        said.contains("2 workers drained as asked, 0 were cut off; 8 requests were answered, 0 were cut off"),
        "{said}"
    );
    assert!(server.log().contains(said.trim_end()), "{said}");
    assert_eq!(running.answer().text(), "slow");
    assert_eq!(server.exit_code(), 0);
    assert!(!server.control_socket().exists());
}

#[test]
fn stop_now_cuts_off_what_runs_also_when_a_stop_is_under_way() {
    let mut server = pool(&[]);
    let sign = server.folder().join("sign");
    let mut running = Client::open(server.address());
    running.send(request("GET", &format!("/slow?ms=60000&sign={}", sign.display())));
    wait_until("a handler that runs", || sign.exists().then_some(()));
    let patient = server.command(&["stop"]).spawn().unwrap();
    server.wait_for_log("asked for over the control socket");
    let said = server.obey(&["stop", "--now"]);
    assert!(said.contains("0 requests were answered, 1 were cut off"), "{said}");
    let patient = patient.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&patient.stdout), said);
    assert!(running.try_answer_to("GET").is_err());
    assert_eq!(server.exit_code(), 0);
}

#[test]
fn reopen_returns_when_new_files_are_written_to() {
    let server = pool(&[]);
    get(server.address(), "/one").unwrap();
    let (log, old) = (server.folder().join("access.log"), server.folder().join("old.log"));
    wait_until("a line", || server.access_log().contains("/one").then_some(()));
    std::fs::rename(&log, &old).unwrap();
    assert!(server.obey(&["reopen"]).contains("the log files were reopened"));
    assert!(log.exists());
    std::fs::remove_file(&log).unwrap();
    std::fs::create_dir(&log).unwrap();
    let said = failed(&server.command(&["reopen"]).output().unwrap());
    assert!(said.contains("cannot open the log"), "{said}");
}
