//! A certificate with its chain, and its private key: read from their files and judged. Whatever is wrong with either is
//! said at once, and why.

use std::fs;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ParsedCertificate, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};
use rustls::{Error, InconsistentKeys};

use super::validity::{self, Validity};
use crate::config::Wrong;

/// Many times what a chain of long keys takes.
const LARGEST: u64 = 1 << 20;

/// Who the server is, and the proof.
#[derive(Debug)]
pub(crate) struct Credentials {
    certified: Arc<CertifiedKey>,
    pub validity: Validity,
    /// What some clients may stumble over.
    pub concern: Option<Wrong>,
}

/// What is wrong with each of the files.
#[derive(Debug, Default)]
pub(crate) struct Flaws {
    pub key: Option<Wrong>,
    pub certificate: Option<Wrong>,
    /// Where the certificate itself could be read.
    pub validity: Option<Validity>,
}

impl Credentials {
    /// Reads both files, which may be one.
    pub fn read(key: &Path, certificate: &Path) -> Result<Self, Box<Flaws>> {
        Self::judge(read(key), read(certificate))
    }

    /// What both files hold, or why they could not be read.
    fn judge(key: Result<Vec<u8>, Wrong>, certificate: Result<Vec<u8>, Wrong>) -> Result<Self, Box<Flaws>> {
        let key = key.and_then(|bytes| signing_key(&bytes));
        let chain = certificate.and_then(|bytes| chain(&bytes));
        match (key, chain) {
            (Ok(key), Ok((chain, validity))) => {
                let concern = validity::gap(&chain);
                match belong_together(key, chain) {
                    Ok(certified) => Ok(Self { certified: Arc::new(certified), validity, concern }),
                    Err(wrong) => {
                        Err(Box::new(Flaws { key: None, certificate: Some(wrong), validity: Some(validity) }))
                    }
                }
            }
            (Err(wrong), Ok((_, validity))) => {
                Err(Box::new(Flaws { key: Some(wrong), certificate: None, validity: Some(validity) }))
            }
            (key, Err(wrong)) => Err(Box::new(Flaws { key: key.err(), certificate: Some(wrong), validity: None })),
        }
    }

    pub(super) fn resolver(&self) -> Arc<dyn ResolvesServerCert> {
        Arc::new(SingleCertAndKey::from(Arc::clone(&self.certified)))
    }
}

/// The bytes of a file that may be a link, and must not be what has no end or waits for a writer.
fn read(path: &Path) -> Result<Vec<u8>, Wrong> {
    let unreadable = |cause: io::Error| match cause.kind() {
        io::ErrorKind::NotFound => Wrong::new("no such file", "create it, or name another"),
        _ => Wrong::new(format!("cannot be read ({cause})"), "let this user read it and enter its folder"),
    };
    let found = fs::metadata(path).map_err(unreadable)?;
    if found.is_dir() {
        return Err(Wrong::new("is a folder", "name the file in it"));
    }
    if !found.is_file() {
        return Err(Wrong::new("is not a regular file", "name a file"));
    }
    let mut bytes = Vec::new();
    fs::File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes)).map_err(unreadable)?;
    if bytes.len() as u64 > LARGEST {
        return Err(Wrong::new("is larger than 1 MiB, too large for keys and certificates", "name another file"));
    }
    Ok(bytes)
}

/// The first private key.
fn signing_key(bytes: &[u8]) -> Result<Arc<dyn SigningKey>, Wrong> {
    let key = match sections(bytes) {
        Ok(sections) => sections.into_iter().find_map(|(kind, der)| PrivateKeyDer::from_pem(kind, der)),
        Err(_) if is_encrypted(bytes) => return Err(encrypted()),
        Err(broken) => return Err(broken),
    };
    let key = key.ok_or_else(|| no_key(bytes))?;
    aws_lc_rs::default_provider().key_provider.load_private_key(key).map_err(|_| {
        let problem = "holds a private key that is broken or of a kind that is not supported";
        Wrong::new(problem, "make one of RSA (2048 bits or more), ECDSA (P-256 or P-384) or Ed25519")
    })
}

/// All certificates, and when the first of them is good.
fn chain(bytes: &[u8]) -> Result<(Vec<CertificateDer<'static>>, Validity), Wrong> {
    let sections = sections(bytes)?;
    let chain: Vec<_> = sections.into_iter().filter_map(|(kind, der)| CertificateDer::from_pem(kind, der)).collect();
    let first = chain.first().ok_or_else(|| no_certificate(bytes))?;
    for (place, certificate) in chain.iter().enumerate() {
        ParsedCertificate::try_from(certificate).map_err(|cause| unusable(place, &cause.to_string()))?;
    }
    let validity = Validity::of(first).map_err(|cause| unusable(0, &cause))?;
    Ok((chain, validity))
}

