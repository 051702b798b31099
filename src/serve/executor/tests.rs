use std::collections::HashSet;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Condvar, Mutex};
use std::thread::ThreadId;

use super::*;
use crate::site::{Client, Origin, RequestBody, Response};

const MS: Duration = Duration::from_millis(1);

/// Runs until it is let go.
struct Held {
    began: Mutex<Sender<(String, ThreadId)>>,
    open: Mutex<bool>,
    opened: Condvar,
}

impl Handler for Held {
    fn handle(&self, exchange: Exchange) {
        let path = exchange.request().uri().path().to_owned();
        self.began.lock().unwrap().send((path.clone(), std::thread::current().id())).unwrap();
        let mut open = self.open.lock().unwrap();
        while !*open {
            open = self.opened.wait(open).unwrap();
        }
        drop(open);
        assert!(path != "/panic", "as asked");
        exchange.respond(Response::new("done".into()));
    }
}

struct Bench {
    handler: Arc<Held>,
    began: Receiver<(String, ThreadId)>,
    outbox: Arc<Outbox>,
    executor: Executor,
    serial: u64,
}

impl Bench {
    fn new(wanted: config::Runner) -> Self {
        let (tell, began) = mpsc::channel();
        let (open, opened) = (Mutex::new(false), Condvar::new());
        let handler = Arc::new(Held { began: Mutex::new(tell), open, opened });
        let site: Arc<dyn Handler> = Arc::<Held>::clone(&handler);
        let outbox = Arc::new(Outbox::new(|| {}));
        let runner = Runner::start(wanted, &site).unwrap();
        let poll = mio::Poll::new().unwrap();
        let site = Site { handler: site, outbox: Arc::clone(&outbox) };
        let executor = Executor::new(&runner, site, poll.registry(), 0).unwrap();
        Self { handler, began, outbox, executor, serial: 0 }
    }

    fn ask(&mut self, path: &str, now: Duration) -> ExchangeKey {
        self.serial += 1;
        let key = ExchangeKey { index: 0, serial: self.serial };
        let request = http::Request::builder().uri(path).body(RequestBody::default()).unwrap();
        let origin = Origin { client: Client::Unix, https: false };
        let exchange = Exchange::new(request, origin, key, Arc::clone(&self.outbox));
        self.executor.run(Job::Handle(exchange), now);
        key
    }

    fn next_began(&self) -> String {
        self.began.recv_timeout(Duration::from_secs(20)).unwrap().0
    }

    fn let_go(&self) {
        *self.handler.open.lock().unwrap() = true;
        self.handler.opened.notify_all();
    }

    /// The statuses of so many answers; jobs that are done make room, as in the loop.
    fn answers(&mut self, count: usize) -> Vec<u16> {
        let (mut statuses, mut deliveries, mut done) = (Vec::new(), Vec::new(), 0);
        while statuses.len() < count || done < count {
            self.outbox.collect(&mut deliveries);
            for delivery in deliveries.drain(..) {
                match delivery {
                    Delivery::Response(_, response) => statuses.push(response.status().as_u16()),
                    Delivery::JobDone(key, _) => {
                        done += 1;
                        self.executor.job_done(key, MS);
                    }
                    Delivery::Chunk(..) | Delivery::Drain(..) => panic!("nobody asked for it"),
                }
            }
            std::thread::yield_now();
        }
        statuses
    }
}

#[test]
fn so_many_run_at_once_and_the_others_wait_their_turn() {
    for wanted in [config::Runner::Pool(2), config::Runner::Threads(2)] {
        let mut bench = Bench::new(wanted);
        for path in ["/1", "/2", "/3", "/4"] {
            assert_eq!(bench.executor.is_busy(), path > "/2", "{wanted:?} before {path}");
            bench.ask(path, MS);
        }
        let first = HashSet::from([bench.next_began(), bench.next_began()]);
        assert_eq!(first, HashSet::from(["/1".to_owned(), "/2".to_owned()]), "{wanted:?}");
        assert!(bench.began.try_recv().is_err(), "{wanted:?}: a third runs");
        bench.let_go();
        assert_eq!(bench.answers(4), [200; 4]);
        assert!(!bench.executor.is_busy());
    }
}

