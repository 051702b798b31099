//! Why a listening socket could not be opened, with a remedy.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::Options;

/// Why a listening socket could not be opened.
#[derive(Debug)]
pub(crate) enum Error {
    Resolve { host: String, options: Options, cause: io::Error },
    Bind { address: SocketAddr, options: Options, cause: io::Error },
    BindFile { path: PathBuf, option: &'static str, cause: io::Error },
    NotASocket { path: PathBuf, option: &'static str },
    ServerAlive { path: PathBuf, option: &'static str },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolve { host, options, cause } => write!(
                f,
                "cannot find an address for {}={host}: {cause}; use an address of this machine, such as \
                 127.0.0.1, or 0.0.0.0 for all of its IPv4 addresses",
                options.host
            ),
            Self::Bind { address, options, cause } => {
                write!(f, "cannot listen on {address}: {}", bind_cause(*address, *options, cause))
            }
            Self::BindFile { path, option, cause } => write!(
                f,
                "cannot listen on {option}={}: {cause}; the folder must exist, this user must be allowed to \
                 write to it and to a socket that is there, and the path must be shorter than 108 bytes",
                path.display()
            ),
            Self::NotASocket { path, option } => write!(
                f,
                "cannot listen on {option}={}: there is a file which is not a socket; move it away or choose \
                 another path",
                path.display()
            ),
            Self::ServerAlive { path, option } => write!(
                f,
                "cannot listen on {option}={}: a server already answers there; stop it first or choose another path",
                path.display()
            ),
        }
    }
}

impl std::error::Error for Error {}

fn bind_cause(address: SocketAddr, options: Options, cause: &io::Error) -> String {
    let (port, option) = (address.port(), options.port);
    match cause.kind() {
        io::ErrorKind::AddrInUse => format!(
            "another process already listens there; stop it (`ss -ltnp 'sport = :{port}'` names it) or choose \
             another {option}"
        ),
        io::ErrorKind::PermissionDenied if port < 1024 => format!(
            "permission denied: ports below 1024 are for root; choose a {option} from 1024 (8080, say) instead of {port}, \
             give the program CAP_NET_BIND_SERVICE (setcap, or AmbientCapabilities of systemd), or start as root"
        ),
        io::ErrorKind::AddrNotAvailable => {
            format!("{} is not an address of this machine; correct {}", address.ip(), options.host)
        }
        _ => cause.to_string(),
    }
}
