//! Upgrade: a new master of the binary on disk takes the place of the old one, and no client notices; or it does not, and
//! nothing has happened.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use nix::sys::signal::Signal;
use nix::unistd::Uid;
use serde_json::Value;

use crate::support::{
    Client, Connection, Launch, Load, Server, TlsClient, VERSIONS, all_children_of, children_of, descriptors_of,
    failed, get, get_unix, is_alive, obeyed, request, skip, wait_for_end, wait_until,
};

fn pool(app: &str, options: &[&str]) -> Launch {
    let launch =
        Launch::example(app).args(["--processPool", "2", "--socketQueueSize", "1024", "--pidFile", "site.pid"]);
    launch.options(options)
}

fn pid_in_file(server: &Server) -> i32 {
    let path = server.folder().join("site.pid");
    wait_until("a pid", || fs::read_to_string(&path).ok()?.trim_end().parse().ok())
}

/// Has a new master take over, and waits for the end of the old one.
fn upgrade(server: &mut Server) -> String {
    let (old, workers) = (server.pid(), server.worker_pids());
    let said = server.obey(&["upgrade"]);
    server.follow(heir_in(&said));
    wait_for_end(&workers);
    wait_for_end(&[old]);
    said
}

fn heir_in(said: &str) -> i32 {
    let pid = said.split("the new master pid=").nth(1).and_then(|rest| rest.split_whitespace().next());
    pid.and_then(|pid| pid.parse().ok()).unwrap_or_else(|| panic!("no pid in {said}"))
}

/// The master on the control socket.
fn master(server: &Server) -> i32 {
    let reply = get_unix(&server.control_socket(), "/status").unwrap();
    let said: Value = serde_json::from_slice(&reply.body).unwrap();
    i32::try_from(said["master"]["pid"].as_i64().unwrap()).unwrap()
}

/// An upgrade whose new workers are not ready before the file `fault` is gone. Returns the new master too.
fn begin_waiting_upgrade(server: &Server) -> (Child, i32) {
    fs::write(server.folder().join("fault"), "wait").unwrap();
    let mark = server.log_mark();
    let command = server.command(&["upgrade"]).spawn().unwrap();
    let heir = heir_in(&server.wait_for_log_after(mark, "upgrading: "));
    wait_until("workers that boot", || (children_of(heir).len() == 2).then_some(()));
    (command, heir)
}

fn let_it_boot(server: &Server) {
    fs::remove_file(server.folder().join("fault")).unwrap();
}

/// Nothing has happened to it: the same processes serve, and it alone is the master.
fn expect_unharmed(server: &Server, workers: &[i32]) {
    assert_eq!(server.worker_pids(), workers);
    assert_eq!((pid_in_file(server), master(server)), (server.pid(), server.pid()));
    assert_eq!(get(server.address(), "/who").unwrap().status, 200);
}

/// A program in the folder of the server.
fn program(server: &Server, name: &str, text: &str, mode: u32) -> PathBuf {
    let (text_file, path) = (server.folder().join("text"), server.folder().join(name));
    fs::write(&text_file, text).unwrap();
    copy(&text_file, &path);
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

/// Not by this process: a child that another test forks meanwhile would have the file open for writing, and nobody could
/// execute it.
fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").args([from, to]).status().unwrap().success());
}

#[test]
fn a_new_master_takes_over_and_the_old_one_leaves_when_its_requests_are_done() {
    let mut server = pool("testbed", &[]).start();
    let (old, workers) = (server.pid(), server.worker_pids());
    let open = || workers.iter().filter(|pid| is_alive(**pid)).map(|pid| descriptors_of(*pid).len()).sum::<usize>();
    let before = open();
    let mut idle: Vec<_> = (0..20).map(|_| Client::open(server.address())).collect();
    idle.iter_mut().for_each(|client| assert_eq!(client.get("/who").status, 200));
    let sign = server.folder().join("sign");
    let mut running = Client::open(server.address());
    running.send(request("GET", &format!("/slow?ms=2500&sign={}", sign.display())));
    wait_until("a handler that runs", || sign.exists().then_some(()));
    let said = server.obey(&["upgrade"]);
    assert!(said.contains("upgraded in "), "{said}");
    let heir = heir_in(&said);
    assert!(is_alive(old), "a request runs");
    wait_until("idle connections handed over", || (open() <= before).then_some(()));
    for client in &mut idle {
        let answer = client.get("/who");
        let pid: i32 = answer.text().trim_end().rsplit('=').next().unwrap().parse().unwrap();
        assert!(!workers.contains(&pid) && !answer.closes(), "{answer:?}");
    }
    wait_until("the pid file", || (pid_in_file(&server) == heir).then_some(()));
    assert_eq!(running.answer().text(), "slow");
    assert_eq!(server.exit_code(), 0);
    server.follow(heir);
    assert_eq!((pid_in_file(&server), master(&server)), (heir, heir));
    assert!(server.obey(&["scale", "3"]).contains("3 workers serve"));
    let told = server.obey(&["stop"]);
    assert!(told.contains("stopped"), "{told}");
    wait_for_end(&[heir]);
    assert!(!server.folder().join("site.pid").exists() && !server.control_socket().exists());
}

