use super::*;
use crate::random::{Random, seeds};

fn ip(address: &str) -> Source {
    Source::Ip(address.parse().unwrap())
}

/// Version 2 with this command, family and what follows.
fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[command, family], &length, rest].concat()
}

const V4: &[u8] = &[203, 0, 113, 7, 192, 0, 2, 1, 0xdc, 0x04, 0x01, 0xbb];

fn v6() -> Vec<u8> {
    let address = |text: &str| text.parse::<Ipv6Addr>().unwrap().octets();
    [&address("2001:db8::7")[..], &address("2001:db8::1"), &[0xdc, 0x04, 0x01, 0xbb]].concat()
}

fn addition(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind][..], &u16::try_from(value.len()).unwrap().to_be_bytes(), value].concat()
}

/// With a checksum between two other additions.
fn with_checksum() -> Vec<u8> {
    let (before, after) = (addition(4, b"padding"), addition(0xe0, b""));
    let mut header = binary(0x21, 0x11, &[V4, &before, &addition(3, &[0; 4]), &after].concat());
    let place = FIXED + V4.len() + before.len() + 3;
    let sum = checksum(&header, place);
    header[place..place + 4].copy_from_slice(&sum.to_be_bytes());
    header
}

/// What the header says when it comes with more behind it and in any pieces: it must be the same.
fn source(header: &[u8]) -> Source {
    let followed = [header, b"GET / HTTP/1.1\r\n"].concat();
    let read = read_in_pieces(&followed, 1);
    assert_eq!(read, super::read(&followed), "{}", header.escape_ascii());
    let found = read.unwrap_or_else(|why| panic!("{}: {why}", header.escape_ascii())).unwrap();
    assert_eq!(found.length, header.len());
    found.source
}

/// How many bytes it takes to refuse these.
fn refused_at(bytes: &[u8]) -> usize {
    let at = (0..=bytes.len()).find(|&length| read(&bytes[..length]).is_err());
    let at = at.unwrap_or_else(|| panic!("taken: {}", bytes.escape_ascii()));
    for length in at..=bytes.len() {
        assert!(read(&bytes[..length]).is_err(), "{} is taken again", bytes[..length].escape_ascii());
    }
    at
}

fn read_in_pieces(bytes: &[u8], piece: usize) -> Result<Option<Header>, Malformed> {
    let lengths = (0..bytes.len()).step_by(piece).chain([bytes.len()]);
    lengths.map(|length| read(&bytes[..length])).find(|read| *read != Ok(None)).unwrap_or(Ok(None))
}

#[test]
fn a_line_names_the_client() {
    for (line, expected) in [
        ("PROXY TCP4 203.0.113.7 192.0.2.1 56324 443\r\n", ip("203.0.113.7:56324")),
        ("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", ip("255.255.255.255:65535")),
        ("PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", ip("0.0.0.0:0")),
        ("PROXY TCP6 2001:db8::7 2001:DB8::1 56324 443\r\n", ip("[2001:db8::7]:56324")),
        ("PROXY TCP6 ::ffff:203.0.113.7 ::1 1 2\r\n", ip("[::ffff:203.0.113.7]:1")),
        (&format!("PROXY TCP6 {0} {0} 65535 65535\r\n", ["ffff"; 8].join(":")), {
            ip(&format!("[{}]:65535", ["ffff"; 8].join(":")))
        }),
        ("PROXY UNKNOWN\r\n", Source::Unknown),
        ("PROXY UNKNOWN \r\n", Source::Unknown),
        ("PROXY UNKNOWN 203.0.113.7 and so on  \0\u{ff} 1 2 3 4 5\r\n", Source::Unknown),
        (&format!("PROXY UNKNOWN {}\r\n", "x".repeat(107 - 16)), Source::Unknown),
    ] {
        assert_eq!(source(line.as_bytes()), expected, "{line}");
    }
}

