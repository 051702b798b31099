//! While it runs: the dead are replaced and their death explained, the pool is scaled, and what cannot be done is said.

use nix::sys::signal::Signal;

use crate::support::{Connection, Launch, Server, get, is_alive, wait_until};

fn pool(workers: &str) -> Server {
    Launch::example("faulty").args(["--processPool", workers, "--socketQueueSize", "64"]).start()
}

/// `worker=0 gen=1 pid=4711`, as the application answers.
fn who_answers(server: &Server) -> String {
    get(server.address(), "/").expect("an answer").text().trim().to_owned()
}

fn pid_of(identity: &str) -> i32 {
    identity.rsplit('=').next().and_then(|pid| pid.parse().ok()).unwrap_or_else(|| panic!("no pid in {identity}"))
}

fn slot_of(identity: &str) -> &str {
    identity.split(" pid=").next().expect("the part before the pid")
}

#[test]
fn a_killed_worker_is_explained_and_replaced_in_its_slot() {
    let server = pool("2");
    let victim = who_answers(&server);
    let mark = server.log_mark();
    server.signal(pid_of(&victim), Signal::SIGKILL);
    let death = server.wait_for_log_after(mark, "died while serving");
    assert!(death.contains(&format!("error master pid={}: {victim} died while serving", server.pid())), "{death}");
    assert!(death.contains("signal 9 (KILL)"), "{death}");
    assert!(death.contains("its last request, which it had answered: GET / from 127.0.0.1:"), "{death}");

    let birth = server.wait_for_log_after(mark, "ready (2 of 2 serve)");
    assert!(birth.contains(&format!("{} pid=", slot_of(&victim))), "{birth}");
    let pids = server.worker_pids();
    assert!(pids.len() == 2 && !pids.contains(&pid_of(&victim)), "{pids:?}");
}

#[test]
fn a_worker_that_exits_by_itself_is_explained_by_its_code_and_the_request_it_cut_off() {
    let server = pool("2");
    let mark = server.log_mark();
    assert!(get(server.address(), "/exit/7").is_err());
    let death = server.wait_for_log_after(mark, "died while serving");
    assert!(death.contains("exit code 7"), "{death}");
    assert!(death.contains("1 requests were cut off, the last of them: GET /exit/7 from 127.0.0.1:"), "{death}");
    server.wait_until_complete(mark);
    assert_eq!(get(server.address(), "/").expect("an answer").status, 200);
}

#[test]
fn a_worker_that_aborts_is_explained_by_the_signal() {
    let server = pool("2");
    assert!(get(server.address(), "/abort").is_err());
    let death = server.wait_for_log("died while serving");
    assert!(death.contains("signal 6 (ABRT)") && death.contains("GET /abort"), "{death}");
}

#[test]
fn a_panic_in_a_handler_is_a_500_and_a_line_and_costs_no_worker() {
    let server = pool("2");
    let mut connection = Connection::open(server.address()).unwrap();
    let worker = connection.get("/").unwrap().text().trim().to_owned();
    assert_eq!(connection.get("/panic").unwrap().status, 500);
    let line = server.wait_for_log("panic at ");
    assert!(line.contains(&worker) && line.contains("a handler's mistake"), "{line}");
    let again = Connection::open(server.address()).and_then(|mut connection| connection.get("/")).unwrap();
    assert_eq!(again.status, 200);
    assert!(server.worker_pids().contains(&pid_of(&worker)));
}

#[test]
fn a_server_without_a_pool_replaces_its_only_worker_too() {
    let server = Launch::example("faulty").start();
    let victim = who_answers(&server);
    let mark = server.log_mark();
    server.signal(pid_of(&victim), Signal::SIGKILL);
    server.wait_until_complete(mark);
    assert_ne!(who_answers(&server), victim);
}

