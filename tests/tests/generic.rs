//! `xdp_mode = "generic"`: slower, and otherwise the same.

use std::{net::SocketAddr, time::SystemTime};

use anyhow::{Context, Result, ensure};
use balancer_tests::{
    lab::Topology,
    site::{Forwarding, Options, PASSWORDS, Pool, Programs, Site, WEB},
    wire::Wire,
};

const SIX: Pool = Pool { name: "passwords6", family: 1, forwarding: Forwarding::Dnat, ..PASSWORDS };

#[test]
fn generic_mode_carries_connections_and_large_transfers_and_fails_over() -> Result<()> {
    let options = Options { xdp_mode: "generic", pools: &[PASSWORDS, SIX], ..Options::default() };
    for (label, topology) in [("generic", Topology::two_armed()), ("generic_one", Topology::one_armed())] {
        // One-armed dnat needs clients that are not the backends' neighbours.
        let topology = topology.dual_stack().client_router();
        let mut site = site(label, &topology, options)?;
        let status = site.gateway.status()?;
        let attachments = status.0["attachments"].as_array().context("attachments")?;
        assert!(attachments.iter().all(|attachment| attachment["mode"] == "generic"), "{status}");
        let ((), wire) = Wire::watched(&site, || {
            load(&site, PASSWORDS, "server1")?;
            load(&site, SIX, "server1")
        })?;
        wire.must_be_clean().context(label)?;
        let watcher = site.watch(WEB)?;
        watcher.first_answer("server1", SystemTime::UNIX_EPOCH)?;
        let killed = site.kill(0);
        watcher.first_answer("server2", killed)?;
        drop(watcher);
        site.gateway.wait_until("the backup in both", |status| {
            [PASSWORDS, SIX].iter().all(|pool| status.pool_named(pool.name)["active"] == "server2")
        })?;
        load(&site, PASSWORDS, "server2")?;
        load(&site, SIX, "server2")?;
    }
    Ok(())
}

fn load(site: &Site, pool: Pool, expect: &str) -> Result<()> {
    let client = site.lab().client();
    let target = SocketAddr::new(site.vip(pool), WEB.port);
    let arguments = ["--connections", "200", "--parallel", "20", "--expect", expect];
    let report = site.load_from(client, target, &arguments)?;
    ensure!(report["failed"] == 0, "{}: {report}", pool.name);
    let told = site.transfer_to(client, target, &["--up", "3000000", "--down", "3000000"])?;
    ensure!(told["name"] == expect, "{}: {told}", pool.name);
    Ok(())
}

fn site(label: &str, topology: &Topology, options: Options) -> Result<Site> {
    let programs = Programs::under_test(env!("CARGO_BIN_EXE_lab-host"))?;
    Site::start(label, topology, options, &programs)
}
