//! What a person at a shell sees: mistakes all at once, with their places, and exit codes that tell them apart.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

fn regrow(folder: &Path, args: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_regrow"));
    let Output { status, stdout, stderr } = command.args(args).current_dir(folder).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Said { code: status.code(), out: text(stdout), err: text(stderr) }
}

const MISTAKES: &str = "\
[server]
socketPort = many
socketprt = 80
processPool = 1
[limits]
keepAliveTimeout = 5 parsecs
maxBody = 12q
[nowhere]
";

#[test]
fn serve_and_check_report_every_mistake_with_its_place_and_exit_2() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("site.conf"), MISTAKES).unwrap();
    for command in ["serve", "check"] {
        let said = regrow(folder.path(), &[command, "-c", "site.conf", "--headerTimeout", "soon"]);
        assert_eq!(said.code, Some(2), "{}", said.err);
        assert_eq!(said.out, "");
        for place in
            ["site.conf:2: ", "site.conf:3: ", "site.conf:4: ", "site.conf:6: ", "site.conf:7: ", "site.conf:8: "]
        {
            assert_eq!(said.err.matches(place).count(), 1, "{place} in {}", said.err);
        }
        for text in ["did you mean socketPort?", "--headerTimeout soon", "7 mistakes in the configuration"] {
            assert!(said.err.contains(text), "{text} is missing in {}", said.err);
        }
    }
}

