//! Resource limits of the process.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// How far the process may raise its limit of open descriptors; the largest number where it is unlimited.
pub(crate) fn most_descriptors() -> io::Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(hard)
}

/// Raises the limit of open descriptors as far as the process may, and says where it then is.
pub(crate) fn raise_descriptors() -> io::Result<u64> {
    let most = most_descriptors()?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    Ok(most)
}
