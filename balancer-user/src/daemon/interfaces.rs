//! The interfaces of the configuration while the daemon runs: what the kernel has under each name, which slot flows know it
//! by, and the program on it.
//!
//! A device that is made anew under a name gets the program again, by the rules of a start, and the slot that flows know the
//! name by; so only packets in the gap are lost. Deliberately not here: the start, which attaches to all or none (`start`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use balancer_common::abi::Interface;
use nix::net::if_::if_nametoindex;
use tracing::{error, info, warn};

use crate::dataplane::DataplaneError;
use crate::dataplane::attach::{self, Attachment, Carrier, Mode, Target};

use super::Daemon;
use super::steps::Done;
use super::ways::{Device, Here, Place, Wanted};

/// After an attempt to attach that failed, unless there is news of the device before: so long, then twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(30);

/// All of them, by name.
#[derive(Debug, Default)]
pub(super) struct Interfaces(BTreeMap<String, Held>);

/// What is known of one.
#[derive(Debug, Default)]
struct Held {
    /// What the kernel told last; `None`: nothing yet.
    device: Option<Device>,
    /// As it is in the tables. The slot stays the name's own when the device is gone.
    written: Option<(u16, Interface)>,
    attached: Option<Attachment>,
    attempts: Attempts,
    /// Why no traffic passes it, or not as it was meant to; the words say which.
    problem: Option<String>,
}

/// Attempts to attach.
#[derive(Debug, Default)]
struct Attempts {
    is_under_way: bool,
    /// Of the latest one; those that were to be made after earlier ones are given up.
    number: u64,
    /// After the next one that fails.
    pause: Duration,
}

impl Interfaces {
    /// At the start: the names, and those that are there, with their slots.
    pub(super) fn new(names: &[String], written: &BTreeMap<String, (u16, Interface)>) -> Self {
        let held = |name: &String| Held { written: written.get(name).copied(), ..Held::default() };
        Self(names.iter().map(|name| (name.clone(), held(name))).collect())
    }

    /// For the watcher. Before programs are attached the ways lead through all that is there, as those of an earlier life do.
    pub(super) fn places(&self) -> BTreeMap<String, Option<Place>> {
        let place = |held: &Held| {
            let (slot, facts) = held.written?;
            let link_id = held.attached.as_ref().map_or(0, |attached| attached.link_id);
            Some(Place { slot, ifindex: facts.ifindex, link_id })
        };
        self.0.iter().map(|(name, held)| (name.clone(), place(held))).collect()
    }

    /// The name of the one with this index.
    pub(super) fn name_of(&self, ifindex: u32) -> Option<&str> {
        let is_it = |held: &Held| held.written.is_some_and(|(_, facts)| facts.ifindex == ifindex);
        self.0.iter().find(|(_, held)| is_it(held)).map(|(name, _)| name.as_str())
    }

    /// Where the program is.
    pub(super) fn attachments(&self) -> impl Iterator<Item = &Attachment> {
        self.0.values().filter_map(|held| held.attached.as_ref())
    }

    /// The program on this one.
    pub(super) fn attachment(&self, name: &str) -> Option<&Attachment> {
        self.0.get(name)?.attached.as_ref()
    }

    /// Why no traffic passes this one, or not as it was meant to.
    pub(super) fn problem(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.problem.as_deref()
    }

    /// Those that have one.
    pub(super) fn problems(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().filter_map(|(name, held)| Some((name.as_str(), held.problem.as_deref()?)))
    }

    /// Those that have neither the program nor a reason why not: it is about to be attached.
    pub(super) fn awaited(&self) -> impl Iterator<Item = &str> {
        let awaited = self.0.iter().filter(|(_, held)| held.attached.is_none() && held.problem.is_none());
        awaited.map(|(name, _)| name.as_str())
    }

    /// Why packets that a native program sends through this one are lost.
    pub(super) fn lack(&self, name: &str) -> Option<&String> {
        lack(self.0.get(name)?.device.as_ref())
    }

