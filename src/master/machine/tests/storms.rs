//! Seeded storms: a simulated world of failing forks, dying and deaf workers, signals and leaps of the clock, against
//! what must hold whatever happens. `REGROW_FUZZ_SECONDS` runs more seeds, `REGROW_FUZZ_SEED` one again, with its history.

use std::collections::{BTreeMap, VecDeque};
use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Instant;

use super::*;
use crate::master::machine::failure::{SHOWN_MAX, WINDOW};

const SEEDS: u64 = 3000;
const STORM_STEPS: u32 = 250;

#[test]
fn no_storm_breaks_the_invariants() {
    let variable = |name| env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    if let Some(seed) = variable("REGROW_FUZZ_SEED") {
        return weather(seed, true);
    }
    let (begin, seconds) = (Instant::now(), variable("REGROW_FUZZ_SECONDS").unwrap_or(0));
    for seed in (0..).take_while(|seed| *seed < SEEDS || begin.elapsed().as_secs() < seconds) {
        if let Err(panic) = catch_unwind(|| weather(seed, false)) {
            eprintln!("history of REGROW_FUZZ_SEED={seed}:");
            let _again = catch_unwind(AssertUnwindSafe(|| weather(seed, true)));
            resume_unwind(panic);
        }
    }
}

/// One life of a master: a storm, then calm, then (where it still runs) a stop.
fn weather(seed: u64, tell: bool) {
    let mut world = World::new(seed, tell);
    world.input(Input::Start);
    for _ in 0..STORM_STEPS {
        world.brew();
        world.step();
    }
    world.calm();
    if !world.stopping() {
        world.run_for(
            world.plan.start_timeout + world.plan.graceful_timeout + world.plan.respawn_delay_max + ms(10_000),
        );
    }
    if !world.stopping() {
        world.all_serve();
        world.input(Input::Signal(Term));
    }
    world.run_for(world.plan.accept_window + world.plan.graceful_timeout + REAP_TIMEOUT + ms(1000));
    world.ended();
}

/// What will happen of itself.
#[derive(Clone, Debug)]
enum Event {
    Input(Input),
    /// The process with this serial number reports.
    Boot(u64),
    /// The process with this serial number is reaped.
    Die(u64, Exit),
}

#[derive(Debug)]
struct Process {
    serial: u64,
    slot: u32,
    told: bool,
    ready: bool,
    killed: bool,
}

struct World {
    random: Random,
    tell: bool,
    calm: bool,
    /// How many of ten workers have a bad fate.
    cruelty: u64,
    /// The storm may bring signals to stop.
    impatient: bool,
    plan: Plan,
    machine: Machine,
    now: Duration,
    events: BTreeMap<(Duration, u64), Event>,
    serial: u64,
    live: BTreeMap<Pid, Process>,
    /// Spawns that were not answered yet.
    open: Vec<u32>,
    forked: BTreeMap<u32, Duration>,
    expired: VecDeque<Duration>,
    failures_told: VecDeque<Duration>,
    /// Lines that may still be logged for what happened so far.
    lines_allowed: u64,
    stop_asked: bool,
    began_stop: bool,
    ever_ready: bool,
    exit: Option<i32>,
    tended: Option<Duration>,
}

impl World {
    fn new(seed: u64, tell: bool) -> Self {
        let mut random = Random(seed);
        let slots = random.between(1, 5);
        let (cruelty, impatient) = (random.below(11), random.one_in(3));
        let scalable = slots > 1 || random.one_in(2);
        let plan = Plan {
            slots,
            max_slots: slots + random.between(0, 4),
            scalable,
            respawn_delay_max: ms(random.below(20_000)),
            start_timeout: ms(1000 + random.below(30_000)),
            graceful_timeout: ms(random.below(20_000)),
            accept_window: ms(200 + random.below(2000)),
            tls_period: random.one_in(2).then(|| ms(1000 + random.below(30_000))),
            request_timeout: None,
            max_memory: None,
            is_heir: false,
            is_init: false,
            on_terminal: random.one_in(4),
        };
        Self {
            random,
            tell,
            calm: false,
            cruelty,
            impatient,
            plan,
            machine: Machine::new(plan),
            now: ms(1_000_000),
            events: BTreeMap::new(),
            serial: 0,
            live: BTreeMap::new(),
            open: Vec::new(),
            forked: BTreeMap::new(),
            expired: VecDeque::new(),
            failures_told: VecDeque::new(),
            lines_allowed: u64::from(slots),
            stop_asked: false,
            began_stop: false,
            ever_ready: false,
            exit: None,
            tended: None,
        }
    }

