//! Method and path to question or command, outcome to HTTP status: the one place that knows either.
//!
//! Permission is decided before the body is looked at, by the peer's credentials, which the kernel vouches for.

use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request as HttpRequest, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::unix::UCred;

use super::body::Body;
use super::protocol::{
    Document as _, DrainCommand, ErrorBody, Events, EventsQuery, FailbackCommand, FailoverCommand, Flows,
    FlowsQuery, MaintCommand, Order, ReadyCommand, ReloadCommand, ResumeCommand, Stats, Status, TRACE_PATH,
    TraceQuery, Why, WhyQuery,
};
use super::server::{Daemon, NoAnswer, NotReloaded, Request};

/// Longest body: a command names a pool and a backend, so this is generous.
pub(super) const MAX_BODY_BYTES: usize = 48 * 1024;

/// Who is at the other end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    /// Its user.
    pub(super) uid: u32,
    pid: Option<i32>,
    may_write: bool,
}

impl Peer {
    pub(super) fn new(credentials: &UCred) -> Self {
        let uid = credentials.uid();
        let own_uid = rustix::process::geteuid().as_raw();
        Self { uid, pid: credentials.pid(), may_write: is_trusted(uid, own_uid) }
    }
}

/// Reading is for all who can open the socket: its mode and group decide that.
fn is_trusted(uid: u32, daemon_uid: u32) -> bool {
    uid == 0 || uid == daemon_uid
}

/// An answer that isn't a success.
struct Failure {
    status: StatusCode,
    error: String,
    allow: Option<&'static str>,
}

impl Failure {
    fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, error: error.into(), allow: None }
    }
}

impl From<NoAnswer> for Failure {
    fn from(cause: NoAnswer) -> Self {
        let status = match cause {
            NoAnswer::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            NoAnswer::Late(_) => StatusCode::GATEWAY_TIMEOUT,
        };
        Self::new(status, cause.to_string())
    }
}

/// Answers one request.
pub(super) async fn respond(
    request: HttpRequest<Incoming>,
    peer: Peer,
    daemon: &Daemon<'_>,
) -> Response<Body> {
    match answer(request, peer, daemon).await {
        Ok(body) => response(StatusCode::OK, body),
        Err(Failure { status, error, allow }) => {
            // Serialising a struct of one string cannot fail; an empty body would still carry the status.
            let mut response =
                response(status, json(&ErrorBody { error }).unwrap_or_else(|_| Bytes::new().into()));
            if let Some(methods) = allow {
                response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
            }
            response
        }
    }
}

async fn answer(request: HttpRequest<Incoming>, peer: Peer, daemon: &Daemon<'_>) -> Result<Body, Failure> {
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    match path.as_str() {
        Status::PATH => {
            expect(&method, &Method::GET, "GET", &path)?;
            json(&daemon.ask(Request::Status).await?)
        }
        Stats::PATH => {
            expect(&method, &Method::GET, "GET", &path)?;
            json(&daemon.ask(Request::Stats).await?)
        }
        Flows::PATH => {
            expect(&method, &Method::GET, "GET", &path)?;
            let query = FlowsQuery::parse(query(&request)).map_err(misspelt)?;
            daemon.list(query).await?.map_err(refused)
        }
        Events::PATH => {
            expect(&method, &Method::GET, "GET", &path)?;
            let query = EventsQuery::parse(query(&request)).map_err(misspelt)?;
            daemon.events(query).await?.map_err(refused)
        }
        Why::PATH => {
            expect(&method, &Method::GET, "GET", &path)?;
            let query = WhyQuery::parse(query(&request)).map_err(misspelt)?;
            json(&daemon.ask(|reply| Request::Why(query, reply)).await?.map_err(refused)?)
        }
        TRACE_PATH => {
            expect(&method, &Method::GET, "GET", &path)?;
            // Every packet costs the gateway more while somebody traces.
            may_write(peer, &path)?;
            let query = TraceQuery::parse(query(&request)).map_err(misspelt)?;
            tracing::info!(uid = peer.uid, pid = peer.pid, ?query, "a trace was asked for");
            daemon.trace(query).await?.map_err(refused)
        }
        FailoverCommand::PATH => order::<FailoverCommand>(request, peer, daemon).await,
        FailbackCommand::PATH => order::<FailbackCommand>(request, peer, daemon).await,
        DrainCommand::PATH => order::<DrainCommand>(request, peer, daemon).await,
        MaintCommand::PATH => order::<MaintCommand>(request, peer, daemon).await,
        ReadyCommand::PATH => order::<ReadyCommand>(request, peer, daemon).await,
        ReloadCommand::PATH => reload(request, peer, daemon).await,
        ResumeCommand::PATH => order::<ResumeCommand>(request, peer, daemon).await,
        _ => Err(Failure::new(StatusCode::NOT_FOUND, format!("no such thing here: {path:?}"))),
    }
}

