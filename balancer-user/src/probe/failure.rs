//! Why a probe failed, told apart as finely as an operator would act differently, and whose fault it was.
//!
//! A failure counts against the backend; what the gateway itself lacked does not (an exhausted gateway would otherwise
//! see all its backends fail at once). Which of both an error is: `mishap.rs`.
//!
//! Text that came from the network is shortened and stripped of control characters here, so that it may be logged.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use rustix::io::Errno;
use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError};

/// Longest text from the network that a failure keeps, in characters.
const LONGEST_TEXT: usize = 160;
/// How many of a certificate's names a failure tells.
const NAMES_TOLD: usize = 4;

/// What was wrong with the backend.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Failure {
    /// RST to our SYN.
    #[error("connection refused: nothing listens there, or a firewall rejects it")]
    Refused,
    /// No route, an interface that is down, or an ICMP error.
    #[error("host unreachable: {}", io::Error::from(*.0))]
    Unreachable(Errno),
    /// No answer to our SYN in time.
    #[error("no answer to the connection attempt in time: the host is down or its packets are dropped")]
    ConnectTimeout,
    /// Connected, but the handshake wasn't done in time.
    #[error("connected, but the TLS handshake did not finish in time: the server hangs or is overloaded")]
    HandshakeTimeout,
    /// Asked, but the answer wasn't there in time.
    #[error(
        "connected, but the answer to the request did not come in time: the application hangs or is overloaded"
    )]
    ResponseTimeout,
    /// A certificate of the chain is past its end.
    #[error("the certificate expired{}", told(" on ", *.not_after))]
    CertificateExpired {
        /// When, if it is known.
        not_after: Option<SystemTime>,
    },
    /// A certificate of the chain isn't valid yet (or the gateway's clock is behind).
    #[error("the certificate is not valid yet{}: renew it or check this host's clock", told(", only from ", *.not_before))]
    CertificateNotYetValid {
        /// From when it will be, if it is known.
        not_before: Option<SystemTime>,
    },
    /// The certificate is for other names than the one that is expected.
    #[error("the certificate is not for the expected name{}: set server_name or renew the certificate", .0)]
    CertificateWrongName(
        /// The expected and the presented names, ready to be read.
        String,
    ),
    /// No accepted root stands behind the certificate.
    #[error(
        "the certificate's issuer is not trusted: give its CA (or a self-signed certificate itself) as ca_file"
    )]
    CertificateUnknownIssuer,
    /// Anything else about the certificate.
    #[error("the certificate is invalid: {0}")]
    CertificateInvalid(
        /// What, in short.
        String,
    ),
    /// The server ended the handshake with an alert.
    #[error("the server ended the TLS handshake with the alert {:?}{}", .0, advice_on(*.0))]
    TlsAlert(AlertDescription),
    /// The server speaks TLS, but no version or algorithm that we do.
    #[error("no TLS version or algorithm in common (TLS 1.2 and 1.3 are spoken here): {0}")]
    TlsIncompatible(
        /// What, in short.
        String,
    ),
    /// The server broke the rules of TLS.
    #[error("the server broke the TLS protocol: {0}")]
    TlsProtocol(
        /// How, in short.
        String,
    ),
    /// The answer is something else.
    #[error("the answer is not TLS: this port speaks plain HTTP or another protocol")]
    NotTls,
    /// FIN in the middle of the handshake, or before the whole answer.
    #[error("the server closed the connection before it had answered")]
    Closed,
    /// RST after the connection stood.
    #[error("the server reset the connection")]
    Reset,
    /// The answer isn't HTTP/1, or breaks its rules.
    #[error("the answer is not HTTP/1.1 ({0}): this port speaks TLS, HTTP/2 or another protocol")]
    NotHttp(
        /// What was wrong with it, in short.
        String,
    ),
    /// A head beyond any bound.
    #[error("the head of the answer is longer than 16 KiB or has more than 100 fields")]
    HeadTooLarge,
    /// HTTP, but not what was expected.
    #[error("the answer has the status {0}, which expect_status does not name")]
    UnexpectedStatus(u16),
    /// A good status over the wrong text.
    #[error("the answer's body does not hold the text of expect_body within its first 64 KiB")]
    BodyMismatch,
    /// The program ended with an exit code other than 0.
    #[error("the program ended with exit code {code}{}", quoted(said.as_ref()))]
    ExitCode {
        /// Which.
        code: i32,
        /// Its last line, harmless.
        said: Option<String>,
    },
    /// A signal ended the program.
    #[error("the program was killed by signal {signal}{}", quoted(said.as_ref()))]
    KilledBySignal {
        /// Which.
        signal: i32,
        /// Its last line, harmless.
        said: Option<String>,
    },
    /// The program had not ended in time, and was ended.
    #[error("the program did not end in time{}", quoted(said.as_ref()))]
    Timeout {
        /// Its last line, harmless.
        said: Option<String>,
    },
    /// Any other error of the connection.
    #[error("input/output error: {}", .0.map_or_else(|| "unknown".to_owned(), |errno| io::Error::from(errno).to_string()))]
    Io(Option<Errno>),
}

