//! What clients and servers of a site see on their interfaces while something happens, and what their kernels think of
//! it: the witness that does not believe the balancer.

use std::{collections::BTreeMap, net::IpAddr};

use anyhow::{Context, Result, ensure};

use crate::{
    capture::{Capture, Direction, IcmpError, Path, Report},
    lab::Host,
    site::{Pool, Service, Site},
};

/// Linux's ports for connections of the host's own, the probes among them.
const EPHEMERAL: std::ops::RangeInclusive<u16> = 32768..=60999;

/// All that was seen.
#[derive(Debug)]
pub struct Wire {
    /// By each client, in order.
    pub clients: Vec<Report>,
    /// By each server, in order.
    pub servers: Vec<Report>,
    /// Segments that a kernel refused for their checksum.
    pub checksum_errors: u64,
}

impl Wire {
    /// Watches while `body` runs.
    ///
    /// # Errors
    /// What `body` returns, or when a host can't be watched.
    pub fn watched<T>(site: &Site, body: impl FnOnce() -> Result<T>) -> Result<(T, Self)> {
        let (clients, servers) = (site.lab().clients(), site.lab().backends());
        let errors = || {
            clients.iter().chain(servers).map(|host| host.snmp("Tcp", "InCsumErrors")).sum::<Result<u64>>()
        };
        let before = errors()?;
        let start = |hosts: &[Host]| {
            hosts.iter().map(|host| Capture::start(host, "eth0")).collect::<Result<Vec<_>>>()
        };
        let (clients, servers) = (start(clients)?, start(servers)?);
        let done = body()?;
        let stop =
            |captures: Vec<Capture>| captures.into_iter().map(Capture::stop).collect::<Result<Vec<_>>>();
        let (clients, servers) = (stop(clients)?, stop(servers)?);
        Ok((done, Self { clients, servers, checksum_errors: errors()? - before }))
    }

    /// Whether every checksum was right everywhere, nothing was missed, and no client was reset by anybody but a server.
    ///
    /// # Errors
    /// When it wasn't so.
    pub fn must_be_clean(&self) -> Result<()> {
        self.must_be_right()?;
        // A server's kernel sends some, to a FIN that was repeated when all was over.
        let by_servers: u64 = self.servers.iter().map(|report| sent(&report.rsts, Direction::Out)).sum();
        let at_clients: u64 = self.clients.iter().map(|report| sent(&report.rsts, Direction::In)).sum();
        let resets: Vec<_> = self.clients.iter().map(|report| &report.rsts).collect();
        ensure!(at_clients <= by_servers, "resets that no server has sent: {resets:?}");
        Ok(())
    }

    /// Whether every checksum was right everywhere, and nothing was missed.
    ///
    /// # Errors
    /// When it wasn't so.
    pub fn must_be_right(&self) -> Result<()> {
        ensure!(self.checksum_errors == 0, "kernels refused {} segments", self.checksum_errors);
        let of = |who: &'static str, reports: &[Report]| -> Result<()> {
            for (number, report) in reports.iter().enumerate() {
                ensure!(report.bad == 0, "at {who} {number}: {:?}", report.bad_checksums);
                ensure!(report.missed == 0, "at {who} {number} the capture missed {} frames", report.missed);
            }
            Ok(())
        };
        of("client", &self.clients)?;
        of("server", &self.servers)?;
        let checked = |reports: &[Report]| reports.iter().map(|report| report.checked).sum::<u64>();
        ensure!(checked(&self.clients) > 0 && checked(&self.servers) > 0, "no checksum was looked at");
        Ok(())
    }

    /// SYNs that clients sent.
    #[must_use]
    pub fn client_syns(&self) -> u64 {
        self.clients.iter().map(|report| sent(&report.syns, Direction::Out)).sum()
    }

    /// ICMP errors that these hosts received, with how often.
    #[must_use]
    pub fn errors_at(reports: &[Report]) -> BTreeMap<IcmpError, u64> {
        let all = reports.iter().flat_map(|report| &report.icmp_errors);
        all.filter(|(error, _)| error.direction == Direction::In)
            .map(|(error, count)| (*error, *count))
            .collect()
    }

    /// Whether the balancer counted for a service what clients and servers sent. A busy machine's rings before the
    /// gateway may overflow and lose a few; it can't have counted more.
    ///
    /// # Errors
    /// When it counted something else.
    pub fn must_be_counted(&self, site: &Site, pool: Pool, service: Service) -> Result<()> {
        let (sent, status) = (self.packets_of(site, pool, service), site.gateway.status()?);
        let services = status.pool_named(pool.name)["services"].as_array().into_iter().flatten();
        let counted =
            services.filter(|one| one["name"] == service.name).find_map(|one| one["packets"].as_u64());
        let counted = counted.with_context(|| format!("packets of {} in {status}", service.name))?;
        let lost = sent.checked_sub(counted);
        ensure!(
            lost.is_some_and(|lost| lost <= sent / 200),
            "{}: {sent} packets were sent, {counted} counted: {status}",
            service.name
        );
        Ok(())
    }

    /// Packets that clients and servers sent for a service. Sent, because what is received may have been merged.
    fn packets_of(&self, site: &Site, pool: Pool, service: Service) -> u64 {
        let own = site.lab().gateway().interfaces().iter().flat_map(|interface| &interface.addresses);
        let own: Vec<IpAddr> = own.chain(site.lab().snat_addresses()).copied().collect();
        let vip = site.vip(pool);
        let from_client =
            |path: &Path| path.destination.ip() == vip && path.destination.port() == service.port;
        let is_probe = |path: &Path| {
            own.contains(&path.destination.ip()) && EPHEMERAL.contains(&path.destination.port())
        };
        let from_server = |path: &Path| {
            path.source.port() == service.backend_port
                && path.source.is_ipv4() == vip.is_ipv4()
                && !is_probe(path)
        };
        let count = |reports: &[Report], is_of: &dyn Fn(&Path) -> bool| -> u64 {
            let all = reports.iter().flat_map(|report| &report.segments);
            let sent = all.filter(|(path, _)| path.direction == Direction::Out && is_of(path));
            sent.map(|(_, count)| count).sum()
        };
        count(&self.clients, &from_client) + count(&self.servers, &from_server)
    }
}

fn sent(segments: &BTreeMap<Path, u64>, direction: Direction) -> u64 {
    segments.iter().filter(|(path, _)| path.direction == direction).map(|(_, count)| count).sum()
}
