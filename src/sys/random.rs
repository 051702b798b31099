//! Random numbers, for what must differ between processes and need not be secret.

/// A number below `bound`, which is not 0; 0 where the kernel has none to give (getrandom(2)).
pub(crate) fn below(bound: u64) -> u64 {
    let mut bytes = [0; 8];
    // SAFETY: the buffer is as long as it is said to be. So few bytes come whole or not at all.
    unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    u64::from_ne_bytes(bytes) % bound
}
