//! A server under test: its own process group, folder, port and logs; gone, whatever happens, when the test ends.

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::wait_until;

/// How to start a server.
pub struct Launch {
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(String, OsString)>,
    wrapper: Vec<String>,
    /// False where the arguments say where to listen.
    any_port: bool,
    /// True where the configuration says where the access log is.
    says_access_log: bool,
    folder: TempDir,
}

impl Launch {
    /// `regrow serve`.
    pub fn regrow() -> Self {
        Self::new(env!("CARGO_BIN_EXE_regrow").into()).arg("serve")
    }

    /// An application among the examples of this crate. `cargo test` builds them too, but not when it is told which tests.
    pub fn example(name: &str) -> Self {
        let program = Path::new(env!("CARGO_BIN_EXE_regrow")).with_file_name("examples").join(name);
        assert!(program.exists(), "{} is missing: run `cargo build --examples` first", program.display());
        Self::new(program)
    }

    fn new(program: PathBuf) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self {
            program,
            args: Vec::new(),
            env: Vec::new(),
            wrapper: Vec::new(),
            any_port: true,
            says_access_log: false,
            folder,
        }
    }

    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// `["--processPool", "2"]`.
    pub fn args<const N: usize>(mut self, args: [&str; N]) -> Self {
        self.args.extend(args.map(OsString::from));
        self
    }

    /// As many as there are.
    pub fn options(mut self, options: &[&str]) -> Self {
        self.args.extend(options.iter().map(OsString::from));
        self
    }

    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// Runs it by another program: `["setpriv", "--reuid", "65534"]`.
    pub fn through(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(ToString::to_string).collect();
        self
    }

    /// With this configuration, and nothing said beside it but where the access log is if it does not.
    pub fn configured(mut self, text: &str) -> Self {
        fs::write(self.folder().join("site.conf"), text).expect("a configuration");
        self.says_access_log = text.contains("accessLog");
        self.args(["-c", "site.conf"]).listening_elsewhere()
    }

    /// Another program, which is one of the same kind.
    pub fn program(mut self, program: &Path) -> Self {
        program.clone_into(&mut self.program);
        self
    }

    /// The arguments say where to listen, and there may be no port to wait for.
    pub fn listening_elsewhere(mut self) -> Self {
        self.any_port = false;
        self
    }

    /// The folder that the server will run in, with its logs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts it, and waits until all of its workers are ready.
    pub fn start(self) -> Server {
        let server = self.spawn();
        server.wait_until_complete(0);
        server
    }

    /// Starts it and waits for nothing.
    pub fn spawn(self) -> Server {
        let mut command = self.command();
        let child = command.spawn().unwrap_or_else(|cause| panic!("cannot start {command:?}: {cause}"));
        let pid = i32::try_from(child.id()).expect("a pid");
        Server {
            pid,
            group: pid,
            child,
            status: None,
            upgraded: false,
            folder: self.folder,
            told: format!("{command:?}"),
        }
    }

    fn command(&self) -> Command {
        let mut words: Vec<OsString> = self.wrapper.iter().map(OsString::from).collect();
        words.push(self.program.clone().into());
        words.extend(self.args.iter().cloned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        if self.any_port {
            command.args(["--socketHost", "127.0.0.1", "--socketPort", "0"]);
        }
        if !self.says_access_log && !self.args.iter().any(|arg| arg == "--accessLog") {
            command.arg("--accessLog").arg(self.folder.path().join("access.log"));
        }
        // Its control socket goes with it.
        command.env("RUNTIME_DIRECTORY", self.folder.path());
        command.envs(self.env.iter().map(|(name, value)| (name, value))).env_remove("RUST_LOG");
        command.current_dir(self.folder.path()).stdin(Stdio::null()).process_group(0);
        let capture = |name| File::create(self.folder.path().join(name)).expect("a file for what it says");
        command.stdout(capture("stdout")).stderr(capture("stderr"));
        command
    }
}

/// A server that was started, and dies with the test.
pub struct Server {
    child: Child,
    pid: i32,
    /// Of all its processes.
    group: i32,
    status: Option<ExitStatus>,
    /// The master is another one than was started.
    upgraded: bool,
    folder: TempDir,
    told: String,
}

impl Server {
    /// The master, unless the server was started through another program.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The folder it runs in.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What it has said on standard error, where its error log is.
    pub fn log(&self) -> String {
        read(&self.folder.path().join("stderr"))
    }

    /// What it has said on standard output.
    pub fn stdout(&self) -> String {
        read(&self.folder.path().join("stdout"))
    }

    /// Its access log, unless the arguments put that elsewhere.
    pub fn access_log(&self) -> String {
        read(&self.folder.path().join("access.log"))
    }

    /// The first whole line of the error log with this text.
    pub fn wait_for_log(&self, text: &str) -> String {
        self.wait_for_log_after(0, text)
    }

    /// The first whole line with this text, after the first `mark` bytes of the error log.
    pub fn wait_for_log_after(&self, mark: usize, text: &str) -> String {
        wait_until(&format!("a log line with {text:?}"), || find_line(&self.log()[mark..], text))
    }

