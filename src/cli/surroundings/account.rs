//! What `user` and `group` need of the machine: that there are such, that workers can become them, and that the site is
//! open to them.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::{CAP_KILL, Surroundings, has_capability, of_setting};
use crate::config::{Config, Mistake, Wrong};
use crate::sys::privileges::{Account, Missing, is_root};

/// Finds whose the workers are to be.
pub(super) fn examine(config: &Config, found: &mut Surroundings) {
    match account(config) {
        Ok(account) => {
            found.notes.extend(root_for_ever(config, account.as_ref()));
            found.notes.extend(account.iter().flat_map(|account| closed_to(account, config)));
            found.account = account;
        }
        Err(mistake) => found.mistakes.extend(mistake),
    }
}

/// Whether no limit of a user's processes holds for workers: they are root's.
pub(super) fn is_unlimited(config: &Config) -> bool {
    is_root() && config.supervisor.user.as_deref().is_none_or(|user| matches!(user, "root" | "0"))
}

fn account(config: &Config) -> Result<Option<Account>, Option<Mistake>> {
    let (user, group) = (&config.supervisor.user, &config.supervisor.group);
    if user.is_none() && group.is_none() {
        return Ok(None);
    }
    let of_user = |wrong| of_setting("user", &user.as_deref().unwrap_or_default(), user, Err(wrong));
    let of_group = |wrong| of_setting("group", &group.as_deref().unwrap_or_default(), group, Err(wrong));
    let of_either = |wrong| if user.is_some() { of_user(wrong) } else { of_group(wrong) };
    let account = Account::find(user.as_deref(), group.as_deref()).map_err(|missing| match missing {
        Missing::User => {
            of_user(Wrong::new("no such user", "make that user first (useradd --system), or name another"))
        }
        Missing::Group => {
            of_group(Wrong::new("no such group", "make that group first (groupadd --system), or name another"))
        }
        Missing::GroupOfUser => {
            of_either(Wrong::new("this number has no name, so its group is not known", "say group too"))
        }
        Missing::Answer(cause) => {
            of_either(Wrong::new(format!("cannot be looked up ({cause})"), "see to the user database (nsswitch.conf)"))
        }
    })?;
    let may_signal = || has_capability(&fs::read_to_string("/proc/self/status").unwrap_or_default(), CAP_KILL);
    if !account.is_own() && is_root() && !account.is_root() && may_signal() == Some(false) {
        let remedy = "leave it CAP_KILL, or start regrow as that user";
        return Err(of_either(Wrong::new(
            "root lacks a capability here, and the master could not stop its workers",
            remedy,
        )));
    }
    if !is_root() && !account.is_own() {
        let remedy = "start regrow as root, or leave it out: workers then run as who starts it";
        return Err(of_either(Wrong::new("only root can have workers that run as somebody else", remedy)));
    }
    account.attempt(|| Ok(())).map_err(|cause| {
        let remedy = "leave root the capabilities CAP_SETUID and CAP_SETGID, or start regrow as that user";
        of_either(Wrong::new(format!("a worker cannot become that ({cause})"), remedy))
    })?;
    Ok(Some(account))
}

/// A mistake in a worker that is root's gives the whole machine away.
fn root_for_ever(config: &Config, account: Option<&Account>) -> Option<String> {
    let user = &config.supervisor.user;
    if !is_root() || account.is_some_and(|account| !account.is_root()) {
        return None;
    }
    Some(match user.as_deref() {
        Some(user_name) => format!(
            "user = {user_name} ({}): workers may do anything on this machine; name another, www-data, say",
            user.origin
        ),
        None => {
            "workers run as root and may do anything on this machine; in production say user = www-data, or another"
                .to_owned()
        }
    })
}

/// The folders and files that root can read, but not the workers.
fn closed_to(account: &Account, config: &Config) -> Vec<String> {
    let (user, group) = (&config.supervisor.user, &config.supervisor.group);
    let who = match (user.as_deref(), group.as_deref()) {
        (None, Some(group_name)) => format!("group = {group_name} ({})", group.origin),
        (Some(_) | None, _) => format!("user = {} ({})", user.as_deref().unwrap_or_default(), user.origin),
    };
    let closed = config.static_content.iter().filter_map(|content| {
        let cause = account.attempt(|| enter(&content.path)).err()?;
        let path = content.path.display();
        Some(format!(
            "{who} may not read and enter {path} ({cause}), so clients get no file of it; let it (chgrp, chmod)"
        ))
    });
    closed.collect()
}

/// What is neither a folder nor a regular file is not opened.
fn enter(path: &Path) -> io::Result<()> {
    match fs::metadata(path)? {
        found if found.is_dir() => fs::read_dir(path).and_then(|_| fs::metadata(path.join("."))).map(drop),
        found if found.is_file() => File::open(path).map(drop),
        _ => Ok(()),
    }
}
