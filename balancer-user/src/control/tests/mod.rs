//! Server and client over a real socket, with a daemon that answers from a script.

mod answers;
mod causes;
mod hostile;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::arriving;
use super::client::{Client, ClientError};
use super::listing::{Listing, ListingWriter};
use super::protocol::{
    Command, Events, EventsQuery, FailoverCommand, Flows, FlowsQuery, Outcome, Record, Status, TraceLine,
    TraceQuery, Traced, example,
};
use super::server::{Limits, NotReloaded, Request, Told, serve_within};
use super::socket::ControlSocket;

/// No test waits longer for anything.
const DEADLINE: Duration = Duration::from_secs(10);
/// A failover of the pool with this name is never answered.
const STUCK: &[u8] =
    b"POST /v1/failover HTTP/1.1\r\nHost: b\r\nContent-Length: 16\r\n\r\n{\"pool\":\"stuck\"}";
/// Records that a follower hears after those of the past: more than any socket buffer holds.
const MORE: u64 = 5_000;
/// The shortest request for the status document.
const GET_STATUS: &[u8] = b"GET /v1/status HTTP/1.1\r\nHost: b\r\n\r\n";

/// A server in a directory of its own; everything ends with it.
struct Lab {
    directory: tempfile::TempDir,
    path: PathBuf,
    /// Told when the daemon has got a command that it will not answer.
    stuck: Arc<Notify>,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
    daemon: JoinHandle<()>,
}

impl Lab {
    fn start() -> Self {
        Self::with(Limits::default(), example::status())
    }

    fn limited(limits: Limits) -> Self {
        Self::with(limits, example::status())
    }

    fn with(limits: Limits, status: Status) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let (_socket, listener) = ControlSocket::bind(&path).unwrap();
        let (requests, inbox) = mpsc::channel(16);
        let (stop, stopped) = oneshot::channel::<()>();
        let stuck = Arc::new(Notify::new());
        let daemon = tokio::spawn(daemon(inbox, status, stuck.clone()));
        let shutdown = async { stopped.await.unwrap_or_default() };
        let server = tokio::spawn(serve_within(limits, listener, requests, shutdown));
        Self { directory, path, stuck, stop, server, daemon }
    }

    fn client(&self) -> Client {
        Client::new(&self.path)
    }

    /// The listing that the client gets, read to its end.
    async fn listed(&self, query: &FlowsQuery) -> Result<Flows, ClientError> {
        listed(&self.client(), query).await
    }

    /// Sends bytes as they are.
    async fn send(&self, bytes: &[u8]) -> UnixStream {
        let mut stream = connect(&self.path).await;
        stream.write_all(bytes).await.unwrap();
        stream
    }

    /// Sends bytes as they are and gives back all that comes.
    async fn exchange(&self, bytes: &[u8]) -> String {
        rest(&mut self.send(bytes).await).await
    }
}

/// Waits while the queue of connections is full, as blocking clients do in the kernel.
async fn connect(path: &Path) -> UnixStream {
    let from = Instant::now();
    loop {
        match UnixStream::connect(path).await {
            Ok(stream) => return stream,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock && from.elapsed() < DEADLINE => {
                tokio::task::yield_now().await;
            }
            Err(error) => panic!("connecting: {error}"),
        }
    }
}

/// What comes until the end; a reset is an end too.
async fn rest(stream: &mut UnixStream) -> String {
    let mut answer = Vec::new();
    let _reset = timeout(DEADLINE, stream.read_to_end(&mut answer)).await.expect("the connection stays open");
    String::from_utf8(answer).unwrap()
}

