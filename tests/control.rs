//! Commands to a running server: over the control socket with any client, and with `regrow`; the pid file; and what dead
//! masters leave of both.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{
    Client, Connection, Launch, MODES, PATIENCE, Server, curl, descriptors_of, get, is_alive, request, wait_until,
};

fn regrow() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_regrow"));
    command.env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// A command that no single worker can obey.
fn scale(socket: &Path) -> Output {
    regrow().args(["scale", "3", "--controlSocket"]).arg(socket).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// That a command has reached the master, which does not obey.
fn expect_refusal(output: &Output) {
    assert_eq!(output.status.code(), Some(1), "{}", stderr(output));
    assert!(stderr(output).starts_with("regrow: scale: ") && output.stdout.is_empty(), "{}", stderr(output));
    assert!(!stderr(output).contains("the connection ended"), "{}", stderr(output));
}

fn ask(socket: &Path, how: &[&str], path: &str) -> (u16, Value) {
    let socket = socket.to_str().unwrap();
    let url = format!("http://localhost{path}");
    let output = curl(&[how, &["--silent", "--unix-socket", socket, "-w", "\n%{http_code}", &url]].concat());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n').unwrap_or_else(|| panic!("{output:?}"));
    (status.parse().unwrap(), serde_json::from_str(body).unwrap_or_else(|why| panic!("{why}: {text}")))
}

#[test]
fn any_http_client_of_the_owner_can_command_and_hears_the_outcome() {
    let mut server = Launch::regrow().start();
    let socket = server.control_socket();
    assert_eq!(socket, server.folder().join(format!("127.0.0.1-{}.sock", server.address().port())));
    assert_eq!(socket.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let (status, said) = ask(&socket, &["-d", r#"{"workers": 3}"#], "/scale");
    assert_eq!((status, &said["ok"]), (409, &Value::Bool(false)), "{said}");
    assert!(said["message"].as_str().is_some_and(|message| !message.is_empty()), "{said}");
    let (status, said) = ask(&socket, &[], "/status");
    assert_eq!((status, &said["master"]["pid"]), (200, &server.pid().into()), "{said}");
    assert_eq!(ask(&socket, &["-d", "{"], "/stop").0, 400);
    assert_eq!(ask(&socket, &["-d", "{}"], "/scale").0, 400);
    assert_eq!(ask(&socket, &[], "/stop").0, 405);
    assert_eq!(ask(&socket, &["-d", ""], "/healthz").0, 404);
    assert_eq!(get(server.address(), "/").unwrap().status, 200);
    assert_eq!(server.stop(), 0);
    assert!(!socket.exists());
    assert_eq!(server.access_log().lines().count(), 1, "the log is for clients of the site");
}

#[test]
fn a_command_finds_the_server_as_serve_was_told_where_to_be() {
    let server = Launch::regrow().start();
    let (folder, port) = (server.folder(), server.address().port().to_string());
    let at = ["scale", "3", "--socketHost", "127.0.0.1", "--socketPort", &port];
    expect_refusal(&regrow().args(at).env("RUNTIME_DIRECTORY", folder).output().unwrap());
    let by_variables = [("REGROW_socketHost", "127.0.0.1"), ("REGROW_socketPort", &port)];
    expect_refusal(
        &regrow()
            .args(&at[..2])
            .envs(by_variables)
            .env("XDG_RUNTIME_DIR", "/nowhere")
            .env("RUNTIME_DIRECTORY", folder)
            .output()
            .unwrap(),
    );
    let file = folder.join("site.conf");
    fs::write(&file, format!("[server]\nsocketHost = 127.0.0.1\nsocketPort = {port}\n")).unwrap();
    expect_refusal(&regrow().args(["scale", "3", "-c"]).arg(&file).env("RUNTIME_DIRECTORY", folder).output().unwrap());
    // Whoever forgets to say which one is told which there are; and never is another one taken for it.
    let lost = regrow().args(["scale", "3", "--socketPort", "1"]).env("RUNTIME_DIRECTORY", folder).output().unwrap();
    assert_eq!(lost.status.code(), Some(1));
    let said = stderr(&lost);
    assert!(said.contains("localhost-1.sock (no such file)") && said.contains("is it running?"), "{said}");
    assert!(said.contains(&format!("There are: {}", server.control_socket().display())), "{said}");
}

#[test]
fn a_broken_configuration_is_no_obstacle_unless_it_is_about_the_place() {
    let launch = Launch::regrow().args(["-c", "site.conf"]);
    let file = launch.folder().join("site.conf");
    fs::write(&file, "[supervisor]\ncontrolSocket = here.sock\n").unwrap();
    let server = launch.start();
    let scale = || regrow().args(["scale", "3", "-c"]).arg(&file).output().unwrap();
    expect_refusal(&scale());
    fs::write(&file, "[server]\nsocketPort = x\n[limits]\nmaxUri = x\n[supervisor]\ncontrolSocket = here.sock\n")
        .unwrap();
    expect_refusal(&scale());
    for broken in [
        "[supervisor]\ncontrolsocket = here.sock\n",
        "[superviser]\ncontrolSocket = here.sock\n",
        "[server]\nsocketPort = 80a\n",
    ] {
        fs::write(&file, broken).unwrap();
        let output = scale();
        assert_eq!(output.status.code(), Some(2), "{broken}");
        let said = stderr(&output);
        assert!(said.contains("site.conf:") && said.contains("say --controlSocket"), "{broken}: {said}");
    }
    fs::remove_file(&file).unwrap();
    assert_eq!(scale().status.code(), Some(2), "it might have said where");
    let here = server.folder().join("here.sock");
    expect_refusal(&regrow().args(["scale", "3", "-c"]).arg(&file).arg("--controlSocket").arg(here).output().unwrap());
}

#[test]
fn a_command_without_a_server_says_where_it_looked_and_exits_1() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("c.sock");
    for (left, word) in [(false, "no such file"), (true, "nobody listens any more")] {
        if left {
            drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        }
        for command in [&["reload"][..], &["stop", "--now"], &["reopen"], &["upgrade", "regrow"], &["scale", "2"]] {
            let output = regrow().args(command).arg("--controlSocket").arg(&socket).output().unwrap();
            let said = stderr(&output);
            assert_eq!(output.status.code(), Some(1), "{command:?}: {said}");
            assert!(said.contains(&socket.display().to_string()) && said.contains(word), "{command:?}: {said}");
            assert!(said.contains("is it running?"), "{said}");
        }
    }
}

#[test]
fn a_command_that_makes_no_sense_exits_2() {
    for args in [&["scale"][..], &["scale", "two"], &["scale", "-1"], &["reload", "public"], &["stop", "--nwo"]] {
        assert_eq!(regrow().args(args).output().unwrap().status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn applications_and_all_modes_take_commands() {
    for (mode, options) in MODES {
        let mut server = Launch::example("slow").options(options).start();
        let (status, said) = ask(&server.control_socket(), &[], "/status");
        assert_eq!((status, &said["master"]["pid"]), (200, &server.pid().into()), "{mode}");
        assert_eq!(server.stop(), 0, "{mode}");
    }
}

#[test]
fn nothing_that_comes_through_the_network_can_command() {
    let server = Launch::regrow().args(["--statusPort", "0"]).start();
    let status = server.status_address();
    for path in ["/stop", "/reload", "/scale", "/upgrade", "/reopen", "/status"] {
        let mut client = Client::open(status);
        let body = r#"{"now": true}"#;
        client.send(format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nForwarded: for=unix\r\nX-Forwarded-For: unix:\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        assert_eq!(client.answer().status, 404, "{path}");
    }
    let mut client = Client::open(status);
    client.send("PROXY UNKNOWN\r\nPOST /stop HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.answer().status, 400);
    assert_eq!(Client::open(status).get("/readyz").status, 200);
    assert!(!server.log().contains("stopping"));
}

#[test]
fn clients_that_say_nothing_or_anything_disturb_neither_the_master_nor_balancers() {
    let server = Launch::regrow().args(["--statusPort", "0", "--processPool", "2"]).start();
    let (socket, reporter) = (server.control_socket(), server.reporter_pid());
    let silent: Vec<_> = (0..300)
        .map_while(|_| {
            let stream = UnixStream::connect(&socket).ok()?;
            stream.set_nonblocking(true).ok()?;
            // What there is no room for waits in the queue of the listener, and fills it.
            (&stream).write_all(b"POST /stop HTTP/1.1\r\nContent-Le").ok().map(|()| stream)
        })
        .collect();
    assert!(silent.len() > 64, "{}", silent.len());
    for _ in 0..20 {
        assert_eq!(Client::open(server.status_address()).get("/readyz").status, 200);
    }
    assert_eq!(get(server.address(), "/").unwrap().status, 200);
    drop(silent);
    for garbage in [&[0; 10_000][..], b"\r\n\r\n\r\n", b"POST /stop HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00"] {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // It may be answered, and closed, before it is whole.
        let _ = stream.write_all(garbage).and_then(|()| stream.shutdown(std::net::Shutdown::Write));
        let ended = stream.read_to_end(&mut Vec::new());
        assert!(!matches!(&ended, Err(cause) if cause.kind() == ErrorKind::WouldBlock), "{ended:?}");
    }
    let big = format!("POST /scale HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", 65 << 10);
    let mut client = Connection::open_unix(&socket).unwrap();
    client.send(big.as_bytes()).unwrap();
    assert_eq!(client.answer().unwrap().status, 413);
    assert_eq!(ask(&socket, &[], "/status").0, 200);
    assert_eq!(server.reporter_pid(), reporter);
    assert_eq!(server.worker_pids().len(), 2);
}

#[test]
fn a_command_whose_reporter_is_killed_says_so_and_the_next_is_answered() {
    let server = Launch::regrow().start();
    let (socket, reporter) = (server.control_socket(), server.reporter_pid());
    let before = descriptors_of(reporter).len();
    // A master that does not come to read its question keeps it open.
    server.tell(Signal::SIGSTOP);
    let mut command = regrow();
    let command = command.args(["scale", "3", "--controlSocket"]).arg(&socket).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("its connection accepted", || (descriptors_of(reporter).len() > before).then_some(()));
    server.signal(reporter, Signal::SIGKILL);
    let output = command.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("the connection ended before the outcome was known"), "{}", stderr(&output));
    server.tell(Signal::SIGCONT);
    server.wait_for_log(&format!("the reporter pid={reporter} ended with signal 9 (KILL); replacing it"));
    expect_refusal(&scale(&socket));
    assert_eq!(get(server.address(), "/").unwrap().status, 200);
}

#[test]
fn a_command_whose_client_leaves_is_forgotten() {
    let server = Launch::regrow().start();
    let socket = server.control_socket();
    for _ in 0..200 {
        let mut client = Connection::open_unix(&socket).unwrap();
        client.send(b"POST /scale HTTP/1.1\r\nHost: x\r\nContent-Length: 13\r\n\r\n{\"workers\":3}").unwrap();
    }
    expect_refusal(&scale(&socket));
}

#[test]
fn two_servers_of_one_folder_do_not_meet() {
    let first = Launch::regrow().start();
    let second = Launch::regrow().env("RUNTIME_DIRECTORY", first.folder()).start();
    let of_socket = Launch::regrow().env("RUNTIME_DIRECTORY", first.folder()).args(["--socketFile", "site.sock"]);
    let third = of_socket.listening_elsewhere().start();
    for server in [&first, &second, &third] {
        let socket = server.control_socket();
        assert_eq!(socket.parent(), Some(first.folder()));
        assert_eq!(ask(&socket, &[], "/status").1["master"]["pid"], server.pid());
    }
}

#[test]
fn a_control_socket_of_a_living_master_is_refused_and_left_alone() {
    let first = Launch::regrow().start();
    let socket = first.control_socket();
    let mut second = Launch::regrow().arg("--controlSocket").arg(&socket).spawn();
    assert_eq!(second.exit_code(), 1);
    let line = second.wait_for_log("cannot listen on controlSocket=");
    assert!(line.contains("already answers there"), "{line}");
    assert_eq!(ask(&socket, &[], "/status").1["master"]["pid"], first.pid());
}

fn with_pid_file(path: &Path) -> Launch {
    Launch::example("slow").arg("--pidFile").arg(path)
}

#[test]
fn a_pid_file_has_the_pid_of_the_master_until_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("site.pid");
    let mut server = with_pid_file(&path).start();
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", server.pid()));
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o644);
    // That its children end takes nothing of the lock.
    server.signal(server.worker_pids()[0], Signal::SIGKILL);
    server.wait_for_log("gen=1 pid=");
    server.signal(server.reporter_pid(), Signal::SIGKILL);
    server.wait_for_log("replacing it");
    let mut second = with_pid_file(&path).spawn();
    assert_eq!(second.exit_code(), 1);
    let line = second.wait_for_log("already running");
    assert!(
        line.contains(&format!("already running as pid {} (pidFile = {})", server.pid(), path.display())),
        "{line}"
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", server.pid()));
    assert_eq!(server.stop(), 0);
    assert!(!path.exists());
}

#[test]
fn a_pid_that_another_process_has_now_is_no_obstacle() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("site.pid");
    fs::write(&path, format!("{}\n", std::process::id())).unwrap();
    let server = with_pid_file(&path).start();
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", server.pid()));
}

#[test]
fn a_pid_file_that_is_something_else_ends_the_start_with_1_and_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("precious");
    fs::write(&path, "precious").unwrap();
    let mut server = with_pid_file(&path).spawn();
    assert_eq!(server.exit_code(), 1);
    server.wait_for_log("it holds something else than a pid");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn what_a_killed_master_leaves_is_no_obstacle_even_while_its_worker_lives() {
    let folder = tempfile::tempdir().unwrap();
    let (pid_file, socket) = (folder.path().join("site.pid"), folder.path().join("site.control"));
    let launch = || with_pid_file(&pid_file).arg("--controlSocket").arg(&socket);
    let killed = launch().start();
    let worker = killed.worker_pids()[0];
    let mut slow = Client::open(killed.address());
    slow.send(request("GET", "/?ms=3000"));
    wait_until("a busy worker", || (ask(&socket, &[], "/status").1["loops"]["busy"] == 1).then_some(()));
    killed.tell(Signal::SIGKILL);
    let next = launch().start();
    assert!(is_alive(worker), "it finishes what it does");
    assert_eq!(fs::read_to_string(&pid_file).unwrap(), format!("{}\n", next.pid()));
    let (status, said) = ask(&socket, &[], "/status");
    assert_eq!((status, &said["master"]["pid"]), (200, &next.pid().into()), "{said}");
    expect_refusal(&scale(&socket));
    assert_eq!(slow.answer().status, 200);
    wait_until("the end of the worker", || (!is_alive(worker)).then_some(()));
    assert!(pid_file.exists() && socket.exists(), "the worker removes nothing");
    expect_still_locked(&pid_file, &next);
}

fn expect_still_locked(path: &Path, by: &Server) {
    let mut second = with_pid_file(path).spawn();
    assert_eq!(second.exit_code(), 1);
    second.wait_for_log(&format!("already running as pid {}", by.pid()));
}
