//! How the certificate of a backend is judged, and what is remembered of it.
//!
//! rustls asks its verifier in the middle of the handshake and forgets the certificate when the answer is no, but an
//! operator wants to see the expiry of just the certificate that failed. So each probe has a [`Witness`] of its own in
//! the verifier's place: it notes the expiry, then asks the [`Judge`] that all probes of a service share.
//!
//! Deliberately not here: revocation. A probe must not depend on a third party's server, and clients of the service
//! judge that for themselves.

use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};
use x509_cert::Certificate;
use x509_cert::der::Decode;

use super::trust::{ProbeSetupError, Roots, Verify};

/// Says yes or no to a certificate.
#[derive(Debug)]
pub(super) struct Judge {
    rule: Rule,
    algorithms: WebPkiSupportedAlgorithms,
}

#[derive(Debug)]
enum Rule {
    AcceptAny,
    Trust { chain: Arc<WebPkiServerVerifier>, accepted: Vec<CertificateDer<'static>> },
}

impl Judge {
    pub(super) fn new(verify: &Verify, provider: &Arc<CryptoProvider>) -> Result<Self, ProbeSetupError> {
        let roots = match verify {
            Verify::Off => None,
            Verify::SystemRoots => Some(Roots::of_the_system()?),
            Verify::CaFile(path) => Some(Roots::of_file(path)?),
        };
        let rule = match roots {
            None => Rule::AcceptAny,
            Some(Roots { store, accepted }) => {
                let chain =
                    WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(provider))
                        .build()
                        .map_err(|error| ProbeSetupError::Tls(error.to_string()))?;
                Rule::Trust { chain, accepted }
            }
        };
        Ok(Self { rule, algorithms: provider.signature_verification_algorithms })
    }

    fn verdict(
        &self,
        shown: &CertificateDer<'_>,
        parsed: Option<&Certificate>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        let Rule::Trust { chain, accepted } = &self.rule else { return Ok(()) };
        if let Some(parsed) = parsed.filter(|_| accepted.contains(shown)) {
            within_its_dates(parsed, now)?;
            return verify_server_name(&ParsedCertificate::try_from(shown)?, name);
        }
        match chain.verify_server_cert(shown, intermediates, name, &[], now) {
            Ok(_) => Ok(()),
            // Two details behind which the owner must hear that nobody trusts the certificate: a root has the issuer's
            // name but another key (a CA made anew under its old name), and a self-signed certificate that claims to
            // be a CA is refused for that claim first.
            Err(Error::InvalidCertificate(CertificateError::BadSignature)) => {
                Err(CertificateError::UnknownIssuer.into())
            }
            Err(Error::InvalidCertificate(CertificateError::Other(_)))
                if parsed.is_some_and(is_self_issued) =>
            {
                Err(CertificateError::UnknownIssuer.into())
            }
            Err(error) => Err(error),
        }
    }
}

/// Stands in the verifier's place for one handshake.
#[derive(Debug)]
pub(super) struct Witness {
    judge: Arc<Judge>,
    expires: OnceLock<SystemTime>,
}

impl Witness {
    pub(super) fn new(judge: &Arc<Judge>) -> Self {
        Self { judge: Arc::clone(judge), expires: OnceLock::new() }
    }

    /// `notAfter` of the server's own certificate, if one was shown that could be read.
    pub(super) fn expires(&self) -> Option<SystemTime> {
        self.expires.get().copied()
    }
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = Certificate::from_der(end_entity).ok();
        if let Some(parsed) = &parsed {
            // The first one stays, should a handshake ever show two.
            let _ = self.expires.set(parsed.tbs_certificate.validity.not_after.to_system_time());
        }
        self.judge.verdict(end_entity, parsed.as_ref(), intermediates, server_name, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.judge.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.judge.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.judge.algorithms.supported_schemes()
    }
}

fn within_its_dates(certificate: &Certificate, now: UnixTime) -> Result<(), CertificateError> {
    let validity = &certificate.tbs_certificate.validity;
    let not_before = UnixTime::since_unix_epoch(validity.not_before.to_unix_duration());
    let not_after = UnixTime::since_unix_epoch(validity.not_after.to_unix_duration());
    if now < not_before {
        return Err(CertificateError::NotValidYetContext { time: now, not_before });
    }
    if now > not_after {
        return Err(CertificateError::ExpiredContext { time: now, not_after });
    }
    Ok(())
}

fn is_self_issued(certificate: &Certificate) -> bool {
    certificate.tbs_certificate.issuer == certificate.tbs_certificate.subject
}