fn query(request: &HttpRequest<Incoming>) -> &str {
    request.uri().query().unwrap_or_default()
}

fn misspelt(error: String) -> Failure {
    Failure::new(StatusCode::BAD_REQUEST, error)
}

fn refused(reason: String) -> Failure {
    Failure::new(StatusCode::CONFLICT, reason)
}

fn expect(method: &Method, wanted: &Method, name: &'static str, path: &str) -> Result<(), Failure> {
    if method == wanted {
        return Ok(());
    }
    let error = format!("{path} is for {name}, not for {method}");
    Err(Failure { status: StatusCode::METHOD_NOT_ALLOWED, error, allow: Some(name) })
}

/// A command out of the body of a peer that may give it, carried out.
async fn order<O: Order>(
    request: HttpRequest<Incoming>,
    peer: Peer,
    daemon: &Daemon<'_>,
) -> Result<Body, Failure> {
    let command = read::<O>(request, peer, O::PATH).await?.command();
    tracing::info!(uid = peer.uid, pid = peer.pid, ?command, "command received");
    json(&daemon.tell(command, peer.uid).await?.map_err(refused)?)
}

/// The configuration once more, for a peer that may have it read.
async fn reload(request: HttpRequest<Incoming>, peer: Peer, daemon: &Daemon<'_>) -> Result<Body, Failure> {
    let command = read::<ReloadCommand>(request, peer, ReloadCommand::PATH).await?;
    tracing::info!(uid = peer.uid, pid = peer.pid, ?command, "command received");
    let reloaded = daemon.reload(command, peer.uid).await?.map_err(|problem| match problem {
        NotReloaded::Invalid(errors) => Failure::new(StatusCode::UNPROCESSABLE_ENTITY, errors),
        NotReloaded::Refused(reason) => refused(reason),
    })?;
    json(&reloaded)
}

/// Refuses what a peer may not do that may only look.
fn may_write(peer: Peer, path: &str) -> Result<(), Failure> {
    if peer.may_write {
        return Ok(());
    }
    tracing::warn!(uid = peer.uid, pid = peer.pid, path, "a control client that may only read was refused");
    let error = format!("uid {} may look but not change anything: do this as root", peer.uid);
    Err(Failure::new(StatusCode::FORBIDDEN, error))
}

async fn read<T: DeserializeOwned>(
    request: HttpRequest<Incoming>,
    peer: Peer,
    path: &str,
) -> Result<T, Failure> {
    expect(request.method(), &Method::POST, "POST", path)?;
    may_write(peer, path)?;
    let body = Limited::new(request.into_body(), MAX_BODY_BYTES).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            let error = format!("a command has at most {MAX_BODY_BYTES} bytes");
            Failure::new(StatusCode::PAYLOAD_TOO_LARGE, error)
        } else {
            Failure::new(StatusCode::BAD_REQUEST, format!("the body broke off: {error}"))
        }
    })?;
    serde_json::from_slice(&body.to_bytes()).map_err(|error| {
        Failure::new(StatusCode::BAD_REQUEST, format!("the body is no command for {path}: {error}"))
    })
}

fn json(document: &impl Serialize) -> Result<Body, Failure> {
    match serde_json::to_vec(document) {
        Ok(text) => Ok(Bytes::from(text).into()),
        Err(error) => Err(Failure::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}

fn response(status: StatusCode, body: Body) -> Response<Body> {
    let content_type = HeaderValue::from_static(body.content_type());
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_and_the_daemons_own_user_may_write() {
        assert!(is_trusted(0, 0));
        assert!(is_trusted(0, 997));
        assert!(is_trusted(997, 997));
        assert!(!is_trusted(1000, 0));
        assert!(!is_trusted(1000, 997));
    }
}
