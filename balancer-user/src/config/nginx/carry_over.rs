//! From routes to pools: upstreams with the same hosts become one, and what nginx did for their clients is said.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use super::super::limits::{POOLS, SERVICES};
use super::Settings;
use super::backends::Backends;
use super::draft::{BackendDraft, Draft, Entry, PoolDraft, Section, ServiceDraft};
use super::leftovers::{leftovers, redirects};
use super::meaning;
use super::model::{Left, Model, Upstream};
use super::naming;
use super::probes;
use super::remarks::Remarks;
use super::routes::{self, Family, Route};
use crate::duration::Shown;

/// The draft of all that `model` says; `folder`: what paths in it are relative to.
pub(super) fn carry_over(
    model: &mut Model,
    file: &Path,
    folder: &Path,
    settings: &Settings,
    remarks: &mut Remarks,
) -> Draft {
    routes::imply_servers(model);
    let routes = routes::find(model, settings.vip, remarks);
    let own: BTreeSet<IpAddr> = routes.iter().map(|route| route.listen.ip()).collect();
    let mut pools =
        Pools { model, folder, separate: settings.separate, own, made: Vec::new(), names: BTreeSet::new() };
    let mut is_used = vec![false; pools.model.upstreams.len()];
    let mut sections = Vec::new();
    for route in &routes {
        if std::mem::replace(&mut is_used[route.upstream], true) {
            continue;
        }
        let of_upstream: Vec<&Route> =
            routes.iter().filter(|other| other.upstream == route.upstream).collect();
        if let Err(why) = pools.add(route.upstream, &of_upstream, remarks) {
            let upstream = &mut pools.model.upstreams[route.upstream];
            remarks.push(&upstream.place, format!("{} is left out: {why}", title(upstream)));
            let left = std::mem::take(&mut upstream.left);
            sections.push(Section { title: format!("{}, left out: {why}", described(upstream)), left });
        }
    }
    let mut made = std::mem::take(&mut pools.made);
    let mut told: BTreeSet<usize> = made.iter().flat_map(|made| made.servers.iter().copied()).collect();
    told.extend(redirects(pools.model, &mut made, settings.vip, remarks));
    let pools: Vec<PoolDraft> = made.into_iter().map(|made| made.draft).collect();
    sections.extend(leftovers(model, &told, &is_used, remarks));
    let in_pools = pools
        .iter()
        .flat_map(|pool| pool.left.iter().chain(pool.services.iter().flat_map(|service| &service.left)));
    let all_left = in_pools.chain(sections.iter().flat_map(|section| &section.left));
    for Left { place, text, meaning } in all_left.filter(|left| meaning::is_urgent(&left.meaning)) {
        remarks.push(place, format!("`{text}`: {meaning}"));
    }
    let file = file.file_name().unwrap_or(file.as_os_str()).to_string_lossy().into_owned();
    Draft { file, interfaces: settings.interfaces.clone(), pools, sections }
}

/// `upstream web`, or what nginx takes for one.
pub(super) fn title(upstream: &Upstream) -> String {
    if upstream.is_implied {
        let text = upstream.members.first().map_or("", |member| member.text.as_str());
        format!("`{text}`")
    } else {
        format!("`upstream {}`", upstream.name)
    }
}

pub(super) fn described(upstream: &Upstream) -> String {
    format!("{} ({})", title(upstream), upstream.place)
}

/// A pool, and what it is made of.
pub(super) struct Made {
    pub(super) draft: PoolDraft,
    pub(super) family: Family,
    backends: Backends,
    service_names: BTreeSet<String>,
    /// The server of each service.
    pub(super) servers: Vec<usize>,
}

struct Pools<'m> {
    model: &'m mut Model,
    folder: &'m Path,
    separate: bool,
    own: BTreeSet<IpAddr>,
    made: Vec<Made>,
    names: BTreeSet<String>,
}

