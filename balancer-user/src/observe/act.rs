//! What the dashboard's page may ask for, once it has shown that it is that page, and the token: the operator's commands, by
//! the same orders as on the control socket.
//!
//! Deliberately not here: `resume` and `reload`, which want to be read about first, and everything that reads.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use tokio::time::{sleep, timeout};

use crate::control::protocol::{
    Command, DrainCommand, FailbackCommand, FailoverCommand, MaintCommand, Order, Outcome, ReadyCommand,
};
use crate::control::server::{Asker, Request};

use super::board::ask;
use super::guard::{self, Refusal};
use super::server::Site;

/// Only asks whether the token is the right one.
pub(super) const TOKEN: &str = "/v1/token";
/// The longest command: two names.
const BODY_BYTES: usize = 4096;
/// For a command to be carried out; it goes on beyond that. The page doesn't wait for hooks.
const CARRY_OUT: Duration = Duration::from_secs(10);

/// How a command is read.
type Read = fn(&[u8]) -> serde_json::Result<Command>;

/// The commands that may be posted to this path.
fn order(path: &str) -> Option<Read> {
    fn read<O: Order>(text: &[u8]) -> serde_json::Result<Command> {
        serde_json::from_slice::<O>(text).map(Order::command)
    }
    let orders: [(&str, Read); 5] = [
        (FailoverCommand::PATH, read::<FailoverCommand>),
        (FailbackCommand::PATH, read::<FailbackCommand>),
        (DrainCommand::PATH, read::<DrainCommand>),
        (MaintCommand::PATH, read::<MaintCommand>),
        (ReadyCommand::PATH, read::<ReadyCommand>),
    ];
    orders.into_iter().find(|(known, _)| *known == path).map(|(_, read)| read)
}

/// Whether anything may be posted there.
pub(super) fn is_place(path: &str) -> bool {
    path == TOKEN || order(path).is_some()
}

/// Carries out what was posted; nothing, if only the token was to be looked at.
pub(super) async fn act(
    (head, body): (Parts, Incoming),
    host: &str,
    peer: SocketAddr,
    site: &Site,
) -> Result<Option<Outcome>, Refusal> {
    if head.method != Method::POST {
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "commands are posted"));
    }
    guard::of_our_page(&head.headers, host)?;
    authorise(&head.headers, peer, site).await?;
    let Some(read) = order(head.uri.path()) else { return Ok(None) };
    if head.headers.get(CONTENT_TYPE).is_none_or(|kind| kind != "application/json") {
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "a command is application/json"));
    }
    let body = Limited::new(body, BODY_BYTES).collect().await.map_err(|error| {
        Refusal::new(
            StatusCode::BAD_REQUEST,
            format!("a command is one piece of at most {BODY_BYTES} bytes: {error}"),
        )
    })?;
    let command = read(&body.to_bytes()).map_err(|error| {
        Refusal::new(StatusCode::BAD_REQUEST, format!("this is no such command: {error}"))
    })?;
    tracing::info!(%peer, ?command, "command received from the dashboard");
    let asker = Asker::Dashboard(peer);
    let told = ask(&site.requests, |reply| Request::Command(command, asker, reply));
    match timeout(CARRY_OUT, told).await {
        Ok(Some(Ok(outcome))) => Ok(Some(outcome)),
        Ok(Some(Err(reason))) => Err(Refusal::new(StatusCode::CONFLICT, reason)),
        Ok(None) => Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping")),
        Err(_) => Err(Refusal::new(
            StatusCode::GATEWAY_TIMEOUT,
            format!("it is not done after {CARRY_OUT:?} and goes on: the timeline tells what comes of it"),
        )),
    }
}

/// Whether the request shows the token. Who has it is let in whoever else comes from his address; where wrong ones came from,
/// each takes its turn.
async fn authorise(headers: &HeaderMap, peer: SocketAddr, site: &Site) -> Result<(), Refusal> {
    if site.token().is_none() {
        let words = "this dashboard only shows: with [http] token_file in the configuration it may act";
        return Err(Refusal::new(StatusCode::FORBIDDEN, words));
    }
    let Some(shown) = guard::bearer(headers) else {
        return Err(Refusal::new(StatusCode::UNAUTHORIZED, "show the token (Authorization: Bearer)"));
    };
    let turn = site.guesses().turn(peer.ip(), Instant::now());
    let _held = match &turn {
        Some(turn) => {
            let held = turn.lock().await;
            sleep(guard::LOOK).await;
            Some(held)
        }
        None => None,
    };
    // As it is after the wait: a reload may have changed it.
    if site.token().is_some_and(|token| token.is(shown)) {
        return Ok(());
    }
    site.guesses().wrong(peer.ip(), Instant::now());
    tracing::warn!(event = "http", %peer, "a wrong token was shown to the dashboard");
    Err(Refusal::new(StatusCode::UNAUTHORIZED, "this is not the token"))
}
