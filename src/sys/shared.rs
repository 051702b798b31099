//! Memory that a process shares with the processes it forks.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicU64;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};

/// Maps `count` words, all zero, that every process forked from now on sees and changes. They stay until the
/// last of those processes ends.
pub(crate) fn words(count: usize) -> io::Result<&'static [AtomicU64]> {
    let bytes = NonZeroUsize::new(count.saturating_mul(size_of::<AtomicU64>()))
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: a new anonymous mapping aliases nothing.
    let start =
        unsafe { mmap_anonymous(None, bytes, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED)? };
    // SAFETY: the mapping is page-aligned, `count` words long, zeroed, never unmapped, and only ever used through
    // atomics; any bit pattern is a valid word.
    Ok(unsafe { std::slice::from_raw_parts(start.as_ptr().cast::<AtomicU64>(), count) })
}

/// A file in memory, without a name, that holds `bytes`: its descriptor can be passed to another process
/// (`memfd_create(2)`).
pub(crate) fn file_with(bytes: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create(c"regrow", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(bytes)?;
    Ok(file)
}

/// All that a file holds, wherever in it others have read.
pub(crate) fn read_all(file: OwnedFd) -> io::Result<Vec<u8>> {
    let mut file = File::from(file);
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}