impl Pools<'_> {
    /// Adds an upstream with the routes to it, at least one, as a pool or to one with the same hosts.
    fn add(&mut self, upstream: usize, routes: &[&Route], remarks: &mut Remarks) -> Result<(), String> {
        let first = routes.first().ok_or("nothing leads to it")?;
        let family = Family::of(first.listen.ip());
        let backends = Backends::of(&self.model.upstreams[upstream], family, &self.own, remarks)?;
        let port = backends.port;
        let at = match self.same_hosts(&backends, family, upstream, routes.len(), remarks) {
            Some(at) => at,
            None => self.new_pool(upstream, backends, family, remarks)?,
        };
        for route in routes {
            let is_other_family = Family::of(route.listen.ip()) != family;
            if is_other_family || self.made[at].draft.services.len() == SERVICES {
                let why = if is_other_family {
                    "a pool has addresses of one IP family"
                } else {
                    "a pool has at most 16 services"
                };
                let listen = &self.model.servers[route.server].listens[route.from];
                remarks.push(&listen.place, format!("{} is left out: {why}", route.listen));
                continue;
            }
            let service = self.service(at, route, port, routes.len() > 1, remarks);
            self.made[at].draft.services.push(service);
            self.made[at].servers.push(route.server);
        }
        Ok(())
    }

    /// A pool that these backends are in already, in the same order; it is told where it is another order.
    fn same_hosts(
        &mut self,
        backends: &Backends,
        family: Family,
        upstream: usize,
        services: usize,
        remarks: &mut Remarks,
    ) -> Option<usize> {
        if self.separate {
            return None;
        }
        let upstream = &mut self.model.upstreams[upstream];
        let hosts = |order: &[(&str, bool, bool)]| -> BTreeSet<String> {
            order.iter().map(|(address, ..)| (*address).to_owned()).collect()
        };
        let order = backends.order();
        for (at, made) in self.made.iter_mut().enumerate().filter(|(_, made)| made.family == family) {
            let same = made.backends.order() == order;
            if same && made.draft.services.len() + services <= SERVICES {
                let is_first = made.draft.comments.len() == 1;
                made.draft
                    .comments
                    .push(described(upstream) + ": the same hosts, so it moves with the one before.");
                if is_first {
                    made.draft
                        .comments
                        .push("Pools of their own: `balancer import nginx --separate`.".to_owned());
                }
                made.draft.left.append(&mut upstream.left);
                tell_differences(made, backends, upstream, remarks);
                tell_comments(made, backends);
                return Some(at);
            }
            if !same && hosts(&made.backends.order()) == hosts(&order) {
                let message = format!(
                    "{} has the same hosts as pool {} in other roles, so it is a pool of its own and moves by itself",
                    title(upstream),
                    made.draft.name
                );
                remarks.push(&upstream.place, message);
            }
        }
        None
    }

    fn new_pool(
        &mut self,
        upstream: usize,
        backends: Backends,
        family: Family,
        remarks: &mut Remarks,
    ) -> Result<usize, String> {
        if self.made.len() == POOLS {
            return Err(format!("a gateway has at most {POOLS} pools"));
        }
        let upstream = &mut self.model.upstreams[upstream];
        let mut comments = vec![format!("{}.", described(upstream))];
        if backends.sharing() > 1 {
            let message = format!(
                "nginx shares its requests out among {} servers; here all go to the first one that is up, in order",
                backends.sharing()
            );
            remarks.push(&upstream.place, format!("{}: {message}", title(upstream)));
            comments.push(message + ".");
        }
        let draft = PoolDraft {
            comments,
            left: std::mem::take(&mut upstream.left),
            name: naming::unique(&upstream.name, &mut self.names),
            services: Vec::new(),
            backends: backends.entries.clone(),
        };
        let made = Made { draft, family, backends, service_names: BTreeSet::new(), servers: Vec::new() };
        self.made.push(made);
        Ok(self.made.len() - 1)
    }

    fn service(
        &mut self,
        at: usize,
        route: &Route,
        backend_port: u16,
        is_one_of_many: bool,
        remarks: &mut Remarks,
    ) -> ServiceDraft {
        let upstream = &self.model.upstreams[route.upstream];
        let server = &mut self.model.servers[route.server];
        // Only once, at the server's first service.
        let left = std::mem::take(&mut server.left);
        let server = &self.model.servers[route.server];
        let (listen, target) = (&server.listens[route.from], &server.targets[route.target]);
        let wanted = if is_one_of_many {
            format!("{}-{}", upstream.name, route.listen.port())
        } else {
            upstream.name.clone()
        };
        let mut comments = vec![format!("{}: {}", listen.place, listen.text)];
        if target.text != listen.text {
            comments.push(format!("{}: {}", target.place, target.text));
        }
        if let Some(gap) = tls_gap(route.clients_speak_tls, target.tls, backend_port) {
            remarks.push(&target.place, format!("`{}`: {gap}", target.text));
            comments.push(gap);
        }
        ServiceDraft {
            comments,
            left,
            name: naming::unique(&wanted, &mut self.made[at].service_names),
            listen: route.listen,
            is_placeholder: route.is_placeholder,
            backend_port,
            probe: probes::probe(server, target, self.folder, remarks),
            redirect: None,
        }
    }
}

