use std::time::UNIX_EPOCH;

use super::*;
use crate::random::{Random, seeds};

// openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=unused -days 3650 \
//     -addext subjectAltName=DNS:example.org,DNS:www.example.org,IP:127.0.0.1
const KEY: &str = "\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgotpZ7Nl4iKP9Iqjf
FcfDCZPZ3sTc/mqyjbfsrwfWbE6hRANCAATDlbKiMF7NZk50Xcw1m0rU36BMsSmj
626bFA7K3m91ANThalQuYMetClJjCrwVXLSRFzVMey4w7PkrqYVnybcW
-----END PRIVATE KEY-----
";
const CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----
MIIBqDCCAU6gAwIBAgIUHBTDqsy03W5uUU3vokfVmKa0r7cwCgYIKoZIzj0EAwIw
ETEPMA0GA1UEAwwGdW51c2VkMB4XDTI2MTEyNjEzMTQyNloXDTM2MTEyMzEzMTQy
NlowETEPMA0GA1UEAwwGdW51c2VkMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE
w5WyojBezWZOdF3MNZtK1N+gTLEpo+tumxQOyt5vdQDU4WpULmDHrQpSYwq8FVy0
kRc1THsuMOz5K6mFZ8m3FqOBgzCBgDAdBgNVHQ4EFgQUAcme8GQBa7qOWIYNAKFn
fDpyDqAwHwYDVR0jBBgwFoAUAcme8GQBa7qOWIYNAKFnfDpyDqAwDwYDVR0TAQH/
BAUwAwEB/zAtBgNVHREEJjAkggtleGFtcGxlLm9yZ4IPd3d3LmV4YW1wbGUub3Jn
hwR/AAABMAoGCCqGSM49BAMCA0gAMEUCIAuvsEwmO9db7EzSB4axT4vQrh4b+AsZ
6hxLGcaGddbLAiEA3Sf514ev2SmI5LVRsA7Q6qitpz7xoWY08TDDS5XTsOk=
-----END CERTIFICATE-----
";

// The same with -subj /CN=b.example, and no alternative names.
const OTHER_KEY: &str = "\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg3jpzvedFOiR/EyQ7
05f5C+7hyMT50C5vDm6fccOd/cGhRANCAATu2yMsdp3qWvdvIbUvjBzQnp9yD9Bs
WijnB8/1NexBiMOdUgbFwW0uCLeBT3Jb05+Ez5kMKNjQOHTm9e6P5bWq
-----END PRIVATE KEY-----
";
const OTHER_CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----
MIIBfTCCASOgAwIBAgIUUtXYnm33UnqA2VHcvLBnqhrTm1wwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJYi5leGFtcGxlMB4XDTI2MTEyNjEzMTQyNloXDTM2MTEyMzEz
MTQyNlowFDESMBAGA1UEAwwJYi5leGFtcGxlMFkwEwYHKoZIzj0CAQYIKoZIzj0D
AQcDQgAE7tsjLHad6lr3byG1L4wc0J6fcg/QbFoo5wfP9TXsQYjDnVIGxcFtLgi3
gU9yW9OfhM+ZDCjY0Dh05vXuj+W1qqNTMFEwHQYDVR0OBBYEFA/ZM4SWzbqX31/y
d4kqeLV9USeMMB8GA1UdIwQYMBaAFA/ZM4SWzbqX31/yd4kqeLV9USeMMA8GA1Ud
EwEB/wQFMAMBAf8wCgYIKoZIzj0EAwIDSAAwRQIhAL9vNgQIJnF3HB7OYwruS/2n
Kq4rFPCEIJaMndJgJeJOAiAoGI+zyEE2/QurKysq2zf5RacarYXHOsM5rI1zyMeg
ZA==
-----END CERTIFICATE-----
";

fn judge(key: &[u8], certificate: &[u8]) -> Result<Credentials, Box<Flaws>> {
    Credentials::judge(Ok(key.to_vec()), Ok(certificate.to_vec()))
}

