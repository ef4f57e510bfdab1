//! What becomes of `server` and `upstream` blocks that are in no pool: redirects to a service are told there, all else at the
//! end.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use super::address::On;
use super::carry_over::{Made, described, title};
use super::draft::{RedirectDraft, Section};
use super::model::Model;
use super::remarks::Remarks;
use super::routes;
use crate::config::limits::REDIRECT_HOSTS;
use crate::config::names;

/// Servers that only send clients of plain HTTP to https: said at the service that they lead to. Those for which that is so.
pub(super) fn redirects(
    model: &Model,
    made: &mut [Made],
    vip: Option<IpAddr>,
    remarks: &mut Remarks,
) -> Vec<usize> {
    let mut told = Vec::new();
    let services = made.iter().flat_map(|made| &made.draft.services);
    let mut taken: BTreeSet<SocketAddr> = services.map(|service| service.listen).collect();
    for (index, server) in model.servers.iter().enumerate() {
        let Some(by) = &server.redirect else { continue };
        let mut plain = server.listens.iter().filter(|listen| server.redirects(listen));
        // The other family's is most often the same port again.
        let Some(listen) = plain.clone().find(|listen| listen.on != On::AnyV6).or_else(|| plain.next())
        else {
            continue;
        };
        let port = *listen.ports.start();
        let mut not_any_more = |why: &str| {
            let what = format!("plain HTTP on port {port} isn't redirected to https any more");
            remarks.push(&by.place, format!("{what}: {why}"));
        };
        let shares_name = |other: usize| {
            let names = &model.servers[other].names;
            other == index
                || server.names.is_empty()
                || names.is_empty()
                || names.iter().any(|name| server.names.contains(name))
        };
        let service = made.iter_mut().find_map(|made| {
            let family = made.family;
            let services = made.draft.services.iter_mut().zip(&made.servers);
            services
                .filter(|(service, other)| service.redirect.is_none() && shares_name(**other))
                .find(|(_, other)| model.servers[**other].listens.iter().any(|listen| listen.tls))
                .map(|(service, _)| (service, family))
        });
        let Some((service, family)) = service else {
            not_any_more("no service with TLS is for the same name");
            continue;
        };
        let Ok((address, _)) = routes::place(listen, port, Some(family), vip) else { continue };
        // The same machine as the service, where nginx names none.
        let address =
            if matches!(listen.on, On::Ip(_)) { address } else { SocketAddr::new(service.listen.ip(), port) };
        if !taken.insert(address) {
            not_any_more(&format!("{address} is a service, or leads to another one"));
            continue;
        }
        let hosts = match &by.host {
            Some(host) => vec![host.clone()],
            None => server.names.iter().filter(|name| names::is_host(name)).cloned().collect(),
        };
        let mut known = BTreeSet::new();
        let mut hosts: Vec<String> =
            hosts.into_iter().filter(|host| known.insert(host.to_ascii_lowercase())).collect();
        if hosts.len() > REDIRECT_HOSTS {
            let left = hosts.split_off(REDIRECT_HOSTS).join(" ");
            remarks
                .push(&by.place, format!("only {REDIRECT_HOSTS} names are redirected to; left out: {left}"));
        }
        service.redirect = Some(RedirectDraft { by: by.place.to_string(), listen: address, hosts });
        // Those of a server with services stand there.
        service.left.extend(server.left.iter().cloned());
        told.push(index);
    }
    told
}

/// What stands in no pool; `told`: servers that are said elsewhere.
pub(super) fn leftovers(
    model: &mut Model,
    told: &BTreeSet<usize>,
    is_used: &[bool],
    remarks: &mut Remarks,
) -> Vec<Section> {
    let mut sections = Vec::new();
    for (_, server) in model.servers.iter_mut().enumerate().filter(|(index, _)| !told.contains(index)) {
        if server.targets.is_empty() {
            remarks.push(&server.place, "this `server` is left out: it leads to no backend (no proxy_pass)");
        }
        let listens: Vec<&str> = server.listens.iter().map(|listen| listen.text.as_str()).collect();
        let title =
            format!("The `server` of {} ({}), which leads to no pool", server.place, listens.join(" "));
        sections.push(Section { title, left: std::mem::take(&mut server.left) });
    }
    for (upstream, _) in model.upstreams.iter_mut().zip(is_used).filter(|(_, is_used)| !**is_used) {
        let why = "no `proxy_pass` that is carried over leads to it";
        remarks.push(&upstream.place, format!("{} is left out: {why}", title(upstream)));
        let left = std::mem::take(&mut upstream.left);
        sections.push(Section { title: format!("{}, left out: {why}", described(upstream)), left });
    }
    if !model.left.is_empty() {
        let left = std::mem::take(&mut model.left);
        sections.push(Section { title: "Outside of `upstream` and `server`".to_owned(), left });
    }
    sections
}
