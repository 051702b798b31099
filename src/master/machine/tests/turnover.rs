//! Histories of reloads, upgrades and commands.

use super::*;
use crate::master::machine::messages::Signal::{Hup, Usr2};

/// Two workers of generation 1, pids 100 and 101, and a reload whose two workers, 200 and 201, are forked.
fn reloading() -> History {
    let mut history = History::running(pool(2));
    history.at(1000).command(7, Command::Reload).expect(["Asked", "Reloading", "Prepare 2"]);
    history.input(Input::Prepared { generation: 2, plan: pool(2) }).expect(["Spawn 0", "Spawn 1"]);
    history.spawned_of(2, 0, 200).spawned_of(2, 1, 201).expect([]);
    history
}

#[test]
fn a_reload_commits_once_all_new_workers_serve_and_then_the_old_ones_leave() {
    let mut history = reloading();
    history.ready(200).expect(["Ready"]);
    history.ready(201).expect(["Ready", "Commit", "Term 100", "Term 101", "Reloaded", "Answer true"]);
    history.exits(100, 0).exits(101, 0).expect(["Draining 100", "Draining 101"]).expect_idle();
    history.at(5000).killed(200, 9).expect(["Serving 200", "Spawn 0"]);
}

#[test]
fn a_configuration_that_is_wrong_changes_nothing() {
    let mut history = History::running(pool(2));
    history.signal(Hup).expect(["Reloading", "Prepare 2"]);
    history.input(Input::NotPrepared { generation: 2, error: "site.conf:3: x".into() }).expect(["NotReloaded"]);
    history.expect_idle();
    history.command(9, Command::Reload).expect(["Asked", "Reloading", "Prepare 3"]);
    history.input(Input::NotPrepared { generation: 3, error: "x".into() }).expect(["NotReloaded", "Answer false"]);
}

#[test]
fn a_generation_whose_worker_fails_three_times_is_withdrawn() {
    let mut history = reloading();
    history.ready(200).expect(["Ready"]);
    history.exits(201, 1).expect(["Booting 201", "BackingOff"]);
    history.deadline(1100).expect(["Spawn 1"]).spawned_of(2, 1, 202);
    history.exits(202, 1).expect(["Booting 202", "BackingOff"]);
    history.deadline(1300).expect(["Spawn 1"]).spawned_of(2, 1, 203);
    history.exits(203, 1).expect(["Booting 203", "BackingOff", "Abandon", "Term 200", "NotReloaded", "Answer false"]);
    history.exits(200, 0).expect(["Draining 200"]).expect_idle();
    assert_eq!((history.machine.children.serving(), history.machine.generation), (2, 1));
}

#[test]
fn a_generation_that_is_not_ready_in_time_is_withdrawn_and_what_hangs_is_killed() {
    let mut history = reloading();
    history.ready(200).expect(["Ready"]);
    history.deadline(61_000).expect(["Kill 201", "Abandon", "Term 200", "NotReloaded", "Answer false"]);
    history.killed(201, 9).exits(200, 0).expect(["Overdue 201", "Draining 200"]).expect_idle();
}

#[test]
fn old_workers_that_die_during_a_reload_are_replaced_by_old_ones() {
    let mut history = reloading();
    history.killed(100, 11).expect(["Serving 100", "Spawn 0"]).spawned(0, 110).ready(110).expect(["Ready"]);
    history.ready(200).ready(201).expect([
        "Ready",
        "Ready",
        "Commit",
        "Term 110",
        "Term 101",
        "Reloaded",
        "Answer true",
    ]);
}

#[test]
fn reloads_during_a_reload_are_one_afterwards_and_wait_for_those_who_leave() {
    let mut history = reloading();
    history.signal(Hup).command(8, Command::Reload).signal(Hup);
    history.expect(["ReloadLater", "Asked", "ReloadLater", "ReloadLater"]);
    history.ready(200).ready(201).actions.clear();
    history.exits(100, 0).expect(["Draining 100"]);
    history.exits(101, 0).expect(["Draining 101", "Reloading", "Prepare 3"]);
    history.input(Input::Prepared { generation: 3, plan: pool(1) }).expect(["Spawn 0"]);
    history.spawned_of(3, 0, 300).ready(300);
    history.expect(["Ready", "Commit", "Term 200", "Term 201", "Reloaded", "Answer true"]);
    assert_eq!(history.machine.children.wanted(), 1);
}

#[test]
fn a_stop_ends_a_reload_and_disappoints_who_waits_for_it() {
    let mut history = reloading();
    history.signal(Term).expect([
        "Stopping",
        "Answer false",
        "BeginStop",
        "Term 100",
        "Term 101",
        "Term 200",
        "Term 201",
    ]);
    history
        .exits(100, 0)
        .exits(101, 0)
        .exits(200, 0)
        .exits(201, 0)
        .actions
        .retain(|action| matches!(action, Action::Exit { .. }));
    history.expect(["Exit 0"]);
    history.command(9, Command::Reload).expect([]);
}

