//! Everything that takes real processes and real sockets, in one binary.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

mod behind;
mod cli;
mod cluster;
mod compress;
mod control;
mod deaths;
mod docs_fresh;
mod health_path;
mod http_corpus;
mod http_fairness;
mod http_garbage;
mod http_handlers;
mod http_requests;
mod http_responses;
mod http_static;
mod hung;
mod idle;
mod layers;
mod logs;
mod modes;
mod modes_alike;
mod modes_attacks;
mod modes_crowd;
mod modes_forking;
mod modes_pools;
mod privileges;
mod proxy;
mod real_site;
mod reload;
mod reopen;
mod replaced;
mod resources;
mod retire;
mod reverse_dns;
mod sockets;
mod start;
mod static_browser;
mod static_clients;
mod static_race;
mod status;
mod stop;
mod supervision;
mod tls;
mod tls_files;
mod upgrade;
