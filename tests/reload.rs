//! Reload: a new generation serves by the new configuration, and no client notices; or it does not come, and nothing has
//! happened.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command};

use nix::sys::signal::Signal;
use nix::unistd::Uid;
use rustls::version::TLS13;

use crate::support::{
    Authority, Client, Connection, Launch, Load, MODES, Server, TlsClient, VERSIONS, all_children_of, descriptors_of,
    failed, get, get_unix, obeyed, request, skip, wait_for_end, wait_until,
};

/// The configuration of a pool at any port, with more options.
fn pool(more: &str) -> String {
    format!("[server]\nsocketHost = 127.0.0.1\nsocketPort = 0\nsocketQueueSize = 1024\nprocessPool = 2\n{more}\n")
}

/// At this port.
fn at(port: u16, more: &str) -> String {
    pool(more).replace("socketPort = 0", &format!("socketPort = {port}"))
}

/// The same in another mode.
fn in_mode(options: &[&str]) -> String {
    match options {
        [name, value] => pool("").replace("processPool = 2", &format!("{} = {value}", name.trim_start_matches('-'))),
        _ => pool("").replace("processPool = 2", ""),
    }
}

fn start(app: &str, configuration: &str) -> Server {
    Launch::example(app).configured(configuration).start()
}

fn site(configuration: &str) -> Launch {
    let launch = Launch::regrow();
    for folder in ["one", "two"] {
        fs::create_dir(launch.folder().join(folder)).unwrap();
        fs::write(launch.folder().join(folder).join("index.html"), folder).unwrap();
    }
    launch.configured(configuration)
}

/// A port that is free now.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Reloads, and waits until the workers before have left.
fn reload(server: &Server, configuration: &str) -> String {
    server.configure(configuration);
    let before = server.worker_pids();
    let said = server.obey(&["reload"]);
    wait_for_end(&before);
    said
}

/// A reload whose workers are not ready before the file `fault` is gone.
fn begin_waiting_reload(server: &Server) -> Child {
    fs::write(server.folder().join("fault"), "wait").unwrap();
    let workers = server.worker_pids().len();
    let command = server.command(&["reload"]).spawn().unwrap();
    wait_until("workers that boot", || (server.worker_pids().len() == 2 * workers).then_some(()));
    command
}

fn let_them_boot(server: &Server) {
    fs::remove_file(server.folder().join("fault")).unwrap();
}

#[test]
fn new_values_take_effect_by_command_and_by_signal() {
    let server = site(&pool("[staticContent]\n/ = one")).start();
    let mut client = Client::open(server.address());
    assert_eq!(client.get("/").text(), "one");
    let said = reload(&server, &pool("[staticContent]\n/ = two\n[files]\ncacheControl = no-store"));
    assert!(said.contains("2 workers of generation 2 serve"), "{said}");
    let answer = client.get("/");
    assert_eq!((answer.text().as_str(), answer.field("cache-control")), ("two", Some("no-store")));
    server.configure(&pool("[staticContent]\n/ = one"));
    server.tell(Signal::SIGHUP);
    server.wait_for_log("2 workers of generation 3 serve");
    let answer = client.get("/");
    assert_eq!((answer.text().as_str(), answer.field("cache-control")), ("one", None));
    assert!(!answer.closes());
}

#[test]
fn nobody_loses_anything_while_the_mode_changes() {
    let server = start("testbed", &pool(""));
    let load = Load::on(server.address(), &["/quick/who", "/who", "/slow?ms=3"]);
    let mut idle: Vec<_> = (0..10).map(|_| Client::open(server.address())).collect();
    idle.iter_mut().for_each(|client| assert_eq!(client.get("/quick/who").status, 200));
    for (n, (mode, options)) in MODES.iter().chain(MODES.iter().rev()).enumerate() {
        let sign = server.folder().join(format!("sign{n}"));
        let mut running = Client::open(server.address());
        running.send(request("GET", &format!("/slow?ms=300&sign={}", sign.display())));
        wait_until("a handler that runs", || sign.exists().then_some(()));
        reload(&server, &in_mode(options));
        assert_eq!(running.answer().text(), "slow", "{mode}");
        load.goes_on();
        for client in &mut idle {
            let answer = client.get("/quick/who");
            assert!(answer.status == 200 && !answer.closes(), "{mode}: {answer:?}");
        }
    }
    load.end();
}