#[test]
fn a_new_master_takes_over_when_it_is_ready() {
    let mut history = History::running(pool(2));
    history.command(7, Command::Upgrade { program: None }).expect(["Asked", "Upgrade"]);
    history.input(Input::HeirStarted { pid: 500 }).expect(["Upgrading"]);
    history.signal(Usr2).expect(["NotUpgraded"]);
    history.signal(Hup).expect(["ReloadLater"]);
    history.at(1000).killed(100, 9).expect(["Serving 100", "Spawn 0"]).spawned(0, 110).ready(110).actions.clear();
    history.input(Input::HeirReady).expect([
        "HandedOver",
        "LeftToHeir",
        "HandOver",
        "Term 110",
        "Term 101",
        "Answer true",
    ]);
    history.exits(110, 0).exits(101, 0).expect(["Draining 110", "Draining 101", "Stopped", "Exit 0"]);
}

#[test]
fn a_new_master_that_fails_or_hangs_changes_nothing() {
    let mut history = History::running(pool(1));
    history.command(7, Command::Upgrade { program: None }).actions.clear();
    history.input(Input::HeirNotStarted { error: "cannot run x".into() }).expect(["NotUpgraded", "Answer false"]);
    history.command(8, Command::Upgrade { program: None }).input(Input::HeirStarted { pid: 500 }).actions.clear();
    history.exits(500, 3).expect(["NotUpgraded", "Answer false"]);
    history.command(9, Command::Upgrade { program: None }).input(Input::HeirStarted { pid: 501 }).actions.clear();
    history.deadline(65_000).expect(["Kill 501"]);
    history.input(Input::HeirReady).expect([]);
    history.killed(501, 9).expect(["NotUpgraded", "Answer false"]).expect_idle();
}

#[test]
fn a_stop_during_an_upgrade_ends_the_new_master_too() {
    let mut history = History::running(pool(1));
    history.command(7, Command::Upgrade { program: None }).input(Input::HeirStarted { pid: 500 }).actions.clear();
    history.signal(Term).expect(["Stopping", "Kill 500", "Answer false", "BeginStop", "Term 100"]);
    history.killed(500, 9).exits(100, 0).expect(["Draining 100", "Stopped", "Exit 0"]);
}

#[test]
fn process_1_is_not_upgraded() {
    let mut history = History::running(Plan { is_init: true, ..pool(1) });
    history.command(7, Command::Upgrade { program: None }).expect(["Asked", "NotUpgraded", "Answer false"]);
}

#[test]
fn an_heir_takes_over_with_all_its_workers_or_gives_up() {
    let heir = Plan { is_heir: true, ..pool(2) };
    let mut history = History::new(heir);
    history.start().spawned(0, 100).spawned(1, 101).ready(100).expect(["Spawn 0", "Spawn 1", "Ready"]);
    history.ready(101).expect(["Ready", "TakeOver"]).expect_idle();
    let mut history = History::new(heir);
    history.start().spawned(0, 100).spawned(1, 101).ready(100).actions.clear();
    for (pid, at) in [(101, 100), (102, 300)] {
        history.exits(pid, 1).deadline(at).spawned(1, pid + 1).actions.clear();
    }
    history.exits(103, 1).actions.retain(|action| !matches!(action, Action::Explain(_)));
    history.expect(["BackingOff", "StartFailed", "BeginStop", "Kill 100"]);
}

#[test]
fn scale_is_answered_when_all_serve_or_have_had_their_time() {
    let mut history = History::running(pool(1));
    history.command(7, Command::Scale { workers: 2 }).expect(["Asked", "ScaledUp", "Spawn 1"]);
    history.spawned(1, 101).ready(101).expect(["Ready", "Answer true"]);
    history.command(8, Command::Scale { workers: 1 }).expect(["Asked", "ScaledDown", "Term 101", "Answer true"]);
    history.command(9, Command::Scale { workers: 9 }).expect(["Asked", "Answer false"]);
    history.command(10, Command::Scale { workers: 0 }).expect(["Asked", "Retired", "Term 100", "Answer true"]);
    history.exits(100, 0).exits(101, 0).actions.clear();
    history.at(1000).command(11, Command::Scale { workers: 1 }).expect(["Asked", "ScaledUp", "Spawn 0"]);
    history.spawned(0, 102).deadline(61_000).expect(["Kill 102", "Answer false"]);
}

#[test]
fn stop_is_answered_at_the_end_and_now_means_now() {
    let mut history = History::running(pool(1));
    history.command(7, Command::Stop { now: false }).expect(["Asked", "Stopping", "BeginStop", "Term 100"]);
    history.command(8, Command::Stop { now: true }).expect(["Asked", "StoppingAtOnce", "Kill 100"]);
    history.command(9, Command::Stop { now: true }).expect(["Asked"]);
    let ends = ["CutOff 100", "Answer true", "Answer true", "Answer true", "Stopped", "Exit 0"];
    history.killed(100, 9).expect(ends);
}

#[test]
fn every_number_of_a_generation_is_new() {
    let mut history = History::running(pool(1));
    for generation in 2..5 {
        history.signal(Hup);
        history.input(Input::NotPrepared { generation, error: String::new() });
    }
    assert_eq!((history.machine.last_generation, history.machine.generation), (4, 1));
}
