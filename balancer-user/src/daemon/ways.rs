//! Keeps the ways to backends and the facts of interfaces as fresh as the kernel's: a task beside the daemon's loop
//! that looks, nudges the kernel where it isn't sure, and tells what changed.
//!
//! A neighbour that the kernel has lost keeps its last hardware address here: it is either still right, or nobody is
//! there, and then it makes no difference.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use balancer_common::abi::{Interface, NextHop};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tracing::warn;

use crate::dataplane::DataplaneError;
use crate::dataplane::neighbours::{Neighbour, Neighbours, Route};

/// How often the kernel is asked: a neighbour that moved is followed within half a second.
const CALM: Duration = Duration::from_millis(500);
/// How often while something is not resolved yet, for a second after it was found missing.
const EAGER: Duration = Duration::from_millis(25);
const EAGER_ROUNDS: u32 = 40;

/// Something that the data plane has to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// The way to a backend, by its slot; `None`, with the reason: there is none.
    Way(u16, Way),
    /// An interface, by its slot.
    Interface(u16, Interface),
    /// Why packets that a native program sends through this interface are lost; `None`: they aren't any more.
    Transmit(String, Option<String>),
    /// An interface that isn't what the program was attached to: gone, or made anew under its name.
    InterfaceLost(String, &'static str),
    /// Everything has been looked at once.
    FirstRound,
}

/// What is watched.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) neighbours: Neighbours,
    /// Interfaces by name.
    pub(super) interfaces: BTreeMap<String, Watched>,
    /// Backends by slot.
    pub(super) backends: BTreeMap<u16, IpAddr>,
}

/// An interface, as the data plane knows it.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    pub(super) slot: u16,
    pub(super) facts: Interface,
    /// Why packets that a native program sends through it are lost, as it was told.
    pub(super) lack: Option<String>,
    /// It isn't what it was, and that was told.
    pub(super) lost: bool,
}

/// A way, or why there is none.
type Way = Result<(IpAddr, NextHop), String>;

/// What was told of a backend, and the route that it came from.
#[derive(Clone, Debug)]
struct Told {
    way: Way,
    route: Option<Route>,
}

/// Watches until nobody listens any more.
pub(super) async fn watch(mut watch: Watch, changes: mpsc::Sender<Change>) {
    let mut known: BTreeMap<u16, Told> = BTreeMap::new();
    let mut eager = EAGER_ROUNDS;
    let mut first = true;
    loop {
        let resolved = match round(&mut watch, &mut known, eager > 0, &changes).await {
            Ok(resolved) => resolved,
            Err(Stop::NobodyListens) => return,
            Err(Stop::Failed(error)) => {
                warn!(event = "netlink", error = %error, "the kernel did not tell its neighbours; asking again");
                false
            }
        };
        if first && (resolved || eager == 0) {
            first = false;
            if changes.send(Change::FirstRound).await.is_err() {
                return;
            }
        }
        eager = if resolved { EAGER_ROUNDS } else { eager.saturating_sub(1) };
        sleep(if resolved || eager == 0 { CALM } else { EAGER }).await;
    }
}

enum Stop {
    NobodyListens,
    Failed(DataplaneError),
}

impl From<DataplaneError> for Stop {
    fn from(error: DataplaneError) -> Self {
        Self::Failed(error)
    }
}

