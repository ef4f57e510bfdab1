//! Backends to probe: servers on loopback, honest and hostile, and the certificates that they show.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{HandshakeKind, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// The name that the certificates of these tests are for, unless they say otherwise.
pub(super) const NAME: &str = "pw.example.org";

/// A certificate with its key, and what a server shows with it.
pub(super) struct Identity {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
    /// The leaf as a ca_file could hold it.
    pub(super) pem: String,
}

/// An authority made on the spot.
pub(super) struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

impl Ca {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "an authority");
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer, folder: tempfile::tempdir().unwrap() }
    }

    /// Where its certificate lies.
    pub(super) fn file(&self) -> PathBuf {
        self.save(self.issuer.pem())
    }

    pub(super) fn save(&self, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder.path().join("ca.pem");
        std::fs::write(&path, text).unwrap();
        path
    }

    pub(super) fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        Arc::new(roots)
    }

    pub(super) fn issue(&self, params: &CertificateParams) -> Identity {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity::new(&certificate, &key)
    }
}

impl Identity {
    fn new(certificate: &rcgen::Certificate, key: &KeyPair) -> Self {
        Self {
            chain: vec![certificate.der().clone()],
            key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            pem: certificate.pem(),
        }
    }

    pub(super) fn self_signed(params: &CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        Self::new(&params.self_signed(&key).unwrap(), &key)
    }

    /// The leaf again and again behind itself, to `bytes` at least: as heavy as a chain of strangers.
    pub(super) fn padded_to(mut self, bytes: usize) -> Self {
        let leaf = self.chain[0].clone();
        while self.chain.iter().map(|certificate| certificate.len()).sum::<usize>() < bytes {
            self.chain.push(leaf.clone());
        }
        self
    }
}

/// A certificate for `names`, valid from 2020 to 2090.
pub(super) fn certificate(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, "a backend");
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2090, 1, 1);
    params
}

/// How a TLS server is set up.
pub(super) struct Tls {
    pub(super) identity: Identity,
    pub(super) versions: &'static [&'static SupportedProtocolVersion],
    pub(super) clients: Option<Arc<RootCertStore>>,
}

impl Tls {
    pub(super) fn with(identity: Identity) -> Self {
        Self { identity, versions: rustls::ALL_VERSIONS, clients: None }
    }

    pub(super) fn config(self) -> ServerConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(self.versions)
            .unwrap();
        let builder = match self.clients {
            None => builder.with_no_client_auth(),
            Some(roots) => builder.with_client_cert_verifier(
                WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider)).build().unwrap(),
            ),
        };
        let key = provider.key_provider.load_private_key(self.identity.key).unwrap();
        // Not `with_single_cert`: it would refuse a key that isn't the certificate's.
        let shown = Arc::new(SingleCertAndKey::from(CertifiedKey::new(self.identity.chain, key)));
        builder.with_cert_resolver(shown)
    }
}

/// What a TLS server saw of one probe.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) peer: SocketAddr,
    pub(super) sni: Option<String>,
    pub(super) kind: Option<HandshakeKind>,
    /// The connection ended with close_notify, not with a mere FIN or RST.
    pub(super) clean: bool,
}

/// A listener with a task behind it, which ends with it.
pub(super) struct Backend {
    pub(super) address: SocketAddr,
    pub(super) seen: mpsc::Receiver<Seen>,
    task: JoinHandle<()>,
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Backend {
    /// A server that does `act` with each connection in turn.
    pub(super) async fn that<F, A>(act: F) -> Self
    where
        F: Fn(TcpStream) -> A + Send + 'static,
        A: Future<Output = ()> + Send,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                act(stream).await;
            }
        });
        Self { address, seen: mpsc::channel(1).1, task }
    }

    /// A server that reads the ClientHello, sends `answer`, and waits for the end.
    pub(super) async fn that_answers(answer: &'static [u8]) -> Self {
        Self::that(move |mut stream| async move {
            hello(&mut stream).await;
            stream.write_all(answer).await.unwrap();
            until_the_end(&mut stream).await;
        })
        .await
    }

    /// A TLS server that, like real ones, closes when its client says close_notify.
    pub(super) async fn tls(tls: Tls) -> Self {
        let acceptor = TlsAcceptor::from(Arc::new(tls.config()));
        let (sender, seen) = mpsc::channel(64);
        let mut backend = Self::that(move |stream| {
            let (acceptor, sender) = (acceptor.clone(), sender.clone());
            async move {
                let peer = stream.peer_addr().unwrap();
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let session = stream.get_ref().1;
                let (sni, kind) = (session.server_name().map(str::to_owned), session.handshake_kind());
                let clean = matches!(stream.read(&mut [0; 64]).await, Ok(0));
                let _ = stream.shutdown().await;
                drop(stream);
                sender.send(Seen { peer, sni, kind, clean }).await.unwrap();
            }
        })
        .await;
        backend.seen = seen;
        backend
    }

    /// A server that sends `answer` over and over, a piece every few milliseconds.
    pub(super) async fn that_drips(answer: &'static [u8], pause: Duration) -> Self {
        Self::that(move |mut stream| async move {
            let mut ticks = tokio::time::interval(pause);
            for piece in answer.iter().cycle() {
                ticks.tick().await;
                if stream.write_all(&[*piece]).await.is_err() {
                    return;
                }
            }
        })
        .await
    }
}

pub(super) async fn hello(stream: &mut TcpStream) {
    let _ = stream.read(&mut [0; 4096]).await;
}

pub(super) async fn until_the_end(stream: &mut TcpStream) {
    while !matches!(stream.read(&mut [0; 4096]).await, Ok(0) | Err(_)) {}
}