#[track_caller]
fn flaw_of_key(key: &[u8]) -> String {
    let flaws = judge(key, CERTIFICATE.as_bytes()).unwrap_err();
    assert_eq!(flaws.certificate, None);
    flaws.key.map(|wrong| format!("{}; {}", wrong.problem, wrong.remedy)).unwrap()
}

#[track_caller]
fn flaw_of_certificate(certificate: &[u8]) -> String {
    let flaws = judge(KEY.as_bytes(), certificate).unwrap_err();
    assert_eq!(flaws.key, None);
    flaws.certificate.map(|wrong| format!("{}; {}", wrong.problem, wrong.remedy)).unwrap()
}

/// What stands between the first -----BEGIN and the first -----END.
fn relabelled(pem: &str, label: &str) -> String {
    let body = pem.lines().filter(|line| !line.starts_with("-----")).collect::<Vec<_>>().join("\n");
    format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
}

fn der(pem: &str) -> Vec<u8> {
    sections(pem.as_bytes()).unwrap().remove(0).1
}

#[test]
fn a_key_and_its_certificate_are_good_in_two_files_in_one_and_with_a_chain_behind() {
    for (key, certificate) in [
        (KEY.to_owned(), CERTIFICATE.to_owned()),
        ([CERTIFICATE, KEY].concat(), [KEY, CERTIFICATE].concat()),
        (KEY.replace('\n', "\r\n"), ["Subject: a\n", CERTIFICATE, OTHER_CERTIFICATE].concat()),
    ] {
        let found = judge(key.as_bytes(), certificate.as_bytes()).unwrap();
        let shown = found.validity.to_string();
        assert_eq!(shown, "example.org, www.example.org, 127.0.0.1, until 2036-11-23 13:14 UTC");
    }
    let found = judge(OTHER_KEY.as_bytes(), OTHER_CERTIFICATE.as_bytes()).unwrap();
    assert!(found.validity.to_string().starts_with("b.example, until "), "the common name, where there is no other");
}

#[test]
fn what_is_no_key_is_said_to_be_what_it_is() {
    for (bytes, said) in [
        (Vec::new(), "is empty; "),
        (der(KEY), "is binary (DER) and not PEM; convert it: openssl pkey -inform DER"),
        (b"hello".to_vec(), "holds nothing in PEM; "),
        (
            CERTIFICATE.into(),
            "holds no private key, only CERTIFICATE; name its private key here, and this file at sslC",
        ),
        (relabelled(KEY, "PUBLIC KEY").into(), "holds no private key, only PUBLIC KEY; name the private key that"),
        (relabelled(KEY, "EC PARAMETERS").into(), "holds no private key, only EC PARAMETERS; "),
        (relabelled(KEY, "ENCRYPTED PRIVATE KEY").into(), "the private key is encrypted, "),
        (relabelled(CERTIFICATE, "PRIVATE KEY").into(), "holds a private key that is broken or of a kind "),
        (KEY.replace("MIGH", "MI!H").into(), "is damaged: base64 decode error: "),
        (KEY[..100].into(), "is cut off: a -----END line is missing; "),
        (KEY.replace("KEY-----", "KEY--").into(), "is damaged: a -----BEGIN line has no end; "),
    ] {
        let flaw = flaw_of_key(&bytes);
        assert!(flaw.starts_with(said), "{flaw}, and not {said}");
    }
    let old = KEY.replace("PRIVATE KEY-----\nMI", "PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES,1\n\nMI");
    let flaw = flaw_of_key(old.as_bytes());
    assert!(flaw.contains("is encrypted, ") && flaw.contains("openssl pkey -in "), "{flaw}");
}