    /// Adds something bad to come, or at least something odd.
    fn brew(&mut self) {
        let soon = self.random.below(3000);
        match self.random.below(60) {
            0..=2 => self.later(soon, Event::Input(Input::Signal(Ttin))),
            3..=5 => self.later(soon, Event::Input(Input::Signal(Ttou))),
            6 if self.random.one_in(3) => self.later(soon, Event::Input(Input::Signal(Winch))),
            7 if self.impatient => self.later(soon, Event::Input(Input::Signal(Term))),
            8 if self.impatient => self.later(soon, Event::Input(Input::Signal(Int))),
            9 if self.impatient => self.later(soon, Event::Input(Input::Signal(Quit))),
            10..=13 if self.stop_asked => self.later(soon, Event::Input(Input::Signal(Int))),
            14 => {
                self.later(soon, Event::Input(Input::Exited { pid: 9999, exit: Exit::Code(0), work: Work::default() }));
            }
            15 => self.later(soon, Event::Input(Input::Reported { pid: 9999, report: Report::Ready })),
            16 => self.later(soon, Event::Input(Input::Deadline)),
            17 if self.random.one_in(3) => self.leap(),
            20..=29 => self.doom(),
            _ => {}
        }
    }

    /// All stood still for up to an hour.
    fn leap(&mut self) {
        self.now += ms(self.random.below(3_600_000));
        self.lines_allowed += 1;
        self.note("the clock leaps");
        self.input(Input::Deadline);
    }

    /// Somebody dies soon.
    fn doom(&mut self) {
        let victim = self.random.below(self.live.len() as u64 + 1);
        if let Some(serial) = self.live.values().nth(usize::try_from(victim).unwrap()).map(|process| process.serial) {
            let soon = self.random.below(500);
            let exit = if self.random.one_in(3) { Exit::Code(1) } else { Exit::Signal(11) };
            self.later(soon, Event::Die(serial, exit));
        }
    }

    /// From now on forks succeed, workers boot and obey, and the killed die.
    fn calm(&mut self) {
        self.note("calm");
        self.calm = true;
        self.events.retain(|_, event| matches!(event, Event::Die(..)));
        for slot in self.open.clone() {
            self.answer(slot);
        }
        let killed: Vec<u64> =
            self.live.values().filter(|process| process.killed).map(|process| process.serial).collect();
        for serial in killed {
            self.later(10, Event::Die(serial, Exit::Signal(9)));
        }
    }

    fn run_for(&mut self, span: Duration) {
        let end = self.now + span;
        while self.next_instant().is_some_and(|next| next <= end) {
            self.step();
        }
        self.now = self.now.max(end);
    }

    fn next_instant(&self) -> Option<Duration> {
        let event = self.events.keys().next().map(|(at, _)| *at);
        [event, self.machine.next_deadline()].into_iter().flatten().min().map(|next| next.max(self.now))
    }

    /// The next thing happens: an event, or else the deadline, a little late.
    fn step(&mut self) {
        let event = self.events.first_key_value().map(|((at, _), _)| *at);
        let deadline = self.machine.next_deadline();
        if event.is_some_and(|event| deadline.is_none_or(|deadline| event <= deadline)) {
            let ((at, _), event) = self.events.pop_first().unwrap();
            self.now = self.now.max(at);
            self.happen(event);
        } else if let Some(deadline) = deadline {
            let late = if self.calm { 0 } else { self.random.below(50) };
            self.now = self.now.max(deadline) + ms(late);
            self.input(Input::Deadline);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Input(Input::Spawned { slot, .. }) => self.answer(slot),
            Event::Input(input) => self.input(input),
            Event::Boot(serial) => {
                let Some((pid, process)) = self.live.iter_mut().find(|(_, process)| process.serial == serial) else {
                    return;
                };
                (process.ready, self.ever_ready) = (true, self.ever_ready || !process.told);
                let pid = *pid;
                self.input(Input::Reported { pid, report: Report::Ready });
            }
            Event::Die(serial, exit) => {
                let Some(pid) = self.live.iter().find(|(_, process)| process.serial == serial).map(|(pid, _)| *pid)
                else {
                    return;
                };
                self.live.remove(&pid);
                self.input(Input::Exited { pid, exit, work: Work::default() });
            }
        }
    }

    fn later(&mut self, in_ms: u64, event: Event) {
        self.serial += 1;
        self.events.insert((self.now + ms(in_ms), self.serial), event);
    }