#[test]
fn a_line_that_breaks_a_rule_is_refused_at_the_byte_that_shows_it() {
    // The byte before the mark is the one.
    for marked in [
        "G|ET / HTTP/1.1\r\n",
        "PRI| * HTTP/2.0\r\n\r\n",
        "PROXY\t|TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY  |TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY\r| TCP4",
        "PROXY Tc|p4 1.2.3.4",
        "PROXY TCP5| 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY TCP44| 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY UD|P4 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY UNKNOWNS|\r\n",
        "PROXY UNKNOWN x\n|",
        "PROXY UNKNOWN x\rx|\r\n",
        "PROXY TCP4  |1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY TCP4 1.2.3.4  |5.6.7.8 1 2\r\n",
        "PROXY TCP4 1.2.3.4\n|",
        "PROXY TCP4 1.2.3.4\r|\n",
        "PROXY TCP4 1.2.3 |5.6.7.8 1 2\r\n",
        "PROXY TCP4 1.2.3.256 |5.6.7.8 1 2\r\n",
        "PROXY TCP4 01.2.3.4 |5.6.7.8 1 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8.9 |1 2\r\n",
        "PROXY TCP4 0x|1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY TCP4 :|:1 ::2 1 2\r\n",
        "PROXY TCP4 1.2.3.4 :|:2 1 2\r\n",
        "PROXY TCP4 1111111111111111|1.2.3.4",
        "PROXY TCP6 1.2.3.4 |5.6.7.8 1 2\r\n",
        "PROXY TCP6 ::1%|eth0 ::2 1 2\r\n",
        "PROXY TCP6 [|::1] ::2 1 2\r\n",
        "PROXY TCP6 1::2::3 |::2 1 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 +|1 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 -|1 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 01| 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 65536 |2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 100000| 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 \r|\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 |\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 |3\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1\r|\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n|",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\r|\n",
    ] {
        let (before, behind) = marked.split_once('|').unwrap();
        assert_eq!(refused_at([before, behind].concat().as_bytes()), before.len(), "{}", marked.escape_debug());
    }
    let endless = format!("PROXY UNKNOWN {}", "x".repeat(5000));
    assert_eq!(refused_at(endless.as_bytes()), MAX_LINE);
    let one_too_long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(107 - 15));
    assert_eq!(refused_at(one_too_long.as_bytes()), MAX_LINE);
}

#[test]
fn a_binary_header_names_the_client() {
    for (header, expected) in [
        (binary(0x21, 0x11, V4), ip("203.0.113.7:56324")),
        (binary(0x21, 0x12, V4), ip("203.0.113.7:56324")),
        (binary(0x21, 0x21, &v6()), ip("[2001:db8::7]:56324")),
        (binary(0x21, 0x22, &v6()), ip("[2001:db8::7]:56324")),
        (binary(0x21, 0x31, &[b'x'; 216]), Source::Unix),
        (binary(0x21, 0x32, &[0; 216]), Source::Unix),
        // The specification lets us choose: not to refuse them.
        (binary(0x21, 0x00, b""), Source::Unknown),
        (binary(0x21, 0x00, b"whatever"), Source::Unknown),
        (binary(0x21, 0x01, V4), Source::Unknown),
        (binary(0x21, 0x10, b""), Source::Unknown),
        (binary(0x20, 0x00, b""), Source::Sender),
        (binary(0x20, 0x11, V4), Source::Sender),
        (binary(0x20, 0x11, b"short"), Source::Sender),
        (binary(0x20, 0xff, &[3; 100]), Source::Sender),
        (binary(0x20, 0x00, &[0; MAX_BYTES - FIXED]), Source::Sender),
    ] {
        assert_eq!(source(&header), expected, "{:x?}", &header[12..]);
    }
}

#[test]
fn what_comes_behind_the_addresses_is_passed_over_and_a_checksum_is_checked() {
    assert_eq!(source(&with_checksum()), ip("203.0.113.7:56324"));
    let authority = addition(2, b"www.example.com");
    let unknown = [addition(0x20, &[0; 300]), addition(0xff, b"")].concat();
    assert_eq!(source(&binary(0x21, 0x21, &[v6(), authority, unknown].concat())), ip("[2001:db8::7]:56324"));
    // RFC 3720, appendix B.4, and the value that every implementation shows.
    assert_eq!(checksum(b"123456789", 100), 0xe306_9283);
    assert_eq!(checksum(&[0xff; 32], 100), 0x62a8_ab43);
    assert_eq!(checksum(&[0xff, 0xff, 0xff, 0xff], 0), checksum(&[0; 4], 0));
}

