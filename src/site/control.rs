//! The control socket's site: commands for the master, as HTTP with JSON. Hands a command on and keeps the exchange until
//! the outcome is there. Knows neither the master nor the way to it; what is on it are the words of [`words`].

mod words;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::health::Health;
use super::{Body, Exchange, Handler, Request, RequestBody, Responder, Response};
pub(crate) use words::{Command, Outcome, QUESTION_BYTES, TOLD_BYTES, Told, read_question, write_question};

/// Commands that wait for their outcome at once; a person gives one at a time.
const MOST_OPEN: usize = 64;

/// The longest path of a program (`PATH_MAX`, with its NUL).
const LONGEST_PATH: usize = 4095;

/// Answers `POST /reload`, `/stop`, `/reopen`, `/upgrade` and `/scale`, and `GET /status`.
pub(crate) struct Control {
    health: Health,
    ask: Box<Ask>,
    open: Mutex<Open>,
}

/// Hands a question to the master, as [`write_question`] wrote it, without waiting.
pub(crate) type Ask = dyn Fn(&[u8]) -> io::Result<()> + Send + Sync;

/// The commands without an outcome yet.
#[derive(Default)]
struct Open {
    /// Of the last one.
    serial: u32,
    responders: HashMap<u32, Responder>,
    /// The master is about to be gone: nobody answers any more.
    ended: bool,
}

impl Control {
    pub fn new(health: Health, ask: Box<Ask>) -> Self {
        Self { health, ask, open: Mutex::default() }
    }

    /// The outcome of a command has come; a serial that nobody waits for is nothing.
    pub fn answer(&self, serial: u32, outcome: Outcome) {
        if let Some(responder) = self.open().responders.remove(&serial) {
            responder.respond(match outcome {
                Ok(message) => response(StatusCode::OK, &message),
                Err(why) => response(StatusCode::CONFLICT, &why),
            });
        }
    }

    /// No outcome will come any more.
    pub fn end(&self) {
        let mut open = self.open();
        open.ended = true;
        open.responders.drain().for_each(|(_, responder)| responder.respond(master_ends()));
    }

    fn give(&self, command: &Command, responder: Responder) {
        let mut open = self.open();
        if open.ended {
            return responder.respond(master_ends());
        }
        if open.responders.len() >= MOST_OPEN {
            let why = format!("{MOST_OPEN} commands wait for their outcome; try again when one of them has it");
            return responder.respond(response(StatusCode::SERVICE_UNAVAILABLE, &why));
        }
        open.serial = open.serial.wrapping_add(1);
        match (self.ask)(&write_question(open.serial, command)) {
            Ok(()) => {
                let serial = open.serial;
                open.responders.insert(serial, responder);
            }
            Err(cause) => {
                let why = format!("the master cannot be asked: {cause}; try again, or send it a signal");
                responder.respond(response(StatusCode::SERVICE_UNAVAILABLE, &why));
            }
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        // The map is whole at every moment, so a panic elsewhere has not harmed it.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Handler for Control {
    fn handle(&self, exchange: Exchange) {
        let (request, responder) = exchange.into_parts();
        let (parts, body) = request.into_parts();
        let path = parts.uri.path();
        let allowed = if path == "/status" { "GET, HEAD" } else { "POST" };
        let may = allowed.split(", ").any(|method| method == parts.method.as_str());
        match (path, may) {
            ("/status", true) => responder.respond(self.health.readiness()),
            ("/status" | "/reload" | "/stop" | "/reopen" | "/upgrade" | "/scale", false) => {
                responder.respond(not_allowed(&parts.method, path, allowed));
            }
            (_, true) => match read_command(path, body) {
                Ok(Some(command)) => self.give(&command, responder),
                Ok(None) => responder.respond(not_found(path)),
                Err(why) => responder.respond(response(StatusCode::BAD_REQUEST, &why)),
            },
            (_, false) => responder.respond(not_found(path)),
        }
    }

    fn may_block(&self, _request: &Request) -> bool {
        false
    }
}

/// The command of that path with these fields, if there is one.
fn read_command(path: &str, body: RequestBody) -> Result<Option<Command>, String> {
    let mut fields = read_fields(body)?;
    let command = match path {
        "/reload" => Command::Reload,
        "/stop" => Command::Stop { now: read_now(fields.remove("now"))? },
        "/reopen" => Command::Reopen,
        "/upgrade" => Command::Upgrade { program: read_program(fields.remove("program"))? },
        "/scale" => Command::Scale { workers: read_workers(fields.remove("workers").as_ref())? },
        _ => return Ok(None),
    };
    match fields.keys().next() {
        Some(name) => Err(format!("{name}: {path} has no such field")),
        None => Ok(Some(command)),
    }
}

/// No body is an object without fields.
fn read_fields(body: RequestBody) -> Result<Map<String, Value>, String> {
    let bytes = body.into_bytes().map_err(|cause| format!("the body cannot be read: {cause}"))?;
    if bytes.is_empty() {
        return Ok(Map::new());
    }
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err("the body is to be a JSON object".to_owned()),
        Err(why) => Err(format!("the body is no JSON: {why}")),
    }
}

fn read_now(said: Option<Value>) -> Result<bool, String> {
    match said {
        None => Ok(false),
        Some(Value::Bool(now)) => Ok(now),
        Some(other) => Err(format!("now: {other}: say true or false")),
    }
}

fn read_program(said: Option<Value>) -> Result<Option<PathBuf>, String> {
    match said {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(path)) if path.starts_with('/') && path.len() <= LONGEST_PATH && !path.contains('\0') => {
            Ok(Some(path.into()))
        }
        Some(other) => Err(format!("program: {other}: say the absolute path of a program")),
    }
}

fn read_workers(said: Option<&Value>) -> Result<u32, String> {
    let workers = said.and_then(Value::as_u64).and_then(|workers| u32::try_from(workers).ok());
    workers.ok_or_else(|| format!("workers: {}: say how many there are to be", said.unwrap_or(&Value::Null)))
}

fn response(status: StatusCode, message: &str) -> Response {
    let said = json!({"ok": status == StatusCode::OK, "message": message});
    let mut response = Response::new(Body::from(format!("{said}\n")));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn master_ends() -> Response {
    response(StatusCode::SERVICE_UNAVAILABLE, "the master ends, and does nothing more")
}

fn not_found(path: &str) -> Response {
    let why = format!("{path}: no such command; there are /reload, /stop, /reopen, /upgrade, /scale and /status");
    response(StatusCode::NOT_FOUND, &why)
}

fn not_allowed(method: &Method, path: &str, allowed: &'static str) -> Response {
    let why = format!("{method} {path}: say {allowed}");
    let mut response = response(StatusCode::METHOD_NOT_ALLOWED, &why);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

#[cfg(test)]
mod tests;
