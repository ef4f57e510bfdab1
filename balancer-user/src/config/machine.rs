//! The second stage: a configuration that is right in itself against the machine that shall carry it out.
//!
//! The machine comes as data ([`Surroundings`]), and so does what host names lead to; only CA files and the dashboard's token
//! are read here, and programs looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::hosts::{self, Names, Unsettled, Why};
use super::limits::CA_FILE_BYTES;
use super::notes::{Claim, Notes, Says};
use super::problem::{Fault, did_you_mean};
use super::{Backend, Config, ConfigErrors, Parsed, ReadError, Surroundings, Token, read, snat};
use crate::program::{self, Untrusted};

/// How many interfaces a message lists.
const INTERFACES_LISTED: usize = 16;

/// What doesn't arrive for a listening address that isn't here.
const CLIENTS: &str = "client's packet";

/// What doesn't arrive for a source address that isn't here.
const ANSWERS: &str = "backend's answer";

/// What it means that something isn't there, an interface or where a host name leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// An error: at a start with nothing to adopt; of a name also where a configuration runs that need not be replaced.
    Refuse,
    /// A warning: beside pinned programs, or on a machine that isn't the gateway (`--no-resolve`).
    Warn,
}

impl Parsed {
    /// Holds the configuration against the machine: what it names must be there, and what it uses must be free.
    pub fn check(
        mut self,
        machine: &Surroundings,
        interfaces: Missing,
        names: &Names<'_>,
    ) -> Result<Config, ConfigErrors> {
        let notes = Notes::new(&self.source);
        let unsettled = settle(&mut self.config, names, machine);
        let mut ca_files = BTreeMap::new();
        let mut elsewhere = BTreeSet::new();
        for claim in self.claims {
            let Claim { span, key, says } = claim;
            let fault = match says {
                Says::Interface(name) if machine.headless.contains(&name) => Some(headless(&name)),
                Says::Interface(name) => match (interface(&name, machine), interfaces) {
                    (Some(fault), Missing::Warn) => {
                        notes.warning(span, format!("{key}: {}", fault.message));
                        None
                    }
                    (fault, _) => fault,
                },
                Says::ServiceAddress(address) => {
                    if !machine.addresses.contains(&address) && elsewhere.insert((address, CLIENTS)) {
                        notes.warning(span, not_here(&key, address, CLIENTS));
                    }
                    None
                }
                Says::SourceAddress(address) => {
                    if !machine.addresses.contains(&address) && elsewhere.insert((address, ANSWERS)) {
                        notes.warning(span, not_here(&key, address, ANSWERS));
                    }
                    None
                }
                Says::BackendAddress(address) => backend(address, machine),
                Says::BackendHost { pool, backend } => unsettled.get(&(pool, backend)).and_then(|why| {
                    let pool = &self.config.pools[pool];
                    let warn = |warning| notes.warning(span, format!("{key}: {warning}"));
                    host(&pool.backends[backend], why, names.may_leave_out(pool), warn)
                }),
                Says::CaFile(path) => ca_files.entry(path).or_insert_with_key(|path| ca_file(path)).clone(),
                Says::Program(path) => program(&path),
                Says::Token(path) => {
                    let token = Token::read(&path);
                    let fault = token.as_ref().err().cloned();
                    if let Some(http) = &mut self.config.http {
                        http.token = token.ok();
                    }
                    fault
                }
                Says::SnatPorts { pool } => {
                    let written = &self.config.pools[pool].snat_ports;
                    match snat::free_ports(written, &self.config, machine) {
                        Ok(ports) => {
                            self.config.pools[pool].snat_ports = ports;
                            None
                        }
                        Err(fault) => Some(fault),
                    }
                }
            };
            if let Some(fault) = fault {
                notes.error(span, key, fault);
            }
        }
        let (_, warnings) = notes.conclude()?;
        self.config.warnings.extend(warnings);
        self.config.warnings.sort_by_key(|warning| (warning.line, warning.column));
        Ok(self.config)
    }
}

