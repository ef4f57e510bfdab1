//! Keeps what is known of interfaces and of the ways to backends as fresh as the kernel's: a task beside the daemon's loop.
//!
//! It listens to what the kernel tells, and looks at everything wanted when that says that something has changed, when the
//! kernel could not deliver all of it, and once a second. A neighbour's own news are taken as they are, without a look; those
//! of thousands that are nobody's next hop cost no more than to read them. A neighbour that the kernel has lost keeps its last
//! hardware address here: it is either still right, or nobody is there, and then it makes no difference.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::time::Instant;

use balancer_common::abi::NextHop;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep_until;
use tracing::{debug, warn};

use crate::dataplane::DataplaneError;
use crate::dataplane::neighbours::{Neighbours, Route};
use crate::dataplane::news::{Heard, News};

use super::hop::{Hop, PATIENCE, Question};
use super::pace::Pace;
use super::ways::{Change, Device, Here, Numbered, Place, Wanted, Way};

/// After so many looks at a list nobody waits for an interface any more that the kernel does not tell of.
const ENOUGH_LOOKS: u32 = 3;

/// A next hop: interface and address.
type Where = (u32, IpAddr);

pub(super) struct Watcher {
    kernel: Neighbours,
    news: Option<News>,
    source: watch::Receiver<Numbered<Wanted>>,
    changes: mpsc::Sender<Numbered<Change>>,
    number: u64,
    wanted: Wanted,
    pace: Pace,
    /// Everything in the present list has been told once.
    is_first_over: bool,
    /// Looks at the present list.
    looks: u32,
    /// The kernel did not answer: by another connection it may.
    has_failed: bool,
    devices: BTreeMap<String, Device>,
    ways: BTreeMap<u16, Backend>,
    hops: BTreeMap<Where, Hop>,
}

/// A backend.
struct Backend {
    address: IpAddr,
    /// Since when it is looked for.
    since: Instant,
    /// As the kernel last said, or why it did not.
    route: Result<Option<Route>, String>,
    /// The way, and the route that it came from.
    way: Option<(Way, Option<Route>)>,
    /// The way was told since the list was replaced.
    is_told: bool,
}

/// Why the watcher ends.
struct NobodyListens;

impl Watcher {
    pub(super) fn new(
        kernel: Neighbours,
        mut source: watch::Receiver<Numbered<Wanted>>,
        changes: mpsc::Sender<Numbered<Change>>,
    ) -> Self {
        let (number, wanted) = source.borrow_and_update().clone();
        Self {
            kernel,
            news: None,
            source,
            changes,
            number,
            wanted,
            pace: Pace::new(),
            is_first_over: false,
            looks: 0,
            has_failed: false,
            devices: BTreeMap::new(),
            ways: BTreeMap::new(),
            hops: BTreeMap::new(),
        }
    }

    /// Watches until nobody listens any more.
    pub(super) async fn run(mut self) {
        while self.step().await.is_ok() {}
    }

    async fn step(&mut self) -> Result<(), NobodyListens> {
        let now = Instant::now();
        let (look, question) = (self.pace.next(now), self.next_question(now));
        tokio::select! {
            heard = hear(&mut self.news) => match heard {
                Ok(heard) if self.heard(&heard) => {}
                // Of nobody who is wanted: of those there may be thousands.
                Ok(_) => return Ok(()),
                Err(error) => {
                    warn!(event = "netlink", error = %error, "the kernel's news are lost; looking without them");
                    self.news = None;
                }
            },
            () = sleep_until(look.into()) => self.look().await?,
            () = sleep_until(question.into()) => self.ask().await,
            changed = self.source.changed() => {
                changed.map_err(|_| NobodyListens)?;
                self.begin_anew();
            }
        }
        self.tell_ways().await
    }

    /// The list is another one.
    fn begin_anew(&mut self) {
        (self.number, self.wanted) = self.source.borrow_and_update().clone();
        (self.is_first_over, self.looks) = (false, 0);
        self.devices.clear();
        let backends = &self.wanted.backends;
        self.ways.retain(|slot, known| backends.get(slot) == Some(&known.address));
        self.ways.values_mut().for_each(|known| known.is_told = false);
        self.pace.hurry(Instant::now());
    }

