//! Histories of workers that are replaced although they live.

use super::*;

fn limited(slots: u32) -> Plan {
    Plan { request_timeout: Some(ms(30_000)), max_memory: Some(1 << 20), ..pool(slots) }
}

fn seen(pid: Pid, turn_since: Option<u64>, memory: u64) -> Observed {
    Observed { pid, turn_since: turn_since.map(ms), memory: Some(memory) }
}

#[test]
fn a_spent_worker_leaves_when_its_successor_is_ready_and_one_after_the_other() {
    let mut history = History::running(pool(2));
    history.at(1000).reported(101, Report::Spent).expect(["Spent", "Spawn 1"]);
    history.reported(100, Report::Spent).reported(100, Report::Spent).expect(["Spent"]);
    assert_eq!(history.machine.children.serving(), 2);
    history.spawned(1, 111).expect([]).ready(111).expect(["Ready", "Term 101", "Spawn 0"]);
    history.spawned(0, 110).ready(110).expect(["Ready", "Term 100"]);
    history.exits(100, 0).exits(101, 0).expect(["Draining 100", "Draining 101"]).expect_idle();
}

#[test]
fn a_spent_worker_goes_on_as_long_as_its_successor_fails() {
    let mut history = History::running(pool(1));
    history.at(1000).reported(100, Report::Spent).expect(["Spent", "Spawn 0"]);
    history.spawned(0, 110).exits(110, 1).expect(["Booting 110", "BackingOff"]);
    assert_eq!(history.machine.children.serving(), 1);
    history.deadline(1100).expect(["Spawn 0"]).spawned(0, 111).ready(111).expect(["Ready", "Term 100"]);
}

#[test]
fn a_spent_worker_that_dies_first_is_replaced_by_the_successor_that_is_on_its_way() {
    let mut history = History::running(pool(1));
    history.at(1000).reported(100, Report::Spent).spawned(0, 110).killed(100, 11);
    history.expect(["Spent", "Spawn 0", "Serving 100"]);
    history.ready(110).expect(["Ready"]).expect_idle();
}

#[test]
fn a_slot_that_is_given_up_while_it_is_succeeded_keeps_nobody() {
    let mut history = History::running(pool(2));
    history.at(1000).reported(101, Report::Spent).spawned(1, 111).signal(Ttou);
    history.expect(["Spent", "Spawn 1", "ScaledDown", "Term 111", "Term 101"]);
}

#[test]
fn a_worker_with_a_hung_handler_drains_while_its_successor_starts() {
    let mut history = History::running(pool(1));
    history.at(1000).reported(100, Report::Hung).expect(["Hung", "Term 100", "Spawn 0"]);
    history.spawned(0, 110).ready(110).expect(["Ready"]);
    history.deadline(11_000).expect(["Kill 100"]).killed(100, 9).expect(["CutOff 100"]).expect_idle();
}

#[test]
fn hung_workers_do_not_pile_up() {
    let mut history = History::running(Plan { max_slots: 1, ..pool(1) });
    history.at(1000).reported(100, Report::Hung).spawned(0, 110).ready(110).actions.clear();
    history.at(2000).reported(110, Report::Hung).expect(["Hung", "Kill 110", "Spawn 0"]);
}

#[test]
fn a_loop_that_does_not_come_round_is_killed_and_an_idle_one_is_not() {
    let all = || Input::Observed(vec![seen(100, None, 0), seen(101, Some(900), 0)]);
    let mut history = History::running(Plan { max_memory: None, ..limited(2) });
    history.deadline(30_000).expect(["Observe"]).input(all()).expect([]);
    history.deadline(30_900).expect(["Observe"]).input(all()).expect(["LoopHung", "Kill 101"]);
    history.killed(101, 9).expect(["Hung 101", "Spawn 1"]);
}

#[test]
fn one_look_is_due_when_the_first_can_be_over() {
    let plan = Plan { max_memory: None, ..limited(1) };
    let mut history = History::running(plan);
    history.deadline(30_000).expect(["Observe"]);
    history.input(Input::Observed(vec![seen(100, Some(29_000), 0)]));
    assert_eq!(history.machine.next_deadline(), Some(ms(59_000)));
}

#[test]
fn nobody_hangs_while_all_stood_still() {
    let mut history = History::running(Plan { max_memory: None, ..limited(1) });
    history.at(500_000).input(Input::Deadline).expect(["StoodStill", "Observe"]);
    history.input(Input::Observed(vec![seen(100, Some(10), 0)])).expect([]);
    history.at(529_999).input(Input::Observed(vec![seen(100, Some(10), 0)])).expect([]);
    history.at(530_000).input(Input::Observed(vec![seen(100, Some(10), 0)])).expect(["LoopHung", "Kill 100"]);
}

#[test]
fn a_worker_with_too_much_memory_is_succeeded() {
    let mut history = History::running(limited(1));
    history.at(1000).input(Input::Observed(vec![seen(100, None, 1 << 20)])).expect([]);
    history.input(Input::Observed(vec![seen(100, None, 2 << 20)])).expect(["Spent", "Spawn 0"]);
    history.input(Input::Observed(vec![seen(100, None, 3 << 20)])).expect([]);
}

#[test]
fn a_worker_that_is_stopped_is_killed_unless_it_goes_on_in_time() {
    let mut history = History::running(Plan { max_memory: None, ..limited(1) });
    history.at(1000).input(Input::Stopped { pid: 100 }).input(Input::Stopped { pid: 100 }).expect(["Frozen"]);
    history.at(2000).input(Input::Continued { pid: 100 }).expect(["Thawed"]);
    history.at(3000).input(Input::Stopped { pid: 100 }).expect(["Frozen"]);
    history.at(30_000).input(Input::Deadline).input(Input::Observed(vec![seen(100, None, 0)]));
    history.expect(["Observe"]);
    history.deadline(33_000).expect(["Kill 100"]);
    history.killed(100, 9).expect(["Frozen 100", "Spawn 0"]);
}

#[test]
fn without_a_timeout_a_stopped_worker_may_stand_still_for_ever() {
    let mut history = History::running(pool(1));
    history.input(Input::Stopped { pid: 100 }).expect(["Frozen"]).expect_idle();
}
