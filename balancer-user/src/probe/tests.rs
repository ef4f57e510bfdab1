//! Each failure provoked by a real server on loopback, each kind of good backend, and how a probe leaves.
//!
//! A host that is unreachable can't be had on loopback: the table of errors stands for it here, and the tests in
//! namespaces do it for real.

mod backend;
mod certificates;
mod exec;
mod requests;

use std::ffi::OsStr;
use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustls::{AlertDescription, HandshakeKind, SupportedProtocolVersion};
use tokio::io::AsyncReadExt;
use tokio::net::TcpSocket;
use tokio::sync::mpsc;

use super::mishap::{Mishap, Step};
use super::{Failure, LocalPorts, Prober, TlsSettings, Verify};
use backend::{Backend, Ca, NAME, Tls, certificate, hello, until_the_end};
use certificates::day;

/// Enough for a handshake of an unoptimised build on a busy machine.
const PATIENT: Duration = Duration::from_secs(10);
/// For the tests that wait for it to pass.
const SHORT: Duration = Duration::from_millis(300);

/// Set in the processes that tests start.
const INSIDE: &str = "BALANCER_TEST_INSIDE";
/// Servers that speak only one.
const ONE_VERSION: [&[&SupportedProtocolVersion]; 2] =
    [&[&rustls::version::TLS12], &[&rustls::version::TLS13]];

fn prober(name: Option<&str>, verify: Verify, timeout: Duration) -> Prober {
    Prober::tls(TlsSettings { server_name: name.map(str::to_owned), verify, timeout }).unwrap()
}

fn trusting(ca: &Ca) -> Prober {
    prober(Some(NAME), Verify::CaFile(ca.file()), PATIENT)
}

fn lenient(timeout: Duration) -> Prober {
    prober(Some(NAME), Verify::Off, timeout)
}

async fn failure(prober: &Prober, target: SocketAddr) -> Failure {
    let outcome = prober.run(target).await.unwrap();
    let failure = outcome.result.expect_err("the probe should have failed");
    println!("{}: {failure}", failure.token());
    failure
}

/// A port on which nobody listens, nor can while the socket lives.
fn closed_port() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

// The network.

#[tokio::test]
async fn a_closed_port_refuses() {
    let (_bound, target) = closed_port();
    assert_eq!(failure(&Prober::tcp(PATIENT), target).await, Failure::Refused);
    assert_eq!(failure(&lenient(PATIENT), target).await, Failure::Refused);
}

#[tokio::test]
async fn a_full_backlog_ends_at_the_connect_timeout() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let target = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) = std::net::TcpStream::connect_timeout(&target, SHORT) {
        waiting.push(stream);
        assert!(waiting.len() < 16, "the backlog never fills");
    }
    let prober = lenient(SHORT);
    let outcome = prober.run(target).await.unwrap();
    assert_eq!(outcome.result, Err(Failure::ConnectTimeout));
    assert!(outcome.took >= SHORT && outcome.took < PATIENT, "{outcome:?}");
    assert_eq!(failure(&Prober::tcp(SHORT), target).await, Failure::ConnectTimeout);
}

#[tokio::test]
async fn no_probe_stays_on_a_port_that_flows_leave_from() {
    let backend = Backend::that(|mut stream| async move { until_the_end(&mut stream).await }).await;
    let leaving = |own: Vec<RangeInclusive<u16>>| {
        let ports = Arc::new(LocalPorts::new(vec![1024..=19_999, 21_000..=u16::MAX], own));
        Prober::tcp(PATIENT).leaving_from(ports)
    };
    // The first time it is seen, from then on the kernel isn't asked.
    let chosen = leaving(vec![20_000..=20_999]);
    for _ in 0..3 {
        assert_eq!(chosen.run(backend.address).await.unwrap().result, Ok(()));
    }
    let fault = leaving(vec![]).run(backend.address).await.unwrap_err().to_string();
    assert!(fault.contains("are snat_ports now"), "{fault}");
}

