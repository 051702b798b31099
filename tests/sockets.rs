//! Where it listens: addresses and socket files, taken, stale or free.

use std::fs::Permissions;
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::support::{Launch, Server, get_unix, skip, wait_until};

fn on_socket(path: &Path) -> Launch {
    Launch::regrow().args(["--processPool", "2"]).arg("--socketFile").arg(path).listening_elsewhere()
}

fn start_on(path: &Path) -> Server {
    on_socket(path).start()
}

#[test]
fn an_address_in_use_ends_the_start_with_1_and_a_remedy() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let launch = Launch::regrow().args(["--socketHost", "127.0.0.1", "--socketPort", &port]).listening_elsewhere();
    let mut server = launch.spawn();
    assert_eq!(server.exit_code(), 1);
    let line = server.wait_for_log("cannot listen on");
    assert!(line.contains(&format!("127.0.0.1:{port}")) && line.contains("already"), "{line}");
    assert!(line.contains("choose another socketPort"), "{line}");
}

#[test]
fn localhost_is_every_address_that_the_machine_has_for_it() {
    let launch = Launch::regrow().args(["--socketHost", "localhost", "--socketPort", "0"]).listening_elsewhere();
    let server = launch.start();
    let port = server.address().port();
    let line = server.wait_for_log("listening on");
    let mut tried = 0;
    for address in ("localhost", port).to_socket_addrs().unwrap() {
        // A family without an address cannot be bound to another port either.
        if TcpListener::bind((address.ip(), 0)).is_ok() {
            TcpStream::connect(address).unwrap_or_else(|cause| panic!("{address}: {cause}"));
            assert!(line.contains(&format!("http://{address}")), "{line}");
            tried += 1;
        }
    }
    assert!(tried > 0, "localhost has no address here");
}

#[test]
fn a_socket_file_serves_with_its_permissions_and_is_removed_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("site.sock");
    let mut server = on_socket(&path).args(["--socketFileMode", "0640"]).start();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(get_unix(&path, "/").unwrap().status, 200);
    server.wait_for_log(&format!("listening on unix:{}", path.display()));
    assert_eq!(server.stop(), 0);
    assert!(!path.exists());
    assert!(server.access_log().starts_with("unix: - - ["), "{}", server.access_log());
}

#[test]
fn curl_reads_from_a_socket_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("site.sock");
    let _server = start_on(&path);
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--fail", "--max-time", "20", "--unix-socket"]).arg(&path).arg("http://localhost/");
    let output = curl.output().expect("curl, which must be installed");
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("<html"));
}

#[test]
fn a_socket_file_that_a_killed_server_left_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("site.sock");
    let killed = start_on(&path);
    killed.tell(Signal::SIGKILL);
    drop(killed);
    assert!(path.exists(), "nobody could remove it");
    let server = wait_until("nobody listening", || {
        let refused = std::os::unix::net::UnixStream::connect(&path).is_err();
        refused.then(|| start_on(&path))
    });
    server.wait_for_log("replacing");
    assert_eq!(get_unix(&path, "/").unwrap().status, 200);
}

#[test]
fn a_socket_file_of_a_living_server_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("site.sock");
    let _alive = UnixListener::bind(&path).unwrap();
    let mut server = on_socket(&path).spawn();
    assert_eq!(server.exit_code(), 1);
    server.wait_for_log("a server already answers there");
    assert!(path.exists());
}

#[test]
fn a_second_server_on_a_socket_file_is_refused_with_1_and_takes_nothing_from_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("site.sock");
    let _first = start_on(&path);
    let mut second = on_socket(&path).spawn();
    assert_eq!(second.exit_code(), 1);
    assert_eq!(get_unix(&path, "/").unwrap().status, 200);
}

#[test]
fn a_worker_that_ends_leaves_the_socket_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("site.sock");
    let server = start_on(&path);
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let (mark, worker) = (server.log_mark(), server.worker_pids()[0]);
        server.signal(worker, signal);
        server.wait_for_log_after(mark, "(2 of 2 serve)");
        assert_eq!(get_unix(&path, "/").unwrap().status, 200);
    }
}

#[test]
fn a_server_leaves_the_socket_file_that_has_taken_the_place_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("site.sock");
    let mut first = start_on(&path);
    std::fs::rename(&path, folder.path().join("moved")).unwrap();
    let mut second = start_on(&path);
    assert_eq!(first.stop(), 0);
    assert_eq!(get_unix(&path, "/").unwrap().status, 200);
    assert_eq!(second.stop(), 0);
    assert!(!path.exists());
}

#[test]
fn a_start_that_fails_once_it_listens_leaves_no_socket_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("site.sock");
    for (how, exit_code, reason) in [("error", 3, "cannot start"), ("thread", 1, "it has 2 threads")] {
        let launch = Launch::example("faulty").env("FAULTY_START", how).arg("--socketFile").arg(&path);
        let mut server = launch.listening_elsewhere().spawn();
        assert_eq!(server.exit_code(), exit_code);
        server.wait_for_log(reason);
        assert!(!path.exists(), "{how}");
    }
}

#[test]
fn an_unknown_host_ends_the_start_with_2_and_a_remedy() {
    let launch = Launch::regrow().args(["--socketHost", "nowhere.invalid"]).listening_elsewhere();
    let mut server = launch.spawn();
    assert_eq!(server.exit_code(), 2);
    let line = server.wait_for_log("--socketHost nowhere.invalid: does not resolve");
    assert!(line.contains("name a host that this machine knows"), "{line}");
}

/// What an ordinary user is started through, where that is possible.
fn ordinary_user(test: &str) -> Option<[&'static str; 6]> {
    let become_user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];
    let may_run = Command::new(become_user[0]).args(&become_user[1..]).arg(env!("CARGO_BIN_EXE_regrow")).output();
    let may_run = may_run.is_ok_and(|output| output.status.code() == Some(2));
    if !may_run {
        skip(test, "another user cannot be, or cannot run the program where it was built");
    }
    may_run.then_some(become_user)
}

#[test]
fn a_port_for_root_ends_the_start_of_an_ordinary_user_with_2_and_a_remedy() {
    let first_free = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or_default();
    if first_free.trim() != "1024" {
        return skip("a port for root", "here ports below 1024 are not for root");
    }
    let Some(user) = ordinary_user("a port for root") else { return };
    let launch = Launch::regrow().args(["--socketPort", "80", "--accessLog", "off"]).through(&user);
    let mut server = launch.listening_elsewhere().spawn();
    assert_eq!(server.exit_code(), 2);
    let line = server.wait_for_log("--socketPort 80: to listen on a port below 1024 takes a privilege");
    assert!(line.contains("say 1024 or more") && line.contains("CAP_NET_BIND_SERVICE"), "{line}");
}

#[test]
fn a_socket_file_of_another_user_is_refused_for_its_permissions() {
    let Some(user) = ordinary_user("a socket file of another user") else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("site.sock");
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
    let left = UnixListener::bind(&path).unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    drop(left);
    let mut server = on_socket(&path).args(["--accessLog", "off"]).through(&user).spawn();
    assert_eq!(server.exit_code(), 1);
    server.wait_for_log("Permission denied");
    assert!(path.exists());
}

#[test]
fn a_plain_file_in_the_place_of_the_socket_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("precious");
    std::fs::write(&path, "precious").unwrap();
    let mut server = on_socket(&path).spawn();
    assert_ne!(server.exit_code(), 0);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}
