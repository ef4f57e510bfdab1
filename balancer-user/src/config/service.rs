//! `[[pool.service]]`: a listening address of a pool.

use std::net::SocketAddr;

use super::limits::REDIRECT_HOSTS;
use super::names;
use super::notes::Says;
use super::probe::ProbeKeys;
use super::source::{Located, Span};
use super::table::Table;
use super::{Probe, Service, addresses};

/// A service before its probe is known, which depends on the pool's keys.
#[derive(Debug)]
pub(super) struct ServiceKeys {
    pub(super) header: Span,
    pub(super) name: Option<Located<String>>,
    pub(super) listen: Option<Located<SocketAddr>>,
    /// A second listening address, of the daemon itself.
    pub(super) redirect_http: Option<Located<SocketAddr>>,
    pub(super) probe: ProbeKeys,
    backend_port: Option<Located<u32>>,
}

impl ServiceKeys {
    pub(super) fn read(mut table: Table<'_>) -> Self {
        let keys = Self {
            header: table.span(),
            name: table.required_text("name", "name = \"web\"", names::name),
            listen: table.required_text("listen", "listen = \"203.0.113.10:443\"", addresses::listen),
            backend_port: table.number("backend_port", 1..=u32::from(u16::MAX)),
            redirect_http: table.text("redirect_http", addresses::listen),
            probe: ProbeKeys::read(&mut table),
        };
        table.texts("redirect_hosts", REDIRECT_HOSTS, names::server);
        if let Some(listen) = &keys.listen {
            table.claim(listen.span, "listen", Says::ServiceAddress(listen.value.ip()));
        }
        table.finish();
        keys
    }

    /// The service; none where an error was noted.
    pub(super) fn into_service(self, probe: Option<Probe>) -> Option<Service> {
        let listen = self.listen?.value;
        let backend_port = self.backend_port.and_then(|port| u16::try_from(port.value).ok());
        Some(Service {
            name: self.name?.value,
            listen,
            backend_port: backend_port.unwrap_or_else(|| listen.port()),
            probe: probe?,
        })
    }
}
