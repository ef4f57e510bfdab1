//! Keeps the ways to backends and the facts of interfaces as fresh as the kernel's: a task beside the daemon's loop
//! that looks, nudges the kernel where it isn't sure, and tells what changed.
//!
//! What is watched may be replaced at any time; what was found out for an earlier list is never told after that. A neighbour
//! that the kernel has lost keeps its last hardware address here: it is either still right, or nobody is there, and then it
//! makes no difference. Deliberately not here: what follows from any of it; interfaces are `interfaces`' business.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use balancer_common::abi::{Interface, NextHop};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tracing::warn;

use crate::dataplane::DataplaneError;
use crate::dataplane::attach::Target;
use crate::dataplane::neighbours::{Neighbour, Neighbours, Route};

/// How often the kernel is asked: a neighbour that moved is followed within half a second.
const CALM: Duration = Duration::from_millis(500);
/// How often while something is not resolved yet, for a second after it was found missing.
const EAGER: Duration = Duration::from_millis(25);
const EAGER_ROUNDS: u32 = 40;
/// Changes that wait for the loop; more make the watcher wait.
const CHANGES: usize = 64;

/// Something that the data plane has to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// The way to a backend, by its slot; or why there is none.
    Way(u16, Way),
    /// What the kernel has under an interface's name.
    Interface(String, Device),
    /// Everything that is wanted has been looked at once.
    FirstRound,
}

/// A way, or why there is none.
type Way = Result<(IpAddr, NextHop), String>;

/// What the kernel has under the name of a wanted interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Device {
    /// Nothing, and the device that the program is on, if there was one, is gone.
    Absent,
    /// Nothing, as the device that the program is on is called otherwise now.
    Renamed(String),
    /// A device.
    Here(Box<Here>),
}

/// A device that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Here {
    /// Where a program would be attached, and the one that is there now.
    pub(super) target: Target,
    pub(super) facts: Interface,
    /// Why packets that a native program sends through it are lost.
    pub(super) lack: Option<String>,
}

/// What is to be watched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Interfaces by name, and where the program is attached under this name: ways lead through those only.
    pub(super) interfaces: BTreeMap<String, Option<Place>>,
    /// Backends by slot.
    pub(super) backends: BTreeMap<u16, IpAddr>,
}

/// Where a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The slot of the interface.
    pub(super) slot: u16,
    /// The kernel's index of the device.
    pub(super) ifindex: u32,
    /// The kernel's id of the link.
    pub(super) link_id: u32,
}

/// A list, and its number: each replacement has the next one.
type Numbered<T> = (u64, T);

/// The watcher, as the loop sees it.
#[derive(Debug)]
pub(super) struct Ways {
    wanted: watch::Sender<Numbered<Wanted>>,
    changes: mpsc::Receiver<Numbered<Change>>,
    task: JoinHandle<()>,
}

impl Drop for Ways {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Ways {
    /// Begins to watch.
    pub(super) fn start(kernel: Neighbours, wanted: Wanted) -> Self {
        let (sender, receiver) = watch::channel((0, wanted));
        let (changes, from_watcher) = mpsc::channel(CHANGES);
        let task = tokio::spawn(Watcher::new(kernel, receiver, changes).run());
        Self { wanted: sender, changes: from_watcher, task }
    }

    /// Replaces what is watched. If it is something else, all of it is told anew, changed or not, then `FirstRound`; and
    /// nothing more of what was found out before.
    pub(super) fn watch(&self, wanted: Wanted) {
        self.wanted.send_if_modified(|(number, current)| {
            let is_news = *current != wanted;
            if is_news {
                (*number, *current) = (*number + 1, wanted);
            }
            is_news
        });
    }

    /// The next change of something that is wanted; may be given up and asked again. `None`: the watcher has ended.
    pub(super) async fn change(&mut self) -> Option<Change> {
        loop {
            let (number, change) = self.changes.recv().await?;
            if number == self.wanted.borrow().0 {
                return Some(change);
            }
        }
    }
}

/// What was told of a backend, and the route that it came from.
#[derive(Clone, Debug)]
struct Told {
    address: IpAddr,
    way: Way,
    route: Option<Route>,
    /// For the present list.
    is_told: bool,
}

struct Watcher {
    kernel: Neighbours,
    source: watch::Receiver<Numbered<Wanted>>,
    changes: mpsc::Sender<Numbered<Change>>,
    number: u64,
    wanted: Wanted,
    ways: BTreeMap<u16, Told>,
    devices: BTreeMap<String, Device>,
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

impl Watcher {
    fn new(
        kernel: Neighbours,
        mut source: watch::Receiver<Numbered<Wanted>>,
        changes: mpsc::Sender<Numbered<Change>>,
    ) -> Self {
        let (number, wanted) = source.borrow_and_update().clone();
        Self { kernel, source, changes, number, wanted, ways: BTreeMap::new(), devices: BTreeMap::new() }
    }

