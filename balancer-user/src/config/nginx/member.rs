//! `server` in an upstream: one machine and port, with nginx's defaults where nothing is written.

use std::time::Duration;

use super::super::limits::{MAX_FAILS, SHORTEST_INTERVAL};
use super::address::{Endpoint, HTTP_PORT};
use super::directive::{Directive, Place};
use super::model::Protocol;
use super::time;
use crate::duration::Shown;

/// nginx's defaults, for a backup, too.
const MAX_FAILS_DEFAULT: u32 = 1;
const FAIL_TIMEOUT: Duration = Duration::from_secs(10);

/// What is written where nginx's time is too short for balancer, as 0 is: nginx counts whole seconds.
const SHORT: Duration = Duration::from_secs(1);

/// What balancer takes at most.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

/// One server of an upstream.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) place: Place,
    pub(super) text: String,
    /// None: nginx itself can't read it.
    pub(super) endpoint: Option<Endpoint>,
    /// As written, or `http`'s default.
    pub(super) port: Option<u16>,
    pub(super) max_fails: u32,
    pub(super) fail_timeout: Duration,
    pub(super) backup: bool,
    pub(super) down: bool,
    /// What of it isn't carried over as written, and what that means.
    pub(super) notes: Vec<String>,
}

impl Member {
    /// None: not a `server`.
    pub(super) fn read(directive: &Directive, protocol: Protocol) -> Option<Self> {
        if !directive.is("server") || directive.block.is_some() {
            return None;
        }
        let endpoint = directive.argument().and_then(Endpoint::parse);
        let mut member = Self::new(directive.place.clone(), directive.shown(), endpoint, protocol);
        for parameter in directive.arguments.iter().skip(1) {
            member.take(parameter);
        }
        Some(member)
    }

    pub(super) fn new(place: Place, text: String, endpoint: Option<Endpoint>, protocol: Protocol) -> Self {
        let default_port = (protocol == Protocol::Http).then_some(HTTP_PORT);
        let port = endpoint.as_ref().and_then(|endpoint| endpoint.port).or(default_port);
        Self {
            place,
            text,
            endpoint,
            port,
            max_fails: MAX_FAILS_DEFAULT,
            fail_timeout: FAIL_TIMEOUT,
            backup: false,
            down: false,
            notes: Vec::new(),
        }
    }

    fn take(&mut self, parameter: &str) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        match name {
            "max_fails" => match value.parse::<u32>() {
                Ok(number) if number <= MAX_FAILS => self.max_fails = number,
                Ok(_) => {
                    self.max_fails = MAX_FAILS;
                    self.note(parameter, &format!("balancer counts to {MAX_FAILS}"));
                }
                Err(_) => self.note(parameter, "nginx itself can't read it; its default is written"),
            },
            "fail_timeout" => match time::parse(value) {
                Some(duration) => self.fail_timeout(parameter, duration),
                None => self.note(parameter, "nginx itself can't read it; its default is written"),
            },
            "backup" => self.backup = true,
            "down" => self.down = true,
            "weight" if value == "1" => {}
            "weight" => self.note(parameter, "nothing is shared out: the order of the backends decides"),
            "max_conns" if value == "0" => {}
            "max_conns" => self.note(parameter, "connections to one backend aren't bounded"),
            "slow_start" => self.note(parameter, "a backend that is back gets all of its share at once"),
            "resolve" | "service" => {
                self.note(
                    parameter,
                    "a host name is resolved again every 30s anyway; SRV records aren't asked for",
                );
            }
            _ => self.note(parameter, "balancer has nothing like it"),
        }
    }

    fn fail_timeout(&mut self, parameter: &str, duration: Duration) {
        self.fail_timeout = if duration < SHORTEST_INTERVAL { SHORT } else { duration.min(LONGEST) };
        if duration < SHORTEST_INTERVAL {
            self.note(parameter, "nginx counts whole seconds, so it means until the second is over");
        } else if duration > LONGEST {
            self.note(parameter, &format!("balancer waits for {} at most", Shown(LONGEST)));
        }
    }

    fn note(&mut self, parameter: &str, meaning: &str) {
        let parameter: String = parameter.chars().take(60).collect();
        self.notes.push(format!("{}: `{parameter}` is not carried over as it is: {meaning}.", self.place));
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::super::syntax;
    use super::*;

    fn member(line: &str) -> Member {
        let parsed = syntax::parse(line, &Rc::from("f"), 10).unwrap();
        Member::read(&parsed.directives[0], Protocol::Http).unwrap()
    }

    #[test]
    fn defaults_are_nginxs_for_the_backup_too() {
        for line in
            ["server 10.0.2.11;", "server 10.0.2.11:80 backup;", "server 10.0.2.11 weight=1 max_conns=0;"]
        {
            let member = member(line);
            assert_eq!((member.max_fails, member.fail_timeout), (1, Duration::from_secs(10)), "{line}");
            assert_eq!((member.port, member.backup), (Some(80), line.contains("backup")), "{line}");
            assert!(member.notes.is_empty(), "{:?}", member.notes);
        }
    }

    #[test]
    fn parameters_are_read_as_nginx_reads_them() {
        let read = |line: &str| {
            let member = member(line);
            (member.max_fails, member.fail_timeout.as_millis(), member.notes.len())
        };
        assert_eq!(read("server a max_fails=0 fail_timeout=30;"), (0, 30_000, 0));
        assert_eq!(read("server a \"fail_timeout=1m 30s\" max_fails=3 down;"), (3, 90_000, 0));
        assert_eq!(read("server a fail_timeout=500ms;"), (1, 500, 0));
        assert_eq!(read("server a fail_timeout=0;"), (1, 1_000, 1));
        assert_eq!(read("server a fail_timeout=2y max_fails=5000;"), (1000, 365 * 86_400_000, 2));
        assert_eq!(read("server a fail_timeout=x max_fails=-1;"), (1, 10_000, 2));
        assert_eq!(read("server a weight=5 slow_start=30s resolve what;"), (1, 10_000, 4));
        assert!(member("server a down;").down);
    }
}
