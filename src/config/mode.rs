//! The modes of the deployment guide: how many loops run, in what, and what runs a request. This table stands here and
//! nowhere else.
//!
//! Knows nothing of how any of it is done.

use std::fmt;

use super::Config;

/// What `[server]` says of who answers requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// One request after the other.
    Single,
    /// A new process for each request.
    Forking,
    /// A new thread for each request.
    Threading,
    /// That many worker processes.
    ProcessPool(u32),
    /// That many threads of one worker process.
    ThreadPool(u32),
}

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Worker processes.
    pub workers: u32,
    /// Whether their number may change while they run.
    pub scalable: bool,
    /// Connection loops in each worker.
    pub loops: u32,
    /// What runs a worker's requests.
    pub runner: Runner,
}

/// What runs the requests of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Runner {
    /// That many handler threads, fed from one queue.
    Pool(u32),
    /// A new thread for each request, so many at once.
    Threads(u32),
    /// A new process for each request, so many at once.
    Processes(u32),
}

impl Config {
    /// Who answers requests.
    pub fn mode(&self) -> Mode {
        let server = &self.server;
        match (*server.process_pool, *server.thread_pool) {
            (Some(workers), _) => Mode::ProcessPool(workers),
            (None, Some(threads)) => Mode::ThreadPool(threads),
            (None, None) if *server.forking => Mode::Forking,
            (None, None) if *server.threading => Mode::Threading,
            (None, None) => Mode::Single,
        }
    }

    /// What that takes on a machine of so many processors.
    pub fn layout(&self, processors: u32) -> Layout {
        let limits = &self.limits;
        let one = Layout { workers: 1, scalable: false, loops: 1, runner: Runner::Pool(1) };
        match self.mode() {
            Mode::Single => one,
            Mode::Forking => Layout { runner: Runner::Processes(*limits.max_processes), ..one },
            Mode::Threading => Layout { runner: Runner::Threads(*limits.max_threads), ..one },
            Mode::ProcessPool(workers) => {
                Layout { workers, scalable: true, runner: Runner::Pool(*limits.handler_threads), ..one }
            }
            // More loops than processors would only take turns.
            Mode::ThreadPool(threads) => {
                Layout { loops: threads.min(processors).max(1), runner: Runner::Pool(threads), ..one }
            }
        }
    }
}

/// In words for a person.
impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { workers, loops, .. } = self;
        match self.runner {
            Runner::Processes(most) => write!(f, "a new process for each request, at most {most} at once"),
            Runner::Threads(most) => write!(f, "a new thread for each request, at most {most} at once"),
            Runner::Pool(1) if *workers == 1 => {
                f.write_str("a single worker, for development: one request after the other")
            }
            Runner::Pool(1) => write!(f, "a process pool of {workers} workers"),
            Runner::Pool(threads) if *workers == 1 => {
                let plural = if *loops == 1 { "" } else { "s" };
                write!(f, "a thread pool of {threads} threads, beside {loops} connection loop{plural}")
            }
            Runner::Pool(threads) => {
                write!(f, "a process pool of {workers} workers, of {threads} handler threads each")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    fn config(said: &str) -> Config {
        let flags = said.split_whitespace().map(|said| said.split_once('=').unwrap());
        let flags = flags.map(|(name, text)| (name.to_owned(), text.to_owned())).collect();
        Config::resolve(&Sources { flags, ..Sources::default() }).unwrap()
    }

    #[test]
    fn every_mode_has_its_layout_and_its_words() {
        let one = Layout { workers: 1, scalable: false, loops: 1, runner: Runner::Pool(1) };
        let pool = Layout { workers: 4, scalable: true, ..one };
        let single = "a single worker, for development: one request after the other";
        let ten_threads = Layout { loops: 3, runner: Runner::Pool(10), ..one };
        let processes = |most| Layout { runner: Runner::Processes(most), ..one };
        let threads = |most| Layout { runner: Runner::Threads(most), ..one };
        let cases = [
            ("", Mode::Single, one, single),
            ("forking=0 threading=0", Mode::Single, one, single),
            ("forking=1", Mode::Forking, processes(256), "a new process for each request, at most 256 at once"),
            (
                "forking=1 maxProcesses=9",
                Mode::Forking,
                processes(9),
                "a new process for each request, at most 9 at once",
            ),
            ("threading=1", Mode::Threading, threads(256), "a new thread for each request, at most 256 at once"),
            (
                "threading=1 maxThreads=7",
                Mode::Threading,
                threads(7),
                "a new thread for each request, at most 7 at once",
            ),
            ("processPool=4", Mode::ProcessPool(4), pool, "a process pool of 4 workers"),
            (
                "processPool=4 handlerThreads=8",
                Mode::ProcessPool(4),
                Layout { runner: Runner::Pool(8), ..pool },
                "a process pool of 4 workers, of 8 handler threads each",
            ),
            (
                "threadPool=2",
                Mode::ThreadPool(2),
                Layout { loops: 2, runner: Runner::Pool(2), ..one },
                "a thread pool of 2 threads, beside 2 connection loops",
            ),
            (
                "threadPool=10",
                Mode::ThreadPool(10),
                ten_threads,
                "a thread pool of 10 threads, beside 3 connection loops",
            ),
            // What the other modes would use changes nothing.
            (
                "threadPool=10 handlerThreads=8 maxThreads=7 maxProcesses=9",
                Mode::ThreadPool(10),
                ten_threads,
                "a thread pool of 10 threads, beside 3 connection loops",
            ),
        ];
        for (said, mode, layout, words) in cases {
            let config = config(said);
            assert_eq!((config.mode(), config.layout(3)), (mode, layout), "{said}");
            assert_eq!(layout.to_string(), words);
        }
    }

    #[test]
    fn a_thread_pool_has_a_loop_whatever_the_machine_says_of_itself() {
        for processors in [0, 1] {
            let layout = config("threadPool=4").layout(processors);
            assert_eq!((layout.loops, layout.runner), (1, Runner::Pool(4)));
            assert_eq!(layout.to_string(), "a thread pool of 4 threads, beside 1 connection loop");
        }
    }
}
