//! What a site is made of, and the configuration that says so to the balancer.

use std::{fmt::Write as _, net::SocketAddr, path::Path};

use crate::{
    certificates::Validity,
    lab::{Family, Lab},
};

use super::SERVER_NAME;

/// A listening port of the VIP and where it leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Service {
    /// As in the configuration.
    pub name: &'static str,
    /// On the VIP.
    pub port: u16,
    /// On the servers.
    pub backend_port: u16,
}

/// 443, which is translated.
pub const WEB: Service = Service { name: "web", port: 443, backend_port: 10001 };
/// 8877, which stays.
pub const API: Service = Service { name: "api", port: 8877, backend_port: 8877 };

/// Whose address the servers see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarding {
    /// The gateway's.
    Snat,
    /// The client's; the way back leads through the gateway, as all backends' default routes do.
    Dnat,
}

/// Services and servers that fail over as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// As in the configuration.
    pub name: &'static str,
    /// Which of the lab's families, from 0.
    pub family: usize,
    /// Whose address the servers see.
    pub forwarding: Forwarding,
    /// On the VIP of that family.
    pub services: &'static [Service],
    /// Which of the lab's backends, in order; all but the first are backups.
    pub servers: &'static [usize],
}

/// Two services and two servers.
pub const PASSWORDS: Pool = Pool {
    name: super::POOL,
    family: 0,
    forwarding: Forwarding::Snat,
    services: &[WEB, API],
    servers: &[0, 1],
};

/// What the tests vary in the configuration.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// `manual` or `auto`.
    pub failback: &'static str,
    /// Of all backends.
    pub max_fails: u32,
    /// Of all backends.
    pub fail_timeout: &'static str,
    /// Between probes, when all is well.
    pub interval: &'static str,
    /// Between probes, when something isn't.
    pub fast_interval: &'static str,
    /// For one probe.
    pub timeout: &'static str,
    /// `reset` or `keep`.
    pub on_backend_down: &'static str,
    /// `probe`, `count` or `off`.
    pub passive: &'static str,
    /// `instant`, `retransmit` or `off`.
    pub connect_retry: &'static str,
    /// `auto`, `native` or `generic`.
    pub xdp_mode: &'static str,
    /// One or more; clients talk to the first unless told otherwise.
    pub pools: &'static [Pool],
    /// Of the servers' certificate.
    pub validity: Validity,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            failback: "manual",
            max_fails: 1,
            fail_timeout: "2s",
            interval: "500ms",
            fast_interval: "125ms",
            timeout: "500ms",
            on_backend_down: "keep",
            passive: "off",
            connect_retry: "off",
            xdp_mode: "auto",
            pools: &[PASSWORDS],
            validity: Validity::Now,
        }
    }
}

/// A server's name: `server1` for the first backend.
#[must_use]
pub fn server_name(server: usize) -> String {
    format!("server{}", server + 1)
}

/// The configuration of a site in this lab.
pub(super) fn configuration(lab: &Lab, options: &Options, ca_file: &Path) -> String {
    let interfaces: Vec<_> = lab.gateway().interfaces().iter().map(|one| format!("{:?}", one.name)).collect();
    let interfaces = interfaces.join(", ");
    let mut text =
        format!("[gateway]\ninterfaces = [{interfaces}]\nmax_flows = 16384\nmax_half_open = 4096\n");
    if options.xdp_mode != "auto" {
        text += &format!("xdp_mode = \"{}\"\n", options.xdp_mode);
    }
    for pool in options.pools {
        // Writing to a String can't fail.
        let _ = write_pool(&mut text, lab, pool, options, ca_file);
    }
    text
}

fn write_pool(
    text: &mut String,
    lab: &Lab,
    pool: &Pool,
    options: &Options,
    ca_file: &Path,
) -> std::fmt::Result {
    let Options { failback, max_fails, fail_timeout, interval, fast_interval, timeout, .. } = options;
    let Options { on_backend_down, passive, connect_retry, .. } = options;
    let vip = lab.vips()[pool.family];
    let forwarding = match pool.forwarding {
        Forwarding::Snat => "snat",
        Forwarding::Dnat => "dnat",
    };
    let snat_addresses = lab.snat_addresses().iter().filter(|&&one| Family::of(one) == Family::of(vip));
    let snat_addresses: Vec<_> = snat_addresses.map(|address| format!("\"{address}\"")).collect();
    write!(
        text,
        r#"
[[pool]]
name = "{}"
forwarding = "{forwarding}"
failback = "{failback}"
on_backend_down = "{on_backend_down}"
passive = "{passive}"
connect_retry = "{connect_retry}"
"#,
        pool.name
    )?;
    if pool.forwarding == Forwarding::Snat && !snat_addresses.is_empty() {
        writeln!(text, "snat_addresses = [{}]", snat_addresses.join(", "))?;
    }
    write!(
        text,
        r#"
[pool.probe]
kind = "tls"
interval = "{interval}"
fast_interval = "{fast_interval}"
timeout = "{timeout}"
server_name = "{SERVER_NAME}"
ca_file = {ca_file:?}
"#
    )?;
    for Service { name, port, backend_port } in pool.services {
        let listen = SocketAddr::new(vip, *port);
        let keys = format!("name = \"{name}\"\nlisten = \"{listen}\"\nbackend_port = {backend_port}");
        write!(text, "\n[[pool.service]]\n{keys}\n")?;
    }
    for (index, &server) in pool.servers.iter().enumerate() {
        let (name, address) =
            (server_name(server), lab.backend(server).interfaces()[0].addresses[pool.family]);
        let keys = format!("name = \"{name}\"\naddress = \"{address}\"\nbackup = {}", index > 0);
        let limits = format!("max_fails = {max_fails}\nfail_timeout = \"{fail_timeout}\"");
        write!(text, "\n[[pool.backend]]\n{keys}\n{limits}\n")?;
    }
    Ok(())
}
