//! `forwarding`, `snat_addresses` and `snat_ports`: whose address backends see, and what flows to them come from.
//!
//! Ports matter in a `dnat` pool too: where two flows of one client would be the same to a backend, one of them comes
//! from another port.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use super::limits::{SNAT_ADDRESSES, SNAT_RANGES};
use super::notes::Says;
use super::problem::Fault;
use super::source::Located;
use super::table::Table;
use super::{Config, Forwarding, Surroundings, addresses, ranges};

/// Below and above the kernel's ephemeral ports as it is delivered (32768 to 60999).
const SNAT_PORTS: [RangeInclusive<u16>; 2] = [1024..=32767, 61000..=65535];

/// The keys as written, with the places of what must be unique.
#[derive(Debug)]
pub(super) struct SnatKeys {
    pub(super) forwarding: Forwarding,
    pub(super) addresses: Vec<Located<IpAddr>>,
    pub(super) ports: Vec<RangeInclusive<u16>>,
}

impl SnatKeys {
    /// Reads them; `index` is the pool's.
    pub(super) fn read(table: &mut Table<'_>, index: usize) -> Self {
        let forwarding =
            table.choice("forwarding", &[("snat", Forwarding::Snat), ("dnat", Forwarding::Dnat)]);
        let forwarding = forwarding.map_or(Forwarding::Snat, |found| found.value);
        let addresses = table.texts("snat_addresses", SNAT_ADDRESSES, addresses::source);
        if let (Forwarding::Dnat, Some(written)) = (forwarding, &addresses)
            && !written.value.is_empty()
        {
            let message = "means nothing with forwarding = \"dnat\": backends see the clients' addresses";
            let instead = "leave it out, or write forwarding = \"snat\"";
            table.error(written.span, "snat_addresses", Fault::new(message, instead));
        }
        let addresses = addresses.map_or(Vec::new(), |written| written.value);
        for Located { value, span } in &addresses {
            table.claim(*span, "snat_addresses", Says::SourceAddress(*value));
        }
        let ports = table.text("snat_ports", |written| ranges::parse(written, &(1..=u16::MAX)));
        let span = ports.as_ref().map_or(table.span(), |ports| ports.span);
        table.claim(span, "snat_ports", Says::SnatPorts { pool: index });
        let ports = ports.map_or(SNAT_PORTS.to_vec(), |ports| ports.value);
        Self { forwarding, addresses, ports }
    }
}

/// The ports of `snat_ports` that neither the kernel nor another program of this machine uses, and neither a service of any
/// pool nor the daemon itself listens on: a source address may be a listening one, and then its port would belong to both.
pub(super) fn free_ports(
    written: &[RangeInclusive<u16>],
    config: &Config,
    machine: &Surroundings,
) -> Result<Vec<RangeInclusive<u16>>, Fault> {
    let ephemeral = &machine.ports.ephemeral;
    let services = config.pools.iter().flat_map(|pool| &pool.services);
    let listens = services.flat_map(|service| {
        let redirect = service.redirect.as_ref().map(|redirect| redirect.listen.port());
        redirect.into_iter().chain([service.listen.port()])
    });
    let listens = listens.chain(config.http.iter().map(|http| http.listen.port()));
    let taken = machine.ports.all().chain(listens.map(|port| port..=port));
    let left = ranges::without(written, taken);
    let settings = format!(
        "the kernel's own ports ({}-{}, net.ipv4.ip_local_port_range), net.ipv4.ip_local_reserved_ports and the ports \
         that services listen on, those of redirects and [http] included",
        ephemeral.start(),
        ephemeral.end()
    );
    if left.is_empty() {
        return Err(Fault::new(
            format!("no port is left without {settings}"),
            "write snat_ports outside of them, or make net.ipv4.ip_local_port_range smaller",
        ));
    }
    if left.len() > SNAT_RANGES {
        return Err(Fault::new(
            format!("{} ranges are left without {settings}", left.len()),
            format!("write ranges of which at most {SNAT_RANGES} pieces are left"),
        ));
    }
    Ok(left)
}
