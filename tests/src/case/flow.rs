//! A flow as its packets tell it: who talks to whom, and the segments that a usual one begins with.

use std::net::SocketAddr;

use super::scene::{Forwarding, Member, Scene, Service, tcp};
use crate::packet::Packet;

/// Clients' first sequence number.
pub const CLIENT_ISN: u32 = 0x1122_3344;
/// The client's sequence number after the handshake.
pub const CLIENT_NEXT: u32 = CLIENT_ISN.wrapping_add(1);
/// Backends' first sequence number: it wraps soon.
pub const BACKEND_ISN: u32 = 0xffff_fff0;
/// The backend's sequence number after the handshake.
pub const BACKEND_NEXT: u32 = BACKEND_ISN.wrapping_add(1);

/// A client's connection to a service, and the backend behind it.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    scene: &'static Scene,
    service: Service,
    /// Who connects.
    pub client: SocketAddr,
    /// The backend that it goes to.
    pub member: Member,
    /// Whom the backend sees: the client itself in dnat, the gateway in snat.
    pub peer: SocketAddr,
}

impl Scene {
    /// The usual one: the client's, to the web service, on the primary, with the client's own port.
    #[must_use]
    pub fn flow(&'static self) -> Flow {
        let flow = Flow {
            scene: self,
            service: self.web,
            client: self.client,
            member: self.primary,
            peer: self.client,
        };
        flow.of(self.client)
    }
}

impl Flow {
    /// This client's, whose port is kept.
    #[must_use]
    pub fn of(self, client: SocketAddr) -> Self {
        let peer = match self.scene.forwarding {
            Forwarding::Dnat => client,
            Forwarding::Snat => SocketAddr::new(self.scene.addresses_of_ours()[0], client.port()),
        };
        Self { client, peer, ..self }
    }

    /// To the other service.
    #[must_use]
    pub fn to_api(self) -> Self {
        Self { service: self.scene.api, ..self }
    }

    /// On this backend.
    #[must_use]
    pub fn on(self, member: Member) -> Self {
        Self { member, ..self }
    }

    /// Backends see this address and port of the gateway's. In dnat they don't.
    #[must_use]
    pub fn seen_as(self, peer: SocketAddr) -> Self {
        Self { peer, ..self }
    }

    /// As [`Flow::seen_as`], the gateway's usual address and this port.
    #[must_use]
    pub fn seen_as_port(self, port: u16) -> Self {
        self.seen_as(SocketAddr::new(self.peer.ip(), port))
    }

    /// Where clients connect to.
    #[must_use]
    pub fn listen(self) -> SocketAddr {
        self.service.listen
    }

    /// The address and port on the backend.
    #[must_use]
    pub fn backend(self) -> SocketAddr {
        self.member.at(self.service.backend_port)
    }

    /// The client's SYN.
    #[must_use]
    pub fn syn(self) -> Packet {
        tcp(self.client, self.listen()).syn().seq(CLIENT_ISN)
    }

    /// A SYN of another connection than [`Flow::syn`].
    #[must_use]
    pub fn another_syn(self) -> Packet {
        tcp(self.client, self.listen()).syn().seq(CLIENT_ISN.wrapping_add(0x0100_0000))
    }

    /// The backend's answer to [`Flow::syn`].
    #[must_use]
    pub fn syn_ack(self) -> Packet {
        tcp(self.backend(), self.peer).syn_ack().seq(BACKEND_ISN).acks(CLIENT_NEXT)
    }

    /// The backend's refusal of [`Flow::syn`].
    #[must_use]
    pub fn refusal(self) -> Packet {
        tcp(self.backend(), self.peer).rst_ack().acks(CLIENT_NEXT)
    }

    /// The client's first segment after the handshake, an ACK until told otherwise.
    #[must_use]
    pub fn request(self) -> Packet {
        tcp(self.client, self.listen()).ack().seq(CLIENT_NEXT).acks(BACKEND_NEXT)
    }

    /// The backend's first segment after the handshake, an ACK until told otherwise.
    #[must_use]
    pub fn response(self) -> Packet {
        tcp(self.backend(), self.peer).ack().seq(BACKEND_NEXT).acks(CLIENT_NEXT)
    }

    /// What the client sees of [`Flow::response`], on its way from the gateway: what errors in the client's network
    /// quote.
    #[must_use]
    pub fn response_behind(self) -> Packet {
        self.response().with(|packet| {
            packet.source = self.listen();
            packet.destination = self.client;
            packet.ip.ttl -= 1;
        })
    }

    /// What the backend sees of [`Flow::request`]: what errors in the backend's network quote.
    #[must_use]
    pub fn request_behind(self) -> Packet {
        self.request().with(|packet| {
            packet.source = self.peer;
            packet.destination = self.backend();
            packet.ip.ttl -= 1;
        })
    }
}
