//! What the configuration needs of the machine: folders, names, permissions and limits of the kernel.
//!
//! Looks, and does not bind what `serve` will: a server may be running. Mistakes are what `serve` would fail on; notes are what it survives.

mod account;
mod tls;

use std::fs::{self, OpenOptions};
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::process;

use super::processors;
use crate::config::{Config, LogTarget, Mistake, Mode, Origin, Runner, Setting, StaticContent, Wrong};
use crate::listen::tls::Credentials;
use crate::serve::other_descriptors;
use crate::sys;
use crate::sys::privileges::{self, Account};

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Surroundings {
    /// Why it would not run.
    pub(super) mistakes: Vec<Mistake>,
    /// What is worth knowing though it runs.
    pub(super) notes: Vec<String>,
    /// Where TLS is wanted, and both files are good.
    pub(super) credentials: Option<Credentials>,
    /// Whose the workers are to be, where that is said.
    pub(super) account: Option<Account>,
}

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A person who can still do something about a certificate that clients refuse: that is a mistake.
    Check,
    /// A server that starts at night had better serve with such a certificate than not at all: the master says it, loudly.
    Serve,
}

/// Looks at everything that `config` names.
pub(super) fn examine(config: &Config, purpose: Purpose) -> Surroundings {
    let mut found = Surroundings { mistakes: mistakes(config), notes: notes(config), ..Surroundings::default() };
    account::examine(config, &mut found);
    tls::examine(config, purpose, &mut found);
    found
}

fn mistakes(config: &Config) -> Vec<Mistake> {
    let (server, log) = (&config.server, &config.log);
    let folders = config.static_content.iter().filter_map(|entry| {
        let wrong = readable(&entry.path, &entry.prefix).err()?;
        let path = entry.path.display().to_string();
        Some(Mistake::of_value(entry.origin.clone(), &entry.prefix, &path, wrong))
    });
    let host = || resolvable(&server.socket_host, *server.socket_port);
    let listener = match server.socket_file.as_deref() {
        Some(path) => of_setting("socketFile", &path.display(), &server.socket_file, socket_place(path)),
        None => of_setting("socketHost", &*server.socket_host, &server.socket_host, host()),
    };
    let logs = [("errorLog", &log.error_log), ("accessLog", &log.access_log)];
    let logs = logs.into_iter().filter_map(|(name, target)| match &**target {
        LogTarget::File(path) => of_setting(name, &path.display(), target, writable_log(path)),
        LogTarget::Stdout | LogTarget::Stderr | LogTarget::Off => None,
    });
    let supervisor = &config.supervisor;
    let places = [
        ("controlSocket", &supervisor.control_socket, socket_place as fn(&Path) -> _),
        ("pidFile", &supervisor.pid_file, pid_file_place),
    ];
    let places = places.into_iter().filter_map(|(name, setting, judge)| {
        let path = setting.as_deref()?;
        of_setting(name, &path.display(), setting, judge(path))
    });
    let privileges = Privileges::of_this_process();
    let site_port = Some(*server.socket_port).filter(|_| server.socket_file.is_none());
    let port = site_port.and_then(|port| privileged_port(port, &privileges));
    let port = port.and_then(|wrong| of_setting("socketPort", &*server.socket_port, &server.socket_port, Err(wrong)));
    folders.chain(listener).chain(port).chain(status_mistakes(config, &privileges)).chain(logs).chain(places).collect()
}

fn status_mistakes(config: &Config, privileges: &Privileges) -> Vec<Mistake> {
    let (status, server) = (&config.status, &config.server);
    let Some(port) = *status.status_port else { return Vec::new() };
    let host = resolvable(&status.status_host, port);
    let host = of_setting("statusHost", &*status.status_host, &status.status_host, host);
    let same = port != 0 && server.socket_file.is_none() && port == *server.socket_port;
    let taken = (same && meet(&server.socket_host, &status.status_host))
        .then(|| Wrong::new("the site listens there", "name another port"));
    let wrong = taken.or_else(|| privileged_port(port, privileges));
    let port = wrong.and_then(|wrong| of_setting("statusPort", &port, &status.status_port, Err(wrong)));
    host.into_iter().chain(port).collect()
}

