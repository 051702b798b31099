//! nginx, Apache or haproxy in front of Regrow, from the sample files of examples/behind with a few words exchanged:
//! where they listen, what they write, and as whom they run.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, Uid};
use tempfile::TempDir;

use super::{Launch, Server, wait_until};

/// Regrow's socket file in the samples.
const SOCKET: &str = "/run/regrow/site.sock";

/// A server that stands in front.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Front {
    Nginx,
    Apache,
    Haproxy,
    /// Which passes TLS through.
    HaproxyTcp,
}

/// How it reaches Regrow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Unix,
}

/// Where Regrow listens, in which way ever.
pub struct Place {
    pub transport: Transport,
    pub address: SocketAddr,
    pub folder: TempDir,
}

impl Place {
    pub fn new(transport: Transport) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        // Apache, started by root, goes on as another user.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("the folder is ours");
        Self { transport, address: own_address(), folder }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("site.sock")
    }

    /// Starts a Regrow with the sample of that name; `changes` are made to it before.
    pub fn start(&self, launch: Launch, sample: &str, changes: &[(&str, &str)]) -> Server {
        let path = launch.folder().join("site.ini");
        fs::write(&path, exchange(&self.led_here(sample), changes)).expect("a file for the configuration");
        launch.arg("-c").arg(path).args(["--socketFileMode", "0666"]).listening_elsewhere().start()
    }

    /// The sample with the address or the socket file of this place in the place of its own.
    fn led_here(&self, sample: &str) -> String {
        read_sample(sample)
            .lines()
            .filter_map(|line| self.line_led_here(line))
            .flat_map(|line| [line, "\n".into()])
            .collect()
    }

    /// What stands for the other transport is left out; the socket file's lines are comments that begin without a blank.
    fn line_led_here(&self, line: &str) -> Option<String> {
        let by_address = self.addresses().into_iter().find(|(written, _)| line.contains(written));
        match (self.transport, by_address) {
            (Transport::Tcp, Some((written, here))) => Some(line.replace(written, &here)),
            (Transport::Unix, Some(_)) => None,
            (Transport::Unix, None) if line.contains(SOCKET) => {
                Some(line.replacen('#', "", 1).replace(SOCKET, &self.socket().display().to_string()))
            }
            (Transport::Tcp | Transport::Unix, None) => Some(line.to_owned()),
        }
    }

    /// How the samples write Regrow's address, and what stands there for this place.
    fn addresses(&self) -> [(&'static str, String); 5] {
        let (whole, ip, port) = (self.address.to_string(), self.address.ip(), self.address.port());
        let port = format!("socketPort = {port}");
        [
            ("127.0.0.1:8080", whole.clone()),
            ("127.0.0.1:8443", whole),
            ("socketHost = 127.0.0.1", format!("socketHost = {ip}")),
            ("socketPort = 8080", port.clone()),
            ("socketPort = 8443", port),
        ]
    }
}

/// A front that was started, and dies with the test.
pub struct RunningFront {
    pub address: SocketAddr,
    child: Child,
    folder: TempDir,
}

impl Front {
    /// Starts it in front of that place, and waits until it accepts.
    pub fn start(self, place: &Place) -> RunningFront {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let address = own_address();
        let config = folder.path().join("front.conf");
        fs::write(&config, self.config(place, address, folder.path())).expect("a file for the configuration");
        let mut command = self.command(&config);
        let said = File::create(folder.path().join("said")).expect("a file for what it says");
        command.stdin(Stdio::null()).stdout(said.try_clone().expect("a descriptor")).stderr(said).process_group(0);
        // Where Debian has servers, which is not in everybody's PATH.
        command.env("PATH", format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default()));
        let child = command.spawn().unwrap_or_else(|cause| panic!("{command:?}: {cause}; scripts/test installs it"));
        let mut front = RunningFront { address, child, folder };
        front.wait_until_it_accepts();
        front
    }

    fn command(self, config: &Path) -> Command {
        let (program, args) = match self {
            Self::Nginx => ("nginx", ["-c"].as_slice()),
            Self::Apache => ("apache2", ["-D", "FOREGROUND", "-f"].as_slice()),
            Self::Haproxy | Self::HaproxyTcp => ("haproxy", ["-db", "-f"].as_slice()),
        };
        let mut command = Command::new(program);
        command.args(args).arg(config);
        command
    }

    fn config(self, place: &Place, address: SocketAddr, folder: &Path) -> String {
        let folder = folder.display();
        match self {
            Self::Nginx => {
                let site = exchange(&place.led_here("nginx.conf"), &[("listen 80;", &format!("listen {address};"))]);
                nginx_around(&site, &folder.to_string())
            }
            Self::Apache => {
                let host = format!("<VirtualHost {address}>");
                let site = exchange(&place.led_here("apache.conf"), &[("<VirtualHost *:80>", &host)]);
                apache_around(&site, address, &folder.to_string())
            }
            Self::Haproxy => haproxy_here(&place.led_here("haproxy.cfg"), "bind :80\n", address),
            Self::HaproxyTcp => haproxy_here(&place.led_here("haproxy-tcp.cfg"), "bind :443\n", address),
        }
    }
}