    /// Where the log ends now; what is said later comes after it.
    pub fn log_mark(&self) -> usize {
        self.log().len()
    }

    /// Waits until, after the first `mark` bytes of the log, every worker that there is to be serves.
    pub fn wait_until_complete(&self, mark: usize) {
        wait_until("every worker ready", || self.log()[mark..].lines().any(is_complete).then_some(()));
    }

    /// Where it listens, for a server with a port.
    pub fn address(&self) -> SocketAddr {
        let line = self.wait_for_log("listening on http");
        let address = line.split("://").nth(1).and_then(|rest| rest.split_whitespace().next());
        address.and_then(|address| address.parse().ok()).unwrap_or_else(|| panic!("no address in {line}"))
    }

    /// Where balancers ask how it is, for a server with `--statusPort 0`.
    pub fn status_address(&self) -> SocketAddr {
        let line = self.wait_for_log("status on http://");
        let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next());
        address.and_then(|address| address.parse().ok()).unwrap_or_else(|| panic!("no address in {line}"))
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address()).expect("nobody is refused");
        stream.set_read_timeout(Some(super::PATIENCE)).expect("a timeout");
        stream
    }

    /// The workers that it has forked and not reaped, in no certain order.
    pub fn worker_pids(&self) -> Vec<i32> {
        let mut pids = children_of(self.pid);
        pids.retain(|&pid| !is_reporter(pid));
        pids
    }

    /// The process that answers on the status port and the control socket.
    pub fn reporter_pid(&self) -> i32 {
        wait_until("a reporter", || children_of(self.pid).into_iter().find(|&pid| is_reporter(pid)))
    }

    /// Where it takes commands, unless the arguments put that elsewhere: below the folder it runs in.
    pub fn control_socket(&self) -> PathBuf {
        let line = self.wait_for_log("commands on unix:");
        line.split("unix:").nth(1).map(PathBuf::from).expect("a path")
    }

    pub fn signal(&self, pid: i32, signal: Signal) {
        kill(Pid::from_raw(pid), signal)
            .unwrap_or_else(|cause| panic!("cannot send {signal} to {pid} of {}: {cause}", self.told));
    }

    /// Sends a signal to the master.
    pub fn tell(&self, signal: Signal) {
        self.signal(self.pid, signal);
    }

    /// Stops it gracefully, and returns its exit code.
    pub fn stop(&mut self) -> i32 {
        self.tell(Signal::SIGTERM);
        self.exit_code()
    }

    /// After an upgrade: the master is that one from now on.
    pub fn follow(&mut self, pid: i32) {
        (self.pid, self.upgraded) = (pid, true);
    }

    /// Waits for the end of the master that was started, and returns its exit code.
    pub fn exit_code(&mut self) -> i32 {
        let status = wait_until("the end of the server", || self.child.try_wait().expect("a child to wait for"));
        self.status = Some(status);
        status.code().unwrap_or_else(|| panic!("ended by signal {:?}", status.signal()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.status.is_none() {
            // Not reaped, so that the group is still its own, even where the master is dead.
            let _ = killpg(Pid::from_raw(self.group), Signal::SIGKILL);
            let _ = self.child.wait();
        }
        if self.upgraded {
            // Nobody else works in that folder.
            for pid in processes_in(self.folder.path()) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        if std::thread::panicking() {
            eprintln!("--- {}\n{}{}---", self.told, self.log(), self.stdout());
        }
    }
}

/// The processes whose parent is `pid`, dead ones that were not reaped left out.
pub fn children_of(pid: i32) -> Vec<i32> {
    let mut children = all_children_of(pid);
    children.retain(|&child| is_alive(child));
    children
}

/// The processes that work in this folder.
fn processes_in(folder: &Path) -> impl Iterator<Item = i32> {
    let is_there = move |pid: &i32| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == folder);
    all_processes().filter(is_there)
}

fn all_processes() -> impl Iterator<Item = i32> {
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The processes whose parent is `pid`, also those that are dead and not reaped.
pub fn all_children_of(pid: i32) -> Vec<i32> {
    all_processes().filter(|&child| state_and_parent(child).is_some_and(|(_, parent)| parent == pid)).collect()
}

/// Whether it is the master's child that is no worker, which has a name of its own.
pub fn is_reporter(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim_end() == "regrow-reporter")
}

/// proc(5): these are the two fields after the name, which stands in parentheses and may hold anything.
fn state_and_parent(pid: i32) -> Option<(char, i32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit(')').next()?.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// Whether the process runs; one that is dead and was not reaped does not.
pub fn is_alive(pid: i32) -> bool {
    state_and_parent(pid).is_some_and(|(state, _)| !matches!(state, 'Z' | 'X'))
}

fn is_complete(line: &str) -> bool {
    let counts = line.split(" ready (").nth(1).and_then(|rest| rest.strip_suffix(" serve)"));
    counts.and_then(|counts| counts.split_once(" of ")).is_some_and(|(serving, wanted)| serving == wanted)
}

fn find_line(log: &str, text: &str) -> Option<String> {
    let whole = &log[..=log.rfind('\n')?];
    whole.lines().find(|line| line.contains(text)).map(ToOwned::to_owned)
}

fn read(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}