/// Whether two hosts have an address in common.
fn meet(one: &str, other: &str) -> bool {
    let addresses = |host: &str| (host, 0).to_socket_addrs().map(Iterator::collect::<Vec<_>>).unwrap_or_default();
    let same = |a: &SocketAddr, b: &SocketAddr| {
        a.is_ipv4() == b.is_ipv4() && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
    };
    let others = addresses(other);
    addresses(one).iter().any(|a| others.iter().any(|b| same(a, b)))
}

fn of_setting<T>(name: &str, text: &dyn ToString, setting: &Setting<T>, judged: Result<(), Wrong>) -> Option<Mistake> {
    let wrong = judged.err()?;
    Some(Mistake::of_value(setting.origin.clone(), name, &text.to_string(), wrong))
}

/// A folder, or a file where that is the target of a prefix of its own; at `/` there is always a folder. What is no
/// regular file is not opened.
pub(super) fn readable(path: &Path, prefix: &str) -> Result<(), Wrong> {
    let opened = match fs::metadata(path) {
        Ok(found) if found.is_dir() => fs::read_dir(path).map(drop),
        Ok(_) if prefix == "/" => return Err(Wrong::new("not a folder", "name the folder that holds it")),
        Ok(found) if found.is_file() => fs::File::open(path).map(drop),
        Ok(_) => return Err(Wrong::new("neither a folder nor a file", "name a folder or a file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let missing = if prefix == "/" { "no such folder" } else { "no such folder or file" };
            return Err(Wrong::new(missing, "create it, or name another"));
        }
        Err(error) => Err(error),
    };
    let Err(problem) = opened else { return Ok(()) };
    Err(Wrong::new(format!("cannot be read ({problem})"), "let this user read and enter it"))
}

fn resolvable(host: &str, port: u16) -> Result<(), Wrong> {
    let remedy = "name a host that this machine knows, or one of its addresses";
    let addresses: Vec<_> = match (host, port).to_socket_addrs() {
        Ok(addresses) => addresses.collect(),
        Err(error) => return Err(Wrong::new(format!("does not resolve ({error})"), remedy)),
    };
    if addresses.is_empty() {
        return Err(Wrong::new("resolves to no address", remedy));
    }
    // Some other port, because a server may be running on this one.
    let elsewhere = |address: &SocketAddr| match TcpListener::bind((address.ip(), 0)) {
        Err(error) => error.kind() == io::ErrorKind::AddrNotAvailable,
        Ok(_) => false,
    };
    if addresses.iter().all(elsewhere) {
        return Err(Wrong::new("is not an address of this machine", remedy));
    }
    Ok(())
}

fn socket_place(path: &Path) -> Result<(), Wrong> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            Err(Wrong::new("exists and is no socket", "remove it, or name another path"))
        }
        Ok(_) | Err(_) => writable_folder(path),
    }
}

/// Not opened: a master that looked so at its own would lose the lock on it.
fn pid_file_place(path: &Path) -> Result<(), Wrong> {
    match fs::metadata(path) {
        Ok(found) if !found.is_file() => Err(Wrong::new("exists and is no file", "name another path")),
        Ok(_) => Ok(()),
        Err(_) => writable_folder(path),
    }
}

/// An existing log is opened as the server would, one that is to come needs a folder that takes files. A device or a pipe
/// is let be: opening a pipe waits for its reader.
fn writable_log(path: &Path) -> Result<(), Wrong> {
    let opened = match fs::metadata(path) {
        Ok(found) if found.is_dir() => return Err(Wrong::new("is a folder", "name a file")),
        Ok(found) if found.is_file() => OpenOptions::new().append(true).open(path).map(drop),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return writable_folder(path),
        Err(error) => Err(error),
    };
    opened.map_err(|error| {
        Wrong::new(format!("cannot be written ({error})"), "let this user write it, or name another file")
    })
}

