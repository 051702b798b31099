//! TLS: what a certificate and its key make of a listener, and the session of one connection. The only place that knows
//! rustls. Opens no socket and waits for nothing: bytes in, bytes out.

mod credentials;
mod session;
mod tickets;
mod validity;

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::NoServerSessionStorage;

pub(crate) use credentials::{Credentials, Flaws};
pub(crate) use session::{Refusal, Session};
pub(crate) use tickets::Keys;
pub(crate) use tickets::LIFETIME as TICKET_LIFETIME;
use tickets::Ticketer;
pub(crate) use validity::Validity;

/// What the sessions of a listener share: the certificate, its key, and the keys of tickets. Made before the first fork.
#[derive(Clone)]
pub(crate) struct Acceptor {
    config: Arc<ServerConfig>,
    keys: Keys,
    validity: Validity,
}

impl Acceptor {
    /// Sessions with TLS 1.2 and 1.3 that show these credentials, and can be resumed by whoever shares the keys.
    pub fn new(credentials: &Credentials, keys: Keys) -> io::Result<Self> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_cert_resolver(credentials.resolver());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Sessions are kept by their clients alone, so that any worker can resume them.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = Arc::new(Ticketer::new(keys));
        Ok(Self { config: Arc::new(config), keys, validity: credentials.validity.clone() })
    }

    /// The session of a connection that begins.
    pub fn session(&self) -> Result<Box<Session>, Refusal> {
        Session::new(Arc::clone(&self.config)).map(Box::new)
    }

    /// New tickets are sealed with a new key from now on; those of the key before are still good (the master).
    pub fn rotate_keys(&self) -> io::Result<()> {
        self.keys.rotate()
    }

    /// Until when clients take the certificate.
    pub fn validity(&self) -> &Validity {
        &self.validity
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Acceptor")
    }
}
