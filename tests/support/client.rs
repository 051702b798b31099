//! A client that sends what it is told, in the pieces it is told, and believes nothing: every response must be framed
//! exactly as RFC 9112 says.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use super::PATIENCE;

/// A connection of which every byte counts.
pub struct Client {
    pub stream: TcpStream,
    received: Vec<u8>,
}

/// A response, whole.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub framing: Framing,
    /// How many `100 Continue` came before it.
    pub continues: usize,
}

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    None,
    Length(u64),
    Chunked,
    UntilClose,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Closed,
    Reset,
}

impl Client {
    pub fn open(to: SocketAddr) -> Self {
        Self::over(TcpStream::connect(to).expect("nobody is refused"))
    }

    pub fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        Self { stream, received: Vec::new() }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the server to take it");
    }

    /// One write, and so most likely one packet, a byte. A server that has refused may have closed meanwhile.
    pub fn send_byte_by_byte(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.stream.write_all(std::slice::from_ref(byte)).is_err() {
                break;
            }
        }
    }

    pub fn end_sending(&mut self) {
        self.stream.shutdown(Shutdown::Write).expect("a connection");
    }

    pub fn get(&mut self, target: &str) -> Answer {
        self.send(request("GET", target));
        self.answer()
    }

    /// The answer to anything but HEAD.
    pub fn answer(&mut self) -> Answer {
        self.answer_to("GET")
    }

    pub fn answer_to(&mut self, method: &str) -> Answer {
        self.try_answer_to(method).unwrap_or_else(|why| panic!("no answer: {why}"))
    }

    /// Reads the next response, or says why what came is none.
    pub fn try_answer_to(&mut self, method: &str) -> Result<Answer, String> {
        let mut continues = 0;
        let (status, fields) = loop {
            let (status, fields) = self.head()?;
            match status {
                100 if fields.is_empty() => continues += 1,
                100..=199 => return Err(format!("an interim response {status} {fields:?}")),
                _ => break (status, fields),
            }
        };
        let mut answer = Answer { status, fields, body: Vec::new(), framing: Framing::None, continues };
        answer.framing = framing_of(&answer)?;
        if method != "HEAD" && !matches!(status, 204 | 304) {
            answer.body = self.body(answer.framing)?;
        }
        Ok(answer)
    }

    fn head(&mut self) -> Result<(u16, Vec<(String, String)>), String> {
        let line = self.line()?;
        let status = line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| format!("a status line {line:?}"))?;
        if line.as_bytes().get(12) != Some(&b' ') {
            return Err(format!("no blank behind the status in {line:?}"));
        }
        let mut fields = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok((status, fields));
            }
            let (name, value) = line.split_once(": ").ok_or_else(|| format!("a field line {line:?}"))?;
            let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
            if name.is_empty() || !name.bytes().all(is_token) {
                return Err(format!("a field name {name:?}"));
            }
            fields.push((name.to_ascii_lowercase(), value.to_owned()));
        }
    }

    fn body(&mut self, framing: Framing) -> Result<Vec<u8>, String> {
        match framing {
            Framing::None => Ok(Vec::new()),
            Framing::Length(length) => self.exactly(usize::try_from(length).expect("small enough")),
            Framing::Chunked => self.chunks(),
            Framing::UntilClose => {
                while self.more().map_err(|why| format!("the body breaks off: {why}"))? > 0 {}
                Ok(std::mem::take(&mut self.received))
            }
        }
    }

    fn chunks(&mut self) -> Result<Vec<u8>, String> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let is_plain = !line.is_empty() && line.bytes().all(|byte| byte.is_ascii_hexdigit());
            let size = usize::from_str_radix(&line, 16).ok().filter(|_| is_plain);
            let size = size.ok_or_else(|| format!("a chunk size {line:?}"))?;
            body.append(&mut self.exactly(size)?);
            let end = self.line()?;
            match (size, end.is_empty()) {
                (0, true) => return Ok(body),
                (_, true) => {}
                (_, false) => return Err(format!("{end:?} behind a chunk")),
            }
        }
    }

    /// A line without its CR LF.
    fn line(&mut self) -> Result<String, String> {
        let mut seen = 0;
        let end = loop {
            if let Some(found) = self.received[seen..].iter().position(|&byte| byte == b'\n') {
                break seen + found;
            }
            seen = self.received.len();
            if self.more().map_err(|why| why.to_string())? == 0 {
                return Err(format!("the end behind {:?}", String::from_utf8_lossy(&self.received)));
            }
        };
        let line: Vec<u8> = self.received.drain(..=end).collect();
        let line = line.strip_suffix(b"\r\n").ok_or_else(|| format!("a bare LF in {:?}", line.escape_ascii()))?;
        if line.iter().any(|byte| matches!(byte, b'\r' | b'\0')) {
            return Err(format!("a control byte in {:?}", line.escape_ascii().to_string()));
        }
        String::from_utf8(line.to_vec()).map_err(|why| why.to_string())
    }

    fn exactly(&mut self, length: usize) -> Result<Vec<u8>, String> {
        while self.received.len() < length {
            if self.more().map_err(|why| why.to_string())? == 0 {
                return Err(format!("the end after {} of {length} bytes", self.received.len()));
            }
        }
        let rest = self.received.split_off(length);
        Ok(std::mem::replace(&mut self.received, rest))
    }

    /// Receives something; 0 is the end.
    pub fn more(&mut self) -> io::Result<usize> {
        let length = self.received.len();
        self.received.resize(length + (64 << 10), 0);
        let received = self.stream.read(&mut self.received[length..]);
        self.received.truncate(length + received.as_ref().unwrap_or(&0));
        received
    }

    /// Waits for the end of the connection; nothing may come before it.
    pub fn end(&mut self) -> End {
        let (rest, end) = self.rest();
        assert!(rest.is_empty(), "more than was asked for: {:?}", rest.escape_ascii().to_string());
        end
    }

    /// All that still comes, and how it ends.
    pub fn rest(&mut self) -> (Vec<u8>, End) {
        let end = loop {
            match self.more() {
                Ok(0) => break End::Closed,
                Ok(_) => {}
                Err(why) if is_reset(&why) => break End::Reset,
                Err(why) => panic!("the connection does not end: {why}"),
            }
        };
        (std::mem::take(&mut self.received), end)
    }

    /// Whether a request on this connection is answered.
    pub fn is_kept(&mut self) -> bool {
        let sent = self.stream.write_all(&request("GET", "/kept"));
        sent.is_ok() && self.try_answer_to("GET").is_ok_and(|answer| answer.status < 500)
    }
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The value of a field that may come once.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut values = self.fields.iter().filter(|(of, _)| of == name).map(|(_, value)| value.as_str());
        let value = values.next();
        assert!(values.next().is_none(), "{name} twice in {:?}", self.fields);
        value
    }

    /// Whether it announces the end of the connection.
    pub fn closes(&self) -> bool {
        self.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

fn framing_of(answer: &Answer) -> Result<Framing, String> {
    answer.field("date").ok_or("no date")?;
    match (answer.field("content-length"), answer.field("transfer-encoding")) {
        (Some(_), Some(_)) => Err("content-length and transfer-encoding".into()),
        (Some(length), None) if length.bytes().all(|byte| byte.is_ascii_digit()) => {
            length.parse().map(Framing::Length).map_err(|_| format!("a length {length:?}"))
        }
        (Some(length), None) => Err(format!("a length {length:?}")),
        (None, Some("chunked")) => Ok(Framing::Chunked),
        (None, Some(coding)) => Err(format!("a coding {coding:?}")),
        (None, None) if matches!(answer.status, 204 | 304) => Ok(Framing::None),
        (None, None) => Ok(Framing::UntilClose),
    }
}

fn is_reset(why: &io::Error) -> bool {
    matches!(why.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

/// A request without a body.
pub fn request(method: &str, target: &str) -> Vec<u8> {
    format!("{method} {target} HTTP/1.1\r\nHost: test\r\n\r\n").into_bytes()
}

/// A request with a body of that length.
pub fn post(target: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes =
        format!("POST {target} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// What bodies consist of.
pub fn pattern(length: usize) -> Vec<u8> {
    (0..251).cycle().take(length).collect()
}

/// FNV-1a.
pub fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// curl, silent, in patience, with its exit code left to judge.
pub fn curl(args: &[&str]) -> Output {
    let patience = PATIENCE.as_secs().to_string();
    let output = Command::new("curl").args(["--silent", "--show-error", "--max-time", &patience]).args(args).output();
    output.expect("curl is installed")
}

/// How long something takes.
pub fn time<T>(action: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = action();
    (result, start.elapsed())
}