#[test]
fn usr2_does_the_same() {
    let mut server = pool("slow", &[]).start();
    let old = server.pid();
    server.tell(Signal::SIGUSR2);
    let heir = heir_in(&server.wait_for_log("upgraded in "));
    server.follow(heir);
    assert_eq!(server.exit_code(), 0);
    assert!(heir != old && pid_in_file(&server) == heir);
    assert_eq!(get(server.address(), "/").unwrap().status, 200);
}

#[test]
fn nobody_loses_anything_while_ten_masters_follow_each_other_and_nothing_is_left_of_them() {
    let mut server = pool("testbed", &["--statusPort", "0"]).start();
    let load = Load::on(server.address(), &["/quick/who", "/who", "/slow?ms=3"]);
    let balancer = ask_in_a_loop(server.status_address());
    let mut idle: Vec<_> = (0..10).map(|_| Client::open(server.address())).collect();
    upgrade(&mut server);
    let descriptors = server.descriptors();
    for _ in 0..9 {
        load.goes_on();
        upgrade(&mut server);
        idle.iter_mut().for_each(|client| assert!(!client.get("/quick/who").closes()));
        wait_until("no more descriptors than before", || (server.descriptors() <= descriptors).then_some(()));
    }
    load.end();
    balancer.end();
    assert_eq!(server.exit_code(), 0, "the first of them");
    assert_eq!(server.worker_pids().len(), 2);
    assert_eq!(all_children_of(server.pid()).len(), 3, "two workers and a reporter");
    expect_inherited_by_nobody(server.pid());
}

/// proc(5): each descriptor is closed where another program is executed.
fn expect_inherited_by_nobody(pid: i32) {
    const CLOSE_ON_EXEC: u32 = 0o2_000_000;
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap().flatten() {
        let info = fs::read_to_string(entry.path()).unwrap_or_default();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap_or_default();
        let number: u32 = entry.file_name().to_str().unwrap().parse().unwrap();
        let flags = u32::from_str_radix(flags.trim(), 8).unwrap_or(CLOSE_ON_EXEC);
        // Whoever started the server may have left it files.
        let is_socket = fs::read_link(format!("/proc/{pid}/fd/{number}"))
            .is_ok_and(|to| to.to_string_lossy().starts_with("socket:"));
        assert!(number <= 2 || !is_socket || flags & CLOSE_ON_EXEC != 0, "descriptor {number}: {info}");
    }
}