    /// Programs were attached at the start. What drivers lacked before doesn't count: many get it with the program.
    pub(super) fn opened(&mut self, attachments: Vec<Attachment>) {
        for attachment in attachments {
            let Some(held) = self.0.get_mut(&attachment.interface) else { continue };
            if let Some(Device::Here(here)) = &mut held.device {
                here.lack = None;
            }
            held.attach(attachment);
        }
    }

    /// Which interface had our program on this device, under another name.
    fn other_on(&self, here: &Here) -> Option<String> {
        self.0.iter().find(|(_, held)| held.is_on(here)).map(|(name, _)| name.clone())
    }

    /// What the device of this name is known by here, if our program is on it; the kernel says which device that is now.
    fn former_name(&self, name: &str) -> Option<String> {
        let index = if_nametoindex(name).ok()?;
        let is_on = |held: &Held| held.attached.as_ref().is_some_and(|attached| attached.ifindex == index);
        self.0.iter().find(|(_, held)| is_on(held)).map(|(former, _)| former.clone())
    }

    fn taken(&self) -> BTreeSet<u16> {
        self.0.values().filter_map(|held| Some(held.written?.0)).collect()
    }

    /// Where packets may go from another one.
    fn targets_beside(&self, name: &str) -> Vec<Target> {
        let others = self.0.iter().filter(|(other, held)| *other != name && held.attached.is_some());
        let targets = others.filter_map(|(_, held)| match &held.device {
            Some(Device::Here(here)) => Some(here.target.clone()),
            _ => None,
        });
        targets.collect()
    }
}

impl Held {
    fn attach(&mut self, attachment: Attachment) {
        if let Some(Device::Here(here)) = &mut self.device
            && here.facts.ifindex == attachment.ifindex
        {
            here.target.program = Some((attachment.program_id, attachment.mode));
        }
        self.attached = Some(attachment);
        self.attempts = Attempts { number: self.attempts.number, ..Attempts::default() };
    }

    /// Whether our program is on this device.
    fn is_on(&self, here: &Here) -> bool {
        let program = here.target.program.map(|(id, _)| id);
        self.attached.as_ref().is_some_and(|attached| {
            attached.ifindex == here.facts.ifindex && program == Some(attached.program_id)
        })
    }
}

fn impassable(carrier: Carrier, name: &str) -> Option<String> {
    match carrier {
        Carrier::Up => None,
        Carrier::None => {
            Some("it has no carrier (its cable, or the other end): no traffic passes it".to_owned())
        }
        Carrier::Down => Some(format!("it is down: no traffic passes it (`ip link set dev {name} up`)")),
    }
}

fn lack(device: Option<&Device>) -> Option<&String> {
    match device? {
        Device::Here(here) => here.lack.as_ref(),
        Device::Absent | Device::Renamed(_) => None,
    }
}

impl Daemon {
    /// Tells the watcher what is wanted now. To be called whenever interfaces or backends have changed.
    pub(super) fn watch(&self) {
        let backends = self.watched_backends();
        self.ways.watch(Wanted { interfaces: self.interfaces.places(), backends });
    }

    /// To which ways are kept: those of the configuration, and those who have left it and may have flows.
    pub(super) fn watched_backends(&self) -> BTreeMap<u16, IpAddr> {
        self.leaving.backends().chain(self.parts.backends()).collect()
    }

    /// The configuration names these interfaces now: what is new gets the program as soon as the kernel shows it, beside the
    /// loop; what isn't among them any more is released at once. A device that was only called otherwise keeps what it has.
    pub(super) fn want_interfaces(&mut self, names: &[String]) -> Result<(), DataplaneError> {
        for name in
            names.iter().filter(|name| !self.interfaces.0.contains_key(*name)).cloned().collect::<Vec<_>>()
        {
            if let Some(former) = self.interfaces.former_name(&name).filter(|former| !names.contains(former))
            {
                self.call(&former, &name)?;
            }
        }
        let known = self.interfaces.0.keys();
        for name in known.filter(|name| !names.contains(name)).cloned().collect::<Vec<_>>() {
            let slot = self.interfaces.0.get(&name).and_then(|held| Some(held.written?.0));
            self.parts.release(&name, slot)?;
            self.interfaces.0.remove(&name);
            info!(event = "released", interface = %name, "the interface is not in the configuration any more");
        }
        for name in names {
            self.interfaces.0.entry(name.clone()).or_default();
        }
        self.watch();
        Ok(())
    }

