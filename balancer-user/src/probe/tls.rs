//! A full TLS handshake as a probe.
//!
//! What a probe offers is what a plain client would: TLS 1.2 and 1.3, SNI if there is a name, ALPN only before a request
//! (a server that knows none of the offered protocols must refuse, one that is offered none goes on), no client
//! certificate, and never a resumed session: a ticket would skip the certificate, which is half of what is probed.
//!
//! When a handshake is good: in TLS 1.2 the server has the last word, so a handshake that is done was accepted. In TLS
//! 1.3 the client has it, and a server that wants a client certificate says no one round trip later. So after a TLS
//! 1.3 handshake an alert that comes while we wait for the server to close still makes the probe fail, and both
//! versions agree about such a server. A server that says nothing until then is good: its transport and its key are
//! proven. Where a request follows, its answer decides, and an alert in its place is that late no.
//!
//! Memory: rustls joins at most 64 KiB of one handshake message and 64 KiB of certificates, and refuses more.
//!
//! Deliberately not here: what is said over the connection (`http.rs`).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ProtocolVersion};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::certificate::{Judge, Witness};
use super::failure::Failure;
use super::http::Question;
use super::mishap::{Mishap, Step};
use super::tcp;
use super::trust::{ProbeSetupError, Verify};

/// Result, how long it took until it stood, and when the certificate expires.
pub(super) type Finding = (Result<(), Mishap>, Duration, Option<SystemTime>);

/// Makes handshakes, each from scratch.
#[derive(Clone, Debug)]
pub(super) struct Handshaker {
    config: Arc<ClientConfig>,
    judge: Arc<Judge>,
    server_name: Option<ServerName<'static>>,
}

impl Handshaker {
    /// `protocols`: what is offered by ALPN.
    pub(super) fn new(
        server_name: Option<&str>,
        verify: &Verify,
        protocols: &[&str],
    ) -> Result<Self, ProbeSetupError> {
        let server_name = server_name.map(parse_name).transpose()?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let judge = Arc::new(Judge::new(verify, &provider)?);
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| ProbeSetupError::Tls(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Witness::new(&judge)))
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Ok(Self { config: Arc::new(config), judge, server_name })
    }

    /// A name that can't be one in a certificate is none.
    pub(super) fn for_host(&self, host: &str) -> Self {
        let server_name = self.server_name.clone().or_else(|| parse_name(host).ok());
        Self { server_name, ..self.clone() }
    }

    /// A handshake over this connection, and over that the question, if there is one.
    pub(super) async fn run(
        &self,
        stream: TcpStream,
        question: Option<&Question>,
        target: SocketAddr,
        started: Instant,
        deadline: Instant,
    ) -> Finding {
        let witness = Arc::new(Witness::new(&self.judge));
        let good = self.good(stream, question, target, &witness, deadline).await;
        let took = started.elapsed();
        let result = match good {
            Ok(stream) => {
                let late = goodbye(stream, tcp::goodbye_ends(deadline)).await;
                // Who has answered has not refused.
                if question.is_none() { late.map_err(Mishap::Backend) } else { Ok(()) }
            }
            Err(mishap) => Err(mishap),
        };
        (result, took, witness.expires())
    }

    /// The connection, after everything was as it should be.
    async fn good(
        &self,
        stream: TcpStream,
        question: Option<&Question>,
        target: SocketAddr,
        witness: &Arc<Witness>,
        deadline: Instant,
    ) -> Result<TlsStream<TcpStream>, Mishap> {
        let mut stream = self.handshake(stream, target, witness, deadline).await?;
        let Some(question) = question else { return Ok(stream) };
        match question.ask(&mut stream, target, deadline).await {
            Ok(()) => Ok(stream),
            // Our write may have met the end of the connection before the alert that explains it was read.
            Err(Mishap::Backend(failure @ (Failure::Closed | Failure::Reset))) => {
                let refusal = refusal(&mut stream, tcp::goodbye_ends(deadline)).await;
                Err(Mishap::Backend(refusal.unwrap_or(failure)))
            }
            Err(mishap) => Err(mishap),
        }
    }

    async fn handshake(
        &self,
        stream: TcpStream,
        target: SocketAddr,
        witness: &Arc<Witness>,
        deadline: Instant,
    ) -> Result<TlsStream<TcpStream>, Mishap> {
        // Without a name the address is what the certificate must be for; rustls sends no SNI then.
        let name = self.server_name.clone().unwrap_or_else(|| ServerName::IpAddress(target.ip().into()));
        let mut config = ClientConfig::clone(&self.config);
        config.dangerous().set_certificate_verifier(Arc::<Witness>::clone(witness));

        let connector = TlsConnector::from(Arc::new(config));
        match timeout_at(deadline, connector.connect(name, stream)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(Mishap::from_io(&error, Step::Handshake)),
            Err(_) => Err(Mishap::Backend(Failure::HandshakeTimeout)),
        }
    }
}

/// Ends a good handshake; an error is the server's late no.
async fn goodbye(mut stream: TlsStream<TcpStream>, until: Instant) -> Result<(), Failure> {
    let (_, session) = stream.get_mut();
    session.send_close_notify();
    let may_still_refuse = session.protocol_version() == Some(ProtocolVersion::TLSv1_3);
    // An error here is a server that closed first; what it said before that is still to be read.
    let _ = timeout_at(until, stream.flush()).await;

    if let Some(refusal) = refusal(&mut stream, until).await
        && may_still_refuse
    {
        return Err(refusal);
    }
    // TLS ends with the server's close_notify; the connection ends with its FIN.
    let (stream, _) = stream.into_inner();
    tcp::await_close(stream, until).await;
    Ok(())
}

/// The alert among what the server still says, if there is one.
async fn refusal(stream: &mut TlsStream<TcpStream>, until: Instant) -> Option<Failure> {
    let error = tcp::drained(stream, until).await.err()?;
    match tls_error(&error) {
        Some(rustls::Error::AlertReceived(alert)) => Some(Failure::TlsAlert(*alert)),
        _ => None,
    }
}

fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

fn parse_name(name: &str) -> Result<ServerName<'static>, ProbeSetupError> {
    ServerName::try_from(name.to_owned())
        .map_err(|_| ProbeSetupError::InvalidServerName { name: name.to_owned() })
}