#[test]
fn check_says_what_would_run_and_where_each_value_was_said() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("public")).unwrap();
    fs::write(folder.path().join("site.conf"), "[server]\nsocketPort = 8123\n[staticContent]\n/ = public\n").unwrap();
    let said = regrow(folder.path(), &["check", "-c", "site.conf", "--processPool", "3"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(said.out.starts_with("a process pool of 3 workers, on http://localhost:8123\n"), "{}", said.out);
    let line = |start: &str| {
        let line = said.out.lines().find(|line| line.starts_with(start));
        line.unwrap_or_else(|| panic!("{start} is missing in {}", said.out))
    };
    assert!(line("socketPort = 8123").ends_with("(site.conf:2)"));
    assert!(line("processPool = 3").ends_with("(--processPool)"));
    assert!(line("keepAliveTimeout = 75s").ends_with("(default)"));
    assert!(line("/ = ").contains("public"));
}

/// What is said, how `check` begins, and what it notes apart from the queue and from root, who may run it.
const MODES: [(&str, &str, &[&str]); 6] = [
    ("", "a single worker, for development: one request after the other, on ", &["a single worker answers one"]),
    ("forking=1", "a new process for each request, at most 256 at once, on ", &[]),
    ("threading=1 maxThreads=9", "a new thread for each request, at most 9 at once, on ", &[]),
    ("processPool=3 handlerThreads=8", "a process pool of 3 workers, of 8 handler threads each, on ", &[]),
    ("threadPool=10 forking=0", "a thread pool of 10 threads, beside ", &[]),
    (
        "threadPool=10 handlerThreads=8 maxProcesses=2 maxThreads=2",
        "a thread pool of 10 threads, beside ",
        &["handlerThreads (--handlerThreads) is not used", "maxProcesses (--max", "maxThreads (--max"],
    ),
];

#[test]
fn check_says_the_mode_in_words_and_what_it_leaves_unused() {
    let queue = "in production say socketQueueSize = 1024";
    for (said, words, notes) in MODES {
        let said: Vec<_> = said.split_whitespace().map(|said| format!("--{said}")).collect();
        let args: Vec<_> = ["check"].into_iter().chain(said.iter().map(String::as_str)).collect();
        let found = regrow(Path::new("/"), &args);
        assert_eq!(found.code, Some(0), "{args:?}: {}", found.err);
        assert!(found.out.starts_with(words), "{args:?}: {}", found.out);
        assert_eq!(found.out.contains(queue), !said.is_empty(), "{args:?}: {}", found.out);
        let noted = found.out.lines().filter(|line| line.starts_with("note: "));
        let noted = noted.filter(|line| !line.contains("socketQueueSize") && !line.contains("workers run as root"));
        assert_eq!(noted.count(), notes.len(), "{args:?}: {}", found.out);
        for note in notes {
            assert!(found.out.contains(&format!("note: {note}")), "{note} is missing in {}", found.out);
        }
    }
}

#[test]
fn modes_that_conflict_and_pools_of_one_are_refused_with_what_to_say_instead() {
    let folder = tempfile::tempdir().unwrap();
    let said = "[server]\nforking = 1\nthreading = 1\n[limits]\nhandlerThreads = 0\n";
    fs::write(folder.path().join("site.conf"), said).unwrap();
    let said = regrow(folder.path(), &["check", "-c", "site.conf"]);
    let mistakes = "\
site.conf:3: threading = 1: conflicts with forking (site.conf:2); keep one of them
site.conf:5: handlerThreads = 0: out of range; write a number from 1 to 1024

regrow: 2 mistakes in the configuration
";
    assert_eq!((said.code, said.err.as_str()), (Some(2), mistakes));
    for (flag, instead) in [
        ("--processPool=1", "forking = 1"),
        ("--processPool=0", "leave it out for a single worker"),
        ("--processPool=2000", "from 2 to 1024"),
        ("--threadPool=1", "threading = 1"),
        ("--threadPool=-4", "from 2 to 1024"),
        ("--forking=4", "processPool = 4"),
        ("--threading=8", "threadPool = 8"),
    ] {
        let said = regrow(folder.path(), &["serve", flag]);
        assert_eq!(said.code, Some(2), "{flag}: {}", said.err);
        assert!(said.err.contains(instead), "{flag}: {}", said.err);
    }
}

#[test]
fn what_init_writes_passes_check_and_is_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("public")).unwrap();
    assert_eq!(regrow(folder.path(), &["init", "site.conf"]).code, Some(0));
    let said = regrow(folder.path(), &["check", "-c", "site.conf"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(said.out.contains("a process pool of"), "{}", said.out);

    fs::write(folder.path().join("site.conf"), "mine").unwrap();
    assert_ne!(regrow(folder.path(), &["init", "site.conf"]).code, Some(0));
    assert_eq!(fs::read_to_string(folder.path().join("site.conf")).unwrap(), "mine");
}

#[test]
fn init_prints_what_it_would_write() {
    let folder = tempfile::tempdir().unwrap();
    let said = regrow(folder.path(), &["init"]);
    assert_eq!(said.code, Some(0));
    regrow(folder.path(), &["init", "site.conf"]);
    assert_eq!(said.out, fs::read_to_string(folder.path().join("site.conf")).unwrap());
}

#[test]
fn a_missing_folder_file_or_command_is_named_and_exits_2() {
    let folder = tempfile::tempdir().unwrap();
    for (args, named) in [
        (vec!["serve", "no-such-folder"], "no-such-folder"),
        (vec!["serve", "-c", "no-such-file"], "no-such-file"),
        (vec!["serve", "--socketprt", "1"], "did you mean --socketPort?"),
        (vec!["sreve"], "serve"),
        (vec![], "Usage"),
    ] {
        let said = regrow(folder.path(), &args);
        assert_eq!(said.code, Some(2), "{args:?}: {}", said.err);
        assert!(said.err.contains(named), "{args:?}: {}", said.err);
    }
}

#[test]
fn help_names_the_commands_and_exits_0() {
    let said = regrow(Path::new("/"), &["--help"]);
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
    for command in ["serve", "check", "options", "init", "compress"] {
        assert!(said.out.contains(command), "{command} is missing in {}", said.out);
    }
}

#[test]
fn in_a_folder_that_is_gone_nothing_else_is_served_instead() {
    let folder = tempfile::tempdir().unwrap();
    let script = format!("mkdir gone && cd gone && rmdir \"$PWD\" && exec {} serve .", env!("CARGO_BIN_EXE_regrow"));
    let said = Command::new("sh").args(["-c", &script]).current_dir(folder.path()).output().unwrap();
    assert_eq!(said.status.code(), Some(2));
    let err = String::from_utf8(said.stderr).unwrap();
    assert!(err.contains("the current folder"), "{err}");
}
