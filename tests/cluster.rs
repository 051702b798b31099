//! Several machines: `scripts/cluster` keeps what it promises.

use std::process::Command;

#[test]
fn a_drained_machine_loses_nothing_and_a_killed_one_what_was_in_flight() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/cluster");
    let play = Command::new(script).arg("--quick").output().expect("sh");
    let (told, errors) = (String::from_utf8_lossy(&play.stdout), String::from_utf8_lossy(&play.stderr));
    assert!(play.status.success() && told.contains("cluster: fine"), "{}\n{told}{errors}", play.status);
}
