//! `[[pool.service]]`: a listening address of a pool.

use std::net::SocketAddr;

use super::limits::REDIRECT_HOSTS;
use super::names;
use super::notes::{Notes, Says};
use super::probe::ProbeKeys;
use super::problem::Fault;
use super::source::{Located, Span};
use super::table::Table;
use super::{Check, Probe, Redirect, Service, addresses};

/// A service before its probe is known, which depends on the pool's keys.
#[derive(Debug)]
pub(super) struct ServiceKeys {
    pub(super) header: Span,
    pub(super) name: Option<Located<String>>,
    pub(super) listen: Option<Located<SocketAddr>>,
    /// A second listening address, of the daemon itself.
    pub(super) redirect_http: Option<Located<SocketAddr>>,
    /// Those written; empty: the default.
    redirect_hosts: Vec<String>,
    pub(super) probe: ProbeKeys,
    backend_port: Option<Located<u32>>,
}

impl ServiceKeys {
    pub(super) fn read(mut table: Table<'_>) -> Self {
        let mut keys = Self {
            header: table.span(),
            name: table.required_text("name", "name = \"web\"", names::name),
            listen: table.required_text("listen", "listen = \"203.0.113.10:443\"", addresses::listen),
            backend_port: table.number("backend_port", 1..=u32::from(u16::MAX)),
            redirect_http: table.text("redirect_http", addresses::listen),
            redirect_hosts: Vec::new(),
            probe: ProbeKeys::read(&mut table),
        };
        if let Some(hosts) = table.texts("redirect_hosts", REDIRECT_HOSTS, names::server) {
            if !hosts.value.is_empty() && !table.has("redirect_http") {
                let fault = Fault::new(
                    "means nothing without `redirect_http`: nobody answers plain HTTP",
                    "write for example redirect_http = \"203.0.113.10:80\", or leave it out",
                );
                table.error(hosts.span, "redirect_hosts", fault);
            }
            keys.redirect_hosts = hosts.value.into_iter().map(|host| host.value).collect();
        }
        let listens = [("listen", &keys.listen), ("redirect_http", &keys.redirect_http)];
        for (key, listen) in listens.into_iter().filter_map(|(key, listen)| Some((key, listen.as_ref()?))) {
            table.claim(listen.span, key, Says::ServiceAddress(listen.value.ip()));
        }
        table.finish();
        keys
    }

    /// Clients who are sent to https need somebody there who speaks it.
    pub(super) fn judge(&self, probe: Option<&Probe>, notes: &Notes<'_>) {
        if let (Some(redirect), Some(Probe { check: Check::Http { .. }, .. })) = (&self.redirect_http, probe)
        {
            notes.warning(
                redirect.span,
                "`redirect_http` sends clients to https, and this service is probed by plain http: its backends don't seem to \
                 speak TLS",
            );
        }
    }

    /// The service; none where an error was noted.
    pub(super) fn into_service(self, probe: Option<Probe>) -> Option<Service> {
        let listen = self.listen?.value;
        let backend_port = self.backend_port.and_then(|port| u16::try_from(port.value).ok());
        let probe = probe?;
        let hosts = if self.redirect_hosts.is_empty() {
            let listen = listen.ip().to_string();
            public_name(&probe).into_iter().chain([listen]).collect()
        } else {
            self.redirect_hosts
        };
        Some(Service {
            name: self.name?.value,
            listen,
            backend_port: backend_port.unwrap_or_else(|| listen.port()),
            redirect: self.redirect_http.map(|redirect| Redirect { listen: redirect.value, hosts }),
            probe,
        })
    }
}

/// What clients call the service, as far as the probe knows.
fn public_name(probe: &Probe) -> Option<String> {
    match &probe.check {
        Check::Tls { server_name, .. }
        | Check::Https { server_name, .. }
        | Check::Http { server_name, .. } => server_name.clone(),
        Check::Tcp | Check::Exec { .. } | Check::None => None,
    }
}
