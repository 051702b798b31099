//! Starts that fail, wholly or in part, and the first process of a container.

use std::fs;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{Launch, LimitedUser, all_children_of, children_of, get, skip, wait_until};

fn failing(how: &str) -> Launch {
    Launch::example("faulty").args(["--processPool", "2"]).env("FAULTY_START", how)
}

#[test]
fn the_start_says_the_mode_and_what_production_would_want() {
    for (mode, words) in [
        ("--forking=1", "a new process for each request, at most 256 at once"),
        ("--threading=1", "a new thread for each request, at most 256 at once"),
        ("--processPool=2", "a process pool of 2 workers"),
        ("--threadPool=2", "a thread pool of 2 threads, beside "),
    ] {
        let server = Launch::regrow().arg(mode).args(["--maxThreads", "256", "--maxProcesses", "256"]).start();
        server.wait_for_log(words);
        let queue = server.wait_for_log("socketQueueSize = 5 ");
        assert!(queue.contains("say socketQueueSize = 1024"), "{queue}");
        server.wait_for_log(" is not used: it is for ");
    }
    let server = Launch::regrow().start();
    server.wait_for_log("a single worker, for development: one request after the other");
    server.wait_for_log("in production say processPool = 2 or more");
    assert!(!server.log().contains("socketQueueSize"), "{}", server.log());
}

#[test]
fn a_site_that_cannot_be_built_ends_the_start_with_3_and_the_reason() {
    let mut server = failing("error").spawn();
    assert_eq!(server.exit_code(), 3);
    server.wait_for_log("cannot build the site: the database is asleep");
    let end = server.wait_for_log("cannot start: every worker failed 3 times before it was ready");
    assert!(end.contains("exit code 1"), "{end}");
    assert!(server.log().contains("its reason: cannot build the site: the database is asleep"));
}

#[test]
fn a_site_that_panics_ends_the_start_with_3_and_the_message() {
    let mut server = failing("panic").spawn();
    assert_eq!(server.exit_code(), 3);
    let death = server.wait_for_log("died before it was ready: exit code 101");
    assert!(death.contains("its reason: panic at") && death.contains("no such table"), "{death}");
}

#[test]
fn a_site_that_exits_ends_the_start_with_3_and_its_code() {
    let mut server = failing("exit").spawn();
    assert_eq!(server.exit_code(), 3);
    server.wait_for_log("died before it was ready: exit code 7");
}

#[test]
fn a_site_that_hangs_ends_the_start_with_3_after_start_timeout() {
    let mut server = failing("hang").args(["--startTimeout", "400ms"]).spawn();
    assert_eq!(server.exit_code(), 3);
    let end = server.wait_for_log("cannot start: no worker was ready within startTimeout=400ms");
    assert!(end.contains(" error master pid="), "{end}");
}

#[test]
fn a_slot_that_fails_backs_off_while_the_others_serve() {
    let server = failing("error").env("FAULTY_SLOT", "1").spawn();
    for pause in ["100ms", "200ms", "400ms"] {
        server.wait_for_log(&format!("before it was ready: next attempt in {pause}"));
        let reply = get(server.address(), "/").expect("an answer");
        assert!(reply.text().starts_with("worker=0 "), "{}", reply.text());
    }
}

#[test]
fn a_slot_that_hangs_is_killed_after_start_timeout_while_the_others_serve() {
    let server = failing("hang").env("FAULTY_SLOT", "1").args(["--startTimeout", "300ms"]).spawn();
    server.wait_for_log("was killed, because it was not ready within startTimeout");
    assert_eq!(get(server.address(), "/").expect("an answer").status, 200);
}

#[test]
fn as_the_first_process_of_a_container_it_reaps_orphans_and_stops_on_term() {
    let namespace = ["unshare", "--pid", "--fork", "--mount-proc"];
    let allowed = Command::new(namespace[0]).args(&namespace[1..]).arg("true").output();
    if !allowed.is_ok_and(|output| output.status.success()) {
        return skip("the first process of a container", "`unshare --pid` is not permitted here");
    }
    let mut server = Launch::example("faulty").args(["--processPool", "2"]).through(&namespace).start();
    server.wait_for_log("master pid=1: ");
    let master = children_of(server.pid())[0];
    assert_eq!(get(server.address(), "/orphan").expect("an answer").status, 200);
    let orphans = || all_children_of(master).into_iter().filter(|&pid| name_of(pid) == "sleep").count();
    wait_until("the orphan adopted", || (orphans() == 1).then_some(()));
    wait_until("the orphan reaped", || (orphans() == 0).then_some(()));
    assert_eq!(all_children_of(master).len(), 3, "two workers, and who answers commands");
    kill(Pid::from_raw(master), Signal::SIGTERM).expect("a master to stop");
    assert_eq!(server.exit_code(), 0);
}

fn name_of(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

#[test]
fn a_fork_that_fails_is_tried_again_while_the_others_serve() {
    let Some(user) = LimitedUser::new("a fork that fails") else { return };
    let server = Launch::regrow().args(["--processPool", "2", "--accessLog", "off"]).through(&user.wrapper()).start();
    // The master, and one worker with its thread.
    user.allow_processes(server.pid(), 3);
    kill(Pid::from_raw(server.worker_pids()[0]), Signal::SIGKILL).expect("a worker to die");
    let line = server.wait_for_log("could not be forked");
    assert!(line.contains("next attempt in") && line.contains("the others go on"), "{line}");
    assert_eq!(get(server.address(), "/").expect("an answer").status, 200);
    user.allow_processes(server.pid(), 64);
    server.wait_until_complete(0);
}
