//! Probes: run one check against one backend and say what came of it.
//!
//! A [`Prober`] is made once per service and keeps what is read from disk (roots), so that a probe itself touches
//! only the network, or runs its program. It answers in one of three ways, and the type makes the caller tell them
//! apart: the backend is good, the backend failed ([`Failure`]), or the gateway could not probe at all
//! ([`LocalFault`]), which says nothing about any backend.
//!
//! Deliberately not here: when to check, how often, how many at once, what an outcome means for health, and the guard
//! against a controller that was itself suspended (all policy); resolving names; logging.

mod certificate;
mod exec;
mod failure;
mod http;
mod mishap;
mod ports;
mod tcp;
mod tls;
mod trust;

#[cfg(test)]
pub(crate) mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::net::TcpStream;
use tokio::time::Instant;

pub use self::exec::Role;
pub use self::failure::{Failure, LocalFault};
pub use self::http::HttpSettings;
pub use self::ports::LocalPorts;
pub use self::trust::{ProbeSetupError, Verify};

use crate::program::CommandLine;

use self::exec::Exec;
use self::http::Question;
use self::mishap::Mishap;
use self::tls::{Finding, Handshaker};

/// No probe waits longer than this; it also keeps the arithmetic on deadlines from overflowing.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// What a `tls` probe needs to know, and an `https` probe of its handshake.
#[derive(Clone, Debug)]
pub struct TlsSettings {
    /// Sent as SNI and verified, e.g. `pw.example.org`. An IP address is verified, and never sent (RFC 6066). `None`:
    /// nothing is sent, and the address that is probed is the name to verify.
    pub server_name: Option<String>,
    /// Which certificates are accepted.
    pub verify: Verify,
    /// For the whole probe: connect, handshake and answer together.
    pub timeout: Duration,
}

/// Runs one kind of check. Cheap to clone: clones share what was read from disk.
#[derive(Clone, Debug)]
pub struct Prober {
    check: Check,
    timeout: Duration,
    /// Where its connections leave from.
    ports: Arc<LocalPorts>,
}

#[derive(Clone, Debug)]
enum Check {
    Over(Box<Connection>),
    Exec(Exec),
}

/// What a connection is opened for.
#[derive(Clone, Debug)]
enum Connection {
    Tcp,
    Tls(Handshaker),
    Https(Handshaker, Question),
    Http(Question),
}

/// What one probe found out about a backend.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Outcome {
    /// Good, or why not.
    pub result: Result<(), Failure>,
    /// From the first packet until the result was known: saying goodbye does not count.
    pub took: Duration,
    /// `notAfter` of the certificate that the backend showed, also when it was not accepted or not verified; `None`
    /// if the probe did not get that far, or the certificate is too broken to tell.
    pub certificate_expires: Option<SystemTime>,
}

impl Prober {
    fn new(check: Check, timeout: Duration) -> Self {
        Self { check, timeout: timeout.min(LONGEST_TIMEOUT), ports: Arc::default() }
    }

    /// The same for another check.
    fn with(&self, check: Check) -> Self {
        Self { check, timeout: self.timeout, ports: self.ports.clone() }
    }

    /// The same prober, leaving from these ports.
    #[must_use]
    pub fn leaving_from(self, ports: Arc<LocalPorts>) -> Self {
        Self { ports, ..self }
    }

    /// A prober that is content with an established TCP connection.
    #[must_use]
    pub fn tcp(timeout: Duration) -> Self {
        Self::new(Check::Over(Connection::Tcp.into()), timeout)
    }

    /// A prober that wants a full TLS handshake (1.2 or 1.3, never a resumed one). Reads the roots: make it when the
    /// configuration is loaded, and again when it is reloaded, so that a renewed CA counts.
    ///
    /// # Errors
    /// When the roots cannot be read or the server name is not one.
    pub fn tls(settings: TlsSettings) -> Result<Self, ProbeSetupError> {
        let TlsSettings { server_name, verify, timeout } = settings;
        let check = Connection::Tls(Handshaker::new(server_name.as_deref(), &verify, &[])?);
        Ok(Self::new(Check::Over(check.into()), timeout))
    }

    /// A prober that wants the same handshake, and then a good answer over it.
    ///
    /// # Errors
    /// As [`Prober::tls`].
    pub fn https(tls: TlsSettings, http: HttpSettings) -> Result<Self, ProbeSetupError> {
        let TlsSettings { server_name, verify, timeout } = tls;
        let handshaker = Handshaker::new(server_name.as_deref(), &verify, &["http/1.1"])?;
        let check = Connection::Https(handshaker, Question::new(http));
        Ok(Self::new(Check::Over(check.into()), timeout))
    }

