//! A full TLS handshake as a probe.
//!
//! What a probe offers is what a plain client would: TLS 1.2 and 1.3, SNI if there is a name, no ALPN (a server that
//! knows none of the offered protocols must refuse, one that is offered none goes on), no client certificate, and
//! never a resumed session: a ticket would skip the certificate, which is half of what is probed.
//!
//! When a handshake is good: in TLS 1.2 the server has the last word, so a handshake that is done was accepted. In TLS
//! 1.3 the client has it, and a server that wants a client certificate says no one round trip later. So after a TLS
//! 1.3 handshake an alert that comes while we wait for the server to close still makes the probe fail, and both
//! versions agree about such a server. A server that says nothing until then is good: its transport and its key are
//! proven.
//!
//! Memory: rustls joins at most 64 KiB of one handshake message and 64 KiB of certificates, and refuses more.
//!
//! Deliberately not here: requests over the connection.

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
use super::failure::{Failure, Mishap, Step};
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
    pub(super) fn new(server_name: Option<&str>, verify: &Verify) -> Result<Self, ProbeSetupError> {
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
        Ok(Self { config: Arc::new(config), judge, server_name })
    }

    pub(super) fn with_server_name(&self, server_name: &str) -> Result<Self, ProbeSetupError> {
        Ok(Self { server_name: Some(parse_name(server_name)?), ..self.clone() })
    }

    pub(super) async fn run(&self, target: SocketAddr, started: Instant, deadline: Instant) -> Finding {
        let witness = Arc::new(Witness::new(&self.judge));
        let handshake = self.handshake(target, &witness, deadline).await;
        let took = started.elapsed();
        let result = match handshake {
            Ok(stream) => goodbye(stream, tcp::goodbye_ends(deadline)).await.map_err(Mishap::Backend),
            Err(mishap) => Err(mishap),
        };
        (result, took, witness.expires())
    }

    async fn handshake(
        &self,
        target: SocketAddr,
        witness: &Arc<Witness>,
        deadline: Instant,
    ) -> Result<TlsStream<TcpStream>, Mishap> {
        // Without a name the address is what the certificate must be for; rustls sends no SNI then.
        let name = self.server_name.clone().unwrap_or_else(|| ServerName::IpAddress(target.ip().into()));
        let mut config = ClientConfig::clone(&self.config);
        config.dangerous().set_certificate_verifier(Arc::<Witness>::clone(witness));

        let stream = tcp::connect(target, deadline).await?;
        let connector = TlsConnector::from(Arc::new(config));
        match timeout_at(deadline, connector.connect(name, stream)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(Mishap::from_io(error, Step::Handshake)),
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

    if let Err(error) = tcp::drained(&mut stream, until).await
        && let Some(rustls::Error::AlertReceived(alert)) = tls_error(&error)
        && may_still_refuse
    {
        return Err(Failure::TlsAlert(*alert));
    }
    // TLS ends with the server's close_notify; the connection ends with its FIN.
    let (stream, _) = stream.into_inner();
    tcp::await_close(stream, until).await;
    Ok(())
}

fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

fn parse_name(name: &str) -> Result<ServerName<'static>, ProbeSetupError> {
    ServerName::try_from(name.to_owned())
        .map_err(|_| ProbeSetupError::InvalidServerName { name: name.to_owned() })
}