/// Whether the folder of `path` takes files is known for sure only by making one; it is removed at once.
fn writable_folder(path: &Path) -> Result<(), Wrong> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let probe = folder.join(format!(".regrow-check-{}", process::id()));
    match OpenOptions::new().write(true).create_new(true).open(&probe) {
        Ok(_) => fs::remove_file(&probe)
            .map_err(|error| Wrong::new(format!("left {} behind ({error})", probe.display()), "remove that file")),
        Err(error) => Err(Wrong::new(
            format!("no file can be made in {} ({error})", folder.display()),
            "create that folder and let this user write in it",
        )),
    }
}

fn notes(config: &Config) -> Vec<String> {
    let found = [
        development(config),
        small_queue(config, somaxconn()),
        capped_queue(config, somaxconn()),
        few_descriptors(config, sys::limits::most_descriptors().ok()),
        few_processes(config, sys::limits::processes_of_user().ok().filter(|_| !account::is_unlimited(config))),
        unused_host(config),
        unused_status_host(config),
        public_status(config),
        anybody_in_front(config),
        missing_fallback(config),
    ];
    found.into_iter().flatten().chain(unused_limits(config)).collect()
}

fn development(config: &Config) -> Option<String> {
    (config.mode() == Mode::Single).then(|| {
        "a single worker answers one request after the other and is meant for development; \
         in production say processPool = 2 or more"
            .to_owned()
    })
}

fn small_queue(config: &Config, somaxconn: Option<u32>) -> Option<String> {
    const ENOUGH: u32 = 128;
    const RECOMMENDED: u32 = 1024;
    let queue = *config.server.socket_queue_size;
    (queue < ENOUGH && config.mode() != Mode::Single).then(|| {
        let raise = match somaxconn {
            Some(cap) if cap < RECOMMENDED => {
                format!(", and raise the {cap} at which the kernel caps it: sysctl -w net.core.somaxconn={RECOMMENDED}")
            }
            Some(_) | None => String::new(),
        };
        format!(
            "socketQueueSize = {queue} lets a burst of connections wait or fail before they are accepted; \
             in production say socketQueueSize = {RECOMMENDED}{raise}"
        )
    })
}

fn capped_queue(config: &Config, somaxconn: Option<u32>) -> Option<String> {
    let (queue, cap) = (*config.server.socket_queue_size, somaxconn?);
    (queue > cap).then(|| {
        format!(
            "socketQueueSize = {queue} is capped at {cap} by the kernel; raise it with \
             sysctl -w net.core.somaxconn={queue}"
        )
    })
}

/// listen(2): a backlog above this is cut without a word.
fn somaxconn() -> Option<u32> {
    read_number("/proc/sys/net/core/somaxconn")
}

/// What this process may bind.
struct Privileges {
    /// The first port that needs no privilege.
    first_free_port: u32,
    /// It may bind the others too.
    may_bind_any: bool,
}

impl Privileges {
    fn of_this_process() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self {
            first_free_port: read_number("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or(1024),
            may_bind_any: has_capability(&status, CAP_NET_BIND_SERVICE).unwrap_or_else(privileges::is_root),
        }
    }
}

/// Numbers of capabilities(7).
const CAP_KILL: u32 = 5;
const CAP_NET_BIND_SERVICE: u32 = 10;

/// Whether a capability is in the effective set that `/proc/self/status` shows.
fn has_capability(status: &str, number: u32) -> Option<bool> {
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    let set = u64::from_str_radix(set.trim(), 16).ok()?;
    Some(set & (1 << number) != 0)
}

fn privileged_port(port: u16, privileges: &Privileges) -> Option<Wrong> {
    let port = u32::from(port);
    let reserved = port != 0 && port < privileges.first_free_port;
    (reserved && !privileges.may_bind_any).then(|| {
        let first = privileges.first_free_port;
        let remedy = format!(
            "say {first} or more, grant CAP_NET_BIND_SERVICE (setcap, or AmbientCapabilities of systemd), or start as root"
        );
        Wrong::new(format!("to listen on a port below {first} takes a privilege that this user lacks"), remedy)
    })
}

