//! A site for the tests of HTTP: each path tries something else. Below `/quick` the same runs in the connection loop;
//! with `TESTBED=quick` everything does. A path that is nothing special is told back what was asked.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};
use std::panic;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};
use nix::sys::signal::{Signal, raise};
use percent_encoding::percent_decode_str;
use regrow::{Body, Exchange, Handler, Identity, Request, Response, Trailers, serve_app};

fn main() -> ExitCode {
    serve_app(|worker| {
        let all_quick = std::env::var("TESTBED").is_ok_and(|word| word == "quick");
        Ok(Testbed {
            worker: *worker,
            all_quick,
            gauge: Arc::default(),
            kept: Mutex::default(),
            leak: Mutex::default(),
        })
    })
}

struct Testbed {
    worker: Identity,
    all_quick: bool,
    gauge: Arc<Gauge>,
    /// Exchanges that nobody will answer.
    kept: Mutex<Vec<Exchange>>,
    /// Memory that nobody gives back.
    leak: Mutex<Vec<Vec<u8>>>,
}

/// How many handlers run, and ran at once at most.
#[derive(Default)]
struct Gauge {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Handler for Testbed {
    fn handle(&self, exchange: Exchange) {
        let asked = Asked::new(exchange.request());
        match asked.word.as_str() {
            "drop" => drop(exchange),
            "keep" => self.kept.lock().unwrap_or_else(PoisonError::into_inner).push(exchange),
            "later" => {
                thread::spawn(move || {
                    thread::sleep(Duration::from_millis(asked.number("ms")));
                    exchange.respond(text("later"));
                });
            }
            "client" => {
                let mut said = format!("client {}\nhttps {}\n", exchange.client(), exchange.is_https());
                say_fields(&mut said, "field", exchange.request().headers());
                exchange.respond(text(said));
            }
            "twice" => {
                let (request, responder) = exchange.into_parts();
                drop(request);
                responder.respond(text("once"));
            }
            _ => {
                let (request, responder) = exchange.into_parts();
                responder.respond(self.answer(&asked, request));
            }
        }
    }

    fn may_block(&self, request: &Request) -> bool {
        assert!(request.uri().path() != "/panic-before", "asked whether it may block");
        !self.all_quick && !request.uri().path().starts_with("/quick")
    }
}

impl Testbed {
    fn answer(&self, asked: &Asked, request: Request) -> Response {
        match asked.word.as_str() {
            "who" => text(self.worker),
            "slow" => self.slow(asked),
            "most" => text(self.gauge.most.load(Ordering::SeqCst)),
            "panic" => panic!("a mistake of the handler"),
            "body" => body(request),
            "leak" => self.leak(asked),
            "big" => Response::new(pattern(asked.size("bytes")).into()),
            "stream" => stream(asked),
            "file" => file(asked),
            "field" => field(asked),
            "framing" => framing(),
            "status" => status(asked),
            "variable" => text(std::env::var_os(asked.find("name").unwrap_or_default()).is_some()),
            "raise" => raise_signal(asked),
            "overflow" => text(depth(asked.number("from"))),
            "fragile" => Response::new(Body::stream(Fragile)),
            _ => echo(request),
        }
    }

    fn leak(&self, asked: &Asked) -> Response {
        self.leak.lock().unwrap_or_else(PoisonError::into_inner).push(vec![1; asked.size("bytes")]);
        text(self.worker)
    }

    fn slow(&self, asked: &Asked) -> Response {
        let now = self.gauge.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.gauge.most.fetch_max(now, Ordering::SeqCst);
        if let Some(sign) = asked.find("sign") {
            let _ = File::create(sign);
        }
        thread::sleep(Duration::from_millis(asked.number("ms")));
        self.gauge.now.fetch_sub(1, Ordering::SeqCst);
        text("slow")
    }
}

/// What a request asks for.
struct Asked {
    word: String,
    query: Vec<(String, String)>,
}

impl Asked {
    fn new(request: &Request) -> Self {
        let path = request.uri().path();
        let word = path.strip_prefix("/quick").unwrap_or(path).trim_start_matches('/').to_owned();
        let pairs = request.uri().query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let query = pairs.map(|(name, value)| (name.to_owned(), decoded(value))).collect();
        Self { word, query }
    }

    fn find(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(of, _)| of == name).map(|(_, value)| value.as_str())
    }

    fn number(&self, name: &str) -> u64 {
        self.find(name).and_then(|value| value.parse().ok()).unwrap_or(0)
    }

    fn size(&self, name: &str) -> usize {
        usize::try_from(self.number(name)).unwrap_or(0)
    }
}

/// In the words of the corpus.
fn echo(request: Request) -> Response {
    let (head, body) = request.into_parts();
    let mut said = format!("method {}\npath {}\n", head.method, head.uri.path());
    let _ = writeln!(said, "version {}", format!("{:?}", head.version).trim_start_matches("HTTP/"));
    say_fields(&mut said, "field", &head.headers);
    if let Some(Trailers(trailers)) = head.extensions.get() {
        say_fields(&mut said, "trailer", trailers);
    }
    match body.into_bytes() {
        Ok(bytes) => _ = writeln!(said, "body \"{}\"", bytes.escape_ascii()),
        Err(why) => _ = writeln!(said, "error {why}"),
    }
    text(said)
}

