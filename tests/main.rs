//! Everything that takes real processes and real sockets, in one binary.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

mod behind;
mod cli;
mod cluster;
mod compress;
mod control;
mod docs_fresh;
mod http_corpus;
mod http_fairness;
mod http_garbage;
mod http_handlers;
mod http_requests;
mod http_responses;
mod http_static;
mod idle;
mod layers;
mod logs;
mod modes;
mod modes_alike;
mod modes_attacks;
mod modes_crowd;
mod modes_forking;
mod modes_pools;
mod proxy;
mod real_site;
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
