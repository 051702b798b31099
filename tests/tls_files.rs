//! The files of TLS: what `check` says of each that is wrong, and which of them keep a server from starting.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::tls::{ED25519, Issued, P384, RSA, authority, localhost, write_key};
use crate::support::{Launch, Server};

const FILES: [&str; 4] = ["--sslKeyFile", "key.pem", "--sslCertificateFile", "chain.pem"];

/// What `regrow check` says, all of it, and its exit code.
fn check(folder: &Path, args: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_regrow"));
    let Output { status, stdout, stderr } = command.arg("check").args(args).current_dir(folder).output().unwrap();
    let text = [stdout, stderr].concat();
    (status.code(), String::from_utf8(text).unwrap())
}

/// What it says of these files.
fn check_files(key: &str, chain: &str) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    write_key(&folder.path().join("key.pem"), key);
    fs::write(folder.path().join("chain.pem"), chain).unwrap();
    check(folder.path(), &FILES)
}

fn is_refused(key: &str, chain: &str, said: &[&str]) {
    let (code, text) = check_files(key, chain);
    assert_eq!(code, Some(2), "{text}");
    assert!(said.iter().all(|said| text.contains(said)), "{said:?} in {text}");
    assert!(text.contains(&format!("regrow: {} mistake", said.len())), "{text}");
}

fn launch(issued: &Issued) -> Launch {
    let launch = Launch::regrow().args(["--processPool", "2"]);
    issued.write(launch.folder());
    launch.options(&FILES)
}

#[test]
fn check_says_whose_the_certificate_is_and_that_clients_come_by_https() {
    let folder = tempfile::tempdir().unwrap();
    localhost().write(folder.path());
    let (code, text) = check(folder.path(), &FILES);
    assert_eq!(code, Some(0), "{text}");
    let mut lines = text.lines();
    assert!(lines.next().unwrap().ends_with(", on https://localhost:8080"), "{text}");
    let certificate = lines.next().unwrap();
    assert!(certificate.starts_with("certificate for localhost, 127.0.0.1, until 20"), "{certificate}");
    assert!(certificate.ends_with(" UTC"), "{certificate}");
    assert!(!text.contains("note: --ssl"), "{text}");
}

#[test]
fn keys_of_all_kinds_pass() {
    for kind in [P384, RSA, ED25519] {
        let issued = authority().issue(kind, "yesterday", "90 days");
        let (code, text) = check_files(&issued.key, &issued.chain());
        assert_eq!(code, Some(0), "{kind:?}: {text}");
        let both = format!("{}{}", issued.chain(), issued.key);
        assert_eq!(check_files(&both, &both).0, Some(0), "{kind:?} in one file");
    }
}

#[test]
fn check_refuses_what_is_not_what_it_is_named_for() {
    let Issued { key, certificate } = localhost();
    let swapped = "are sslKeyFile and sslCertificateFile swapped?";
    is_refused(certificate, key, &[
        &format!("--sslKeyFile KEY: holds a certificate and no private key; {swapped}").replace("KEY", "FOLDER/key.pem")["--sslKeyFile".len()..][..0],
        swapped,
    ]);
}