fn few_descriptors(config: &Config, limit: Option<u64>) -> Option<String> {
    let connections = *config.limits.max_connections;
    let wanted = u64::try_from(connections).ok()?.saturating_add(other_descriptors(config.layout(processors()).runner));
    let limit = limit.filter(|limit| *limit < wanted)?;
    Some(format!(
        "maxConnections = {connections} needs {wanted} descriptors for each worker, and the hard limit is {limit}; \
         raise it (LimitNOFILE={wanted} of systemd, ulimit -n {wanted})"
    ))
}

fn few_processes(config: &Config, limit: Option<u64>) -> Option<String> {
    let (name, most) = match config.layout(processors()).runner {
        Runner::Processes(most) => ("maxProcesses", most),
        Runner::Threads(most) => ("maxThreads", most),
        Runner::Pool(_) => return None,
    };
    let limit = limit.filter(|limit| *limit <= u64::from(most))?;
    Some(format!(
        "{name} = {most}, but this user may have {limit} processes and threads, all its programs together; \
         say less, or raise that (LimitNPROC= of systemd, ulimit -u)"
    ))
}

fn unused_host(config: &Config) -> Option<String> {
    let server = &config.server;
    let said = server.socket_host.origin != Origin::Default;
    (said && server.socket_file.is_some())
        .then(|| format!("socketHost ({}) is not used: socketFile is", server.socket_host.origin))
}

fn unused_status_host(config: &Config) -> Option<String> {
    let status = &config.status;
    let said = status.status_host.origin != Origin::Default;
    (said && status.status_port.is_none())
        .then(|| format!("statusHost ({}) is not used: statusPort is not said", status.status_host.origin))
}

fn public_status(config: &Config) -> Option<String> {
    let status = &config.status;
    let port = (*status.status_port)?;
    let mut addresses = (status.status_host.as_str(), port).to_socket_addrs().ok()?;
    addresses.any(|address| !address.ip().is_loopback()).then(|| {
        format!(
            "statusHost = {} tells whoever can reach it how the server is; let a firewall admit the balancers alone",
            *status.status_host
        )
    })
}

/// Whoever can connect may then claim any address.
fn anybody_in_front(config: &Config) -> Option<String> {
    let proxy = &config.proxy;
    (*proxy.proxy_protocol && proxy.trusted.is_empty()).then(|| {
        format!(
            "proxyProtocol = 1 ({}) believes everybody who can connect about who the client is; \
             name the servers in front: trusted = 10.0.0.2, say, or unix",
            proxy.proxy_protocol.origin
        )
    })
}

/// Limits of modes that were not chosen.
fn unused_limits(config: &Config) -> impl Iterator<Item = String> {
    let (limits, mode) = (&config.limits, config.mode());
    let limits = [
        ("maxProcesses", &limits.max_processes.origin, "forking = 1", mode == Mode::Forking),
        ("maxThreads", &limits.max_threads.origin, "threading = 1", mode == Mode::Threading),
        ("handlerThreads", &limits.handler_threads.origin, "processPool = n", matches!(mode, Mode::ProcessPool(_))),
    ];
    let unused = limits.into_iter().filter(|(_, origin, _, used)| **origin != Origin::Default && !used);
    unused.map(|(name, origin, user, _)| format!("{name} ({origin}) is not used: it is for {user}"))
}

/// A fallback that no folder has is never sent.
fn missing_fallback(config: &Config) -> Option<String> {
    let fallback = config.files.fallback.as_deref()?;
    let has_it = |content: &StaticContent| content.path.join(fallback).is_file();
    let missing = !config.static_content.is_empty() && !config.static_content.iter().any(has_it);
    missing.then(|| format!("fallback = {fallback} ({}) is in no folder that is served", config.files.fallback.origin))
}

fn read_number(path: &str) -> Option<u32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests;