#[tokio::test]
async fn tcp_is_content_with_a_connection() {
    let backend = Backend::that(|mut stream| async move { until_the_end(&mut stream).await }).await;
    let outcome = Prober::tcp(PATIENT).run(backend.address).await.unwrap();
    assert_eq!((outcome.result, outcome.certificate_expires), (Ok(()), None));
}

#[tokio::test]
async fn tcp_is_content_with_a_server_that_never_closes() {
    let backend = Backend::that(|stream| async move {
        let _open = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let began = Instant::now();
    let outcome = Prober::tcp(PATIENT).run(backend.address).await.unwrap();
    assert_eq!(outcome.result, Ok(()));
    assert!(began.elapsed() < PATIENT / 2, "the goodbye took {:?}", began.elapsed());
}

// TLS that isn't.

#[tokio::test]
async fn silence_ends_at_the_handshake_timeout() {
    let backend = Backend::that(|mut stream| async move { until_the_end(&mut stream).await }).await;
    let outcome = lenient(SHORT).run(backend.address).await.unwrap();
    assert_eq!(outcome.result, Err(Failure::HandshakeTimeout));
    assert!(outcome.took >= SHORT && outcome.took < PATIENT, "{outcome:?}");
}

#[tokio::test]
async fn a_byte_now_and_then_does_not_stretch_the_timeout() {
    // The head of a handshake record of 16 kB: rustls has to wait for all of it.
    let backend =
        Backend::that_drips(&[0x16, 0x03, 0x03, 0x40, 0x00, 0x02, 0, 0], Duration::from_millis(20)).await;
    let outcome = lenient(SHORT).run(backend.address).await.unwrap();
    assert_eq!(outcome.result, Err(Failure::HandshakeTimeout));
    assert!(outcome.took < PATIENT, "{outcome:?}");
}

#[tokio::test]
async fn plain_http_is_not_tls() {
    let backend = Backend::that_answers(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await;
    assert_eq!(failure(&lenient(PATIENT), backend.address).await, Failure::NotTls);
}

#[tokio::test]
async fn garbage_is_not_tls() {
    let backend = Backend::that_answers(&[0xa5; 20_000]).await;
    assert_eq!(failure(&lenient(PATIENT), backend.address).await, Failure::NotTls);
}

#[tokio::test]
async fn a_broken_handshake_message_breaks_the_protocol() {
    // A ServerHello of two bytes.
    let backend = Backend::that_answers(&[0x16, 0x03, 0x03, 0, 6, 2, 0, 0, 2, 3, 3]).await;
    let failure = failure(&lenient(PATIENT), backend.address).await;
    assert!(matches!(failure, Failure::TlsProtocol(_)), "{failure:?}");
}

#[tokio::test]
async fn a_record_beyond_the_limit_is_refused_at_once() {
    let backend = Backend::that_answers(&[0x16, 0x03, 0x03, 0xff, 0xff]).await;
    let failure = failure(&lenient(PATIENT), backend.address).await;
    assert!(matches!(failure, Failure::TlsProtocol(_)), "{failure:?}");
}

#[tokio::test]
async fn an_end_in_the_handshake_is_told_from_a_reset() {
    let closing = Backend::that(|mut stream| async move { hello(&mut stream).await }).await;
    assert_eq!(failure(&lenient(PATIENT), closing.address).await, Failure::Closed);

    let resetting = Backend::that(|mut stream| async move {
        hello(&mut stream).await;
        stream.set_zero_linger().unwrap();
    })
    .await;
    assert_eq!(failure(&lenient(PATIENT), resetting.address).await, Failure::Reset);
}

#[tokio::test]
async fn an_alert_is_told_by_its_name() {
    let backend = Backend::that_answers(&[0x15, 0x03, 0x03, 0, 2, 2, 70]).await;
    let failure = failure(&lenient(PATIENT), backend.address).await;
    assert_eq!(failure, Failure::TlsAlert(AlertDescription::ProtocolVersion));
    assert!(failure.to_string().contains("neither TLS 1.2 nor 1.3"), "{failure}");
}

#[tokio::test]
async fn an_old_version_is_incompatible() {
    // A ServerHello that chooses TLS 1.1.
    let mut answer = vec![0x16, 0x03, 0x02, 0, 42, 2, 0, 0, 38, 3, 2];
    answer.extend([7; 32]);
    answer.extend([0, 0xc0, 0x13, 0]);
    let backend = Backend::that_answers(Box::leak(answer.into_boxed_slice())).await;
    let failure = failure(&lenient(PATIENT), backend.address).await;
    assert!(matches!(failure, Failure::TlsIncompatible(_)), "{failure:?}");
}

#[tokio::test]
async fn a_wanted_client_certificate_fails_in_both_versions() {
    let ca = Ca::new();
    for version in ONE_VERSION {
        let identity = ca.issue(&certificate(&[NAME]));
        let backend =
            Backend::tls(Tls { versions: version, clients: Some(ca.roots()), ..Tls::with(identity) }).await;
        let outcome = trusting(&ca).run(backend.address).await.unwrap();
        assert_eq!(outcome.result, Err(Failure::TlsAlert(AlertDescription::CertificateRequired)));
        assert_eq!(outcome.certificate_expires, Some(day(2090, 1, 1)), "{version:?}");
    }
}

// What a probe shows of itself.

#[tokio::test]
async fn a_failed_probe_is_cut_off_on_both_sides() {
    let (sender, mut ends) = mpsc::channel(1);
    let backend = Backend::that(move |mut stream| {
        let sender = sender.clone();
        async move {
            hello(&mut stream).await;
            sender.send(stream.read(&mut [0; 64]).await.map_err(|error| error.kind())).await.unwrap();
        }
    })
    .await;
    assert_eq!(failure(&lenient(SHORT), backend.address).await, Failure::HandshakeTimeout);
    assert_eq!(ends.recv().await, Some(Err(io::ErrorKind::ConnectionReset)));
}

#[tokio::test]
async fn the_name_is_sent_and_an_address_is_not() {
    let ca = Ca::new();
    let mut backend = Backend::tls(Tls::with(ca.issue(&certificate(&[NAME, "127.0.0.1"])))).await;
    for (name, sni) in [(Some(NAME), Some(NAME)), (Some("127.0.0.1"), None), (None, None)] {
        let prober = prober(name, Verify::CaFile(ca.file()), PATIENT);
        assert_eq!(prober.run(backend.address).await.unwrap().result, Ok(()), "{name:?}");
        assert_eq!(backend.seen.recv().await.unwrap().sni.as_deref(), sni, "{name:?}");
    }
}

#[tokio::test]
async fn no_handshake_is_resumed() {
    let ca = Ca::new();
    let mut backend = Backend::tls(Tls::with(ca.issue(&certificate(&[NAME])))).await;
    let prober = trusting(&ca);
    for _ in 0..3 {
        assert_eq!(prober.run(backend.address).await.unwrap().result, Ok(()));
        assert_eq!(backend.seen.recv().await.unwrap().kind, Some(HandshakeKind::Full));
    }
}

#[tokio::test]
async fn a_good_probe_says_goodbye_and_leaves_nothing_here() {
    let ca = Ca::new();
    let mut backend = Backend::tls(Tls::with(ca.issue(&certificate(&[NAME])))).await;
    assert_eq!(trusting(&ca).run(backend.address).await.unwrap().result, Ok(()));
    let seen = backend.seen.recv().await.unwrap();
    assert!(seen.clean, "{seen:?}");
    // The last ACKs cross: poll, but TIME_WAIT of our end would be seen from the first look on.
    let deadline = Instant::now() + PATIENT;
    loop {
        match socket_state(seen.peer, backend.address) {
            None => break,
            Some(state) => assert_ne!(state, "06", "our end is in TIME_WAIT"),
        }
        assert!(Instant::now() < deadline, "our socket stays");
        tokio::task::yield_now().await;
    }
}

/// The kernel's state of the TCP socket with these ends, two hex digits.
fn socket_state(local: SocketAddr, remote: SocketAddr) -> Option<String> {
    let hex = |port: u16| format!(":{port:04X}");
    let sockets = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).find_map(|fields| {
        let ours = fields[1].ends_with(&hex(local.port())) && fields[2].ends_with(&hex(remote.port()));
        ours.then(|| fields[3].to_owned())
    })
}

// Whose fault.

#[test]
fn what_the_gateway_lacks_counts_against_nobody() {
    let theirs = [
        (Errno::CONNREFUSED, "refused"),
        (Errno::HOSTUNREACH, "unreachable"),
        (Errno::NETUNREACH, "unreachable"),
        (Errno::HOSTDOWN, "unreachable"),
        (Errno::NETDOWN, "unreachable"),
        (Errno::CONNRESET, "reset"),
        (Errno::PIPE, "closed"),
        (Errno::PROTO, "io"),
    ];
    for (errno, token) in theirs {
        for step in [Step::Connect, Step::Handshake, Step::Response] {
            match Mishap::from_io(&errno.into(), step) {
                Mishap::Backend(failure) => assert_eq!(failure.token(), token, "{errno:?}"),
                Mishap::Local(error) => panic!("{errno:?} is the backend's: {error}"),
            }
        }
    }
    let ours = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS, Errno::ADDRNOTAVAIL, Errno::PERM];
    for errno in ours {
        let mishap = Mishap::from_io(&errno.into(), Step::Connect);
        assert!(matches!(mishap, Mishap::Local(_)), "{errno:?}: {mishap:?}");
    }
}

#[test]
fn out_of_file_descriptors_is_a_local_fault() {
    let said = in_a_process_of_its_own(
        "out_of_file_descriptors_is_a_local_fault",
        ("BALANCER_TEST_FEW_FILES", "32"),
        |few| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let (_bound, target) = closed_port();
            let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
            limit.current = few.to_str().and_then(|few| few.parse().ok());
            rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
            let taken: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
            let fault = runtime.block_on(Prober::tcp(PATIENT).run(target)).unwrap_err();
            drop(taken);
            println!("{fault}");
            assert_eq!(runtime.block_on(failure(&Prober::tcp(PATIENT), target)), Failure::Refused);
        },
    );
    assert!(said.is_none_or(|said| said.contains("raise LimitNOFILE")));
}

