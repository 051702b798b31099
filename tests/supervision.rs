//! The master keeps its promises about processes.

use nix::sys::signal::Signal;

use crate::support::{Launch, get};

#[test]
fn a_server_starts_serves_and_stops_on_term() {
    let mut server = Launch::regrow().args(["--processPool", "2"]).start();
    assert_eq!(server.worker_pids().len(), 2);
    assert_eq!(get(server.address(), "/").unwrap().status, 200);
    server.tell(Signal::SIGTERM);
    assert_eq!(server.exit_code(), 0);
}
