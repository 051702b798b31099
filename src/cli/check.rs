//! `regrow check`: what `regrow serve` would run with the same arguments, and where each value comes from.

use std::fmt::Write as _;
use std::path::Path;

use clap::ArgMatches;

use super::arguments::Settled;
use super::surroundings::Purpose;
use super::{CliExit, arguments, processors};
use crate::config::{Config, Origin, SECTIONS};

pub(super) fn run(matches: &ArgMatches) -> CliExit {
    match arguments::settle(matches, Purpose::Check) {
        Ok(settled) => CliExit::done(report(&settled)),
        Err(exit) => exit,
    }
}

fn report(Settled { config, notes, credentials, .. }: &Settled) -> String {
    let mut text = format!("{}\n", summary(config));
    if let Some(credentials) = credentials {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "with a certificate for {}", credentials.validity);
    }
    for (heading, lines) in sections(config) {
        let width = lines.iter().map(|(said, _)| said.chars().count()).max();
        let _ = writeln!(text, "\n{heading}");
        for (said, origin) in lines {
            let _ = writeln!(text, "{said:<width$}   ({origin})", width = width.unwrap_or(0));
        }
    }
    if !notes.is_empty() {
        text.push('\n');
    }
    for note in notes {
        let _ = writeln!(text, "note: {note}");
    }
    text + "\nfine: `regrow serve` accepts this (whether the address is free shows when it starts)\n"
}

/// Who answers, where, and with what.
fn summary(config: &Config) -> String {
    let server = &config.server;
    let scheme = if server.ssl_certificate_file.is_some() { "https" } else { "http" };
    let at = match server.socket_file.as_deref() {
        Some(path) => format!("on the Unix socket {}", path.display()),
        None if server.socket_host.contains(':') => {
            format!("on {scheme}://[{}]:{}", *server.socket_host, *server.socket_port)
        }
        None => format!("on {scheme}://{}:{}", *server.socket_host, *server.socket_port),
    };
    format!("{}, {at}", config.layout(processors()))
}

/// Every line of the report, with its origin, section by section.
fn sections(config: &Config) -> Vec<(String, Vec<(String, &Origin)>)> {
    let shown = config.show();
    let sections = SECTIONS.iter().map(|section| {
        let mut lines: Vec<_> = shown
            .iter()
            .filter(|shown| shown.section == section.name)
            .map(|shown| (format!("{} = {}", shown.name, shown.value), shown.origin))
            .collect();
        if section.entries.is_some() {
            lines = static_content(config);
        }
        (format!("[{}]", section.name), lines)
    });
    sections.collect()
}

fn static_content(config: &Config) -> Vec<(String, &Origin)> {
    if config.static_content.is_empty() {
        return vec![("/ = the welcome page inside the program".to_owned(), &Origin::Default)];
    }
    let line = |prefix: &str, path: &Path| format!("{prefix} = {}", path.display());
    let all = config.static_content.iter();
    all.map(|s| (line(&s.prefix, &s.path), &s.origin)).collect()
}
