//! A user of whom there is no other process, and who may have so many and no more.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::unistd::Uid;

use super::skip;

pub struct LimitedUser {
    id: String,
    limit: String,
}

impl LimitedUser {
    /// `None`, and a word on the test's output, where nobody can become such a user.
    pub fn with_processes(test: &str, number: u32) -> Option<Self> {
        static USERS: AtomicU32 = AtomicU32::new(0);
        if !Uid::effective().is_root() {
            skip(test, "only root can become a user with a limit of its own");
            return None;
        }
        let id = 1_000_000 + 16 * std::process::id() + USERS.fetch_add(1, Ordering::Relaxed);
        let user = Self { id: id.to_string(), limit: format!("--nproc={number}:") };
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
        ["prlimit", &self.limit, "setpriv", "--reuid", &self.id, "--clear-groups"]
    }

    /// Lets a process have 64. As that user: it takes a privilege that root may lack to change the limits of others.
    pub fn allow_processes(&self, pid: i32) {
        let pid = format!("--pid={pid}");
        let raise = ["setpriv", "--reuid", &self.id, "--clear-groups", "prlimit", "--nproc=64:", &pid];
        let raised = Command::new(raise[0]).args(&raise[1..]).status();
        assert!(raised.is_ok_and(|status| status.success()), "the user may raise its own limit");
    }
}