/// Somebody who asks all the time until told to end, and panics when there is no good answer.
struct Asking {
    over: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Asking {
    fn start(ask: impl Fn() + Send + 'static) -> Self {
        let over = Arc::<AtomicBool>::default();
        let told = Arc::clone(&over);
        let thread = thread::spawn(move || {
            while !told.load(Ordering::SeqCst) {
                ask();
            }
        });
        Self { over, thread }
    }

    fn end(self) {
        self.over.store(true, Ordering::SeqCst);
        self.thread.join().unwrap();
    }
}

fn ask_in_a_loop(status: std::net::SocketAddr) -> Asking {
    Asking::start(move || {
        for path in ["/readyz", "/healthz"] {
            let reply = get(status, path).unwrap_or_else(|why| panic!("{path}: {why}"));
            assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        }
    })
}

#[test]
fn a_socket_file_is_there_all_the_time_and_goes_with_the_last_master() {
    let launch = pool("testbed", &["--socketFile", "site.sock"]).listening_elsewhere();
    let path = launch.folder().join("site.sock");
    let mut server = launch.start();
    let inode = path.metadata().unwrap().ino();
    let there = path.clone();
    let looking = Asking::start(move || {
        assert_eq!(there.metadata().expect("always there").ino(), inode);
        assert_eq!(get_unix(&there, "/who").expect("nobody is refused").status, 200);
    });
    let mut kept = Connection::open_unix(&path).unwrap();
    assert_eq!(kept.get("/who").unwrap().status, 200);
    for _ in 0..3 {
        upgrade(&mut server);
        assert_eq!(kept.get("/who").unwrap().field("connection"), None);
    }
    looking.end();
    server.obey(&["stop"]);
    wait_until("no file", || (!path.exists()).then_some(()));
}

#[test]
fn connections_that_wait_in_the_kernel_are_answered_by_the_new_workers() {
    let mut server = pool("testbed", &[]).start();
    let workers = server.worker_pids();
    workers.iter().for_each(|&pid| server.signal(pid, Signal::SIGSTOP));
    let mut waiting: Vec<_> = (0..20).map(|_| Client::open(server.address())).collect();
    waiting.iter_mut().for_each(|client| client.send(request("GET", "/who")));
    let heir = heir_in(&server.obey(&["upgrade"]));
    waiting.iter_mut().for_each(|client| assert_eq!(client.answer().status, 200));
    workers.iter().for_each(|&pid| server.signal(pid, Signal::SIGCONT));
    assert_eq!(server.exit_code(), 0);
    server.follow(heir);
}

#[test]
fn tickets_of_tls_are_taken_by_the_new_workers() {
    for version in VERSIONS {
        let mut server = pool("testbed", &[]).tls("ec").start();
        let client = TlsClient::new(&[version]);
        assert!(!client.get(server.address(), "/who").1);
        upgrade(&mut server);
        let (said, resumed) = client.get(server.address(), "/who");
        assert!(said.starts_with("HTTP/1.1 200 ") && resumed, "{said}");
    }
}

#[test]
fn programs_that_are_no_new_master_change_nothing() {
    let mut server = pool("faulty", &["--startTimeout", "1s"]).start();
    let (workers, descriptors) = (server.worker_pids(), server.descriptors());
    let missing = server.folder().join("missing");
    let cases = [
        (missing, "No such file"),
        (program(&server, "plain", "#!/bin/sh\nexit 0\n", 0o644), "Permission denied"),
        (program(&server, "garbage", "\x7fELF", 0o755), "Exec format error"),
        (program(&server, "fails", "#!/bin/sh\nexit 1\n", 0o755), "exit code 1"),
        (program(&server, "done", "#!/bin/sh\nexit 0\n", 0o755), "exit code 0"),
        (program(&server, "hangs", "#!/bin/sh\nexec sleep 60\n", 0o755), "not ready within startTimeout=1s"),
    ];
    for (path, why) in &cases {
        let said = server.fail(&["upgrade", path.to_str().unwrap()]);
        assert!(said.contains(why) && said.contains("not upgraded, this master goes on"), "{why}: {said}");
        expect_unharmed(&server, &workers);
        assert!(server.log().contains(why), "the log says it too");
    }
    wait_until("nothing left", || (server.descriptors() <= descriptors).then_some(()));
    assert_eq!(all_children_of(server.pid()).len(), 3);
    upgrade(&mut server);
    assert_eq!(server.exit_code(), 0);
}

#[test]
fn a_new_master_whose_workers_cannot_boot_changes_nothing() {
    let mut server = pool("faulty", &["--startTimeout", "2s"]).start();
    let workers = server.worker_pids();
    for (fault, why) in
        [("error", "exit code 3 (its workers could not boot)"), ("panic", "exit code 3"), ("hang", "exit code 3")]
    {
        fs::write(server.folder().join("fault"), fault).unwrap();
        let said = server.fail(&["upgrade"]);
        assert!(said.contains(why), "{fault}: {said}");
        expect_unharmed(&server, &workers);
    }
    let_it_boot(&server);
    upgrade(&mut server);
    assert_eq!(server.exit_code(), 0);
}

#[test]
fn a_new_master_with_a_broken_configuration_changes_nothing() {
    let launch = pool("testbed", &["-c", "site.conf"]);
    fs::write(launch.folder().join("site.conf"), "").unwrap();
    let mut server = launch.start();
    let workers = server.worker_pids();
    server.configure("[limits]\nmaxUri = x\n");
    let said = server.fail(&["upgrade"]);
    assert!(said.contains("exit code 2 (wrong configuration or arguments)"), "{said}");
    assert!(server.log().contains("maxUri"), "{}", server.log());
    expect_unharmed(&server, &workers);
    server.configure("[limits]\nmaxUri = 1000\n");
    upgrade(&mut server);
    assert_eq!(server.exit_code(), 0);
}

#[test]
fn one_thing_at_a_time() {
    let mut server = pool("faulty", &[]).start();
    let (command, heir) = begin_waiting_upgrade(&server);
    let said = server.fail(&["upgrade"]);
    assert!(said.contains("an upgrade is under way"), "{said}");
    let said = server.fail(&["scale", "3"]);
    assert!(said.contains("a reload or an upgrade is under way"), "{said}");
    let reload = server.command(&["reload"]).spawn().unwrap();
    server.wait_for_log("the reload begins when");
    let_it_boot(&server);
    assert_eq!(heir_in(&obeyed(&command.wait_with_output().unwrap())), heir);
    let said = failed(&reload.wait_with_output().unwrap());
    assert!(said.contains("upgraded meanwhile"), "{said}");
    server.follow(heir);
    assert_eq!(server.exit_code(), 0);
    assert!(server.obey(&["reload"]).contains("generation 2"));
}

#[test]
fn an_upgrade_during_a_reload_is_refused() {
    let server = pool("faulty", &[]).start();
    fs::write(server.folder().join("fault"), "wait").unwrap();
    let reload = server.command(&["reload"]).spawn().unwrap();
    server.wait_for_log("reloading: generation 2");
    let said = server.fail(&["upgrade"]);
    assert!(said.contains("a reload is under way"), "{said}");
    let_it_boot(&server);
    obeyed(&reload.wait_with_output().unwrap());
}

#[test]
fn a_stop_during_an_upgrade_ends_both_masters() {
    let mut server = pool("faulty", &[]).start();
    let (command, heir) = begin_waiting_upgrade(&server);
    let booting = children_of(heir);
    assert_eq!(server.stop(), 0);
    wait_for_end(&[&booting[..], &[heir]].concat());
    let said = failed(&command.wait_with_output().unwrap());
    assert!(said.contains("the server was stopped meanwhile"), "{said}");
}

#[test]
fn a_new_master_that_is_killed_before_it_is_ready_changes_nothing() {
    let server = pool("faulty", &[]).start();
    let workers = server.worker_pids();
    let (command, heir) = begin_waiting_upgrade(&server);
    let booting = children_of(heir);
    server.signal(heir, Signal::SIGKILL);
    let said = failed(&command.wait_with_output().unwrap());
    assert!(said.contains("ended before it was ready: signal 9 (KILL)"), "{said}");
    wait_for_end(&booting);
    expect_unharmed(&server, &workers);
}

#[test]
fn an_old_master_that_is_killed_leaves_all_to_the_new_one_that_boots() {
    let mut server = pool("faulty", &["--statusPort", "0", "--socketFile", "site.sock"]).listening_elsewhere().start();
    let path = server.folder().join("site.sock");
    let workers = server.worker_pids();
    let (_command, heir) = begin_waiting_upgrade(&server);
    server.tell(Signal::SIGKILL);
    wait_for_end(&workers);
    let_it_boot(&server);
    server.follow(heir);
    wait_until("its pid", || (pid_in_file(&server) == heir).then_some(()));
    wait_until("its control socket", || get_unix(&server.control_socket(), "/status").ok());
    assert_eq!(master(&server), heir);
    assert_eq!(get_unix(&path, "/").unwrap().status, 200);
    assert_eq!(get(server.status_address(), "/readyz").unwrap().status, 200);
    server.obey(&["stop"]);
    wait_for_end(&[heir]);
    assert!(!path.exists());
}

#[test]
fn what_a_master_inherits_is_no_secret_to_its_workers_and_their_programs() {
    let mut server = pool("testbed", &[]).start();
    upgrade(&mut server);
    assert_eq!(get(server.address(), "/variable?name=REGROWN_FROM").unwrap().text(), "false");
    assert_eq!(get(server.address(), "/variable?name=PATH").unwrap().text(), "true");
}

#[test]
fn process_1_is_not_upgraded() {
    if !Uid::effective().is_root() {
        return skip("process_1_is_not_upgraded", "it takes root to be process 1");
    }
    let launch = pool("slow", &[]).through(&["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]);
    let server = launch.start();
    let said = server.fail(&["upgrade"]);
    assert!(said.contains("process 1"), "{said}");
    assert_eq!(get(server.address(), "/").unwrap().status, 200);
}

#[test]
fn a_binary_that_was_replaced_on_disk_is_the_one_that_runs_then() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("site");
    let example = |name: &str| Path::new(env!("CARGO_BIN_EXE_regrow")).with_file_name("examples").join(name);
    copy(&example("faulty"), &program);
    let mut server = pool("faulty", &[]).program(&program).start();
    assert!(get(server.address(), "/").unwrap().text().starts_with("worker="));
    copy(&example("slow"), &folder.path().join("next"));
    fs::rename(folder.path().join("next"), &program).unwrap();
    upgrade(&mut server);
    assert!(get(server.address(), "/").unwrap().text().starts_with('{'));
}
