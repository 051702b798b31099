//! The table of options: one row per option, from which everything that lists options is derived (the resolved types,
//! the file's vocabulary, flags and variables, `regrow options`, `regrow init`, hints, conflicts).
//!
//! A row is the field's help, then `field: type = name, kind, default, reload[, one of choice];`. The empty default is
//! none; `Reload` says that a reload may change the option, `Restart` that only a restart does.

use std::path::{Path, PathBuf};
use std::time::Duration;

use log::LevelFilter;

use super::kind::{
    Kind, Shape, access_format, account, duration, duration_or_zero, field_value, file, file_names, forking, host,
    level, log_target, number, optional_permissions, optional_port, path_within, permissions, process_pool, senders,
    size, socket_file, switch, thread_pool, threading, url_path,
};
use super::layers::Layers;
use super::mistake::Wrong;
use super::{AccessFormat, LogTarget, Origin, Senders, Setting};

/// Every section, in the order in which people read them.
pub(crate) static SECTIONS: &[Section] = &[
    Server::SECTION,
    STATIC_CONTENT,
    Files::SECTION,
    Limits::SECTION,
    Supervisor::SECTION,
    Log::SECTION,
    Proxy::SECTION,
    Status::SECTION,
];

const STATIC_CONTENT: Section = Section {
    name: "staticContent",
    about: "What is served where",
    heading: "[staticContent] What is served where",
    rows: &[],
    entries: Some(Entries {
        name: "/url/prefix",
        value: "FOLDER|FILE",
        help: "A folder, served below this prefix, or a file, served there; as many as needed, the longest prefix wins",
    }),
};

section! {
    /// How connections come in and who answers them
    Server = "server";

    /// Host name or address to listen on; every address it resolves to is bound
    socket_host: String = "socketHost", host(), "localhost", Reload;
    /// Port to listen on; 0 lets the system choose one
    socket_port: u16 = "socketPort", number("PORT", 0, 65_535), "8080", Reload, one of Address;
    /// Unix socket to listen on instead of a host and a port
    socket_file: Option<PathBuf> = "socketFile", socket_file(), "", Reload, one of Address;
    /// Connections that the kernel queues until a worker accepts them (the backlog of listen)
    socket_queue_size: u32 = "socketQueueSize", number("N", 1, 65_535), "5", Reload;
    /// 1 answers each request in a new process, which ends with it; for few requests, each apart from all others
    forking: bool = "forking", forking(), "0", Reload, one of Mode;
    /// 1 answers each request in a new thread, which ends with it; for few requests, of handlers that wait much
    threading: bool = "threading", threading(), "0", Reload, one of Mode;
    /// Worker processes forked at start, two or more; for production. None of these four is a single worker, for development
    process_pool: Option<u32> = "processPool", process_pool(1024), "", Reload, one of Mode;
    /// Threads of one worker process, made at its start, two or more; for handlers that wait much or share memory
    thread_pool: Option<u32> = "threadPool", thread_pool(1024), "", Reload, one of Mode;
    /// Private key for TLS, in PEM; with sslCertificateFile, clients come by https
    ssl_key_file: Option<PathBuf> = "sslKeyFile", file(), "", Reload;
    /// Certificate of that key, in PEM, with the chain behind it
    ssl_certificate_file: Option<PathBuf> = "sslCertificateFile", file(), "", Reload;
    /// 1 writes host names of clients into the access log, in place of their addresses
    reverse_dns: bool = "reverseDNS", switch(), "0", Reload;
}

section! {
    /// How files are served
    Files = "files";

    /// Files that answer for their folder, separated by blanks; the first one found wins
    index: Vec<String> = "index", file_names(), "index.html", Reload;
    /// 1 lists a folder that has no index file
    listing: bool = "listing", switch(), "0", Reload;
    /// 1 serves files and folders whose names begin with a dot
    dotfiles: bool = "dotfiles", switch(), "0", Reload;
    /// 1 follows symbolic links that leave their folder
    follow_symlinks: bool = "followSymlinks", switch(), "0", Reload;
    /// 1 sends NAME.br, NAME.zst or NAME.gz in place of NAME to clients that take it; `regrow compress` makes them
    precompressed: bool = "precompressed", switch(), "1", Reload;
    /// What Cache-Control says of files
    cache_control: Option<String> = "cacheControl", field_value(), "", Reload;
    /// File that answers where there is none, for single-page sites; its path in the folder
    fallback: Option<String> = "fallback", path_within(), "", Reload;
}

