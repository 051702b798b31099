//! Resource limits of the process.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// How far the process may raise its limit of open descriptors; the largest number where it is unlimited.
pub(crate) fn most_descriptors() -> io::Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(hard)
}

/// How many processes and threads the user of this process may have; it does not hold for root.
pub(crate) fn processes_of_user() -> io::Result<u64> {
    let (soft, _) = getrlimit(Resource::RLIMIT_NPROC)?;
    Ok(soft)
}

/// Raises the limit of open descriptors as far as the process may, and says where it then is.
pub(crate) fn raise_descriptors() -> io::Result<u64> {
    let most = most_descriptors()?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    Ok(most)
}
