//! `regrow serve`, and what an application with a site of its own runs: the site, until it is told to stop.

use std::error::Error;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use clap::ArgMatches;
use http::HeaderValue;

use super::arguments::Settled;
use super::surroundings::Purpose;
use super::{CliExit, Status, arguments, control_socket, processors};
use crate::board::Identity;
use crate::config::{Config, Layout};
use crate::listen::tls::{Acceptor, Credentials, Keys};
use crate::listen::{self, Address, Entrance, Listener};
use crate::log;
use crate::log::sink::Sink;
use crate::master::{self, Blueprint, Estate, Invocation, Seat, Setup};
use crate::site::Handler;
use crate::site::files::{Options, Target};
use crate::site::routes::Routes;
use crate::site::welcome::Welcome;
use crate::sys;
use crate::sys::pid_file::PidFile;
use crate::worker::Factory;

pub(super) fn run(matches: &ArgMatches) -> CliExit {
    match arguments::settle(matches, Purpose::Serve) {
        Ok(settled) => serve(settled, Site::Files, matches.clone()),
        Err(exit) => exit,
    }
}

/// What workers answer with.
enum Site {
    /// What the configuration names.
    Files,
    /// An application's own.
    App(Rc<Factory>),
}

/// Runs an application: a master and workers that answer with the handler that `site` builds in each worker, after the
/// fork. The options of `regrow serve` are taken from the command line, the environment and `-c FILE`.
///
/// Returns when the server has stopped: 0 done, 1 failure while running, 2 usage or configuration, 3 the workers could
/// not boot. Where `site` fails or panics, the worker is started again, later and later; when that has happened to every
/// worker three times before any became ready, the server gives up. The process must not have started threads: a forked
/// worker would lack them.
pub fn serve_app<H, F>(site: F) -> ExitCode
where
    H: Handler,
    F: Fn(&Identity) -> Result<H, Box<dyn Error>> + 'static,
{
    run_app(Rc::new(move |identity| Ok(Box::new(site(identity)?)))).finish()
}

fn run_app(factory: Rc<Factory>) -> CliExit {
    let matches = match arguments::serve_matches(std::env::args_os()) {
        Ok(matches) => matches,
        Err(exit) => return exit,
    };
    match arguments::settle(&matches, Purpose::Serve) {
        Err(exit) => exit,
        Ok(Settled { config, .. }) if !config.static_content.is_empty() => CliExit::usage(has_own_site(&config)),
        Ok(settled) => serve(settled, Site::App(factory), matches),
    }
}

fn has_own_site(config: &Config) -> String {
    let origins = config.static_content.iter().map(|content| content.origin.to_string()).take(1);
    format!("{}: this application has a site of its own; leave the folder out", origins.collect::<String>())
}

fn serve(settled: Settled, site: Site, matches: ArgMatches) -> CliExit {
    match prepare(settled, site, matches) {
        Err(why) => CliExit::failed(format!("regrow: {why}")),
        Ok(setup) => match master::run(setup) {
            Ok(0) => CliExit::new(Status::Done),
            Ok(3) => CliExit::new(Status::Boot),
            Ok(_) => CliExit::new(Status::Failed),
            Err(why) => CliExit::failed(format!("regrow: the master cannot go on: {why}")),
        },
    }
}

/// How long a master that was killed may take to be gone.
const KILLED: Duration = Duration::from_millis(500);

/// Opens the logs and the listening sockets.
fn prepare(settled: Settled, site: Site, matches: ArgMatches) -> Result<Setup, String> {
    let estate = Estate::of_this_process().map_err(|why| format!("cannot take over from the master before: {why}"))?;
    let mut present = Present::default();
    if let Some(estate) = &estate {
        present.listeners.clone_from(&estate.listeners);
        present.status_listeners.clone_from(&estate.status_listeners);
        present.keys = estate.keys;
    }
    let program = std::env::current_exe().map_err(|why| format!("cannot find this program's own file: {why}"))?;
    let invocation = Invocation { program, args: std::env::args_os().skip(1).collect() };
    let error_log = Sink::open(&settled.config.log.error_log).map_err(|why| format!("errorLog: {why}"))?;
    log::error::set_identity(format_args!("master pid={}", sys::process::pid()));
    if log::error::init(error_log, *settled.config.log.level).is_err() {
        ::log::info!("the application logs by itself; errorLog and level are not used");
    }
    log::error::install_panic_hook(|_| {});
    // Before anything is bound: the master that has it explains best why nothing can be.
    let pid_file = match &estate {
        None => Some(claim_pid_file(&settled.config, KILLED)?),
        Some(_) => None,
    };
    let blueprint = draw(settled, &site, &present)?;
    // One sink for all: what is reopened here is what workers are forked with.
    log::error::switch(blueprint.error_log.clone(), *blueprint.config.log.level);
    let seat = match pid_file {
        Some(pid_file) => Some(Seat { pid_file, control_listener: control_listener(&blueprint, false)? }),
        None => None,
    };
    Ok(Setup {
        blueprint,
        renew: Box::new(move |before| renew(&matches, &site, before)),
        invocation,
        estate,
        seat,
        take_seat: Box::new(take_seat),
    })
}

