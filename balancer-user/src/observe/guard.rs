//! Whom a request is answered to: not to other sites' pages in an operator's browser, and slowly to who guesses tokens.
//!
//! A page of another site can send requests here. It can't read answers, unless its name resolves to this address meanwhile
//! (DNS rebinding): so the name by which the request was sent has to be an address, which nobody else can give out. It
//! can't set a header of its own without being allowed to (CORS), which is never done, and browsers tell where a
//! request comes from.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, ORIGIN};
use hyper::http::request::Parts;

use crate::crowd::place;

/// Set by the dashboard's page on all that it posts.
pub(super) const MARK: HeaderName = HeaderName::from_static("x-balancer-dashboard");
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Wrong tokens at once from one place: a person's mistakes.
const MOST_WRONG: u32 = 5;
/// After so long one of them is forgotten.
const FORGIVEN_AFTER: Duration = Duration::from_secs(10);
/// Where there were more, tokens are looked at one after the other, each for so long: a person who comes from the same place
/// still gets his turn in time, behind all connections that one place may have, and a guess of 16 letters never does.
pub(super) const LOOK: Duration = Duration::from_millis(500);
/// Places that wrong tokens came from; the one that was heard longest ago makes room.
const PLACES: usize = 1024;

/// Why a request is not answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) words: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, words: impl Into<String>) -> Self {
        Self { status, words: words.into() }
    }
}

/// The host that the request was sent to, as it was written, if that is this end of the connection. Its port is not
/// looked at: whoever comes through ssh has another one.
pub(super) fn host(head: &Parts, local: IpAddr) -> Result<&str, Refusal> {
    let bad = || Refusal::new(StatusCode::BAD_REQUEST, "a request names its host once, and a path");
    let mut hosts = head.headers.get_all(HOST).iter();
    let (Some(host), None, None) = (hosts.next(), hosts.next(), head.uri.authority()) else {
        return Err(bad());
    };
    let host = host.to_str().map_err(|_| bad())?;
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !name.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    if is_here(name, local.to_canonical()) {
        return Ok(host);
    }
    let words = "the dashboard answers only to the address that it is reached at, so that no other site's name can lead here: \
                 open it by that address (or, through ssh -L, by localhost)";
    Err(Refusal::new(StatusCode::MISDIRECTED_REQUEST, words))
}

fn is_here(name: &str, local: IpAddr) -> bool {
    let in_brackets = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let address = match in_brackets {
        Some(inner) => inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => name.parse().ok().filter(IpAddr::is_ipv4),
    };
    match address {
        Some(address) => address == local,
        None => local.is_loopback() && name.eq_ignore_ascii_case("localhost"),
    }
}

/// Whether the page that is served at `host` has sent this, or no page at all.
pub(super) fn of_our_page(headers: &HeaderMap, host: &str) -> Result<(), Refusal> {
    let refused = |words: &str| Err(Refusal::new(StatusCode::FORBIDDEN, words));
    if !headers.contains_key(MARK) {
        return refused("only the dashboard's own page acts (header X-Balancer-Dashboard)");
    }
    let mut origins = headers.get_all(ORIGIN).iter();
    if origins.any(|origin| !origin.to_str().is_ok_and(|origin| is_origin_of(origin, host))) {
        return refused("this was sent by a page of another site (Origin)");
    }
    let mut sites = headers.get_all(SEC_FETCH_SITE).iter();
    if sites.any(|site| site != "same-origin") {
        return refused("this was sent by a page of another site (Sec-Fetch-Site)");
    }
    Ok(())
}

fn is_origin_of(origin: &str, host: &str) -> bool {
    origin.strip_prefix("http://").is_some_and(|of| of.eq_ignore_ascii_case(host))
}

/// The token that a request shows.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut shown = headers.get_all(AUTHORIZATION).iter();
    let (Some(shown), None) = (shown.next(), shown.next()) else { return None };
    let (scheme, token) = shown.as_bytes().split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

/// Where wrong tokens came from.
#[derive(Debug, Default)]
pub(super) struct Guesses(BTreeMap<IpAddr, Wrong>);

#[derive(Debug)]
struct Wrong {
    count: u32,
    last: Instant,
    /// Tokens from there take turns.
    turn: Arc<Turn>,
}

/// Held while a token from a place of wrong ones is looked at. Who gives up waiting is out of the queue.
pub(super) type Turn = tokio::sync::Mutex<()>;

impl Wrong {
    /// Those that are not forgotten yet.
    fn left(&self, now: Instant) -> u32 {
        let forgiven = now.saturating_duration_since(self.last).as_secs() / FORGIVEN_AFTER.as_secs();
        self.count.saturating_sub(u32::try_from(forgiven).unwrap_or(u32::MAX))
    }
}

impl Guesses {
    /// Too many came from there: the next is looked at when it has this.
    pub(super) fn turn(&self, peer: IpAddr, now: Instant) -> Option<Arc<Turn>> {
        let wrong = self.0.get(&place(peer)).filter(|wrong| wrong.left(now) >= MOST_WRONG)?;
        Some(wrong.turn.clone())
    }

