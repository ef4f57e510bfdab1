//! The iron rule, watched in every test: no packet of a service reaches the gateway's own stack, and none is answered
//! by it.
//!
//! Counters of nft, which sees nothing of what XDP redirects or drops, and everything that it passes. They look at
//! what comes in before routing, and at what the gateway sends: a VIP's service, and a SNAT address with a port of
//! `snat_ports` towards a backend's port. Loopback is left out: a client on the gateway itself is none of balancer's.
//! Watched is the whole life of a site. Without a program on the interfaces clients must be silent, or the test has to
//! say so by [`StackWatch::forget`].

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::lab::{Family, Host, Lab};

use super::configuration::{Forwarding, Pool};

const TABLE: &str = "inet stack_watch";

/// The default of `snat_ports`; the gateway's own connections, the probes among them, have ports between.
const SNAT_PORTS: &str = "{ 1024-32767, 61000-65535 }";

/// Counters in the gateway's stack.
#[derive(Debug)]
pub struct StackWatch {
    gateway: Host,
}

impl StackWatch {
    /// Starts to count, for these pools.
    ///
    /// # Errors
    /// When nft refuses.
    pub fn start(lab: &Lab, pools: &[Pool]) -> Result<Self> {
        let mut script = format!(
            "add table {TABLE}
             add chain {TABLE} in {{ type filter hook prerouting priority -400; }}
             add chain {TABLE} out {{ type filter hook output priority -400; }}
             add rule {TABLE} in iifname lo accept
             add rule {TABLE} out oifname lo accept\n"
        );
        for pool in pools {
            for (counter, chain, condition) in conditions(lab, pool) {
                script += &format!(
                    "add counter {TABLE} {counter}\nadd rule {TABLE} {chain} {condition} counter name {counter}\n"
                );
            }
        }
        let gateway = lab.gateway().clone();
        gateway.run(["nft", &script]).context("watch the gateway's stack")?;
        Ok(Self { gateway })
    }

    /// Packets seen so far, by what they were; what was never seen isn't there.
    ///
    /// # Errors
    /// When nft fails, or says something else than expected.
    pub fn seen(&self) -> Result<BTreeMap<String, u64>> {
        let words = ["nft", "-j", "list", "counters", "table"].into_iter().chain(TABLE.split(' '));
        let told: Value = serde_json::from_slice(&self.gateway.run(words)?.stdout)?;
        let counters = told["nftables"].as_array().context("nft's list")?.iter();
        let counters: BTreeMap<_, _> = counters
            .filter_map(|one| Some((one["counter"]["name"].as_str()?, one["counter"]["packets"].as_u64()?)))
            .collect();
        ensure!(!counters.is_empty(), "nft has no counters: {told}");
        let seen = counters.into_iter().filter(|(_, packets)| *packets > 0);
        Ok(seen.map(|(name, packets)| (name.to_owned(), packets)).collect())
    }

    /// Counts from 0 again: what was seen so far was meant to be.
    ///
    /// # Errors
    /// When nft fails.
    pub fn forget(&self) -> Result<()> {
        let words = ["nft", "reset", "counters", "table"].into_iter().chain(TABLE.split(' '));
        self.gateway.run(words).map(drop)
    }
}

/// Name of the counter, chain, and condition.
fn conditions(lab: &Lab, pool: &Pool) -> Vec<(String, &'static str, String)> {
    let vip = lab.vips()[pool.family];
    let family = Family::of(vip);
    let ip = match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    };
    let Pool { name, forwarding, services, servers, .. } = pool;
    let own = lab.gateway().interfaces().iter().flat_map(|interface| &interface.addresses);
    let own = own.chain(lab.snat_addresses()).filter(|&&address| Family::of(address) == family);
    let own = own.map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let addresses = servers.iter().map(|&server| lab.backend(server).interfaces()[0].addresses[pool.family]);
    let backends = addresses.map(|address| address.to_string()).collect::<Vec<_>>().join(", ");
    let mut conditions = Vec::new();
    for service in *services {
        let (port, backend_port) = (service.port, service.backend_port);
        let mut add = |what: &str, chain, condition| {
            conditions.push((format!("{name}_{}_{what}", service.name), chain, condition));
        };
        add("from_client", "in", format!("{ip} daddr {vip} tcp dport {port}"));
        add("to_client", "out", format!("{ip} saddr {vip} tcp sport {port}"));
        let from_backend = format!("{ip} saddr {{ {backends} }} tcp sport {backend_port}");
        match forwarding {
            Forwarding::Snat => {
                add(
                    "from_backend",
                    "in",
                    format!("{from_backend} {ip} daddr {{ {own} }} tcp dport {SNAT_PORTS}"),
                );
                let from_snat = format!("{ip} saddr {{ {own} }} tcp sport {SNAT_PORTS}");
                add(
                    "to_backend",
                    "out",
                    format!("{from_snat} {ip} daddr {{ {backends} }} tcp dport {backend_port}"),
                );
            }
            // The kernel neither takes nor forwards it, so nobody but this counter would notice.
            Forwarding::Dnat => {
                add("from_backend", "in", format!("{from_backend} {ip} daddr != {{ {own}, {vip} }}"));
            }
        }
    }
    conditions
}
