//! Who a process is: accounts, and how a process becomes one for good (credentials(7), capabilities(7)).
//!
//! Names are looked up before a fork only: what answers (nsswitch.conf(5)) may take locks and start threads.

use std::ffi::CString;
use std::io::{self, ErrorKind};

use nix::errno::Errno;
use nix::unistd::{self, Gid, Group, Uid, User};

use super::process::{self, Ended};

/// A user with its groups, looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    uid: Uid,
    gid: Gid,
    /// All of them, `gid` too.
    groups: Vec<Gid>,
}

/// Why there is no such account.
#[derive(Debug)]
pub(crate) enum Missing {
    User,
    Group,
    /// The user is a number without an entry, and no group was named.
    GroupOfUser,
    /// The database did not answer.
    Answer(io::Error),
}

impl From<Errno> for Missing {
    fn from(error: Errno) -> Self {
        Self::Answer(error.into())
    }
}

impl Account {
    /// That of `user`, a name or a number, or of whoever runs this process; with `group` in place of its own. It has all
    /// groups whose members the database says it is.
    pub fn find(user: Option<&str>, group: Option<&str>) -> Result<Self, Missing> {
        let group = group.map(find_group).transpose()?;
        let (uid, entry) = match user {
            Some(user) => find_user(user)?,
            None => (Uid::effective(), User::from_uid(Uid::effective())?),
        };
        let gid = group.or(entry.as_ref().map(|entry| entry.gid)).ok_or(Missing::GroupOfUser)?;
        let name = entry.and_then(|entry| CString::new(entry.name).ok());
        let groups = name.map_or(Ok(vec![gid]), |name| unistd::getgrouplist(&name, gid))?;
        Ok(Self { uid, gid, groups })
    }

    /// Whether it may do anything.
    pub fn is_root(&self) -> bool {
        self.uid.is_root()
    }

    /// Whether this process is that user, with that group, already.
    pub fn is_own(&self) -> bool {
        (self.uid, self.gid) == (Uid::effective(), Gid::effective())
    }

    /// Makes this process the account's, for good: no privilege is left, none can be had again, and no program that is
    /// executed brings any. Root loses nothing but its groups.
    ///
    /// Clears `PR_SET_PDEATHSIG` (prctl(2)), and what lets others of this user read the memory, with its keys: the process
    /// is not dumpable any more (proc(5)), unless `fs.suid_dumpable` says otherwise.
    ///
    /// # Errors
    /// Those of the calls; the process may be anything in between, and must end.
    pub fn assume(&self) -> io::Result<()> {
        if Uid::effective().is_root() {
            unistd::setgroups(&self.groups)?;
            unistd::setresgid(self.gid, self.gid, self.gid)?;
            if self.is_root() {
                return Ok(());
            }
            empty_bounding_set()?;
            unistd::setresuid(self.uid, self.uid, self.uid)?;
        }
        nix::sys::prctl::set_no_new_privs()?;
        empty_capability_sets()?;
        self.verify()
    }

    /// Whether a process of this account can do something: a child of this one tries it. In a process with threads, which
    /// cannot fork, nothing is tried and anything believed.
    ///
    /// # Errors
    /// That of `deed`, or of becoming that account.
    pub fn attempt(&self, deed: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        // Errors of the kernel are below 134 (errno(3)), and an exit code has one byte.
        const UNKNOWN: i32 = 255;
        if process::threads() > 1 {
            return Ok(());
        }
        let child = process::fork_child(|| match self.assume().and_then(|()| deed()) {
            Ok(()) => 0,
            Err(error) => error.raw_os_error().unwrap_or(UNKNOWN),
        })?;
        match process::wait_for(child)? {
            Ended::Code(0) => Ok(()),
            Ended::Code(code @ 1..UNKNOWN) => Err(io::Error::from_raw_os_error(code)),
            ended @ (Ended::Code(_) | Ended::Signal(_)) => Err(io::Error::other(format!("the attempt ended: {ended}"))),
        }
    }