/// Runs `test` for what belongs to a whole process (limits, environment): calls this test's own executable with the
/// variable set (and without what would name other roots), in which `body` runs with its value. Gives what the other
/// process said, and nothing inside it.
pub(crate) fn in_a_process_of_its_own(
    test: &str,
    (variable, value): (&str, &str),
    body: impl FnOnce(&OsStr),
) -> Option<String> {
    if std::env::var(INSIDE).is_ok_and(|inside| inside == test) {
        body(&std::env::var_os(variable).unwrap());
        return None;
    }
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args([test, "--nocapture"])
        .env_remove("SSL_CERT_DIR")
        .envs([(INSIDE, test), (variable, value)])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout).into_owned();
    let complaints = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success() && said.contains("1 passed"), "{said}{complaints}");
    Some(said)
}

#[test]
fn text_of_the_network_is_short_and_harmless() {
    let hostile = rustls::Error::General(format!("\x1b[2J\n{}", "x".repeat(100_000)));
    let error = io::Error::new(io::ErrorKind::InvalidData, hostile);
    let Mishap::Backend(failure) = Mishap::from_io(&error, Step::Handshake) else { panic!("not ours") };
    let told = failure.to_string();
    assert!(told.len() < 1000 && !told.contains(char::is_control), "{told}");
}

#[test]
fn a_probe_can_move_between_threads() {
    fn can_move<T: Send + 'static>(_: T) {}
    let prober = Prober::tcp(Duration::MAX);
    can_move(async move { prober.run(closed_port().1).await });
}