/// Looks at everything once; true when every backend has a way. `patient`: the kernel may still be asking a neighbour.
async fn round(
    watch: &mut Watch,
    known: &mut BTreeMap<u16, Told>,
    patient: bool,
    changes: &mpsc::Sender<Change>,
) -> Result<bool, Stop> {
    for (name, watched) in &mut watch.interfaces {
        let change = match watch.neighbours.interface(name).await {
            Ok((_, facts)) if facts == watched.facts => None,
            Ok((_, facts)) if facts.ifindex == watched.facts.ifindex => {
                watched.facts = facts;
                Some(Change::Interface(watched.slot, facts))
            }
            Ok(_) => lost(watched, name, "it was made anew: restart the daemon to attach to it"),
            Err(DataplaneError::NoInterface(_)) => lost(watched, name, "it does not exist"),
            Err(error) => return Err(error.into()),
        };
        let transmit = transmit(&watch.neighbours, name, watched).await?;
        for change in [change, transmit].into_iter().flatten() {
            changes.send(change).await.map_err(|_| Stop::NobodyListens)?;
        }
    }
    let table = watch.neighbours.table().await?;
    let mut resolved = true;
    for (slot, address) in &watch.backends {
        let told = known.get(slot);
        let (route, way) = match watch.neighbours.route(*address).await {
            Ok(route) => (route, look(watch, *address, route, &table, told, patient).await),
            Err(error) => (None, Some(Err(error.to_string()))),
        };
        if let Some(way) = way {
            let is_news = told.is_none_or(|told| told.way != way);
            known.insert(*slot, Told { way: way.clone(), route });
            if is_news {
                changes.send(Change::Way(*slot, way)).await.map_err(|_| Stop::NobodyListens)?;
            }
        }
        resolved &= known.get(slot).is_some_and(|told| told.way.is_ok());
    }
    Ok(resolved)
}

/// The way to one backend now; `None`: what was told of it stays.
async fn look(
    watch: &Watch,
    address: IpAddr,
    route: Option<Route>,
    table: &[Neighbour],
    told: Option<&Told>,
    patient: bool,
) -> Option<Way> {
    let Some(route) = route else { return Some(Err(format!("no route to {address}"))) };
    let Some(interface) = slot_of(&watch.interfaces, route.ifindex) else {
        return Some(Err(format!(
            "the route to {address} leaves through an interface that is not in [gateway] interfaces"
        )));
    };
    let Some(source) = route.source else {
        return Some(Err(format!("this gateway has no address to reach {address} from")));
    };
    let neighbour = table
        .iter()
        .find(|neighbour| neighbour.ifindex == route.ifindex && neighbour.address == route.next_hop);
    if neighbour.is_none_or(|neighbour| !neighbour.is_sure)
        && let Err(error) = watch.neighbours.resolve(route.ifindex, route.next_hop).await
    {
        return Some(Err(error.to_string()));
    }
    let same_route = told.is_some_and(|told| told.route == Some(route) && told.way.is_ok());
    match neighbour {
        Some(neighbour) => Some(Ok((source, NextHop { mac: neighbour.mac, interface }))),
        None if same_route || patient => None,
        None => Some(Err(silent(route.next_hop))),
    }
}

/// What to look for on the wire: who asks is named as the family calls it.
fn silent(next_hop: IpAddr) -> String {
    let question = if next_hop.is_ipv4() { "ARP" } else { "neighbour discovery" };
    format!("{next_hop} does not answer {question}")
}

/// Whether the driver still sends what native XDP hands it: on a veth the other end decides.
async fn transmit(
    kernel: &Neighbours,
    name: &str,
    watched: &mut Watched,
) -> Result<Option<Change>, DataplaneError> {
    if watched.lost {
        return Ok(None);
    }
    let Interface { ifindex, mtu, .. } = watched.facts;
    let features = kernel.xdp_features(ifindex).await?;
    let lack = features.and_then(|features| features.lack(name, mtu));
    let is_news = lack != watched.lack;
    watched.lack.clone_from(&lack);
    Ok(is_news.then(|| Change::Transmit(name.to_owned(), lack)))
}

/// Told once: the device that the program and its slot belong to never comes back, another of its name is another.
fn lost(watched: &mut Watched, name: &str, problem: &'static str) -> Option<Change> {
    if watched.lost {
        return None;
    }
    watched.lost = true;
    Some(Change::InterfaceLost(name.to_owned(), problem))
}

fn slot_of(interfaces: &BTreeMap<String, Watched>, ifindex: u32) -> Option<u16> {
    let known = |watched: &&Watched| watched.facts.ifindex == ifindex && !watched.lost;
    interfaces.values().find(known).map(|watched| watched.slot)
}
