//! The server over real connections, with a daemon that answers from a script.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::timeout;

use crate::config::Token;
use crate::control::protocol::{Command, Outcome, Record, Status, example};
use crate::control::server::{Asker, Request, Told};

use super::guard::LOOK;
use super::server::{
    CONNECTIONS, CONNECTIONS_FROM_ONE_PLACE, RECEIVE, SLOW, SUBSCRIBERS, SUBSCRIBERS_AT_ONE_PLACE, serve,
};

/// No test waits longer for anything.
const DEADLINE: Duration = Duration::from_secs(20);
const SECRET: &str = "correct-horse-battery";
/// Where one person is, and where others are.
const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const NEXT_DOOR: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const ABROAD: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));
const FOLLOW: &str = "GET /events HTTP/1.1\r\nHost: HERE\r\n\r\n";

/// A site on loopback; everything ends with it.
struct Stand {
    address: SocketAddr,
    serving: JoinHandle<()>,
    /// Whose questions are answered from a script, if there is one.
    daemon: Option<AbortHandle>,
    /// With which it acts.
    token: watch::Sender<Option<Token>>,
    /// Who hears of what happens.
    followers: Followers,
    /// What was wanted, and by whom.
    commands: Arc<Mutex<Vec<(Command, Asker)>>>,
}

type Followers = Arc<Mutex<Vec<mpsc::Sender<Arc<Record>>>>>;

impl Stand {
    async fn start(token: Option<&str>) -> Self {
        Self::showing(example::status(), token).await
    }

    async fn showing(status: Status, token: Option<&str>) -> Self {
        let (requests, asked) = mpsc::channel(64);
        let (followers, commands) = (Followers::default(), Arc::default());
        let answering = tokio::spawn(daemon(asked, status, followers.clone(), Arc::clone(&commands)));
        let mut stand = Self::with(requests, token, followers, commands).await;
        stand.daemon = Some(answering.abort_handle());
        stand
    }

    async fn with(
        requests: mpsc::Sender<Request>,
        token: Option<&str>,
        followers: Followers,
        commands: Arc<Mutex<Vec<(Command, Asker)>>>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (token, shown) = watch::channel(token.map(|token| Token::of(token.as_bytes())));
        let serving = tokio::spawn(serve(listener, requests, Arc::default(), shown));
        Self { address, serving, daemon: None, token, followers, commands }
    }

