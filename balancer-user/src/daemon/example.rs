//! A configuration for tests, held against a machine that has what it needs.

use crate::config::{self, Config, Missing, Names, Surroundings};

/// One pool, one service, two backends.
pub(super) const BASE: &str = r#"
[gateway]
interfaces = ["wan0", "lan0"]
[[pool]]
name = "passwords"
[[pool.service]]
name = "web"
listen = "203.0.113.10:443"
backend_port = 10001
[pool.probe]
kind = "tcp"
[[pool.backend]]
name = "server1"
address = "10.0.2.11"
[[pool.backend]]
name = "server2"
address = "10.0.2.12"
"#;

pub(super) fn config(text: &str) -> Config {
    let machine = Surroundings {
        interfaces: ["wan0", "wan1", "lan0"].map(str::to_owned).into(),
        addresses: [[203, 0, 113, 10].into()].into(),
        ephemeral_ports: 32768..=60999,
        reserved_ports: Vec::new(),
    };
    let parsed = config::parse("test", text).unwrap_or_else(|errors| panic!("{errors}"));
    parsed.check(&machine, Missing::Refuse, &Names::LeftAlone).unwrap_or_else(|errors| panic!("{errors}"))
}

/// After these replacements.
pub(super) fn replaced(replaced: &[(&str, &str)]) -> Config {
    config(&replaced.iter().fold(BASE.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1)
    }))
}
