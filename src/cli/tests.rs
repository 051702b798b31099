use std::fs;

use super::*;
use crate::config::options;

fn regrow(args: &[&str]) -> CliExit {
    run(std::iter::once(&"regrow").chain(args).map(OsString::from))
}

#[test]
fn every_option_is_listed_everywhere() {
    let help = regrow(&["serve", "--help"]).out;
    let (table, markdown) = (regrow(&["options"]).out, regrow(&["options", "--markdown"]).out);
    let json: serde_json::Value = serde_json::from_str(&regrow(&["options", "--json"]).out).unwrap();
    let check = regrow(&["check"]).out;
    for row in options() {
        assert!(help.contains(&format!("--{} <{}>", row.name, row.shape.value)), "{}", row.name);
        assert!(table.contains(&format!("  {} = {}", row.name, row.shown_default())), "{}", row.name);
        assert!(markdown.contains(&format!("\n| `{}` |", row.name)), "{}", row.name);
        assert!(check.contains(&format!("\n{} = {}", row.name, row.shown_default())), "{}", row.name);
        let listed = json.as_array().unwrap().iter().find(|o| o["name"] == row.name).unwrap();
        assert_eq!(listed["default"].as_str().unwrap_or_default(), row.default);
    }
    assert_eq!(json.as_array().unwrap().len(), options().count() + 1);
    assert!(markdown.contains("| `/url/prefix` |"));
}

#[test]
fn markdown_tables_have_five_columns() {
    let markdown = regrow(&["options", "--markdown"]).out;
    for line in markdown.lines().filter(|line| line.starts_with('|')) {
        assert_eq!(line.matches('|').count(), 6, "{line}");
    }
}

#[test]
fn help_and_version_are_no_failure() {
    for args in [&["--help"][..], &["--version"], &["serve", "--help"], &["check", "-h"]] {
        let exit = regrow(args);
        assert_eq!((exit.status, &*exit.err), (Status::Done, ""));
    }
    assert_eq!(regrow(&["--version"]).out.trim(), concat!("regrow ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn usage_mistakes_exit_2_with_a_remedy() {
    let cases = [
        (&["serv"][..], "'serve'"),
        (&[], "Usage: regrow"),
        (&["serve", "--socketprt", "80"], "--socketprt: no such option; did you mean --socketPort?"),
        (&["serve", "--xmlRpc", "1"], "--xmlRpc: no such option; `regrow options` lists all there are"),
        (&["serve", "--processPool=1"], "--processPool 1: a pool is two or more; leave it out for a single worker"),
        (&["check", "--headerTimeout", "10"], "--headerTimeout 10: the unit is missing; say 10s"),
        (&["check", "/nowhere/at/all"], "FOLDER /nowhere/at/all: no such folder"),
        (&["check", "-c", "/nowhere/x.conf"], "--config /nowhere/x.conf: cannot be read"),
        (&["options", "--json", "--markdown"], "cannot be used with"),
        (&["serve", "--socketPort", "1", "--socketPort", "2"], "--socketPort"),
    ];
    for (args, said) in cases {
        let exit = regrow(args);
        assert_eq!((exit.status, &*exit.out), (Status::Usage, ""), "{args:?}");
        assert!(exit.err.contains(said), "{args:?}: {}", exit.err);
    }
}

#[test]
fn mistakes_in_and_around_the_configuration_come_together() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("site.conf");
    fs::write(&file, "[staticContent]\n/ = nowhere\n[limits]\nmaxUri = x\n").unwrap();
    let exit = regrow(&["check", "-c", file.to_str().unwrap(), "--level", "loud"]);
    let lines: Vec<_> = exit.err.lines().collect();
    assert!(lines[0].contains("site.conf:2: / = "), "{lines:?}");
    assert!(lines[1].contains("site.conf:4: maxUri = x: "), "{lines:?}");
    assert!(lines[2].starts_with("--level loud: "), "{lines:?}");
    assert_eq!(lines.last(), Some(&"regrow: 3 mistakes in the configuration"));
}

#[test]
fn check_says_where_every_value_comes_from() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("site.conf");
    fs::write(&file, "[server]\nprocessPool = 3\nsocketPort = 9000\n[staticContent]\n/a/ = .\n").unwrap();
    let file = file.to_str().unwrap();
    let exit = regrow(&["check", "-c", file, "--socketHost=127.0.0.2"]);
    assert_eq!((exit.status, &*exit.err), (Status::Done, ""));
    assert!(exit.out.starts_with("a process pool of 3 workers, on http://127.0.0.2:9000\n"), "{}", exit.out);
    let line = |name: &str| {
        let line = exit.out.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("socketPort"), format!("socketPort = 9000 ({file}:3)"));
    assert_eq!(line("socketHost"), "socketHost = 127.0.0.2 (--socketHost)");
    assert_eq!(line("maxBody"), "maxBody = 16m (default)");
    assert_eq!(line("/a"), format!("/a = {}/. ({file}:5)", folder.path().display()));
}

#[test]
fn the_configuration_of_init_passes_check() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("site.conf");
    let file = file.to_str().unwrap();
    assert_eq!(regrow(&["init", file]).status, Status::Done);
    let missing = regrow(&["check", "-c", file]);
    assert!(missing.err.contains("no such folder"), "{}", missing.err);
    fs::create_dir(folder.path().join("public")).unwrap();
    let exit = regrow(&["check", "-c", file]);
    assert_eq!((exit.status, &*exit.err), (Status::Done, ""));
    assert!(exit.out.starts_with("a process pool of "));
}

#[test]
fn init_overwrites_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("site.conf");
    fs::write(&file, "mine").unwrap();
    let exit = regrow(&["init", file.to_str().unwrap()]);
    assert_eq!(exit.status, Status::Failed);
    assert!(exit.err.contains("it exists already"));
    assert_eq!(fs::read(&file).unwrap(), b"mine");
}

#[test]
fn an_application_takes_the_arguments_of_serve() {
    let args = ["target/hello", "--processPool", "2", "--level=debug"];
    let matches = arguments::serve_matches(args.map(OsString::from)).unwrap();
    let config = arguments::settle(&matches, super::surroundings::Purpose::Serve).unwrap().config;
    assert_eq!(*config.server.process_pool, Some(2));
    let exit = arguments::serve_matches(["hello", "--help"].map(OsString::from)).unwrap_err();
    assert_eq!(exit.status, Status::Done);
    assert!(exit.out.contains("Usage: hello [OPTIONS] [FOLDER]"), "{}", exit.out);
}