section! {
    /// What one client may ask for
    Limits = "limits";

    /// Time for the head of a request to arrive
    header_timeout: Duration = "headerTimeout", duration(100, HOUR), "10s", Reload;
    /// Time without a byte of a request's body
    body_timeout: Duration = "bodyTimeout", duration(100, HOUR), "30s", Reload;
    /// Time in which a client takes no byte of its response
    write_timeout: Duration = "writeTimeout", duration(100, HOUR), "30s", Reload;
    /// Time that an idle connection is kept for the next request; 0 closes it after each response
    keep_alive_timeout: Duration = "keepAliveTimeout", duration_or_zero(100, DAY), "75s", Reload;
    /// Longest request target (414 beyond)
    max_uri: usize = "maxUri", size(64, 63 * K), "8k", Reload;
    /// Longest head of a request (431 beyond)
    max_header_bytes: usize = "maxHeaderBytes", size(512, M), "16k", Reload;
    /// Most header fields of a request (431 beyond)
    max_headers: usize = "maxHeaders", number("N", 1, 1_000), "100", Reload;
    /// Longest body of a request (413 beyond)
    max_body: u64 = "maxBody", size(1, 1024 * G), "16m", Reload;
    /// Part of a request's body that is held in memory; a longer one goes to a temporary file
    body_in_memory: usize = "bodyInMemory", size(0, G), "256k", Reload;
    /// Connections of one worker; beyond, the longest idle one makes room
    max_connections: usize = "maxConnections", number("N", 1, 1_000_000), "10000", Reload;
    /// Processes that answer at once with forking; further requests wait
    max_processes: u32 = "maxProcesses", number("N", 1, 10_000), "256", Reload;
    /// Threads that answer at once with threading; further requests wait
    max_threads: u32 = "maxThreads", number("N", 1, 10_000), "256", Reload;
    /// Requests of one process of a processPool that may block and yet run at once; for handlers that wait much
    handler_threads: u32 = "handlerThreads", number("N", 1, 1_024), "1", Reload;
}

section! {
    /// How workers are kept alive and stopped
    Supervisor = "supervisor";

    /// Time for requests to finish at a graceful stop; 0 cuts them off at once
    graceful_timeout: Duration = "gracefulTimeout", duration_or_zero(100, DAY), "30s", Reload;
    /// Time for a worker to become ready
    start_timeout: Duration = "startTimeout", duration(100, HOUR), "60s", Reload;
    /// Longest pause between attempts to replace a worker that never becomes ready
    respawn_delay_max: Duration = "respawnDelayMax", duration(100, HOUR), "30s", Reload;
    /// Time to go on accepting after a stop was asked for, until a load balancer has noticed
    drain_delay: Duration = "drainDelay", duration_or_zero(100, HOUR), "0", Reload;
    /// Permissions of socketFile, in octal
    socket_file_mode: u32 = "socketFileMode", permissions(), "0660", Reload;
    /// Time for the handler of a request; beyond, the client gets 504 and the worker is replaced; 0 is for ever
    request_timeout: Duration = "requestTimeout", duration_or_zero(100, DAY), "30s", Reload;
    /// Requests after which a worker is replaced; 0 is never
    max_requests: u64 = "maxRequests", number("N", 0, 1_000_000_000), "0", Reload;
    /// Each worker adds a number of its own up to this to maxRequests, so that not all are replaced at once
    max_requests_jitter: u64 = "maxRequestsJitter", number("N", 0, 1_000_000_000), "0", Reload;
    /// Memory (resident) at which a worker is replaced; 0 is never
    max_memory: u64 = "maxMemory", size(0, 1024 * G), "0", Reload;
    /// Path that a new worker must answer, with a status below 400, before it counts as ready
    health_path: Option<String> = "healthPath", url_path(), "", Reload;
    /// File for the process id of the master, which holds a lock on it
    pid_file: Option<PathBuf> = "pidFile", file(), "", Restart;
    /// Unix socket for `regrow reload` and the other commands (default: in a runtime folder, named after the address)
    control_socket: Option<PathBuf> = "controlSocket", socket_file(), "", Restart;
    /// User that workers run as, by name or number; the master must be root
    user: Option<String> = "user", account(), "", Reload;
    /// Group that workers run as, by name or number; without it, that of the user
    group: Option<String> = "group", account(), "", Reload;
    /// Permissions that files made by master and workers lack, in octal; without it, as inherited
    umask: Option<u32> = "umask", optional_permissions(), "", Reload;
}

section! {
    /// What is written down
    Log = "log";

    /// Where errors and the life of the workers are logged
    error_log: LogTarget = "errorLog", log_target(), "stderr", Reload;
    /// Where requests are logged
    access_log: LogTarget = "accessLog", log_target(), "stdout", Reload;
    /// How a request is logged
    access_format: AccessFormat = "accessFormat", access_format(), "combined", Reload;
    /// How much the error log says
    level: LevelFilter = "level", level(), "info", Reload;
}

section! {
    /// Which servers in front are believed
    Proxy = "proxy";

    /// Addresses and networks whose Forwarded and X-Forwarded fields count, separated by blanks; unix is whoever reaches socketFile
    trusted: Senders = "trusted", senders(), "", Reload;
    /// 1 demands of every connection that it begins with the PROXY protocol, version 1 or 2
    proxy_protocol: bool = "proxyProtocol", switch(), "0", Reload;
}

section! {
    /// Where load balancers and people ask how it is
    Status = "status";

    /// Host name or address of the status listener
    status_host: String = "statusHost", host(), "127.0.0.1", Reload;
    /// Port of the status listener, which answers /healthz and /readyz; 0 lets the system choose one
    status_port: Option<u16> = "statusPort", optional_port(), "", Reload;
}

