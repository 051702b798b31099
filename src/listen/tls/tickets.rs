//! Session tickets that every worker can open, whichever sealed them: the keys live in a page that the master shares with
//! all workers, now and after every respawn.
//!
//! A ticket is the key's name, a nonce, and the session sealed with AES-256-GCM. It is good until its key is gone, which
//! is one to two times [`LIFETIME`] after it was made (RFC 5077, section 4, RFC 8446, section 4.6.1).

use std::io;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::rand;
use rustls::server::ProducesTickets;

use crate::sys;

/// How long a client may keep a ticket, and how often the master changes the key.
pub(crate) const LIFETIME: Duration = Duration::from_secs(12 * 3600);

/// Nobody needs longer ones: a session is a few hundred bytes.
const LONGEST: usize = 4 << 10;

const NAME_BYTES: usize = 16;
const KEY_BYTES: usize = 32;

/// Words of a name and of a key.
const KEY_WORDS: usize = (NAME_BYTES + KEY_BYTES) / size_of::<u64>();

/// How often a reader looks again while the master writes. It writes for nanoseconds, unless it was just killed.
const LOOKS: u32 = 1000;

/// Seals and opens tickets with the keys of the page.
#[derive(Debug)]
pub(super) struct Ticketer {
    keys: Keys,
}

impl Ticketer {
    pub const fn new(keys: Keys) -> Self {
        Self { keys }
    }
}

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(LIFETIME.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let [current, _] = self.keys.read()?;
        if plain.len() > LONGEST {
            return None;
        }
        let mut sealed = plain.to_vec();
        let nonce = current.cipher()?.seal_in_place_append_tag(Aad::from(current.name), &mut sealed).ok()?;
        Some([&current.name[..], nonce.as_ref(), &sealed].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME_BYTES>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        if sealed.len() > LONGEST + AES_256_GCM.tag_len() {
            return None;
        }
        let key = self.keys.read()?.into_iter().find(|key| key.name == *name)?;
        let mut plain = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = key.cipher()?.open_in_place(nonce, Aad::from(key.name), &mut plain).ok()?.len();
        plain.truncate(length);
        Some(plain)
    }
}

/// A key and its name.
struct Key {
    name: [u8; NAME_BYTES],
    key: [u8; KEY_BYTES],
}

impl Key {
    fn cipher(&self) -> Option<RandomizedNonceKey> {
        RandomizedNonceKey::new(&AES_256_GCM, &self.key).ok()
    }

    fn from_words(words: &[u64; KEY_WORDS]) -> Self {
        let mut key = Self { name: [0; NAME_BYTES], key: [0; KEY_BYTES] };
        let bytes = key.name.iter_mut().chain(&mut key.key);
        for (byte, from) in bytes.zip(words.iter().flat_map(|word| word.to_ne_bytes())) {
            *byte = from;
        }
        key
    }
}

/// The current key and the one before, in a page that is shared with every process forked from now on. Its first word
/// counts the writes, and is odd during one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keys {
    page: &'static [AtomicU64],
}

impl Keys {
    /// A page with fresh keys.
    pub fn new() -> io::Result<Self> {
        let keys = Self { page: sys::shared::words(1 + 2 * KEY_WORDS)? };
        keys.write(&random_words()?, &random_words()?);
        Ok(keys)
    }

    /// The keys of [`Self::to_bytes`], in a page of their own; none where these are no keys.
    pub fn from_bytes(bytes: &[u8]) -> io::Result<Option<Self>> {
        let words = bytes.chunks_exact(size_of::<u64>()).map(|word| word.try_into().map_or(0, u64::from_ne_bytes));
        let words: Vec<u64> = words.collect();
        let (Some(current), Some(previous)) = (words.first_chunk(), words.last_chunk()) else { return Ok(None) };
        if words.len() != 2 * KEY_WORDS {
            return Ok(None);
        }
        let keys = Self { page: sys::shared::words(1 + 2 * KEY_WORDS)? };
        keys.write(current, previous);
        Ok(Some(keys))
    }