#[test]
fn a_binary_header_that_breaks_a_rule_is_refused_at_the_byte_that_shows_it() {
    for at in 1..SIGNATURE.len() {
        let mut header = binary(0x21, 0x11, V4);
        header[at] ^= 0x20;
        assert_eq!(refused_at(&header), at + 1);
    }
    for command in [0x00, 0x01, 0x11, 0x22, 0x2f, 0x31, 0xff] {
        assert_eq!(refused_at(&binary(command, 0x11, V4)), 13, "{command:x}");
    }
    for family in [0x03, 0x13, 0x1f, 0x33, 0x40, 0x41, 0xf1] {
        assert_eq!(refused_at(&binary(0x21, family, &[0; 300])), 14, "{family:x}");
    }
    for (family, length) in [(0x11, 11), (0x12, 0), (0x21, 35), (0x31, 215)] {
        assert_eq!(refused_at(&binary(0x21, family, &vec![0; length])), 16, "{family:x}");
    }
    for command in [0x20, 0x21] {
        assert_eq!(refused_at(&binary(command, 0x00, &[0; MAX_BYTES - FIXED + 1])), 16);
        assert_eq!(refused_at(&binary(command, 0x11, &vec![0; 0xffff])), 16);
    }
    for wrong in [
        b"\x04".to_vec(),
        b"\x04\0".to_vec(),
        b"\x04\0\x01".to_vec(),
        b"\x04\xff\xff....".to_vec(),
        addition(3, b""),
        addition(3, &[0; 3]),
        addition(3, &[0; 5]),
        addition(3, &[0; 4]),
    ] {
        let header = binary(0x21, 0x11, &[V4, &wrong].concat());
        assert_eq!(refused_at(&header), header.len(), "{wrong:x?}");
    }
    let whole = with_checksum();
    let its_type = FIXED + V4.len() + addition(4, b"padding").len();
    for at in (FIXED..whole.len()).filter(|at| *at != its_type) {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        assert!(read(&changed).is_err(), "byte {at} was changed");
    }
    let sum = addition(3, &[0; 4]);
    assert!(read(&binary(0x21, 0x11, &[V4, &sum, &sum].concat())).is_err());
}

/// Mutations of headers: no panic, one outcome however the bytes are cut, and none that more bytes change.
/// `REGROW_FUZZ_SECONDS=600` runs longer, with other mutations at every start.
#[test]
fn mutated_headers_keep_the_invariants() {
    let cases = [
        b"PROXY TCP4 203.0.113.7 192.0.2.1 56324 443\r\nGET / HTTP/1.1\r\n".to_vec(),
        b"PROXY TCP6 2001:db8::7 2001:db8::1 56324 443\r\nGET / HTTP/1.1\r\n".to_vec(),
        b"PROXY UNKNOWN\r\n".to_vec(),
        with_checksum(),
        [binary(0x21, 0x21, &v6()), b"GET".to_vec()].concat(),
        binary(0x21, 0x31, &[7; 216]),
        binary(0x20, 0, b""),
        binary(0x21, 0, b"x"),
    ];
    let mut taken = 0;
    for seed in seeds(20_000) {
        let mut random = Random::new(seed);
        let mut below = |bound| random.below(bound);
        let mut input = cases[below(cases.len())].clone();
        for _ in 0..below(4) {
            let at = below(input.len());
            match below(4) {
                0 => input[at] = u8::try_from(below(256)).unwrap(),
                1 => drop(input.splice(at..at, [b"\r\n 019.:\0\xff"[below(10)]])),
                2 => drop(input.drain(at..(at + below(6)).min(input.len()))),
                _ => drop(input.splice(at.., cases[below(cases.len())].iter().copied())),
            }
            if input.is_empty() {
                break;
            }
        }
        let expected = read_in_pieces(&input, 1);
        assert_eq!(read_in_pieces(&input, 1 + below(30)).is_err(), expected.is_err(), "seed {seed}");
        assert_eq!(read(&input).ok(), expected.ok(), "seed {seed}: {}", input.escape_ascii());
        if let Ok(Some(header)) = expected {
            taken += 1;
            assert!(header.length <= input.len(), "seed {seed}");
            assert_eq!(read(&input[..header.length]), Ok(Some(header)), "seed {seed}");
            assert_eq!(read(&input[..header.length - 1]), Ok(None), "seed {seed}");
        }
    }
    assert!(taken > 1000, "hardly any of them was still a header: {taken}");
}
