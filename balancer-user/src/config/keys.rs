//! What each key means, and what holds where it isn't written: in words, for the schema and for `check --explain`.
//!
//! Tests hold this list against the keys that the readers know, and each default against what comes of leaving the key out.

/// What holds where a key isn't written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Otherwise {
    /// As if this were written, in TOML.
    Value(&'static str),
    /// Something that follows from the rest, in words.
    Words(&'static str),
    /// It must be written, where its table is.
    Required,
}

use Otherwise::{Required, Value, Words};

/// A key of a configuration.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    /// With its tables; `probe` stands for those of pools and of services.
    name: &'static str,
    pub(super) default: Otherwise,
    pub(super) about: &'static str,
}

const fn key(name: &'static str, default: Otherwise, about: &'static str) -> Key {
    Key { name, default, about }
}

const NOTHING: Otherwise = Words("nothing");

const KEYS: &[Key] = &[
    key("gateway", Required, "What concerns the machine as a whole"),
    key(
        "gateway.interfaces",
        Required,
        "All interfaces through which packets of clients or backends arrive: XDP is attached to each",
    ),
    key(
        "gateway.xdp_mode",
        Value("\"auto\""),
        "auto: in the driver, else behind it with a warning; native; generic",
    ),
    key("gateway.max_flows", Value("262144"), "Established flows at most"),
    key(
        "gateway.max_half_open",
        Value("65536"),
        "Handshakes at most; bounded apart, so that a SYN flood can't evict a flow",
    ),
    key(
        "gateway.idle_timeout",
        Value("\"2h5m\""),
        "An established flow without a packet for this long is forgotten",
    ),
    key(
        "gateway.notify",
        NOTHING,
        "Run for every event that wants a person, with the event as JSON on stdin",
    ),
    key("http", NOTHING, "Metrics, and the dashboard"),
    key("http.listen", Required, "Where the daemon answers HTTP"),
    key("http.token_file", NOTHING, "With it the dashboard may act; mode 0600"),
    key("pool", Required, "What fails over as one: all its services move together, in one step"),
    key("pool.name", Required, "The pool's name"),
    key(
        "pool.forwarding",
        Value("\"snat\""),
        "snat: backends see the gateway's address; dnat: they see the client's, and their route back must lead through the gateway",
    ),
    key(
        "pool.failover",
        Value("\"auto\""),
        "auto: the pool leaves a backend that is down; manual: it asks the operator",
    ),
    key(
        "pool.failback",
        Value("\"manual\""),
        "manual: stay until `balancer failback`; auto: return to the first eligible backend in order",
    ),
    key("pool.failback_delay", Value("\"0s\""), "auto only: that backend must have been up for this long"),
    key(
        "pool.on_backend_down",
        Value("\"reset\""),
        "Flows of a failed backend, once the pool has moved away: reset, or keep",
    ),
    key(
        "pool.when_all_down",
        Value("\"last\""),
        "last: keep sending to the last active backend; reject: refuse new connections",
    ),
    key(
        "pool.passive",
        Value("\"probe\""),
        "What a refused or unanswered connection attempt of a client does: probe, count as a failure, or off",
    ),
    key(
        "pool.connect_retry",
        Value("\"instant\""),
        "instant: such an attempt is sent on to the next backend at once; retransmit: when its client repeats it; off",
    ),
    key(
        "pool.connect_timeout",
        Value("\"300ms\""),
        "An attempt that is unanswered for this long is treated like a refused one",
    ),
    key(
        "pool.drain_deadline",
        Value("\"10m\""),
        "Flows that a drained backend has left after this are reset",
    ),
    key("pool.start_timeout", Value("\"60s\""), "For a cold backend to come up"),
    key(
        "pool.snat_addresses",
        Value("[]"),
        "Addresses of this gateway to send from; none: the one that the kernel would use towards the backend",
    ),
    key(
        "pool.snat_ports",
        Value("\"1024-32767,61000-65535\""),
        "Ports to send from, less those that this machine uses itself",
    ),
    key("pool.service", Required, "A listening address of the pool"),
    key("pool.service.name", Required, "The service's name"),
    key("pool.service.listen", Required, "The address and port that clients connect to"),
    key("pool.service.backend_port", Words("the port of `listen`"), "The port on the backends"),
    key(
        "pool.service.redirect_http",
        NOTHING,
        "The daemon answers plain HTTP there with 301 to this service's https URL",
    ),
    key(
        "pool.service.redirect_hosts",
        Value("[]"),
        "Hosts that it may redirect to; none: `server_name` and the listening address",
    ),
    key("probe", NOTHING, "How backends are probed; a service's own keys come before those of its pool"),
    key(
        "probe.kind",
        Value("\"tls\""),
        "tls: full handshake; https: handshake and GET; http; tcp; exec; none",
    ),
    key("probe.interval", Value("\"2s\""), "Between probes of a backend that is up"),
    key(
        "probe.fast_interval",
        Words("a quarter of `interval`"),
        "Between probes of one that may have failed, or is in probation",
    ),
    key("probe.timeout", Value("\"1s\""), "A probe that takes longer is a failure"),
    key("probe.rise", Value("1"), "Good probes in probation before a backend is up again"),
    key(
        "probe.server_name",
        Words("the backend's host name, if it has one"),
        "tls and https: SNI, and the name in the certificate; https and http: whom to ask for",
    ),
    key("probe.ca_file", Words("the system's roots"), "tls and https: whom to trust"),
    key("probe.verify", Value("true"), "tls and https: whether the certificate must be right"),
    key("probe.path", Value("\"/\""), "https and http: what to GET"),
    key("probe.expect_status", Value("\"200-399\""), "https and http: good statuses, as numbers and ranges"),
    key("probe.expect_body", Value("\"\""), "https and http: a text that must be in the body"),
    key(
        "probe.run",
        Words("none: kind = \"exec\" needs it"),
        "exec: the program and its arguments; exit code 0 is good",
    ),
    key("pool.backend", Required, "A member of the pool; order counts: backends without `backup` first"),
    key("pool.backend.name", Required, "The backend's name"),
    key("pool.backend.address", Required, "Where it is"),
    key("pool.backend.max_fails", Value("1"), "Failures within `fail_timeout` that make it down; 0: never"),
    key(
        "pool.backend.fail_timeout",
        Value("\"10s\""),
        "The window in which failures count, and how long it is down then",
    ),
    key(
        "pool.backend.fail_timeout_max",
        Words("as `fail_timeout`: no damping"),
        "Each relapse doubles the time down, up to this",
    ),
    key("pool.backend.backup", Value("false"), "Stands behind those without this flag"),
    key("pool.backend.disabled", Value("false"), "Never used"),
    key("pool.backend.cold", Value("false"), "A standby that doesn't run until the hooks start it"),
    key("pool.hook", NOTHING, "A program that is run around a change of the active backend, in this order"),
    key("pool.hook.name", Required, "What it does, for people"),
    key("pool.hook.when", Required, "before: nothing new reaches any backend until it has exited 0; after"),
    key("pool.hook.run", Required, "The program and its arguments"),
    key("pool.hook.timeout", Value("\"30s\""), "It is ended then"),
    key(
        "pool.hook.on_error",
        Value("\"hold\""),
        "hold: the change stops there until the operator decides; continue",
    ),
];

