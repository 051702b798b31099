//! `regrow reload`, `stop`, `reopen`, `upgrade` and `scale`: find the control socket of the master, give it the command,
//! and wait, as long as it takes, for what becomes of it.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use clap::ArgMatches;
use serde_json::{Map, Value, json};

use super::{CliExit, arguments, control_socket};
use crate::config::{Config, Mistake};

/// What says where the master's socket is; the first one alone, where it is said.
pub(super) const PLACE: [&str; 4] = ["controlSocket", "socketFile", "socketHost", "socketPort"];

pub(super) fn run(name: &str, matches: &ArgMatches) -> CliExit {
    let body = match body(name, matches) {
        Ok(body) => body,
        Err(why) => return CliExit::usage(format!("regrow: {why}")),
    };
    let places = match places(matches) {
        Ok(places) => places,
        Err(exit) => return exit,
    };
    let (path, stream) = match connect(&places) {
        Ok(connected) => connected,
        Err(why) => return CliExit::failed(format!("regrow: {why}")),
    };
    match ask(stream, name, &body) {
        Ok(Ok(done)) => {
            if name == "stop" {
                wait_for_end(&path);
            }
            CliExit::done(done)
        }
        Ok(Err(why)) => CliExit::failed(format!("regrow: {name}: {why}")),
        Err(cause) => CliExit::failed(format!(
            "regrow: {name}: the connection ended before the outcome was known ({cause}); \
             the error log says what became of it, if the master still lives ({})",
            path.display()
        )),
    }
}

/// The fields of the command.
fn body(name: &str, matches: &ArgMatches) -> Result<Map<String, Value>, String> {
    let mut fields = Map::new();
    match name {
        "stop" => drop(fields.insert("now".to_owned(), matches.get_flag("now").into())),
        "scale" => drop(fields.insert("workers".to_owned(), json!(matches.get_one::<u32>("N")))),
        "upgrade" => {
            if let Some(program) = matches.get_one::<PathBuf>("PROGRAM") {
                // The master runs in another folder.
                let whole = std::path::absolute(program).map_err(|cause| format!("{}: {cause}", program.display()))?;
                let text = whole.to_str().ok_or_else(|| format!("{}: its path is not UTF-8", program.display()))?;
                fields.insert("program".to_owned(), text.into());
            }
        }
        _ => {}
    }
    Ok(fields)
}

/// Where the socket may be, the likeliest first. What is wrong with a configuration is the master's to explain, unless it
/// might be why the command would go to another server.
fn places(matches: &ArgMatches) -> Result<Vec<PathBuf>, CliExit> {
    let mut unread = Vec::new();
    let sources = arguments::read_sources(matches, &mut unread);
    let (understood, mut mistakes) = Config::understand(&sources);
    let said = understood.as_ref().and_then(|config| config.supervisor.control_socket.value.clone());
    let matters = if said.is_some() { &PLACE[..1] } else { &PLACE[..] };
    mistakes.retain(|mistake| is_about(matters, mistake));
    // A file that cannot be read might have said it.
    mistakes.extend(unread.into_iter().filter(|_| said.is_none()));
    match (said, understood) {
        (Some(path), _) if mistakes.is_empty() => Ok(vec![path]),
        (None, Some(config)) if mistakes.is_empty() => {
            Ok(control_socket::folders().iter().map(|folder| control_socket::path_in(folder, &config, None)).collect())
        }
        (Some(_) | None, _) => {
            let mut exit = arguments::refuse(&mistakes);
            exit.err += "regrow: so it is not known which server is meant; correct it, or say --controlSocket FILE\n";
            Err(exit)
        }
    }
}

/// Whether a mistake is about one of these options, or may have hidden it: misspelled, or in a section that is.
fn is_about(names: &[&str], mistake: &Mistake) -> bool {
    let line = mistake.to_string();
    names.iter().any(|name| line.contains(name)) || mistake.quote.starts_with('[')
}

