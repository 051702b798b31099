//! Servers that turn over while clients are with them: commands, masters that succeed each other, and a load that
//! notices every loss.

use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use super::{Client, Server, is_alive, wait_until};

impl Server {
    /// `regrow`, to be sent to this server.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_regrow"));
        command.args(words).arg("--controlSocket").arg(self.control_socket()).env_remove("RUST_LOG");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// What a command says that is obeyed.
    pub fn obey(&self, words: &[&str]) -> String {
        obeyed(&self.command(words).output().expect("a command"))
    }

    /// What a command says that is not.
    pub fn fail(&self, words: &[&str]) -> String {
        failed(&self.command(words).output().expect("a command"))
    }

    /// What the new configuration is.
    pub fn configure(&self, text: &str) {
        fs::write(self.folder().join("site.conf"), text).expect("a configuration");
    }

    /// How many descriptors the master has.
    pub fn descriptors(&self) -> usize {
        super::descriptors_of(self.pid()).len()
    }
}

pub fn obeyed(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && !said.is_empty(), "{output:?}");
    said
}

pub fn failed(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty() && !said.contains("the connection ended"), "{output:?}");
    said
}

/// Until all of these have ended.
pub fn wait_for_end(pids: &[i32]) {
    wait_until("their end", || pids.iter().all(|&pid| !is_alive(pid)).then_some(()));
}

/// Clients that ask without a pause, each in its own way, and fail the test when one request has no good answer.
pub struct Load {
    over: Arc<AtomicBool>,
    answers: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// On kept connections, for as long as they are kept, and on a new one for each request.
    pub fn on(address: SocketAddr, targets: &'static [&'static str]) -> Self {
        let (over, answers) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let threads = targets.iter().flat_map(|target| [(target, true), (target, false)]).map(|(target, keeps)| {
            let (over, answers) = (Arc::clone(&over), Arc::clone(&answers));
            thread::spawn(move || {
                let mut client = Client::open(address);
                while !over.load(Ordering::SeqCst) {
                    let answer = client.get(target);
                    assert_eq!(answer.status, 200, "{target}: {}", answer.text());
                    answers.fetch_add(1, Ordering::SeqCst);
                    if !keeps || answer.closes() {
                        client = Client::open(address);
                    }
                }
            })
        });
        let threads = threads.collect();
        let load = Self { over, answers, threads };
        load.goes_on();
        load
    }

    /// Waits until more has been answered, so that each client has asked again.
    pub fn goes_on(&self) {
        let before = self.answers.load(Ordering::SeqCst);
        let enough = before + 4 * self.threads.len();
        wait_until("more answers", || (self.answers.load(Ordering::SeqCst) >= enough).then_some(()));
    }

    /// Nobody has lost anything.
    pub fn end(self) {
        self.over.store(true, Ordering::SeqCst);
        self.threads.into_iter().for_each(|thread| thread.join().expect("a client that lost nothing"));
    }
}