fn unusable(place: usize, cause: &str) -> Wrong {
    let problem = format!("its certificate number {} cannot be used ({cause})", place + 1);
    Wrong::new(problem, "have it issued anew, as X.509 of version 3; openssl x509 -text -in FILE shows it")
}

/// Every section of PEM that is known.
fn sections(bytes: &[u8]) -> Result<Vec<(SectionKind, Vec<u8>)>, Wrong> {
    <(SectionKind, Vec<u8>)>::pem_slice_iter(bytes).collect::<Result<_, _>>().map_err(|broken| {
        let problem = match broken {
            pem::Error::MissingSectionEnd { .. } => "is cut off: a -----END line is missing".to_owned(),
            pem::Error::IllegalSectionStart { .. } => "is damaged: a -----BEGIN line has no end".to_owned(),
            other => format!("is damaged: {other}"),
        };
        Wrong::new(problem, "copy it anew from where it was issued")
    })
}

/// A key and the certificate that stands first, if they are of one pair.
fn belong_together(key: Arc<dyn SigningKey>, chain: Vec<CertificateDer<'static>>) -> Result<CertifiedKey, Wrong> {
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
        Err(_) => Err(match certified.cert.iter().position(|certificate| is_of(certificate, &*certified.key)) {
            Some(place) => Wrong::new(
                format!("the certificate of sslKeyFile is number {} of this file", place + 1),
                "put it first, and behind it the chain that leads to its authority",
            ),
            None => Wrong::new(
                "the first certificate of this file is not that of the private key in sslKeyFile",
                "name the two files that belong together",
            ),
        }),
    }
}

fn is_of(certificate: &CertificateDer<'_>, key: &dyn SigningKey) -> bool {
    let parsed = ParsedCertificate::try_from(certificate);
    parsed.is_ok_and(|parsed| key.public_key().is_some_and(|ours| ours == parsed.subject_public_key_info()))
}

fn no_key(bytes: &[u8]) -> Wrong {
    let Some(label) = label(bytes) else {
        return no_pem(bytes, "convert it: openssl pkey -inform DER -in FILE -out FILE.pem");
    };
    if is_encrypted(bytes) {
        return encrypted();
    }
    let remedy = match &*label {
        "CERTIFICATE" => "name its private key here, and this file at sslCertificateFile",
        "PUBLIC KEY" => "name the private key that it belongs to",
        _ => "name a file with a -----BEGIN PRIVATE KEY----- in it",
    };
    Wrong::new(format!("holds no private key, only {label}"), remedy)
}

fn no_certificate(bytes: &[u8]) -> Wrong {
    let Some(label) = label(bytes) else {
        return no_pem(bytes, "convert it: openssl x509 -inform DER -in FILE -out FILE.pem");
    };
    let remedy = if label.ends_with("PRIVATE KEY") {
        "name its certificate here, and this file at sslKeyFile"
    } else if label.ends_with("CERTIFICATE REQUEST") {
        "send it to an authority, and name the certificate that comes back"
    } else {
        "name a file with a -----BEGIN CERTIFICATE----- in it"
    };
    Wrong::new(format!("holds no certificate, only {label}"), remedy)
}

fn no_pem(bytes: &[u8], convert: &str) -> Wrong {
    const SEQUENCE: u8 = 0x30;
    match bytes.first() {
        None => Wrong::new("is empty", "name another file"),
        Some(&SEQUENCE) => {
            Wrong::new("is binary (DER) and not PEM", format!("{convert}; where it is a .p12 or .pfx, openssl pkcs12"))
        }
        Some(_) => Wrong::new("holds nothing in PEM", "name a file with -----BEGIN and -----END lines"),
    }
}

/// The kind of the first section, as it calls itself.
fn label(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let begun = text.lines().find_map(|line| line.strip_prefix("-----BEGIN "))?;
    Some(begun.trim_end().trim_end_matches('-').to_owned())
}

/// In PKCS#8, or as OpenSSL once did it (RFC 1421, section 4.6.1.1).
fn is_encrypted(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    text.lines()
        .any(|line| line.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY") || line.starts_with("Proc-Type: 4,ENCRYPTED"))
}

fn encrypted() -> Wrong {
    Wrong::new(
        "the private key is encrypted, and at a start nobody is there to say its password",
        "decrypt it: openssl pkey -in FILE -out NEWFILE, and chmod 600 NEWFILE",
    )
}

#[cfg(test)]
mod tests;