const K: u64 = 1 << 10;
const M: u64 = 1 << 20;
const G: u64 = 1 << 30;
/// Milliseconds.
const HOUR: u64 = 3_600_000;
/// Milliseconds.
const DAY: u64 = 24 * HOUR;

/// A section of the file.
pub(crate) struct Section {
    /// Its name between the brackets.
    pub name: &'static str,
    /// What it is about.
    pub about: &'static str,
    /// Both in one line.
    pub heading: &'static str,
    /// Its options.
    pub rows: &'static [Row],
    /// What it holds instead of options, named by the user.
    pub entries: Option<Entries>,
}

/// Entries whose names are the user's.
pub(crate) struct Entries {
    /// A name that stands for them in documents.
    pub name: &'static str,
    /// Their value's name.
    pub value: &'static str,
    /// One line of help.
    pub help: &'static str,
}

/// An option.
pub(crate) struct Row {
    /// The section it stands in.
    pub section: &'static str,
    /// Its name: in the file, as a flag, behind `REGROW_`.
    pub name: &'static str,
    /// What its value looks like.
    pub shape: Shape,
    /// Its default as one would say it; empty for none.
    pub default: &'static str,
    /// What a running master does about a change of it.
    pub change: Change,
    /// The choice of which it is one: it cannot be said together with the others.
    pub choice: Option<Choice>,
    /// One line of help.
    pub help: &'static str,
    /// Whether a text is a value of it; relative paths count from the folder.
    pub check: fn(&str, &Path) -> Result<(), Wrong>,
}

/// What it takes to change an option of a running master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// A reload.
    Reload,
    /// A stop and a start.
    Restart,
}

/// What one option at most says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// Where to listen.
    Address,
    /// Who answers requests.
    Mode,
}

impl Choice {
    pub const ALL: [Self; 2] = [Self::Address, Self::Mode];
}

impl Row {
    /// The default as documents show it.
    pub fn shown_default(&self) -> &'static str {
        shown(self.default)
    }

    /// The options that this one cannot be said together with.
    pub fn conflicts(&self) -> impl Iterator<Item = &'static str> {
        let (name, choice) = (self.name, self.choice);
        options().filter(move |row| row.name != name && choice.is_some() && row.choice == choice).map(|row| row.name)
    }

    /// Whether the text says of a switch that it is off, as it is by default.
    pub fn is_off(&self, text: &str) -> bool {
        self.default == "0" && text == "0"
    }
}

/// Every option of every section.
pub(crate) fn options() -> impl Iterator<Item = &'static Row> {
    SECTIONS.iter().flat_map(|section| section.rows)
}

/// The option of that name.
pub(crate) fn option(name: &str) -> Option<&'static Row> {
    options().find(|row| row.name == name)
}

/// One resolved option, ready to print.
pub(crate) struct Shown<'a> {
    /// Its section.
    pub section: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Its value.
    pub value: String,
    /// Where that was said.
    pub origin: &'a Origin,
}

fn shown(value: &str) -> &str {
    if value.is_empty() { "none" } else { value }
}

/// Derives from the rows of a section: its type, its rows, how it is read from what was said, and how it is shown.
macro_rules! section {
    (
        #[doc = $about:literal]
        $Section:ident = $section:literal;
        $(
            #[doc = $help:literal]
            $field:ident: $T:ty = $name:literal, $kind:expr, $default:literal, $change:ident
                $(, one of $choice:ident)?;
        )+
    ) => {
        #[doc = $about]
        #[derive(Clone, Debug)]
        pub(crate) struct $Section {
            $( #[doc = $help] pub $field: Setting<$T>, )+
        }

        impl $Section {
            const SECTION: Section = Section {
                name: $section,
                about: $about.trim_ascii(),
                heading: concat!("[", $section, "]", $about),
                rows: &[$( {
                    const KIND: Kind<$T> = $kind;
                    Row {
                        section: $section,
                        name: $name,
                        shape: KIND.shape,
                        default: $default,
                        change: Change::$change,
                        choice: section!(@choice $($choice)?),
                        help: $help.trim_ascii(),
                        check: |text, base| KIND.read(text, base).map(drop),
                    }
                } ),+],
                entries: None,
            };

            pub(super) fn read(layers: &Layers) -> Result<Self, Wrong> {
                Ok(Self { $( $field: layers.read($name, $default, &$kind)?, )+ })
            }

            pub(super) fn show(&self) -> Vec<Shown<'_>> {
                vec![$( {
                    const KIND: Kind<$T> = $kind;
                    Shown {
                        section: $section,
                        name: $name,
                        value: shown(&KIND.show(&self.$field)).to_owned(),
                        origin: &self.$field.origin,
                    }
                } ),+]
            }
        }
    };
    (@choice) => { None };
    (@choice $choice:ident) => { Some(Choice::$choice) };
}
use section;

#[cfg(test)]
mod tests;
