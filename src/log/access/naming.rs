//! Gives lines the names of their clients: asks the resolver for what is not known, holds lines back meanwhile, and
//! never waits for an answer.

use std::net::IpAddr;
use std::os::fd::RawFd;
use std::time::Duration;

use super::names::{Names, Search};
use super::resolver::Resolver;
use super::{combined, json};
use crate::config::AccessFormat;

/// The names of clients, who looks them up, and where they belong in a line.
#[derive(Debug)]
pub(super) struct Naming {
    names: Names,
    resolver: Resolver,
    format: AccessFormat,
}

impl Naming {
    pub fn new(resolver: Resolver, format: AccessFormat) -> Self {
        Self { names: Names::default(), resolver, format }
    }

    /// Asks for the client's name, unless it is known. Lines that have been waiting may join the batch.
    pub fn meet(&mut self, client: IpAddr, now: Duration, batch: &mut Vec<u8>) {
        let client = client.to_canonical();
        if self.names.search(client, now) != Search::Due {
            return;
        }
        // Answers that nobody takes would bring the resolver to a stop.
        self.release(now, batch);
        if self.names.search(client, now) == Search::Due && self.resolver.ask(client) {
            self.names.begin_search(client, now);
        }
    }

    /// Names the client of the batch's last line, which begins at `start`, or takes the line back until its name is
    /// known.
    pub fn finish_line(&mut self, client: Option<IpAddr>, now: Duration, batch: &mut Vec<u8>, start: usize) {
        let client = client.map(|client| client.to_canonical());
        match client.map(|client| (client, self.names.search(client, now))) {
            None | Some((_, Search::Due)) => name_client(self.format, batch, start, None),
            Some((_, Search::Over(name))) => name_client(self.format, batch, start, name),
            Some((client, Search::Underway)) => {
                if self.names.hold(client, &batch[start..]) {
                    batch.truncate(start);
                } else {
                    name_client(self.format, batch, start, None);
                }
            }
        }
    }

    /// Whether lines wait for a name.
    pub const fn is_holding(&self) -> bool {
        self.names.is_holding()
    }

    /// For processes that are not to hold them.
    pub fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        self.resolver.descriptors()
    }

    /// Moves lines to the batch whose name has come, or which have waited long enough.
    pub fn release(&mut self, now: Duration, batch: &mut Vec<u8>) {
        while let Some((client, name)) = self.resolver.answer() {
            let lines = self.names.learn(client, name.as_deref(), now);
            push_lines(self.format, batch, &lines, name.as_deref());
        }
        while let Some(lines) = self.names.give_up(now) {
            push_lines(self.format, batch, &lines, None);
        }
    }
}

fn push_lines(format: AccessFormat, batch: &mut Vec<u8>, lines: &[u8], name: Option<&str>) {
    for line in lines.split_inclusive(|&byte| byte == b'\n') {
        let start = batch.len();
        batch.extend_from_slice(line);
        name_client(format, batch, start, name);
    }
}

fn name_client(format: AccessFormat, batch: &mut Vec<u8>, start: usize, name: Option<&str>) {
    match format {
        AccessFormat::Combined => combined::name_client(batch, start, name),
        AccessFormat::Json => json::name_client(batch, start, name),
    }
}
