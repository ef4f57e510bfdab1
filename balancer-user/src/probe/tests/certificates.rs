//! Certificates of backends, good and bad, and the roots that they are judged by.

use std::path::PathBuf;
use std::time::SystemTime;

use rcgen::{CertificateParams, IsCa};

use super::backend::{Backend, Ca, Identity, NAME, Tls, certificate};
use super::{ONE_VERSION, PATIENT, failure, in_a_process_of_its_own, lenient, prober, trusting};
use crate::probe::{Failure, Outcome, ProbeSetupError, Prober, TlsSettings, Verify};

/// What a probe that trusts the CA thinks of a certificate.
async fn outcome_of(params: &CertificateParams) -> Outcome {
    let ca = Ca::new();
    let backend = Backend::tls(Tls::with(ca.issue(params))).await;
    trusting(&ca).run(backend.address).await.unwrap()
}

pub(super) fn day(year: i32, month: u8, day: u8) -> SystemTime {
    rcgen::date_time_ymd(year, month, day).into()
}

// Judging.

#[tokio::test]
async fn a_certificate_of_the_ca_file_is_good_in_each_version() {
    let ca = Ca::new();
    for version in ONE_VERSION {
        let identity = ca.issue(&certificate(&[NAME]));
        let backend = Backend::tls(Tls { versions: version, ..Tls::with(identity) }).await;
        let outcome = trusting(&ca).run(backend.address).await.unwrap();
        assert_eq!(outcome.result, Ok(()), "{version:?}");
        assert_eq!(outcome.certificate_expires, Some(day(2090, 1, 1)));
    }
}

#[tokio::test]
async fn an_expired_certificate_fails_and_its_end_is_told() {
    let mut params = certificate(&[NAME]);
    params.not_after = rcgen::date_time_ymd(2021, 2, 3);
    let outcome = outcome_of(&params).await;
    let end = day(2021, 2, 3);
    assert_eq!(outcome.result, Err(Failure::CertificateExpired { not_after: Some(end) }));
    assert_eq!(outcome.certificate_expires, Some(end));
    assert!(outcome.result.unwrap_err().to_string().contains("2021-02-03T00:00:00Z"));
}

#[tokio::test]
async fn a_certificate_of_the_future_fails() {
    let mut params = certificate(&[NAME]);
    params.not_before = rcgen::date_time_ymd(2089, 2, 3);
    let outcome = outcome_of(&params).await;
    let failure = Failure::CertificateNotYetValid { not_before: Some(day(2089, 2, 3)) };
    assert_eq!((outcome.result, outcome.certificate_expires), (Err(failure), Some(day(2090, 1, 1))));
}

#[tokio::test]
async fn a_certificate_without_an_end_can_be_told() {
    let mut params = certificate(&[NAME]);
    params.not_after = rcgen::date_time_ymd(9999, 12, 31);
    let outcome = outcome_of(&params).await;
    assert_eq!((outcome.result, outcome.certificate_expires), (Ok(()), Some(day(9999, 12, 31))));
}

#[tokio::test]
async fn a_certificate_for_another_name_fails_and_both_are_told() {
    let names = ["other.example", "b.example", "c.example", "d.example", "e.example"];
    let failure = outcome_of(&certificate(&names)).await.result.unwrap_err();
    assert_eq!(failure.token(), "certificate_wrong_name");
    let told = failure.to_string();
    assert!(told.contains("pw.example.org but for other.example, b.example"), "{told}");
    assert!(!told.contains("e.example,") && told.contains('…'), "{told}");
}

#[tokio::test]
async fn a_certificate_of_a_stranger_fails_but_passes_unverified() {
    // Both have the same name, as a CA has that was made anew.
    let (ca, stranger) = (Ca::new(), Ca::new());
    let backend = Backend::tls(Tls::with(stranger.issue(&certificate(&[NAME])))).await;
    let outcome = trusting(&ca).run(backend.address).await.unwrap();
    assert_eq!(outcome.result, Err(Failure::CertificateUnknownIssuer));
    assert_eq!(outcome.certificate_expires, Some(day(2090, 1, 1)));

    let outcome = lenient(PATIENT).run(backend.address).await.unwrap();
    assert_eq!((outcome.result, outcome.certificate_expires), (Ok(()), Some(day(2090, 1, 1))));
}

#[tokio::test]
async fn a_self_signed_certificate_is_good_as_its_own_ca_file() {
    let ca = Ca::new();
    for is_ca in [IsCa::NoCa, IsCa::Ca(rcgen::BasicConstraints::Unconstrained)] {
        let mut params = certificate(&[NAME]);
        params.is_ca = is_ca;
        let identity = Identity::self_signed(&params);
        let file = ca.save(&identity.pem);
        let backend = Backend::tls(Tls::with(identity)).await;
        let own = prober(Some(NAME), Verify::CaFile(file.clone()), PATIENT);
        assert_eq!(own.run(backend.address).await.unwrap().result, Ok(()), "{is_ca:?}");
        // Its name counts all the same, and nobody else trusts it.
        let other = prober(Some("other.example"), Verify::CaFile(file), PATIENT);
        assert_eq!(failure(&other, backend.address).await.token(), "certificate_wrong_name");
        assert_eq!(failure(&trusting(&ca), backend.address).await, Failure::CertificateUnknownIssuer);
    }
}

