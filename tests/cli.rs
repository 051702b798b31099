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
