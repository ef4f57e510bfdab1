//! Hands the dashboard and `/metrics` out over HTTP, to whoever can reach the address that the operator chose.
//!
//! Whoever asks is a stranger: one request a connection, and little time for it. Those who follow the pictures have places of
//! their own, so that open dashboards never keep a scrape out; one that doesn't take what it is sent is dropped. Of both
//! kinds of places nobody has more than half, wherever he comes from. What is
//! answered comes from the daemon's loop, by the same questions that the control socket asks.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request as HttpRequest, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::config::Token;
use crate::control::protocol::ErrorBody;
use crate::control::server::Request;
use crate::crowd::{Crowd, Crowded, Guest};
use crate::panics::{alone, alone_in_a_thread};

use super::act;
use super::board::{Board, ask};
use super::guard::{self, Guesses, Refusal};
use super::metrics::{self, CONTENT_TYPE as OPEN_METRICS};
use super::page;
use super::tallies::Tallies;

/// Requests at once: scrapers, pages that are loaded, and what browsers open in advance; the others wait in the kernel's
/// backlog.
pub(super) const CONNECTIONS: usize = 32;
/// Of them from one place: two browsers that load the page anew, six connections each, and a scraper.
pub(super) const CONNECTIONS_FROM_ONE_PLACE: usize = CONNECTIONS / 2;
/// Dashboards that are open.
pub(super) const SUBSCRIBERS: usize = 64;
/// Of them at one place: all who come by ssh are at one.
pub(super) const SUBSCRIBERS_AT_ONE_PLACE: usize = SUBSCRIBERS / 2;
/// For a request's head to arrive.
pub(super) const RECEIVE: Duration = Duration::from_secs(5);
/// For one connection, from its first byte to its last: a scrape's own limit is 10 s by default. Not for those who follow.
const WHOLE: Duration = Duration::from_secs(20);
/// Who follows, and has had no room for a picture for so long, is gone or too slow: there is one every second.
pub(super) const SLOW: Duration = Duration::from_secs(15);
/// For the daemon's loop to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// A request line and headers.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// How long to wait when the kernel has no descriptor for a new connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The body of any answer.
type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What all connections share.
pub(super) struct Site {
    pub(super) requests: mpsc::Sender<Request>,
    token: watch::Receiver<Option<Token>>,
    tallies: Arc<Tallies>,
    board: Board,
    guesses: Mutex<Guesses>,
    subscribers: Crowd,
}

impl Site {
    /// What whoever wants to act has to show now.
    pub(super) fn token(&self) -> Option<Token> {
        self.token.borrow().clone()
    }

