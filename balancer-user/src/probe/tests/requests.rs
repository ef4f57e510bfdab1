//! Requests over a connection: what is asked, which answers are good, and each way in which one isn't.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::http::uri::PathAndQuery;
use rustls::AlertDescription;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use super::backend::{Backend, Ca, NAME, Tls, certificate, until_the_end};
use super::certificates::day;
use super::{ONE_VERSION, PATIENT, SHORT, closed_port, failure};
use crate::probe::{Failure, HttpSettings, Prober, TlsSettings, Verify};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nall is well";

fn wanting(status: &[std::ops::RangeInclusive<u16>], body: &str) -> HttpSettings {
    HttpSettings {
        host: None,
        path: PathAndQuery::from_static("/health?deep=1"),
        expect_status: status.to_vec(),
        expect_body: body.to_owned(),
    }
}

fn http(timeout: Duration) -> Prober {
    Prober::http(wanting(&[200..=399], ""), timeout)
}

fn seeking(body: &str, timeout: Duration) -> Prober {
    Prober::http(wanting(&[200..=399], body), timeout)
}

fn https(verify: Verify, http: HttpSettings) -> Prober {
    let tls = TlsSettings { server_name: Some(NAME.to_owned()), verify, timeout: PATIENT };
    Prober::https(tls, HttpSettings { host: Some(NAME.to_owned()), ..http }).unwrap()
}

/// The head of a request, or what there is of it.
async fn request(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && stream.read_buf(&mut head).await.is_ok_and(|read| read > 0) {}
    String::from_utf8_lossy(&head).into_owned()
}

/// A server that takes a request, sends this, and closes.
async fn web(answer: impl Into<Vec<u8>>) -> Backend {
    let answer: Arc<[u8]> = answer.into().into();
    Backend::that(move |mut stream| {
        let answer = Arc::clone(&answer);
        async move {
            request(&mut stream).await;
            // One that has heard enough may be gone.
            let _ = stream.write_all(&answer).await;
        }
    })
    .await
}

