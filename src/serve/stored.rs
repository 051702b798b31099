//! Where a request's body is kept until it is complete: in memory while it is small and memory is plenty, else in
//! an unlinked temporary file.

use std::fs::File;
use std::io::{self, BufWriter, Seek, Write};

use bytes::Bytes;

use crate::site::RequestBody;

/// What all bodies of a loop that are not yet answered may hold together.
const MAX_MEMORY: usize = 64 << 20;
const MAX_DISK: u64 = 1 << 30;

/// What is gathered before it is written to a file: a client may send its body in chunks of one byte.
const FILE_BUFFER: usize = 64 << 10;

/// What the bodies of a loop hold together.
#[derive(Debug)]
pub(super) struct Budget {
    held: Held,
    max_disk: u64,
}

#[derive(Debug, Default)]
struct Held {
    memory: usize,
    disk: u64,
}

impl Budget {
    /// Room at least for one body of the size that is allowed.
    pub fn new(max_body: u64) -> Self {
        Self { held: Held::default(), max_disk: MAX_DISK.max(max_body) }
    }
}

/// A body that arrives.
#[derive(Debug, Default)]
pub(super) struct Stored {
    memory: Vec<u8>,
    file: Option<BufWriter<File>>,
    /// What it holds of the budget.
    held: Held,
}

/// Why a body could not be kept.
#[derive(Debug)]
pub(super) enum Error {
    /// All bodies together are as large as we let them be.
    Full,
    File(io::Error),
}

impl Stored {
    /// Keeps `bytes`, in memory as long as the body has at most `in_memory`.
    pub fn push(&mut self, bytes: &[u8], in_memory: usize, budget: &mut Budget) -> Result<(), Error> {
        let small = self.memory.len() + bytes.len() <= in_memory && budget.held.memory + bytes.len() <= MAX_MEMORY;
        if self.file.is_none() && small {
            self.memory.extend_from_slice(bytes);
            self.held.memory += bytes.len();
            budget.held.memory += bytes.len();
            return Ok(());
        }
        self.push_to_file(bytes, budget)
    }

    fn push_to_file(&mut self, bytes: &[u8], budget: &mut Budget) -> Result<(), Error> {
        let mut file = match self.file.take() {
            Some(file) => file,
            None => self.move_to_file(budget)?,
        };
        write(&mut file, bytes, &mut self.held, budget)?;
        self.file = Some(file);
        Ok(())
    }

    fn move_to_file(&mut self, budget: &mut Budget) -> Result<BufWriter<File>, Error> {
        let file = tempfile::tempfile().map_err(Error::File)?;
        let mut file = BufWriter::with_capacity(FILE_BUFFER, file);
        write(&mut file, &self.memory, &mut self.held, budget)?;
        budget.held.memory -= std::mem::take(&mut self.held.memory);
        self.memory = Vec::new();
        Ok(file)
    }

    /// The complete body for the handler. It counts until [`Stored::release`].
    pub fn finish(&mut self) -> io::Result<RequestBody> {
        match self.file.take() {
            None => Ok(Bytes::from(std::mem::take(&mut self.memory)).into()),
            Some(file) => {
                let mut file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
                file.rewind()?;
                Ok(RequestBody::from_file(file, self.held.disk))
            }
        }
    }

    /// The file it is kept in, if it is.
    pub fn file(&self) -> Option<&File> {
        self.file.as_ref().map(BufWriter::get_ref)
    }

    /// Gives back what it holds.
    pub fn release(&mut self, budget: &mut Budget) {
        let Self { held, .. } = std::mem::take(self);
        budget.held.memory -= held.memory;
        budget.held.disk -= held.disk;
    }
}

fn write(file: &mut BufWriter<File>, bytes: &[u8], held: &mut Held, budget: &mut Budget) -> Result<(), Error> {
    if budget.held.disk + bytes.len() as u64 > budget.max_disk {
        return Err(Error::Full);
    }
    file.write_all(bytes).map_err(Error::File)?;
    held.disk += bytes.len() as u64;
    budget.held.disk += bytes.len() as u64;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(chunks: &[&[u8]], in_memory: usize) -> (bool, Vec<u8>, Budget) {
        let (mut stored, mut budget) = (Stored::default(), Budget::new(0));
        for chunk in chunks {
            stored.push(chunk, in_memory, &mut budget).unwrap();
        }
        let in_file = stored.file.is_some();
        let body = stored.finish().unwrap();
        assert_eq!(body.len(), chunks.iter().map(|c| c.len() as u64).sum::<u64>());
        let bytes = body.into_bytes().unwrap().to_vec();
        stored.release(&mut budget);
        (in_file, bytes, budget)
    }

    #[test]
    fn a_small_body_stays_in_memory_and_a_large_one_goes_to_a_file() {
        for (chunks, in_memory, in_file) in [
            (&[][..], 10, false),
            (&[&b"0123456789"[..]][..], 10, false),
            (&[&b"01234"[..], b"567890"][..], 10, true),
            (&[&b"0"[..]][..], 0, true),
        ] {
            let (was_in_file, bytes, left) = keep(chunks, in_memory);
            assert_eq!((was_in_file, bytes), (in_file, chunks.concat()));
            assert_eq!((left.held.memory, left.held.disk), (0, 0));
        }
    }

    #[test]
    fn when_memory_is_scarce_small_bodies_go_to_files_and_when_all_is_full_they_are_refused() {
        let mut budget = Budget::new(0);
        budget.held.memory = MAX_MEMORY;
        let mut stored = Stored::default();
        stored.push(b"x", 10, &mut budget).unwrap();
        assert!(stored.file.is_some());
        budget.held.disk = MAX_DISK;
        assert!(matches!(stored.push(b"x", 10, &mut budget), Err(Error::Full)));
    }
}
