//! The master's ends of its links to the workers. What it says there is heard by one worker; that it is gone, by all.

use std::io;
use std::os::fd::OwnedFd;

use crate::log::error as error_log;
use crate::log::sink::Sink;
use crate::worker::logs;

/// A link to each worker that was not reaped.
#[derive(Debug, Default)]
pub(super) struct Links(Vec<(i32, OwnedFd)>);

impl Links {
    pub fn add(&mut self, pid: i32, end: OwnedFd) {
        self.0.push((pid, end));
    }

    pub fn remove(&mut self, pid: i32) {
        self.0.retain(|(of, _)| *of != pid);
    }

    /// In a child, which must not keep any worker from noticing that the master is gone.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Opens the log files anew and has every worker write there. Returns what came of it, for a person.
    pub fn reopen_logs(&self, access: &Sink) -> Result<String, String> {
        let error = error_log::sink();
        let mut wrong = Vec::new();
        let mut reopen = |log: &Sink| log.reopen().map_err(|cause| wrong.push(cause.to_string())).is_ok();
        let error = error.as_ref().filter(|log| reopen(log)).and_then(Sink::descriptor);
        let access = Some(access).filter(|log| reopen(log)).and_then(Sink::descriptor);
        if error.is_none() && access.is_none() && wrong.is_empty() {
            return Ok("no log is a file, so none was reopened".to_owned());
        }
        for (pid, link) in self.0.iter().filter(|_| error.is_some() || access.is_some()) {
            match logs::send(link, error, access) {
                Ok(()) => {}
                // It leaves.
                Err(cause) if cause.kind() == io::ErrorKind::BrokenPipe => {}
                Err(cause) => wrong.push(format!(
                    "the worker pid={pid} cannot be told and writes to the old files ({cause}); reopen again once it runs"
                )),
            }
        }
        if wrong.is_empty() { Ok("the log files were reopened".to_owned()) } else { Err(wrong.join("; ")) }
    }
}
