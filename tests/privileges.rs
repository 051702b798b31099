//! `user`, `group` and `umask`: workers become somebody else for good, and the master does for them what only root may.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use nix::unistd::{Group, Uid, User};

use crate::support::{
    Authority, Client, Launch, Server, TlsClient, VERSIONS, children_of, is_alive, pattern, post, request, skip,
    wait_until,
};

/// Whether this machine lets the test show it.
fn is_root(test: &str) -> bool {
    let is_root = Uid::effective().is_root();
    if !is_root {
        skip(test, "only root can have workers that run as another user");
    }
    is_root
}

fn nobody() -> User {
    User::from_name("nobody").unwrap().expect("every system has nobody")
}

/// A line of /proc/PID/status (proc(5)), its blanks made one.
fn status(pid: i32, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
    line.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

fn four(id: u32) -> String {
    format!("{id} {id} {id} {id}")
}

/// That a process has this user and these groups, and no way to more.
fn expect_powerless(pid: i32, user: u32, group: u32) {
    for (name, wanted) in [("Uid", four(user)), ("Gid", four(group)), ("Groups", group.to_string())] {
        assert_eq!(status(pid, name), wanted, "{name} of {pid}");
    }
    for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status(pid, name), "0000000000000000", "{name} of {pid}");
    }
    assert_eq!(status(pid, "NoNewPrivs"), "1", "of {pid}");
}

/// Other users may enter the folder that a test has.
fn open_to_all(folder: &Path) {
    fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
}

