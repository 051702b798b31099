use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::config::{File, Sources};

/// A configuration file in `folder`.
fn config(folder: &Path, text: &str) -> Config {
    let file = Some(File { name: "f".into(), folder: folder.into(), bytes: text.into() });
    Config::resolve(&Sources { file, ..Sources::default() }).unwrap()
}

fn plain(text: &str) -> Config {
    config(Path::new("/"), text)
}

#[test]
fn a_place_that_is_in_order_has_no_mistakes_and_nothing_is_left_behind() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("public")).unwrap();
    fs::write(folder.path().join("old.log"), "kept").unwrap();
    let text = "[server]\nsocketFile = s\n[staticContent]\n/ = public\n[log]\nerrorLog = new.log\naccessLog = old.log";
    assert_eq!(mistakes(&config(folder.path(), text)), []);
    let mut left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["old.log", "public"]);
    assert_eq!(fs::read(folder.path().join("old.log")).unwrap(), b"kept");
}

#[test]
fn everything_that_is_missing_is_said_at_once_and_where() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    let text = "[server]\nsocketFile = file\n[staticContent]\n/f = no\n/ = file\n[log]\nerrorLog = no/e.log\n\
        accessLog = .";
    let found = mistakes(&config(folder.path(), text));
    let found: Vec<_> = found.iter().map(|m| (m.origin.to_string(), &*m.wrong.problem)).collect();
    let places: Vec<_> = found.iter().map(|(place, _)| &**place).collect();
    assert_eq!(places, ["f:4", "f:5", "f:2", "f:7", "f:8"]);
    assert_eq!(found[0].1, "no such folder or file");
    assert_eq!(found[1].1, "not a folder");
    assert_eq!(found[2].1, "exists and is no socket");
    assert!(found[3].1.starts_with("no file can be made in "));
    assert_eq!(found[4].1, "is a folder");
}

#[test]
fn a_folder_without_permission_is_a_mistake_unless_we_are_root() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o000)).unwrap();
    let root = privileges::is_root();
    assert_eq!(readable(folder.path(), "/a").is_ok(), root);
    assert_eq!(writable_folder(&folder.path().join("x")).is_ok(), root);
    fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn addresses_resolve_and_a_reserved_name_does_not() {
    assert_eq!(resolvable("127.0.0.1", 80), Ok(()));
    assert_eq!(resolvable("0.0.0.0", 80), Ok(()));
    assert!(resolvable("192.0.2.1", 80).is_err(), "an address of nobody (RFC 5737)");
    assert!(resolvable("nowhere.invalid", 80).is_err());
}

#[test]
fn a_single_worker_is_for_development() {
    assert!(development(&plain("")).is_some());
    for mode in ["forking = 1", "threading = 1", "processPool = 2", "threadPool = 2"] {
        assert!(development(&plain(&format!("[server]\n{mode}"))).is_none(), "{mode}");
    }
}

#[test]
fn production_wants_a_longer_queue_than_the_documented_default() {
    for mode in ["forking = 1", "threading = 1", "processPool = 2", "threadPool = 2"] {
        let small = plain(&format!("[server]\n{mode}"));
        assert!(small_queue(&small, Some(4096)).unwrap().ends_with("say socketQueueSize = 1024"), "{mode}");
        assert!(small_queue(&small, Some(128)).unwrap().ends_with("sysctl -w net.core.somaxconn=1024"), "{mode}");
        let enough = plain(&format!("[server]\n{mode}\nsocketQueueSize = 128"));
        assert!(small_queue(&enough, Some(128)).is_none(), "{mode}");
    }
    assert!(small_queue(&plain("[server]\nforking = 0"), Some(128)).is_none());
}

#[test]
fn a_queue_above_the_kernels_is_capped() {
    let config = plain("[server]\nsocketQueueSize = 1024");
    assert!(capped_queue(&config, Some(128)).unwrap().contains("capped at 128"));
    assert!(capped_queue(&config, Some(1024)).is_none());
    assert!(capped_queue(&config, None).is_none());
}

#[test]
fn a_low_port_needs_a_privilege() {
    let user = Privileges { first_free_port: 1024, may_bind_any: false };
    let root = Privileges { first_free_port: 1024, may_bind_any: true };
    assert!(privileged_port(80, &user).is_some());
    assert!(privileged_port(80, &root).is_none());
    assert!(privileged_port(1024, &user).is_none());
    assert!(privileged_port(0, &user).is_none());
}

