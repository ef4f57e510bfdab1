//! One HTTP/1.1 request over a connection that stands, and what its answer must be like.
//!
//! hyper speaks the protocol; bounds are here. Informational answers (1xx) are skipped. A body is read only when
//! something is to be found in it, and only until it is found: a page that never ends may still be a good one. What is not
//! read is left to the goodbye.
//!
//! Memory: a head of 16 KiB at most, and 64 KiB of a body; beyond them nothing is read.
//!
//! Deliberately not here: opening and leaving the connection, redirects (an answer like any other), HTTP/2.

use std::future::poll_fn;
use std::net::{Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::pin::pin;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::header::{ACCEPT, CONNECTION, HOST, HeaderValue, USER_AGENT};
use hyper::http::uri::{PathAndQuery, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};

use super::failure::Failure;
use super::mishap::Mishap;

/// Longest head of an answer: servers make theirs of at most 8 KiB by default, and some of 16.
const HEAD_BYTES: usize = 16 * 1024;
/// How much of a body is searched: a status page, or the beginning of any other.
const BODY_BYTES: usize = 64 * 1024;
/// So that an administrator knows who asks.
const AGENT: &str = concat!("balancer/", env!("CARGO_PKG_VERSION"));

/// What an `http` or `https` probe asks, and which answers are good.
#[derive(Clone, Debug)]
pub struct HttpSettings {
    /// Whom to ask for, e.g. `pw.example.org`; none: the address that is probed, with its port.
    pub host: Option<String>,
    /// What to GET, e.g. `/health?deep=1`.
    pub path: PathAndQuery,
    /// Good statuses.
    pub expect_status: Vec<RangeInclusive<u16>>,
    /// Must be found within the first 64 KiB of the body; empty: the body does not matter.
    pub expect_body: String,
}

/// Asks, each time from scratch.
#[derive(Clone, Debug)]
pub(super) struct Question {
    host: Option<HeaderValue>,
    request: Request<Empty<Bytes>>,
    expect_status: Vec<RangeInclusive<u16>>,
    expect_body: String,
}

/// A host as a request names it: an IPv6 address in brackets. Without a port, as clients come by another one. None: it can't
/// be named.
fn named(host: &str) -> Option<HeaderValue> {
    let address = host.parse::<Ipv6Addr>().map(|address| format!("[{address}]"));
    HeaderValue::try_from(address.as_deref().unwrap_or(host)).ok()
}

impl Question {
    pub(super) fn new(settings: HttpSettings) -> Self {
        let HttpSettings { host, path, expect_status, expect_body } = settings;
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = Uri::from(path);
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        // The server then closes first: no keep-alive connection waits there for a second request.
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        Self { host: host.as_deref().and_then(named), request, expect_status, expect_body }
    }

    /// For a backend with a host name: whom to ask for if nobody else was given.
    pub(super) fn for_host(&self, host: &str) -> Self {
        Self { host: self.host.clone().or_else(|| named(host)), ..self.clone() }
    }

    /// Asks once and judges the answer; the connection is left as it is then.
    pub(super) async fn ask(
        &self,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
        target: SocketAddr,
        deadline: Instant,
    ) -> Result<(), Mishap> {
        let late = |_| Err(Mishap::Backend(Failure::ResponseTimeout));
        timeout_at(deadline, self.exchange(stream, target)).await.unwrap_or_else(late)
    }

    async fn exchange(
        &self,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
        target: SocketAddr,
    ) -> Result<(), Mishap> {
        let mut builder = Builder::new();
        builder.max_buf_size(HEAD_BYTES);
        let (sender, mut connection) =
            builder.handshake(TokioIo::new(stream)).await.map_err(|error| Mishap::from_http(&error))?;
        let mut answer = pin!(self.answer(sender, target));
        // The connection must be driven for the answer to arrive. It isn't shut down: the goodbye is the caller's.
        tokio::select! {
            biased;
            answer = &mut answer => return answer,
            _ = poll_fn(|context| connection.poll_without_shutdown(context)) => {}
        }
        // Its errors come out of the answer; without the connection none can be outstanding.
        drop(connection);
        answer.await
    }

    async fn answer(&self, mut sender: SendRequest<Empty<Bytes>>, target: SocketAddr) -> Result<(), Mishap> {
        let mut request = self.request.clone();
        if let Some(host) = self.host.clone().or_else(|| HeaderValue::try_from(target.to_string()).ok()) {
            request.headers_mut().insert(HOST, host);
        }
        let response = sender.send_request(request).await.map_err(|error| Mishap::from_http(&error))?;
        let status = response.status().as_u16();
        if !self.expect_status.iter().any(|good| good.contains(&status)) {
            return Err(Mishap::Backend(Failure::UnexpectedStatus(status)));
        }
        if self.expect_body.is_empty() {
            return Ok(());
        }
        self.search(response.into_body()).await
    }

    async fn search(&self, mut body: Incoming) -> Result<(), Mishap> {
        let wanted = self.expect_body.as_bytes();
        let mut seen = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Mishap::from_http(&error))?;
            let Ok(data) = frame.into_data() else { continue };
            // What was seen before may hold its beginning.
            let from = seen.len().saturating_sub(wanted.len() - 1);
            seen.extend_from_slice(&data[..data.len().min(BODY_BYTES - seen.len())]);
            if seen[from..].windows(wanted.len()).any(|window| window == wanted) {
                return Ok(());
            }
            if seen.len() == BODY_BYTES {
                break;
            }
        }
        Err(Mishap::Backend(Failure::BodyMismatch))
    }
}