/// The exit code of `regrow check` in this folder, and what it says.
fn check(folder: &Path, wrapper: &[&str], args: &[&str]) -> (Option<i32>, String) {
    let words = [wrapper, &[env!("CARGO_BIN_EXE_regrow"), "check"], args].concat();
    let output = Command::new(words[0]).args(&words[1..]).current_dir(folder).output().unwrap();
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

#[test]
fn workers_and_the_reporter_become_the_user_for_good_and_the_master_stays_root() {
    if !is_root("workers of another user") {
        return;
    }
    let nobody = nobody();
    for mode in [["--processPool", "2"], ["--threadPool", "2"], ["--threading", "1"]] {
        let launch = Launch::example("testbed").args(mode).args(["--user", "nobody", "--statusPort", "0"]);
        let server = launch.start();
        let children = wait_until("workers and the reporter", || {
            let children = [server.worker_pids(), vec![server.reporter_pid()]].concat();
            (children.len() == if mode[0] == "--processPool" { 3 } else { 2 }).then_some(children)
        });
        for pid in children {
            wait_until("nobody", || (status(pid, "NoNewPrivs") == "1").then_some(()));
            expect_powerless(pid, nobody.uid.as_raw(), nobody.gid.as_raw());
            // What others of this user may not look into is root's (proc(5)).
            if fs::read_to_string("/proc/sys/fs/suid_dumpable").is_ok_and(|says| says.trim() == "0") {
                assert_eq!(fs::metadata(format!("/proc/{pid}/mem")).unwrap().uid(), 0);
            }
        }
        assert_eq!(status(server.pid(), "Uid"), four(0));
        assert_eq!(Client::open(server.address()).get("/who").status, 200, "{mode:?}");
        Client::open(server.status_address()).get("/healthz");
        assert!(!server.log().contains("run as root"), "{}", server.log());
    }
}

#[test]
fn a_worker_that_grows_back_is_the_users_too_and_so_is_the_process_of_a_request() {
    if !is_root("a process of another user") {
        return;
    }
    let nobody = nobody();
    let server = Launch::example("slow").args(["--forking", "1", "--user", "nobody"]).start();
    let (first, mark) = (server.worker_pids()[0], server.log_mark());
    server.signal(first, Signal::SIGKILL);
    server.wait_until_complete(mark);
    let worker = server.worker_pids()[0];
    expect_powerless(worker, nobody.uid.as_raw(), nobody.gid.as_raw());
    let mut client = Client::open(server.address());
    client.send(request("GET", "/?ms=500"));
    let process = wait_until("a process for the request", || children_of(worker).first().copied());
    expect_powerless(process, nobody.uid.as_raw(), nobody.gid.as_raw());
    assert_eq!(client.answer().status, 200);
}

#[test]
fn the_group_can_be_another_and_user_and_group_can_be_numbers_that_nobody_has() {
    if !is_root("workers of a number") {
        return;
    }
    let group = Group::from_name("daemon").unwrap().expect("every system has daemon").gid.as_raw();
    let server = Launch::regrow().args(["--user", "nobody", "--group", "daemon"]).start();
    expect_powerless(server.worker_pids()[0], nobody().uid.as_raw(), group);
    let server = Launch::regrow().args(["--user", "3999999", "--group", "3999998"]).start();
    expect_powerless(server.worker_pids()[0], 3_999_999, 3_999_998);
}

#[test]
fn a_group_alone_leaves_root_what_it_can_do() {
    if !is_root("workers of another group") {
        return;
    }
    let server = Launch::regrow().args(["--group", "daemon"]).start();
    let (worker, master) = (server.worker_pids()[0], server.pid());
    let group = Group::from_name("daemon").unwrap().expect("every system has daemon").gid.as_raw();
    assert_eq!([status(worker, "Uid"), status(worker, "Gid")], [four(0), four(group)]);
    assert_eq!(status(worker, "CapEff"), status(master, "CapEff"));
    server.wait_for_log("workers run as root and may do anything on this machine");
}

#[test]
fn what_only_root_may_read_and_bind_is_there_for_workers_of_another_user() {
    if !is_root("a port, a key and a log for root") {
        return;
    }
    let Some(port) = (700..1024).find(|&port| TcpListener::bind(("127.0.0.1", port)).is_ok()) else {
        return skip("a port, a key and a log for root", "no port below 1024 can be had");
    };
    let launch = Launch::regrow();
    let [logs, key] = ["logs", "site.key"].map(|name| launch.folder().join(name));
    fs::create_dir(&logs).unwrap();
    fs::set_permissions(&logs, Permissions::from_mode(0o700)).unwrap();
    let log = logs.join("access.log");
    fs::write(&log, "").unwrap();
    fs::set_permissions(&log, Permissions::from_mode(0o640)).unwrap();
    fs::copy(Authority::here().file("rsa.key"), &key).unwrap();
    fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    let launch = launch.args(["--user", "nobody", "--socketHost", "127.0.0.1", "--socketPort", &port.to_string()]);
    let launch = launch.arg("--sslKeyFile").arg(key).arg("--sslCertificateFile").arg(Authority::here().file("rsa.pem"));
    let mut server = launch.arg("--accessLog").arg(&log).listening_elsewhere().start();
    let (said, _) = TlsClient::new(&VERSIONS).get(server.address(), "/");
    assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
    assert_eq!(server.stop(), 0);
    assert_eq!(fs::read_to_string(log).unwrap().lines().count(), 1);
}

#[test]
fn large_bodies_are_kept_by_workers_of_another_user() {
    if !is_root("bodies of another user") {
        return;
    }
    let launch = Launch::example("testbed").args(["--processPool", "2", "--user", "nobody", "--bodyInMemory", "1k"]);
    let server = launch.start();
    let mut client = Client::open(server.address());
    client.send(post("/body", &pattern(100_000)));
    assert!(client.answer().text().starts_with("100000 100000 "));
}

#[test]
fn a_file_that_the_user_may_not_read_is_forbidden_and_a_closed_folder_is_noted() {
    if !is_root("files closed to a user") {
        return;
    }
    let launch = Launch::regrow();
    let (folder, site) = (launch.folder().to_owned(), launch.folder().join("site"));
    open_to_all(&folder);
    fs::create_dir(&site).unwrap();
    open_to_all(&site);
    for (name, mode) in [("open.txt", 0o644), ("other.txt", 0o644), ("closed.txt", 0o600)] {
        fs::write(site.join(name), name).unwrap();
        fs::set_permissions(site.join(name), Permissions::from_mode(mode)).unwrap();
    }
    let (code, said) = check(&folder, &[], &["site", "--user", "nobody"]);
    assert!(code == Some(0) && !said.contains("may not read") && !said.contains("as root"), "{said}");
    let server = launch.arg(&site).args(["--user", "nobody"]).start();
    let mut client = Client::open(server.address());
    assert_eq!((client.get("/open.txt").status, client.get("/closed.txt").status), (200, 403));
    fs::set_permissions(&site, Permissions::from_mode(0o700)).unwrap();
    let (code, said) = check(&folder, &[], &["site", "--user", "nobody"]);
    assert_eq!(code, Some(0), "{said}");
    let note = format!("note: user = nobody (--user) may not read and enter {} (Permission denied", site.display());
    assert!(said.contains(&note) && said.contains("let it (chgrp, chmod)"), "{said}");
    assert_eq!(client.get("/other.txt").status, 403);
}

#[test]
fn a_worker_of_another_user_that_boots_dies_with_its_master() {
    if !is_root("a worker that boots") {
        return;
    }
    let launch = Launch::example("faulty").env("FAULTY_START", "hang").args(["--user", "nobody"]);
    let mut server = launch.spawn();
    let worker = wait_until("a worker", || server.worker_pids().first().copied());
    // It has set that before it takes signals (`SigBlk` of proc(5)), and then builds its site.
    wait_until("a worker that builds its site", || {
        let (user, blocked) = (status(worker, "Uid"), status(worker, "SigBlk"));
        (user == four(nobody().uid.as_raw()) && blocked.bytes().all(|digit| digit == b'0')).then_some(())
    });
    server.tell(Signal::SIGKILL);
    wait_until("the end of the worker", || (!is_alive(worker)).then_some(()));
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| server.exit_code())).is_err(), "killed");
}