/// What a system has in its nginx.conf. One worker, so that it is known which connections it can keep.
fn nginx_around(site: &str, folder: &str) -> String {
    let user = if Uid::effective().is_root() { "user root;" } else { "" };
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary = temporary.map(|of| format!("{of}_temp_path {folder}/{of};\n")).concat();
    format!(
        "daemon off;\n{user}\nworker_processes 1;\npid {folder}/pid;\nerror_log stderr info;\n\
         events {{}}\nhttp {{\naccess_log off;\n{temporary}{site}}}\n"
    )
}

/// What a system has in its apache2.conf, and `a2enmod` adds. One process, as above.
fn apache_around(site: &str, address: SocketAddr, folder: &str) -> String {
    let modules = ["mpm_event", "authz_core", "proxy", "proxy_http", "headers"];
    let modules = modules.map(|name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"));
    let modules = modules.concat();
    let user = if Uid::effective().is_root() { "User www-data\nGroup www-data\n" } else { "" };
    format!(
        "{modules}{user}ServerRoot {folder}\nServerName example.org\nDefaultRuntimeDir {folder}\nPidFile {folder}/pid\n\
         ErrorLog /dev/stderr\nStartServers 1\nServerLimit 1\nThreadsPerChild 64\nMaxRequestWorkers 64\n\
         Listen {address}\n{site}"
    )
}

/// Whose file is complete, but for a user and a log that may not be there.
fn haproxy_here(sample: &str, bind: &str, address: SocketAddr) -> String {
    let here = format!("bind {address}\n");
    let (log, user) = ("log /dev/log local0\n", "    user haproxy\n    group haproxy\n");
    exchange(sample, &[(log, "log stdout format raw local0\n"), (user, ""), (bind, &here)])
}

impl RunningFront {
    fn wait_until_it_accepts(&mut self) {
        wait_until("the front to accept", || {
            let ended = self.child.try_wait().expect("a child to wait for");
            assert!(ended.is_none(), "it has ended, {ended:?}:\n{}", self.said());
            TcpStream::connect(self.address).ok()
        });
    }

    fn said(&self) -> String {
        fs::read_to_string(self.folder.path().join("said")).unwrap_or_default()
    }
}

impl Drop for RunningFront {
    fn drop(&mut self) {
        let group = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"));
        // Asked first, so that what it shares with its workers is removed.
        let _ = kill(group, Signal::SIGTERM);
        let ended = (0..1_000).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(2));
            !super::is_alive(group.as_raw())
        });
        if !ended {
            eprintln!("the front does not end when it is told to");
        }
        // Not reaped yet, so that the group is still its own.
        let _ = killpg(group, Signal::SIGKILL);
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the front\n{}---", self.said());
        }
    }
}

/// A port of an address that no other test of this run uses, so that it is still free when it is bound again.
fn own_address() -> SocketAddr {
    static TAKEN: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    let own = Ipv4Addr::new(127, high | 1, low, TAKEN.fetch_add(1, Ordering::Relaxed));
    TcpListener::bind((own, 0)).and_then(|listener| listener.local_addr()).expect("a free port")
}

fn read_sample(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/behind").join(name);
    fs::read_to_string(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
}

/// Each of the texts must be there.
fn exchange(text: &str, changes: &[(&str, &str)]) -> String {
    changes.iter().fold(text.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "no {from:?} in\n{text}");
        text.replace(from, to)
    })
}