    /// An interface has another name now; its program, its slot and its flows stay.
    fn call(&mut self, former: &str, name: &str) -> Result<(), DataplaneError> {
        self.parts.exchange(name, former)?;
        let Some(mut held) = self.interfaces.0.remove(former) else { return Ok(()) };
        held.attached.iter_mut().for_each(|attached| name.clone_into(&mut attached.interface));
        // Told anew, under this name.
        (held.device, held.problem) = (None, None);
        self.interfaces.0.insert(name.to_owned(), held);
        info!(event = "interface", interface = name, before = former, "the same device under another name");
        Ok(())
    }

    /// The kernel has something else under the name of an interface.
    pub(super) fn interface_changed(&mut self, name: &str, device: Device) {
        let is_native = self.is_native();
        let Some(held) = self.interfaces.0.get_mut(name) else { return };
        if held.device.as_ref() == Some(&device) {
            return;
        }
        let before = held.device.replace(device);
        let (before, now) = (lack(before.as_ref()), lack(held.device.as_ref()));
        if is_native && before != now {
            match now {
                Some(lack) => warn!(event = "transmit", interface = name, "{lack}"),
                None => info!(event = "transmit", interface = name, "nothing is missing there any more"),
            }
        }
        held.attempts.pause = Duration::ZERO;
        self.settle(name);
    }

    /// Makes the tables and the program what the devices ask for: for when programs may be attached.
    pub(super) fn settle_all(&mut self) {
        let names: Vec<String> = self.interfaces.0.keys().cloned().collect();
        names.iter().for_each(|name| self.settle(name));
    }

    fn settle(&mut self, name: &str) {
        let Some(held) = self.interfaces.0.get_mut(name).filter(|_| self.ready) else { return };
        match &held.device {
            None => {}
            Some(Device::Absent) => {
                // Its link has died with it, or is with it in another network namespace.
                held.attached = None;
                self.trouble(name, "it does not exist: no traffic passes it".to_owned());
            }
            Some(Device::Renamed(now)) => {
                let problem = format!(
                    "its device is called {now} now, and traffic still passes it: call it {name} again \
                     (`ip link set dev {now} name {name}`), or name {now} in [gateway] interfaces and reload"
                );
                self.trouble(name, problem);
            }
            Some(Device::Here(here)) if held.is_on(here) => {
                let facts = here.facts;
                let problem = impassable(here.target.carrier, name);
                // Also if they are the same: where the device was gone for a moment, the kernel has emptied its place.
                self.write_interface(name, facts);
                match problem {
                    Some(problem) => self.trouble(name, problem),
                    None => self.is_well(name),
                }
            }
            Some(Device::Here(here)) => {
                let here = here.clone();
                match self.interfaces.other_on(&here) {
                    Some(other) => self.exchange(name, &other),
                    None => self.attach(name),
                }
            }
        }
    }

    /// Something is wrong with an interface; told once.
    fn trouble(&mut self, name: &str, problem: String) {
        let Some(held) = self.interfaces.0.get_mut(name) else { return };
        if held.problem.as_ref() != Some(&problem) {
            error!(event = "interface", interface = name, problem);
            held.problem = Some(problem);
        }
    }

    /// An interface has the device that another one had: each other's program and slot, as these belong to devices.
    fn exchange(&mut self, name: &str, other: &str) {
        if let Err(error) = self.parts.exchange(name, other) {
            error!(event = "dataplane", interface = name, error = %error, "the next start may miss its program");
        }
        let Some(mut one) = self.interfaces.0.remove(name) else { return };
        if let Some(another) = self.interfaces.0.get_mut(other) {
            info!(
                event = "interface",
                interface = name,
                before = other,
                "the interface has the other's device"
            );
            std::mem::swap(&mut one.attached, &mut another.attached);
            std::mem::swap(&mut one.written, &mut another.written);
            another.attached.iter_mut().for_each(|attached| other.clone_into(&mut attached.interface));
        }
        one.attached.iter_mut().for_each(|attached| name.clone_into(&mut attached.interface));
        self.interfaces.0.insert(name.to_owned(), one);
        self.watch();
        self.settle(name);
    }

