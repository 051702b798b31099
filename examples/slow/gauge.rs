//! Counts the requests that run at this moment in all processes of the server. Knows nothing of what they do.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process;
use std::sync::{Mutex, PoisonError};

use regrow::Identity;

/// How many requests run: when this one began, itself included, and at most until then.
pub struct Running {
    pub now: u64,
    pub peak: u64,
}

/// A worker's part in the count. The workers share a file, in which each has a note of its pid and of how many requests
/// it runs. The note of one that was killed does not count, for its pid is gone.
pub struct Gauge {
    worker: Identity,
    running: Mutex<u32>,
    notes: File,
}

/// Two generations of 1024 workers, eight bytes for each. Behind them the file is as long as the peak is high.
const NOTES_LEN: usize = 2 * 1024 * NOTE_LEN;
const NOTE_LEN: usize = 8;

/// The file that all workers share; it has no name, and goes with the last of them.
pub fn notes() -> io::Result<File> {
    let file = tempfile::tempfile()?;
    file.set_len(NOTES_LEN as u64)?;
    Ok(file)
}

impl Gauge {
    pub fn new(worker: &Identity, notes: File) -> Self {
        Self { worker: *worker, running: Mutex::new(0), notes }
    }

    pub fn measure(&self, work: impl FnOnce()) -> io::Result<Running> {
        // In the forking mode a request runs in a process of its own, which the worker has forked and which ends with it.
        if process::id() != self.worker.pid.unsigned_abs() {
            let running = children_of(self.worker.pid).and_then(|now| self.with_peak(now));
            work();
            return running;
        }
        self.note(1)?;
        let running = self.noted().and_then(|now| self.with_peak(now));
        work();
        self.note(-1)?;
        running
    }

    fn note(&self, more: i32) -> io::Result<()> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        *running = running.saturating_add_signed(more);
        let note = u64::from(self.worker.pid.unsigned_abs()) << 32 | u64::from(*running);
        let place = 2 * u64::from(self.worker.worker) + u64::from(self.worker.generation % 2);
        self.notes.write_all_at(&note.to_ne_bytes(), place * NOTE_LEN as u64)
    }

    fn noted(&self) -> io::Result<u64> {
        let mut notes = [0; NOTES_LEN];
        self.notes.read_exact_at(&mut notes, 0)?;
        let notes = notes.chunks_exact(NOTE_LEN).filter_map(|note| note.try_into().map(u64::from_ne_bytes).ok());
        let pids_and_counts =
            notes.map(|note| (note >> 32, note & u64::from(u32::MAX))).filter(|(_, count)| *count > 0);
        let own = u64::from(self.worker.pid.unsigned_abs());
        Ok(pids_and_counts.filter(|(pid, _)| *pid == own || is_alive(*pid)).map(|(_, count)| count).sum())
    }

    fn with_peak(&self, now: u64) -> io::Result<Running> {
        let before = self.notes.metadata()?.len() - NOTES_LEN as u64;
        if now > before {
            // Unlike set_len, this never makes the file shorter than another process has made it meanwhile.
            self.notes.write_all_at(&[0], NOTES_LEN as u64 + now - 1)?;
        }
        Ok(Running { now, peak: now.max(before) })
    }
}

fn is_alive(pid: u64) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

fn children_of(pid: i32) -> io::Result<u64> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    Ok(children.split_whitespace().count() as u64)
}
