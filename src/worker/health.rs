//! A worker asks itself, before it says that it is ready: the request goes the way of any other, through its loop and its
//! handlers. Knows no signals; who calls tells when to leave.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use http::StatusCode;

use crate::serve::{Loop, Turn};

/// Asks for `path`, while nobody else is served. `Ok(false)`: the worker must leave, as `must_leave` says, which is asked
/// whenever the loop was told something by what it watches. There is no timeout: the master's patience is one.
///
/// # Errors
/// Why the worker cannot serve, in words.
pub(super) fn check(
    serving: &mut Loop,
    path: &str,
    mut must_leave: impl FnMut(&mut Loop) -> bool,
) -> Result<bool, String> {
    serving.set_open(false);
    let failed = |why: io::Error| format!("cannot ask for healthPath = {path}: {why}");
    let mut client = ask(serving, path).map_err(failed)?;
    let mut answer = Vec::new();
    let status = loop {
        match client.read_to_end(&mut answer) {
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => {}
            Ok(_) if status_of(&answer).is_none() => {
                return Err(format!("healthPath = {path} was not answered: the connection ended"));
            }
            Ok(_) => {}
            Err(why) => return Err(failed(why)),
        }
        if let Some(status) = status_of(&answer) {
            break status;
        }
        if serving.turn().map_err(failed)? == Turn::Watched && must_leave(serving) {
            return Ok(false);
        }
    };
    if status.as_u16() >= 400 {
        return Err(format!("healthPath = {path} answered {status}"));
    }
    serving.set_open(true);
    Ok(true)
}

/// Sends the request, and returns where its answer comes.
fn ask(serving: &mut Loop, path: &str) -> io::Result<UnixStream> {
    let (mut client, server) = UnixStream::pair()?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: regrow health check\r\nConnection: close\r\n\r\n"
    );
    client.write_all(request.as_bytes())?;
    client.set_nonblocking(true)?;
    server.set_nonblocking(true)?;
    serving.serve(server.into());
    Ok(client)
}

/// What an answer begins with, once it is there: `HTTP/1.1 200 OK` (RFC 9112 section 4).
fn status_of(answer: &[u8]) -> Option<StatusCode> {
    StatusCode::from_bytes(answer.get(9..12)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_known_once_it_is_there() {
        assert_eq!(status_of(b""), None);
        assert_eq!(status_of(b"HTTP/1.1 50"), None);
        assert_eq!(status_of(b"HTTP/1.1 503 Service Unavailable\r\n").unwrap().as_u16(), 503);
    }
}