    /// A prober that wants a good answer without TLS.
    #[must_use]
    pub fn http(http: HttpSettings, timeout: Duration) -> Self {
        Self::new(Check::Over(Connection::Http(Question::new(http)).into()), timeout)
    }

    /// A prober that runs a program, which gets the pool's name; [`Self::for_backend`] gives it the rest.
    #[must_use]
    pub fn exec(pool: &str, run: CommandLine, timeout: Duration) -> Self {
        Self::new(Check::Exec(Exec::new(pool, run)), timeout)
    }

    /// The same prober for one backend of the pool, which has this role now. Only a program wants to know.
    #[must_use]
    pub fn for_backend(&self, backend: &str, role: Role) -> Self {
        match &self.check {
            Check::Exec(exec) => self.with(Check::Exec(exec.for_backend(backend, role))),
            Check::Over(_) => self.clone(),
        }
    }

    /// The same prober for a backend with a host name, which is sent, verified and asked for if no other was given; nothing
    /// is read from disk again. A prober that needs no name stays as it is.
    #[must_use]
    pub fn for_host(&self, host: &str) -> Self {
        let Check::Over(connection) = &self.check else { return self.clone() };
        let connection = match &**connection {
            Connection::Tls(handshaker) => Connection::Tls(handshaker.for_host(host)),
            Connection::Https(handshaker, question) => {
                Connection::Https(handshaker.for_host(host), question.for_host(host))
            }
            Connection::Http(question) => Connection::Http(question.for_host(host)),
            Connection::Tcp => Connection::Tcp,
        };
        self.with(Check::Over(connection.into()))
    }

    /// Probes `target` once. Ends by itself: the result stands within the timeout, and the goodbye to a good backend
    /// takes at most 250 ms more, within the timeout too. One socket and a few hundred kB of memory at the very
    /// most, whatever the other side sends. Dropping the future cuts the connection, or ends the program.
    ///
    /// # Errors
    /// When the gateway could not probe: no evidence about the backend, so it must not count against it.
    pub async fn run(&self, target: SocketAddr) -> Result<Outcome, LocalFault> {
        let started = Instant::now();
        let deadline = started + self.timeout;
        let (result, took, certificate_expires) = match &self.check {
            Check::Over(connection) => match tcp::connect(target, deadline, &self.ports).await {
                Ok(stream) => connection.check(stream, target, started, deadline).await,
                Err(mishap) => (Err(mishap), started.elapsed(), None),
            },
            Check::Exec(exec) => {
                let (result, took) = exec.run(target, self.timeout).await;
                (result, took, None)
            }
        };
        Outcome::new(target, result, took, certificate_expires)
    }
}

impl Connection {
    async fn check(
        &self,
        stream: TcpStream,
        target: SocketAddr,
        started: Instant,
        deadline: Instant,
    ) -> Finding {
        match self {
            Self::Tcp => plain(stream, None, target, started, deadline).await,
            Self::Http(question) => plain(stream, Some(question), target, started, deadline).await,
            Self::Tls(handshaker) => handshaker.run(stream, None, target, started, deadline).await,
            Self::Https(handshaker, question) => {
                handshaker.run(stream, Some(question), target, started, deadline).await
            }
        }
    }
}

/// A connection without TLS, and over it the question, if there is one.
async fn plain(
    mut stream: TcpStream,
    question: Option<&Question>,
    target: SocketAddr,
    started: Instant,
    deadline: Instant,
) -> Finding {
    let Some(question) = question else {
        let took = started.elapsed();
        tcp::finish(stream, deadline).await;
        return (Ok(()), took, None);
    };
    let answered = question.ask(&mut stream, target, deadline).await;
    let took = started.elapsed();
    if answered.is_ok() {
        tcp::await_close(stream, tcp::goodbye_ends(deadline)).await;
    }
    (answered, took, None)
}

impl Outcome {
    /// Sorts out what was our own fault.
    fn new(
        target: SocketAddr,
        result: Result<(), Mishap>,
        took: Duration,
        certificate_expires: Option<SystemTime>,
    ) -> Result<Self, LocalFault> {
        let result = match result {
            Ok(()) => Ok(()),
            Err(Mishap::Backend(failure)) => Err(failure),
            Err(Mishap::Local(source)) => return Err(LocalFault::new(target, source)),
        };
        Ok(Self { result, took, certificate_expires })
    }
}
