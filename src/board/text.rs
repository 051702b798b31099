//! Text and addresses in shared words: written often and cheaply, read after the writer has died, or while it writes:
//! then the text may be torn, but never anything but text.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};

/// No text is longer, in bytes.
const MOST: usize = 8 * 63;

/// Writes `pieces` into `words`, the first of which holds the length; what has no room is cut off. Async-signal-safe.
pub(super) fn write(words: &[AtomicU64], pieces: &[&[u8]]) {
    let mut bytes = [0; MOST];
    let room = bytes.len().min((words.len() - 1) * 8);
    let mut len = 0;
    for piece in pieces {
        let n = piece.len().min(room - len);
        bytes[len..len + n].copy_from_slice(&piece[..n]);
        len += n;
    }
    words[0].store(len as u64, Ordering::Relaxed);
    // The last word is filled up with the zeros behind the text.
    for (word, eight) in words[1..].iter().zip(bytes[..len.next_multiple_of(8)].chunks_exact(8)) {
        let eight = eight.try_into().unwrap_or_default();
        word.store(u64::from_ne_bytes(eight), Ordering::Relaxed);
    }
}

/// Puts `pieces` before what was written, unless nothing was: then the last of them, which is to join the two, is left
/// out. Async-signal-safe.
pub(super) fn precede(words: &[AtomicU64], pieces: &[&[u8]; 2]) {
    let mut before = [0; MOST];
    for (eight, word) in before.chunks_exact_mut(8).zip(&words[1..]) {
        eight.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
    }
    let len = usize::try_from(words[0].load(Ordering::Relaxed)).unwrap_or(MOST).min(MOST);
    match len {
        0 => write(words, &pieces[..1]),
        len => write(words, &[pieces[0], pieces[1], &before[..len]]),
    }
}

/// What was written, if anything was.
pub(super) fn read(words: &[AtomicU64]) -> Option<String> {
    let room = (words.len() - 1) * 8;
    let len = usize::try_from(words[0].load(Ordering::Relaxed)).unwrap_or(room).min(room);
    let bytes: Vec<u8> = words[1..].iter().flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes()).collect();
    (len > 0).then(|| String::from_utf8_lossy(&bytes[..len]).into_owned())
}

/// Writes an address into three words, all as an IPv6 address: high half, low half, port and one more bit.
pub(super) fn write_address(words: &[AtomicU64], address: Option<SocketAddr>) {
    const PRESENT: u64 = 1 << 16;
    let (high, low, port) = match address {
        None => (0, 0, 0),
        Some(address) => {
            let bits = match address.ip() {
                IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
                IpAddr::V6(ip) => ip.to_bits(),
            };
            #[allow(clippy::cast_possible_truncation)] // the low half is wanted
            let halves = ((bits >> 64) as u64, bits as u64);
            (halves.0, halves.1, PRESENT | u64::from(address.port()))
        }
    };
    for (word, value) in words.iter().zip([high, low, port]) {
        word.store(value, Ordering::Relaxed);
    }
}

/// The address that was written, if one was.
pub(super) fn read_address(words: &[AtomicU64]) -> Option<SocketAddr> {
    let [high, low, port] = [0, 1, 2].map(|n: usize| words[n].load(Ordering::Relaxed));
    #[allow(clippy::cast_possible_truncation)] // the bit above the port is not part of it
    let port = (port != 0).then_some(port as u16)?;
    let ip = Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low));
    Some(SocketAddr::new(ip.to_canonical(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> Vec<AtomicU64> {
        (0..48).map(|_| AtomicU64::new(u64::MAX)).collect()
    }

    #[test]
    fn a_long_text_is_cut_off() {
        let words = words();
        write(&words, &[b"GET ", &[b'x'; 5000]]);
        let text = read(&words).unwrap();
        assert!(text.starts_with("GET xxx") && text.len() == 47 * 8, "{text}");
    }

    #[test]
    fn every_length_is_read_back() {
        for len in 0..=200 {
            let (words, text) = (words(), "é".repeat(len / 2) + &"a".repeat(len % 2));
            write(&words, &[text.as_bytes()]);
            assert_eq!(read(&words).unwrap_or_default(), text);
        }
    }

    #[test]
    fn addresses_are_read_back() {
        let words = words();
        for address in ["192.0.2.1:0", "[2001:db8::1]:65535", "[::1]:80", "0.0.0.0:1"] {
            write_address(&words, Some(address.parse().unwrap()));
            assert_eq!(read_address(&words).unwrap().to_string(), address);
        }
        write_address(&words, None);
        assert_eq!(read_address(&words), None);
    }

    #[test]
    fn a_text_is_put_before_another_if_there_is_one() {
        let words = words();
        words[0].store(0, Ordering::Relaxed);
        for expected in ["new", "new, new", "new, new, new"] {
            precede(&words, &[b"new", b", "]);
            assert_eq!(read(&words).unwrap(), expected);
        }
        write(&words, &[&[b'x'; 5000]]);
        precede(&words, &[b"new", b", "]);
        assert!(read(&words).unwrap().starts_with("new, xxx"));
    }

    #[test]
    fn torn_words_are_still_text() {
        let words = words();
        words[0].store(u64::MAX, Ordering::Relaxed);
        assert!(!read(&words).unwrap().is_empty());
    }
}
