//! A user of whom there is no other process, so that a limit of its processes is one of the server's.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::unistd::Uid;

use super::skip;

pub struct LimitedUser {
    id: String,
}

impl LimitedUser {
    /// `None`, and a word on the test's output, where nobody can become such a user.
    pub fn new(test: &str) -> Option<Self> {
        static USERS: AtomicU32 = AtomicU32::new(0);
        if !Uid::effective().is_root() {
            skip(test, "only root can become a user with a limit of its own");
            return None;
        }
        let id = 1_000_000 + 16 * std::process::id() + USERS.fetch_add(1, Ordering::Relaxed);
        let user = Self { id: id.to_string() };
        let wrapper = user.wrapper();
        let may_run = Command::new(wrapper[0]).args(&wrapper[1..]).arg(env!("CARGO_BIN_EXE_regrow")).output();
        if !may_run.is_ok_and(|output| output.status.code() == Some(2)) {
            skip(test, "another user cannot run the program where it was built");
            return None;
        }
        Some(user)
    }

    /// What makes a program that user's.
    pub fn wrapper(&self) -> [&str; 6] {
        ["prlimit", "--nproc=64:", "setpriv", "--reuid", &self.id, "--clear-groups"]
    }

    /// Lets a process start another one only while there are fewer of the user's, threads counted. As that user: it takes
    /// a privilege that root may lack to change the limits of others.
    pub fn allow_processes(&self, pid: i32, most: u32) {
        let (pid, most) = (format!("--pid={pid}"), format!("--nproc={most}:"));
        let change = ["setpriv", "--reuid", &self.id, "--clear-groups", "prlimit", &most, &pid];
        let changed = Command::new(change[0]).args(&change[1..]).status();
        assert!(changed.is_ok_and(|status| status.success()), "the user may change its own limit");
    }
}
