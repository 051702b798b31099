//! `regrow init`: the commented configuration that we recommend for production.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::ArgMatches;

use super::{CliExit, processors};
use crate::config::{Row, SECTIONS};

pub(super) fn run(matches: &ArgMatches) -> CliExit {
    let text = sample(processors());
    match matches.get_one::<PathBuf>("FILE") {
        None => CliExit::done(text),
        Some(path) => match write_new(path, &text) {
            Ok(()) => CliExit::done(format!(
                "{path} is written. Name your folder in it below [staticContent], then:\n\
                 \x20 regrow check -c {path}\n  regrow serve -c {path}",
                path = path.display()
            )),
            Err(error) => CliExit::failed(format!("regrow: cannot write {}: {}", path.display(), reason(&error))),
        },
    }
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(text.as_bytes())
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AlreadyExists => "it exists already; name another file, or remove this one first".to_owned(),
        _ => error.to_string(),
    }
}

/// What production needs and differs from the defaults.
fn recommended(name: &str, processors: u32) -> Option<String> {
    match name {
        "processPool" => Some(processors.clamp(2, 1024).to_string()),
        "socketQueueSize" => Some("1024".to_owned()),
        _ => None,
    }
}

/// What chooses another mode instead, and what to say where the default is none and the name of a value would be none.
fn example(name: &str) -> Option<&'static str> {
    match name {
        "forking" | "threading" => Some("1"),
        "threadPool" => Some("10"),
        "trusted" => Some("127.0.0.1"),
        "statusPort" => Some("8081"),
        "healthPath" => Some("/"),
        "pidFile" => Some("/run/regrow.pid"),
        "controlSocket" => Some("/run/regrow.control"),
        "user" | "group" => Some("www-data"),
        "umask" => Some("0027"),
        _ => None,
    }
}

/// Every option: the recommended ones set, the others commented out at their defaults or as an alternative.
pub(super) fn sample(processors: u32) -> String {
    let mut text = HEADER.to_owned();
    for section in SECTIONS {
        // Writing to a String cannot fail.
        let _ = write!(text, "\n\n# {}\n[{}]\n", section.about, section.name);
        if let Some(entries) = &section.entries {
            let _ = write!(text, "\n# {}.\n/ = public\n", entries.help);
        }
        for row in section.rows {
            let _ = write!(text, "\n{}", sample_row(row, processors));
        }
    }
    text
}

const HEADER: &str = "\
# The configuration of a site in production.
#
#   regrow check -c FILE    says what it would run, or every mistake
#   regrow serve -c FILE    runs it
#
# What is commented out shows its default, an example where there is none, or a mode to say instead of processPool.
# A line that begins with # or ; is a comment.
# localhost is reached from this machine only: say socketHost = 0.0.0.0 unless another server stands in front.
# TIME takes ms, s, m or h; SIZE takes bytes, or k, m or g. Relative paths are relative to this file.
";

fn sample_row(row: &Row, processors: u32) -> String {
    let Row { name, help, shape, .. } = row;
    let default = if row.default.is_empty() { shape.value } else { row.default };
    let help = match row.conflicts().collect::<Vec<_>>().join(", ") {
        others if others.is_empty() => format!("# {help}."),
        others => format!("# {help}.\n# Not together with {others}."),
    };
    match recommended(name, processors) {
        Some(value) => format!("{help}\n# Default: {}\n{name} = {value}\n", row.shown_default()),
        None => format!("{help}\n# {name} = {}\n", example(name).unwrap_or(default)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, File, Mode, Sources, options};

    fn resolve(text: String) -> Config {
        let file = Some(File { name: "f".into(), folder: "/srv".into(), bytes: text.into() });
        Config::resolve(&Sources { file, ..Sources::default() }).unwrap()
    }

    #[test]
    fn the_sample_is_a_pool_of_at_least_two_whatever_the_machine() {
        for (processors, workers) in [(1, 2), (2, 2), (64, 64), (4096, 1024)] {
            let config = resolve(sample(processors));
            assert_eq!(config.mode(), Mode::ProcessPool(workers));
            assert_eq!(*config.server.socket_queue_size, 1024);
            assert_eq!(config.static_content[0].path, Path::new("/srv/public"));
        }
    }

    #[test]
    fn every_other_mode_is_a_comment_of_the_sample_and_takes_the_place_of_its_pool() {
        for (alternative, mode) in [
            ("forking = 1", Mode::Forking),
            ("threading = 1", Mode::Threading),
            ("threadPool = 10", Mode::ThreadPool(10)),
        ] {
            let text = sample(2);
            let (before, after) = text.split_once(&format!("\n# {alternative}\n")).unwrap();
            let text = format!("{before}\n{alternative}\n{after}").replace("\nprocessPool = ", "\n# processPool = ");
            assert_eq!(resolve(text).mode(), mode);
        }
    }

    #[test]
    fn the_sample_names_every_option_and_its_comments_are_values() {
        let text = sample(2);
        for row in options() {
            assert!(text.contains(&format!("\n{} = ", row.name)) || text.contains(&format!("\n# {} = ", row.name)));
        }
        let is_default = |name: &str| options().any(|row| row.name == name && row.choice.is_none());
        let uncommented = text.lines().map(|line| match line.strip_prefix("# ").and_then(|l| l.split_once(" = ")) {
            Some((name, value)) if is_default(name) => format!("{name} = {value}\n"),
            Some(_) | None => format!("{line}\n"),
        });
        assert_eq!(*resolve(uncommented.collect()).limits.max_headers, 100);
    }
}
