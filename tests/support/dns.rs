//! A name server for one test, and how a program is made to ask it and nobody else.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::thread;

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Question<'a> {
    /// The name of an address: `2.0.0.127.in-addr.arpa`.
    Ptr(&'a str),
    /// The address of a name.
    A(&'a str),
    Other,
}

/// What is answered.
pub enum Record {
    Ptr(&'static str),
    A(Ipv4Addr),
    /// There is none.
    Missing,
    /// No answer at all.
    Silence,
}

const A: u16 = 1;
const PTR: u16 = 12;

/// Answers until it is dropped.
pub struct Dns {
    address: SocketAddr,
}

impl Dns {
    /// On the port that all resolvers ask, which takes a privilege.
    pub fn start(answer: fn(&Question<'_>) -> Record) -> io::Result<Self> {
        let free = (1..=254).map(|n| UdpSocket::bind((Ipv4Addr::new(127, 53, 0, n), 53)));
        let taken = |bound: &io::Result<UdpSocket>| matches!(bound, Err(why) if why.kind() == io::ErrorKind::AddrInUse);
        let socket = free.into_iter().find(|bound| !taken(bound)).expect("one of so many to be free")?;
        let address = socket.local_addr()?;
        thread::spawn(move || serve(&socket, answer));
        Ok(Self { address })
    }

    /// Words to run a program by, so that it looks names up here, in no file and nowhere else; or why that cannot be.
    pub fn only_for_one_program(&self, folder: &Path) -> Result<[String; 6], String> {
        let (servers, order) = (folder.join("resolv.conf"), folder.join("nsswitch.conf"));
        fs::write(&servers, format!("nameserver {}\n", self.address.ip())).expect("a file");
        fs::write(&order, "hosts: dns\n").expect("a file");
        let mounts = format!(
            "mount --bind {} /etc/resolv.conf && mount --bind {} /etc/nsswitch.conf && exec \"$@\"",
            servers.display(),
            order.display()
        );
        let words = ["unshare", "--mount", "sh", "-c", &mounts, "sh"].map(ToOwned::to_owned);
        let tried = Command::new(&words[0]).args(&words[1..]).arg("true").output().map_err(|why| why.to_string())?;
        if tried.status.success() { Ok(words) } else { Err(String::from_utf8_lossy(&tried.stderr).into_owned()) }
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        // Nothing is the sign to stop.
        let _ = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.send_to(&[], self.address));
    }
}

fn serve(socket: &UdpSocket, answer: fn(&Question<'_>) -> Record) {
    let mut message = [0; 512];
    while let Ok((length @ 1.., from)) = socket.recv_from(&mut message) {
        if let Some(reply) = reply(&message[..length], answer) {
            let _ = socket.send_to(&reply, from);
        }
    }
}

/// RFC 1035, section 4.1.
fn reply(query: &[u8], answer: fn(&Question<'_>) -> Record) -> Option<Vec<u8>> {
    let mut labels = Vec::new();
    let mut at = 12;
    while query[at] > 0 {
        let end = at + 1 + usize::from(query[at]);
        labels.push(String::from_utf8_lossy(&query[at + 1..end]));
        at = end;
    }
    let (name, end) = (labels.join("."), at + 5);
    let kind = u16::from_be_bytes([query[at + 1], query[at + 2]]);
    let question = match kind {
        PTR => Question::Ptr(&name),
        A => Question::A(&name),
        _ => Question::Other,
    };
    let data = match answer(&question) {
        Record::Ptr(name) => Some(wire_name(name)),
        Record::A(address) => Some(address.octets().to_vec()),
        Record::Missing => None,
        Record::Silence => return None,
    };
    let counts = [0, 1, 0, u8::from(data.is_some()), 0, 0, 0, 0];
    let mut reply = [&query[..2], &[0x81, 0x80], &counts, &query[12..end]].concat();
    if let Some(data) = data {
        let length = u16::try_from(data.len()).expect("a short name");
        // The name that was asked for, its kind and class, and a minute to live.
        reply.extend([&[0xc0, 12], &query[at + 1..end], &[0, 0, 0, 60], &length.to_be_bytes(), &data].concat());
    }
    Some(reply)
}

fn wire_name(name: &str) -> Vec<u8> {
    let labels = name.split('.').flat_map(|label| {
        let length = u8::try_from(label.len()).expect("a short label");
        std::iter::once(length).chain(label.bytes())
    });
    labels.chain([0]).collect()
}
