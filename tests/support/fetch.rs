//! A plain client: GET over kept connections, bodies by Content-Length.

use std::fmt::Display;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;

use socket2::{Domain, Socket, Type};

use super::PATIENCE;

/// A kept connection.
pub struct Connection<S = TcpStream> {
    reader: BufReader<S>,
}

/// A response.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    /// From the status line to the last field.
    pub head: String,
    pub body: Vec<u8>,
}

impl Connection {
    pub fn open(to: SocketAddr) -> io::Result<Self> {
        Self::over(TcpStream::connect(to)?)
    }

    /// One that takes little at a time: what it has not asked for waits in the server.
    pub fn open_narrow(to: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        socket.set_recv_buffer_size(16 << 10)?;
        socket.connect(&to.into())?;
        Self::over(socket.into())
    }

    /// From this address.
    pub fn open_from(from: IpAddr, to: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(from, 0).into())?;
        socket.connect(&to.into())?;
        Self::over(socket.into())
    }

    fn over(stream: TcpStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { reader: BufReader::new(stream) })
    }

    pub fn local_address(&self) -> SocketAddr {
        self.reader.get_ref().local_addr().expect("an address")
    }
}

impl Connection<UnixStream> {
    pub fn open_unix(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { reader: BufReader::new(stream) })
    }
}

impl<S: Read + Write> Connection<S> {
    pub fn get(&mut self, target: impl Display) -> io::Result<Reply> {
        self.ask(target)?;
        self.answer()
    }

    /// Sends a request.
    pub fn ask(&mut self, target: impl Display) -> io::Result<()> {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes())
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes)
    }

    /// Waits for the response to the oldest request that was sent.
    pub fn answer(&mut self) -> io::Result<Reply> {
        let mut reply = self.head()?;
        self.body(&mut reply.body)?;
        Ok(reply)
    }

    /// Waits for the head only; the body is all zeroes, and still to be read.
    pub fn head(&mut self) -> io::Result<Reply> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.reader.read_line(&mut head)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let status = head.get(9..12).and_then(|digits| digits.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("no status line: {head:?}")))?;
        let mut reply = Reply { status, head, body: Vec::new() };
        let length = reply.field("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        // What has no body says how long it would be (RFC 9110 section 8.6).
        reply.body.resize(if status == 304 { 0 } else { length }, 0);
        Ok(reply)
    }

    /// Reads what comes of a body, whose head was read.
    pub fn body(&mut self, body: &mut [u8]) -> io::Result<()> {
        self.reader.read_exact(body)
    }

    /// Whether the server has closed the connection, having said no more.
    pub fn is_closed(&mut self) -> bool {
        matches!(self.reader.read(&mut [0]), Ok(0))
    }
}

impl Reply {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The value of the first field of that name.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.find(|(of, _)| of.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

/// One request on a connection of its own.
pub fn get(to: SocketAddr, target: impl Display) -> io::Result<Reply> {
    Connection::open(to)?.get(target)
}

/// One request on a socket file.
pub fn get_unix(path: &Path, target: impl Display) -> io::Result<Reply> {
    Connection::open_unix(path)?.get(target)
}
