//! A cable from the client to the backend, past the gateway: what all of it costs if a gateway costs nothing.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Result;

use crate::lab::{Host, Lab};

/// Its ends are called alike.
pub(super) const INTERFACE: &str = "direct0";
/// The backend's address there.
pub(super) const BACKEND: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// Lays it.
pub(super) fn lay(lab: &Lab) -> Result<()> {
    let (client, backend) = (lab.client(), lab.backend(0));
    let peer = ["peer", "name", INTERFACE, "netns", backend.namespace()];
    client.run(["ip", "link", "add", INTERFACE, "type", "veth"].into_iter().chain(peer))?;
    let join = |host: &Host, address: IpAddr| {
        host.run(["ip", "address", "add", &format!("{address}/30"), "dev", INTERFACE])?;
        host.run(["ip", "link", "set", INTERFACE, "up"]).map(drop)
    };
    join(client, CLIENT)?;
    join(backend, BACKEND)
}
