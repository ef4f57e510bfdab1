//! `[http]`: where the dashboard and `/metrics` are, and how they come to be elsewhere, or to know another token, while the daemon
//! runs.
//!
//! What an operator wants and can't have is refused before anything is changed; what comes by itself, or beside traffic, goes on
//! without, and is tried again, as nothing of the traffic depends on it. Deliberately not here: what is shown (`observe`).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::warn;

use crate::config::{Config, Http, Token};
use crate::control::server::{NotReloaded, Request};
use crate::observe::{self, Tallies};

use super::Daemon;
use super::reload::Cause;

/// Connections that may wait to be accepted: a page takes a few, scrapers one each.
const BACKLOG: u32 = 128;

/// Where it is, if it is anywhere.
pub(super) struct Dashboard {
    /// To the loop.
    requests: mpsc::Sender<Request>,
    wanted: Option<Http>,
    open: Option<Open>,
    /// Why nobody answers where somebody should.
    problem: Option<String>,
    /// What only `/metrics` tells; counted while it is wanted.
    tallies: Option<Arc<Tallies>>,
}

/// Somebody answers; that ends with this.
struct Open {
    listen: SocketAddr,
    token: watch::Sender<Option<Token>>,
    serving: JoinHandle<()>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Listens at an address; to be called inside a tokio runtime.
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Listens where the configuration wants it, unless that is where it is `known` to be already.
pub(super) fn listen(config: &Config, known: Option<SocketAddr>) -> Result<Option<TcpListener>, String> {
    let wanted = config.http.as_ref().map(|http| http.listen).filter(|listen| Some(*listen) != known);
    let Some(address) = wanted else { return Ok(None) };
    bind(address).map(Some).map_err(|error| {
        let own = known.filter(|known| known.port() == address.port() && error.kind() == io::ErrorKind::AddrInUse);
        let own = own.map(|known| format!(", and this daemon has {known} until then")).unwrap_or_default();
        format!(
            "[http] listen: {address}: {error}: write an address of this gateway and a port that nobody has (`ss -ltnp` shows \
             who{own})"
        )
    })
}

/// The same at a start. Where it takes traffic over it goes on without: that is tried again, and told by `status`.
pub(super) fn listen_at_a_start(config: &Config, takes_over: bool) -> Result<Option<TcpListener>, String> {
    match listen(config, None) {
        Err(_) if takes_over => Ok(None),
        listened => listened,
    }
}

/// The same before a configuration is accepted.
pub(super) fn listen_for(
    config: &Config,
    known: Option<SocketAddr>,
    cause: &Cause,
) -> Result<Option<TcpListener>, NotReloaded> {
    match listen(config, known) {
        Err(problem) if matches!(cause, Cause::Verb(..) | Cause::Unwaited(_)) => {
            Err(NotReloaded::Refused(problem))
        }
        listened => Ok(listened.unwrap_or_default()),
    }
}

impl Dashboard {
    pub(super) const fn new(requests: mpsc::Sender<Request>) -> Self {
        Self { requests, wanted: None, open: None, problem: None, tallies: None }
    }

    /// Where it is, or should be.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.wanted.as_ref().map(|http| http.listen)
    }

    pub(super) const fn tallies(&self) -> Option<&Arc<Tallies>> {
        self.tallies.as_ref()
    }

    /// Makes it this one. `bound`: listens there already; else it is tried now, or later.
    pub(super) fn become_this(&mut self, wanted: Option<&Http>, bound: Option<TcpListener>) {
        self.wanted = wanted.cloned();
        let Some(http) = wanted else {
            (self.open, self.problem, self.tallies) = (None, None, None);
            return;
        };
        match &self.open {
            Some(open) if open.listen == http.listen => {
                open.token.send_replace(http.token.clone());
                return;
            }
            _ => self.open = None,
        }
        let bound = bound.map_or_else(|| bind(http.listen), Ok);
        match bound {
            Ok(listener) => self.open(http, listener),
            Err(error) => {
                let address = http.listen;
                warn!(event = "http", %address, %error, "nobody answers there; it is tried again");
                self.problem = Some(error.to_string());
            }
        }
    }

    /// Ends it; behind this its address is free.
    pub(super) async fn close(&mut self) {
        if let Some(open) = &mut self.open {
            open.serving.abort();
            // It ends by that, or has ended.
            let _ = (&mut open.serving).await;
        }
        self.become_this(None, None);
    }

    /// Tries once more what could not be.
    pub(super) fn try_again(&mut self) {
        if let Some(http) = self.wanted.clone().filter(|_| self.open.is_none()) {
            match bind(http.listen) {
                Ok(listener) => self.open(&http, listener),
                Err(error) => self.problem = Some(error.to_string()),
            }
        }
    }

    fn open(&mut self, http: &Http, listener: TcpListener) {
        let tallies = self.tallies.get_or_insert_default().clone();
        let (token, now) = watch::channel(http.token.clone());
        let serving = tokio::spawn(observe::serve(listener, self.requests.clone(), tallies, now));
        self.problem = None;
        self.open = Some(Open { listen: http.listen, token, serving });
    }

