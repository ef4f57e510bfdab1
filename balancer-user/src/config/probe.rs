//! `[pool.probe]` and `[pool.service.probe]`: two tables that are merged key by key, then become one [`Probe`].

use std::path::PathBuf;
use std::time::Duration;

use super::limits::{RISE, SHORTEST_DURATION, SHORTEST_INTERVAL};
use super::notes::{Notes, Says};
use super::problem::Fault;
use super::question::QuestionKeys;
use super::source::{Located, Span};
use super::table::Table;
use super::{Check, Probe, Verify, names};
use crate::duration;
use crate::program::CommandLine;

const INTERVAL: Duration = Duration::from_secs(2);
const TIMEOUT: Duration = Duration::from_secs(1);
const RISE_DEFAULT: u32 = 1;

/// How a backend is probed, as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tls,
    Https,
    Http,
    Tcp,
    Exec,
    None,
}

const KINDS: [(&str, Kind); 6] = [
    ("tls", Kind::Tls),
    ("https", Kind::Https),
    ("http", Kind::Http),
    ("tcp", Kind::Tcp),
    ("exec", Kind::Exec),
    ("none", Kind::None),
];

/// Keys that mean something to each kind that probes at all.
const COMMON: [&str; 4] = ["interval", "fast_interval", "timeout", "rise"];

/// Keys that mean something to some kinds only.
const SPECIAL: &[(&str, &[Kind])] = &[
    ("server_name", &[Kind::Tls, Kind::Https, Kind::Http]),
    ("ca_file", &[Kind::Tls, Kind::Https]),
    ("verify", &[Kind::Tls, Kind::Https]),
    ("path", &[Kind::Https, Kind::Http]),
    ("expect_status", &[Kind::Https, Kind::Http]),
    ("expect_body", &[Kind::Https, Kind::Http]),
    ("run", &[Kind::Exec]),
];

impl Kind {
    fn name(self) -> &'static str {
        KINDS.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }
}

/// A key and where it stands.
#[derive(Debug, Clone)]
struct WrittenKey {
    key: String,
    /// With its tables.
    path: String,
    span: Span,
}

/// A table of probe keys as written, each with its place.
#[derive(Debug, Default, Clone)]
pub(super) struct ProbeKeys {
    /// The table's path and header; none when it isn't written.
    table: Option<(String, Span)>,
    kind: Option<Located<Kind>>,
    interval: Option<Located<Duration>>,
    fast_interval: Option<Located<Duration>>,
    timeout: Option<Located<Duration>>,
    rise: Option<Located<u32>>,
    server_name: Option<Located<String>>,
    ca_file: Option<Located<PathBuf>>,
    verify: Option<Located<bool>>,
    question: QuestionKeys,
    run: Option<CommandLine>,
    /// All keys that are written, right or wrong.
    written: Vec<WrittenKey>,
}

impl ProbeKeys {
    /// Reads the table `probe` of a pool or a service, if there is one.
    pub(super) fn read(outer: &mut Table<'_>) -> Self {
        let Some(mut table) = outer.table("probe") else { return Self::default() };
        let written = table
            .written()
            .map(|(key, span)| WrittenKey { key: key.to_owned(), path: table.key(key), span })
            .collect();
        let keys = Self {
            table: Some((outer.key("probe"), table.span())),
            kind: table.choice("kind", &KINDS),
            interval: table.duration("interval", SHORTEST_INTERVAL),
            fast_interval: table.duration("fast_interval", SHORTEST_INTERVAL),
            timeout: table.duration("timeout", SHORTEST_DURATION),
            rise: table.number("rise", 1..=RISE),
            server_name: table.text("server_name", names::server),
            ca_file: table.text("ca_file", names::path),
            verify: table.flag("verify"),
            question: QuestionKeys::read(&mut table),
            run: names::command(&mut table, "run"),
            written,
        };
        table.finish();
        keys
    }