#[test]
fn requests_that_wait_between_the_workers_of_a_pool_are_answered_in_every_mode_that_follows() {
    for (mode, options) in MODES {
        let server = start("testbed", &pool(""));
        let workers = server.worker_pids();
        let open = || workers.iter().map(|&pid| descriptors_of(pid).len()).sum::<usize>();
        let mut kept: Vec<_> = (0..10).map(|_| Client::open(server.address())).collect();
        kept.iter_mut().for_each(|client| assert_eq!(client.get("/quick/who").status, 200));
        let signs = [0, 1].map(|n| server.folder().join(format!("sign{n}")));
        let _busy = signs.each_ref().map(|sign| {
            let mut client = Client::open(server.address());
            client.send(request("GET", &format!("/slow?ms=3000&sign={}", sign.display())));
            wait_until("a handler that runs", || sign.exists().then_some(()));
            client
        });
        let before = open();
        kept.iter_mut().for_each(|client| client.send(request("GET", "/who")));
        wait_until("all of them in the queue", || (open() <= before - kept.len()).then_some(()));
        server.configure(&in_mode(options));
        server.obey(&["reload"]);
        for client in &mut kept {
            let answer = client.answer();
            let pid: i32 = answer.text().trim_end().rsplit('=').next().unwrap().parse().unwrap();
            assert!(!workers.contains(&pid), "{mode}: {}", answer.text());
        }
    }
}

#[test]
fn a_certificate_that_was_exchanged_is_shown_and_tickets_of_before_are_taken() {
    let exchange = |folder: &Path, kind: &str| {
        for end in ["key", "pem"] {
            fs::copy(Authority::here().file(&format!("{kind}.{end}")), folder.join(format!("site.{end}"))).unwrap();
        }
    };
    let shown = |server: &Server| {
        let stream = TlsClient::new(&[&TLS13]);
        let mut stream = stream.connect(server.address());
        stream.conn.complete_io(&mut stream.sock).unwrap();
        stream.conn.peer_certificates().unwrap()[0].to_vec()
    };
    let launch = Launch::example("testbed");
    exchange(launch.folder(), "ec");
    let configuration = pool("sslKeyFile = site.key\nsslCertificateFile = site.pem");
    let server = launch.configured(&configuration).start();
    let before = shown(&server);
    let clients = VERSIONS.map(|version| TlsClient::new(&[version]));
    clients.iter().for_each(|client| assert!(!client.get(server.address(), "/who").1));
    exchange(server.folder(), "p384");
    assert_eq!(shown(&server), before, "not before it is reloaded");
    reload(&server, &configuration);
    assert_ne!(shown(&server), before);
    for client in clients {
        let (said, resumed) = client.get(server.address(), "/who");
        assert!(said.starts_with("HTTP/1.1 200 ") && resumed, "{said}");
    }
}

#[test]
fn a_port_becomes_https_and_http_again_while_kept_connections_go_on() {
    let server = start("testbed", &pool(""));
    let file = |end: &str| Authority::here().file(end).display().to_string();
    let tls = pool(&format!("sslKeyFile = {}\nsslCertificateFile = {}", file("ec.key"), file("ec.pem")));
    let mut kept = Client::open(server.address());
    assert!(kept.get("/client").text().ends_with("https false\nfield host: test\n"));
    let client = TlsClient::new(&VERSIONS);
    for _ in 0..2 {
        reload(&server, &tls);
        assert!(client.get(server.address(), "/client").0.contains("https true"));
        assert!(kept.get("/client").text().contains("https false"));
        assert_eq!(Client::open(server.address()).get("/client").status, 400);
        reload(&server, &pool(""));
        assert!(Client::open(server.address()).get("/client").text().contains("https false"));
        assert!(kept.get("/client").text().contains("https false"));
    }
}

#[test]
fn logs_go_where_the_new_configuration_says() {
    let logs = |name: &str| pool(&format!("[log]\naccessLog = {name}.access\nerrorLog = {name}.error\nlevel = debug"));
    let server = start("testbed", &pool("[log]\naccessLog = off"));
    let read = |name: &str| fs::read_to_string(server.folder().join(name)).unwrap_or_default();
    for name in ["one", "two"] {
        reload(&server, &logs(name));
        get(server.address(), format!("/{name}")).unwrap();
        wait_until("a line", || read(&format!("{name}.access")).contains(&format!("GET /{name} ")).then_some(()));
        get(server.address(), "/panic").unwrap();
        wait_until("a line", || read(&format!("{name}.error")).contains("a mistake of the handler").then_some(()));
    }
    assert_eq!(read("one.access").lines().count(), 2, "no more than was asked meanwhile");
    assert!(!read("one.access").contains("/two") && !server.log().contains("a mistake of the handler"));
}

