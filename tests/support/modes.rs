//! The modes of the server, the example that tells who answers in them, and what /proc knows of the processes.

use std::fs;
use std::time::Duration;

use super::{Answer, Client, Launch, Server, time};

/// The modes, the pools of the smallest size, and their options.
pub const MODES: [(&str, &[&str]); 5] = [
    ("single", &[]),
    ("forking", &["--forking", "1"]),
    ("threading", &["--threading", "1"]),
    ("processPool", &["--processPool", "2"]),
    ("threadPool", &["--threadPool", "2"]),
];

/// What the example `slow` tells of a request.
#[derive(Debug)]
pub struct Told {
    pub pid: i32,
    pub thread: String,
    /// How many requests ran when this one began, itself included, and at most until then.
    pub running: u64,
    pub peak: u64,
}

impl Told {
    pub fn of(answer: &Answer) -> Self {
        assert_eq!(answer.status, 200, "{}", answer.text());
        let told: serde_json::Value = serde_json::from_slice(&answer.body).expect("an object");
        let number = |name: &str| told[name].as_u64().unwrap_or_else(|| panic!("no {name} in {told}"));
        let pid = i32::try_from(number("pid")).expect("a pid");
        let thread = told["thread"].as_str().expect("a thread").to_owned();
        Self { pid, thread, running: number("running"), peak: number("peak") }
    }
}

/// The example `slow`, with a queue that is long enough for all who come at once.
pub fn slow(options: &[&str]) -> Server {
    Launch::example("slow").options(&["--socketQueueSize", "1024"]).options(options).start()
}

/// Asks on so many new connections at once for an answer that takes so long; returns all, and how long all took.
pub fn ask_at_once(server: &Server, clients: usize, ms: u64) -> (Vec<Told>, Duration) {
    let mut clients: Vec<_> = (0..clients).map(|_| Client::open(server.address())).collect();
    time(|| {
        for client in &mut clients {
            client.send(super::request("GET", &format!("/?ms={ms}")));
        }
        clients.iter_mut().map(|client| Told::of(&client.answer())).collect()
    })
}

/// The threads of a process, in the order of their making.
pub fn threads_of(pid: i32) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("a process").flatten();
    let mut ids: Vec<_> = tasks.filter_map(|task| task.file_name().to_str()?.parse().ok()).collect();
    ids.sort_unstable();
    ids
}

/// Where the descriptors of a process lead.
pub fn descriptors_of(pid: i32) -> Vec<String> {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).expect("a process").flatten();
    open.filter_map(|entry| fs::read_link(entry.path()).ok()).map(|to| to.display().to_string()).collect()
}
