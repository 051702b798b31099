//! A certificate with its chain, and its private key: read from their files and judged.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ResolvesServerCert;
use rustls::sign::{CertifiedKey, SingleCertAndKey};

/// Who the server is, and the proof.
#[derive(Debug)]
pub(crate) struct Credentials {
    certified: Arc<CertifiedKey>,
}

impl Credentials {
    /// Reads both files.
    pub fn read(key: &Path, certificate: &Path) -> io::Result<Self> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(certificate).map_err(io::Error::other)?.collect();
        let key = PrivateKeyDer::from_pem_file(key).map_err(io::Error::other)?;
        let certified = CertifiedKey::from_der(chain.map_err(io::Error::other)?, key, &aws_lc_rs::default_provider());
        Ok(Self { certified: Arc::new(certified.map_err(io::Error::other)?) })
    }

    pub(super) fn resolver(&self) -> Arc<dyn ResolvesServerCert> {
        Arc::new(SingleCertAndKey::from(Arc::clone(&self.certified)))
    }
}
