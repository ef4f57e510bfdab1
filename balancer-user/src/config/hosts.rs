//! Backends that are given by name: which of a name's addresses is used, and which can't be.
//!
//! The address that is in use stays as long as the name has it; else it is the lowest of those that can be used, so that
//! answers in another order change nothing. A backend keeps the address it had when its name has none, or none that can be
//! used. Pure. Deliberately not here: asking (`resolver`), which answers are believed and what follows when an address is
//! another one (`daemon::names`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use super::problem::Fault;
use super::{Backend, Config, Missing, Pool, addresses};
use crate::resolver::{Answer, Answers};

/// Where a backend is whose name was not asked for, or has never had an address.
pub(super) const NOWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
/// What becomes of it, where a start need not fail for it.
pub const LEFT_OUT: &str = "is left out until its name leads where it can be";

/// Last good addresses by name.
pub type Known = BTreeMap<String, Vec<IpAddr>>;

/// Where to look for backends that are given by name.
#[derive(Debug, Clone, Copy)]
pub enum Names<'a> {
    /// Nowhere: they are at the unspecified address then, and nothing may be led to them.
    LeftAlone,
    /// There, one answer for each of [`Config::hosts`].
    Asked {
        /// What the resolver says.
        answers: &'a Answers,
        /// For those of whom it knows nothing now.
        known: &'a Known,
        /// Whether backends stay there, even if their names lead elsewhere now.
        stay: bool,
        /// What it means that there is none of both.
        nowhere: Missing,
    },
}

impl Names<'_> {
    /// Whether those of a pool may be left out of which nobody knows where they are: not all of it.
    pub(super) fn may_leave_out(&self, pool: &Pool) -> bool {
        matches!(self, Self::Asked { nowhere: Missing::Warn, .. })
            && pool.backends.iter().any(|backend| backend.is_settled() && !backend.disabled)
    }
}

/// A backend whose name doesn't say where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsettled {
    /// Its pool's position.
    pub pool: usize,
    /// Its own.
    pub backend: usize,
    /// Why.
    pub why: Why,
}

/// Why a name doesn't say where a backend is; what is said goes on behind the name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// It has no addresses that anybody knows of.
    NoAnswer(String),
    /// It has none that can be used.
    Unusable(String),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAnswer(why) => write!(f, "can't be resolved: {why}"),
            Self::Unusable(why) => f.write_str(why),
        }
    }
}

impl Config {
    /// The names by which backends are given, each once.
    #[must_use]
    pub fn hosts(&self) -> BTreeSet<String> {
        self.pools.iter().flat_map(|pool| &pool.backends).filter_map(|backend| backend.host.clone()).collect()
    }

    /// Where they are.
    #[must_use]
    pub fn known(&self) -> Known {
        let mut known: BTreeMap<String, BTreeSet<IpAddr>> = BTreeMap::new();
        for backend in
            self.pools.iter().flat_map(|pool| &pool.backends).filter(|backend| backend.is_settled())
        {
            if let Some(host) = &backend.host {
                known.entry(host.clone()).or_default().insert(backend.address);
            }
        }
        known.into_iter().map(|(host, addresses)| (host, addresses.into_iter().collect())).collect()
    }

    /// The same without those of which nobody knows where they are.
    #[must_use]
    pub fn settled(&self) -> Self {
        let mut config = self.clone();
        config.pools.iter_mut().for_each(|pool| pool.backends.retain(Backend::is_settled));
        config
    }

    /// Puts those that are nowhere where they were last, if they can still be there.
    pub(super) fn recall(&mut self, known: &Known, own: &BTreeSet<IpAddr>) {
        let refusal = Refusal::of(self, own);
        for pool in &mut self.pools {
            let is_ipv4 = pool.services.first().is_some_and(|service| service.listen.is_ipv4());
            for backend in pool.backends.iter_mut().filter(|backend| !backend.is_settled()) {
                let last = backend.host.as_ref().and_then(|host| known.get(host));
                let last = last.and_then(|last| choose(last, None, is_ipv4, &refusal).ok());
                backend.address = last.unwrap_or(backend.address);
            }
        }
    }

    /// Puts those that are given by name where the answers say; tells of whom they don't. `own`: this machine's addresses.
    /// `goes`: whether one that is somewhere goes to another address; given are its pool's name and itself as it is.
    pub fn settle(
        &mut self,
        answers: &Answers,
        own: &BTreeSet<IpAddr>,
        mut goes: impl FnMut(&str, &Backend, IpAddr) -> bool,
    ) -> Vec<Unsettled> {
        let refusal = Refusal::of(self, own);
        let mut unsettled = Vec::new();
        for (pool_index, pool) in self.pools.iter_mut().enumerate() {
            let is_ipv4 = pool.services.first().is_some_and(|service| service.listen.is_ipv4());
            let before: Vec<IpAddr> = pool.backends.iter().map(|backend| backend.address).collect();
            for (index, backend) in pool.backends.iter_mut().enumerate() {
                let Some(host) = &backend.host else { continue };
                match found(answers.get(host), Some(backend.address), is_ipv4, &refusal) {
                    Ok(address) if address == backend.address => {}
                    Ok(address) if !backend.is_settled() || goes(&pool.name, backend, address) => {
                        backend.address = address;
                    }
                    Ok(_) => {}
                    Err(why) => unsettled.push(Unsettled { pool: pool_index, backend: index, why }),
                }
            }
            for (index, why) in part(&mut pool.backends, &before) {
                unsettled.push(Unsettled { pool: pool_index, backend: index, why });
            }
        }
        unsettled
    }
}

