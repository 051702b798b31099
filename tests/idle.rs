//! Thousands of idle connections cost memory, little of it, and nothing else.

use std::fs;

use crate::support::{Launch, OTHERS, Server, ask, expect_answer, expect_prompt_answers, hold, make_room_for, skip};

const WANTED: usize = 10_000;
const AT_LEAST: usize = 3_000;
const BYTES_PER_CONNECTION: usize = 256;
/// What does not grow with the number of connections: tables grow in steps, and logs and stacks are touched.
const SLACK: usize = 256 << 10;

#[test]
fn ten_thousand_idle_connections_cost_little_and_hold_nobody_up() {
    let number = make_room_for(WANTED);
    assert!(number >= AT_LEAST, "raise the limit of open files (ulimit -n) to {} or more", WANTED + OTHERS);
    if number < WANTED {
        skip("part of the idle connections", &format!("the limit of open files allows {number} of {WANTED}"));
    }
    let server = Launch::regrow()
        .args(["--processPool", "2", "--socketQueueSize", "1024", "--keepAliveTimeout", "1h", "--accessLog", "off"])
        .start();
    let address = server.address();
    drop(hold(address, 300));
    let before = memory(&server);

    let mut held = hold(address, number);
    expect_prompt_answers(address);
    let grown = memory(&server).saturating_sub(before);
    eprintln!("{number} idle connections: {grown} bytes, {} each", grown / number);
    for connection in held.iter_mut().step_by(97) {
        ask(connection);
        expect_answer(connection);
    }
    assert!(grown <= number * BYTES_PER_CONNECTION + SLACK, "{} bytes for {number}: {} each", grown, grown / number);
}

/// What the server's processes hold, in bytes; what they share is counted once.
fn memory(server: &Server) -> usize {
    server.worker_pids().into_iter().chain([server.pid()]).map(proportional_set).sum()
}

/// `Pss` of proc(5), `smaps_rollup`.
fn proportional_set(pid: i32) -> usize {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("what the process holds");
    let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).expect("a line of it");
    let kilobytes: usize = pss.trim().trim_end_matches(" kB").parse().expect("a number of kB");
    kilobytes << 10
}
