//! Text in shared words: written often and cheaply, read after its writer has died, or while it writes: then the
//! text may be torn, but never anything but text.

use std::fmt::{Display, Write};
use std::sync::atomic::{AtomicU64, Ordering};

/// Room for the longest text; what is longer is cut off.
const MAX_BYTES: usize = 63 * 8;

/// Writes `pieces`, a blank and `last` (nothing, where `last` prints nothing) into `words`, the first of which
/// holds the length.
pub(super) fn write(words: &[AtomicU64], pieces: &[&[u8]], last: &dyn Display) {
    let mut line = Line { bytes: [0; MAX_BYTES], len: 0, room: ((words.len() - 1) * 8).min(MAX_BYTES) };
    // The client's address is the shorter part and must not be lost behind a long target.
    let reserved = 56;
    line.room -= reserved;
    for piece in pieces {
        line.push(piece);
    }
    line.room += reserved;
    let before = line.len;
    line.push(b" ");
    // Writing to a line cannot fail.
    let _ = write!(line, "{last}");
    if line.len == before + 1 {
        line.len = before;
    }
    words[0].store(line.len as u64, Ordering::Relaxed);
    for (word, bytes) in words[1..].iter().zip(line.bytes[..line.len].chunks(8)) {
        let mut eight = [0; 8];
        eight[..bytes.len()].copy_from_slice(bytes);
        word.store(u64::from_ne_bytes(eight), Ordering::Relaxed);
    }
}

/// What was written, if anything was.
pub(super) fn read(words: &[AtomicU64]) -> Option<String> {
    let room = (words.len() - 1) * 8;
    let len = usize::try_from(words[0].load(Ordering::Relaxed)).unwrap_or(room).min(room);
    let bytes: Vec<u8> = words[1..].iter().flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes()).collect();
    (len > 0).then(|| String::from_utf8_lossy(&bytes[..len]).into_owned())
}

/// A line of limited length on the stack.
struct Line {
    bytes: [u8; MAX_BYTES],
    len: usize,
    room: usize,
}

impl Line {
    fn push(&mut self, bytes: &[u8]) {
        let n = bytes.len().min(self.room.saturating_sub(self.len));
        self.bytes[self.len..self.len + n].copy_from_slice(&bytes[..n]);
        self.len += n;
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.push(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> Vec<AtomicU64> {
        (0..48).map(|_| AtomicU64::new(u64::MAX)).collect()
    }

    #[test]
    fn a_long_target_is_cut_but_the_client_is_kept() {
        let words = words();
        write(&words, &[b"GET ", &[b'x'; 5000]], &"[2001:db8::1]:65535");
        let text = read(&words).unwrap();
        assert!(text.starts_with("GET xxx") && text.ends_with("x [2001:db8::1]:65535"), "{text}");
        assert!(text.len() <= 47 * 8);
    }

    #[test]
    fn every_length_is_read_back() {
        for len in 0..=200 {
            let (words, text) = (words(), "é".repeat(len / 2) + &"a".repeat(len % 2));
            write(&words, &[text.as_bytes()], &"");
            assert_eq!(read(&words).unwrap_or_default(), text);
        }
    }

    #[test]
    fn torn_words_are_still_text() {
        let words = words();
        words[0].store(u64::MAX, Ordering::Relaxed);
        assert!(!read(&words).unwrap().is_empty());
    }
}