#[test]
fn a_panic_is_a_500_and_makes_room() {
    for wanted in [config::Runner::Pool(1), config::Runner::Threads(1)] {
        let mut bench = Bench::new(wanted);
        bench.let_go();
        bench.ask("/panic", MS);
        bench.ask("/next", MS);
        assert_eq!(bench.answers(2), [500, 200], "{wanted:?}");
    }
}

#[test]
fn pool_threads_live_on_and_others_do_not() {
    for (wanted, threads) in [(config::Runner::Pool(1), 1), (config::Runner::Threads(1), 3)] {
        let mut bench = Bench::new(wanted);
        bench.let_go();
        let mut seen = HashSet::new();
        for _ in 0..3 {
            bench.ask("/panic", MS);
            assert_eq!(bench.answers(1), [500]);
            seen.insert(bench.began.recv().unwrap().1);
        }
        assert_eq!(seen.len(), threads, "{wanted:?}");
    }
}

#[test]
fn what_has_waited_long_enough_can_be_withdrawn_and_put_back_before_the_others() {
    let mut bench = Bench::new(config::Runner::Pool(1));
    bench.ask("/runs", MS);
    assert_eq!(bench.next_began(), "/runs");
    let pool = |bench: &Bench| match &bench.executor {
        Executor::Pool(pool) => pool.waiting_since(),
        Executor::Threads(_) | Executor::Processes(_) => unreachable!(),
    };
    assert_eq!(pool(&bench), None, "nothing waits");
    for (path, at) in [("/a", 2), ("/b", 3), ("/c", 9)] {
        bench.ask(path, at * MS);
    }
    assert_eq!(pool(&bench), Some(2 * MS));
    let Executor::Pool(seat) = &bench.executor else { unreachable!() };
    let path = |exchange: &Exchange| exchange.request().uri().path().to_owned();
    assert!(seat.withdraw(MS, |_| true).is_none(), "too soon");
    let (b, since) = seat.withdraw(5 * MS, |exchange| path(exchange) == "/b").unwrap();
    assert_eq!((path(&b), since), ("/b".to_owned(), 3 * MS));
    assert!(seat.withdraw(5 * MS, |exchange| path(exchange) == "/c").is_none(), "it came later");
    seat.put_back(b, since);
    bench.let_go();
    assert_eq!([bench.next_began(), bench.next_began(), bench.next_began()], ["/b", "/a", "/c"]);
    assert_eq!(bench.answers(4), [200; 4]);
}

#[test]
fn what_waits_for_a_client_that_is_gone_is_not_done() {
    for wanted in [config::Runner::Pool(1), config::Runner::Threads(1)] {
        let mut bench = Bench::new(wanted);
        let runs = bench.ask("/runs", MS);
        assert_eq!(bench.next_began(), "/runs");
        let [gone, _] = ["/gone", "/waits"].map(|path| bench.ask(path, MS));
        for key in [gone, gone, runs] {
            bench.executor.forget(key, String::new);
        }
        bench.let_go();
        assert_eq!(bench.answers(2), [200; 2], "{wanted:?}");
        assert_eq!(bench.next_began(), "/waits", "{wanted:?}");
        assert!(!bench.executor.is_busy(), "{wanted:?}");
    }
}

#[test]
fn loops_that_share_a_pool_forget_only_what_is_their_own() {
    let mut bench = Bench::new(config::Runner::Pool(1));
    let Executor::Pool(seat) = &bench.executor else { unreachable!() };
    let other = PoolSeat::new(Arc::clone(&seat.pool), Arc::new(Outbox::new(|| {})));
    let [_, waits] = ["/runs", "/waits"].map(|path| bench.ask(path, MS));
    other.forget(waits, String::new);
    bench.let_go();
    assert_eq!(bench.answers(2), [200; 2]);
}