/// The first that somebody listens on; or where it was looked for, why in vain, and what to do.
fn connect(places: &[PathBuf]) -> Result<(PathBuf, UnixStream), String> {
    let mut tried = Vec::new();
    for path in places {
        match UnixStream::connect(path) {
            Ok(stream) => return Ok((path.clone(), stream)),
            Err(cause) => tried.push(format!("{} ({})", path.display(), reason(&cause))),
        }
    }
    let mut why = format!(
        "no master takes commands at {}; is it running? Say where as for `serve` (-c FILE, --socketPort), \
         or --controlSocket FILE",
        tried.join(", nor at ")
    );
    let others = others(places);
    if !others.is_empty() {
        why += "\nThere are: ";
        why += &others.join(" ");
    }
    Err(why)
}

fn reason(cause: &io::Error) -> String {
    match cause.kind() {
        io::ErrorKind::NotFound => "no such file".to_owned(),
        io::ErrorKind::ConnectionRefused => "nobody listens any more".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied; it is for the user that started the master".to_owned(),
        _ => cause.to_string(),
    }
}

/// Control sockets beside those that were looked for, on which somebody listens.
fn others(places: &[PathBuf]) -> Vec<String> {
    let folders = control_socket::folders();
    let here = |folder: &&PathBuf| places.iter().any(|path| path.parent() == Some(folder.as_path()));
    let files = folders.iter().filter(here).filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten();
    let sockets = files.map(|file| file.path()).filter(|path| path.extension().is_some_and(|end| end == "sock"));
    sockets.filter(|path| UnixStream::connect(path).is_ok()).map(|path| path.display().to_string()).collect()
}

/// The outcome; an error where the connection ended before it came.
fn ask(mut stream: UnixStream, name: &str, body: &Map<String, Value>) -> io::Result<Result<String, String>> {
    let body = json!(body).to_string();
    let request = format!(
        "POST /{name} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    // Whatever ends it: what has come may be the whole answer.
    let ended = stream.read_to_end(&mut answer);
    read_answer(&answer).ok_or_else(|| ended.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into()))
}

/// The outcome that the master told, if all of it is there.
fn read_answer(bytes: &[u8]) -> Option<Result<String, String>> {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut fields);
    let head = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) | Err(_) => return None,
    };
    let status = response.code?;
    match serde_json::from_slice::<Value>(&bytes[head..]) {
        Ok(said) => {
            let message = said["message"].as_str()?.to_owned();
            Some(if said["ok"] == true { Ok(message) } else { Err(message) })
        }
        // Not of a master's handler: whoever listens there has refused the request.
        Err(_) if status != 200 && bytes.len() > head => Some(Err(format!("it was answered {status}"))),
        Err(_) => None,
    }
}

/// Until the master has let go of everything, its socket last, so that another can be started at once.
fn wait_for_end(path: &Path) {
    const LOOKS: u32 = 300;
    for _ in 0..LOOKS {
        if UnixStream::connect(path).is_err() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_an_outcome_or_no_answer() {
        let read = |body: &str| read_answer(format!("HTTP/1.1 409 Conflict\r\na: b\r\n\r\n{body}").as_bytes());
        assert_eq!(read(r#"{"ok":true,"message":"done"}"#), Some(Ok("done".into())));
        assert_eq!(read(r#"{"ok":false,"message":"no"}"#), Some(Err("no".into())));
        assert_eq!(read("<html>"), Some(Err("it was answered 409".into())));
        assert_eq!(read(""), None);
        assert_eq!(read("{}"), None);
        assert_eq!(read_answer(b"HTTP/1.1 200 OK\r\n\r\n{\"ok\":tr"), None);
        assert_eq!(read_answer(b"HTTP/1.1 20"), None);
        assert_eq!(read_answer(b"SSH-2.0-OpenSSH\r\n"), None);
    }
}