impl Backend {
    /// Whether it is known where it is.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        !self.address.is_unspecified()
    }
}

/// What to write in the place of a name that doesn't say where a backend is.
pub(super) fn fault(host: &str, why: &Why) -> Fault {
    let instead = match why {
        Why::NoAnswer(_) => format!(
            "correct the name, or what resolves it (`getent ahosts {host}` tells), or write the IP address"
        ),
        Why::Unusable(_) => "have the name lead to the backend, or write the backend's IP address".to_owned(),
    };
    Fault::new(format!("`{host}` {why}"), instead)
}

fn found(
    answer: Option<&Answer>,
    present: Option<IpAddr>,
    is_ipv4: bool,
    refusal: &Refusal,
) -> Result<IpAddr, Why> {
    match answer {
        Some(Ok(addresses)) => choose(addresses, present, is_ipv4, refusal).map_err(Why::Unusable),
        Some(Err(why)) => Err(Why::NoAnswer(why.clone())),
        None => Err(Why::NoAnswer("nobody was asked".to_owned())),
    }
}

/// One of a name's addresses, or why it is none of them.
fn choose(
    addresses: &[IpAddr],
    present: Option<IpAddr>,
    is_ipv4: bool,
    refusal: &Refusal,
) -> Result<IpAddr, String> {
    let of_family = addresses.iter().filter(|address| address.is_ipv4() == is_ipv4);
    let usable: BTreeSet<IpAddr> =
        of_family.clone().copied().filter(|address| refusal.why(*address).is_none()).collect();
    if let Some(address) = present.filter(|present| usable.contains(present)).or(usable.first().copied()) {
        return Ok(address);
    }
    if let Some((address, why)) = of_family.min().and_then(|lowest| Some((lowest, refusal.why(*lowest)?))) {
        return Err(format!("leads to {address}, which is {why}"));
    }
    let family = if is_ipv4 { "IPv4" } else { "IPv6" };
    Err(match addresses.iter().min() {
        Some(other) => format!("has no {family} address as the pool's services have, only {other}"),
        None => "has no address".to_owned(),
    })
}

/// Has no two backends of a pool at one address: of two, one that has come there goes back to where it was.
fn part(backends: &mut [Backend], before: &[IpAddr]) -> Vec<(usize, Why)> {
    let mut parted = Vec::new();
    // Each turn puts one back, or nowhere.
    for _ in 0..2 * backends.len() {
        let twin_of = |index: usize| {
            let is_twin =
                |other: &usize| *other != index && backends[*other].address == backends[index].address;
            (0..backends.len()).find(is_twin).filter(|_| backends[index].is_settled())
        };
        let is_moved = |index: &usize| backends[*index].address != before[*index];
        let twins: Vec<(usize, usize)> = (0..backends.len())
            .rev()
            .filter(|index| backends[*index].host.is_some())
            .filter_map(|index| Some((index, twin_of(index)?)))
            .collect();
        let moved = twins.iter().find(|(index, _)| is_moved(index)).or(twins.first());
        let Some(&(index, twin)) = moved else { break };
        let why = format!("leads to {}, where {} is already", backends[index].address, backends[twin].name);
        backends[index].address = if is_moved(&index) { before[index] } else { NOWHERE };
        parted.push((index, Why::Unusable(why)));
    }
    parted
}

/// Where no backend can be.
struct Refusal {
    own: BTreeSet<IpAddr>,
    listens: BTreeSet<IpAddr>,
    sources: BTreeSet<IpAddr>,
}

impl Refusal {
    fn of(config: &Config, own: &BTreeSet<IpAddr>) -> Self {
        let services = config.pools.iter().flat_map(|pool| &pool.services);
        Self {
            own: own.clone(),
            listens: services.map(|service| service.listen.ip()).collect(),
            sources: config.pools.iter().flat_map(|pool| pool.snat_addresses.iter().copied()).collect(),
        }
    }

    fn why(&self, address: IpAddr) -> Option<&'static str> {
        if let Some(kind) = addresses::unreachable(address) {
            Some(kind)
        } else if self.listens.contains(&address) {
            Some("the address that clients connect to")
        } else if self.sources.contains(&address) {
            Some("an address of `snat_addresses`")
        } else if self.own.contains(&address) {
            Some("an address of this gateway")
        } else {
            None
        }
    }
}