#[test]
fn another_port_serves_and_whoever_waits_at_the_old_one_is_answered() {
    let [old, new] = [free_port(), free_port()];
    let server = start("faulty", &at(old, ""));
    let mut kept = Client::open(local(old));
    assert_eq!(kept.get("/").status, 200);
    server.configure(&at(new, ""));
    let workers = server.worker_pids();
    let command = begin_waiting_reload(&server);
    let mut early = Client::open(local(new));
    early.send(request("GET", "/"));
    assert_eq!(Client::open(local(old)).get("/").status, 200, "nothing has changed yet");
    workers.iter().for_each(|&pid| server.signal(pid, Signal::SIGSTOP));
    let mut waiting: Vec<_> = (0..20).map(|_| Client::open(local(old))).collect();
    waiting.iter_mut().for_each(|client| client.send(request("GET", "/")));
    let silent = Client::open(local(old));
    let_them_boot(&server);
    obeyed(&command.wait_with_output().unwrap());
    assert_eq!(early.answer().status, 200);
    workers.iter().for_each(|&pid| server.signal(pid, Signal::SIGCONT));
    waiting.iter_mut().for_each(|client| assert_eq!(client.answer().status, 200));
    drop(silent);
    wait_for_end(&workers);
    wait_until("nobody at the old port", || std::net::TcpStream::connect(local(old)).is_err().then_some(()));
    assert_eq!(kept.get("/").status, 200, "its connection was handed over");
    assert_eq!(get(local(new), "/").unwrap().status, 200);
    assert_eq!(get_unix(&server.control_socket(), "/status").unwrap().status, 200);
}

#[test]
fn another_socket_file_takes_the_place_of_the_old_one() {
    let file = |name: &str| format!("[server]\nsocketFile = {name}\nprocessPool = 2\n");
    let server = start("testbed", &file("one.sock"));
    let path = |name: &str| server.folder().join(name);
    let mut kept = Connection::open_unix(&path("one.sock")).unwrap();
    for (old, new) in [("one.sock", "two.sock"), ("two.sock", "one.sock")] {
        reload(&server, &file(new));
        assert!(!path(old).exists());
        assert_eq!(get_unix(&path(new), "/who").unwrap().status, 200);
        assert_eq!(kept.get("/who").unwrap().field("connection"), None);
    }
    server.configure(&(file("three.sock") + "[limits]\nmaxUri = x\n"));
    server.fail(&["reload"]);
    assert!(!path("three.sock").exists() && path("one.sock").exists());
    server.obey(&["stop"]);
    assert!(!path("one.sock").exists());
}

#[test]
fn the_status_listener_comes_moves_and_goes() {
    let status = |port: u16| pool(&format!("[status]\nstatusPort = {port}"));
    let [first, second] = [free_port(), free_port()];
    let server = start("testbed", &pool(""));
    reload(&server, &status(first));
    assert_eq!(get(local(first), "/readyz").unwrap().status, 200);
    reload(&server, &status(second));
    assert_eq!(get(local(second), "/readyz").unwrap().status, 200);
    wait_until("nobody at the old port", || get(local(first), "/readyz").is_err().then_some(()));
    reload(&server, &pool(""));
    wait_until("nobody at any port", || get(local(second), "/readyz").is_err().then_some(()));
    assert_eq!(get_unix(&server.control_socket(), "/status").unwrap().status, 200);
}

