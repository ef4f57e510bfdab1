//! The client side of the control API, as the command line uses it: one request, one answer, one cause when it fails.
//!
//! What is deliberately not here: a fall-back for a dead daemon; who asks decides what to do without an answer.

use std::io;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::arriving::{Misread, PATIENCE, Pieces};
use super::listing::MAX_LISTING_BYTES;
use super::protocol::{
    Document, ErrorBody, Events, EventsQuery, Flows, FlowsQuery, Order, Outcome, Record, ReloadCommand,
    Reloaded, TRACE_PATH, TraceLine, TraceQuery, Why, WhyQuery,
};

/// The daemon's loop answers questions at once; a daemon that doesn't is stuck or stopped.
const READ_LIMIT: Duration = Duration::from_secs(5);
/// For a listing: the daemon's own limits for its making and its sending are 10 s each.
const LISTING_LIMIT: Duration = Duration::from_secs(25);
/// A command is answered when it is carried out; the daemon itself gives up a little earlier and says so.
const COMMAND_LIMIT: Duration = Duration::from_secs(24 * 3600 + 10);
/// The largest configuration (256 pools of 16 backends) makes about 2 MiB.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;
/// The longest line of a feed: a record has 4 KiB at most, and a newer daemon's may have more.
const MAX_LINE_BYTES: usize = 64 * 1024;
/// How soon to try again when too many clients are waiting to be accepted.
const RETRY_AFTER: Duration = Duration::from_millis(20);

/// Why there is no answer, by what a user does about it.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "no daemon answers at {socket}: {source}: start it with `balancer run`, or name its socket with --socket",
        socket = socket.display()
    )]
    NoDaemon {
        /// Where it was looked for.
        socket: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The socket is closed to this user.
    #[error(
        "{socket}: permission denied: do this as root, or as a member of the group `balancer` to look only",
        socket = socket.display()
    )]
    Permission {
        /// The socket.
        socket: PathBuf,
    },
    /// The daemon doesn't take this from this user.
    #[error("the daemon says: {0}")]
    Forbidden(String),
    /// The daemon won't, and says why.
    #[error("refused: {0}")]
    Refused(String),
    /// The configuration that it was to read is invalid.
    #[error("{0}")]
    Invalid(String),
    /// No answer in time.
    #[error(
        "no answer from the daemon at {socket} within {limit:?}: look at its log{unknown}",
        socket = socket.display()
    )]
    Late {
        /// The socket.
        socket: PathBuf,
        /// How long it was waited for.
        limit: Duration,
        /// What follows for a command.
        unknown: &'static str,
    },
    /// The daemon is of another version.
    #[error("the daemon {what}, this is balancer {version}: use the `balancer` that the daemon was started from",
        version = env!("CARGO_PKG_VERSION"))]
    Version {
        /// What it does differently.
        what: String,
    },
    /// It did not take what it was sent in time.
    #[error(
        "the daemon has dropped this reader, which did not take what happened as fast as it did: start it again"
    )]
    Dropped,
    /// The daemon says that it failed, or something else answers there.
    #[error("{socket}: {what}", socket = socket.display())]
    Broken {
        /// The socket.
        socket: PathBuf,
        /// What came instead of an answer.
        what: String,
    },
}

/// A daemon, by its socket.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

/// What every document has, whatever else another version has changed in it.
#[derive(Deserialize)]
struct SchemaOf {
    schema: String,
}

