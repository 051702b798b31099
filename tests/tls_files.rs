//! Files of keys and certificates: what `check` says of them, what `serve` starts with, and what it refuses.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use crate::support::{Authority, Launch, Server, TlsClient, VERSIONS, curl};

fn file(name: &str) -> String {
    Authority::here().file(name).display().to_string()
}

fn files(key: &str, certificate: &str) -> [String; 4] {
    ["--sslKeyFile".into(), file(key), "--sslCertificateFile".into(), file(certificate)]
}

/// The exit code of `regrow check`, and what it says to standard output and standard error together.
fn check(args: &[String]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_regrow")).arg("check").args(args).output().unwrap();
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

fn serve(key: &str, certificate: &str) -> Server {
    files(key, certificate).into_iter().fold(Launch::regrow(), Launch::arg).spawn()
}

#[test]
fn keys_of_every_kind_and_form_are_served_with() {
    for kind in ["ed25519", "p384", "sec1", "pkcs1"] {
        let server = Launch::regrow().tls(kind).start();
        let (said, _) = TlsClient::new(&VERSIONS).get(server.address(), "/");
        assert!(said.starts_with("HTTP/1.1 200 "), "{kind}: {said}");
    }
}

#[test]
fn check_and_serve_say_whose_the_certificate_is_and_until_when() {
    let (code, said) = check(&files("rsa.key", "rsa.pem"));
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains(", on https://localhost:8080\nwith a certificate for localhost, 127.0.0.1, until 2"),
        "{said}"
    );
    assert!(!said.contains("note: --ssl") && !said.contains("expires"), "{said}");
    let server = Launch::regrow().tls("rsa").start();
    server.wait_for_log("listening on https://127.0.0.1:");
    server.wait_for_log("with a certificate for localhost, 127.0.0.1, until 2");
    assert!(!server.log().contains("sslCertificateFile"), "nothing is to be said of it");
}

#[test]
fn check_says_what_is_wrong_with_each_file_its_option_and_the_remedy() {
    for (key, certificate, said) in [
        ("none.key", "ec.pem", "--sslKeyFile {key}: no such file; create it, or name another"),
        (".", "ec.pem", "--sslKeyFile {key}: is a folder; "),
        ("encrypted.key", "ec.pem", "--sslKeyFile {key}: the private key is encrypted, "),
        ("old-encrypted.key", "rsa.pem", "--sslKeyFile {key}: the private key is encrypted, "),
        ("ec.pem", "ec.pem", "--sslKeyFile {key}: holds no private key, only CERTIFICATE; "),
        ("ec.key", "ec.key", "--sslCertificateFile {certificate}: holds no certificate, only PRIVATE KEY; "),
        ("ec.key", "ec.csr", "--sslCertificateFile {certificate}: holds no certificate, only CERTIFICATE REQUEST; "),
        ("ec.key", "ec.der", "--sslCertificateFile {certificate}: is binary (DER) and not PEM; "),
        ("ec.key", "rsa.pem", "--sslCertificateFile {certificate}: the first certificate of this file is not that of "),
        (
            "between.key",
            "rsa.pem",
            "{certificate}: the certificate of sslKeyFile is number 2 of this file; put it first",
        ),
        ("ec.key", "expired.pem", "--sslCertificateFile {certificate}: expired 20"),
        ("ec.key", "future.pem", "{certificate}: is not valid before 2099-01-01 00:00 UTC, in "),
    ] {
        let (code, found) = check(&files(key, certificate));
        let wanted = said.replace("{key}", &file(key)).replace("{certificate}", &file(certificate));
        assert!(found.contains(&wanted), "{found}, and not {wanted}");
        assert_eq!(code, Some(2), "{found}");
        assert!(found.ends_with("regrow: 1 mistake in the configuration\n"), "{found}");
    }
}

#[test]
fn what_is_wrong_with_both_files_is_said_at_once_and_one_alone_misses_the_other() {
    let (code, said) = check(&files("none.key", "ec.key"));
    assert_eq!(code, Some(2));
    assert!(said.contains("--sslKeyFile ") && said.contains("--sslCertificateFile ") && said.contains("2 mistakes"));
    let (code, said) = check(&files("rsa.key", "expired.pem"));
    assert_eq!(code, Some(2));
    assert!(said.contains("is not that of the private key") && said.contains("expired.pem: expired 20"), "{said}");
    let [key_option, key, certificate_option, certificate] = files("ec.key", "ec.pem");
    let (code, said) = check(&[key_option, key]);
    assert_eq!(code, Some(2));
    assert!(said.contains("is said without sslCertificateFile; say sslCertificateFile too, or neither"), "{said}");
    let (code, said) = check(&[certificate_option, certificate]);
    assert_eq!(code, Some(2));
    assert!(said.contains("is said without sslKeyFile; "), "{said}");
}

#[test]
fn a_certificate_that_soon_expires_and_a_key_that_all_can_read_are_noted() {
    let (code, said) = check(&files("ec.key", "soon.pem"));
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("note: ") && said.contains("soon.pem: expires 20") && said.contains(", in 4 days"), "{said}");
    let server = serve("ec.key", "soon.pem");
    let line = server.wait_for_log("soon.pem: expires 20");
    assert!(line.contains("WARN") || line.contains("warn"), "{line}");

    let folder = tempfile::tempdir().unwrap();
    let open: PathBuf = folder.path().join("open.key");
    fs::copy(file("ec.key"), &open).unwrap();
    fs::set_permissions(&open, Permissions::from_mode(0o644)).unwrap();
    let mut args = files("ec.key", "ec.pem");
    args[1] = open.display().to_string();
    let (code, said) = check(&args);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(&format!("can be read by every user of this machine: chmod 600 {}", args[1])), "{said}");
}

#[test]
fn a_chain_that_is_missing_or_has_a_gap_is_noted() {
    let (code, said) = check(&files("ec.key", "ec.pem"));
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("ec.pem: has no chain behind it"), "{said}");
    let folder = tempfile::tempdir().unwrap();
    let chain: PathBuf = folder.path().join("chain.pem");
    let whole = [file("rsa.pem"), file("ec.pem")].map(|name| fs::read_to_string(name).unwrap());
    fs::write(&chain, whole.concat()).unwrap();
    let mut args = files("rsa.key", "rsa.pem");
    args[3] = chain.display().to_string();
    let (code, said) = check(&args);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("chain.pem: certificate number 3 did not issue number 2"), "{said}");
}

#[test]
fn serve_refuses_a_key_of_another_certificate() {
    let mut server = serve("rsa.key", "ec.pem");
    assert_eq!(server.exit_code(), 2);
    assert!(server.log().contains("is not that of the private key in sslKeyFile"), "{}", server.log());
}

#[test]
fn serve_starts_with_an_expired_certificate_and_says_so_loudly() {
    let server = serve("ec.key", "expired.pem");
    let line = server.wait_for_log("expired.pem: expired 20");
    assert!(line.to_lowercase().contains("error") && line.contains("renew the certificate"), "{line}");
    server.wait_until_complete(0);
    let url = format!("https://{}/", server.address());
    assert!(curl(&["--insecure", "--fail", &url]).status.success());
    let refused = curl(&["--cacert", &file("root.pem"), &url]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("expired"), "{refused:?}");
}