#[test]
fn what_is_no_certificate_is_said_to_be_what_it_is() {
    for (bytes, said) in [
        (Vec::new(), "is empty; "),
        (der(CERTIFICATE), "is binary (DER) and not PEM; convert it: openssl x509 -inform DER"),
        (KEY.into(), "holds no certificate, only PRIVATE KEY; name its certificate here, and this file at sslKeyFile"),
        (relabelled(KEY, "CERTIFICATE REQUEST").into(), "holds no certificate, only CERTIFICATE REQUEST; send it to "),
        (relabelled(KEY, "CERTIFICATE").into(), "its certificate number 1 cannot be used ("),
        ([CERTIFICATE, &relabelled(KEY, "CERTIFICATE")].concat().into(), "its certificate number 2 cannot be used ("),
        (CERTIFICATE[..300].into(), "is cut off: "),
    ] {
        let flaw = flaw_of_certificate(&bytes);
        assert!(flaw.starts_with(said), "{flaw}, and not {said}");
    }
}

#[test]
fn both_files_are_judged_at_once() {
    let flaws = judge(b"", b"hello").unwrap_err();
    assert_eq!(flaws.key.unwrap().problem, "is empty");
    assert_eq!(flaws.certificate.unwrap().problem, "holds nothing in PEM");
}

#[test]
fn a_key_of_another_certificate_is_refused_and_one_of_a_later_certificate_is_explained() {
    let flaw = flaw_of_certificate(OTHER_CERTIFICATE.as_bytes());
    assert!(flaw.contains("is not that of the private key in sslKeyFile; "), "{flaw}");
    let flaw = flaw_of_certificate([OTHER_CERTIFICATE, CERTIFICATE].concat().as_bytes());
    assert!(flaw.starts_with("the certificate of sslKeyFile is number 2 of this file; put it first, "), "{flaw}");
}

#[test]
fn a_file_is_read_through_links_and_only_where_it_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let problem = |name: &str| read(&at(name)).unwrap_err().problem;
    fs::write(at("key"), KEY).unwrap();
    std::os::unix::fs::symlink(at("key"), at("link")).unwrap();
    assert_eq!(read(&at("link")).unwrap(), KEY.as_bytes());
    std::os::unix::fs::symlink(at("nowhere"), at("dangling")).unwrap();
    assert_eq!((problem("none"), problem("dangling")), ("no such file".into(), "no such file".into()));
    assert_eq!(problem("."), "is a folder");
    assert!(problem("key/below").starts_with("cannot be read (Not a directory"));
    let _listener = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    assert_eq!(problem("socket"), "is not a regular file");
    fs::write(at("large"), vec![b'a'; (1 << 20) + 1]).unwrap();
    assert!(problem("large").starts_with("is larger than 1 MiB"));
    fs::write(at("large"), vec![b'a'; 1 << 20]).unwrap();
    assert!(read(&at("large")).is_ok());
}

/// A few bytes are changed, left out, or said again.
fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..=random.below(4) {
        let place = random.below(bytes.len());
        match random.below(4) {
            0 => bytes[place] ^= 1 << random.below(8),
            1 => bytes[place] = b"\n- AZ/=\0"[random.below(8)],
            2 => drop(bytes.drain(place..(place + 1 + random.below(80)).min(bytes.len() - 1).max(place))),
            _ => bytes.extend_from_within(place..),
        }
    }
}

/// Of PEM, whose lines and base64 are judged first, and of what stands in it.
#[test]
fn no_bytes_make_it_panic() {
    let mut refused = 0;
    let (key, certificate) = (der(KEY), der(CERTIFICATE));
    for seed in seeds(4000) {
        let mut random = Random::new(seed);
        let mut pem = [KEY, CERTIFICATE, OTHER_CERTIFICATE].concat().into_bytes();
        mutate(&mut random, &mut pem);
        refused += u32::from(judge(&pem, &pem).is_err());
        let (mut key, mut certificate) = (key.clone(), certificate.clone());
        mutate(&mut random, &mut certificate);
        if let Ok(validity) = Validity::of(&certificate) {
            let _ = (validity.to_string(), validity.concern(UNIX_EPOCH));
        }
        let _ = ParsedCertificate::try_from(&CertificateDer::from(certificate));
        mutate(&mut random, &mut key);
        if let Some(key) = PrivateKeyDer::from_pem(SectionKind::PrivateKey, key) {
            let _ = aws_lc_rs::default_provider().key_provider.load_private_key(key);
        }
    }
    assert!(refused > 1000, "mutations matter");
}