    /// Watches until nobody listens any more.
    async fn run(mut self) {
        let mut eager = EAGER_ROUNDS;
        let mut first = true;
        loop {
            let resolved = match self.round(eager > 0).await {
                Ok(resolved) => resolved,
                Err(Stop::NobodyListens) => return,
                Err(Stop::Failed(error)) => {
                    warn!(event = "netlink", error = %error, "the kernel did not tell its neighbours; asking again");
                    false
                }
            };
            if first && (resolved || eager == 0) {
                first = false;
                if self.tell(Change::FirstRound).await.is_err() {
                    return;
                }
            }
            eager = if resolved { EAGER_ROUNDS } else { eager.saturating_sub(1) };
            tokio::select! {
                () = sleep(if resolved || eager == 0 { CALM } else { EAGER }) => {}
                changed = self.source.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.begin_anew();
                    (first, eager) = (true, EAGER_ROUNDS);
                }
            }
        }
    }

    /// The list is another one.
    fn begin_anew(&mut self) {
        (self.number, self.wanted) = self.source.borrow_and_update().clone();
        self.devices.clear();
        let backends = &self.wanted.backends;
        self.ways.retain(|slot, told| backends.get(slot) == Some(&told.address));
        self.ways.values_mut().for_each(|told| told.is_told = false);
    }

    async fn tell(&self, change: Change) -> Result<(), Stop> {
        self.changes.send((self.number, change)).await.map_err(|_| Stop::NobodyListens)
    }

    /// Looks at everything once; true when every backend has a way. `patient`: the kernel may still be asking a neighbour.
    async fn round(&mut self, patient: bool) -> Result<bool, Stop> {
        for (name, place) in &self.wanted.interfaces {
            let device = self.device(name, *place).await?;
            if self.devices.get(name) != Some(&device) {
                self.devices.insert(name.clone(), device.clone());
                self.tell(Change::Interface(name.clone(), device)).await?;
            }
        }
        let table = self.kernel.table().await?;
        let mut resolved = true;
        for (slot, address) in &self.wanted.backends {
            let told = self.ways.get(slot);
            let (route, way) = match self.kernel.route(*address).await {
                Ok(route) => (route, self.look(*address, route, &table, told, patient).await),
                Err(error) => (None, Some(Err(error.to_string()))),
            };
            if let Some(way) = way {
                let is_news = told.is_none_or(|told| told.way != way || !told.is_told);
                let told = Told { address: *address, way: way.clone(), route, is_told: true };
                self.ways.insert(*slot, told);
                if is_news {
                    self.tell(Change::Way(*slot, way)).await?;
                }
            }
            resolved &= self.ways.get(slot).is_some_and(|told| told.way.is_ok());
        }
        Ok(resolved)
    }

    /// What there is under an interface's name.
    async fn device(&self, name: &str, place: Option<Place>) -> Result<Device, DataplaneError> {
        match (self.kernel.interface(name).await, place) {
            (Ok((target, facts)), _) => {
                // Whether the driver still sends what native XDP hands it: on a veth the other end decides.
                let features = self.kernel.xdp_features(facts.ifindex).await?;
                let lack = features.and_then(|features| features.lack(name, facts.mtu));
                Ok(Device::Here(Box::new(Here { target, facts, lack })))
            }
            (Err(DataplaneError::NoInterface(_)), Some(place)) => {
                let name = self.kernel.interface_name(place.ifindex).await?;
                Ok(name.map_or(Device::Absent, Device::Renamed))
            }
            (Err(DataplaneError::NoInterface(_)), None) => Ok(Device::Absent),
            (Err(error), _) => Err(error),
        }
    }

    /// The way to one backend now; `None`: what was told of it stays.
    async fn look(
        &self,
        address: IpAddr,
        route: Option<Route>,
        table: &[Neighbour],
        told: Option<&Told>,
        patient: bool,
    ) -> Option<Way> {
        let Some(route) = route else { return Some(Err(format!("no route to {address}"))) };
        let Some(interface) = self.slot_of(route.ifindex) else {
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
            && let Err(error) = self.kernel.resolve(route.ifindex, route.next_hop).await
        {
            return Some(Err(error.to_string()));
        }
        let same_route = told.is_some_and(|told| told.route == Some(route) && told.way.is_ok());
        match neighbour {
            Some(neighbour) => Some(Ok((source, NextHop { mac: neighbour.mac, interface }))),
            None if same_route => told.map(|told| told.way.clone()),
            None if patient => None,
            None => Some(Err(silent(route.next_hop))),
        }
    }

    fn slot_of(&self, ifindex: u32) -> Option<u16> {
        let mut places = self.wanted.interfaces.values().flatten();
        places.find(|place| place.ifindex == ifindex).map(|place| place.slot)
    }
}

/// What to look for on the wire: who asks is named as the family calls it.
fn silent(next_hop: IpAddr) -> String {
    let question = if next_hop.is_ipv4() { "ARP" } else { "neighbour discovery" };
    format!("{next_hop} does not answer {question}")
}
