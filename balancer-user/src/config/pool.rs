//! `[[pool]]`: what fails over as one, and what must hold between its parts and between pools.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::addresses::Place;
use super::attempts::AttemptKeys;
use super::backend::BackendKeys;
use super::hook::HookKeys;
use super::limits::{BACKENDS, HOOKS, POOLS, SERVICES, SHORTEST_DURATION};
use super::notes::{Notes, Says};
use super::probe::{self, ProbeKeys};
use super::problem::Fault;
use super::service::ServiceKeys;
use super::snat::SnatKeys;
use super::source::{Located, Span};
use super::table::Table;
use super::{Check, Failback, Failover, HookWhen, OnBackendDown, Pool, Probe, WhenAllDown, names};

/// As the contract says.
const DRAIN_DEADLINE: Duration = Duration::from_secs(600);
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A name or an address that may stand only once somewhere, with the key that holds it.
type Mention<T> = (Located<T>, &'static str);

/// What may not collide between pools.
#[derive(Debug, Default)]
struct Mentioned {
    pools: Vec<Mention<String>>,
    listens: Vec<Mention<SocketAddr>>,
    backends: Vec<Located<IpAddr>>,
    sources: Vec<Located<IpAddr>>,
}

/// Reads all pools; none where an error was noted. `http`: where the daemon listens itself.
pub(super) fn read_all(top: &mut Table<'_>, http: Option<SocketAddr>) -> Option<Vec<Pool>> {
    let notes = top.notes();
    let tables = top.tables("pool", 1..=POOLS)?;
    if tables.is_empty() {
        let instead = "write [[pool]] with a name, a [[pool.service]] and a [[pool.backend]]";
        notes.error(top.span(), "pool", Fault::new("there is no pool", instead));
    }
    let mut mentioned = Mentioned::default();
    let pools: Vec<Option<Pool>> =
        tables.into_iter().enumerate().map(|(index, table)| read(table, index, &mut mentioned)).collect();
    unique(&mentioned.pools, "pool", notes);
    unique(&mentioned.listens, "listening address", notes);
    refuse_own_addresses(&mentioned, notes);
    if let Some(http) = http {
        refuse_where_http_is(&mentioned.listens, http, notes);
    }
    pools.into_iter().collect()
}

fn read(mut table: Table<'_>, index: usize, mentioned: &mut Mentioned) -> Option<Pool> {
    let notes = table.notes();
    let name = table.required_text("name", "name = \"passwords\"", names::name);
    let failback = failback(&mut table);
    let policies = Policies::read(&mut table);
    let attempts = AttemptKeys::read(&mut table);
    let snat = SnatKeys::read(&mut table, index);
    let probe_keys = ProbeKeys::read(&mut table);
    let services = table.tables("service", 1..=SERVICES).map(|tables| each(tables, ServiceKeys::read));
    let backends = table.tables("backend", 1..=BACKENDS).map(|tables| each(tables, BackendKeys::read));
    let hooks = table.tables("hook", 0..=HOOKS).map_or(Vec::new(), |tables| each(tables, HookKeys::read));
    let has_steps = hooks.iter().any(|hook| hook.when == Some(HookWhen::Before));
    if let Some(Located { value: OnBackendDown::Keep, span }) = policies.on_backend_down
        && has_steps
    {
        refuse_keep_with_hooks(&table, span);
    }
    not_empty(&table, services.as_deref(), backends.as_deref());
    let (services, backends) = (services.unwrap_or_default(), backends.unwrap_or_default());
    members(notes, &services, &backends, &snat.addresses);
    let names: Vec<_> =
        hooks.iter().filter_map(|hook| Some((hook.name.clone()?, "pool.hook.name"))).collect();
    unique(&names, "hook of this pool", notes);
    table.finish();

    mentioned.pools.extend(name.clone().map(|name| (name, "pool.name")));
    for service in &services {
        mentioned.listens.extend(service.listen.clone().map(|listen| (listen, "pool.service.listen")));
        let redirect = service.redirect_http.clone();
        mentioned.listens.extend(redirect.map(|listen| (listen, "pool.service.redirect_http")));
    }
    mentioned.backends.extend(backends.iter().filter_map(BackendKeys::address));
    mentioned.sources.extend(snat.addresses.iter().cloned());

    let owners = services.iter().map(|service| (service.probe.clone(), service.header)).collect();
    let probes = probe::resolve(&probe_keys, owners, claim_hosts(&backends, index, notes), notes);
    refuse_cold_without_probe(&backends, &probes, notes);
    if !has_steps {
        warn_of_cold_without_steps(&backends, notes);
    }
    attempts.judge(policies.failover, &probes, notes);
    services.iter().zip(&probes).for_each(|(service, probe)| service.judge(probe.as_ref(), notes));
    let services = services.into_iter().zip(probes).map(|(keys, probe)| keys.into_service(probe));
    Some(Pool {
        name: name?.value,
        forwarding: snat.forwarding,
        failover: policies.failover,
        failback,
        when_all_down: policies.when_all_down,
        on_backend_down: policies.on_backend_down.map_or(OnBackendDown::Reset, |found| found.value),
        passive: attempts.passive(),
        connect_retry: attempts.retry(),
        connect_timeout: attempts.timeout(),
        drain_deadline: policies.drain_deadline,
        start_timeout: policies.start_timeout,
        snat_addresses: snat.addresses.into_iter().map(|address| address.value).collect(),
        snat_ports: snat.ports,
        services: services.collect::<Option<_>>()?,
        backends: backends.into_iter().map(BackendKeys::into_backend).collect::<Option<_>>()?,
        hooks: hooks.into_iter().map(HookKeys::into_hook).collect::<Option<_>>()?,
    })
}

/// Claims what names lead to, which is asked later; says whether all backends have one.
fn claim_hosts(backends: &[BackendKeys], pool: usize, notes: &Notes<'_>) -> bool {
    let mut are_all = true;
    for (backend, keys) in backends.iter().enumerate() {
        match &keys.place {
            Some(Located { value: Place::Host(_), span }) => {
                notes.claim(*span, "pool.backend.address", Says::BackendHost { pool, backend });
            }
            Some(Located { value: Place::Ip(_), .. }) => are_all = false,
            // It has its own error.
            None => {}
        }
    }
    are_all
}

fn failback(table: &mut Table<'_>) -> Failback {
    let auto = match table.choice("failback", &[("manual", false), ("auto", true)]) {
        Some(found) => found.value,
        // A wrong value has its own error; its delay may be right.
        None => table.has("failback"),
    };
    let delay = table.duration("failback_delay", Duration::ZERO);
    match (auto, delay) {
        (true, delay) => Failback::Auto { delay: delay.map_or(Duration::ZERO, |delay| delay.value) },
        (false, Some(delay)) if !delay.value.is_zero() => {
            let message = "means nothing with failback = \"manual\", which waits for the operator";
            let instead = "leave it out, or write failback = \"auto\"";
            table.error(delay.span, "failback_delay", Fault::new(message, instead));
            Failback::Manual
        }
        (false, _) => Failback::Manual,
    }
}

/// What the pool does when backends fail, and for how long it waits.
struct Policies {
    failover: Failover,
    when_all_down: WhenAllDown,
    on_backend_down: Option<Located<OnBackendDown>>,
    drain_deadline: Duration,
    start_timeout: Duration,
}

impl Policies {
    fn read(table: &mut Table<'_>) -> Self {
        const FAILOVER: [(&str, Failover); 2] = [("auto", Failover::Auto), ("manual", Failover::Manual)];
        const WHEN_ALL_DOWN: [(&str, WhenAllDown); 2] =
            [("last", WhenAllDown::Last), ("reject", WhenAllDown::Reject)];
        const ON_BACKEND_DOWN: [(&str, OnBackendDown); 2] =
            [("reset", OnBackendDown::Reset), ("keep", OnBackendDown::Keep)];
        let mut duration =
            |key, default| table.duration(key, SHORTEST_DURATION).map_or(default, |found| found.value);
        let drain_deadline = duration("drain_deadline", DRAIN_DEADLINE);
        let start_timeout = duration("start_timeout", START_TIMEOUT);
        Self {
            failover: table.choice("failover", &FAILOVER).map_or(Failover::Auto, |found| found.value),
            when_all_down: table
                .choice("when_all_down", &WHEN_ALL_DOWN)
                .map_or(WhenAllDown::Last, |found| found.value),
            on_backend_down: table.choice("on_backend_down", &ON_BACKEND_DOWN),
            drain_deadline,
            start_timeout,
        }
    }
}

/// A cold standby is started and then waited for: without a probe it would never be seen to be up.
fn refuse_cold_without_probe(backends: &[BackendKeys], probes: &[Option<Probe>], notes: &Notes<'_>) {
    let is_unprobed = |probe: &Option<Probe>| matches!(probe, Some(Probe { check: Check::None, .. }));
    if !probes.iter().all(is_unprobed) {
        return;
    }
    for cold in backends.iter().filter_map(|backend| backend.cold.as_ref()) {
        let message = "nothing would tell when a cold standby is up: no service of the pool is probed";
        let instead = "leave it out, or probe a service";
        notes.error(cold.span, "pool.backend.cold", Fault::new(message, instead));
    }
}

fn warn_of_cold_without_steps(backends: &[BackendKeys], notes: &Notes<'_>) {
    for cold in backends.iter().filter_map(|backend| backend.cold.as_ref()).filter(|cold| cold.value) {
        let message = "no `before` hook starts a cold standby of this pool: unless something else does, a change to it is held \
                       after start_timeout";
        notes.warning(cold.span, format!("pool.backend.cold: {message}"));
    }
}

fn refuse_keep_with_hooks(table: &Table<'_>, span: Span) {
    let message = "\"keep\" can't stand in a pool with `before` hooks: they run when nothing reaches the old backend \
                   any more";
    table.error(span, "on_backend_down", Fault::new(message, "write \"reset\", or run the hooks `after`"));
}

fn each<'t, T>(tables: Vec<Table<'t>>, read: fn(Table<'t>) -> T) -> Vec<T> {
    tables.into_iter().map(read).collect()
}

/// A pool without a service or without a backend does nothing. None: what stands there has its own error.
fn not_empty(table: &Table<'_>, services: Option<&[ServiceKeys]>, backends: Option<&[BackendKeys]>) {
    if services.is_some_and(<[_]>::is_empty) {
        let instead = "write [[pool.service]] with a name and a listen address";
        table.error_of_table(Fault::new("the pool has no service: nothing listens", instead));
    }
    let Some(backends) = backends else { return };
    if backends.is_empty() {
        let instead = "write [[pool.backend]] with a name and an address";
        table.error_of_table(Fault::new("the pool has no backend: there is nowhere to send flows", instead));
    } else if backends.iter().all(|backend| backend.disabled) {
        let instead = "leave out `disabled` in one of them";
        table.error_of_table(Fault::new("all backends of the pool are disabled", instead));
    }
}

/// What must hold between the parts of one pool.
fn members(
    notes: &Notes<'_>,
    services: &[ServiceKeys],
    backends: &[BackendKeys],
    sources: &[Located<IpAddr>],
) {
    let names: Vec<_> =
        services.iter().filter_map(|s| Some((s.name.clone()?, "pool.service.name"))).collect();
    unique(&names, "service of this pool", notes);
    let names: Vec<_> =
        backends.iter().filter_map(|b| Some((b.name.clone()?, "pool.backend.name"))).collect();
    unique(&names, "backend of this pool", notes);
    let addresses: Vec<_> =
        backends.iter().filter_map(|b| Some((b.address()?, "pool.backend.address"))).collect();
    unique(&addresses, "backend's address in this pool", notes);
    let sources: Vec<_> = sources.iter().map(|source| (source.clone(), "pool.snat_addresses")).collect();
    unique(&sources, "source address of this pool", notes);
    let listens = services.iter().filter_map(|service| {
        let listen = service.listen.as_ref()?;
        Some((Located { value: listen.value.ip(), span: listen.span }, "pool.service.listen"))
    });
    one_family(&listens.chain(addresses).chain(sources).collect::<Vec<_>>(), notes);
}

/// IPv4 isn't translated to IPv6 or back: all addresses of a pool are of the first one's family.
fn one_family(addresses: &[Mention<IpAddr>], notes: &Notes<'_>) {
    let Some(((first, _), others)) = addresses.split_first() else { return };
    let family = |address: IpAddr| if address.is_ipv4() { "IPv4" } else { "IPv6" };
    for (Located { value, span }, key) in
        others.iter().filter(|(address, _)| address.value.is_ipv4() != first.value.is_ipv4())
    {
        let message = format!(
            "{value} is {}, but {} on line {} is {}",
            family(*value),
            first.value,
            notes.line(first.span),
            family(first.value)
        );
        let instead = "write addresses of one family in one pool; a pool of its own serves the other family";
        notes.error(*span, *key, Fault::new(message, instead));
    }
}

/// A backend that is a listening address would send every flow in a circle; answers to a source address that is a
/// backend's would never come back.
fn refuse_own_addresses(mentioned: &Mentioned, notes: &Notes<'_>) {
    let listens: BTreeMap<IpAddr, Span> =
        mentioned.listens.iter().rev().map(|(listen, _)| (listen.value.ip(), listen.span)).collect();
    for backend in &mentioned.backends {
        if let Some(listen) = listens.get(&backend.value) {
            let message = format!(
                "{} is the address that clients connect to, on line {}",
                backend.value,
                notes.line(*listen)
            );
            notes.error(
                backend.span,
                "pool.backend.address",
                Fault::new(message, "write the address of the backend itself"),
            );
        }
    }
    let backends: BTreeMap<IpAddr, Span> =
        mentioned.backends.iter().rev().map(|backend| (backend.value, backend.span)).collect();
    for source in &mentioned.sources {
        if let Some(backend) = backends.get(&source.value) {
            let message =
                format!("{} is a backend's address, on line {}", source.value, notes.line(*backend));
            let instead = "write an address of this gateway";
            notes.error(source.span, "pool.snat_addresses", Fault::new(message, instead));
        }
    }
}

/// A redirect is a socket of the daemon, too; a service takes an address from the dashboard's.
fn refuse_where_http_is(listens: &[Mention<SocketAddr>], http: SocketAddr, notes: &Notes<'_>) {
    for (Located { value, span }, key) in listens {
        let is_redirect = *key == "pool.service.redirect_http";
        let on_all = is_redirect && http.ip().is_unspecified() && http.port() == value.port();
        if *value == http || on_all {
            let message = format!("{value} is where [http] listens ({http})");
            notes.error(*span, *key, Fault::new(message, "write another address or port in one of them"));
        }
    }
}

/// Notes each repetition, and where the first one stands.
fn unique<T: Ord + ToString>(mentions: &[Mention<T>], what: &str, notes: &Notes<'_>) {
    let mut seen: BTreeMap<&T, Span> = BTreeMap::new();
    for (mention, key) in mentions {
        match seen.get(&mention.value) {
            Some(first) => {
                let shown = mention.value.to_string();
                let message = format!("`{shown}` is already a {what}, on line {}", notes.line(*first));
                notes.error(mention.span, *key, Fault::new(message, "write another one"));
            }
            None => {
                seen.insert(&mention.value, mention.span);
            }
        }
    }
}