#[test]
fn a_thread_that_is_stuck_is_given_up_and_another_takes_its_place() {
    for wanted in [config::Runner::Pool(1), config::Runner::Threads(1)] {
        let mut bench = Bench::new(wanted);
        let (before, later) = times();
        assert_eq!(bench.executor.oldest(before), None, "{wanted:?}: nothing runs");
        let stuck = bench.ask("/stuck", before);
        assert_eq!(bench.next_began(), "/stuck");
        bench.ask("/waits", before);
        let began = bench.executor.oldest(later).unwrap();
        assert!((before..later).contains(&began), "{wanted:?}: {began:?}");
        assert_eq!(bench.executor.give_up(before.saturating_sub(MS), before), None, "{wanted:?}: too soon");
        bench.executor.forget(stuck, || "what it was".to_owned());
        let given_up = Running { key: stuck, since: began, asked: Some("what it was".to_owned()) };
        assert_eq!(bench.executor.give_up(began, later), Some(given_up), "{wanted:?}");
        assert_eq!(bench.next_began(), "/waits", "{wanted:?}: in another thread");
        assert_eq!(bench.executor.give_up(began, later), None, "{wanted:?}: once is enough");
        assert!(bench.executor.is_busy(), "{wanted:?}: with the one that waited");
        bench.let_go();
        assert_eq!(bench.answers(2), [200; 2], "{wanted:?}: the loop knows which comes too late");
        bench.ask("/next", later);
        assert_eq!(bench.answers(1), [200], "{wanted:?}");
        assert!(!bench.executor.is_busy(), "{wanted:?}");
    }
}

/// Now, and when all that begins now will have begun.
fn times() -> (Duration, Duration) {
    let now = crate::sys::clock::monotonic();
    (now, now + Duration::from_secs(3600))
}

#[test]
fn a_pool_is_as_large_as_before_when_a_stuck_thread_comes_back() {
    let mut bench = Bench::new(config::Runner::Pool(1));
    let (before, later) = times();
    bench.ask("/stuck", before);
    bench.next_began();
    assert!(bench.executor.give_up(later, later).is_some());
    bench.let_go();
    bench.answers(1);
    *bench.handler.open.lock().unwrap() = false;
    let Executor::Pool(seat) = &bench.executor else { unreachable!() };
    let pool = Arc::clone(&seat.pool);
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while pool.threads() > 1 {
        assert!(std::time::Instant::now() < deadline, "it stays");
        std::thread::yield_now();
    }
    for path in ["/1", "/2"] {
        bench.ask(path, MS);
    }
    assert_eq!(bench.next_began(), "/1");
    assert!(bench.executor.is_busy() && bench.began.try_recv().is_err(), "a second runs");
    bench.let_go();
    assert_eq!(bench.answers(2), [200; 2]);
}

#[test]
fn what_had_to_wait_begins_when_its_thread_takes_it_up() {
    let mut bench = Bench::new(config::Runner::Pool(1));
    let before = crate::sys::clock::monotonic();
    bench.ask("/runs", MS);
    assert_eq!(bench.next_began(), "/runs");
    bench.ask("/waits", 2 * MS);
    bench.let_go();
    let mut began = Vec::new();
    let mut deliveries = Vec::new();
    while began.len() < 2 {
        bench.outbox.collect(&mut deliveries);
        began.extend(deliveries.drain(..).filter_map(|delivery| match delivery {
            Delivery::JobDone(_, since) => Some(since),
            Delivery::Response(..) | Delivery::Chunk(..) | Delivery::Drain(..) => None,
        }));
        std::thread::yield_now();
    }
    // The first thread may not have waited yet when its job came.
    assert!(began[0] == MS || began[0] >= before, "{began:?}");
    assert!(began[1] >= before, "not when it came: {began:?}");
}

#[test]
fn loops_that_share_a_pool_give_up_only_what_is_their_own() {
    let mut bench = Bench::new(config::Runner::Pool(1));
    let Executor::Pool(seat) = &bench.executor else { unreachable!() };
    let other = PoolSeat::new(Arc::clone(&seat.pool), Arc::new(Outbox::new(|| {})));
    let (before, later) = times();
    bench.ask("/stuck", before);
    bench.next_began();
    assert_eq!(other.give_up(later), None);
    assert_eq!(other.oldest(later), Some(later), "its own may come at any time");
    assert!(bench.executor.give_up(later, later).is_some());
    bench.let_go();
    bench.answers(1);
}
