//! `regrow serve`, and what an application with a site of its own runs: the site, until it is told to stop.

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::ArgMatches;
use http::HeaderValue;

use super::arguments::Settled;
use super::surroundings::Purpose;
use super::{CliExit, Status, arguments, control_socket, processors};
use crate::board::Identity;
use crate::config::{Config, Layout};
use crate::listen::tls::{Acceptor, Credentials};
use crate::listen::{self, Address, Entrance, Listener};
use crate::log;
use crate::log::sink::Sink;
use crate::master::{self, Setup};
use crate::site::Handler;
use crate::site::files::{Options, Target};
use crate::site::routes::Routes;
use crate::site::welcome::Welcome;
use crate::sys;
use crate::sys::pid_file::PidFile;
use crate::worker::Factory;

pub(super) fn run(matches: &ArgMatches) -> CliExit {
    match arguments::settle(matches, Purpose::Serve) {
        Ok(settled) => {
            let site = settled.config.clone();
            // Once, for all workers: one that is replaced must not find something else.
            let is_file = site.static_content.iter().map(|content| content.path.is_file()).collect::<Vec<_>>();
            serve(settled, Box::new(move |identity| build_site(&site, &is_file, identity)))
        }
        Err(exit) => exit,
    }
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
    run_app(Box::new(move |identity| Ok(Box::new(site(identity)?)))).finish()
}

fn run_app(factory: Box<Factory>) -> CliExit {
    match arguments::serve_config(std::env::args_os()) {
        Err(exit) => exit,
        Ok(Settled { config, .. }) if !config.static_content.is_empty() => CliExit::usage(format!(
            "{}: this application has a site of its own; leave the folder out",
            config.static_content[0].origin
        )),
        Ok(settled) => serve(settled, factory),
    }
}

fn serve(settled: Settled, factory: Box<Factory>) -> CliExit {
    match prepare(settled, factory) {
        Err(why) => CliExit::failed(format!("regrow: {why}")),
        Ok(setup) => match master::run(setup) {
            Ok(0) => CliExit::new(Status::Done),
            Ok(3) => CliExit::new(Status::Boot),
            Ok(_) => CliExit::new(Status::Failed),
            Err(why) => CliExit::failed(format!("regrow: the master cannot go on: {why}")),
        },
    }
}

/// Opens the logs and the listening sockets.
fn prepare(settled: Settled, factory: Box<Factory>) -> Result<Setup, String> {
    let Settled { config, notes, credentials } = settled;
    let error_log = Sink::open(&config.log.error_log).map_err(|why| format!("errorLog: {why}"))?;
    let access_log = Sink::open(&config.log.access_log).map_err(|why| format!("accessLog: {why}"))?;
    log::error::set_identity(format_args!("master pid={}", sys::process::pid()));
    if log::error::init(error_log, *config.log.level).is_err() {
        ::log::info!("the application logs by itself; errorLog and level are not used");
    }
    log::error::install_panic_hook(|_| {});
    let pid_file = config.supervisor.pid_file.as_deref().map(|path| PidFile::claim(path, Duration::ZERO));
    let pid_file = pid_file.transpose().map_err(|why| why.to_string())?;
    let mut listeners =
        listen::bind(&address(&config), *config.server.socket_queue_size).map_err(|why| why.to_string())?;
    let status_listeners = status_listeners(&config).map_err(|why| why.to_string())?;
    let control_listener = control_socket::bind(&config, &listeners, false).map_err(|why| why.to_string())?;
    let entrance = entrance(&config, credentials.as_ref())?;
    if entrance.tls.is_some() {
        listeners.iter_mut().for_each(Listener::expect_tls);
    }
    let layout = config.layout(processors());
    announce(&config, &layout, &listeners, &entrance, &notes);
    for listener in &status_listeners {
        ::log::info!("status on {listener}/healthz and /readyz");
    }
    if let Some(listener) = &control_listener {
        ::log::info!("commands on {listener}");
    }
    let [listeners, status_listeners] =
        [listeners, status_listeners].map(|listeners| listeners.into_iter().map(Arc::new).collect());
    Ok(Setup { config, layout, listeners, entrance, status_listeners, factory, access_log, pid_file, control_listener })
}

fn entrance(config: &Config, credentials: Option<&Credentials>) -> Result<Entrance, String> {
    let proxy = &config.proxy;
    let tls = credentials.map(Acceptor::new).transpose().map_err(|why| format!("cannot prepare TLS: {why}"))?;
    Ok(Entrance { proxy_protocol: *proxy.proxy_protocol, tls, trusted: proxy.trusted.value.clone() })
}

fn announce(config: &Config, layout: &Layout, listeners: &[Listener], entrance: &Entrance, notes: &[String]) {
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

/// Binds the status listener, where one is wanted.
fn status_listeners(config: &Config) -> Result<Vec<Listener>, listen::Error> {
    // Balancers are few, and come again.
    const QUEUE_SIZE: u32 = 64;
    let Some(port) = *config.status.status_port else { return Ok(Vec::new()) };
    let host = config.status.status_host.value.clone();
    listen::bind(&Address::Tcp { host, port, options: listen::STATUS }, QUEUE_SIZE)
}
