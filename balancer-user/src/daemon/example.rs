//! The tests' configuration, held against a machine that has what it needs.

use std::collections::BTreeSet;

use crate::config::{self, Config, KernelPorts, Missing, Names, Surroundings, example};

pub(super) use crate::config::example::TWO_BACKENDS as BASE;

pub(super) fn config(text: &str) -> Config {
    let machine = Surroundings {
        interfaces: ["wan0", "wan1", "lan0"].map(str::to_owned).into(),
        headless: BTreeSet::new(),
        addresses: [[203, 0, 113, 10].into()].into(),
        ports: KernelPorts { ephemeral: 32768..=60999, reserved: Vec::new() },
    };
    let parsed = config::parse("test", text).unwrap_or_else(|errors| panic!("{errors}"));
    parsed.check(&machine, Missing::Refuse, &Names::LeftAlone).unwrap_or_else(|errors| panic!("{errors}"))
}

/// After these replacements.
pub(super) fn replaced(replaced: &[(&str, &str)]) -> Config {
    config(&example::replaced(replaced))
}
