//! `check`: validates the configuration as a start would, and changes nothing.

use std::fmt::Write as _;
use std::path::Path;

use crate::exit::{Exit, Failure, print, say};

use super::start;

/// Prints what the configuration comes to, and its warnings; or fails with every error.
pub fn check(config: &Path, pin_dir: &Path, no_resolve: bool) -> Result<Exit, Failure> {
    let checked = start::configuration(config, pin_dir, no_resolve)?;
    for warning in &checked.warnings {
        say(&format!("{}:{}: warning: {}", config.display(), warning.line, warning.message));
    }
    let mut text = format!("{}: the configuration is valid\n", config.display());
    for pool in &checked.pools {
        let ports: usize = pool.snat_ports.iter().map(ExactSizeIterator::len).sum();
        let _ = writeln!(
            text,
            "pool {}: {} services, {} backends; {ports} SNAT ports, so at most {ports} flows at once to each port of \
             a backend",
            pool.name,
            pool.services.len(),
            pool.backends.len(),
        );
    }
    print(&text)?;
    Ok(Exit::Ok)
}