impl Failure {
    /// A name that never changes, for JSON, metrics and scripts.
    #[must_use]
    pub fn token(&self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Unreachable(_) => "unreachable",
            Self::ConnectTimeout => "connect_timeout",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::ResponseTimeout => "response_timeout",
            Self::CertificateExpired { .. } => "certificate_expired",
            Self::CertificateNotYetValid { .. } => "certificate_not_yet_valid",
            Self::CertificateWrongName(_) => "certificate_wrong_name",
            Self::CertificateUnknownIssuer => "certificate_unknown_issuer",
            Self::CertificateInvalid(_) => "certificate_invalid",
            Self::TlsAlert(_) => "tls_alert",
            Self::TlsIncompatible(_) => "tls_incompatible",
            Self::TlsProtocol(_) => "tls_protocol",
            Self::NotTls => "not_tls",
            Self::Closed => "closed",
            Self::Reset => "reset",
            Self::NotHttp(_) => "not_http",
            Self::HeadTooLarge => "head_too_large",
            Self::UnexpectedStatus(_) => "unexpected_status",
            Self::BodyMismatch => "body_mismatch",
            Self::ExitCode { .. } => "exit_code",
            Self::KilledBySignal { .. } => "killed_by_signal",
            Self::Timeout { .. } => "timeout",
            Self::Io(_) => "io",
        }
    }

    /// What is kept as the reason of a decision: the token, with what people want to know at once
    /// (`unexpected_status 503`) and what only a program's own words tell.
    #[must_use]
    pub fn evidence(&self) -> String {
        let token = self.token();
        match self {
            Self::UnexpectedStatus(status) => format!("{token} {status}"),
            Self::ExitCode { code: number, said } | Self::KilledBySignal { signal: number, said } => {
                format!("{token} {number}{}", quoted(said.as_ref()))
            }
            Self::Timeout { said } => format!("{token}{}", quoted(said.as_ref())),
            _ => token.to_owned(),
        }
    }

    pub(super) fn from_certificate(error: &CertificateError) -> Self {
        match error {
            CertificateError::Expired => Self::CertificateExpired { not_after: None },
            CertificateError::ExpiredContext { not_after, .. } => {
                Self::CertificateExpired { not_after: system_time(*not_after) }
            }
            CertificateError::NotValidYet => Self::CertificateNotYetValid { not_before: None },
            CertificateError::NotValidYetContext { not_before, .. } => {
                Self::CertificateNotYetValid { not_before: system_time(*not_before) }
            }
            CertificateError::NotValidForName => Self::CertificateWrongName(String::new()),
            CertificateError::NotValidForNameContext { expected, presented } => {
                Self::CertificateWrongName(names(&expected.to_str(), presented))
            }
            CertificateError::UnknownIssuer => Self::CertificateUnknownIssuer,
            // Only the handshake's own signature gets here: a bad one in the chain is an unknown issuer.
            CertificateError::BadSignature => Self::CertificateInvalid(
                "the handshake's signature is not of its key, or it is an RSA key of less than 2048 bits"
                    .to_owned(),
            ),
            other => Self::CertificateInvalid(printable(&other.to_string())),
        }
    }
}