#[test]
fn an_account_that_cannot_be_ends_check_and_start_with_2_where_it_was_said_and_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    open_to_all(folder.path());
    for (said, wanted) in [
        ("user = no-such-user", "user = no-such-user: no such user; make that user first"),
        ("group = no-such-group", "group = no-such-group: no such group; make that group first"),
        ("user = 3999999", "user = 3999999: this number has no name, so its group is not known; say group too"),
        ("user = 4294967295\ngroup = 0", "user = 4294967295: no such user; "),
    ] {
        fs::write(folder.path().join("site.conf"), format!("[supervisor]\n{said}\n")).unwrap();
        let (code, found) = check(folder.path(), &[], &["-c", "site.conf"]);
        assert!(code == Some(2) && found.contains(&format!("site.conf:2: {wanted}")), "{found}");
    }
    let mut server = Launch::regrow().args(["--user", "no-such-user"]).spawn();
    assert_eq!(server.exit_code(), 2);
}

#[test]
fn who_is_not_root_can_only_be_himself() {
    if !is_root("a master of another user") {
        return;
    }
    let nobody = nobody();
    let [user, group] = [nobody.uid.to_string(), nobody.gid.to_string()];
    let wrapper = ["setpriv", "--reuid", &user, "--regid", &group, "--clear-groups"];
    for args in [["--user", "root"], ["--user", "www-data"], ["--group", "root"]] {
        let (code, said) = check(Path::new("/"), &wrapper, &args);
        if code == Some(126) || code == Some(127) {
            return skip("a master of another user", "it cannot run the program where it was built");
        }
        assert_eq!(code, Some(2), "{args:?}: {said}");
        let wanted = format!(
            "{} {}: only root can have workers that run as somebody else; start regrow as root",
            args[0], args[1]
        );
        assert!(said.contains(&wanted), "{said}");
    }
    let launch = Launch::regrow().args(["--user", "nobody", "--accessLog", "off"]).through(&wrapper);
    let server = launch.start();
    let worker = server.worker_pids()[0];
    assert_eq!([status(worker, "Uid"), status(worker, "NoNewPrivs")], [four(nobody.uid.as_raw()), "1".to_owned()]);
}

#[test]
fn a_root_that_could_not_become_the_user_or_not_stop_its_workers_is_told_so_before_it_starts() {
    if !is_root("a root that lacks capabilities") {
        return;
    }
    for (lacks, wanted) in [
        ("-setuid", "--user nobody: a worker cannot become that (Operation not permitted"),
        ("-setgid", "--user nobody: a worker cannot become that (Operation not permitted"),
        ("-kill", "--user nobody: root lacks a capability here, and the master could not stop its workers; "),
    ] {
        let (code, said) = check(Path::new("/"), &["setpriv", "--bounding-set", lacks], &["--user", "nobody"]);
        assert!(code == Some(2) && said.contains(wanted), "{lacks}: {said}");
    }
    // Some containers leave root the capabilities that it takes, and not this one.
    let launch = Launch::regrow().args(["--user", "nobody"]).through(&["setpriv", "--bounding-set", "-setpcap"]);
    let mut server = launch.start();
    assert_eq!(status(server.worker_pids()[0], "CapPrm"), "0000000000000000");
    assert_eq!(server.stop(), 0);
}

#[test]
fn root_is_told_that_its_workers_may_do_anything() {
    if !is_root("workers of root") {
        return;
    }
    let (code, said) = check(Path::new("/"), &[], &[]);
    assert!(code == Some(0) && said.contains("note: workers run as root and may do anything"), "{said}");
    assert!(said.contains("say user = www-data"), "{said}");
    let (code, said) = check(Path::new("/"), &[], &["--user", "root"]);
    assert!(code == Some(0) && said.contains("note: user = root (--user): workers may do anything"), "{said}");
    let server: Server = Launch::regrow().args(["--user", "root"]).start();
    server.wait_for_log("user = root (--user): workers may do anything on this machine");
}

#[test]
fn a_umask_holds_for_logs_and_workers() {
    let launch = Launch::regrow().args(["--umask", "0077"]);
    let server = launch.start();
    let mode = fs::metadata(server.folder().join("access.log")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(status(server.worker_pids()[0], "Umask"), "0077");
}
