//! A client of TLS whose every byte can be seen, held back or cut off.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned, SupportedProtocolVersion};
use tempfile::TempDir;

use super::{Launch, PATIENCE};

/// Both versions that there are.
pub const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// Files of PEM: an authority, and what it has signed for `localhost` and 127.0.0.1.
pub struct Authority {
    folder: TempDir,
}

impl Authority {
    /// The one of this run.
    pub fn here() -> &'static Self {
        static HERE: OnceLock<Authority> = OnceLock::new();
        HERE.get_or_init(|| {
            let folder = tempfile::tempdir().expect("a temporary folder");
            make(folder.path());
            Self { folder }
        })
    }

    /// `root.pem`, which clients know; `ec.key` with `ec.pem`, and `rsa.key` with `rsa.pem`, whose chain has an
    /// intermediate authority. `ed25519` and `p384` are other keys, `sec1` is `ec` in another form, and `pkcs1` is `rsa`.
    /// `expired.pem`, `soon.pem` (for 5 days) and `future.pem` (from 2099) belong to `ec.key`, as does `ec.der`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn make(folder: &Path) {
    let script = r"
        exec 2>openssl.log
        set -e
        ec='-newkey ec -pkeyopt ec_paramgen_curve:P-256'
        openssl req -x509 $ec -nodes -keyout root.key -out root.pem -subj /CN=root -days 30
        echo 'basicConstraints=critical,CA:TRUE' >ca.ext
        echo 'subjectAltName=DNS:localhost,IP:127.0.0.1' >leaf.ext
        openssl req $ec -nodes -keyout between.key -out between.csr -subj /CN=between
        openssl x509 -req -in between.csr -CA root.pem -CAkey root.key -extfile ca.ext -days 30 -out between.pem
        openssl req $ec -nodes -keyout ec.key -out ec.csr -subj /CN=localhost
        openssl x509 -req -in ec.csr -CA root.pem -CAkey root.key -extfile leaf.ext -days 30 -out ec.pem
        openssl req -newkey rsa:2048 -nodes -keyout rsa.key -out rsa.csr -subj /CN=localhost
        openssl x509 -req -in rsa.csr -CA between.pem -CAkey between.key -extfile leaf.ext -days 30 -out leaf.pem
        cat leaf.pem between.pem >rsa.pem
        # Other keys, and other forms of the same.
        leaf='-CA root.pem -CAkey root.key -extfile leaf.ext'
        openssl req -newkey ed25519 -nodes -keyout ed25519.key -out ed25519.csr -subj /CN=localhost
        openssl x509 -req -in ed25519.csr $leaf -days 30 -out ed25519.pem
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-384 -nodes -keyout p384.key -out p384.csr -subj /CN=localhost
        openssl x509 -req -in p384.csr $leaf -days 30 -out p384.pem
        openssl ec -in ec.key -out sec1.key
        cp ec.pem sec1.pem
        openssl rsa -traditional -in rsa.key -out pkcs1.key
        cp rsa.pem pkcs1.pem
        openssl pkey -aes256 -passout pass:secret -in ec.key -out encrypted.key
        openssl rsa -traditional -aes256 -passout pass:secret -in rsa.key -out old-encrypted.key
        openssl x509 -in ec.pem -outform DER -out ec.der
        openssl x509 -req -in ec.csr $leaf -days -1 -out expired.pem
        openssl x509 -req -in ec.csr $leaf -days 5 -out soon.pem
        : >index.txt
        printf '%s\n' '[ca]' default_ca=ours '[ours]' database=index.txt new_certs_dir=. default_md=sha256 \
            rand_serial=yes policy=any '[any]' commonName=supplied >ca.cnf
        openssl ca -batch -notext -config ca.cnf -cert root.pem -keyfile root.key -extfile leaf.ext -in ec.csr \
            -startdate 20990101000000Z -enddate 20990201000000Z -out future.pem >ca.out";
    let made = Command::new("sh").args(["-c", script]).current_dir(folder).status().expect("a shell");
    let log = std::fs::read_to_string(folder.join("openssl.log")).unwrap_or_default();
    assert!(made.success(), "openssl: {log}");
}

impl Launch {
    /// With TLS, and a key of that kind: `ec`, `rsa`, …
    pub fn tls(self, kind: &str) -> Self {
        let authority = Authority::here();
        let (key, certificate) = (authority.file(&format!("{kind}.key")), authority.file(&format!("{kind}.pem")));
        self.arg("--sslKeyFile").arg(key).arg("--sslCertificateFile").arg(certificate)
    }
}

/// A client that remembers sessions.
pub struct TlsClient {
    config: Arc<ClientConfig>,
}

/// A connection of it.
pub type TlsStream = StreamOwned<ClientConnection, TcpStream>;

impl TlsClient {
    pub fn new(versions: &[&'static SupportedProtocolVersion]) -> Self {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_file(Authority::here().file("root.pem")).expect("a certificate");
        roots.add(root).expect("a root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions);
        let mut config = builder.expect("versions").with_root_certificates(roots).with_no_client_auth();
        config.resumption = Resumption::in_memory_sessions(256);
        Self { config: Arc::new(config) }
    }

    /// What a handshake begins with.
    pub fn begin(&self) -> ClientConnection {
        let name = ServerName::try_from("localhost").expect("a name");
        ClientConnection::new(Arc::clone(&self.config), name).expect("a client")
    }

    pub fn connect(&self, to: SocketAddr) -> TlsStream {
        let stream = TcpStream::connect(to).expect("nobody is refused");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        StreamOwned::new(self.begin(), stream)
    }

    /// The response to a request that is the last of its connection, and whether its session was resumed.
    pub fn get(&self, to: SocketAddr, target: &str) -> (String, bool) {
        let mut stream = self.connect(to);
        let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("a handshake, and a request");
        let mut said = String::new();
        // Anything but close_notify at the end is an error.
        stream.read_to_string(&mut said).expect("a response, and its end");
        (said, stream.conn.handshake_kind() == Some(HandshakeKind::Resumed))
    }
}

/// All bytes that a client would send for a request, where each comes after what the server has answered to those before:
/// how they are cut into flights, by the number of bytes.
pub fn exchange(client: &mut ClientConnection, stream: &mut TcpStream, said: &[u8]) -> io::Result<Vec<u8>> {
    let mut sent = Vec::new();
    client.writer().write_all(said)?;
    while client.wants_write() || client.is_handshaking() {
        let mut flight = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut flight)?;
        }
        stream.write_all(&flight)?;
        sent.append(&mut flight);
        if client.is_handshaking() {
            client.read_tls(stream)?;
            client.process_new_packets().map_err(io::Error::other)?;
        }
    }
    Ok(sent)
}