    /// Answers a spawn: with a failure, or with a process and its fate.
    fn answer(&mut self, slot: u32) {
        self.open.retain(|open| *open != slot);
        if !self.calm && self.random.below(20) < self.cruelty {
            return self.input(Input::SpawnFailed { slot, generation: 1, error: "fork: no more processes".to_owned() });
        }
        self.serial += 1;
        let serial = self.serial;
        // The lowest free pid: they are used again as soon as they can be.
        let pid = (100..10_000).find(|pid| !self.live.contains_key(pid)).unwrap();
        self.live.insert(pid, Process { serial, slot, told: false, ready: false, killed: false });
        let good = self.calm || self.random.below(10) >= self.cruelty;
        let (fate, soon) = (if good { 9 } else { self.random.below(5) }, 1 + self.random.below(200));
        match fate {
            0 => {}
            1..=2 => self.later(soon, Event::Die(serial, Exit::Code(3))),
            3..=4 => {
                self.later(soon, Event::Boot(serial));
                self.later(soon + 50, Event::Die(serial, Exit::Signal(6)));
            }
            _ => self.later(soon, Event::Boot(serial)),
        }
        self.input(Input::Spawned { slot, generation: 1, pid });
    }

    fn input(&mut self, input: Input) {
        let mut actions = Vec::new();
        let deadline = input == Input::Deadline;
        if let Input::Signal(signal) = input {
            self.lines_allowed += 2; // what it says, and the worker that it may bring
            self.stop_asked |= matches!(signal, Term | Quit | Int);
        }
        self.note(&format!("{input:?}"));
        self.machine.handle(self.now, input, &mut actions);
        if deadline {
            self.check_pace();
        }
        let mut spawns = Vec::new();
        for action in actions {
            self.note(&format!("    {action:?}"));
            assert_eq!(self.exit, None, "nothing follows the exit");
            self.perform(action, &mut spawns);
        }
        self.check();
        for slot in spawns {
            self.fork(slot);
        }
    }

    fn fork(&mut self, slot: u32) {
        if !self.calm && self.random.one_in(5) {
            let soon = self.random.below(200);
            return self.later(soon, Event::Input(Input::Spawned { slot, generation: 1, pid: 0 }));
        }
        self.answer(slot);
    }

    fn perform(&mut self, action: Action, spawns: &mut Vec<u32>) {
        match action {
            Action::Spawn { slot, generation } => {
                self.check_spawn(slot, generation);
                self.open.push(slot);
                spawns.push(slot);
            }
            Action::Signal { pid, signal } => self.told(pid, signal),
            Action::BeginStop => {
                assert!(!self.began_stop, "a stop begins once");
                self.began_stop = true;
            }
            Action::TendTls => self.tend(),
            Action::Answer { .. }
            | Action::Prepare { .. }
            | Action::Commit
            | Action::Abandon
            | Action::Upgrade { .. }
            | Action::HandOver
            | Action::TakeOver
            | Action::Reopen { .. }
            | Action::Observe => {}
            Action::Explain(death) => {
                if death.as_asked() {
                    self.lines_allowed += 2; // this line, and the worker that may come after it
                } else {
                    self.failure_told();
                }
                self.log();
            }
            Action::Say(notice) => self.said(&notice),
            Action::Exit { code } => self.exits(code),
        }
    }

    fn tend(&mut self) {
        assert!(!self.began_stop, "nothing is tended once a stop began");
        let period = self.plan.tls_period.expect("only TLS is tended");
        let last = self.tended.replace(self.now);
        assert!(last.is_none_or(|last| self.since(last) >= period), "tended too early");
    }

    /// What a worker makes of a signal.
    fn told(&mut self, pid: Pid, signal: WorkerSignal) {
        let process = self.live.get_mut(&pid).expect("signals go to processes that were not reaped");
        process.told = true;
        let serial = process.serial;
        match signal {
            WorkerSignal::Kill => {
                assert!(!process.killed, "killed once");
                process.killed = true;
                // Sometimes the kernel holds it for long.
                let takes = if !self.calm && self.random.one_in(10) { 30_000 } else { 50 };
                let delay = self.random.below(takes);
                self.later(delay, Event::Die(serial, Exit::Signal(9)));
            }
            WorkerSignal::Term if !self.calm && self.random.one_in(4) => {}
            WorkerSignal::Term => {
                let delay = self.random.below(15_000);
                self.later(delay, Event::Die(serial, Exit::Code(0)));
            }
        }
    }

    fn said(&mut self, notice: &Notice) {
        match notice {
            Notice::NotForked { .. } => self.failure_told(),
            // At most one in a window, or the last one; and one for each process that was killed.
            // At most one in a window, one for each process that was killed, and the last words.
            Notice::Withheld { .. } | Notice::Unkillable { .. } | Notice::StartFailed { .. } | Notice::Stopped(_) => {
                self.lines_allowed += 1;
            }
            // Allowed by what came before: a failure, a signal, a leap.
            Notice::Ready { .. }
            | Notice::BackingOff { .. }
            | Notice::StoodStill { .. }
            | Notice::ScaledUp { .. }
            | Notice::ScaledDown { .. }
            | Notice::Retired { .. }
            | Notice::AtMost { .. }
            | Notice::AtLeast
            | Notice::NotScalable { .. }
            | Notice::Resized
            | Notice::Ignored { .. }
            | Notice::Stopping { .. }
            | Notice::AlreadyStopping { .. }
            | Notice::InterruptAgain
            | Notice::Asked { .. }
            | Notice::NotNow { .. }
            | Notice::Turnover(_)
            | Notice::Care(_)
            | Notice::StoppingAtOnce { .. } => {}
        }
        self.log();
    }

