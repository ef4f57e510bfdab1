//! The servers of an upstream as backends of a pool, and what a pool can't have.
//!
//! A pool sends to one port of each of several machines; an upstream may name any port of any machine, its own too.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::super::addresses;
use super::super::limits::BACKENDS;
use super::address::Host;
use super::draft::{BackendDraft, Entry};
use super::member::Member;
use super::model::Upstream;
use super::naming;
use super::remarks::Remarks;
use super::routes::Family;

/// Servers of one upstream that can't be backends, each with a comment; the rest is counted.
const LEFT_OUT_SHOWN: usize = 50;

/// What a name means here.
const NAME: &str = "nginx resolves this name once, at its start; balancer at load and every 30s.";

/// An upstream's servers, as far as a pool can have them; one at least isn't disabled.
#[derive(Debug)]
pub(super) struct Backends {
    pub(super) entries: Vec<Entry>,
    /// Of all of them.
    pub(super) port: u16,
}

impl Backends {
    /// `own`: addresses that clients connect to. The error says why there is nobody to send to.
    pub(super) fn of(
        upstream: &Upstream,
        family: Family,
        own: &BTreeSet<IpAddr>,
        remarks: &mut Remarks,
    ) -> Result<Self, String> {
        let usable = |member: &&Member| address(member, family, own).is_ok();
        let first = upstream.members.iter().filter(usable).find(|member| !member.down && !member.backup);
        let port = first
            .or_else(|| upstream.members.iter().find(usable))
            .and_then(|member| member.port)
            .ok_or("none of its servers can be a backend")?;
        let mut found = Self { entries: Vec::new(), port };
        let mut names = BTreeSet::new();
        let mut left_out = 0_usize;
        for member in &upstream.members {
            match found.backend(member, family, own, &mut names) {
                Ok(backend) => {
                    let is_name = backend.address.parse::<IpAddr>().is_err();
                    let comments = member.notes.iter().cloned().chain(is_name.then(|| NAME.to_owned()));
                    found.entries.push(Entry { comments: comments.collect(), backend: Some(backend) });
                }
                Err(why) => {
                    remarks.push(&member.place, format!("`{}` is left out: {why}", member.text));
                    left_out += 1;
                    if left_out <= LEFT_OUT_SHOWN {
                        found.leave_out(format!("{}: {} is left out: {why}.", member.place, member.text));
                    }
                }
            }
        }
        if left_out > LEFT_OUT_SHOWN {
            found.leave_out(format!("{} more servers are left out.", left_out - LEFT_OUT_SHOWN));
        }
        if found.backends().all(|backend| backend.disabled) {
            return Err("all of its servers are down".to_owned());
        }
        Ok(found)
    }

    fn leave_out(&mut self, comment: String) {
        self.entries.push(Entry { comments: vec![comment], backend: None });
    }

    fn backend(
        &self,
        member: &Member,
        family: Family,
        own: &BTreeSet<IpAddr>,
        names: &mut BTreeSet<String>,
    ) -> Result<BackendDraft, String> {
        let address = address(member, family, own)?;
        if let Some(other) = member.port.filter(|port| *port != self.port) {
            return Err(format!(
                "it is on port {other}, but a service sends to the same port of all backends, here {}; let it listen \
                 there, too",
                self.port
            ));
        }
        if self.backends().any(|backend| backend.address == address) {
            return Err("this machine and port stand in the upstream already".to_owned());
        }
        if self.backends().count() == BACKENDS {
            return Err(format!("a pool has at most {BACKENDS} backends"));
        }
        Ok(BackendDraft {
            name: naming::unique(&address, names),
            address,
            max_fails: member.max_fails,
            fail_timeout: member.fail_timeout,
            backup: member.backup,
            disabled: member.down,
        })
    }

    pub(super) fn backends(&self) -> impl Iterator<Item = &BackendDraft> {
        self.entries.iter().filter_map(|entry| entry.backend.as_ref())
    }

    /// What decides who serves, in order: equal for two upstreams that may move together.
    pub(super) fn order(&self) -> Vec<(&str, bool, bool)> {
        let mut order: Vec<_> = self
            .backends()
            .map(|backend| (backend.address.as_str(), backend.backup, backend.disabled))
            .collect();
        order.sort_by_key(|(_, backup, _)| *backup);
        order
    }

    /// How many nginx shares its requests out among, while all are well.
    pub(super) fn sharing(&self) -> usize {
        self.backends().filter(|backend| !backend.backup && !backend.disabled).count()
    }
}

/// Where a server is, if it can be a backend; else why not.
fn address(member: &Member, family: Family, own: &BTreeSet<IpAddr>) -> Result<String, String> {
    let endpoint = member.endpoint.as_ref().ok_or("nginx itself can't read it, or only at run time")?;
    member.port.ok_or("it names no port")?;
    match &endpoint.host {
        Host::Unix => {
            Err("a unix socket is on nginx's own machine, and backends are other machines".to_owned())
        }
        Host::Name(name) if name == "localhost" => {
            Err("it is nginx's own machine, and backends are other machines".to_owned())
        }
        Host::Name(name) => Ok(name.clone()),
        Host::Ip(ip) => match addresses::machine(*ip) {
            Err(fault) => Err(fault.message),
            Ok(ip) if Family::of(ip) != family => {
                Err("it is of the other IP family than the pool, and nothing is translated".to_owned())
            }
            Ok(ip) if own.contains(&ip) => {
                Err("clients connect to this address: what runs on the gateway itself is no backend"
                    .to_owned())
            }
            Ok(ip) => Ok(ip.to_string()),
        },
    }
}
