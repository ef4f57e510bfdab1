//! What stopped a probe: errors of sockets, of TLS and of HTTP, each blamed on the backend or on the gateway.
//!
//! No route, or an interface that is down, counts against the backend: flows could not reach it that way either, while
//! another backend may be on a network that works.
//!
//! Deliberately not here: what each failure is called and how it reads (`failure.rs`).

use std::error::Error as _;
use std::io;

use rustix::io::Errno;
use rustls::InvalidMessage;

use super::failure::{Failure, printable};

/// What stopped a probe, before anybody was blamed.
#[derive(Debug)]
pub(super) enum Mishap {
    /// It counts against the backend.
    Backend(Failure),
    /// It doesn't.
    Local(io::Error),
}

/// How far a probe had come: the same error means different things.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Connect,
    Handshake,
    Response,
}

impl Mishap {
    /// Blames an error of HTTP, or of what is below it, on one side.
    pub(super) fn from_http(error: &hyper::Error) -> Self {
        let below = std::iter::successors(error.source(), |cause| (*cause).source());
        for cause in below {
            if let Some(error) = cause.downcast_ref::<io::Error>() {
                return Self::from_io(error, Step::Response);
            }
            // What ended the connection, in the error of a request that could not be sent any more.
            if let Some(error) = cause.downcast_ref::<hyper::Error>() {
                return Self::from_http(error);
            }
        }
        Self::Backend(if error.is_parse_too_large() {
            Failure::HeadTooLarge
        } else if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
            Failure::Closed
        } else {
            Failure::NotHttp(printable(&error.to_string()))
        })
    }

    /// Blames an error of the socket, or of what speaks over it, on one side.
    pub(super) fn from_io(error: &io::Error, step: Step) -> Self {
        if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return Self::from_tls(tls);
        }
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return Self::Backend(Failure::Closed);
        }
        let Some(errno) = Errno::from_io_error(error) else {
            return Self::Backend(match step {
                // hyper's own, about the lengths of chunks.
                Step::Response => Failure::NotHttp(printable(&error.to_string())),
                Step::Connect | Step::Handshake => Failure::Io(None),
            });
        };
        Self::Backend(match errno {
            // No file, no memory, no free local port, or forbidden or switched off on this host.
            Errno::MFILE
            | Errno::NFILE
            | Errno::NOMEM
            | Errno::NOBUFS
            | Errno::ADDRNOTAVAIL
            | Errno::ADDRINUSE
            | Errno::AGAIN
            | Errno::PERM
            | Errno::ACCESS
            | Errno::AFNOSUPPORT => return Self::Local(errno.into()),
            Errno::CONNREFUSED => Failure::Refused,
            Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::HOSTDOWN | Errno::NETDOWN | Errno::NONET => {
                Failure::Unreachable(errno)
            }
            Errno::TIMEDOUT => match step {
                Step::Connect => Failure::ConnectTimeout,
                Step::Handshake => Failure::HandshakeTimeout,
                Step::Response => Failure::ResponseTimeout,
            },
            Errno::CONNRESET | Errno::CONNABORTED => Failure::Reset,
            Errno::PIPE => Failure::Closed,
            other => Failure::Io(Some(other)),
        })
    }

    fn from_tls(error: &rustls::Error) -> Self {
        Self::Backend(match error {
            rustls::Error::FailedToGetRandomBytes | rustls::Error::FailedToGetCurrentTime => {
                return Self::Local(io::Error::other(error.clone()));
            }
            rustls::Error::InvalidCertificate(error) => Failure::from_certificate(error),
            rustls::Error::NoCertificatesPresented => {
                Failure::CertificateInvalid("the server shows none".to_owned())
            }
            rustls::Error::AlertReceived(alert) => Failure::TlsAlert(*alert),
            // The first five bytes are no header of a TLS record.
            rustls::Error::InvalidMessage(
                InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
            ) => Failure::NotTls,
            rustls::Error::PeerIncompatible(why) => Failure::TlsIncompatible(printable(&format!("{why:?}"))),
            other => Failure::TlsProtocol(printable(&other.to_string())),
        })
    }
}
