//! `regrow options`: the table of options, for people, programs and the README.

use std::fmt::Write as _;

use clap::ArgMatches;
use serde_json::{Value, json};

use super::CliExit;
use crate::config::{Change, Entries, Row, SECTIONS, Section};

pub(super) fn run(matches: &ArgMatches) -> CliExit {
    CliExit::done(if matches.get_flag("json") {
        json()
    } else if matches.get_flag("markdown") {
        markdown()
    } else {
        table()
    })
}

/// One paragraph per option, its lines aligned.
fn table() -> String {
    const HELP_WIDTH: usize = 64;
    let mut text = String::new();
    for section in SECTIONS {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}\n", section.heading);
        for line in lines(section) {
            let mut said = format!("{} = {}", line.name, line.default);
            for help in wrap(&format!("{}. {}.", line.help, line.rules()), HELP_WIDTH) {
                let _ = writeln!(text, "  {said:<30} {help}");
                said.clear();
            }
        }
        text.push('\n');
    }
    text
}

/// One table per section.
fn markdown() -> String {
    let mut text = String::new();
    for section in SECTIONS {
        let _ = writeln!(
            text,
            "**`[{}]`** {}\n\n| option | takes | default | changed by | meaning |\n|---|---|---|---|---|",
            section.name, section.about
        );
        for line in lines(section) {
            let mut help = line.help.to_owned();
            if !line.conflicts.is_empty() {
                let _ = write!(help, " (not together with `{}`)", line.conflicts.join("`, `"));
            }
            let _ = writeln!(
                text,
                "| `{}` | {} | `{}` | {} | {help} |",
                line.name,
                line.accepts,
                line.default,
                line.change()
            );
        }
        text.push('\n');
    }
    text
}

/// A list of objects, one per option.
fn json() -> String {
    let options = SECTIONS.iter().flat_map(lines).map(|line| {
        let default = (line.default != NONE).then_some(line.default);
        json!({
            "section": line.section,
            "name": line.name,
            "value": line.value,
            "accepts": line.accepts,
            "default": default,
            "conflicts": line.conflicts,
            "reload": line.change == Change::Reload,
            "help": line.help,
        })
    });
    format!("{:#}", options.collect::<Value>())
}

const NONE: &str = "none";

/// What is said about one option, or about the entries of a section.
struct Line {
    section: &'static str,
    name: &'static str,
    value: &'static str,
    accepts: String,
    default: &'static str,
    conflicts: Vec<&'static str>,
    change: Change,
    help: &'static str,
}

impl Line {
    fn of_row(row: &Row) -> Self {
        Self {
            section: row.section,
            name: row.name,
            value: row.shape.value,
            accepts: row.shape.accepts(),
            default: row.shown_default(),
            conflicts: row.conflicts().collect(),
            change: row.change,
            help: row.help,
        }
    }

    fn of_entries(section: &Section, entries: &Entries) -> Self {
        Self {
            section: section.name,
            name: entries.name,
            value: entries.value,
            accepts: "a folder or a file".to_owned(),
            default: NONE,
            conflicts: Vec::new(),
            change: Change::Reload,
            help: entries.help,
        }
    }

    fn change(&self) -> &'static str {
        match self.change {
            Change::Reload => "reload",
            Change::Restart => "restart",
        }
    }

    /// What it takes, what it does not go with, what changes it.
    fn rules(&self) -> String {
        let mut rules = format!("Takes {}", self.accepts);
        if !self.conflicts.is_empty() {
            let _ = write!(rules, "; not together with {}", self.conflicts.join(", "));
        }
        match self.change {
            Change::Reload => rules,
            Change::Restart => rules + "; only a restart changes it",
        }
    }
}

fn lines(section: &'static Section) -> impl Iterator<Item = Line> {
    let entries = section.entries.iter().map(|entries| Line::of_entries(section, entries));
    entries.chain(section.rows.iter().map(Line::of_row))
}

/// Breaks a text at blanks into lines of at most `width` characters, where its words allow it.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) | None => lines.push(word.to_owned()),
        }
    }
    lines
}
