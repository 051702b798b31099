//! A storm of broken files: whatever the bytes, there is an answer.

use super::*;

/// Every option once, with quotes, comments and a few mistakes.
const SEED: &str = "\u{feff}# site\n[server]\nsocketHost = \"localhost\"\r\nsocketPort=8080\nsocketQueueSize = 1024\n\
    processPool = 2\nsocketFile = /run/s\n[staticContent]\n/ = public\n/docs/ = \"my docs\"\n; more\n[files]\n\
    index = a b\n[limits]\nheaderTimeout = 10s\nmaxBody = 16m\nmaxUri = 99999999999999999999g\n[supervisor]\n\
    socketFileMode = 0660\n[log]\nerrorLog = off\nlevel = loud # no\n[nowhere]\nx = \"y\n";

struct Xorshift(u64);

impl Xorshift {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap()
    }

    fn byte(&mut self) -> u8 {
        const LIKELY: &[u8] = b"[]=\"#;/\n\r\t 0179kmghs.:%\0\xff\xc3\xe2";
        if self.below(4) == 0 { self.next().to_le_bytes()[0] } else { LIKELY[self.below(LIKELY.len())] }
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len());
        let end = (at + self.below(20)).min(bytes.len());
        match self.below(5) {
            0 => bytes.insert(at, self.byte()),
            1 => drop(bytes.drain(at..end)),
            2 => bytes.extend_from_within(at..end),
            3 => bytes.truncate(end),
            _ => bytes.iter_mut().skip(at).take(1).for_each(|b| *b = self.byte()),
        }
    }
}

#[test]
fn broken_files_never_panic_and_every_mistake_has_its_line() {
    let mut random = Xorshift(0x5eed_c0de_2005_0001);
    for _ in 0..4_000 {
        let mut bytes = SEED.as_bytes().to_vec();
        for _ in 0..=random.below(12) {
            random.mutate(&mut bytes);
        }
        let lines = bytes.split(|b| *b == b'\n').count();
        let file = Some(File { name: "f".into(), folder: "/f".into(), bytes });
        let (understood, mistakes) = Config::understand(&Sources { file, ..Sources::default() });
        assert!(understood.is_some());
        for mistake in &mistakes {
            let Origin::File { line, .. } = mistake.origin else { panic!("{mistake} has no line") };
            assert!((1..=lines).contains(&line), "{mistake}");
            assert!(!mistake.to_string().contains(char::is_control), "{mistake:?}");
        }
        assert!(mistakes.is_sorted_by_key(|m| &m.origin));
    }
}

#[test]
fn broken_values_never_panic() {
    let mut random = Xorshift(0x5eed_c0de_2005_0002);
    let rows: Vec<_> = options().collect();
    for _ in 0..20_000 {
        let row = rows[random.below(rows.len())];
        let mut bytes = if random.below(2) == 0 { row.default.as_bytes().to_vec() } else { Vec::new() };
        for _ in 0..=random.below(6) {
            random.mutate(&mut bytes);
        }
        let text = String::from_utf8_lossy(&bytes);
        let environment = vec![(format!("REGROW_{}", row.name), text.into_owned())];
        let (understood, _) = Config::understand(&Sources { environment, ..Sources::default() });
        assert!(understood.is_some());
    }
}