    /// A connection from this address.
    async fn connect(&self, from: IpAddr) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        socket.connect(self.address).await.unwrap()
    }

    async fn send(&self, request: &str) -> TcpStream {
        self.send_from(HOME, request).await.unwrap()
    }

    /// An error: it was closed at once.
    async fn send_from(&self, from: IpAddr, request: &str) -> io::Result<TcpStream> {
        let mut stream = self.connect(from).await;
        stream.write_all(request.replace("HERE", &self.address.to_string()).as_bytes()).await?;
        Ok(stream)
    }

    /// The first line of the answer; empty if it was closed at once.
    async fn status_for(&self, from: IpAddr, request: &str) -> String {
        let Ok(mut stream) = self.send_from(from, request).await else { return String::new() };
        let mut text = [0; 12];
        let read = timeout(DEADLINE, stream.read_exact(&mut text)).await.expect("an answer, or an end");
        read.map_or(String::new(), |_| String::from_utf8_lossy(&text).into_owned())
    }

    /// All that is answered.
    async fn said(&self, request: &str) -> String {
        let mut text = String::new();
        let mut stream = self.send(request).await;
        timeout(DEADLINE, stream.read_to_string(&mut text)).await.expect("an answer").unwrap();
        text
    }

    /// The status of the answer to a command.
    async fn posted(&self, path: &str, headers: &str, body: &str) -> String {
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: HERE\r\nContent-Type: application/json\r\n{headers}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let said = self.said(&request).await;
        said.split(' ').nth(1).unwrap_or_default().to_owned()
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn daemon(
    mut asked: mpsc::Receiver<Request>,
    status: Status,
    followers: Followers,
    commands: Arc<Mutex<Vec<(Command, Asker)>>>,
) {
    while let Some(request) = asked.recv().await {
        match request {
            Request::Picture(reply) => drop(reply.send((status.clone(), example::stats()))),
            Request::Events(_, reply) => {
                let (follower, live) = mpsc::channel(8);
                followers.lock().unwrap().push(follower);
                let events = example::events();
                drop(reply.send(Ok(Told { as_of: events.as_of, past: events.events, live: Some(live) })));
            }
            Request::Command(command, asker, reply) => {
                commands.lock().unwrap().push((command, asker));
                let message = "done".to_owned();
                drop(reply.send(Ok(Outcome { changed: true, active: None, message })));
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Reads on until the text has these words.
async fn read_until(stream: &mut TcpStream, text: &mut String, words: &str) {
    let reading = async {
        let mut bytes = [0; 4096];
        while !text.contains(words) {
            let length = stream.read(&mut bytes).await.unwrap();
            assert!(length > 0, "it ended before {words}: {text}");
            text.push_str(&String::from_utf8_lossy(&bytes[..length]));
        }
    };
    let is_there = timeout(DEADLINE, reading).await;
    assert!(is_there.is_ok(), "no {words} in {text}");
}

#[tokio::test]
async fn a_scrape_is_answered_whatever_the_host_is_called_and_the_connection_closed() {
    let stand = Stand::start(None).await;
    let text = stand.said("GET /metrics?x=1 HTTP/1.1\r\nHost: gateway:9464\r\n\r\n").await;
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    assert!(text.contains("content-type: application/openmetrics-text"), "{text}");
    assert!(text.contains("\nbalancer_backend_up{") && text.ends_with("# EOF\n"), "{text}");
}

#[tokio::test]
async fn the_page_comes_with_its_first_picture_and_may_load_nothing() {
    let stand = Stand::start(None).await;
    let text = stand.said("GET / HTTP/1.1\r\nHost: HERE\r\n\r\n").await;
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    for header in [
        "content-security-policy: default-src 'none'; script-src 'nonce-",
        "frame-ancestors 'none'",
        "x-content-type-options: nosniff",
        "cache-control: no-store",
        "x-frame-options: DENY",
    ] {
        assert!(text.split("\r\n\r\n").next().unwrap().contains(header), "{header} in {text}");
    }
    assert!(
        text.contains(r#""schema":"balancer.status/1""#) && text.contains(r#""may_act":false"#),
        "{text}"
    );
    let nonce = text.split("'nonce-").nth(1).unwrap().split('\'').next().unwrap();
    assert_eq!(text.matches(&format!("nonce=\"{nonce}\"")).count(), 2, "{nonce}");
    assert!(!text.contains("{{"), "a place was left empty");
}

#[tokio::test]
async fn anything_else_is_refused_with_the_same_care() {
    let stand = Stand::start(None).await;
    for (request, status) in [
        ("GET /favicon.ico HTTP/1.1\r\nHost: HERE\r\n\r\n", "404"),
        ("POST /metrics HTTP/1.1\r\nHost: g\r\nContent-Length: 0\r\n\r\n", "405"),
        ("POST / HTTP/1.1\r\nHost: HERE\r\nContent-Length: 0\r\n\r\n", "405"),
        ("GET /v1/failover HTTP/1.1\r\nHost: HERE\r\n\r\n", "405"),
        ("OPTIONS /v1/failover HTTP/1.1\r\nHost: HERE\r\n\r\n", "405"),
        ("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", "421"),
        ("GET /events HTTP/1.1\r\nHost: evil.example\r\n\r\n", "421"),
        ("GET / HTTP/1.1\r\nHost: HERE\r\nHost: HERE\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\n\r\n", "400"),
        ("nonsense\r\n\r\n", "400"),
    ] {
        let text = stand.said(request).await;
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {text}");
        let is_ours = request != "nonsense\r\n\r\n";
        assert!(!is_ours || text.contains("x-content-type-options: nosniff"), "{request:?}: {text}");
    }
    let (requests, asked) = mpsc::channel(4);
    drop(asked);
    let dead = Stand::with(requests, None, Followers::default(), Arc::default()).await;
    for path in ["/metrics", "/"] {
        let text = dead.said(&format!("GET {path} HTTP/1.1\r\nHost: HERE\r\n\r\n")).await;
        assert!(text.starts_with("HTTP/1.1 503 "), "{path}: {text}");
    }
}

#[tokio::test]
async fn who_follows_gets_what_there_is_and_at_once_what_happens() {
    let stand = Stand::start(None).await;
    let mut stream = stand.send("GET /events HTTP/1.1\r\nHost: HERE\r\n\r\n").await;
    let mut text = String::new();
    read_until(&mut stream, &mut text, "event: state").await;
    assert!(text.contains("content-type: text/event-stream") && text.contains("event: news"), "{text}");
    read_until(&mut stream, &mut text, "\n\n").await;
    text.clear();
    let record =
        Record { id: 43, evidence: Some("at 192.0.2.7:1".to_owned()), ..example::events().events[0].clone() };
    let follower = stand.followers.lock().unwrap()[0].clone();
    follower.send(Arc::new(record)).await.unwrap();
    read_until(&mut stream, &mut text, "\"id\":43").await;
    assert!(text.contains("at (an address)") && !text.contains("192.0.2.7"), "{text}");
    text.clear();
    // Nothing happened since: what did isn't sent once more.
    read_until(&mut stream, &mut text, "event: state").await;
    read_until(&mut stream, &mut text, "\n\n").await;
    assert!(!text.contains("event: news"), "{text}");
}

#[tokio::test]
async fn who_follows_sees_the_end_when_the_dashboard_or_its_daemon_ends() {
    for whose in ["the dashboard", "the daemon"] {
        let stand = Stand::start(None).await;
        let mut stream = stand.send(FOLLOW).await;
        read_until(&mut stream, &mut String::new(), "event: state").await;
        match &stand.daemon {
            Some(daemon) if whose == "the daemon" => daemon.abort(),
            _ => stand.serving.abort(),
        }
        let end = timeout(SLOW / 3, stream.read_to_end(&mut Vec::new())).await;
        assert!(end.is_ok(), "it goes on after the end of {whose}");
    }
}

#[tokio::test]
async fn a_gap_in_what_happened_is_filled() {
    let stand = Stand::start(None).await;
    let mut stream = stand.send("GET /events HTTP/1.1\r\nHost: HERE\r\n\r\n").await;
    read_until(&mut stream, &mut String::new(), "event: state").await;
    let follower = stand.followers.lock().unwrap()[0].clone();
    let missed = Record { id: 50, ..example::events().events[0].clone() };
    follower.send(Arc::new(missed)).await.unwrap();
    read_until(&mut stream, &mut String::new(), "event: news").await;
    assert_eq!(stand.followers.lock().unwrap().len(), 2, "it was asked for once more");
}

#[tokio::test]
async fn open_dashboards_are_bounded_at_one_place_and_at_all_and_keep_no_scrape_out() {
    let stand = Stand::start(None).await;
    let mut open = Vec::new();
    for from in [HOME, NEXT_DOOR] {
        for _ in 0..SUBSCRIBERS_AT_ONE_PLACE {
            let mut stream = stand.send_from(from, FOLLOW).await.unwrap();
            read_until(&mut stream, &mut String::new(), "event: state").await;
            open.push(stream);
        }
        if from == HOME {
            let text = stand.said(FOLLOW).await;
            assert!(text.starts_with("HTTP/1.1 429 ") && text.contains("at your address"), "{text}");
        }
    }
    assert_eq!(open.len(), SUBSCRIBERS);
    assert_eq!(stand.status_for(ABROAD, FOLLOW).await, "HTTP/1.1 503");
    let text = stand.said("GET /metrics HTTP/1.1\r\nHost: HERE\r\n\r\n").await;
    assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
    open.pop();
    let again = async {
        while stand.status_for(ABROAD, FOLLOW).await != "HTTP/1.1 200" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(DEADLINE, again).await.expect("who leaves makes place");
}

#[tokio::test]
async fn one_that_takes_nothing_is_dropped() {
    // More than all buffers between hold.
    let mut status = example::status();
    let backend = status.pools[0].backends[0].clone();
    status.pools[0].backends = vec![backend; 40_000];
    let stand = Stand::showing(status, None).await;
    let mut stream = stand.send("GET /events HTTP/1.1\r\nHost: HERE\r\n\r\n").await;
    tokio::time::sleep(SLOW + Duration::from_secs(2)).await;
    let mut left = Vec::new();
    let end = timeout(DEADLINE, stream.read_to_end(&mut left)).await;
    assert!(end.is_ok(), "it goes on after {} bytes", left.len());
}

#[tokio::test]
async fn idle_connections_of_one_place_keep_nobody_out_who_comes_from_elsewhere() {
    let stand = Stand::start(None).await;
    let request = "GET /x HTTP/1.1\r\nHost: HERE\r\n\r\n";
    let mut idle = Vec::new();
    for _ in 0..2 * CONNECTIONS {
        idle.push(stand.connect(HOME).await);
    }
    let answered = timeout(RECEIVE / 2, stand.status_for(NEXT_DOOR, request)).await;
    assert_eq!(answered.expect("an answer before the idle ones' time is over"), "HTTP/1.1 404");
    assert_eq!(stand.status_for(HOME, request).await, "", "it is closed at once");
    let again = async {
        while stand.status_for(HOME, request).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(2 * RECEIVE, again).await.expect("idle ones have their time, and not more");
}

#[tokio::test]
async fn idle_connections_from_many_places_keep_nobody_out_for_long() {
    let stand = Stand::start(None).await;
    let mut idle = Vec::new();
    for from in [HOME, NEXT_DOOR] {
        for _ in 0..CONNECTIONS_FROM_ONE_PLACE {
            idle.push(stand.connect(from).await);
        }
    }
    let request = "GET /x HTTP/1.1\r\nHost: HERE\r\n\r\n";
    let status = timeout(2 * RECEIVE, stand.status_for(ABROAD, request)).await;
    assert_eq!(status.expect("idle ones have their time first"), "HTTP/1.1 404");
}

#[tokio::test]
async fn nothing_is_done_without_a_token_file() {
    let stand = Stand::start(None).await;
    let shown = format!("X-Balancer-Dashboard: 1\r\nAuthorization: Bearer {SECRET}\r\n");
    assert_eq!(stand.posted("/v1/failover", &shown, r#"{"pool":"p"}"#).await, "403");
    assert!(stand.commands.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_open_page_learns_that_a_token_comes_and_goes() {
    let stand = Stand::start(None).await;
    let page = stand.said("GET / HTTP/1.1\r\nHost: HERE\r\n\r\n").await;
    assert_eq!(page.matches("\"may_act\":").count(), 1, "with the first picture: {page}");
    let (mut stream, mut text) = (stand.send(FOLLOW).await, String::new());
    read_until(&mut stream, &mut text, "\"may_act\":false").await;
    for (token, told) in [(Some(SECRET), "\"may_act\":true"), (None, "\"may_act\":false")] {
        stand.token.send_replace(token.map(|token| Token::of(token.as_bytes())));
        text.clear();
        read_until(&mut stream, &mut text, told).await;
    }
}

#[tokio::test]
async fn a_command_is_carried_out_for_the_page_with_the_token_and_for_nobody_else() {
    let stand = Stand::start(Some(SECRET)).await;
    let (mark, token) = ("X-Balancer-Dashboard: 1\r\n", format!("Authorization: Bearer {SECRET}\r\n"));
    let body = r#"{"pool":"p","to":"b","no_wait":true}"#;
    for (headers, status) in [
        (mark.to_owned(), "401"),
        (token.clone(), "403"),
        (format!("{mark}{token}Origin: http://evil.example\r\n"), "403"),
        (format!("{mark}{token}Sec-Fetch-Site: cross-site\r\n"), "403"),
        (format!("{mark}Authorization: Bearer {SECRET}x\r\n"), "401"),
    ] {
        assert_eq!(stand.posted("/v1/failover", &headers, body).await, status, "{headers}");
    }
    let good = format!("{mark}{token}Origin: http://HERE\r\nSec-Fetch-Site: same-origin\r\n");
    assert_eq!(stand.posted("/v1/failover", &good, "{\"pool\":\"p\",\"x\":1}").await, "400");
    assert_eq!(stand.posted("/v1/failover", &good, &"x".repeat(5000)).await, "400");
    assert_eq!(stand.posted("/v1/resume", &good, "{}").await, "404");
    assert!(stand.commands.lock().unwrap().is_empty());
    assert_eq!(stand.posted("/v1/token", &good, "").await, "204");
    assert_eq!(stand.posted("/v1/failover", &good, body).await, "200");
    let commands = stand.commands.lock().unwrap();
    let [(Command::Failover(failover), Asker::Dashboard(peer))] = &commands[..] else {
        panic!("{commands:?}")
    };
    assert_eq!(failover.to.as_deref(), Some("b"));
    assert!(peer.ip().is_loopback());
}

#[tokio::test]
async fn guesses_are_slow_and_whoever_has_the_token_gets_through_between_them() {
    let stand = Stand::start(Some(SECRET)).await;
    let shown = |token: &str| format!("X-Balancer-Dashboard: 1\r\nAuthorization: Bearer {token}\r\n");
    for guess in 0..5 {
        assert_eq!(stand.posted("/v1/token", &shown(&format!("guess{guess}")), "").await, "401");
    }
    let begun = Instant::now();
    let guesses = ["guess5", "guess6", "guess7"].map(shown);
    let guesses = guesses.iter().map(|shown| stand.posted("/v1/token", shown, ""));
    let right = async { (stand.posted("/v1/token", &shown(SECRET), "").await, begun.elapsed()) };
    let (statuses, (status, took)) = tokio::join!(join_all(guesses), right);
    assert_eq!(statuses, ["401"; 3]);
    assert_eq!(status, "204");
    assert!(begun.elapsed() >= 4 * LOOK, "they take turns");
    assert!(took >= LOOK, "whether it is the right one shows only when it is looked at");
}

#[tokio::test]
async fn who_comes_from_elsewhere_does_not_wait_for_guesses() {
    let stand = Stand::start(Some(SECRET)).await;
    let post = |token: &str| {
        format!(
            "POST /v1/token HTTP/1.1\r\nHost: HERE\r\nX-Balancer-Dashboard: 1\r\nAuthorization: Bearer {token}\r\n\
             Content-Length: 0\r\n\r\n"
        )
    };
    for _ in 0..5 {
        assert_eq!(stand.status_for(HOME, &post("guess")).await, "HTTP/1.1 401");
    }
    let begun = Instant::now();
    let (guess, right) = (post("guess"), post(SECRET));
    let elsewhere = async { (stand.status_for(NEXT_DOOR, &right).await, begun.elapsed()) };
    let (guess, (status, took)) = tokio::join!(stand.status_for(HOME, &guess), elsewhere);
    let guessed = begun.elapsed();
    assert_eq!((guess.as_str(), status.as_str()), ("HTTP/1.1 401", "HTTP/1.1 204"));
    assert!(took < guessed && guessed >= LOOK, "{took:?}, and the guess {guessed:?}");
}
