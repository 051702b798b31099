use std::collections::HashSet;

use super::*;
use crate::config::{Config, Sources};

#[test]
fn names_are_unique_however_they_are_written() {
    let mut seen = HashSet::new();
    for row in options() {
        assert!(seen.insert(row.name.to_lowercase()), "{} stands twice", row.name);
    }
}

#[test]
fn names_are_camel_case() {
    for row in options() {
        assert!(row.name.starts_with(|c: char| c.is_ascii_lowercase()), "{}", row.name);
        assert!(row.name.chars().all(|c| c.is_ascii_alphanumeric()), "{}", row.name);
    }
}

#[test]
fn every_default_is_a_value_and_shown_as_it_is_written() {
    let config = Config::resolve(&Sources::default()).unwrap();
    let shown = config.show();
    assert_eq!(shown.len(), options().count());
    for (row, shown) in options().zip(shown) {
        assert_eq!((row.section, row.name, row.shown_default()), (shown.section, shown.name, &*shown.value));
        assert_eq!(*shown.origin, Origin::Default);
    }
}

#[test]
fn the_documented_defaults_are_those_of_the_table() {
    let documented = "socketHost localhost socketPort 8080 socketFile none socketQueueSize 5 forking 0 threading 0 \
        processPool none threadPool none sslKeyFile none sslCertificateFile none reverseDNS 0 \
        index index.html listing 0 dotfiles 0 followSymlinks 0 precompressed 1 cacheControl none fallback none \
        headerTimeout 10s bodyTimeout 30s writeTimeout 30s \
        keepAliveTimeout 75s maxUri 8k maxHeaderBytes 16k maxHeaders 100 maxBody 16m bodyInMemory 256k \
        maxConnections 10000 maxProcesses 256 maxThreads 256 handlerThreads 1 gracefulTimeout 30s startTimeout 60s respawnDelayMax 30s drainDelay 0 \
        socketFileMode 0660 requestTimeout 30s maxRequests 0 maxRequestsJitter 0 maxMemory 0 healthPath none \
        pidFile none controlSocket none user none group none umask none errorLog stderr accessLog stdout accessFormat combined level info \
        trusted none proxyProtocol 0 statusHost 127.0.0.1 statusPort none";
    let table: Vec<_> = options().flat_map(|row| [row.name, row.shown_default()]).collect();
    assert_eq!(table, documented.split_whitespace().collect::<Vec<_>>());
}

#[test]
fn conflicts_name_other_options_and_hold_both_ways() {
    for row in options() {
        for other in row.conflicts() {
            let other = option(other).unwrap();
            assert_ne!(row.name, other.name);
            assert!(other.conflicts().any(|name| name == row.name));
        }
    }
    assert!(option("socketPort").unwrap().conflicts().eq(["socketFile"]));
    assert!(option("threading").unwrap().conflicts().eq(["forking", "processPool", "threadPool"]));
    assert!(option("maxUri").unwrap().conflicts().eq([""; 0]));
}

#[test]
fn help_is_one_line_without_a_full_stop() {
    for row in options() {
        assert!(!row.help.is_empty() && !row.help.ends_with('.') && !row.help.contains(['\n', '|']), "{}", row.name);
        assert_eq!(row.help, row.help.trim());
    }
}

#[test]
fn what_commands_and_the_next_master_find_the_running_one_by_changes_by_a_restart_alone() {
    let fixed: Vec<_> = options().filter(|row| row.change == Change::Restart).map(|row| row.name).collect();
    assert_eq!(fixed, ["pidFile", "controlSocket"]);
}
