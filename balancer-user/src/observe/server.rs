//! Hands `/metrics` out over HTTP, to whoever can reach the address that the operator chose.
//!
//! Whoever asks is a stranger: few at a time, one request each, and little time for it. What is answered comes from the
//! daemon's loop, by the same questions that the control socket asks.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request as HttpRequest, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use crate::control::server::Request;

use super::metrics::{self, CONTENT_TYPE as OPEN_METRICS};
use super::tallies::Tallies;

/// Some scrapers, and who looks by hand; the others wait in the kernel's backlog.
const CONNECTIONS: usize = 8;
/// For a request to arrive.
const RECEIVE: Duration = Duration::from_secs(5);
/// For one connection, from its first byte to its last: a scrape's own limit is 10 s by default.
const WHOLE: Duration = Duration::from_secs(20);
/// For the daemon's loop to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// A request line and headers.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// How long to wait when the kernel has no descriptor for a new connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until it is aborted.
pub async fn serve(listener: TcpListener, requests: mpsc::Sender<Request>, tallies: Arc<Tallies>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    // Closed never.
    while let Ok(place) = places.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (requests, tallies) = (requests.clone(), tallies.clone());
                tokio::spawn(async move {
                    // A client that is too slow, or breaks off, is its own affair.
                    let _ = timeout(WHOLE, attend(stream, requests, tallies)).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(event = "http", %error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn attend(stream: TcpStream, requests: mpsc::Sender<Request>, tallies: Arc<Tallies>) {
    let service = service_fn(async |request: HttpRequest<hyper::body::Incoming>| {
        let path = request.uri().path().to_owned();
        Ok::<_, Infallible>(respond(request.method(), &path, &requests, &tallies).await)
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(RECEIVE)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(event = "http", %error, "a connection ended early");
    }
}

async fn respond(
    method: &Method,
    path: &str,
    requests: &mpsc::Sender<Request>,
    tallies: &Arc<Tallies>,
) -> Response<Full<Bytes>> {
    if path != "/metrics" {
        return answer(StatusCode::NOT_FOUND, "there is only /metrics here\n");
    }
    if method != Method::GET && method != Method::HEAD {
        let mut refusal =
            answer(StatusCode::METHOD_NOT_ALLOWED, "GET reads it; nothing can be changed here\n");
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refusal;
    }
    let asked = async {
        let status = ask(requests, Request::Status).await?;
        let stats = ask(requests, Request::Stats).await?;
        let tallies = tallies.clone();
        // Of thousands of backends that takes its time, and the loop has none.
        spawn_blocking(move || metrics::render(status, stats, &tallies).ok()).await.ok()?
    };
    let Ok(Some(text)) = timeout(ANSWER, asked).await else {
        return answer(StatusCode::SERVICE_UNAVAILABLE, "the daemon is starting, stopping or stuck\n");
    };
    let mut response = Response::new(Full::new(text.into()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(OPEN_METRICS));
    response
}

/// One question to the daemon's loop; none: it is not there any more.
async fn ask<T>(
    requests: &mpsc::Sender<Request>,
    question: impl FnOnce(oneshot::Sender<T>) -> Request,
) -> Option<T> {
    let (reply, answer) = oneshot::channel();
    requests.send(question(reply)).await.ok()?;
    answer.await.ok()
}

fn answer(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use crate::control::protocol::example;

    use super::*;

    /// What is answered to this, by a daemon whose loop answers or, without one, doesn't.
    async fn said(request: &str, loop_answers: bool) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (requests, mut asked) = mpsc::channel(4);
        let serving = tokio::spawn(serve(listener, requests, Arc::default()));
        if loop_answers {
            tokio::spawn(async move {
                while let Some(request) = asked.recv().await {
                    match request {
                        Request::Status(reply) => drop(reply.send(example::status())),
                        Request::Stats(reply) => drop(reply.send(example::stats())),
                        other => panic!("{other:?}"),
                    }
                }
            });
        } else {
            drop(asked);
        }
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        serving.abort();
        text
    }

    #[tokio::test]
    async fn a_scrape_is_answered_and_the_connection_closed() {
        let text = said("GET /metrics?x=1 HTTP/1.1\r\nHost: gateway:9464\r\n\r\n", true).await;
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        assert!(text.contains(&format!("content-type: {OPEN_METRICS}\r\n")), "{text}");
        assert!(text.contains("\nbalancer_backend_up{") && text.ends_with("# EOF\n"), "{text}");
    }

    #[tokio::test]
    async fn anything_else_is_refused() {
        for (request, status) in [
            ("GET / HTTP/1.1\r\nHost: g\r\n\r\n", "404"),
            ("POST /metrics HTTP/1.1\r\nHost: g\r\nContent-Length: 0\r\n\r\n", "405"),
            ("nonsense\r\n\r\n", "400"),
        ] {
            let text = said(request, true).await;
            assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {text}");
        }
        let text = said("GET /metrics HTTP/1.1\r\nHost: g\r\n\r\n", false).await;
        assert!(text.starts_with("HTTP/1.1 503 "), "{text}");
    }

    #[tokio::test]
    async fn idle_connections_keep_nobody_out_for_long() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (requests, _asked) = mpsc::channel(4);
        let serving = tokio::spawn(serve(listener, requests, Arc::default()));
        let mut idle = Vec::new();
        for _ in 0..2 * CONNECTIONS {
            idle.push(TcpStream::connect(address).await.unwrap());
        }
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: g\r\n\r\n").await.unwrap();
        let mut text = String::new();
        // Two rounds of idle ones have their time first.
        timeout(3 * RECEIVE, stream.read_to_string(&mut text)).await.unwrap().unwrap();
        assert!(text.starts_with("HTTP/1.1 404 "), "{text}");
        serving.abort();
    }
}