    /// These keys, and those of the pool where these are silent; a wrong one isn't silent.
    fn over(mut self, pool: &Self) -> Self {
        fn inherit<T: Clone>(own: &mut Option<Located<T>>, pool: &Option<Located<T>>, silent: bool) {
            if silent {
                own.clone_from(pool);
            }
        }
        let own: Vec<String> = self.written.iter().map(|written| written.key.clone()).collect();
        let silent = |key: &str| !own.iter().any(|written| written == key);
        inherit(&mut self.kind, &pool.kind, silent("kind"));
        inherit(&mut self.interval, &pool.interval, silent("interval"));
        inherit(&mut self.fast_interval, &pool.fast_interval, silent("fast_interval"));
        inherit(&mut self.timeout, &pool.timeout, silent("timeout"));
        inherit(&mut self.rise, &pool.rise, silent("rise"));
        inherit(&mut self.server_name, &pool.server_name, silent("server_name"));
        inherit(&mut self.ca_file, &pool.ca_file, silent("ca_file"));
        inherit(&mut self.verify, &pool.verify, silent("verify"));
        let (question, pools) = (&mut self.question, &pool.question);
        inherit(&mut question.path, &pools.path, silent("path"));
        inherit(&mut question.expect_status, &pools.expect_status, silent("expect_status"));
        inherit(&mut question.expect_body, &pools.expect_body, silent("expect_body"));
        if silent("run") {
            self.run.clone_from(&pool.run);
        }
        self.written.extend(pool.written.iter().filter(|written| silent(&written.key)).cloned());
        self.table = self.table.or_else(|| pool.table.clone());
        self
    }

    /// None when the kind is written wrongly: what else would follow from it is unknown.
    fn kind(&self) -> Option<Kind> {
        match &self.kind {
            Some(kind) => Some(kind.value),
            None => self.written("kind").is_none().then_some(Kind::Tls),
        }
    }

    fn written(&self, key: &str) -> Option<&WrittenKey> {
        self.written.iter().find(|written| written.key == key)
    }

    /// The full name of a key, written or missing.
    fn path(&self, key: &str) -> String {
        match (self.written(key), &self.table) {
            (Some(written), _) => written.path.clone(),
            (None, Some((table, _))) => format!("{table}.{key}"),
            (None, None) => format!("pool.service.probe.{key}"),
        }
    }
}

/// The probes of a pool's services, in order, from the pool's keys and each service's own keys and header. None where
/// an error was noted. `are_named`: all backends have a host name, which is the name in the certificate unless one is written.
pub(super) fn resolve(
    pool: &ProbeKeys,
    services: Vec<(ProbeKeys, Span)>,
    are_named: bool,
    notes: &Notes<'_>,
) -> Vec<Option<Probe>> {
    let kinds: Vec<Option<Kind>> = services.iter().map(|(own, _)| own.clone().over(pool).kind()).collect();
    // A key of the pool must mean something to one of its services.
    if let Some(known) = kinds.iter().copied().collect::<Option<Vec<_>>>() {
        refuse_misfits(pool, &known, notes);
    }
    services
        .into_iter()
        .zip(kinds)
        .map(|((own, header), kind)| {
            let kind = kind?;
            refuse_misfits(&own, &[kind], notes);
            probe(&own.over(pool), kind, header, are_named, notes)
        })
        .collect()
}

/// Refuses the keys that mean nothing to any of these kinds: the writer expects something of them.
fn refuse_misfits(keys: &ProbeKeys, kinds: &[Kind], notes: &Notes<'_>) {
    for (key, fitting) in SPECIAL {
        let Some(written) = keys.written(key) else { continue };
        let Some(kind) = kinds.first().filter(|_| !kinds.iter().any(|kind| fitting.contains(kind))) else {
            continue;
        };
        let needed =
            fitting.iter().map(|kind| format!("\"{}\"", kind.name())).collect::<Vec<_>>().join(" or ");
        let message = format!("`{key}` means nothing to a probe of the kind \"{}\"", kind.name());
        let instead = format!("leave it out, or write kind = {needed}");
        notes.error(written.span, written.path.clone(), Fault::new(message, instead));
    }
}