/// What doesn't fit together once nobody between clients and backends ends or begins TLS.
fn tls_gap(clients_speak_tls: bool, backends_speak_tls: bool, port: u16) -> Option<String> {
    match (clients_speak_tls, backends_speak_tls) {
        (true, false) => Some(format!(
            "DOES NOT WORK YET: nginx ends TLS here, and the backends speak without it on port {port}. Give them the \
             certificate and a port with TLS, and change `backend_port` and the probe."
        )),
        (false, true) => Some(format!(
            "DOES NOT WORK YET: clients speak without TLS here, and the backends with it on port {port}. Plain HTTP on a \
             TLS port isn't answered: let clients speak TLS, or name a port without it."
        )),
        (true, true) | (false, false) => None,
    }
}

/// One backend has one `max_fails` and one `fail_timeout`: those of the first upstream.
fn tell_differences(made: &mut Made, others: &Backends, upstream: &Upstream, remarks: &mut Remarks) {
    for other in others.backends() {
        let is_it = |entry: &&mut Entry| {
            entry.backend.as_ref().is_some_and(|backend| backend.address == other.address)
        };
        let Some(entry) = made.draft.backends.iter_mut().find(is_it) else { continue };
        let limits = |backend: &BackendDraft| (backend.max_fails, backend.fail_timeout);
        if entry.backend.as_ref().map(limits) == Some(limits(other)) {
            continue;
        }
        let message = format!(
            "{} has max_fails={} and fail_timeout={} for {}; one backend has one of each, those of the first upstream",
            title(upstream),
            other.max_fails,
            Shown(other.fail_timeout),
            other.address
        );
        remarks.push(&upstream.place, &message);
        entry.comments.push(message + ".");
    }
}

/// What isn't carried over of the servers of another upstream with the same hosts.
fn tell_comments(made: &mut Made, others: &Backends) {
    for other in others.entries.iter().filter(|entry| !entry.comments.is_empty()) {
        let address = other.backend.as_ref().map(|backend| &backend.address);
        let is_it = |entry: &&mut Entry| {
            address.is_some() && entry.backend.as_ref().map(|backend| &backend.address) == address
        };
        match made.draft.backends.iter_mut().find(is_it) {
            Some(entry) => {
                let new = other.comments.iter().filter(|comment| !entry.comments.contains(comment));
                let new: Vec<String> = new.cloned().collect();
                entry.comments.extend(new);
            }
            None => made.draft.backends.push(Entry { comments: other.comments.clone(), backend: None }),
        }
    }
}
