//! Bytes that no client would send: whatever comes, nobody dies of it.

use std::fs;
use std::io::Write;
use std::net::Shutdown;
use std::path::Path;
use std::thread;

use crate::support::{Client, Launch, request};

/// `xorshift64*`: the same in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.roll() >> 33).unwrap() % limit.max(1)
    }

    fn byte(&mut self) -> u8 {
        const TELLING: &[u8] = b"\r\n\0 :;,\t0fF/%\"\x7f\xff";
        if self.below(2) == 0 { TELLING[self.below(TELLING.len())] } else { self.roll().to_le_bytes()[7] }
    }
}

fn corpus() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/h1");
    let files = ["valid", "invalid"].iter().flat_map(|name| fs::read_dir(folder.join(name)).unwrap());
    let mut paths: Vec<_> = files.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|end| end == "http"));
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

fn garbage(dice: &mut Dice, corpus: &[Vec<u8>]) -> Vec<u8> {
    if dice.below(8) == 0 {
        let length = dice.below(300);
        return (0..length).map(|_| dice.byte()).collect();
    }
    let mut bytes = corpus[dice.below(corpus.len())].clone();
    for _ in 0..=dice.below(4) {
        let at = dice.below(bytes.len());
        match dice.below(5) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, dice.byte()),
            2 if !bytes.is_empty() => drop(bytes.remove(at)),
            3 if !bytes.is_empty() => bytes[at] = dice.byte(),
            _ => bytes.extend_from_within(at..),
        }
        bytes.truncate(40_000);
    }
    bytes
}

#[test]
fn garbage_harms_nobody() {
    let server = Launch::example("testbed").args(["--processPool", "2", "--socketQueueSize", "1024"]).start();
    let (address, corpus, mut pids) = (server.address(), corpus(), server.worker_pids());
    thread::scope(|scope| {
        for seed in 1..=4 {
            let corpus = &corpus;
            scope.spawn(move || {
                let mut dice = Dice(seed * 0x9e37_79b9);
                for n in 0..500 {
                    let bytes = garbage(&mut dice, corpus);
                    let mut client = Client::open(address);
                    let (first, second) = bytes.split_at(dice.below(bytes.len()));
                    // A server that has refused may be gone before the rest is sent.
                    let _ = client.stream.write_all(first).and_then(|()| client.stream.write_all(second));
                    let _ = client.stream.shutdown(Shutdown::Write);
                    let (said, _) = client.rest();
                    let is_http = said.is_empty() || said.starts_with(b"HTTP/1.1 ");
                    assert!(is_http, "seed {seed}, string {n}: {:?}", said.escape_ascii().to_string());
                }
            });
        }
    });
    let mut after = server.worker_pids();
    pids.sort_unstable();
    after.sort_unstable();
    assert_eq!(after, pids);
    assert!(!server.log().contains("panic"), "a panic");
    let mut client = Client::open(address);
    client.send(request("GET", "/normal"));
    assert!(client.answer().text().contains("path /normal"));
}