/// What a master has let go of in a moment, if not already.
fn take_seat(blueprint: &Blueprint) -> Seat {
    const LETTING_GO: Duration = Duration::from_secs(5);
    let missed = |why| ::log::error!("{why}; going on without it");
    let pid_file = claim_pid_file(&blueprint.config, LETTING_GO).map_err(missed);
    let control_listener = control_listener(blueprint, true).map_err(missed);
    Seat { pid_file: pid_file.unwrap_or_default(), control_listener: control_listener.unwrap_or_default() }
}

fn claim_pid_file(config: &Config, patience: Duration) -> Result<Option<PidFile>, String> {
    let path = config.supervisor.pid_file.as_deref();
    path.map(|path| PidFile::claim(path, patience)).transpose().map_err(|why| why.to_string())
}

/// `takeover` takes its place from a master that still has one.
fn control_listener(blueprint: &Blueprint, takeover: bool) -> Result<Option<Arc<Listener>>, String> {
    let bound = control_socket::bind(&blueprint.config, &blueprint.listeners, takeover);
    let listener = bound.map_err(|why| why.to_string())?;
    if let Some(listener) = &listener {
        ::log::info!("commands on {listener}");
    }
    Ok(listener)
}

/// The blueprint of what the configuration says now.
fn renew(matches: &ArgMatches, site: &Site, before: &Blueprint) -> Result<Blueprint, String> {
    let settled = arguments::settle(matches, Purpose::Serve).map_err(|exit| exit.err)?;
    if matches!(site, Site::App(_)) && !settled.config.static_content.is_empty() {
        return Err(has_own_site(&settled.config));
    }
    let fixed = settled.config.fixed_differences(&before.config);
    let blueprint = draw(settled, site, &Present::of(before))?;
    for name in fixed {
        ::log::warn!(
            "{name} has changed, which takes effect when Regrow is started anew or upgraded; the rest is reloaded"
        );
    }
    Ok(blueprint)
}

/// What is open already, and is to be used again where the configuration still says so.
#[derive(Default)]
struct Present {
    listeners: Vec<Arc<Listener>>,
    status_listeners: Vec<Arc<Listener>>,
    /// The same addresses were resolved then; they are not asked for again.
    addresses: Option<(Address, Option<Address>)>,
    keys: Option<Keys>,
}

impl Present {
    fn of(before: &Blueprint) -> Self {
        Self {
            listeners: before.listeners.clone(),
            status_listeners: before.status_listeners.clone(),
            addresses: Some((address(&before.config), status_address(&before.config))),
            keys: before.keys,
        }
    }
}

fn draw(settled: Settled, site: &Site, present: &Present) -> Result<Blueprint, String> {
    let Settled { config, notes, credentials, account } = settled;
    if let Some(permissions) = *config.supervisor.umask {
        sys::process::set_umask(permissions);
    }
    let error_log = Sink::open(&config.log.error_log).map_err(|why| format!("errorLog: {why}"))?;
    let access_log = Sink::open(&config.log.access_log).map_err(|why| format!("accessLog: {why}"))?;
    let (place, status_place) = (address(&config), status_address(&config));
    let (before, status_before) = match &present.addresses {
        Some((place, status)) => (Some(place), status.as_ref()),
        None => (None, None),
    };
    let queue_size = *config.server.socket_queue_size;
    let listeners = bind(&place, before, queue_size, &present.listeners).map_err(|why| why.to_string())?;
    let status_listeners = match &status_place {
        // Balancers are few, and come again.
        Some(place) => bind(place, status_before, 64, &present.status_listeners).map_err(|why| why.to_string())?,
        None => Vec::new(),
    };
    let keys = match (present.keys, &credentials) {
        (None, Some(_)) => Some(Keys::new().map_err(|why| format!("cannot prepare TLS: {why}"))?),
        (keys, _) => keys,
    };
    let entrance = entrance(&config, credentials.as_ref().zip(keys))?;
    listeners.iter().for_each(|listener| listener.expect_tls(entrance.tls.is_some()));
    let layout = config.layout(processors());
    announce(&config, &layout, &listeners, &entrance, &notes);
    for listener in &status_listeners {
        ::log::info!("status on {listener}/healthz and /readyz");
    }
    let factory = factory(site, &config);
    Ok(Blueprint {
        config,
        layout,
        listeners,
        entrance,
        keys,
        status_listeners,
        factory,
        account,
        error_log,
        access_log,
    })
}