/// The same over TLS, by this ALPN; and the requests that it got.
async fn tls_web(tls: Tls, protocols: &[&str], answer: &'static str) -> (Backend, mpsc::Receiver<String>) {
    let mut config = tls.config();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let (sender, requests) = mpsc::channel(8);
    let backend = Backend::that(move |stream| {
        let (acceptor, sender) = (acceptor.clone(), sender.clone());
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            // Not every test wants to know.
            let _ = sender.send(request(&mut stream).await).await;
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    (backend.await, requests)
}

async fn is_good(prober: &Prober, target: SocketAddr) {
    assert_eq!(prober.run(target).await.unwrap().result, Ok(()));
}

// What is asked.

#[tokio::test]
async fn one_request_is_sent_and_the_server_closes_first() {
    let (sender, mut seen) = mpsc::channel(1);
    let backend = Backend::that(move |mut stream: TcpStream| {
        let sender = sender.clone();
        async move {
            let request = request(&mut stream).await;
            stream.write_all(OK.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            let end = stream.read(&mut [0; 64]).await.map_err(|error| error.kind());
            sender.send((request, end)).await.unwrap();
        }
    })
    .await;
    is_good(&http(PATIENT), backend.address).await;
    let (request, end) = seen.recv().await.unwrap();
    let agent = concat!("user-agent: balancer/", env!("CARGO_PKG_VERSION"));
    let host = format!("host: {}", backend.address);
    let mut lines: Vec<_> = request.trim_end().split("\r\n").collect();
    lines[1..].sort_unstable();
    assert_eq!(lines, ["GET /health?deep=1 HTTP/1.1", "accept: */*", "connection: close", &host, agent]);
    assert_eq!(end, Ok(0), "it was cut off");
}

#[tokio::test]
async fn the_server_name_is_the_host_and_http_1_1_is_offered() {
    let ca = Ca::new();
    for protocols in [&[][..], &["h2", "http/1.1"]] {
        let identity = ca.issue(&certificate(&[NAME]));
        let (backend, mut requests) = tls_web(Tls::with(identity), protocols, OK).await;
        let prober = https(Verify::CaFile(ca.file()), wanting(&[200..=200], "well"));
        let outcome = prober.run(backend.address).await.unwrap();
        assert_eq!((outcome.result, outcome.certificate_expires), (Ok(()), Some(day(2090, 1, 1))));
        let request = requests.recv().await.unwrap();
        assert!(request.contains(&format!("\r\nhost: {NAME}\r\n")), "{request}");
    }
    let identity = ca.issue(&certificate(&[NAME]));
    let (only_h2, _) = tls_web(Tls::with(identity), &["h2"], OK).await;
    let failure = failure(&https(Verify::Off, wanting(&[200..=200], "")), only_h2.address).await;
    assert_eq!(failure, Failure::TlsAlert(AlertDescription::NoApplicationProtocol));
}

#[tokio::test]
async fn the_host_is_what_was_given_or_the_backends_name_or_its_address() {
    let (sender, mut seen) = mpsc::channel(1);
    let backend = Backend::that(move |mut stream: TcpStream| {
        let sender = sender.clone();
        async move {
            sender.send(request(&mut stream).await).await.unwrap();
            stream.write_all(OK.as_bytes()).await.unwrap();
        }
    })
    .await;
    let address = backend.address.to_string();
    for (given, backends, host) in [
        (Some("pw.example.org"), Some("db1.example.org"), "pw.example.org"),
        (Some("pw.example.org"), None, "pw.example.org"),
        (Some("203.0.113.10"), None, "203.0.113.10"),
        (Some("2001:db8::10"), None, "[2001:db8::10]"),
        (None, Some("db1.example.org"), "db1.example.org"),
        (None, None, address.as_str()),
    ] {
        let settings = HttpSettings { host: given.map(str::to_owned), ..wanting(&[200..=399], "") };
        let prober = Prober::http(settings, PATIENT);
        is_good(&backends.map_or(prober.clone(), |backend| prober.for_host(backend)), backend.address).await;
        let request = seen.recv().await.unwrap();
        assert!(request.contains(&format!("\r\nhost: {host}\r\n")), "{given:?}, {backends:?}: {request}");
    }
}

#[tokio::test]
async fn a_backends_name_is_also_asked_for_over_tls() {
    let ca = Ca::new();
    let (backend, mut requests) = tls_web(Tls::with(ca.issue(&certificate(&[NAME]))), &[], OK).await;
    let tls = TlsSettings { server_name: None, verify: Verify::CaFile(ca.file()), timeout: PATIENT };
    let prober = Prober::https(tls, wanting(&[200..=200], "")).unwrap().for_host(NAME);
    is_good(&prober, backend.address).await;
    let request = requests.recv().await.unwrap();
    assert!(request.contains(&format!("\r\nhost: {NAME}\r\n")), "{request}");
}

// Good answers.

#[tokio::test]
async fn any_good_status_will_do() {
    let prober = Prober::http(wanting(&[200..=204, 401..=401], ""), PATIENT);
    for (status, is_good) in
        [(200, true), (204, true), (205, false), (301, false), (400, false), (401, true), (599, false)]
    {
        let backend = web(format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n")).await;
        let result = prober.run(backend.address).await.unwrap().result;
        let expected = if is_good { Ok(()) } else { Err(Failure::UnexpectedStatus(status)) };
        assert_eq!(result, expected);
    }
}

#[tokio::test]
async fn a_text_is_found_in_a_body_of_each_framing() {
    for answer in [
        OK.to_owned(),
        "HTTP/1.1 200 OK\r\n\r\nhere all is well".to_owned(),
        "HTTP/1.0 200 OK\r\n\r\nhere all is well".to_owned(),
        // The text begins in one chunk and ends in another.
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nall is\r\n6\r\n well.\r\n0\r\n\r\n"
            .to_owned(),
        // It ends with the last byte that is looked at.
        format!("HTTP/1.1 200 OK\r\n\r\n{}all is well", ".".repeat(64 * 1024 - 11)),
    ] {
        let backend = web(answer.as_str()).await;
        is_good(&seeking("all is well", PATIENT), backend.address).await;
    }
}

#[tokio::test]
async fn informational_answers_are_skipped() {
    let backend =
        web(format!("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n{OK}")).await;
    is_good(&seeking("all is well", PATIENT), backend.address).await;
}

#[tokio::test]
async fn an_endless_body_is_good_once_the_text_is_found_or_nothing_is_sought() {
    let backend = Backend::that(|mut stream| async move {
        request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nall is well, and").await.unwrap();
        until_the_end(&mut stream).await;
    })
    .await;
    is_good(&seeking("all is well", PATIENT), backend.address).await;
    is_good(&http(PATIENT), backend.address).await;
}

// Bad ones.

#[tokio::test]
async fn an_unexpected_status_is_told_with_its_number() {
    let backend = web("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n").await;
    let failure = failure(&http(PATIENT), backend.address).await;
    assert_eq!(failure, Failure::UnexpectedStatus(503));
    assert_eq!(
        (failure.token(), failure.evidence().as_str()),
        ("unexpected_status", "unexpected_status 503")
    );
    assert_eq!(Failure::Refused.evidence(), "refused");
}

#[tokio::test]
async fn a_body_without_the_text_is_a_mismatch() {
    let filler = ".".repeat(64 * 1024);
    for answer in [
        OK.to_owned(),
        "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
        format!("HTTP/1.1 200 OK\r\n\r\n{filler}all is lost"),
        // An end beyond the bound isn't waited for.
        format!("HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n{filler}"),
    ] {
        let backend = web(answer.as_str()).await;
        assert_eq!(failure(&seeking("all is lost", PATIENT), backend.address).await, Failure::BodyMismatch);
    }
}

#[tokio::test]
async fn an_end_before_the_answer_is_told_from_a_reset() {
    for answer in [
        "",
        "HTTP/1.1 200 OK\r\nContent-Le",
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf of it",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhalf",
    ] {
        let backend = web(answer).await;
        assert_eq!(failure(&seeking("whole", PATIENT), backend.address).await, Failure::Closed, "{answer}");
    }
    let resetting = Backend::that(|mut stream| async move {
        request(&mut stream).await;
        stream.set_zero_linger().unwrap();
    })
    .await;
    assert_eq!(failure(&http(PATIENT), resetting.address).await, Failure::Reset);
    let (_bound, target) = closed_port();
    assert_eq!(failure(&http(PATIENT), target).await, Failure::Refused);
}

#[tokio::test]
async fn other_protocols_are_not_http() {
    for answer in [
        &b"220 mail.example ESMTP\r\n"[..],
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"\x00\x00\x12\x04\x00\x00\x00\x00\x00",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"\x1b[2J\x1b[2J\r\n\r\n",
    ] {
        let backend = web(answer).await;
        let failure = failure(&seeking("x", PATIENT), backend.address).await;
        assert_eq!(failure.token(), "not_http", "{failure}");
        assert!(!failure.to_string().contains(char::is_control), "{failure:?}");
    }
    // One that speaks first, and may be heard before it is asked.
    let banner = Backend::that(|mut stream| async move {
        stream.write_all(b"SSH-2.0-x\r\n").await.unwrap();
        until_the_end(&mut stream).await;
    })
    .await;
    assert_eq!(failure(&http(PATIENT), banner.address).await.token(), "not_http");
}

#[tokio::test]
async fn a_head_beyond_its_bounds_is_refused() {
    let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(17 * 1024));
    let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(200 * 1024));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: x\r\n".repeat(101));
    for answer in [long, endless, many] {
        let backend = web(answer).await;
        assert_eq!(failure(&http(PATIENT), backend.address).await, Failure::HeadTooLarge);
    }
    let fitting = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(15 * 1024));
    is_good(&http(PATIENT), web(fitting).await.address).await;
}

#[tokio::test]
async fn silence_and_drops_end_at_the_response_timeout() {
    const PAUSE: Duration = Duration::from_millis(20);
    let silent = Backend::that(|mut stream| async move { until_the_end(&mut stream).await }).await;
    let mut backends = vec![silent];
    for drops in ["HTTP/1.1 200 OK\r\nX: xxxxxxxxxxxxxxxxxxxxxxxx", "HTTP/1.1 100 Continue\r\n\r\n"] {
        backends.push(Backend::that_drips(drops.as_bytes(), PAUSE).await);
    }
    let body = Backend::that(|mut stream| async move {
        request(&mut stream).await;
        let mut ticks = tokio::time::interval(PAUSE);
        let mut piece = "HTTP/1.1 200 OK\r\n\r\n.";
        while stream.write_all(piece.as_bytes()).await.is_ok() {
            piece = ".";
            ticks.tick().await;
        }
    });
    backends.push(body.await);
    for backend in backends {
        let outcome = seeking("all is well", SHORT).run(backend.address).await.unwrap();
        assert_eq!(outcome.result, Err(Failure::ResponseTimeout));
        assert!(outcome.took >= SHORT && outcome.took < PATIENT, "{outcome:?}");
    }
}

#[tokio::test]
async fn over_tls_the_handshake_fails_as_ever_and_the_answer_as_without() {
    let ca = Ca::new();
    let asks = || wanting(&[200..=200], "");
    for version in ONE_VERSION {
        let tls = |names: &[&str]| Tls { versions: version, ..Tls::with(ca.issue(&certificate(names))) };
        let (other, _) = tls_web(tls(&["other.example"]), &[], OK).await;
        let outcome = https(Verify::CaFile(ca.file()), asks()).run(other.address).await.unwrap();
        assert_eq!(outcome.result.unwrap_err().token(), "certificate_wrong_name", "{version:?}");
        assert_eq!(outcome.certificate_expires, Some(day(2090, 1, 1)));
        is_good(&https(Verify::Off, asks()), other.address).await;

        let (ill, _requests) =
            tls_web(tls(&[NAME]), &[], "HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n").await;
        let prober = https(Verify::CaFile(ca.file()), asks());
        assert_eq!(failure(&prober, ill.address).await, Failure::UnexpectedStatus(500), "{version:?}");

        let wants = Tls { clients: Some(ca.roots()), ..tls(&[NAME]) };
        let (wanting, _) = tls_web(wants, &[], OK).await;
        let failure = failure(&https(Verify::CaFile(ca.file()), asks()), wanting.address).await;
        assert_eq!(failure, Failure::TlsAlert(AlertDescription::CertificateRequired), "{version:?}");
    }
    let plain = Backend::that_answers(OK.as_bytes()).await;
    assert_eq!(failure(&https(Verify::Off, asks()), plain.address).await, Failure::NotTls);
}