#[tokio::test]
async fn a_self_signed_certificate_ends_as_its_own_ca_file_too() {
    let mut params = certificate(&[NAME]);
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.not_after = rcgen::date_time_ymd(2021, 2, 3);
    let identity = Identity::self_signed(&params);
    let file = Ca::new();
    let own = prober(Some(NAME), Verify::CaFile(file.save(&identity.pem)), PATIENT);
    let backend = Backend::tls(Tls::with(identity)).await;
    let expired = Failure::CertificateExpired { not_after: Some(day(2021, 2, 3)) };
    assert_eq!(failure(&own, backend.address).await, expired);
}

#[tokio::test]
async fn unverified_still_wants_the_key_of_the_certificate() {
    let stolen = Identity::self_signed(&certificate(&[NAME]));
    for version in ONE_VERSION {
        let thief = Identity::self_signed(&certificate(&[NAME]));
        let identity = Identity { chain: stolen.chain.clone(), ..thief };
        let backend = Backend::tls(Tls { versions: version, ..Tls::with(identity) }).await;
        let failure = failure(&lenient(PATIENT), backend.address).await;
        assert_eq!(failure.token(), "certificate_invalid", "{version:?}: {failure}");
    }
}

#[tokio::test]
async fn a_long_chain_is_read_and_an_endless_one_is_not() {
    let ca = Ca::new();
    let long = Backend::tls(Tls::with(ca.issue(&certificate(&[NAME])).padded_to(40_000))).await;
    assert_eq!(trusting(&ca).run(long.address).await.unwrap().result, Ok(()));
    let endless = Backend::tls(Tls::with(ca.issue(&certificate(&[NAME])).padded_to(70_000))).await;
    let failure = failure(&trusting(&ca), endless.address).await;
    assert!(matches!(failure, Failure::TlsProtocol(_)), "{failure:?}");
}

// Setting up.

fn refused(verify: Verify) -> String {
    let settings = TlsSettings { server_name: None, verify, timeout: PATIENT };
    Prober::tls(settings).expect_err("should have been refused").to_string()
}

#[test]
fn a_ca_file_that_is_none_is_refused_with_its_path() {
    let ca = Ca::new();
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let cases = [
        (PathBuf::from("/nonexistent/ca.pem"), "No such file"),
        (PathBuf::from("/dev/zero"), "not a regular file"),
        (PathBuf::from("/"), "not a regular file"),
    ];
    for (path, why) in cases {
        let told = refused(Verify::CaFile(path.clone()));
        assert!(told.contains(&path.display().to_string()) && told.contains(why), "{told}");
    }
    let good = std::fs::read_to_string(ca.file()).unwrap();
    for (text, why) in [
        (String::new(), "no certificate in PEM form"),
        ("x".repeat(5 << 20), "larger than 4 MiB"),
        (format!("{good}{broken}"), "certificate 2 is damaged"),
    ] {
        let told = refused(Verify::CaFile(ca.save(text)));
        assert!(told.contains("ca.pem") && told.contains(why), "{told}");
    }
}

#[test]
fn a_fifo_as_ca_file_does_not_hang() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR).unwrap();
    assert!(refused(Verify::CaFile(path)).contains("not a regular file"));
}

#[tokio::test]
async fn a_host_name_is_sent_and_verified_where_no_other_was_given() {
    let ca = Ca::new();
    let backend = Backend::tls(Tls::with(ca.issue(&certificate(&[NAME])))).await;
    let nameless = prober(None, Verify::CaFile(ca.file()), PATIENT);
    assert_eq!(nameless.for_host(NAME).run(backend.address).await.unwrap().result, Ok(()));
    let other = nameless.for_host("other.example");
    assert_eq!(failure(&other, backend.address).await.token(), "certificate_wrong_name");
    let written = trusting(&ca).for_host("other.example");
    assert_eq!(written.run(backend.address).await.unwrap().result, Ok(()));
}

#[test]
fn a_server_name_that_is_none_is_refused() {
    for name in ["", "a b", "-", "pässe.example", "a\0b"] {
        let settings =
            TlsSettings { server_name: Some(name.to_owned()), verify: Verify::Off, timeout: PATIENT };
        let error = Prober::tls(settings).unwrap_err();
        assert!(matches!(error, ProbeSetupError::InvalidServerName { .. }), "{error}");
    }
}

#[test]
fn the_system_roots_are_used_and_their_lack_has_a_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("bundle.pem");
    in_a_process_of_its_own(
        "the_system_roots_are_used_and_their_lack_has_a_way_out",
        ("SSL_CERT_FILE", bundle.to_str().unwrap()),
        |bundle| {
            let told = refused(Verify::SystemRoots);
            assert!(told.contains("install the package ca-certificates"), "{told}");

            let (ca, stranger) = (Ca::new(), Ca::new());
            std::fs::copy(ca.file(), bundle).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let prober = prober(Some(NAME), Verify::SystemRoots, PATIENT);
                let ours = Backend::tls(Tls::with(ca.issue(&certificate(&[NAME])))).await;
                assert_eq!(prober.run(ours.address).await.unwrap().result, Ok(()));
                let theirs = Backend::tls(Tls::with(stranger.issue(&certificate(&[NAME])))).await;
                assert_eq!(failure(&prober, theirs.address).await, Failure::CertificateUnknownIssuer);
            });
        },
    );
}
