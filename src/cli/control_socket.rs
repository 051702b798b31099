//! Where the control socket is when nobody says: in a runtime folder, named after the address of the site. The server
//! binds there, and commands look there.

use std::fmt::Write as _;
use std::fs::DirBuilder;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::listen::{Error, Listener, bind_control};

/// unix(7): `sun_path` has 108 bytes, the last is NUL.
const LONGEST: usize = 107;

/// How every name ends.
const END: &str = ".sock";

/// Binds the control socket of a server that listens on `listeners`. Where it may be anywhere and can be nowhere, the
/// log says so, and there is none: signals still work.
pub(super) fn bind(
    config: &Config,
    listeners: &[Arc<Listener>],
    takeover: bool,
) -> Result<Option<Arc<Listener>>, Error> {
    if let Some(path) = config.supervisor.control_socket.as_deref() {
        return Ok(Some(Arc::new(bind_patiently(path, takeover)?)));
    }
    let port = listeners.iter().find_map(|listener| listener.port());
    match bind_in_first(&folders(), config, port, takeover) {
        Ok(listener) => Ok(Some(Arc::new(listener))),
        Err(why) => {
            log::warn!("no control socket: {why}; say controlSocket = FILE for `regrow reload` and the other commands");
            Ok(None)
        }
    }
}

fn bind_in_first(folders: &[PathBuf], config: &Config, port: Option<u16>, takeover: bool) -> Result<Listener, String> {
    let mut failed = "there is no runtime folder ($RUNTIME_DIRECTORY, /run/regrow, $XDG_RUNTIME_DIR)".to_owned();
    for folder in folders {
        // If it is there, or cannot be made, binding shows what that comes to.
        let _ = DirBuilder::new().mode(0o755).create(folder);
        match bind_patiently(&path_in(folder, config, port), takeover) {
            Ok(listener) => return Ok(listener),
            // Commands would reach that one.
            Err(alive @ Error::ServerAlive { .. }) => return Err(alive.to_string()),
            Err(why) => failed = why.to_string(),
        }
    }
    Err(failed)
}

/// The process that answers for a master that was killed ends with it, but a moment later.
fn bind_patiently(path: &Path, takeover: bool) -> Result<Listener, Error> {
    const LOOKS: u32 = 50;
    for _ in 0..LOOKS {
        match bind_control(path, takeover) {
            Err(Error::ServerAlive { .. }) => std::thread::sleep(Duration::from_millis(10)),
            done => return done,
        }
    }
    bind_control(path, takeover)
}

/// The folders that it may be in, the best first.
pub(super) fn folders() -> Vec<PathBuf> {
    folders_with(|name| std::env::var_os(name).map(PathBuf::from))
}

/// With these environment variables.
fn folders_with(variable: impl Fn(&str) -> Option<PathBuf>) -> Vec<PathBuf> {
    // systemd.exec(5): several are separated by colons.
    let first = |all: PathBuf| all.to_str().and_then(|all| all.split(':').next()).map(PathBuf::from);
    let of_service = variable("RUNTIME_DIRECTORY").and_then(first);
    let of_user = variable("XDG_RUNTIME_DIR").filter(|folder| !folder.as_os_str().is_empty());
    let folders = [of_service, Some("/run/regrow".into()), of_user.map(|folder| folder.join("regrow"))];
    folders.into_iter().flatten().filter(|folder| folder.is_absolute()).collect()
}

/// Its path in `folder`, for a server with this port, or with a socket file.
pub(super) fn path_in(folder: &Path, config: &Config, port: Option<u16>) -> PathBuf {
    let server = &config.server;
    let name = match server.socket_file.as_deref() {
        Some(path) => format!("unix-{}", escaped(path.as_os_str().as_bytes())),
        None => format!("{}-{}", escaped(server.socket_host.as_bytes()), port.unwrap_or(*server.socket_port)),
    };
    let room = LONGEST.saturating_sub(folder.as_os_str().len() + 1 + END.len());
    folder.join(fitted(&name, room) + END)
}

/// As systemd-escape(1) has it: `/` becomes `-`, and what may stand for something else a number.
fn escaped(bytes: &[u8]) -> String {
    let mut text = String::new();
    for &byte in bytes.strip_prefix(b"/").unwrap_or(bytes) {
        match byte {
            b'/' => text.push('-'),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b':' => text.push(char::from(byte)),
            // Writing to a String cannot fail.
            _ => drop(write!(text, "\\x{byte:02x}")),
        }
    }
    text
}

/// A name in at most `room` bytes: what is too long ends with a number that the whole of it gives.
fn fitted(name: &str, room: usize) -> String {
    if name.len() <= room {
        return name.to_owned();
    }
    // FNV-1a: the same with every version of the program.
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let hash = format!("~{hash:016x}");
    format!("{}{hash}", &name[..room.saturating_sub(hash.len())])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    fn config(flags: &[(&str, &str)]) -> Config {
        let flags = flags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let sources = Sources { flags, current_folder: "/".into(), ..Sources::default() };
        Config::resolve(&sources).unwrap()
    }

    fn name(flags: &[(&str, &str)], port: Option<u16>) -> String {
        path_in(Path::new("/run/regrow"), &config(flags), port).display().to_string()
    }

    #[test]
    fn it_is_named_after_the_address() {
        assert_eq!(name(&[], None), "/run/regrow/localhost-8080.sock");
        assert_eq!(name(&[("socketHost", "::1"), ("socketPort", "0")], Some(4711)), "/run/regrow/::1-4711.sock");
        assert_eq!(name(&[("socketFile", "/run/a-b/c.sock")], None), "/run/regrow/unix-run-a\\x2db-c.sock.sock");
    }

    #[test]
    fn a_name_that_is_too_long_is_cut_and_stays_unique() {
        let long = |end: &str| name(&[("socketFile", &format!("/{}{end}", "x".repeat(95)))], None);
        assert_eq!(long("a").len(), LONGEST);
        assert!(long("a").ends_with(END) && long("a").starts_with("/run/regrow/unix-xxx"));
        assert_eq!(long("a"), long("a"));
        assert_ne!(long("a"), long("b"));
        let (a, b) = (name(&[("socketFile", "/a/b")], None), name(&[("socketFile", "/a-b")], None));
        assert_ne!(a, b, "a slash and a dash");
    }

    #[test]
    fn a_service_has_its_folder_and_a_user_theirs() {
        let of = |service: &str, user: &str| {
            let (service, user) = (PathBuf::from(service), PathBuf::from(user));
            folders_with(|name| Some(if name == "RUNTIME_DIRECTORY" { service.clone() } else { user.clone() }))
        };
        let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(of("/run/site:/run/b", "/run/user/7"), paths(&["/run/site", "/run/regrow", "/run/user/7/regrow"]));
        assert_eq!(of("", ""), paths(&["/run/regrow"]));
        assert_eq!(folders_with(|_| None), paths(&["/run/regrow"]));
    }
}