/// The key of this full name, as in `pool.service.probe.kind`.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    let of_probe = name.strip_prefix("pool.service.").or_else(|| name.strip_prefix("pool."));
    let of_probe = of_probe.filter(|rest| *rest == "probe" || rest.starts_with("probe."));
    let name = of_probe.unwrap_or(name);
    KEYS.iter().find(|key| key.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::parse;
    use super::super::shape::Shapes;
    use super::*;

    /// With every table, and every probe key allowed: kinds differ in those.
    const SMALLEST: &str = "[gateway]\ninterfaces = [\"wan0\"]\n#gateway\n[[pool]]\nname = \"p\"\n#pool\n\
        [[pool.service]]\nname = \"s\"\nlisten = \"203.0.113.10:443\"\n#pool.service\n\
        [pool.service.probe]\nkind = \"https\"\nserver_name = \"a.example\"\n#probe\n\
        [[pool.backend]]\nname = \"b\"\naddress = \"10.0.2.11\"\n#pool.backend\n\
        [[pool.hook]]\nname = \"h\"\nwhen = \"after\"\nrun = [\"/h\"]\n#pool.hook\n";

    #[test]
    fn exactly_the_keys_that_are_read_are_described() {
        let shapes = Shapes::of_all();
        let mut read: BTreeSet<&str> = BTreeSet::new();
        for (name, _) in shapes.leaves() {
            read.insert(find(&name).unwrap_or_else(|| panic!("{name} is not described")).name);
        }
        let tables = ["gateway", "http", "pool", "pool.service", "probe", "pool.backend", "pool.hook"];
        let described: BTreeSet<&str> =
            KEYS.iter().map(|key| key.name).filter(|name| !tables.contains(name)).collect();
        assert_eq!(described, read);
        assert!(tables.iter().all(|table| find(table).is_some()));
    }

    #[test]
    fn exactly_the_required_keys_have_no_default() {
        let shapes = Shapes::of_all();
        for (name, _) in shapes.leaves() {
            let is_required = find(&name).is_some_and(|key| key.default == Required);
            assert_eq!(is_required, shapes.is_required(&name), "{name}");
        }
    }

    #[test]
    fn a_default_that_is_written_changes_nothing() {
        let config = |text: &str| parse("f", text).map(|parsed| parsed.as_written());
        let plain = config(SMALLEST).expect("the smallest configuration is right");
        for key in KEYS {
            let Value(value) = key.default else { continue };
            let (table, name) = key.name.rsplit_once('.').expect("a table");
            if key.name == "probe.kind" {
                continue;
            }
            let marker = format!("#{table}\n");
            assert!(SMALLEST.contains(&marker), "{table}");
            let written = SMALLEST.replace(&marker, &format!("{name} = {value}\n"));
            let written = config(&written).unwrap_or_else(|errors| panic!("{errors}"));
            let with_same_lines = |mut config: super::super::Config| {
                config.warnings.clear();
                config
            };
            assert_eq!(with_same_lines(written), with_same_lines(plain.clone()), "{} = {value}", key.name);
        }
    }
}
