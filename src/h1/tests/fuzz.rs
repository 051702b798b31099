//! Mutations of the corpus: no panic, no byte consumed twice, and the same outcome however the bytes are cut.
//! `REGROW_FUZZ_SECONDS=600` runs longer, with other mutations at every start.

use super::corpus;
use super::replay::{Trace, in_pieces, whole};
use crate::h1::Limits;
use crate::random::{Random, seeds};

const ITERATIONS: u64 = 30_000;

/// Small ones, so that mutations reach them.
const LIMITS: Limits = Limits { max_uri: 60, max_header_bytes: 300, max_headers: 8, max_body: 64 };

/// What grammars are made of.
const PIECES: [&[u8]; 36] = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b"\0",
    b" ",
    b"\t",
    b":",
    b";",
    b",",
    b"/",
    b"*",
    b"?",
    b"#",
    b"\"",
    b"\x7f",
    b"\x80",
    b"\xff",
    b"0",
    b"1",
    b"f",
    b"+",
    b"-",
    b"0\r\n\r\n",
    b"5\r\nhello\r\n",
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"Host: a\r\n",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Expect: 100-continue\r\n",
    b"Connection: close\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"http://a/",
    b"ffffffffffffffff",
    b"18446744073709551616",
];

#[test]
fn mutated_requests_keep_the_invariants() {
    let cases: Vec<Vec<u8>> = corpus::cases().into_iter().map(|case| case.bytes).collect();
    for seed in seeds(ITERATIONS) {
        let mut random = Random::new(seed);
        let input = mutated(&cases, &mut random);
        let expected = whole(&input, &LIMITS);
        check(&expected, &in_pieces(input.chunks(1), &LIMITS), seed, &input);
        check(&expected, &in_pieces(cut(&input, &mut random), &LIMITS), seed, &input);
    }
}

fn check(expected: &Trace, found: &Trace, seed: u64, input: &[u8]) {
    assert!(expected == found, "seed {seed}: {expected:#?}\nis not\n{found:#?}\nfor {}", input.escape_ascii());
}

fn mutated(cases: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut input = cases[random.below(cases.len())].clone();
    for _ in 0..=random.below(4) {
        let at = random.below(input.len() + 1);
        let end = (at + random.below(12)).min(input.len());
        match random.below(6) {
            0 if at < input.len() => input[at] = random.next().to_le_bytes()[0],
            1 => drop(input.drain(at..end)),
            2 => drop(input.splice(at..at, input[at..end].to_vec())),
            3 => drop(input.splice(at..end, PIECES[random.below(PIECES.len())].iter().copied())),
            4 => {
                let other = &cases[random.below(cases.len())];
                let from = random.below(other.len() + 1);
                input.splice(at.., other[from..].iter().copied());
            }
            _ => drop(input.splice(at..at, PIECES[random.below(PIECES.len())].iter().copied())),
        }
    }
    input.truncate(2000);
    input
}

/// The same bytes in pieces of random lengths.
fn cut<'a>(input: &'a [u8], random: &mut Random) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    let mut rest = input;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(1 + random.below(rest.len().min(40)));
        pieces.push(piece);
        rest = after;
    }
    pieces
}