    /// Whether any of it is about a next hop.
    fn heard(&mut self, heard: &Heard) -> bool {
        let now = Instant::now();
        if heard.is_anything {
            self.pace.heard(now);
        }
        let mut is_about_hop = false;
        for (ifindex, address, neighbour) in &heard.neighbours {
            if let Some(hop) = self.hops.get_mut(&(*ifindex, *address)) {
                hop.learn(*neighbour, now);
                is_about_hop = true;
            }
        }
        is_about_hop
    }

    async fn tell(&self, change: Change) -> Result<(), NobodyListens> {
        self.changes.send((self.number, change)).await.map_err(|_| NobodyListens)
    }

    /// Looks at everything that is wanted.
    async fn look(&mut self) -> Result<(), NobodyListens> {
        if self.news.is_none() {
            // Before the look: what changes behind it is heard.
            let news = News::subscribe();
            self.news = news
                .inspect_err(
                    |error| warn!(event = "netlink", error = %error, "the kernel's news can't be heard"),
                )
                .ok();
        }
        for (name, place) in self.wanted.interfaces.clone() {
            match self.device(&name, place).await {
                Ok(device) if self.devices.get(&name) == Some(&device) => {}
                Ok(device) => {
                    self.devices.insert(name.clone(), device.clone());
                    self.tell(Change::Interface(name, device)).await?;
                }
                Err(error) => self.failed(&error),
            }
        }
        self.look_at_routes().await;
        self.look_at_hops().await;
        self.pace.looked(Instant::now());
        self.looks = self.looks.saturating_add(1);
        if std::mem::take(&mut self.has_failed)
            && let Ok(kernel) = Neighbours::connect()
        {
            self.kernel = kernel;
        }
        Ok(())
    }

    fn failed(&mut self, error: &DataplaneError) {
        warn!(event = "netlink", error = %error, "the kernel did not tell; asking again");
        self.has_failed = true;
    }

    async fn look_at_routes(&mut self) {
        for (slot, address) in self.wanted.backends.clone() {
            let route = self.kernel.route(address).await;
            let route = route.inspect_err(|error| self.failed(error)).map_err(|error| error.to_string());
            let known = self.ways.entry(slot).or_insert_with(|| Backend {
                address,
                since: Instant::now(),
                route: Ok(None),
                way: None,
                is_told: false,
            });
            known.route = route;
        }
    }

    /// Of the next hops that routes lead to.
    async fn look_at_hops(&mut self) {
        let routes = self.ways.values().filter_map(|known| known.route.as_ref().ok().copied().flatten());
        let routes = routes.filter(|route| self.slot_of(route.ifindex).is_some());
        let wanted: BTreeSet<Where> = routes.map(|route| (route.ifindex, route.next_hop)).collect();
        self.hops.retain(|hop, _| wanted.contains(hop));
        for (ifindex, address) in wanted {
            let now = Instant::now();
            match self.kernel.neighbour(ifindex, address).await {
                Ok(neighbour) => self
                    .hops
                    .entry((ifindex, address))
                    .and_modify(|hop| hop.learn(neighbour, now))
                    .or_insert_with(|| Hop::new(neighbour, now)),
                Err(error) => {
                    self.failed(&error);
                    // Of one that is known that stays true.
                    self.hops.entry((ifindex, address)).or_insert_with(|| Hop::new(None, now))
                }
            };
        }
    }

