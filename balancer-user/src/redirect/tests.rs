//! The sockets, on loopback.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

/// No test waits longer for anything.
const DEADLINE: Duration = Duration::from_secs(20);

/// A listener on a port of its own.
async fn bound() -> (SocketAddr, BTreeMap<SocketAddr, TcpListener>) {
    let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    (address, BTreeMap::from([(address, listener)]))
}

fn leads_to(address: SocketAddr, host: &str) -> BTreeMap<SocketAddr, Target> {
    let target = Target::new(&[host.to_owned()], "203.0.113.10:443".parse().unwrap());
    BTreeMap::from([(address, target)])
}

/// All that is answered; what the connection ends with doesn't matter.
async fn said(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let _ = stream.write_all(request.as_bytes()).await;
    let mut text = Vec::new();
    let _ = timeout(DEADLINE, stream.read_to_end(&mut text)).await.expect("an end");
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn one_request_is_answered_and_the_connection_closed() {
    let (address, listeners) = bound().await;
    let mut redirects = Redirects::default();
    redirects.become_these(leads_to(address, "a.example"), listeners);
    let twice = "GET /one HTTP/1.1\r\nHost: a.example\r\n\r\nGET /two HTTP/1.1\r\nHost: a.example\r\n\r\n";
    let text = said(address, twice).await;
    assert!(text.starts_with("HTTP/1.1 301 Moved Permanently\r\n"), "{text}");
    assert!(text.contains("location: https://a.example/one\r\n") && !text.contains("two"), "{text}");
    let post =
        format!("POST /p HTTP/1.1\r\nHost: a.example\r\nContent-Length: 20000\r\n\r\n{}", "x".repeat(20_000));
    let text = said(address, &post).await;
    assert!(text.contains("308") && text.contains("location: https://a.example/p\r\n"), "{text}");
}

#[tokio::test]
async fn what_is_wrong_is_told_by_its_status() {
    let (address, listeners) = bound().await;
    let mut redirects = Redirects::default();
    redirects.become_these(leads_to(address, "a.example"), listeners);
    let long = "x".repeat(9000);
    for (request, status) in [
        ("nonsense\r\n\r\n".to_owned(), "400"),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), "400"),
        ("GET /a\u{1}b HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), "400"),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n".to_owned(), "400"),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx".to_owned(), "400"),
        (format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), "414"),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}{long}\r\n\r\n"), "431"),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(200)), "431"),
    ] {
        let text = said(address, &request).await;
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{request:.60}: {text}");
    }
}

#[tokio::test]
async fn they_come_change_and_go() {
    let (address, listeners) = bound().await;
    let mut redirects = Redirects::default();
    redirects.become_these(leads_to(address, "a.example"), listeners);
    redirects.become_these(leads_to(address, "b.example"), BTreeMap::new());
    let text = said(address, "GET / HTTP/1.0\r\n\r\n").await;
    assert!(text.contains("location: https://b.example/\r\n"), "{text}");
    redirects.become_these(BTreeMap::new(), BTreeMap::new());
    let gone = async {
        while TcpStream::connect(address).await.is_ok() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(DEADLINE, gone).await.expect("nobody listens any more");
}

#[tokio::test]
async fn one_that_can_not_be_bound_is_told_and_tried_again() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let mut redirects = Redirects::default();
    redirects.become_these(leads_to(address, "a.example"), BTreeMap::new());
    let [(problem, why)] = redirects.problems().collect::<Vec<_>>()[..] else { panic!("{redirects:?}") };
    assert!(problem == address && why.contains("in use"), "{why}");
    drop(taken);
    redirects.try_again();
    assert_eq!((redirects.problems().count(), redirects.addresses().count()), (0, 1));
    assert!(said(address, "GET / HTTP/1.0\r\n\r\n").await.contains("301"));
}

#[tokio::test]
async fn an_address_of_another_machine_can_be_bound() {
    for address in ["192.0.2.1:0", "[2001:db8::1]:0"] {
        bind(address.parse().unwrap()).unwrap_or_else(|error| panic!("{address}: {error}"));
    }
}

#[tokio::test]
async fn one_place_can_not_have_all_connections() {
    let (address, listeners) = bound().await;
    let mut redirects = Redirects::default();
    redirects.become_these(leads_to(address, "a.example"), listeners);
    let mut idle = Vec::new();
    for _ in 0..FROM_ONE_PLACE {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    assert_eq!(said(address, "GET / HTTP/1.0\r\n\r\n").await, "", "it is closed at once");
    drop(idle);
    let again = async {
        while !said(address, "GET / HTTP/1.0\r\n\r\n").await.contains("301") {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(DEADLINE, again).await.expect("who leaves makes place");
}
