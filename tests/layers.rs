//! The layers of the crate, held to: imports go down only, what is pure stays so, and `unsafe` has one place.
//!
//! Reads the sources as text: enough for code that `cargo fmt` has seen.

use std::fs;
use std::path::{Path, PathBuf};

/// Right may use left.
const LAYERS: [&str; 11] =
    ["sys", "config", "h1", "board", "listen", "log", "site", "serve", "worker", "master", "cli"];

/// These use nothing of the crate.
const GROUND: [&str; 3] = ["sys", "config", "h1"];

/// No system call, no clock, no randomness: beginnings of paths below src.
const PURE: [&str; 7] = [
    "config/",
    "h1/",
    "listen/proxy_protocol",
    "log/access/names",
    "serve/forwarded",
    "master/machine",
    "master/children",
];

/// What a pure file may not name. Addresses and paths are plain values.
const IMPURE: [&str; 24] = [
    "crate::sys",
    "effects",
    "std::env",
    "std::fs",
    "std::io",
    "std::os",
    "std::process",
    "std::thread",
    "Instant",
    "SystemTime",
    "RandomState",
    "File::",
    "TcpListener",
    "TcpStream",
    "ToSocketAddrs",
    "UdpSocket",
    "UnixListener",
    "UnixStream",
    "libc::",
    "mio::",
    "nix::",
    "signal_hook",
    "socket2::",
    "tempfile::",
];

#[test]
fn imports_go_down() {
    for source in sources() {
        let own = source.layer();
        for used in layers_named(&source.code) {
            let grounded = own.is_some_and(|own| GROUND.contains(&LAYERS[own]));
            let allowed = used == own || (used.is_some() && used < own && !grounded);
            let name = used.map_or("the crate's root", |used| LAYERS[used]);
            assert!(allowed || own.is_none(), "{} uses {name}, which is above it or beside it", source.path);
        }
    }
}

#[test]
fn what_is_pure_asks_nothing_of_the_system() {
    let pure = sources().into_iter().filter(|source| PURE.iter().any(|pure| source.path.starts_with(pure)));
    let pure: Vec<_> = pure.collect();
    assert!(PURE.iter().all(|path| pure.iter().any(|source| source.path.starts_with(path))), "{PURE:?}");
    for source in pure {
        for word in IMPURE {
            assert!(!has_word(&source.code, word), "{} is pure and names {word}", source.path);
        }
    }
}

#[test]
fn unsafe_lives_in_sys() {
    for source in sources().iter().filter(|source| !source.path.starts_with("sys/")) {
        assert!(!has_word(&source.code, "unsafe"), "{} has `unsafe`", source.path);
    }
}

/// The wall clock may jump, and nothing that waits or counts may mind. What it says is told to people and clients, or
/// compared with what a file or a certificate says.
const WALL_CLOCK: [&str; 7] = [
    "cli/surroundings/tls.rs",
    "log/error.rs",
    "master/effects.rs",
    "random.rs", // of tests
    "serve/env.rs",
    "site/files/found.rs",
    "sys/version.rs",
];

#[test]
fn only_dates_and_log_lines_come_from_the_wall_clock() {
    let words =
        ["SystemTime::now", "CLOCK_REALTIME", "CLOCK_REALTIME_COARSE", "UtcDateTime", "gettimeofday", ".elapsed()"];
    let readers = sources().into_iter().filter(|source| words.iter().any(|word| source.code.contains(word)));
    let mut readers: Vec<_> = readers.map(|source| source.path).collect();
    readers.sort_unstable();
    assert_eq!(readers, WALL_CLOCK);
}

/// A file of src without its comments and its tests.
struct Source {
    /// Below src.
    path: String,
    code: String,
}

impl Source {
    /// The layer it belongs to; none for lib.rs, which is above all.
    fn layer(&self) -> Option<usize> {
        let folder = self.path.split_once('/').map(|(folder, _)| folder)?;
        let layer = LAYERS.iter().position(|layer| *layer == folder);
        assert!(layer.is_some(), "src/{folder} is no layer");
        layer
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = files(&root).into_iter().map(|path| {
        let code = without_tests_and_comments(&fs::read_to_string(&path).unwrap());
        Source { path: path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned(), code }
    });
    let sources: Vec<_> = files.filter(|source| !source.path.contains("tests")).collect();
    assert!(!sources.is_empty(), "{} has no sources", root.display());
    sources
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| match path.extension() {
            _ if path.is_dir() => files(&path),
            Some(end) if end == "rs" => vec![path],
            Some(_) | None => Vec::new(),
        })
        .collect()
}

/// The tests of a file are its end.
fn without_tests_and_comments(text: &str) -> String {
    let code = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    code.lines().filter(|line| !line.trim_start().starts_with("//")).flat_map(|line| [line, "\n"]).collect()
}

/// The layers that are named by `crate::x`, by `crate::{x, …}` or by `super::x`; none is the crate's root itself.
fn layers_named(code: &str) -> Vec<Option<usize>> {
    let layer = |name: &str| LAYERS.iter().position(|layer| *layer == name);
    let of_crate = after(code, "crate::").flat_map(first_names).map(|name| layer(&name));
    let of_parent = after(code, "super::").flat_map(first_names).filter_map(|name| layer(&name).map(Some));
    of_crate.chain(of_parent).collect()
}

fn after<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = &'a str> {
    code.match_indices(word).map(move |(at, _)| &code[at + word.len()..])
}

/// `a` of `a::b`; `a` and `c` of `{a::{b, x}, c}`.
fn first_names(path: &str) -> Vec<String> {
    let Some(list) = path.strip_prefix('{') else { return vec![name(path)] };
    let (mut names, mut depth) = (vec![name(list)], 0);
    for (at, character) in list.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(name(&list[at + 1..])),
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn name(path: &str) -> String {
    path.trim_start().chars().take_while(|c| is_of_name(*c)).collect()
}

fn is_of_name(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// `word` stands in `code`, and not as a part of a longer name.
fn has_word(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back().is_some_and(is_of_name);
        let behind = code[at + word.len()..].chars().next().is_some_and(is_of_name);
        !before && (!behind || word.ends_with(':'))
    })
}

#[test]
fn imports_are_found_in_every_form() {
    let code = "use crate::{sys::{a, b}, h1};\nlet x = crate::log::y;\nuse super::super::serve;\nuse crate::Root;";
    let expected = ["sys", "h1", "log"].map(|name| LAYERS.iter().position(|layer| *layer == name));
    let serve = LAYERS.iter().position(|layer| *layer == "serve");
    assert_eq!(layers_named(code), [expected.as_slice(), &[None, serve]].concat());
    assert!(has_word("let now = Instant::now();", "Instant") && !has_word("InstantNoodles", "Instant"));
    assert!(has_word("unsafe {", "unsafe") && !has_word("#[allow(unsafe_code)]", "unsafe"));
}
