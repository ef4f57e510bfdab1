//! Plain HTTP, answered by the daemon itself with the way to a service's https URL (`redirect_http`).
//!
//! `answer` says what is answered, and is pure; here are the sockets. Whoever asks is a stranger on the internet: one
//! request a connection, little time, few connections for each place they come from and a bounded number for all. A
//! socket is bound to an address that this machine may not have yet, or not have now (IP_FREEBIND), as the standby of two gateways
//! hasn't: it answers when it has it. What can't be bound otherwise is tried again.
//!
//! Deliberately not here: what the configuration says and when it changes (`daemon`), and anything else of HTTP.

mod answer;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{ALLOW, EXPECT, HeaderValue, LOCATION};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::net::sockopt::{set_ip_freebind, set_ipv6_freebind};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

pub use answer::Target;

use crate::crowd::Crowd;
use crate::panics::alone;

/// Connections at once, of all redirects together. A descriptor each: a quarter of the usual soft limit of 1024.
const CONNECTIONS: usize = 256;
/// Of them from one place: a household, or a company behind one address. Each takes as long as one answer.
const FROM_ONE_PLACE: usize = 32;
/// That may wait to be accepted.
const BACKLOG: u32 = 256;
/// For a request's head to arrive.
const RECEIVE: Duration = Duration::from_secs(5);
/// For one connection, from its first byte to its last.
const WHOLE: Duration = Duration::from_secs(10);
/// A request line and headers; longer ones are answered 431.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// What comes behind a head is read so far, as a connection that is closed before would lose the answer.
const BODY_BYTES: usize = 64 * 1024;
/// How long to wait when the kernel has no descriptor for a new connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Listens at an address, whether or not it is one of this machine now; to be called inside a tokio runtime.
///
/// # Errors
/// What the kernel said.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    match address {
        SocketAddr::V4(_) => set_ip_freebind(&socket, true)?,
        SocketAddr::V6(_) => set_ipv6_freebind(&socket, true)?,
    }
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// All redirects of a configuration.
#[derive(Debug)]
pub struct Redirects {
    open: BTreeMap<SocketAddr, Open>,
    /// Those that can't be bound, and why.
    closed: BTreeMap<SocketAddr, (Arc<Target>, String)>,
    crowd: Crowd,
}

/// One that answers; it ends with this.
#[derive(Debug)]
struct Open {
    target: watch::Sender<Arc<Target>>,
    accepting: AbortHandle,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Default for Redirects {
    fn default() -> Self {
        let crowd = Crowd::new(CONNECTIONS, FROM_ONE_PLACE);
        Self { open: BTreeMap::new(), closed: BTreeMap::new(), crowd }
    }
}

impl Redirects {
    /// Makes them these. `bound`: addresses that were bound already; others that are new are bound now, or later.
    pub fn become_these(
        &mut self,
        wanted: BTreeMap<SocketAddr, Target>,
        mut bound: BTreeMap<SocketAddr, TcpListener>,
    ) {
        self.open.retain(|address, _| wanted.contains_key(address));
        self.closed.retain(|address, _| wanted.contains_key(address));
        for (address, target) in wanted {
            let target = Arc::new(target);
            match (self.open.get(&address), bound.remove(&address)) {
                (Some(open), _) => drop(open.target.send_replace(target)),
                (None, Some(listener)) => self.open(address, listener, target),
                (None, None) => {
                    if let Err(error) = self.bind(address, target) {
                        let words = "nobody answers plain HTTP there; it is tried again";
                        tracing::warn!(event = "redirect", %address, %error, "{words}");
                    }
                }
            }
        }
    }

    /// Tries those once more that could not be bound.
    pub fn try_again(&mut self) {
        for (address, (target, _)) in std::mem::take(&mut self.closed) {
            // That it still can't be is told already.
            let _ = self.bind(address, target);
        }
    }

    /// Where somebody answers, or should.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.open.keys().chain(self.closed.keys()).copied()
    }

    /// Those where nobody answers, and why.
    pub fn problems(&self) -> impl Iterator<Item = (SocketAddr, &str)> {
        self.closed.iter().map(|(address, (_, why))| (*address, why.as_str()))
    }

    fn bind(&mut self, address: SocketAddr, target: Arc<Target>) -> io::Result<()> {
        match bind(address) {
            Ok(listener) => self.open(address, listener, target),
            Err(error) => {
                self.closed.insert(address, (target, error.to_string()));
                return Err(error);
            }
        }
        Ok(())
    }

    fn open(&mut self, address: SocketAddr, listener: TcpListener, target: Arc<Target>) {
        self.closed.remove(&address);
        let (target, now) = watch::channel(target);
        let accepting = tokio::spawn(accept(listener, now, self.crowd.clone())).abort_handle();
        self.open.insert(address, Open { target, accepting });
    }
}

async fn accept(listener: TcpListener, target: watch::Receiver<Arc<Target>>, crowd: Crowd) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Not before somebody is there: many listeners would hold all places.
                let Some(guest) = crowd.admit(peer.ip()).await else { continue };
                let target = target.borrow().clone();
                tokio::spawn(alone(async move {
                    // Who is too slow, or breaks off, has that to himself.
                    let _ = timeout(WHOLE, attend(stream, &target)).await;
                    drop(guest);
                }));
            }
            Err(error) => {
                tracing::warn!(event = "redirect", %error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn attend(stream: TcpStream, target: &Target) {
    let service = service_fn(async |request| Ok::<_, Infallible>(respond(request, target).await));
    let connection = http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(RECEIVE)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(event = "redirect", %error, "a connection ended early");
    }
}

async fn respond(request: Request<Incoming>, target: &Target) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let answer = answer::answer(&head, target);
    // Who waits to be asked for it doesn't send it.
    if !head.headers.contains_key(EXPECT) {
        let _ = Limited::new(body, BODY_BYTES).collect().await;
    }
    let mut response = Response::new(Full::default());
    match answer {
        Ok((status, location)) => {
            *response.status_mut() = status;
            // Made of what the configuration and a checked path are made of.
            if let Ok(location) = HeaderValue::from_str(&location) {
                response.headers_mut().insert(LOCATION, location);
            }
        }
        Err(status) => {
            *response.status_mut() = status;
            if status == StatusCode::METHOD_NOT_ALLOWED {
                response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST"));
            }
        }
    }
    response
}