/// The listeners of an address; those that are there, where it is the same as before.
fn bind(
    address: &Address,
    before: Option<&Address>,
    queue_size: u32,
    present: &[Arc<Listener>],
) -> Result<Vec<Arc<Listener>>, listen::Error> {
    if before.is_some_and(|before| before.is_same_place(address)) {
        listen::renew(present, address, queue_size);
        return Ok(present.to_vec());
    }
    listen::bind(address, queue_size, present)
}

fn factory(site: &Site, config: &Config) -> Rc<Factory> {
    match site {
        Site::App(factory) => Rc::clone(factory),
        Site::Files => {
            let config = config.clone();
            // Once, for all workers: one that is replaced must not find something else.
            let is_file = config.static_content.iter().map(|content| content.path.is_file()).collect::<Vec<_>>();
            Rc::new(move |identity| build_site(&config, &is_file, identity))
        }
    }
}

fn entrance(config: &Config, tls: Option<(&Credentials, Keys)>) -> Result<Entrance, String> {
    let proxy = &config.proxy;
    let tls = tls.map(|(credentials, keys)| Acceptor::new(credentials, keys)).transpose();
    let tls = tls.map_err(|why| format!("cannot prepare TLS: {why}"))?;
    Ok(Entrance { proxy_protocol: *proxy.proxy_protocol, tls, trusted: proxy.trusted.value.clone() })
}

fn announce(config: &Config, layout: &Layout, listeners: &[Arc<Listener>], entrance: &Entrance, notes: &[String]) {
    let site =
        config.static_content.iter().map(|content| format!("{} from {}", content.prefix, content.path.display()));
    let site = site.collect::<Vec<_>>().join(", ");
    let addresses = listeners.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
    let version = env!("CARGO_PKG_VERSION");
    ::log::info!("regrow {version}: {layout}");
    if !site.is_empty() {
        ::log::info!("serving {site}");
    }
    if let Some(tls) = &entrance.tls {
        ::log::info!("with a certificate for {}", tls.validity());
    }
    ::log::info!("listening on {addresses}");
    for note in notes {
        ::log::warn!("{note}");
    }
}

/// The site that the configuration describes, in one worker.
fn build_site(config: &Config, is_file: &[bool], identity: &Identity) -> Result<Box<dyn Handler>, Box<dyn Error>> {
    if config.static_content.is_empty() {
        return Ok(Box::new(Welcome::new(*identity)));
    }
    let files = &config.files;
    let options = Options {
        index: files.index.value.clone(),
        listing: *files.listing,
        dotfiles: *files.dotfiles,
        follow_symlinks: *files.follow_symlinks,
        precompressed: *files.precompressed,
        cache_control: files.cache_control.as_deref().map(HeaderValue::try_from).transpose()?,
        fallback: files.fallback.value.clone(),
    };
    let targets = config.static_content.iter().zip(is_file).map(|(content, is_file)| {
        let target = Target::new(&content.path, *is_file, options.clone(), config.static_content.len());
        (content.prefix.clone(), target)
    });
    Ok(Box::new(Routes::new(targets.collect())))
}

fn address(config: &Config) -> Address {
    let server = &config.server;
    match &*server.socket_file {
        Some(path) => Address::Unix { path: path.clone(), mode: *config.supervisor.socket_file_mode },
        None => {
            Address::Tcp { host: server.socket_host.value.clone(), port: *server.socket_port, options: listen::SITE }
        }
    }
}

fn status_address(config: &Config) -> Option<Address> {
    let host = config.status.status_host.value.clone();
    config.status.status_port.map(|port| Address::Tcp { host, port, options: listen::STATUS })
}