    pub(super) fn guesses(&self) -> MutexGuard<'_, Guesses> {
        // Each change is whole, whatever became of who made it.
        self.guesses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves until it is aborted. `token`: as long as there is one the dashboard may act.
pub async fn serve(
    listener: TcpListener,
    requests: mpsc::Sender<Request>,
    tallies: Arc<Tallies>,
    token: watch::Receiver<Option<Token>>,
) {
    let (board, making) = Board::new(requests.clone(), token.clone());
    let subscribers = Crowd::new(SUBSCRIBERS, SUBSCRIBERS_AT_ONE_PLACE);
    let site = Arc::new(Site { requests, token, tallies, board, guesses: Mutex::default(), subscribers });
    tokio::join!(making, accept(listener, site));
}

async fn accept(listener: TcpListener, site: Arc<Site>) {
    let crowd = Crowd::new(CONNECTIONS, CONNECTIONS_FROM_ONE_PLACE);
    // They end with this: nobody acts any more through a dashboard that is gone.
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                while connections.try_join_next().is_some() {}
                let Some(guest) = crowd.admit(peer.ip()).await else { continue };
                connections.spawn(alone(attend(stream, peer, guest, site.clone())));
            }
            Err(error) => {
                tracing::warn!(event = "http", %error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Until when a connection may last, and in which crowd it is.
struct Stay {
    until: watch::Sender<Instant>,
    guest: Mutex<Guest>,
}

impl Stay {
    fn exchange(&self, guest: Guest) {
        *self.guest.lock().unwrap_or_else(PoisonError::into_inner) = guest;
    }
}

/// One connection, from its first byte to its last. Whoever is too slow, or breaks off, has that to himself.
async fn attend(stream: TcpStream, peer: SocketAddr, guest: Guest, site: Arc<Site>) {
    let Ok(local) = stream.local_addr() else { return };
    let (until, mut ends) = watch::channel(Instant::now() + WHOLE);
    let stay = Arc::new(Stay { until, guest: Mutex::new(guest) });
    let service = service_fn(async |request: HttpRequest<Incoming>| {
        let mut response = respond(request, (local, peer), &site, &stay).await;
        page::harden(response.headers_mut());
        Ok::<_, Infallible>(response)
    });
    let mut connection = pin!(
        http1::Builder::new()
            .keep_alive(false)
            .timer(TokioTimer::new())
            .header_read_timeout(RECEIVE)
            .max_buf_size(MAX_HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service)
    );
    loop {
        let end = *ends.borrow_and_update();
        tokio::select! {
            ended = &mut connection => {
                if let Err(error) = ended {
                    tracing::debug!(event = "http", %error, "a connection ended early");
                }
                return;
            }
            () = sleep_until(end) => return,
            // Who sends it lives as long as this.
            _ = ends.changed() => {}
        }
    }
}

async fn respond(
    request: HttpRequest<Incoming>,
    (local, peer): (SocketAddr, SocketAddr),
    site: &Arc<Site>,
    stay: &Arc<Stay>,
) -> Response<Body> {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    // Scrapers know gateways by name; there is nothing in it that is anybody's alone.
    if path == "/metrics" {
        return or_refusal(reads(&head.method), async || scrape(site).await).await;
    }
    let host = match guard::host(&head, local.ip()) {
        Ok(host) => host.to_owned(),
        Err(refusal) => return refused(refusal),
    };
    match path.as_str() {
        "/" => or_refusal(reads(&head.method), async || show(site).await).await,
        "/events" => or_refusal(reads(&head.method), async || follow(site, peer.ip(), stay)).await,
        path if act::is_place(path) => match act::act((head, body), &host, peer, site).await {
            Ok(None) => {
                let mut nothing = Response::new(Full::default().boxed_unsync());
                *nothing.status_mut() = StatusCode::NO_CONTENT;
                nothing
            }
            // A struct of two texts and a flag.
            Ok(Some(outcome)) => json(StatusCode::OK, serde_json::to_vec(&outcome).unwrap_or_default()),
            Err(refusal) => refused(refusal),
        },
        _ => refused(Refusal::new(StatusCode::NOT_FOUND, "there are the dashboard at / and /metrics here")),
    }
}

async fn or_refusal(
    allowed: Result<(), Refusal>,
    answer: impl AsyncFnOnce() -> Result<Response<Body>, Refusal>,
) -> Response<Body> {
    let answered = match allowed {
        Ok(()) => answer().await,
        Err(refusal) => Err(refusal),
    };
    answered.unwrap_or_else(refused)
}

fn reads(method: &Method) -> Result<(), Refusal> {
    if method == Method::GET || method == Method::HEAD {
        return Ok(());
    }
    Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "this is read, by GET"))
}

fn silent() -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the daemon is starting, stopping or stuck")
}

async fn scrape(site: &Site) -> Result<Response<Body>, Refusal> {
    let asked = async {
        let (status, stats) = ask(&site.requests, Request::Picture).await?;
        let tallies = site.tallies.clone();
        // Of thousands of backends that takes its time, and the loop has none.
        spawn_blocking(alone_in_a_thread(move || metrics::render(status, stats, &tallies).ok())).await.ok()?
    };
    let text = timeout(ANSWER, asked).await.ok().flatten().ok_or_else(silent)?;
    Ok(response(StatusCode::OK, OPEN_METRICS, text))
}

async fn show(site: &Site) -> Result<Response<Body>, Refusal> {
    let shot = site.board.shot().await.ok_or_else(silent)?;
    let (page, policy) = page::page(&shot);
    let mut response = response(StatusCode::OK, "text/html; charset=utf-8", page);
    // Made of letters, digits and signs.
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    }
    Ok(response)
}

/// Takes one of the places of those who follow, and gives its own back.
fn follow(site: &Site, peer: IpAddr, stay: &Arc<Stay>) -> Result<Response<Body>, Refusal> {
    let guest = site.subscribers.admit_now(peer).map_err(|crowded| match crowded {
        Crowded::Everywhere => {
            let words = format!("{SUBSCRIBERS} dashboards are open already");
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, words)
        }
        Crowded::There => {
            let words = format!("{SUBSCRIBERS_AT_ONE_PLACE} dashboards are open already at your address");
            Refusal::new(StatusCode::TOO_MANY_REQUESTS, words)
        }
    })?;
    stay.exchange(guest);
    stay.until.send_replace(Instant::now() + SLOW);
    let until = stay.until.clone();
    let pictures = site.board.stream(move || {
        until.send_replace(Instant::now() + SLOW);
    });
    let mut response = Response::new(StreamBody::new(pictures).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    Ok(response)
}

fn refused(Refusal { status, words }: Refusal) -> Response<Body> {
    let text = serde_json::to_vec(&ErrorBody { error: words }).unwrap_or_default();
    let mut response = json(status, text);
    let advice = match status {
        StatusCode::METHOD_NOT_ALLOWED => Some((ALLOW, "GET, HEAD, POST")),
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => Some((RETRY_AFTER, "5")),
        _ => None,
    };
    if let Some((name, value)) = advice {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn json(status: StatusCode, text: Vec<u8>) -> Response<Body> {
    response(status, "application/json", text)
}

fn response(status: StatusCode, kind: &'static str, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(text.into()).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