fn interface(name: &str, machine: &Surroundings) -> Option<Fault> {
    if machine.interfaces.contains(name) {
        return None;
    }
    let known: Vec<&str> = machine.interfaces.iter().map(String::as_str).collect();
    let mut instead = did_you_mean(name, &known).map_or(String::new(), |suggestion| suggestion + " ");
    let listed = known.iter().take(INTERFACES_LISTED).copied().collect::<Vec<_>>().join(", ");
    let more = if known.len() > INTERFACES_LISTED { ", …" } else { "" };
    instead.push_str(&format!("this machine has: {listed}{more}"));
    Some(Fault::new(format!("there is no interface `{name}`"), instead))
}

fn headless(name: &str) -> Fault {
    Fault::new(
        format!("packets of `{name}` have no Ethernet header, so none could be balanced"),
        "write Ethernet interfaces (a physical one, bond, bridge, VLAN, veth), not a tunnel or PPP",
    )
}

/// `whose`: the packets that nobody would send here.
fn not_here(key: &str, address: IpAddr, whose: &str) -> String {
    format!(
        "{key}: {address} is not an address of this machine now: no {whose} for it arrives until it is one \
         (keepalived may add it)"
    )
}

/// Where backends are that are given by name; of whom that isn't known now, and why.
fn settle(config: &mut Config, names: &Names<'_>, machine: &Surroundings) -> BTreeMap<(usize, usize), Why> {
    let Names::Asked { answers, known, stay, .. } = names else { return BTreeMap::new() };
    config.recall(known, &machine.addresses);
    let unsettled = config.settle(answers, &machine.addresses, |_, _, _| !stay).into_iter();
    unsettled.map(|Unsettled { pool, backend, why }| ((pool, backend), why)).collect()
}

/// A name that doesn't say where its backend is: a warning if it is known where it was last, or if it may be left out; else an
/// error.
fn host(backend: &Backend, why: &Why, may_be_left_out: bool, warn: impl FnOnce(String)) -> Option<Fault> {
    let fault = hosts::fault(backend.host.as_deref().unwrap_or_default(), why);
    if backend.is_settled() {
        warn(format!("{}; its last good address {} is used", fault.message, backend.address));
    } else if may_be_left_out {
        warn(format!("{}; {} {}", fault.message, backend.name, hosts::LEFT_OUT));
    } else {
        return Some(fault);
    }
    None
}

fn backend(address: IpAddr, machine: &Surroundings) -> Option<Fault> {
    machine.addresses.contains(&address).then(|| {
        Fault::new(
            format!(
                "{address} is an address of this gateway: packets to it never leave through an interface"
            ),
            "write the address of another machine",
        )
    })
}

/// Why a program can't be run as root.
fn program(path: &Path) -> Option<Fault> {
    let Err(error) = program::trusted(path) else { return None };
    Some(match error {
        Untrusted::Distrust(distrust) => Fault::new(
            format!("{} {}: the daemon would not run it", distrust.path.display(), distrust.why),
            distrust.remedy.to_string(),
        ),
        Untrusted::Io { .. } => {
            Fault::new(error.to_string(), "write the path of a program that can be opened")
        }
    })
}

/// What is wrong with a file of certificates to trust.
fn ca_file(path: &Path) -> Option<Fault> {
    let fault = |message: String, instead: &str| Some(Fault::new(message, instead));
    let shown = path.display();
    let bytes = match read::file(path, CA_FILE_BYTES) {
        Ok(bytes) => bytes,
        Err(error) => {
            let instead = match error {
                ReadError::Denied(_) => read::remedy(path),
                ReadError::Io(_) | ReadError::NotAFile(_) | ReadError::TooLarge(_) => {
                    "write the path of a readable PEM file; without `ca_file` the system's roots are used"
                        .to_owned()
                }
            };
            return Some(Fault::new(format!("can't read {shown}: {error}"), instead));
        }
    };
    const INSTEAD: &str = "write the path of a file with the CA's certificate (BEGIN CERTIFICATE)";
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        let added = certificate.map_err(|error| error.to_string());
        let added = added.and_then(|certificate| roots.add(certificate).map_err(|error| error.to_string()));
        if let Err(error) = added {
            return fault(format!("{shown}: certificate {}: {error}", roots.len() + 1), INSTEAD);
        }
    }
    if roots.is_empty() {
        return fault(format!("{shown} holds no certificate in PEM form"), INSTEAD);
    }
    None
}