    /// One more.
    pub(super) fn wrong(&mut self, peer: IpAddr, now: Instant) {
        let place = place(peer);
        if self.0.len() >= PLACES && !self.0.contains_key(&place) {
            let oldest = self.0.iter().min_by_key(|(_, wrong)| wrong.last).map(|(oldest, _)| *oldest);
            oldest.map(|oldest| self.0.remove(&oldest));
        }
        let new = || Wrong { count: 0, last: now, turn: Arc::default() };
        let wrong = self.0.entry(place).or_insert_with(new);
        (wrong.count, wrong.last) = ((wrong.left(now) + 1).min(MOST_WRONG), now);
    }
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    fn head(uri: &str, headers: &[(&str, &str)]) -> Parts {
        let request =
            headers.iter().fold(Request::get(uri), |request, (name, value)| request.header(*name, *value));
        request.body(()).unwrap().into_parts().0
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn only_the_address_that_was_reached_is_answered_to() {
        for (local, name) in [
            ("203.0.113.10", "203.0.113.10"),
            ("203.0.113.10", "203.0.113.10:9464"),
            ("::ffff:203.0.113.10", "203.0.113.10:9464"),
            ("2001:db8::10", "[2001:db8::10]:9464"),
            ("2001:db8::10", "[2001:DB8:0::10]"),
            ("127.0.0.1", "localhost:8080"),
            ("127.0.0.1", "LocalHost"),
            ("::1", "localhost:9464"),
        ] {
            assert_eq!(host(&head("/", &[("host", name)]), ip(local)), Ok(name), "{local}");
        }
        for (local, name) in [
            ("203.0.113.10", "evil.example"),
            ("203.0.113.10", "203.0.113.11:9464"),
            ("203.0.113.10", "203.0.113.10.evil.example"),
            ("203.0.113.10", "localhost:9464"),
            ("127.0.0.1", "localhost.evil.example:9464"),
            ("127.0.0.1", "127.0.0.2"),
            ("127.0.0.1", "0177.0.0.1"),
            ("127.0.0.1", ":9464"),
            ("127.0.0.1", ""),
            ("127.0.0.1", "localhost:94x"),
            ("2001:db8::10", "2001:db8::10"),
        ] {
            let refused = host(&head("/", &[("host", name)]), ip(local)).unwrap_err();
            assert_eq!(refused.status, StatusCode::MISDIRECTED_REQUEST, "{name}");
        }
    }

    #[test]
    fn a_request_that_names_no_host_or_several_is_a_bad_one() {
        let ok = ("host", "127.0.0.1");
        for head in [head("/", &[]), head("/", &[ok, ok]), head("http://127.0.0.1/", &[ok])] {
            assert_eq!(host(&head, ip("127.0.0.1")).unwrap_err().status, StatusCode::BAD_REQUEST, "{head:?}");
        }
    }

    #[test]
    fn only_our_own_page_acts() {
        let mark = ("x-balancer-dashboard", "1");
        let judged = |headers: &[(&str, &str)]| of_our_page(&head("/", headers).headers, "gw:1").is_ok();
        for headers in [
            &[mark][..],
            &[mark, ("origin", "http://gw:1")],
            &[mark, ("origin", "http://GW:1"), ("sec-fetch-site", "same-origin")],
        ] {
            assert!(judged(headers), "{headers:?}");
        }
        for headers in [
            &[][..],
            &[("origin", "http://gw:1")],
            &[mark, ("origin", "http://gw:2")],
            &[mark, ("origin", "https://gw:1")],
            &[mark, ("origin", "null")],
            &[mark, ("origin", "http://gw:1"), ("origin", "http://evil.example")],
            &[mark, ("sec-fetch-site", "cross-site")],
            &[mark, ("sec-fetch-site", "same-site")],
            &[mark, ("sec-fetch-site", "none")],
        ] {
            assert!(!judged(headers), "{headers:?}");
        }
    }

    #[test]
    fn a_token_is_shown_once_and_by_its_scheme() {
        let shown = |values: &[&str]| {
            let headers: Vec<_> = values.iter().map(|value| ("authorization", *value)).collect();
            bearer(&head("/", &headers).headers).map(<[u8]>::to_vec)
        };
        assert_eq!(shown(&["Bearer abc"]), Some(b"abc".to_vec()));
        assert_eq!(shown(&["bearer  abc "]), Some(b"abc".to_vec()));
        for none in [&[][..], &["abc"], &["Basic abc"], &["Bear"], &["Bearer a", "Bearer b"]] {
            assert_eq!(shown(none), None, "{none:?}");
        }
    }

    #[test]
    fn where_many_wrong_ones_came_from_they_take_turns_and_nowhere_else() {
        let (mut guesses, start) = (Guesses::default(), Instant::now());
        let (peer, other) = (ip("2001:db8::1:2:3:4"), ip("2001:db8:0:1::1"));
        for _ in 0..2 * MOST_WRONG {
            guesses.wrong(peer, start);
        }
        assert!(guesses.turn(ip("2001:db8::5"), start).is_some(), "of the same /64");
        assert!(guesses.turn(other, start).is_none());
        let later = start + FORGIVEN_AFTER;
        assert!(guesses.turn(peer, later).is_none(), "one is forgotten, however many there were");
        guesses.wrong(peer, later);
        assert!(guesses.turn(peer, later).is_some());
    }

    #[test]
    fn a_persons_mistakes_keep_nobody_waiting() {
        let (mut guesses, now) = (Guesses::default(), Instant::now());
        for _ in 0..MOST_WRONG {
            assert!(guesses.turn(ip("127.0.0.1"), now).is_none());
            guesses.wrong(ip("127.0.0.1"), now);
        }
        assert!(guesses.turn(ip("127.0.0.1"), now).is_some());
    }

    #[test]
    fn the_memory_for_guesses_is_bounded() {
        let (mut guesses, now) = (Guesses::default(), Instant::now());
        for number in 0..2 * PLACES as u32 {
            guesses.wrong(IpAddr::from(number.to_be_bytes()), now);
        }
        assert_eq!(guesses.0.len(), PLACES);
    }
}
