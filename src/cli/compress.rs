//! `regrow compress`: compressed neighbours of a folder's files, made once so that the server need not.
//!
//! Knows nothing of who accepts which; `serve` sends a neighbour only as long as it is not older than its file.

mod encode;
mod make;
mod plan;
mod tally;
mod trouble;
mod walk;

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use clap::ArgMatches;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::arguments::FOLDER;
use super::{CliExit, Status, surroundings};
use crate::config::{Mistake, Origin};
use crate::sys;
use make::Outcome;
use tally::Tally;
use trouble::Trouble;
use walk::Job;

pub(super) const HELP: &str = "\
Text, scripts, styles, JSON, SVG, WebAssembly and the like are compressed with
Brotli (11), Zstandard (19) and gzip (9), files above 32 MiB more lightly
(Brotli 9, Zstandard 12), because they would take minutes. Left out are files
below 256 bytes, names that begin with a dot, and symbolic links. A neighbour
that would save less than 5 % is not kept. One with another time than its file
is made anew or, where none is worth making, removed.

A neighbour has the time and the permissions of its file. One that has that
time is up to date, so run this after every change of the site: it makes what
is missing or outdated, and never shows a half-written file.

Exit codes: 0 done, 1 stopped by a signal or something failed, 2 usage";

pub(super) fn run(matches: &ArgMatches) -> CliExit {
    // clap has seen to it that there is one.
    let folder = matches.get_one::<PathBuf>(FOLDER).cloned().unwrap_or_default();
    if let Err(wrong) = surroundings::readable(&folder, "/") {
        return CliExit::usage(Mistake::new(Origin::Argument, folder.display().to_string(), wrong).to_string());
    }
    let watch = match Watch::new() {
        Ok(watch) => watch,
        Err(cause) => return CliExit::failed(format!("regrow: cannot watch for signals: {cause}; run it again")),
    };
    let (jobs, found) = walk::find(&folder, &watch);
    watch.bar.set_length(jobs.iter().map(|job| job.size).sum());
    let tally = work_on_all_cores(&jobs, &watch).plus(&found);
    watch.bar.finish_and_clear();
    finish(&tally, jobs.len(), watch.is_stopped())
}

/// What the threads have in common: the person who looks on, and may stop it.
struct Watch {
    stop: Arc<AtomicBool>,
    /// Shows nothing where standard error is no terminal.
    bar: ProgressBar,
}

impl Watch {
    fn new() -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&stop))?;
        }
        // So that a limit of the size of files is an error of the write, and leaves nothing half-written.
        sys::signal::ignore_write_failures()?;
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{wide_bar} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left");
        Ok(Self { stop, bar: style.map_or(bar.clone(), |style| bar.with_style(style)) })
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Says at once what failed, above the bar.
    fn say(&self, trouble: &Trouble) {
        // Who closed standard error does not want to know.
        self.bar.suspend(|| drop(writeln!(io::stderr(), "{trouble}")));
    }
}

/// The jobs are taken in their order, by whichever thread is free.
fn work_on_all_cores(jobs: &[Job], watch: &Watch) -> Tally {
    let next = AtomicUsize::new(0);
    let work = || work(jobs, &next, watch);
    let threads = thread::available_parallelism().map_or(1, usize::from).min(jobs.len());
    thread::scope(|scope| {
        // Where the system gives no more threads, fewer do it.
        let others = (1..threads).filter_map(|_| thread::Builder::new().spawn_scoped(scope, work).ok());
        let others: Vec<_> = others.collect();
        others.into_iter().fold(work(), |all, other| match other.join() {
            Ok(tally) => all.plus(&tally),
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })
}

fn work(jobs: &[Job], next: &AtomicUsize, watch: &Watch) -> Tally {
    let mut tally = Tally::default();
    while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
        match make::neighbour(job, watch) {
            Ok(Outcome::Made { from, to }) => tally.add_made(job.coding, from, to),
            Ok(Outcome::NotSmaller) => tally.not_smaller += 1,
            Ok(Outcome::Stopped) => break,
            Err(trouble) => {
                watch.say(&trouble);
                tally.failed += 1;
            }
        }
    }
    tally
}

fn finish(tally: &Tally, jobs: usize, stopped: bool) -> CliExit {
    let err = match (stopped, tally.failed) {
        (true, _) => format!(
            "regrow: stopped by a signal, with {} of {jobs} neighbours made; run it again for the rest",
            tally.files_made()
        ),
        (false, 0) => String::new(),
        (false, failed) => format!("regrow: {failed} failed, as said above; the rest is done"),
    };
    let status = if err.is_empty() { Status::Done } else { Status::Failed };
    CliExit { out: tally.to_string(), err, status }
}