    /// What a person has to know, by name.
    pub(super) fn trouble(&self) -> Option<(String, String)> {
        let (address, why) = (self.address()?, self.problem.as_ref()?);
        let words = format!(
            "[http] listen {address}: nobody answers there: {why} (`ss -ltnp` shows who has it); it is tried again"
        );
        Some(("http".to_owned(), words))
    }
}

impl Daemon {
    /// Has it as the configuration wants it now. `bound`: listens there already.
    pub(super) fn show(&mut self, bound: Option<TcpListener>) {
        self.parts.config.http.clone_from(&self.reloads.wanted().http);
        self.dashboard.become_this(self.parts.config.http.as_ref(), bound);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio::time::timeout;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    fn http(listen: SocketAddr, token: Option<&[u8]>) -> Http {
        Http { listen, token_file: None, token: token.map(Token::of) }
    }

    fn dashboard() -> Dashboard {
        // Nobody answers: the token is looked at before.
        Dashboard::new(mpsc::channel(1).0)
    }

    /// At an address that only this test of this run uses: a port that it lets go of stays free, and whoever asks there comes
    /// from another address.
    fn bound(test: u8) -> (SocketAddr, TcpListener) {
        let [_, high, middle, low] = std::process::id().to_be_bytes();
        // Process ids have 22 bits at the most.
        let listener = bind(([127, ((test + 1) << 6) | high, middle, low], 0).into()).unwrap();
        (listener.local_addr().unwrap(), listener)
    }

    /// The status of the answer to whoever shows a token.
    async fn shown(address: SocketAddr, token: &str) -> Option<String> {
        let mut stream = TcpStream::connect(address).await.ok()?;
        let request = format!(
            "POST /v1/token HTTP/1.1\r\nHost: {address}\r\nX-Balancer-Dashboard: 1\r\nAuthorization: Bearer {token}\r\n\
             Content-Length: 0\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut text = String::new();
        timeout(DEADLINE, stream.read_to_string(&mut text)).await.expect("an answer").ok()?;
        text.split(' ').nth(1).map(str::to_owned)
    }

    async fn until_nobody_answers(address: SocketAddr) {
        let gone = async {
            while TcpStream::connect(address).await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        timeout(DEADLINE, gone).await.expect("it to be gone");
    }

    #[tokio::test]
    async fn it_takes_another_token_and_another_address_and_goes() {
        let mut dashboard = dashboard();
        let (first, listener) = bound(0);
        dashboard.become_this(Some(&http(first, None)), Some(listener));
        assert_eq!(shown(first, "one").await.as_deref(), Some("403"), "it only shows");
        for (token, is_right, is_wrong) in [("one", "204", "401"), ("two", "204", "401")] {
            dashboard.become_this(Some(&http(first, Some(token.as_bytes()))), None);
            assert_eq!(shown(first, token).await.as_deref(), Some(is_right));
            assert_eq!(shown(first, "three").await.as_deref(), Some(is_wrong));
        }
        let (second, listener) = bound(0);
        dashboard.become_this(Some(&http(second, Some(b"two"))), Some(listener));
        assert_eq!(shown(second, "two").await.as_deref(), Some("204"));
        until_nobody_answers(first).await;
        assert!(dashboard.tallies().is_some() && dashboard.trouble().is_none());
        dashboard.become_this(None, None);
        until_nobody_answers(second).await;
        assert!(dashboard.tallies().is_none() && dashboard.address().is_none());
    }

    #[tokio::test]
    async fn what_somebody_has_is_refused_and_what_must_be_comes_when_it_is_free() {
        let (address, somebody) = bound(1);
        let config = |listen| {
            let mut config = crate::daemon::example::config(crate::daemon::example::BASE);
            config.http = Some(http(listen, None));
            config
        };
        let said = listen(&config(address), None).unwrap_err();
        assert!(said.contains(&format!("[http] listen: {address}: ")), "{said}");
        assert!(listen(&config(address), Some(address)).unwrap().is_none(), "it is there already");
        assert_eq!(listen_at_a_start(&config(address), false).unwrap_err(), said);
        assert!(listen_at_a_start(&config(address), true).is_ok_and(|bound| bound.is_none()));
        let Err(NotReloaded::Refused(_)) =
            listen_for(&config(address), None, &Cause::Unwaited(String::new()))
        else {
            panic!("it was accepted")
        };
        assert!(listen_for(&config(address), None, &Cause::Expired).is_ok_and(|bound| bound.is_none()));
        let mut dashboard = dashboard();
        dashboard.become_this(Some(&http(address, Some(b"one"))), None);
        assert!(dashboard.trouble().is_some());
        drop(somebody);
        dashboard.try_again();
        assert_eq!((shown(address, "one").await.as_deref(), dashboard.trouble()), (Some("204"), None));
    }
}