    fn is_well(&mut self, name: &str) {
        let Some(held) = self.interfaces.0.get_mut(name) else { return };
        if held.problem.take().is_some() {
            info!(event = "interface", interface = name, "traffic passes this interface again");
        }
    }

    /// The facts of the device that the program is on, into the tables.
    fn write_interface(&mut self, name: &str, facts: Interface) {
        let taken = self.interfaces.taken();
        let Some(held) = self.interfaces.0.get_mut(name) else { return };
        let tables = &mut self.parts.tables;
        let slot = match held.written {
            Some((slot, _)) => Ok(slot),
            None => tables.interface_slot(&facts, &taken),
        };
        match slot.and_then(|slot| tables.set_interface(slot, facts).map(|()| slot)) {
            Ok(slot) => held.written = Some((slot, facts)),
            Err(error) => error!(event = "dataplane", error = %error, "the kernel's tables may be behind"),
        }
    }

    /// Has the program attached beside the loop, as drivers may take seconds.
    fn attach(&mut self, name: &str) {
        let others = self.interfaces.targets_beside(name);
        let Some(held) = self.interfaces.0.get_mut(name) else { return };
        if held.attempts.is_under_way {
            return;
        }
        held.attempts.is_under_way = true;
        held.attempts.number += 1;
        let (attacher, done, name) = (self.parts.attacher(), self.done.0.clone(), name.to_owned());
        let runtime = tokio::runtime::Handle::current();
        tokio::task::spawn_blocking(move || {
            let result = runtime.block_on(attacher.attach(&name, &others));
            // The loop has ended: nobody wants to know.
            let _ = done.blocking_send(Done::Attached(name, Box::new(result)));
        });
    }

    /// An attempt to attach has ended.
    pub(super) fn was_attached(
        &mut self,
        name: &str,
        result: Result<(Attachment, Interface), DataplaneError>,
    ) {
        let Some(held) = self.interfaces.0.get_mut(name) else {
            // It has left the configuration meanwhile.
            if let Err(error) = self.parts.release(name, None) {
                error!(event = "dataplane", interface = name, error = %error, "the program is left on it");
            }
            return;
        };
        held.attempts.is_under_way = false;
        match result {
            Ok((attachment, facts)) => {
                attachment.log();
                let is_another =
                    matches!(&held.device, Some(Device::Here(here)) if here.facts.ifindex != facts.ifindex);
                held.attach(attachment);
                if is_another {
                    // It is told anew below, and is news then.
                    held.device = None;
                }
                self.write_interface(name, facts);
                // Whatever was found out before is told anew, also what there is now if the device was made anew meanwhile.
                self.watch();
                if !is_another {
                    self.settle(name);
                }
            }
            Err(error) => {
                held.attempts.pause = (held.attempts.pause * 2).clamp(FIRST_PAUSE, LAST_PAUSE);
                let (pause, number) = (held.attempts.pause, held.attempts.number);
                self.trouble(name, format!("{error}; it is tried again, until then no traffic passes it"));
                let (done, name) = (self.done.0.clone(), name.to_owned());
                tokio::spawn(async move {
                    tokio::time::sleep(pause).await;
                    let _ = done.send(Done::AttachAgain(name, number)).await;
                });
            }
        }
    }

    /// It is time to try again, unless that has been done since.
    pub(super) fn attach_again(&mut self, name: &str, number: u64) {
        if self.interfaces.0.get(name).is_some_and(|held| held.attempts.number == number) {
            self.settle(name);
        }
    }

    /// Whether a program runs natively: then it sends packets through drivers.
    pub(super) fn is_native(&self) -> bool {
        !attach::native(self.interfaces.attachments()).is_empty()
    }

    /// The devices on which the kernel's stack runs the program.
    pub(super) fn generic_devices(&self) -> BTreeSet<u32> {
        let generic = self.interfaces.attachments().filter(|attachment| attachment.mode == Mode::Generic);
        generic.map(|attachment| attachment.ifindex).collect()
    }
}