#[test]
fn the_status_listener_is_judged_like_that_of_the_site() {
    let mistakes = |text: &str| mistakes(&plain(text)).iter().map(ToString::to_string).collect::<Vec<_>>();
    for host in ["localhost", "127.0.0.1", "0.0.0.0"] {
        let same = mistakes(&format!("[server]\nsocketHost = {host}\nsocketPort = 8123\n[status]\nstatusPort = 8123"));
        assert!(
            same[0].contains("statusPort = 8123") && same[0].contains("the site listens there"),
            "{host}: {same:?}"
        );
    }
    let apart = "[server]\nsocketHost = 127.0.0.2\nsocketPort = 8123\n[status]\nstatusPort = 8123";
    assert_eq!(mistakes(apart), [""; 0]);
    let nowhere = mistakes("[status]\nstatusHost = no-such-host.invalid\nstatusPort = 8123");
    assert!(nowhere[0].contains("statusHost = no-such-host.invalid"), "{nowhere:?}");
    assert_eq!(mistakes("[status]\nstatusHost = no-such-host.invalid"), [""; 0], "there is no such listener");
    let noted = |text: &str, word: &str| notes(&plain(text)).iter().any(|note| note.contains(word));
    assert!(noted("[status]\nstatusHost = 127.0.0.1", "not used: statusPort"));
    assert!(noted("[status]\nstatusHost = 0.0.0.0\nstatusPort = 1", "firewall"));
    assert!(!noted("[status]\nstatusPort = 1", "firewall"));
}

#[test]
fn the_effective_set_tells_whether_low_ports_are_allowed() {
    assert_eq!(
        has_capability("CapPrm:\t0000000000000400\nCapEff:\t0000000000000400\n", CAP_NET_BIND_SERVICE),
        Some(true)
    );
    assert_eq!(
        has_capability("CapPrm:\t0000000000000400\nCapEff:\t0000000000000000\n", CAP_NET_BIND_SERVICE),
        Some(false)
    );
    assert_eq!(has_capability("CapEff:\tx\n", CAP_NET_BIND_SERVICE), None);
    assert_eq!(has_capability("", CAP_NET_BIND_SERVICE), None);
}

#[test]
fn connections_need_descriptors() {
    let config = plain("[limits]\nmaxConnections = 4096");
    assert!(few_descriptors(&config, Some(4096)).unwrap().contains("4608 descriptors"));
    assert!(few_descriptors(&config, Some(4608)).is_none());
    assert!(few_descriptors(&config, None).is_none());
}

#[test]
fn a_process_or_a_thread_for_each_request_needs_a_user_who_may_have_so_many() {
    let forking = plain("[server]\nforking = 1");
    assert!(few_processes(&forking, Some(256)).unwrap().starts_with("maxProcesses = 256, but this user may have 256 "));
    assert!(few_processes(&forking, Some(257)).is_none());
    assert!(few_processes(&forking, None).is_none());
    let threading = plain("[server]\nthreading = 1\n[limits]\nmaxThreads = 9");
    assert!(few_processes(&threading, Some(8)).unwrap().starts_with("maxThreads = 9, but this user may have 8 "));
    assert!(few_processes(&plain(""), Some(1)).is_none());
}

#[test]
fn a_limit_of_another_mode_is_said_to_be_unused() {
    let cases: [(&str, &[&str]); 5] = [
        ("forking = 1", &["maxThreads (f:5)", "handlerThreads (f:6)"]),
        ("threading = 1", &["maxProcesses (f:4)", "handlerThreads (f:6)"]),
        ("processPool = 2", &["maxProcesses (f:4)", "maxThreads (f:5)"]),
        ("threadPool = 2", &["maxProcesses (f:4)", "maxThreads (f:5)", "handlerThreads (f:6)"]),
        ("threading = 0", &["maxProcesses (f:4)", "maxThreads (f:5)", "handlerThreads (f:6)"]),
    ];
    for (mode, unused) in cases {
        let limits = "[limits]\nmaxProcesses = 9\nmaxThreads = 9\nhandlerThreads = 9";
        let found: Vec<_> = unused_limits(&plain(&format!("[server]\n{mode}\n{limits}"))).collect();
        let named: Vec<_> =
            found.iter().filter_map(|note| note.split_once(" is not used")).map(|(name, _)| name).collect();
        assert_eq!(named, unused, "{mode}");
        assert_eq!(unused_limits(&plain(&format!("[server]\n{mode}"))).count(), 0, "{mode}");
    }
    let found: Vec<_> = unused_limits(&plain("[limits]\nmaxProcesses = 9")).collect();
    assert_eq!(found, ["maxProcesses (f:2) is not used: it is for forking = 1"]);
}

#[test]
fn a_host_beside_a_socket_file_is_said_to_be_unused() {
    assert!(unused_host(&plain("[server]\nsocketFile = /s\nsocketHost = x")).is_some());
    assert!(unused_host(&plain("[server]\nsocketFile = /s")).is_none());
}

#[test]
fn a_server_in_front_that_anybody_can_be_is_said() {
    assert!(anybody_in_front(&plain("[proxy]\nproxyProtocol = 1")).unwrap().starts_with("proxyProtocol = 1 (f:2) "));
    assert!(anybody_in_front(&plain("[proxy]\nproxyProtocol = 1\ntrusted = unix")).is_none());
    assert!(anybody_in_front(&plain("[proxy]\nproxyProtocol = 0")).is_none());
}
