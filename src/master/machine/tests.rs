//! Histories of the machine by name, one per rule. The storms are in `storms`.

mod care;
mod storms;
mod turnover;

use super::notice::Closing;
use super::*;
use crate::master::machine::messages::Signal::{Int, Quit, Term, Ttin, Ttou, Winch};
use crate::site::control::Command;

/// A process pool of so many, with easily told durations.
fn pool(slots: u32) -> Plan {
    Plan {
        slots,
        max_slots: 8,
        scalable: true,
        respawn_delay_max: ms(30_000),
        start_timeout: ms(60_000),
        graceful_timeout: ms(10_000),
        accept_window: ms(200),
        request_timeout: None,
        max_memory: None,
        tls_period: None,
        is_heir: false,
        is_init: false,
        on_terminal: false,
    }
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A machine, the time, and what it wants done since the last look.
struct History {
    machine: Machine,
    now: Duration,
    actions: Vec<Action>,
}

impl History {
    fn new(plan: Plan) -> Self {
        Self { machine: Machine::new(plan), now: Duration::ZERO, actions: Vec::new() }
    }

    /// All workers ready, at 0 ms, with pids from 100.
    fn running(plan: Plan) -> Self {
        let mut history = Self::new(plan);
        history.start();
        for (slot, pid) in (0..plan.slots).zip(100..) {
            history.spawned(slot, pid).ready(pid);
        }
        history.actions.clear();
        history
    }

    fn at(&mut self, at_ms: u64) -> &mut Self {
        self.now = ms(at_ms);
        self
    }

    fn input(&mut self, input: Input) -> &mut Self {
        self.machine.handle(self.now, input, &mut self.actions);
        self
    }

    fn start(&mut self) -> &mut Self {
        self.input(Input::Start)
    }

    fn signal(&mut self, signal: Signal) -> &mut Self {
        self.input(Input::Signal(signal))
    }

    fn spawned(&mut self, slot: u32, pid: Pid) -> &mut Self {
        self.spawned_of(1, slot, pid)
    }

    fn spawned_of(&mut self, generation: u32, slot: u32, pid: Pid) -> &mut Self {
        self.input(Input::Spawned { slot, generation, pid })
    }

    fn reported(&mut self, pid: Pid, report: Report) -> &mut Self {
        self.input(Input::Reported { pid, report })
    }

    fn command(&mut self, ticket: u64, command: Command) -> &mut Self {
        self.input(Input::Command { ticket, command })
    }

    fn spawn_failed(&mut self, slot: u32) -> &mut Self {
        self.input(Input::SpawnFailed { slot, generation: 1, error: "fork: out of memory".to_owned() })
    }

    fn ready(&mut self, pid: Pid) -> &mut Self {
        self.input(Input::Reported { pid, report: Report::Ready })
    }

    fn exits(&mut self, pid: Pid, code: i32) -> &mut Self {
        self.input(Input::Exited { pid, exit: Exit::Code(code), work: Work::default() })
    }

    fn killed(&mut self, pid: Pid, signal: i32) -> &mut Self {
        self.input(Input::Exited { pid, exit: Exit::Signal(signal), work: Work::default() })
    }

    /// Lets time pass up to the deadline, which must be this one.
    fn deadline(&mut self, at_ms: u64) -> &mut Self {
        assert_eq!(self.machine.next_deadline(), Some(ms(at_ms)));
        self.at(at_ms).input(Input::Deadline);
        assert!(self.machine.next_deadline().is_none_or(|next| next > self.now), "a busy loop");
        self
    }

    #[track_caller]
    fn expect<const N: usize>(&mut self, wanted: [&str; N]) -> &mut Self {
        let actions: Vec<String> = self.actions.drain(..).map(|action| brief(&action)).collect();
        assert_eq!(actions, wanted, "at {:?}", self.now);
        self
    }

    #[track_caller]
    fn expect_idle(&mut self) -> &mut Self {
        self.expect([]);
        assert_eq!(self.machine.next_deadline(), None);
        self
    }
}

/// One or two words for each action; of notices the name.
fn brief(action: &Action) -> String {
    match action {
        Action::Spawn { slot, .. } => format!("Spawn {slot}"),
        Action::Signal { pid, signal } => format!("{signal:?} {pid}"),
        Action::BeginStop => "BeginStop".into(),
        Action::TendTls => "TendTls".into(),
        Action::Prepare { generation } => format!("Prepare {generation}"),
        Action::Commit => "Commit".into(),
        Action::Abandon => "Abandon".into(),
        Action::Upgrade { .. } => "Upgrade".into(),
        Action::HandOver => "HandOver".into(),
        Action::TakeOver => "TakeOver".into(),
        Action::Reopen { .. } => "Reopen".into(),
        Action::Observe => "Observe".into(),
        Action::Answer { outcome, .. } => format!("Answer {}", outcome.is_ok()),
        Action::Explain(death) => format!("{:?} {}", death.life, death.worker.pid),
        Action::Say(Notice::Turnover(turnover)) => first_word(turnover),
        Action::Say(Notice::Care(care)) => first_word(care),
        Action::Say(notice) => first_word(notice),
        Action::Exit { code } => format!("Exit {code}"),
    }
}

fn first_word(notice: &impl std::fmt::Debug) -> String {
    format!("{notice:?}").split([' ', '(']).next().unwrap_or_default().to_owned()
}

#[test]
fn start_forks_every_slot_and_ready_workers_end_it() {
    let mut history = History::new(pool(2));
    history.start().expect(["Spawn 0", "Spawn 1"]);
    history.at(1).spawned(0, 100).spawned(1, 101).expect([]);
    history.at(50).ready(101).expect(["Ready"]);
    history.at(60).ready(100).expect(["Ready"]).expect_idle();
    history.start().expect_idle();
}

/// One worker, with TLS.
fn with_tls() -> Plan {
    Plan { tls_period: Some(ms(500_000)), ..pool(1) }
}

#[test]
fn tls_is_tended_at_the_start_and_once_in_every_period() {
    let mut history = History::new(with_tls());
    history.start().expect(["TendTls", "Spawn 0"]);
    history.spawned(0, 100).ready(100).expect(["Ready"]);
    history.deadline(500_000).expect(["TendTls"]).deadline(1_000_000).expect(["TendTls"]);
    history.at(1_000_001).input(Input::Deadline).start().expect([]);
    history.at(1_499_999).killed(100, 9).expect(["Serving 100", "Spawn 0"]);
    history.spawned(0, 101).ready(101).expect(["Ready"]).deadline(1_500_000).expect(["TendTls"]);
}

#[test]
fn tls_is_tended_once_after_a_standstill_of_many_periods_and_that_is_not_told() {
    let mut history = History::running(with_tls());
    history
        .at(9_000_000)
        .input(Input::Reported { pid: 9999, report: Report::Ready })
        .input(Input::Deadline)
        .expect(["TendTls"]);
    history.deadline(9_500_000).expect(["TendTls"]);
}

#[test]
fn tls_is_not_tended_once_a_stop_began() {
    let mut history = History::running(Plan { graceful_timeout: ms(900_000), ..with_tls() });
    history.at(1000).signal(Term).expect(["Stopping", "BeginStop", "Term 100"]);
    history.at(600_000).input(Input::Deadline).expect([]);
    history.deadline(901_200).expect(["Kill 100"]);
    history.killed(100, 9).expect(["CutOff 100", "Stopped", "Exit 0"]).expect_idle();
}

#[test]
fn a_ready_worker_that_dies_is_replaced_at_once() {
    let mut history = History::running(pool(2));
    history.at(500).killed(101, 9).expect(["Serving 101", "Spawn 1"]);
    history.spawned(1, 102).at(510).ready(102).expect(["Ready"]).expect_idle();
}

#[test]
fn a_slot_forks_at_most_ten_times_a_second() {
    let mut history = History::running(pool(1));
    history.at(20).killed(100, 11).expect(["Serving 100"]);
    history.deadline(100).expect(["Spawn 0"]);
    history.spawned(0, 101).at(101).ready(101).at(102).killed(101, 11).expect(["Ready", "Serving 101"]);
    history.deadline(200).expect(["Spawn 0"]);
}

#[test]
fn failures_before_ready_back_off_and_ready_resets_them() {
    let mut history = History::running(Plan { respawn_delay_max: ms(500), ..pool(2) });
    history.at(1000).exits(100, 1).expect(["Serving 100", "Spawn 0"]);
    for (pid, due) in [(200, 1100), (201, 1300), (202, 1700), (203, 2200), (204, 2700)] {
        history.spawned(0, pid).exits(pid, 1).expect([&format!("Booting {pid}"), "BackingOff"]);
        history.deadline(due).expect(["Spawn 0"]);
    }
    history.spawned(0, 300).at(2800).ready(300).at(3000).exits(300, 1).expect(["Ready", "Serving 300", "Spawn 0"]);
    history.spawned(0, 301).exits(301, 1).deadline(3100);
}

#[test]
fn a_failed_fork_backs_off_and_the_other_slots_go_on() {
    let mut history = History::running(pool(2));
    history.at(1000).killed(100, 9).expect(["Serving 100", "Spawn 0"]);
    history.spawn_failed(0).expect(["NotForked"]);
    history.at(1050).killed(101, 9).expect(["Serving 101", "Spawn 1"]);
    history.spawned(1, 102).ready(102).expect(["Ready"]);
    history.deadline(1100).expect(["Spawn 0"]);
    history.spawn_failed(0).expect(["NotForked"]).deadline(1300).expect(["Spawn 0"]);
}

#[test]
fn a_worker_that_is_not_ready_in_time_is_killed_and_counts_as_failed() {
    let mut history = History::running(pool(2));
    history.at(1000).killed(100, 9).spawned(0, 102).expect(["Serving 100", "Spawn 0"]);
    history.deadline(61_000).expect(["Kill 102"]);
    history.at(61_005).ready(102).expect([]);
    history.at(61_010).killed(102, 9).expect(["Overdue 102", "BackingOff"]).deadline(61_110).expect(["Spawn 0"]);
}

#[test]
fn a_start_ends_with_3_when_every_slot_failed_three_times() {
    let mut history = History::new(pool(2));
    history.start().spawned(0, 100).spawned(1, 101).exits(100, 9).expect([
        "Spawn 0",
        "Spawn 1",
        "Booting 100",
        "BackingOff",
    ]);
    history.deadline(100).spawned(0, 102).exits(102, 9).deadline(300).spawned(0, 103).exits(103, 9);
    history.deadline(700).spawned(0, 104).actions.clear();
    history.exits(101, 9).deadline(800).spawned(1, 105).exits(105, 9).deadline(1000).actions.clear();
    history.spawn_failed(1);
    let said = history.actions[1].clone();
    history.expect(["NotForked", "StartFailed", "BeginStop", "Kill 104"]);
    history.killed(104, 9).expect(["CutOff 104", "Stopped", "Exit 3"]).expect_idle();
    let Action::Say(notice) = said else { panic!("{said:?}") };
    assert!(notice.to_string().contains("worker=1 could not be forked: fork: out of memory"), "{notice}");
}

#[test]
fn a_start_ends_with_3_when_nobody_is_ready_in_time() {
    let mut history = History::new(pool(2));
    history.start().at(5).spawned(0, 100).spawned(1, 101).expect(["Spawn 0", "Spawn 1"]);
    history.deadline(60_000).expect(["StartFailed", "BeginStop", "Kill 100", "Kill 101"]);
    history.signal(Int).expect(["AlreadyStopping"]);
    history.at(60_001).killed(101, 9).killed(100, 9).expect(["CutOff 101", "CutOff 100", "Stopped", "Exit 3"]);
}

#[test]
fn one_ready_worker_is_enough_to_go_on_trying() {
    let mut history = History::new(pool(2));
    history.start().spawned(0, 100).spawned(1, 101).ready(100).actions.clear();
    for (pid, due) in [(101, 100), (102, 300), (103, 700), (104, 1500)] {
        history.exits(pid, 1).expect([&format!("Booting {pid}"), "BackingOff"]).deadline(due).expect(["Spawn 1"]);
        history.spawned(1, pid + 1);
    }
}

#[test]
fn repeated_deaths_are_logged_as_a_count() {
    let mut history = History::running(pool(1));
    for (pid, at_ms) in (100..150).zip((1000..).step_by(110)) {
        history.at(at_ms).killed(pid, 11).spawned(0, pid + 1).ready(pid + 1);
    }
    let explained = history.actions.iter().filter(|action| matches!(action, Action::Explain(_))).count();
    let said = history.actions.iter().filter(|action| matches!(action, Action::Say(_))).count();
    assert_eq!((explained, said), (10, 10), "ten deaths and the ten that came after them");
    history.actions.clear();
    let first_withheld_ms = 1000 + 110 * 10;
    history.deadline(first_withheld_ms + 10_000).expect(["Withheld"]).expect_idle();
}

#[test]
fn term_drains_and_ends_with_0() {
    let mut history = History::running(pool(2));
    history.at(1000).signal(Term).expect(["Stopping", "BeginStop", "Term 100", "Term 101"]);
    history.at(1500).exits(100, 0).expect(["Draining 100"]);
    history.at(1600).exits(101, 0);
    let report = Closing { left: 2, took: ms(600), ..Closing::default() };
    assert_eq!(history.actions[1], Action::Say(Notice::Stopped(report)));
    history.expect(["Draining 101", "Stopped", "Exit 0"]).expect_idle();
}

#[test]
fn quit_and_the_first_int_stop_like_term() {
    for signal in [Quit, Int] {
        let mut history = History::running(Plan { accept_window: ms(3000), ..pool(1) });
        history.signal(signal).expect(["Stopping", "BeginStop", "Term 100"]);
        history.exits(100, 0).expect(["Draining 100", "Stopped", "Exit 0"]);
    }
}

#[test]
fn what_is_not_done_in_time_is_cut_off() {
    let mut history = History::running(pool(3));
    history.at(1000).signal(Term).actions.clear();
    history.at(2000).exits(101, 0).at(3000).killed(102, 11).expect(["Draining 101", "Draining 102"]);
    history.deadline(1000 + 200 + 10_000).expect(["Kill 100"]);
    history.at(11_201).killed(100, 9);
    let report = Closing { left: 1, died: 1, cut_off: 1, stuck: 0, took: ms(10_201), ..Closing::default() };
    assert_eq!(history.actions[1], Action::Say(Notice::Stopped(report)));
    history.expect(["CutOff 100", "Stopped", "Exit 0"]);
}

#[test]
fn a_second_term_or_quit_changes_nothing() {
    let mut history = History::running(pool(1));
    history.signal(Term).expect(["Stopping", "BeginStop", "Term 100"]);
    history.at(100).signal(Term).signal(Quit).expect(["AlreadyStopping", "AlreadyStopping"]);
    history.deadline(10_200).expect(["Kill 100"]);
}

#[test]
fn a_second_int_kills_at_once() {
    let mut history = History::running(pool(2));
    history.signal(Int).expect(["Stopping", "BeginStop", "Term 100", "Term 101"]);
    history.at(50).exits(100, 0).signal(Int).expect(["Draining 100", "StoppingAtOnce", "Kill 101"]);
    history.signal(Int).expect(["AlreadyStopping"]);
    history.at(51).killed(101, 9).expect(["CutOff 101", "Stopped", "Exit 0"]);
}

#[test]
fn after_term_the_first_int_warns_and_the_second_kills() {
    let mut history = History::running(pool(1));
    history.signal(Term).expect(["Stopping", "BeginStop", "Term 100"]);
    history.signal(Int).expect(["InterruptAgain"]).signal(Int).expect(["StoppingAtOnce", "Kill 100"]);
}

#[test]
fn the_dead_are_not_replaced_while_stopping() {
    let mut history = History::running(pool(2));
    history.at(10).killed(100, 9).expect(["Serving 100"]);
    history.at(20).signal(Term).expect(["Stopping", "BeginStop", "Term 101"]);
    history.at(200).input(Input::Deadline).killed(101, 9).expect(["Draining 101", "Stopped", "Exit 0"]);
}

#[test]
fn a_fork_that_races_with_a_stop_is_dismissed_too() {
    let mut history = History::running(pool(2));
    history.at(1000).killed(100, 9).signal(Term).actions.clear();
    history.exits(101, 0).expect(["Draining 101"]);
    history.at(1001).spawned(0, 102).expect(["Term 102"]).ready(102).expect([]);
    history.killed(102, 15).expect(["Draining 102", "Stopped", "Exit 0"]);

    let mut history = History::running(pool(1));
    history.at(1000).killed(100, 9).signal(Int).signal(Int).actions.clear();
    history.spawned(0, 102).expect(["Kill 102"]);

    let mut history = History::running(pool(1));
    history.at(1000).killed(100, 9).signal(Term).actions.clear();
    history.spawn_failed(0).expect(["Stopped", "Exit 0"]);
}

#[test]
fn a_signal_stops_a_start_as_well() {
    let mut history = History::new(pool(1));
    history.start().spawned(0, 100).expect(["Spawn 0"]);
    history.at(10).signal(Term).expect(["Stopping", "BeginStop", "Term 100"]);
    history.at(500).exits(100, 1).expect(["Draining 100", "Stopped", "Exit 0"]);

    let mut history = History::new(pool(1));
    history.signal(Term).expect(["Stopping", "BeginStop", "Stopped", "Exit 0"]);
    history.start().expect_idle();
}

#[test]
fn a_worker_that_cannot_be_killed_does_not_hold_up_the_end() {
    let mut history = History::running(pool(2));
    history.at(1000).signal(Int).signal(Int).at(1001).killed(100, 9).actions.clear();
    history.deadline(6000).expect(["Unkillable", "Stopped", "Exit 1"]).expect_idle();
}

#[test]
fn a_worker_that_cannot_be_killed_keeps_its_slot_and_is_told_once() {
    let mut history = History::running(pool(2));
    history.at(1000).signal(Ttou).expect(["ScaledDown", "Term 101"]);
    history.deadline(11_000).expect(["Kill 101"]).deadline(16_000).expect(["Unkillable"]).expect_idle();
    history.at(20_000).signal(Ttin).expect(["ScaledUp", "Spawn 2"]);
    history.spawned(2, 102).ready(102).killed(101, 9).expect(["Ready", "CutOff 101"]).expect_idle();
}

#[test]
fn ttin_takes_the_lowest_number_without_a_process() {
    let mut history = History::running(pool(2));
    history.at(1000).signal(Ttou).expect(["ScaledDown", "Term 101"]);
    history.signal(Ttin).expect(["ScaledUp", "Spawn 2"]);
    history.spawned(2, 102).ready(102).exits(101, 0).expect(["Ready", "Draining 101"]);
    history.signal(Ttin).expect(["ScaledUp", "Spawn 1"]);
}

#[test]
fn ttin_without_a_free_number_waits_for_one() {
    let mut history = History::running(Plan { max_slots: 2, ..pool(2) });
    history.at(1000).signal(Ttin).expect(["AtMost"]);
    history.signal(Ttou).signal(Ttin).expect(["ScaledDown", "Term 101", "ScaledUp"]);
    history.at(2000).exits(101, 0).expect(["Draining 101", "Spawn 1"]);
}

#[test]
fn ttou_retires_the_highest_and_keeps_the_last() {
    let mut history = History::running(pool(2));
    history.at(1000).signal(Ttou).signal(Ttou).expect(["ScaledDown", "Term 101", "AtLeast"]);
    history.deadline(11_000).expect(["Kill 101"]);
    history.killed(101, 9).expect(["CutOff 101"]).expect_idle();
}

#[test]
fn ttou_ends_the_wait_of_a_slot_that_backs_off() {
    let mut history = History::running(pool(2));
    history.at(1000).exits(101, 1).spawn_failed(1).signal(Ttou).expect([
        "Serving 101",
        "Spawn 1",
        "NotForked",
        "ScaledDown",
    ]);
    history.expect_idle();
}

#[test]
fn winch_retires_all_and_ttin_brings_them_back_one_by_one() {
    let mut history = History::running(pool(2));
    history.at(1000).signal(Winch).expect(["Retired", "Term 100", "Term 101"]);
    history.at(2000).exits(100, 0).exits(101, 0).expect(["Draining 100", "Draining 101"]).expect_idle();
    history.at(3000).signal(Ttou).expect(["AtLeast"]);
    history.signal(Ttin).signal(Ttin).expect(["ScaledUp", "Spawn 0", "ScaledUp", "Spawn 1"]);
}

#[test]
fn winch_during_a_start_leaves_a_master_without_workers() {
    let mut history = History::new(pool(1));
    history.start().spawned(0, 100).signal(Winch).expect(["Spawn 0", "Retired", "Term 100"]);
    history.exits(100, 0).expect(["Draining 100"]).expect_idle();
}

#[test]
fn winch_from_a_terminal_is_a_resize() {
    History::running(Plan { on_terminal: true, ..pool(1) }).signal(Winch).expect(["Resized"]).expect_idle();
}

#[test]
fn a_single_worker_is_not_scaled_but_comes_back_after_winch() {
    let mut history = History::running(Plan { scalable: false, max_slots: 2, ..pool(1) });
    history.at(1000).signal(Ttin).signal(Ttou).expect(["NotScalable", "NotScalable"]);
    history.signal(Winch).exits(100, 0).expect(["Retired", "Term 100", "Draining 100"]);
    history.signal(Ttin).expect(["ScaledUp", "Spawn 0"]).signal(Ttin).expect(["NotScalable"]);
}

#[test]
fn a_worker_forked_for_a_slot_no_longer_wanted_is_asked_to_leave() {
    let mut history = History::running(pool(2));
    history.at(1000).killed(101, 9).signal(Ttou).expect(["Serving 101", "Spawn 1", "ScaledDown"]);
    history.spawned(1, 102).expect(["Term 102"]).exits(102, 0).expect(["Draining 102"]).expect_idle();
}

#[test]
fn scaling_means_nothing_before_the_start_and_while_stopping() {
    let mut history = History::new(pool(1));
    history.signal(Ttin).expect(["Ignored"]);
    let mut history = History::running(pool(1));
    history.signal(Term).actions.clear();
    history.signal(Ttin).signal(Ttou).signal(Winch).expect(["Ignored", "Ignored", "Ignored"]);
}

#[test]
fn strangers_and_early_deadlines_are_nothing() {
    let mut history = History::running(pool(1));
    history.at(10).exits(7777, 1).ready(7777).input(Input::Deadline).spawned(0, 7777).expect_idle();
    history.spawned(99, 7777).spawn_failed(0).ready(100).expect_idle();
}

#[test]
fn a_standstill_costs_nobody_its_time() {
    let mut history = History::running(pool(2));
    history.at(1000).killed(100, 9).spawned(0, 102).signal(Ttou).actions.clear();
    // 1 s later all is suspended for an hour: the deadlines at 11 s and 61 s pass, unnoticed by everybody.
    history.at(2000).input(Input::Deadline).expect([]);
    history.at(3_602_000).input(Input::Deadline).expect(["StoodStill"]);
    history.deadline(3_602_000 + 9_000).expect(["Kill 101"]);
}

#[test]
fn a_standstill_during_the_start_does_not_end_it() {
    let mut history = History::new(pool(1));
    history.start().spawned(0, 100).expect(["Spawn 0"]);
    history.at(3_600_000).input(Input::Deadline).expect(["StoodStill"]);
    history.at(3_600_500).ready(100).expect(["Ready"]).expect_idle();
}
