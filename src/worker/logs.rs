//! Word from the master that log files were opened anew, with their descriptors: a worker may not be allowed to open
//! them. The master need not wait for anybody who does not listen.

use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use crate::log::error as error_log;
use crate::log::sink::Sink;
use crate::sys::message::{self, Patience};
use crate::sys::pipe;

/// Gives a process its logs, where they were opened anew.
///
/// # Errors
/// Those of [`message::send`]; `WouldBlock` for a process that has not listened for long.
pub(crate) fn send(link: &OwnedFd, error: Option<BorrowedFd<'_>>, access: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let which = [error, access].map(|log| u8::from(log.is_some()));
    let descriptors: Vec<_> = [error, access].iter().flatten().map(AsRawFd::as_raw_fd).collect();
    message::send(link, &which, &descriptors, Patience::DoNotWait)
}

/// The end of a link at which the master is heard.
#[derive(Debug)]
pub(crate) struct Ear<'a> {
    link: &'a OwnedFd,
    access: Sink,
    /// A pipe without a purpose: it makes room for the descriptors of a message where all others are taken.
    spare: Option<(OwnedFd, OwnedFd)>,
}

impl<'a> Ear<'a> {
    /// With an access log, which may be off.
    pub fn new(link: &'a OwnedFd, access: Sink) -> Self {
        Self { link, access, spare: pipe::pipe().ok() }
    }

    /// Takes all that has come. False is the end: the master is gone.
    pub fn hear(&mut self) -> bool {
        let mut which = [0; 2];
        self.spare = None;
        let is_there = loop {
            match message::receive(self.link, &mut which, Patience::DoNotWait) {
                Ok((0, _)) => break false,
                Ok((_, descriptors)) => replace(which, descriptors, &self.access),
                Err(cause) if cause.kind() == ErrorKind::WouldBlock => break true,
                // There was no room for one of the descriptors after all: another thread has taken it.
                Err(cause) if cause.kind() == ErrorKind::InvalidData => complain(&cause),
                Err(cause) => {
                    ::log::error!("cannot hear the master: {cause}");
                    break false;
                }
            }
        };
        self.spare = pipe::pipe().ok();
        is_there
    }
}

fn replace([error, access]: [u8; 2], descriptors: Vec<OwnedFd>, access_log: &Sink) {
    let mut descriptors = descriptors.into_iter();
    let error = (error == 1).then(|| descriptors.next()).flatten().zip(error_log::sink());
    let access = (access == 1).then(|| descriptors.next()).flatten().map(|from| access_log.replace(from));
    let error = error.map(|(from, log)| log.replace(from));
    for cause in [error, access].into_iter().flatten().filter_map(Result::err) {
        complain(&cause);
    }
}

fn complain(cause: &io::Error) {
    ::log::error!("cannot write to a log that was reopened: {cause}; going on with the old one; reopen once more");
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::LogTarget;

    #[test]
    fn logs_arrive_one_by_one_and_the_end_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let open = |name: &str| Sink::open(&LogTarget::File(folder.path().join(name))).unwrap();
        let (near, far) = message::pair().unwrap();
        let mut access = open("access");
        let mut ear = Ear::new(&far, access.clone());
        assert!(ear.hear(), "nothing was said");
        let [error, new, newer] = ["error", "new", "newer"].map(open);
        send(&near, error.descriptor(), new.descriptor()).unwrap();
        send(&near, error.descriptor(), None).unwrap();
        assert!(ear.hear());
        access.write(b"a\n");
        send(&near, None, newer.descriptor()).unwrap();
        drop(near);
        assert!(!ear.hear(), "the end");
        access.write(b"b\n");
        let content = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(["error", "access", "new", "newer"].map(content), ["", "", "a\n", "b\n"]);
    }

    #[test]
    fn who_does_not_listen_is_not_waited_for() {
        let (near, _far) = message::pair().unwrap();
        let full = (0..100_000).find_map(|_| send(&near, None, None).err()).unwrap();
        assert_eq!(full.kind(), ErrorKind::WouldBlock);
    }
}
