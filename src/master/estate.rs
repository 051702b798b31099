//! What a master leaves to the one that an upgrade puts in its place, and how the two agree on when: descriptors that the
//! new one inherits, named in its environment, and a socket between them.
//!
//! The new one says `ready` once all its workers serve; the old one lets go of everything and says `yours`; from then on
//! the new one is the master, and says `mine` once pid file and control socket are. Until then nothing is the new one's,
//! and whatever becomes of it, nothing is lost.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::listen::Listener;
use crate::listen::tls::Keys;
use crate::serve::Ends;
use crate::sys::message::{self, Patience};
use crate::sys::{pipe, process, shared};

/// Where the new master finds what it inherits. Its name does not look like that of an option.
pub(super) const VARIABLE: &str = "REGROWN_FROM";

const READY: &[u8] = b"ready";
const YOURS: &[u8] = b"yours";
const MINE: &[u8] = b"mine";

/// How long the new master waits for the old one to let go. It takes over in any case.
const HANDING_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the old master waits until the new one has taken over. It leaves in any case.
const TAKING_TIMEOUT: Duration = Duration::from_secs(1);

/// How this program was started, and is to be started again.
#[derive(Clone, Debug)]
pub(crate) struct Invocation {
    /// The binary, by its name when it was started: what is there now may be another one.
    pub program: PathBuf,
    /// Without the name of the program.
    pub args: Vec<OsString>,
}

/// What the old master leaves.
pub(super) struct Will<'a> {
    pub listeners: &'a [Arc<Listener>],
    pub status_listeners: &'a [Arc<Listener>],
    pub handover: &'a Ends,
    pub keys: Option<Keys>,
}

/// The old master's link to the new one.
pub(super) struct Heir {
    link: OwnedFd,
}

/// What the old master hears of the new one.
pub(super) enum News {
    /// All its workers serve.
    Ready,
    /// It has closed the link, and most likely ended.
    Gone,
}

/// What the new master was left.
pub(crate) struct Estate {
    pub listeners: Vec<Arc<Listener>>,
    pub status_listeners: Vec<Arc<Listener>>,
    pub handover: Ends,
    pub keys: Option<Keys>,
    /// The socket to the old master.
    pub link: OwnedFd,
}

impl Will<'_> {
    /// Starts the new master. Returns its process and the link to it.
    pub fn execute(&self, invocation: &Invocation) -> io::Result<(i32, Heir)> {
        let (link, theirs) = message::pair()?;
        let keys = self.keys.map(|keys| shared::file_with(&keys.to_bytes())).transpose()?;
        let (variable, inherited) = self.describe(&theirs, keys.as_ref());
        let pid = process::fork_program(&invocation.program, &invocation.args, (VARIABLE, &variable), &inherited)?;
        Ok((pid, Heir { link }))
    }

    /// The value of the variable, and every descriptor in it.
    fn describe(&self, link: &OwnedFd, keys: Option<&File>) -> (OsString, Vec<RawFd>) {
        let of = |listeners: &[Arc<Listener>]| listeners.iter().map(|listener| listener.as_fd().as_raw_fd()).collect();
        let parts: [(&str, Vec<RawFd>); 5] = [
            ("listeners", of(self.listeners)),
            ("status", of(self.status_listeners)),
            ("handover", vec![self.handover.put.as_raw_fd(), self.handover.take.as_raw_fd()]),
            ("keys", keys.map(AsRawFd::as_raw_fd).into_iter().collect()),
            ("link", vec![link.as_raw_fd()]),
        ];
        let mut text = format!("pid={}", process::pid());
        for (name, numbers) in &parts {
            let numbers = numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
            // Writing to a String cannot fail.
            let _ = write!(text, " {name}={numbers}");
        }
        (text.into(), parts.into_iter().flat_map(|(_, numbers)| numbers).collect())
    }
}

impl Heir {
    /// What it has said since it was asked last, if anything.
    pub fn news(&self) -> Option<News> {
        match message::receive(&self.link, &mut [0; 16], Patience::DoNotWait) {
            Ok((0, _)) => Some(News::Gone),
            Ok((n, _)) => Some(News::Ready).filter(|_| n == READY.len()),
            Err(_) => None,
        }
    }

    /// Tells it that everything is its own, and waits until it has taken it: it is at that already. That it is gone is
    /// seen elsewhere.
    pub fn let_go(self) {
        let told = message::send(&self.link, YOURS, &[], Patience::DoNotWait);
        let _gone = told.and_then(|()| pipe::wait(&[self.link.as_fd()], &[], Some(TAKING_TIMEOUT)));
    }
}

impl AsFd for Heir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.link.as_fd()
    }
}

impl Estate {
    /// What the master that started this process left to it, if one did; once, for the variable is removed.
    pub fn of_this_process() -> io::Result<Option<Self>> {
        process::take_variable(VARIABLE).map(|variable| Self::read(&variable)).transpose()
    }

    fn read(variable: &OsStr) -> io::Result<Self> {
        let text = variable.to_str().ok_or_else(|| io::Error::other("it is not text"))?;
        let numbers = |name: &str| {
            let value = text.split(' ').find_map(|part| part.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default();
            let numbers = value.split(',').filter(|number| !number.is_empty()).map(str::parse::<RawFd>);
            numbers.collect::<Result<Vec<_>, _>>().map_err(io::Error::other)
        };
        if numbers("pid")? != [process::parent()] {
            return Err(io::Error::other("another process was to inherit it"));
        }
        let take = |name| numbers(name)?.into_iter().map(process::inherited).collect::<io::Result<Vec<_>>>();
        let listeners = |name| -> io::Result<Vec<_>> {
            take(name)?.into_iter().map(|fd| Listener::inherit(fd).map(Arc::new)).collect()
        };
        let (handover, link, keys) = (take("handover")?, take("link")?, take("keys")?);
        let (Ok([put, ends]), Ok([link])) = (<[OwnedFd; 2]>::try_from(handover), <[OwnedFd; 1]>::try_from(link)) else {
            return Err(io::Error::other("something is missing in it"));
        };
        let keys = keys.into_iter().next().map(shared::read_all).transpose()?;
        let keys = keys.map(|bytes| Keys::from_bytes(&bytes)).transpose()?.flatten();
        Ok(Self {
            listeners: listeners("listeners")?,
            status_listeners: listeners("status")?,
            handover: Ends { put, take: ends },
            keys,
            link,
        })
    }
}

/// Tells the old master that all workers serve here, and waits until it has let go.
pub(super) fn claim(link: &OwnedFd) {
    let asked = message::send(link, READY, &[], Patience::DoNotWait);
    if let Err(cause) = asked.and_then(|()| pipe::wait(&[link.as_fd()], &[], Some(HANDING_TIMEOUT))) {
        ::log::warn!("the master before this one is gone: {cause}; taking over what it left");
    }
}

/// Tells the old master that all of it was taken.
pub(super) fn confirm(link: &OwnedFd) {
    // One that is gone need not know.
    let _gone = message::send(link, MINE, &[], Patience::DoNotWait);
}
