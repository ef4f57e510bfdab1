//! Prometheus's own checker, by which a test has the alert rules read: the system's, or that of Debian's package, unpacked.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::unpack::unpack;
use crate::run::{find, target};

/// If it is there.
pub(crate) fn promtool() -> Option<PathBuf> {
    let own = unpacked().join("usr/bin/promtool");
    find("promtool").or_else(|| own.is_file().then_some(own))
}

pub(super) fn install() -> Result<()> {
    unpack(&["prometheus"], &unpacked()).context("promtool")
}

fn unpacked() -> PathBuf {
    target().join("tools/prometheus")
}