fn say_fields(said: &mut String, word: &str, fields: &HeaderMap) {
    for name in fields.keys() {
        let values: Vec<_> = fields.get_all(name).iter().map(|v| v.as_bytes().escape_ascii().to_string()).collect();
        let _ = writeln!(said, "{}", format!("{word} {name}: {}", values.join(" | ")).trim_end());
    }
}

/// Length and FNV-1a of the body, read through [`Read`].
fn body(request: Request) -> Response {
    let announced = request.body().len();
    let (mut length, mut sum, mut buffer) = (0, 0xcbf2_9ce4_8422_2325_u64, vec![0; 10_000]);
    let mut body = request.into_body();
    loop {
        match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => {
                length += n as u64;
                sum = buffer[..n].iter().fold(sum, |sum, b| (sum ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
            }
            Err(why) => return text(why),
        }
    }
    text(format!("{announced} {length} {sum:x}"))
}

/// `chunks` of `size` bytes every `ms`, with an announced `length` perhaps; fails or panics before chunk `fail` or `panic`.
fn stream(asked: &Asked) -> Response {
    let (size, ms) = (asked.size("size"), asked.number("ms"));
    let at = |name: &str| asked.find(name).and_then(|value| value.parse::<u64>().ok());
    let (fail, panic) = (at("fail"), at("panic"));
    let mut sent = 0;
    let chunks = (0..asked.number("chunks")).map(move |n| {
        thread::sleep(Duration::from_millis(ms));
        assert!(panic != Some(n), "a mistake of the stream");
        if fail == Some(n) {
            return Err(io::Error::other("the source is dry"));
        }
        let chunk = pattern_from(sent, size);
        sent += size;
        Ok(Bytes::from(chunk))
    });
    let mut response = Response::new(Body::stream(chunks));
    if let Some(length) = at("length") {
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
    response
}

fn file(asked: &Asked) -> Response {
    let opened = File::open(asked.find("path").unwrap_or_default());
    let known = opened.and_then(|file| file.metadata().map(|metadata| (file, metadata.len())));
    match known {
        Ok((file, len)) => {
            let to = asked.find("to").and_then(|to| to.parse().ok()).unwrap_or(len);
            Response::new(Body::file(file, asked.number("from")..to))
        }
        Err(why) => text(why),
    }
}

/// Puts what is said into a field, where the types allow it.
fn field(asked: &Asked) -> Response {
    let name = HeaderName::try_from(asked.find("name").unwrap_or("x-said"));
    let value = HeaderValue::try_from(asked.find("value").unwrap_or_default());
    match (name, value) {
        (Ok(name), Ok(value)) => {
            let mut response = text("set");
            response.headers_mut().append(name, value);
            response
        }
        (name, value) => text(format!("refused: name {}, value {}", name.is_err(), value.is_err())),
    }
}

/// A stream of nothing that cannot even be dropped in peace.
struct Fragile;

impl Iterator for Fragile {
    type Item = io::Result<Bytes>;

    fn next(&mut self) -> Option<Self::Item> {
        None
    }
}

impl Drop for Fragile {
    fn drop(&mut self) {
        panic::panic_any(Box::new(7));
    }
}

/// A handler that believes to know better how its body travels.
fn framing() -> Response {
    let mut response = text("fine");
    for (name, value) in [
        ("content-length", "999"),
        ("transfer-encoding", "chunked"),
        ("connection", "keep-alive, x-private"),
        ("keep-alive", "timeout=999"),
        ("trailer", "x"),
        ("upgrade", "h2c"),
    ] {
        response.headers_mut().append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}

fn status(asked: &Asked) -> Response {
    let mut response = text("with a body");
    let code = u16::try_from(asked.number("code")).unwrap_or(0);
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::OK);
    response
}

/// Sends itself a signal.
fn raise_signal(asked: &Asked) -> Response {
    let name = asked.find("signal").unwrap_or_default();
    match Signal::from_str(&format!("SIG{name}")) {
        Ok(signal) => text(raise(signal).is_ok()),
        Err(why) => text(why),
    }
}

/// Without an end, and so with one.
#[allow(unconditional_recursion)]
fn depth(so_far: u64) -> u64 {
    let here = std::hint::black_box([so_far; 64]);
    depth(here[63] + 1) + std::hint::black_box(here)[0]
}

fn text(said: impl std::fmt::Display) -> Response {
    Response::new(format!("{said}").into())
}

fn pattern(length: usize) -> Vec<u8> {
    pattern_from(0, length)
}

fn pattern_from(start: usize, length: usize) -> Vec<u8> {
    (0..251).cycle().skip(start % 251).take(length).collect()
}