    /// A failure has its line, one on the pause before the next attempt, and one when the next worker is ready.
    fn failure_told(&mut self) {
        self.lines_allowed += 3;
        self.failures_told.push_back(self.now);
        while self.failures_told.front().is_some_and(|told| self.since(*told) >= WINDOW) {
            self.failures_told.pop_front();
        }
        assert!(self.failures_told.len() <= SHOWN_MAX, "too many failures told in {WINDOW:?}");
    }

    fn log(&mut self) {
        assert!(self.lines_allowed > 0, "more is logged than what happened is worth");
        self.lines_allowed -= 1;
    }

    fn exits(&mut self, code: i32) {
        assert!(self.began_stop, "the listener is let go of before the end");
        match code {
            0 => assert!(self.stop_asked && self.live.is_empty()),
            1 => assert!(self.stop_asked && self.live.values().all(|process| process.killed)),
            3 => assert!(!self.ever_ready && self.live.values().all(|process| process.killed)),
            other => panic!("exit code {other}"),
        }
        assert!(self.open.is_empty(), "forks are waited for");
        self.exit = Some(code);
    }

    /// No busy loop: deadlines come one after the other, and only so many in a second.
    fn check_pace(&mut self) {
        let next = self.machine.next_deadline();
        assert!(next.is_none_or(|next| next > self.now), "due again at once");
        self.expired.push_back(self.now);
        while self.expired.front().is_some_and(|expired| self.since(*expired) >= ms(1000)) {
            self.expired.pop_front();
        }
        let bound = 20 * self.plan.max_slots as usize + 20;
        assert!(self.expired.len() <= bound, "{} deadlines in a second", self.expired.len());
    }

    fn check_spawn(&mut self, slot: u32, generation: u32) {
        assert!(slot < self.plan.max_slots && generation == 1);
        assert!(!self.began_stop, "nothing is forked once a stop began");
        assert!(!self.open.contains(&slot) && self.live.values().all(|process| process.slot != slot), "occupied");
        let last = self.forked.insert(slot, self.now);
        assert!(last.is_none_or(|last| self.since(last) >= ms(100)), "more than ten forks a second");
    }

    fn check(&self) {
        if self.exit.is_some() {
            return;
        }
        let processes = self.live.len() + self.open.len();
        assert!(processes <= self.plan.max_slots as usize, "more processes than slots");
        let staying = self.live.values().filter(|process| !process.told).count();
        assert!(staying <= self.machine.children.wanted() as usize, "more workers than active slots");
        let known: Vec<Pid> = self.machine.children.living().map(|child| child.identity.pid).collect();
        assert!(
            known.len() == self.live.len() && known.iter().all(|pid| self.live.contains_key(pid)),
            "a pid is forgotten"
        );
        let waits = self.machine.next_deadline().is_some() || !self.events.is_empty() || !self.open.is_empty();
        assert!(waits || !self.stopping(), "a stop that nothing can end");
    }

    fn since(&self, then: Duration) -> Duration {
        self.now.saturating_sub(then)
    }

    fn stopping(&self) -> bool {
        self.began_stop
    }

    fn all_serve(&self) {
        let wanted = self.machine.children.wanted();
        assert!(wanted > 0 || !self.plan.on_terminal, "only WINCH leaves no worker");
        assert_eq!(self.machine.children.serving(), wanted, "after the storm every active slot serves");
        let overdue = |tended: Duration| Some(self.since(tended)) > self.plan.tls_period;
        assert_eq!(self.tended.is_some(), self.plan.tls_period.is_some());
        assert!(!self.tended.is_some_and(overdue), "TLS is forgotten");
        let ready = self.live.values().filter(|process| process.ready && !process.told).count();
        assert_eq!(ready, wanted as usize);
    }

    fn ended(&self) {
        assert!(self.exit.is_some(), "the stop takes longer than its timeouts allow");
        assert_eq!(self.machine.next_deadline(), None);
    }

    fn note(&self, what: &str) {
        if self.tell {
            eprintln!("{:>12} ms  {what}", self.now.as_millis());
        }
    }
}

/// `SplitMix64`: small, and the same everywhere.
#[derive(Clone)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn between(&mut self, begin: u32, end: u32) -> u32 {
        begin + u32::try_from(self.below(u64::from(end - begin))).unwrap()
    }

    fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}