#[test]
fn clients_that_wait_in_the_queue_survive_the_death_of_every_worker() {
    let server = pool("2");
    let workers = server.worker_pids();
    for &pid in &workers {
        server.signal(pid, Signal::SIGSTOP);
    }
    let mut waiting: Vec<_> = (0..20).map(|_| Connection::open(server.address()).unwrap()).collect();
    for connection in &mut waiting {
        connection.ask("/").unwrap();
    }
    for &pid in &workers {
        server.signal(pid, Signal::SIGKILL);
    }
    for connection in &mut waiting {
        assert_eq!(connection.answer().expect("an answer from a new worker").status, 200);
    }
}

#[test]
fn ttin_adds_a_worker_and_ttou_takes_one_away_but_not_the_last() {
    let server = pool("2");
    let mark = server.log_mark();
    server.tell(Signal::SIGTTIN);
    server.wait_for_log_after(mark, "ready (3 of 3 serve)");
    assert_eq!(server.worker_pids().len(), 3);
    for left in [2, 1] {
        server.tell(Signal::SIGTTOU);
        wait_until("one worker fewer", || (server.worker_pids().len() == left).then_some(()));
    }
    server.tell(Signal::SIGTTOU);
    server.wait_for_log_after(mark, "TTOU ignored: the last worker stays");
    assert_eq!(who_answers(&server), "worker=0 gen=1 pid=".to_owned() + &server.worker_pids()[0].to_string());
    assert!(!server.log()[mark..].contains("died"), "leaving as asked is no death");
}

#[test]
fn winch_retires_all_workers_and_ttin_brings_one_back_to_those_who_waited() {
    let server = pool("2");
    let mark = server.log_mark();
    server.tell(Signal::SIGWINCH);
    wait_until("no worker left", || server.worker_pids().is_empty().then_some(()));
    let mut waiting = Connection::open(server.address()).expect("the listener is still there");
    waiting.ask("/").unwrap();
    server.tell(Signal::SIGTTIN);
    assert_eq!(waiting.answer().expect("an answer from the new worker").status, 200);
    server.wait_for_log_after(mark, "ready (1 of 1 serve)");
}

#[test]
fn a_server_without_a_pool_cannot_be_scaled_and_says_so() {
    let server = Launch::example("faulty").start();
    server.tell(Signal::SIGTTIN);
    let line = server.wait_for_log("TTIN ignored");
    assert!(line.contains("processPool=n"), "{line}");
    assert_eq!(server.worker_pids().len(), 1);
}

#[test]
fn signals_that_are_meant_for_the_master_end_no_worker() {
    let mut server = pool("2");
    let before = server.worker_pids();
    for signal in [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGWINCH, Signal::SIGTTIN] {
        for &pid in &before {
            server.signal(pid, signal);
        }
    }
    for &pid in &before {
        server.signal(pid, Signal::SIGINT);
    }
    who_answers(&server);
    assert_eq!(server.worker_pids().len(), 2);
    assert!(before.iter().all(|&pid| is_alive(pid)));
    assert_eq!(server.stop(), 0);
}

#[test]
fn a_worker_that_is_told_term_by_someone_else_is_replaced() {
    let server = pool("2");
    let victim = server.worker_pids()[0];
    let mark = server.log_mark();
    server.signal(victim, Signal::SIGTERM);
    server.wait_until_complete(mark);
    assert!(!server.worker_pids().contains(&victim));
}

#[test]
fn many_deaths_are_told_as_a_few_and_a_count() {
    let server = pool("2");
    for _ in 0..25 {
        let victim = wait_until("a pool of two", || {
            let pids = server.worker_pids();
            (pids.len() == 2).then(|| pids[0])
        });
        assert_ne!(who_answers(&server), "");
        server.signal(victim, Signal::SIGKILL);
        wait_until("its end", || (!is_alive(victim)).then_some(()));
    }
    let told = server.log().lines().filter(|line| line.contains(" died ")).count();
    assert!((1..=11).contains(&told), "{told} deaths are told one by one");
}