    /// Both keys, for another master on this machine.
    pub fn to_bytes(self) -> Vec<u8> {
        self.page[1..].iter().flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes()).collect()
    }

    /// A fresh key becomes the current one, and the current one the one before. Only one process may do so.
    pub fn rotate(&self) -> io::Result<()> {
        let mut current = [0; KEY_WORDS];
        for (word, from) in current.iter_mut().zip(&self.page[1..]) {
            *word = from.load(Ordering::Relaxed);
        }
        self.write(&random_words()?, &current);
        Ok(())
    }

    fn write(&self, current: &[u64; KEY_WORDS], previous: &[u64; KEY_WORDS]) {
        let writes = &self.page[0];
        let before = writes.load(Ordering::Relaxed);
        writes.store(before | 1, Ordering::Relaxed);
        fence(Ordering::Release);
        for (word, &to) in self.page[1..].iter().zip(current.iter().chain(previous)) {
            word.store(to, Ordering::Relaxed);
        }
        writes.store((before | 1) + 1, Ordering::Release);
    }

    /// The current key and the one before, unless the master died while it wrote them.
    fn read(&self) -> Option<[Key; 2]> {
        for _ in 0..LOOKS {
            let before = self.page[0].load(Ordering::Acquire);
            let word = |at: usize| self.page[at].load(Ordering::Relaxed);
            let current: [u64; KEY_WORDS] = std::array::from_fn(|n| word(1 + n));
            let previous: [u64; KEY_WORDS] = std::array::from_fn(|n| word(1 + KEY_WORDS + n));
            fence(Ordering::Acquire);
            if before % 2 == 0 && self.page[0].load(Ordering::Relaxed) == before {
                return Some([Key::from_words(&current), Key::from_words(&previous)]);
            }
            std::hint::spin_loop();
        }
        None
    }
}

fn random_words() -> io::Result<[u64; KEY_WORDS]> {
    let mut bytes = [[0; size_of::<u64>()]; KEY_WORDS];
    rand::fill(bytes.as_flattened_mut()).map_err(|_| io::Error::other("the system gives no random numbers"))?;
    Ok(bytes.map(u64::from_ne_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticketer() -> Ticketer {
        Ticketer::new(Keys::new().unwrap())
    }

    #[test]
    fn a_ticket_is_opened_by_whoever_shares_the_page_and_by_nobody_else() {
        let ours = ticketer();
        let ticket = ours.encrypt(b"session").unwrap();
        assert_eq!(Ticketer::new(ours.keys).decrypt(&ticket).unwrap(), b"session");
        assert!(ticketer().decrypt(&ticket).is_none());
        assert_ne!(ours.encrypt(b"session").unwrap(), ticket, "each has a nonce of its own");
        assert!(!ticket.windows(7).any(|window| window == b"session"));
    }

    #[test]
    fn a_ticket_outlives_one_change_of_keys_and_not_two() {
        let ticketer = ticketer();
        let ticket = ticketer.encrypt(b"session").unwrap();
        ticketer.keys.rotate().unwrap();
        assert_eq!(ticketer.decrypt(&ticket).unwrap(), b"session");
        assert_ne!(ticketer.encrypt(b"session").unwrap()[..NAME_BYTES], ticket[..NAME_BYTES]);
        ticketer.keys.rotate().unwrap();
        assert!(ticketer.decrypt(&ticket).is_none());
    }

    #[test]
    fn keys_can_be_handed_on() {
        let ours = ticketer();
        let ticket = ours.encrypt(b"session").unwrap();
        let bytes = ours.keys.to_bytes();
        let theirs = Ticketer::new(Keys::from_bytes(&bytes).unwrap().unwrap());
        assert_eq!(theirs.decrypt(&ticket).unwrap(), b"session");
        assert!(Keys::from_bytes(&bytes[1..]).unwrap().is_none() && Keys::from_bytes(b"").unwrap().is_none());
    }

    #[test]
    fn a_forged_cut_or_endless_ticket_is_none() {
        let ticketer = ticketer();
        let ticket = ticketer.encrypt(b"session").unwrap();
        for place in 0..ticket.len() {
            let mut forged = ticket.clone();
            forged[place] ^= 1;
            assert!(ticketer.decrypt(&forged).is_none(), "a bit of byte {place}");
            assert!(ticketer.decrypt(&ticket[..place]).is_none(), "cut at {place}");
        }
        assert!(ticketer.decrypt(&[ticket, vec![0; 64 << 10]].concat()).is_none());
        assert!(ticketer.encrypt(&[0; LONGEST]).is_some_and(|ticket| ticketer.decrypt(&ticket).is_some()));
        assert!(ticketer.encrypt(&[0; LONGEST + 1]).is_none());
    }

    #[test]
    fn a_write_that_was_never_finished_holds_nobody_up() {
        let ticketer = ticketer();
        ticketer.keys.page[0].fetch_add(1, Ordering::Relaxed);
        assert!(ticketer.encrypt(b"session").is_none());
        ticketer.keys.rotate().unwrap();
        assert!(ticketer.encrypt(b"session").is_some());
    }

    #[test]
    fn readers_see_whole_keys_while_they_change() {
        let ticketer = ticketer();
        let keys = ticketer.keys;
        let writer = std::thread::spawn(move || (0..2000).for_each(|_| keys.rotate().unwrap()));
        while !writer.is_finished() {
            // Two changes between sealing and opening make it unknown; a torn key would seal what no key opens.
            if let Some(ticket) = ticketer.encrypt(b"session") {
                assert!(ticketer.decrypt(&ticket).is_none_or(|plain| plain == b"session"));
            }
        }
        writer.join().unwrap();
    }
}
