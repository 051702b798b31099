//! What every test needs: a server of its own, patience with a limit, and a plain client.

// No test module uses all of it.
#![allow(dead_code)]

mod client;
mod crowd;
mod dns;
mod fetch;
mod front;
mod modes;
mod server;
mod tls_client;
mod turnover;
mod user;

use std::time::{Duration, Instant};

pub use client::{Answer, Client, End, Framing, checksum, curl, pattern, post, request, time};
pub use crowd::{OTHERS, ask, expect_answer, expect_prompt_answers, hold, make_room_for};
pub use dns::{Dns, Question, Record};
pub use fetch::{Connection, Reply, get, get_unix};
pub use front::{Front, Place, RunningFront, Transport};
pub use modes::{MODES, Told, ask_at_once, descriptors_of, slow, threads_of};
pub use server::{Launch, Server, all_children_of, children_of, is_alive};
pub use tls_client::{Authority, TlsClient, TlsStream, VERSIONS, exchange};
pub use turnover::{Load, failed, obeyed, wait_for_end};
pub use user::LimitedUser;

/// Nothing that is waited for takes so long, not even on a machine that is busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Asks again and again until there is an answer; panics when there is none within [`PATIENCE`].
pub fn wait_until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Says on the test's output why it could not show anything on this machine.
pub fn skip(test: &str, why: &str) {
    eprintln!("SKIPPED {test}: {why}");
}
