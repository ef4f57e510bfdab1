//! Plain HTTP that leads to services: which redirects there have to be, and those that can't be.
//!
//! Deliberately not here: sockets and answers (`redirect`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use tokio::net::TcpListener;

use crate::config::Config;
use crate::control::server::NotReloaded;
use crate::redirect::{self, Target};

use super::Daemon;
use super::reload::Cause;

/// All that the configuration wants.
pub(super) fn wanted(config: &Config) -> BTreeMap<SocketAddr, Target> {
    let services = config.pools.iter().flat_map(|pool| &pool.services);
    let redirects = services.filter_map(|service| {
        let redirect = service.redirect.as_ref()?;
        Some((redirect.listen, Target::new(&redirect.hosts, service.listen)))
    });
    redirects.collect()
}

/// Listens where nobody has until now, before a configuration is accepted. What an operator wants and can't have is
/// refused; what comes by itself goes on without, and is tried again.
pub(super) fn listen(
    config: &Config,
    known: &BTreeSet<SocketAddr>,
    cause: &Cause,
) -> Result<BTreeMap<SocketAddr, TcpListener>, NotReloaded> {
    let mut listeners = BTreeMap::new();
    for address in wanted(config).into_keys().filter(|address| !known.contains(address)) {
        match redirect::bind(address) {
            Ok(listener) => drop(listeners.insert(address, listener)),
            Err(error) if matches!(cause, Cause::Verb(..) | Cause::Unwaited(_)) => {
                return Err(NotReloaded::Refused(format!(
                    "pool.service.redirect_http: {address}: {error}: write an address of this gateway and a port that \
                     nobody has (`ss -ltnp` shows who)"
                )));
            }
            Err(_) => {}
        }
    }
    Ok(listeners)
}

impl Daemon {
    /// Has them as the configuration wants them now.
    pub(super) fn redirect(&mut self) {
        let wanted = wanted(&self.parts.config);
        let listeners = std::mem::take(&mut self.reloads.listeners.redirects);
        self.redirects.become_these(wanted, listeners);
    }

    /// Those that can't be, by name.
    pub(super) fn redirect_troubles(&self) -> impl Iterator<Item = (String, String)> {
        self.redirects.problems().map(|(address, why)| {
            let words = format!(
                "redirect_http {address}: nobody answers there: {why} (`ss -ltnp` shows who has it); it is tried again"
            );
            (format!("redirect_http {address}"), words)
        })
    }
}