    /// What there is under an interface's name.
    async fn device(&self, name: &str, place: Option<Place>) -> Result<Device, DataplaneError> {
        match (self.kernel.interface(name).await, place) {
            (Ok((target, facts)), _) => {
                // Whether the driver still sends what native XDP hands it (on a veth the other end decides), and shows it
                // VLANs' tags. Where that can't be asked, the rest is true all the same.
                let features = self.kernel.xdp_features(facts.ifindex).await.unwrap_or_default();
                let mut lack = features.and_then(|features| features.lack(name, facts.mtu));
                if lack.is_none() {
                    lack = self.kernel.hidden_tags(&[&target]).await.unwrap_or_default().remove(name);
                }
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

    /// When a next hop is to be asked for, or is silent for so long that it is to be told.
    fn next_question(&self, now: Instant) -> Instant {
        let count = self.hops.len();
        let due = self.hops.values().filter_map(|hop| hop.due(count));
        let silent = self.hops.values().filter(|hop| hop.mac().is_none()).map(Hop::is_silent_at);
        due.chain(silent.filter(|at| *at > now)).min().unwrap_or(now + PATIENCE)
    }

    /// Asks the questions that are due.
    async fn ask(&mut self) {
        let (now, count) = (Instant::now(), self.hops.len());
        for (&(ifindex, address), hop) in &mut self.hops {
            let asked = match hop.question(count, now) {
                None => Ok(()),
                Some(Question::Find) => self.kernel.find(ifindex, address).await,
                Some(Question::Confirm) => self.kernel.confirm(ifindex, address).await,
                Some(Question::FindAnew) => self.kernel.find_anew(ifindex, address).await,
            };
            if let Err(error) = asked {
                // As on an interface that has just been set down: the next look knows more.
                debug!(event = "netlink", error = %error);
            }
        }
    }

    /// Tells the ways that have become others.
    async fn tell_ways(&mut self) -> Result<(), NobodyListens> {
        let now = Instant::now();
        let mut news = Vec::new();
        for (slot, known) in &self.ways {
            let way = self.way(known, now);
            let is_other = |way: &Way| known.way.as_ref().is_none_or(|(told, _)| told != way);
            if let Some(way) = way.filter(|way| is_other(way) || !known.is_told) {
                news.push((*slot, way));
            }
        }
        for (slot, way) in news {
            if let Some(known) = self.ways.get_mut(&slot) {
                let route = known.route.as_ref().ok().copied().flatten();
                known.way = Some((way.clone(), route));
                known.is_told = true;
            }
            self.tell(Change::Way(slot, way)).await?;
        }
        let is_told = |slot: &u16| self.ways.get(slot).is_some_and(|known| known.is_told);
        // A kernel that does not tell keeps nobody waiting: whoever goes on asks it, too.
        let are_devices_told =
            self.devices.len() == self.wanted.interfaces.len() || self.looks >= ENOUGH_LOOKS;
        if !self.is_first_over && are_devices_told && self.wanted.backends.keys().all(is_told) {
            self.is_first_over = true;
            self.tell(Change::FirstRound).await?;
        }
        Ok(())
    }

    /// The way to one backend now; `None`: that is not known yet.
    fn way(&self, backend: &Backend, now: Instant) -> Option<Way> {
        let address = backend.address;
        let route = match &backend.route {
            // What is not told is not another way.
            Err(_) if backend.way.is_some() || now < backend.since + PATIENCE => return None,
            Err(problem) => return Some(Err(problem.clone())),
            Ok(None) => return Some(Err(format!("no route to {address}"))),
            Ok(Some(route)) => route,
        };
        let Some(interface) = self.slot_of(route.ifindex) else {
            return Some(Err(self.no_program(address, route.ifindex)));
        };
        let Some(source) = route.source else {
            return Some(Err(format!("this gateway has no address to reach {address} from")));
        };
        let hop = self.hops.get(&(route.ifindex, route.next_hop))?;
        let before =
            backend.way.as_ref().filter(|(way, before)| way.is_ok() && before.as_ref() == Some(route));
        match hop.mac() {
            Some(mac) => Some(Ok((source, NextHop { mac, interface }))),
            None => match before {
                Some((Ok((source, hop)), _)) => Some(Ok((*source, NextHop { interface, ..*hop }))),
                _ => (now >= hop.is_silent_at()).then(|| Err(silent(route.next_hop))),
            },
        }
    }

    fn slot_of(&self, ifindex: u32) -> Option<u16> {
        let mut places = self.wanted.interfaces.values().flatten();
        places.find(|place| place.ifindex == ifindex).map(|place| place.slot)
    }

    fn no_program(&self, address: IpAddr, ifindex: u32) -> String {
        let is_it = |device: &Device| matches!(device, Device::Here(here) if here.facts.ifindex == ifindex);
        match self.devices.iter().find(|(_, device)| is_it(device)) {
            Some((name, _)) => {
                format!("the route to {address} leaves through {name}, where the program is not attached")
            }
            None => format!(
                "the route to {address} leaves through an interface that is not in [gateway] interfaces"
            ),
        }
    }
}

/// News, once there is somebody who hears them.
async fn hear(news: &mut Option<News>) -> io::Result<Heard> {
    match news {
        Some(news) => news.hear().await,
        None => std::future::pending().await,
    }
}

/// What to look for on the wire: who asks is named as the family calls it.
fn silent(next_hop: IpAddr) -> String {
    let question = if next_hop.is_ipv4() { "ARP" } else { "neighbour discovery" };
    format!("{next_hop} does not answer {question}")
}