fn probe(keys: &ProbeKeys, kind: Kind, header: Span, are_named: bool, notes: &Notes<'_>) -> Option<Probe> {
    tell_left_out(keys, kind, header, notes);
    let interval = keys.interval.as_ref().map_or(INTERVAL, |interval| interval.value);
    let fast_interval = fast_interval(keys, interval, notes);
    let check = match kind {
        Kind::Tls => {
            let (server_name, verify) = tls(keys, header, are_named, notes)?;
            Check::Tls { server_name, verify }
        }
        Kind::Https => {
            let (server_name, verify) = tls(keys, header, are_named, notes)?;
            Check::Https { server_name, verify, question: keys.question.question() }
        }
        Kind::Http => {
            let server_name = keys.server_name.as_ref().map(|name| name.value.clone());
            Check::Http { server_name, question: keys.question.question() }
        }
        Kind::Tcp => Check::Tcp,
        Kind::Exec => exec(keys, header, notes)?,
        Kind::None => Check::None,
    };
    Some(Probe {
        check,
        interval,
        fast_interval,
        timeout: keys.timeout.as_ref().map_or(TIMEOUT, |timeout| timeout.value),
        rise: keys.rise.as_ref().map_or(RISE_DEFAULT, |rise| rise.value),
    })
}

/// What neither the service nor its pool says.
fn tell_left_out(keys: &ProbeKeys, kind: Kind, header: Span, notes: &Notes<'_>) {
    let common = COMMON.into_iter().filter(|_| kind != Kind::None);
    let special = SPECIAL.iter().filter(|(_, fitting)| fitting.contains(&kind)).map(|(key, _)| *key);
    for key in std::iter::once("kind").chain(common).chain(special) {
        if keys.written(key).is_none() {
            notes.left_out(header, "pool.service.probe", key);
        }
    }
}

/// The program to run.
fn exec(keys: &ProbeKeys, header: Span, notes: &Notes<'_>) -> Option<Check> {
    // A wrong `run` has its own error.
    if keys.written("run").is_none() {
        let span = keys.kind.as_ref().map_or(header, |kind| kind.span);
        let instead = "write for example run = [\"/etc/balancer/probes/check\"]";
        notes.error(span, keys.path("run"), Fault::new("is missing", instead));
    }
    Some(Check::Exec { run: keys.run.clone()? })
}

/// The server name and whom to trust.
fn tls(
    keys: &ProbeKeys,
    header: Span,
    are_named: bool,
    notes: &Notes<'_>,
) -> Option<(Option<String>, Verify)> {
    let verify = match (&keys.verify, &keys.ca_file) {
        (Some(Located { value: false, .. }), ca_file) => {
            if let Some(ca_file) = ca_file {
                notes.warning(ca_file.span, "`ca_file` is not used, because of verify = false");
            }
            Verify::Off
        }
        (_, Some(ca_file)) => {
            notes.claim(ca_file.span, keys.path("ca_file"), Says::CaFile(ca_file.value.clone()));
            Verify::CaFile(ca_file.value.clone())
        }
        (_, None) => Verify::SystemRoots,
    };
    // A wrong server_name has its own error.
    if verify != Verify::Off && !are_named && keys.written("server_name").is_none() {
        let span = keys.table.as_ref().map_or(header, |(_, span)| *span);
        notes.error(
            span,
            keys.path("server_name"),
            Fault::new(
                "is missing: a TLS probe verifies the certificate, and backends are given by IP address",
                "write server_name = \"the name in the certificate\", or verify = false, or kind = \"tcp\"",
            ),
        );
        return None;
    }
    Some((keys.server_name.as_ref().map(|name| name.value.clone()), verify))
}

/// A quarter of the interval, unless written; never longer than the interval.
fn fast_interval(keys: &ProbeKeys, interval: Duration, notes: &Notes<'_>) -> Duration {
    let Some(written) = &keys.fast_interval else { return (interval / 4).max(SHORTEST_INTERVAL) };
    // A wrong interval has its own error.
    let known = keys.interval.is_some() || keys.written("interval").is_none();
    if known && written.value > interval {
        let message = format!(
            "\"{}\" is longer than `interval`, which is \"{}\"",
            duration::Shown(written.value),
            duration::Shown(interval)
        );
        notes.error(
            written.span,
            keys.path("fast_interval"),
            Fault::new(message, "leave it out for a quarter of `interval`, or write less"),
        );
    }
    written.value
}
