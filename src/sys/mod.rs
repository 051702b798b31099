//! The only place for `unsafe`, nix, libc and the monotonic clock: thin, safe faces of system calls.
//! Knows nothing of HTTP, workers or configuration.

pub(crate) mod cgroup;
pub(crate) mod clock;
pub(crate) mod crash;
pub(crate) mod directory;
pub(crate) mod epoll;
pub(crate) mod host_name;
pub(crate) mod limits;
pub(crate) mod log_fd;
pub(crate) mod message;
pub(crate) mod open_beneath;
pub(crate) mod pid_file;
pub(crate) mod pipe;
pub(crate) mod plain_file;
pub(crate) mod privileges;
pub(crate) mod process;
pub(crate) mod random;
pub(crate) mod shared;
pub(crate) mod signal;
pub(crate) mod socket;
pub(crate) mod version;
