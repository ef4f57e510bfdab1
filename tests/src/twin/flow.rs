//! One TCP connection through both gateways, as its two ends see it.

use std::net::SocketAddr;

use anyhow::Result;

use super::{
    frame::Segment,
    scene::{End, Forwarding, Scene},
};

/// Addresses and ports of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Flow {
    scene: Scene,
    /// The client's own end.
    pub client: SocketAddr,
    /// The client's end as the backend sees it: in dnat the client itself, in snat the gateway with the client's port,
    /// which both gateways keep as long as it is free.
    pub seen_as: SocketAddr,
}

impl Flow {
    /// From this client.
    #[must_use]
    pub fn new(scene: Scene, client: SocketAddr) -> Self {
        let seen_as = match scene.forwarding {
            Forwarding::Snat => SocketAddr::new(scene.lan(), client.port()),
            Forwarding::Dnat => client,
        };
        Self { scene, client, seen_as }
    }

    /// Source and destination of what an end sends.
    #[must_use]
    pub fn way(&self, from: End) -> (SocketAddr, SocketAddr) {
        match from {
            End::Client => (self.client, self.scene.listen()),
            End::Backend => (self.scene.backend(), self.seen_as),
        }
    }

    /// The frame of a segment of this connection.
    ///
    /// # Errors
    /// As [`Segment::to_frame`].
    pub fn frame(&self, from: End, segment: &Segment) -> Result<Vec<u8>> {
        let (source, destination) = self.way(from);
        segment.to_frame(from, source, destination)
    }
}