    /// That it worked is not believed but tried.
    fn verify(&self) -> io::Result<()> {
        let (users, groups) = (unistd::getresuid()?, unistd::getresgid()?);
        let are_own = [users.real, users.effective, users.saved].iter().all(|uid| *uid == self.uid)
            && [groups.real, groups.effective, groups.saved].iter().all(|gid| *gid == self.gid);
        if !are_own || unistd::setuid(Uid::from_raw(0)).is_ok() {
            return Err(ErrorKind::PermissionDenied.into());
        }
        Ok(())
    }
}

/// Whether this process may do anything.
pub(crate) fn is_root() -> bool {
    Uid::effective().is_root()
}

/// A name goes before a number, as with chown(1). The largest number is none: to setresuid(2) it means "as before".
fn find_user(user: &str) -> Result<(Uid, Option<User>), Missing> {
    match (User::from_name(user)?, user.parse()) {
        (Some(entry), _) => Ok((entry.uid, Some(entry))),
        (None, Ok(number)) if number < u32::MAX => Ok((Uid::from_raw(number), User::from_uid(Uid::from_raw(number))?)),
        (None, Ok(_) | Err(_)) => Err(Missing::User),
    }
}

fn find_group(group: &str) -> Result<Gid, Missing> {
    match (Group::from_name(group)?, group.parse()) {
        (Some(entry), _) => Ok(entry.gid),
        (None, Ok(number)) if number < u32::MAX => Ok(Gid::from_raw(number)),
        (None, Ok(_) | Err(_)) => Err(Missing::Group),
    }
}

/// So that no executed file can bring a capability. Where even root may not do that (it lacks `CAP_SETPCAP`, as in some
/// containers), `PR_SET_NO_NEW_PRIVS` keeps them out.
fn empty_bounding_set() -> io::Result<()> {
    for capability in 0..=63 {
        // SAFETY: takes plain numbers.
        match Errno::result(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) }) {
            Ok(_) => {}
            // The first one that this kernel does not know.
            Err(Errno::EINVAL | Errno::EPERM) => break,
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// The effective, the permitted and the inheritable set, and with these the ambient one.
fn empty_capability_sets() -> io::Result<()> {
    /// `_LINUX_CAPABILITY_VERSION_3`, capget(2): each set is two words.
    const VERSION: u32 = 0x2008_0522;
    let mut header = [VERSION, 0];
    let sets = [0_u32; 6];
    // SAFETY: both point to as much as this version reads; the second word of the header is this thread.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, header.as_mut_ptr(), sets.as_ptr()) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_found_by_name_and_by_number() {
        let root = Account::find(Some("root"), None).unwrap();
        assert_eq!(root, Account::find(Some("0"), None).unwrap());
        assert!(root.is_root() && root.groups.contains(&Gid::from_raw(0)));
        let nobody = Account::find(Some("nobody"), None).unwrap();
        assert_eq!(nobody, Account::find(Some(&nobody.uid.to_string()), None).unwrap());
        assert!(!nobody.is_root() && nobody.groups.contains(&nobody.gid));
    }

    #[test]
    fn a_group_takes_the_place_of_the_users_own() {
        let account = Account::find(Some("nobody"), Some("4711")).unwrap();
        assert_eq!((account.gid, account.groups.contains(&account.gid)), (Gid::from_raw(4711), true));
        let own = Account::find(None, Some("root")).unwrap();
        assert_eq!((own.uid, own.gid), (Uid::effective(), Gid::from_raw(0)));
    }

    #[test]
    fn a_number_without_an_entry_needs_a_group() {
        assert!(matches!(Account::find(Some("3999999"), None), Err(Missing::GroupOfUser)));
        let account = Account::find(Some("3999999"), Some("4711")).unwrap();
        assert_eq!(account.groups, [Gid::from_raw(4711)]);
    }

    #[test]
    fn there_are_no_accounts_of_unknown_names_nor_of_the_number_that_changes_nothing() {
        for user in ["no-such-user", "4294967295", "4294967296", "-1"] {
            assert!(matches!(Account::find(Some(user), Some("root")), Err(Missing::User)), "{user}");
        }
        for group in ["no-such-group", "4294967295"] {
            assert!(matches!(Account::find(Some("root"), Some(group)), Err(Missing::Group)), "{group}");
        }
    }
}
