//! A complete pre-fork application: `cargo run --example hello -- --processPool 4`.

use std::process::ExitCode;

use regrow::{Request, Response, serve_app};

fn main() -> ExitCode {
    serve_app(|worker| {
        let signature = format!("answered by {worker}\n");
        Ok(move |request: Request| Response::new(format!("Hello from {}, {signature}", request.uri().path()).into()))
    })
}