fn post(path: &str, body: &str) -> Vec<u8> {
    format!("POST {path} HTTP/1.1\r\nHost: b\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

async fn daemon(mut inbox: mpsc::Receiver<Request>, status: Status, stuck: Arc<Notify>) {
    let mut never_answered = Vec::new();
    let mut followed = Vec::new();
    while let Some(request) = inbox.recv().await {
        match request {
            Request::Status(reply) => answer(reply, status.clone()),
            Request::Stats(reply) => answer(reply, example::stats()),
            Request::Picture(reply) => answer(reply, (status.clone(), example::stats())),
            Request::Flows(query, reply) => answer(reply, listing(&query)),
            Request::Events(query, reply) => answer(reply, told(&query, &mut followed)),
            Request::Why(query, reply) if query.pool == "passwords" => answer(reply, Ok(example::why())),
            Request::Why(query, reply) => answer(reply, Err(format!("there is no pool {:?}", query.pool))),
            Request::Trace(query, reply) => answer(reply, packets(&query)),
            Request::Command(Command::Failover(FailoverCommand { pool, .. }), _, reply)
                if pool == "stuck" =>
            {
                never_answered.push(reply);
                stuck.notify_one();
            }
            Request::Command(Command::Failover(FailoverCommand { to: Some(to), .. }), _, reply) => {
                let message = format!("passwords is on {to} now");
                answer(reply, Ok(Outcome { changed: true, active: Some(to), message }));
            }
            Request::Command(Command::Failover(_), _, reply) => {
                answer(reply, Err("server2 is down: --force goes there all the same".to_owned()));
            }
            Request::Reload(asked, _, reply) if asked.confirmed => {
                answer(reply, Err(NotReloaded::Refused("no reload waits".to_owned())));
            }
            Request::Reload(_, _, reply) => {
                answer(reply, Err(NotReloaded::Invalid("f.toml:1:1: one\nf.toml:2:1: two".to_owned())));
            }
            // The others go the same way.
            Request::Command(_, _, reply) => {
                let message = "passwords is on server1 already".to_owned();
                answer(reply, Ok(Outcome { changed: false, active: Some("server1".to_owned()), message }));
            }
        }
    }
}

/// The example, after so many that are not shown.
fn packet(missed: u64) -> TraceLine {
    TraceLine::Packet(Box::new(Traced { missed, ..example::traced() }))
}

/// The example, three times.
fn packets(query: &TraceQuery) -> Result<mpsc::Receiver<TraceLine>, String> {
    let (sender, packets) = mpsc::channel(8);
    if let Some(service) = &query.service {
        return Err(format!("there is no service {service:?}"));
    }
    for missed in 0..3 {
        sender.try_send(packet(missed)).unwrap();
    }
    Ok(packets)
}

async fn listed(client: &Client, query: &FlowsQuery) -> Result<Flows, ClientError> {
    let (pieces, text) = arriving::pair();
    let reader = tokio::task::spawn_blocking(move || {
        let mut flows = Vec::new();
        let as_of = arriving::each_flow(text, &mut |_, flow| {
            flows.push(flow);
            true
        })?;
        Ok(Flows { as_of, flows, ..example::flows() })
    });
    client.flows(query, pieces).await?;
    reader.await.unwrap().map_err(|error| client.misread(error))
}

/// The example's records, as many as wanted; who follows hears [`MORE`], and no end while `followed` stays.
fn told(query: &EventsQuery, followed: &mut Vec<mpsc::Sender<Arc<Record>>>) -> Result<Told, String> {
    let Events { as_of, events, .. } = example::events();
    let past: Vec<_> = events.iter().take(query.limit as usize).cloned().collect();
    if let Some(pool) = query.pool.as_ref().filter(|pool| *pool != "passwords") {
        return Err(format!("there is no pool {pool:?}"));
    }
    let live = query.follow.then(|| {
        let (sender, live) = mpsc::channel(MORE as usize);
        for id in 43..43 + MORE {
            let evidence = Some("x".repeat(1000));
            sender.try_send(Arc::new(Record { id, evidence, ..events[0].clone() })).unwrap();
        }
        followed.push(sender);
        live
    });
    Ok(Told { as_of, past, live })
}

/// With a limit: so many flows, all the same.
fn listing(query: &FlowsQuery) -> Result<Listing, String> {
    if let Some(pool) = &query.pool {
        return Err(format!("there is no pool {pool:?}"));
    }
    let document = example::flows();
    let mut writer = ListingWriter::new(document.as_of);
    let flows = document.flows.iter().cycle();
    let wanted = query.limit.map_or(document.flows.len(), |limit| limit as usize);
    for flow in flows.take(wanted) {
        writer.push(flow).map_err(|error| error.to_string())?;
    }
    Ok(writer.finish())
}

fn answer<T>(reply: oneshot::Sender<T>, value: T) {
    let _asker_is_gone = reply.send(value);
}