/// The gateway could not probe: no evidence about the backend.
#[derive(Debug, thiserror::Error)]
#[error("this host could not probe {target}: {source}{}", advice_on_local(source))]
pub struct LocalFault {
    target: SocketAddr,
    source: io::Error,
}

impl LocalFault {
    pub(super) fn new(target: SocketAddr, source: io::Error) -> Self {
        Self { target, source }
    }
}

/// What an operator can do about the alerts that servers send most.
fn advice_on(alert: AlertDescription) -> &'static str {
    match alert {
        AlertDescription::CertificateRequired => {
            ": it wants a client certificate, which a probe does not have; use kind = \"tcp\""
        }
        AlertDescription::HandshakeFailure => {
            ": it accepts none of our algorithms, wants a server_name, or a client certificate"
        }
        AlertDescription::BadCertificate => ": it may want a client certificate; use kind = \"tcp\" then",
        AlertDescription::ProtocolVersion => ": it speaks neither TLS 1.2 nor 1.3",
        AlertDescription::UnrecognisedName => ": it does not know the server_name",
        AlertDescription::NoApplicationProtocol => {
            ": it insists on another protocol by ALPN; an https probe offers http/1.1, a tls probe none"
        }
        _ => "",
    }
}

fn advice_on_local(error: &io::Error) -> &'static str {
    match Errno::from_io_error(error) {
        Some(Errno::MFILE) => "; raise LimitNOFILE of the service",
        Some(Errno::NFILE) => "; raise the sysctl fs.file-max",
        Some(Errno::ADDRNOTAVAIL | Errno::ADDRINUSE | Errno::AGAIN) => {
            "; no local port or address is free: widen the sysctl net.ipv4.ip_local_port_range"
        }
        Some(Errno::PERM | Errno::ACCESS) => {
            "; a firewall rule, route or security module of this host forbids it"
        }
        _ => "",
    }
}

fn system_time(time: UnixTime) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(time.as_secs()))
}

/// What a program said last, behind what is said about it.
fn quoted(said: Option<&String>) -> String {
    said.map(|said| format!(": {said}")).unwrap_or_default()
}

/// The day and hour with a word before it, or nothing: years beyond 9999 have no form.
fn told(before: &str, time: Option<SystemTime>) -> String {
    let Some(time) = time else { return String::new() };
    let year_10000 = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_800);
    if time >= year_10000 {
        return String::new();
    }
    format!("{before}{}", humantime::format_rfc3339_seconds(time))
}

/// The expected name beside those of the certificate. A certificate with none has at best a common name, which no
/// client looks at any more.
fn names(expected: &str, presented: &[String]) -> String {
    if presented.is_empty() {
        return printable(&format!(" {expected} (it has no subjectAltName)"));
    }
    let told: Vec<_> = presented.iter().take(NAMES_TOLD).map(|name| bare(name)).collect();
    let more = if presented.len() > NAMES_TOLD { ", …" } else { "" };
    printable(&format!(" {expected} but for {}{more}", told.join(", ")))
}

/// `DnsName("a.example")`, as rustls gives it, without the wrapping.
fn bare(name: &str) -> &str {
    name.strip_prefix("DnsName(\"").and_then(|name| name.strip_suffix("\")")).unwrap_or(name)
}

/// Short, one line, no control characters.
pub(super) fn printable(text: &str) -> String {
    let mut kept: String =
        text.chars().take(LONGEST_TEXT).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(LONGEST_TEXT).is_some() {
        kept.push('…');
    }
    kept
}