#[test]
fn another_user_and_a_longer_queue_take_effect_and_go_again() {
    if !Uid::effective().is_root() {
        return skip("another_user_and_a_longer_queue", "only root can have workers of another user");
    }
    let server = start("testbed", &pool(""));
    let users = || server.worker_pids().iter().map(|pid| user_of(*pid)).collect::<Vec<_>>();
    let queue = || {
        let filter = format!("sport = :{}", server.address().port());
        let output = Command::new("ss").args(["-ltnH", &filter]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        said.split_whitespace().nth(2).map(ToOwned::to_owned)
    };
    let nobody = user_id("nobody");
    assert!(users() == [0, 0] && queue().as_deref() == Some("1024"));
    reload(&server, &pool("[supervisor]\nuser = nobody").replace("1024", "77"));
    assert!(users() == [nobody, nobody] && queue().as_deref() == Some("77"), "{:?} {:?}", users(), queue());
    assert_eq!(get(server.address(), "/who").unwrap().status, 200);
    reload(&server, &pool(""));
    assert!(users() == [0, 0] && queue().as_deref() == Some("1024"));
}

fn user_of(pid: i32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
    ids.split_whitespace().next().unwrap().parse().unwrap()
}

fn user_id(name: &str) -> u32 {
    nix::unistd::User::from_name(name).unwrap().unwrap().uid.as_raw()
}

#[test]
fn what_only_a_restart_changes_is_said() {
    let server = start("testbed", &pool(""));
    let mark = server.log_mark();
    let socket = server.control_socket();
    reload(&server, &pool("[supervisor]\npidFile = site.pid\ncontrolSocket = other.sock"));
    for name in ["pidFile", "controlSocket"] {
        server.wait_for_log_after(mark, &format!("{name} has changed, which takes effect when Regrow is started anew"));
    }
    assert!(!server.folder().join("site.pid").exists() && !server.folder().join("other.sock").exists());
    assert_eq!(get_unix(&socket, "/status").unwrap().status, 200);
}

/// Nothing has happened to it.
fn expect_unharmed(server: &Server, workers: &[i32], path: &str) {
    wait_until("none but the workers before", || (server.worker_pids() == workers).then_some(()));
    assert_eq!(get(server.address(), path).unwrap().status, 200);
}

#[test]
fn a_configuration_that_is_wrong_changes_nothing_and_all_is_told() {
    let server = site(&pool("[staticContent]\n/ = one")).start();
    let workers = server.worker_pids();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken_port = taken.local_addr().unwrap().port();
    let file = |name: &str| Authority::here().file(name).display().to_string();
    let cases: [(String, &[&str]); 6] = [
        (pool("[limits]\nmaxUri = x\n[files]\nlisting = 7\nnonsense = 1"), &["maxUri", "listing", "nonsense"]),
        ("[server\n".to_owned(), &["site.conf:1"]),
        (pool("[staticContent]\n/ = three"), &["three"]),
        (at(taken_port, ""), &["another process already listens there"]),
        (pool("[log]\nerrorLog = nowhere/error.log"), &["errorLog", "nowhere"]),
        (pool(&format!("sslKeyFile = {}\nsslCertificateFile = {}", file("ec.key"), file("rsa.pem"))), &["sslKeyFile"]),
    ];
    for (configuration, words) in &cases {
        server.configure(configuration);
        let mark = server.log_mark();
        let said = server.fail(&["reload"]);
        assert!(said.contains("generation 1 goes on"), "{said}");
        for word in *words {
            assert!(said.contains(word) && server.log()[mark..].contains(word), "{word}: {said}");
        }
        expect_unharmed(&server, &workers, "/");
    }
    fs::remove_file(server.folder().join("site.conf")).unwrap();
    assert!(server.fail(&["reload"]).contains("site.conf"));
    server.tell(Signal::SIGHUP);
    expect_unharmed(&server, &workers, "/");
    reload(&server, &pool("[staticContent]\n/ = two"));
    assert_eq!(get(server.address(), "/").unwrap().text(), "two");
}

#[test]
fn workers_that_cannot_boot_change_nothing() {
    let port = free_port();
    let configuration = at(port, "[supervisor]\nstartTimeout = 2s");
    let server = start("faulty", &configuration);
    let workers = server.worker_pids();
    let other = free_port();
    let cases = [
        ("error", "the database is asleep"),
        ("panic", "no such table"),
        ("exit", "exit code 7"),
        ("hang", "0 of 2 workers were ready within startTimeout=2s"),
    ];
    for (fault, why) in cases {
        server.configure(&at(other, "[supervisor]\nstartTimeout = 2s"));
        fs::write(server.folder().join("fault"), fault).unwrap();
        let mark = server.log_mark();
        let said = server.fail(&["reload"]);
        assert!(said.contains("generation 1 goes on"), "{fault}: {said}");
        assert!(server.log()[mark..].contains(why), "{fault}: {said}");
        expect_unharmed(&server, &workers, "/");
        assert!(std::net::TcpStream::connect(local(other)).is_err(), "nobody listens there");
    }
    let_them_boot(&server);
    server.configure(&at(port, "[supervisor]\nhealthPath = /panic"));
    let said = server.fail(&["reload"]);
    assert!(said.contains("a worker failed 3 times before it was ready"), "{said}");
    assert!(server.log().contains("healthPath = /panic answered 500"));
    expect_unharmed(&server, &workers, "/");
    reload(&server, &configuration);
}

#[test]
fn sixty_reloads_good_and_bad_leave_nothing_behind() {
    let port = free_port();
    let server = start("testbed", &at(port, ""));
    let bad = TcpListener::bind("127.0.0.1:0").unwrap();
    let bad = at(bad.local_addr().unwrap().port(), "");
    let good = |n: u16| at(port, &format!("[status]\nstatusPort = 0\n[limits]\nmaxUri = {}", 1000 + n));
    reload(&server, &good(0));
    let descriptors = server.descriptors();
    let load = Load::on(local(port), &["/quick/who", "/who"]);
    for n in 0..30 {
        reload(&server, &good(n));
        server.configure(&bad);
        server.fail(&["reload"]);
    }
    load.end();
    wait_until("no more descriptors than before", || (server.descriptors() <= descriptors).then_some(()));
    assert_eq!(all_children_of(server.pid()).len(), 3, "two workers and a reporter");
}

#[test]
fn reloads_that_come_while_one_runs_are_one() {
    let server = start("faulty", &pool(""));
    let first = begin_waiting_reload(&server);
    for _ in 0..20 {
        server.tell(Signal::SIGHUP);
    }
    let mark = server.log_mark();
    let others: Vec<_> = (0..5).map(|_| server.command(&["reload"]).spawn().unwrap()).collect();
    wait_until("all of them heard", || {
        (server.log()[mark..].matches("the reload begins when").count() >= 5).then_some(())
    });
    let_them_boot(&server);
    assert!(obeyed(&first.wait_with_output().unwrap()).contains("generation 2"));
    for other in others {
        assert!(obeyed(&other.wait_with_output().unwrap()).contains("generation 3"));
    }
    assert!(server.obey(&["reload"]).contains("generation 4"));
}

#[test]
fn a_stop_ends_a_reload_that_hangs() {
    let mut server = start("faulty", &pool(""));
    let command = begin_waiting_reload(&server);
    let workers = server.worker_pids();
    assert_eq!(server.stop(), 0);
    assert!(failed(&command.wait_with_output().unwrap()).contains("the server was stopped meanwhile"));
    wait_for_end(&workers);
}

#[test]
fn workers_that_are_killed_during_a_reload_are_replaced_in_their_generation() {
    let server = start("faulty", &pool(""));
    let old = server.worker_pids();
    let command = begin_waiting_reload(&server);
    let new: Vec<_> = server.worker_pids().into_iter().filter(|pid| !old.contains(pid)).collect();
    server.signal(new[0], Signal::SIGKILL);
    server.wait_for_log(&format!("gen=2 pid={} died before it was ready", new[0]));
    // It waits for the file as well.
    wait_until("another new one", || (server.worker_pids().len() == 4).then_some(()));
    let_them_boot(&server);
    assert!(obeyed(&command.wait_with_output().unwrap()).contains("2 workers of generation 2 serve"));
    wait_for_end(&old);
    assert_eq!(server.worker_pids().len(), 2);
}

#[test]
fn an_old_worker_that_dies_while_new_ones_boot_is_replaced() {
    let launch = Launch::example("faulty").env("FAULTY_SLOT", "1").configured(&pool(""));
    let server = launch.start();
    let old = server.worker_pids();
    fs::write(server.folder().join("fault"), "wait").unwrap();
    let command = server.command(&["reload"]).spawn().unwrap();
    server.wait_for_log("gen=2 pid=");
    let first =
        old.iter().copied().find(|pid| server.log().contains(&format!("worker=0 gen=1 pid={pid} ready"))).unwrap();
    let mark = server.log_mark();
    server.signal(first, Signal::SIGKILL);
    let line = server.wait_for_log_after(mark, " ready (");
    assert!(line.contains("worker=0 gen=1") && line.contains("2 of 2 serve"), "{line}");
    let_them_boot(&server);
    obeyed(&command.wait_with_output().unwrap());
}

#[test]
fn a_reload_after_all_were_retired_brings_workers() {
    let server = start("testbed", &pool(""));
    let mut kept = Client::open(server.address());
    server.tell(Signal::SIGWINCH);
    wait_until("no worker", || server.worker_pids().is_empty().then_some(()));
    kept.send(request("GET", "/who"));
    server.tell(Signal::SIGHUP);
    server.wait_for_log("2 workers of generation 2 serve");
    assert_eq!(kept.answer().status, 200);
    assert_eq!(server.worker_pids().len(), 2);
}