impl Client {
    /// Nothing is opened before something is asked.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Asks for a document.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get<D: Document>(&self) -> Result<D, ClientError> {
        let request = self.exchange(Method::GET, D::PATH, Bytes::new(), MAX_ANSWER_BYTES);
        self.read(&self.within(READ_LIMIT, "", request).await?)
    }

    /// Asks for live flows, and hands on the answer as it arrives; who reads it may take as long as he likes.
    ///
    /// # Errors
    /// See [`ClientError`]. Some of the answer may have been handed on before.
    pub async fn flows(&self, query: &FlowsQuery, pieces: Pieces) -> Result<(), ClientError> {
        let path = format!("{}?{query}", Flows::PATH);
        let receive = async {
            let (response, _driver) = self.send(Method::GET, &path, Bytes::new()).await?;
            if response.status() != StatusCode::OK {
                return Err(self.failed(response, &path).await);
            }
            let body = Limited::new(response.into_body(), MAX_LISTING_BYTES);
            pieces.receive(body, PATIENCE).await.map_err(|error| self.broken(&*error))
        };
        let waiting = self.within(LISTING_LIMIT, "", receive).await?;
        pieces.hand_on(waiting).await;
        Ok(())
    }

    /// What it means that an answer that has arrived can't be read.
    #[must_use]
    pub fn misread(&self, error: Misread) -> ClientError {
        match error {
            Misread::Json(error) if error.is_data() => {
                ClientError::Version { what: format!("fills in {} differently ({error})", Flows::SCHEMA) }
            }
            Misread::Json(error) => self.unreadable(&error),
            Misread::Schema(_) => ClientError::Version { what: format!("speaks {error}") },
        }
    }

    /// Asks what happened. For who follows there is [`Client::follow`].
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn events(&self, query: &EventsQuery) -> Result<Events, ClientError> {
        let path = format!("{}?{query}", Events::PATH);
        let request = self.exchange(Method::GET, &path, Bytes::new(), MAX_ANSWER_BYTES);
        self.read(&self.within(LISTING_LIMIT, "", request).await?)
    }

    /// Asks why a pool's active backend is the active one.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn why(&self, query: &WhyQuery) -> Result<Why, ClientError> {
        let path = format!("{}?{query}", Why::PATH);
        let request = self.exchange(Method::GET, &path, Bytes::new(), MAX_ANSWER_BYTES);
        self.read(&self.within(READ_LIMIT, "", request).await?)
    }

    /// Asks what happened, and then for what happens.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn follow(&self, query: &EventsQuery) -> Result<Following<'_, Record>, ClientError> {
        self.feed(&format!("{}?{query}", Events::PATH)).await
    }

    /// Asks for packets from now on.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn trace(&self, query: &TraceQuery) -> Result<Following<'_, TraceLine>, ClientError> {
        self.feed(&format!("{TRACE_PATH}?{query}")).await
    }

    async fn feed<T>(&self, path: &str) -> Result<Following<'_, T>, ClientError> {
        let asked = async {
            let (response, driver) = self.send(Method::GET, path, Bytes::new()).await?;
            if response.status() == StatusCode::OK {
                return Ok((response.into_body(), driver));
            }
            Err(self.failed(response, path).await)
        };
        let (body, driver) = self.within(LISTING_LIMIT, "", asked).await?;
        Ok(Following { client: self, body, _driver: driver, text: Vec::new(), of: PhantomData })
    }

    fn read<D: Document>(&self, body: &[u8]) -> Result<D, ClientError> {
        // A document has its schema as one of its fields, so another one is never taken for it. It is looked through once more
        // only to say what is wrong.
        let error = match serde_json::from_slice(body) {
            Ok(document) => return Ok(document),
            Err(error) => error,
        };
        let found: SchemaOf = serde_json::from_slice(body).map_err(|error| self.unreadable(&error))?;
        Err(ClientError::Version {
            what: if found.schema == D::SCHEMA {
                format!("fills in {} differently ({error})", D::SCHEMA)
            } else {
                format!("speaks {:?} instead of {}", found.schema, D::SCHEMA)
            },
        })
    }

    /// Has a command carried out, and waits until it is, hooks included.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn tell<O: Order>(&self, order: &O) -> Result<Outcome, ClientError> {
        let body = serde_json::to_vec(order).map_err(|error| self.unreadable(&error))?;
        let unknown = "; `balancer status` tells whether it was carried out";
        let request = self.exchange(Method::POST, O::PATH, Bytes::from(body), MAX_ANSWER_BYTES);
        let answer = self.within(COMMAND_LIMIT, unknown, request).await?;
        serde_json::from_slice(&answer).map_err(|error| self.unreadable(&error))
    }

    /// Has the configuration read once more, and waits until that is done.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn reload(&self, command: &ReloadCommand) -> Result<Reloaded, ClientError> {
        let body = serde_json::to_vec(command).map_err(|error| self.unreadable(&error))?;
        let unknown = "; `balancer events` tells whether it was accepted";
        let request = self.exchange(Method::POST, ReloadCommand::PATH, Bytes::from(body), MAX_ANSWER_BYTES);
        let answer = self.within(COMMAND_LIMIT, unknown, request).await?;
        serde_json::from_slice(&answer).map_err(|error| self.unreadable(&error))
    }

    async fn within<T>(
        &self,
        limit: Duration,
        unknown: &'static str,
        work: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        let late = || ClientError::Late { socket: self.socket.clone(), limit, unknown };
        timeout(limit, work).await.unwrap_or_else(|_| Err(late()))
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        max_bytes: usize,
    ) -> Result<Bytes, ClientError> {
        let (response, _driver) = self.send(method, path, body).await?;
        if response.status() != StatusCode::OK {
            return Err(self.failed(response, path).await);
        }
        self.collect(response, max_bytes).await
    }

    async fn collect(&self, response: Response<Incoming>, max_bytes: usize) -> Result<Bytes, ClientError> {
        let body = Limited::new(response.into_body(), max_bytes).collect().await;
        Ok(body.map_err(|error| self.broken(&*error))?.to_bytes())
    }

    /// The head of the answer; its body arrives for as long as the connection is driven, by what comes with it.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(Response<Incoming>, JoinSet<()>), ClientError> {
        // Paths are constants, and queries are escaped.
        let uri = path.parse().map_err(|error: hyper::http::uri::InvalidUri| self.broken(&error))?;
        let stream = self.connect().await?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.broken(&error))?;
        let mut driver = JoinSet::new();
        // Its errors come out of the answer as well.
        driver.spawn(async { drop(connection.await) });
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        // HTTP/1.1 asks for one; the socket already says who is meant.
        request.headers_mut().insert(HOST, HeaderValue::from_static("balancer"));
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let response = sender.send_request(request).await.map_err(|error| self.broken(&error))?;
        Ok((response, driver))
    }

    async fn connect(&self) -> Result<UnixStream, ClientError> {
        loop {
            match UnixStream::connect(&self.socket).await {
                Ok(stream) => return Ok(stream),
                // A full queue of waiting clients; the caller's deadline ends this.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(RETRY_AFTER).await,
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    return Err(ClientError::Permission { socket: self.socket.clone() });
                }
                Err(source) => return Err(ClientError::NoDaemon { socket: self.socket.clone(), source }),
            }
        }
    }

    /// What an answer means that is no success.
    async fn failed(&self, response: Response<Incoming>, path: &str) -> ClientError {
        let status = response.status();
        let body = match self.collect(response, MAX_ANSWER_BYTES).await {
            Ok(body) => body,
            Err(error) => return error,
        };
        let error = match serde_json::from_slice::<ErrorBody>(&body) {
            Ok(body) => body.error,
            Err(_) => format!("the answer was {status}, without a reason"),
        };
        match status {
            StatusCode::FORBIDDEN => ClientError::Forbidden(error),
            StatusCode::CONFLICT => ClientError::Refused(error),
            StatusCode::UNPROCESSABLE_ENTITY => ClientError::Invalid(error),
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
                ClientError::Version { what: format!("does not know {path}") }
            }
            _ => ClientError::Broken { socket: self.socket.clone(), what: error },
        }
    }

    fn unreadable(&self, error: &serde_json::Error) -> ClientError {
        let what = format!("what answers there is not JSON that this version can read: {error}");
        ClientError::Broken { socket: self.socket.clone(), what }
    }

    fn broken(&self, error: &(dyn std::error::Error + 'static)) -> ClientError {
        let what = format!("the daemon broke off before it had answered: {error}");
        ClientError::Broken { socket: self.socket.clone(), what }
    }
}

/// What happens, as it does.
#[derive(Debug)]
pub struct Following<'a, T> {
    client: &'a Client,
    body: Incoming,
    _driver: JoinSet<()>,
    /// What came of the next lines.
    text: Vec<u8>,
    of: PhantomData<T>,
}

impl<T: DeserializeOwned> Following<'_, T> {
    /// The next one, however long that takes; `None` when the daemon has ended.
    ///
    /// # Errors
    /// [`ClientError::Dropped`], or what comes is no record.
    pub async fn next(&mut self) -> Result<Option<T>, ClientError> {
        loop {
            if let Some(end) = self.text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.text.drain(..=end).collect();
                let record = serde_json::from_slice(&line).map_err(|error| self.client.unreadable(&error))?;
                return Ok(Some(record));
            }
            if self.text.len() > MAX_LINE_BYTES {
                return Err(ClientError::Version { what: "sends longer records".to_owned() });
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => self.text.extend(frame.into_data().unwrap_or_default()),
                // It was killed, or hung up on this client alone.
                Some(Err(_)) if UnixStream::connect(&self.client.socket).await.is_ok() => {
                    return Err(ClientError::Dropped);
                }
                Some(Err(_)) => return Ok(None),
            }
        }
    }
}
