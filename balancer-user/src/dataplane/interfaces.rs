//! Interfaces as the packet path knows them: by a slot, which next hops name, with the kernel's device in the same slot of
//! another map; and by the kernel's index, for what comes in.

use std::collections::BTreeSet;

use aya::maps::xdp::{DevMap, XdpMapError};
use aya::maps::{Array, HashMap, MapData};
use balancer_common::abi::Interface;
use balancer_common::limits::MAX_INTERFACES;

use super::DataplaneError;
use super::maps::Maps;
use super::tables::take;

/// The maps that hold them.
pub(super) struct InterfaceTables {
    interfaces: Array<MapData, Interface>,
    slots: HashMap<MapData, u32, u32>,
    devices: DevMap<MapData>,
}

impl InterfaceTables {
    pub(super) fn take(maps: &mut impl Maps) -> Result<Self, DataplaneError> {
        Ok(Self {
            interfaces: take(maps, "INTERFACES")?,
            slots: take(maps, "INTERFACE_SLOTS")?,
            devices: take(maps, "DEVICES")?,
        })
    }

    /// All of them, by slot.
    pub(super) fn all(&self) -> Result<Vec<Interface>, DataplaneError> {
        let all = self.interfaces.iter().collect::<Result<_, _>>();
        all.map_err(DataplaneError::map("reading", "INTERFACES"))
    }

    /// An interface's facts, and the kernel's device. No other slot has the device any more: the packet path takes any that
    /// names it for the right one.
    pub(super) fn set(&mut self, slot: u16, interface: Interface) -> Result<(), DataplaneError> {
        for (other, known) in (0..).zip(self.all()?) {
            if other != slot && known.ifindex == interface.ifindex {
                self.release(other)?;
            }
        }
        self.forget(slot, interface.ifindex)?;
        self.slots
            .insert(interface.ifindex, u32::from(slot), 0)
            .map_err(DataplaneError::map("writing", "INTERFACE_SLOTS"))?;
        self.put(slot, interface)
    }

    /// Nothing leaves through the interface in this slot any more, and the slot is free.
    pub(super) fn release(&mut self, slot: u16) -> Result<(), DataplaneError> {
        self.forget(slot, 0)?;
        // The kernel empties the slot of index 0.
        self.put(slot, Interface::default())
    }

    /// The slot for an interface, see [`Tables::interface_slot`](super::tables::Tables::interface_slot).
    pub(super) fn slot(&self, interface: &Interface, taken: &BTreeSet<u16>) -> Result<u16, DataplaneError> {
        let (mut free, mut same) = (None, None);
        for slot in (1..MAX_INTERFACES as u16).rev() {
            let known =
                self.interfaces.get(&slot.into(), 0).map_err(DataplaneError::map("reading", "INTERFACES"))?;
            // The kernel empties a device's slot when the device goes.
            let gone = self.devices.get(slot.into(), 0).is_err();
            if known.ifindex == interface.ifindex && !gone {
                return Ok(slot);
            }
            if gone && !taken.contains(&slot) {
                free = Some(slot);
                same = if known.mac == interface.mac { free } else { same };
            }
        }
        same.or(free).ok_or(DataplaneError::NoSlot { what: "an interface", limit: MAX_INTERFACES - 1 })
    }

    /// Of those that were known by this slot all but one.
    fn forget(&mut self, slot: u16, kept: u32) -> Result<(), DataplaneError> {
        let known = self.slots.iter().filter_map(Result::ok);
        let earlier = known.filter(|(ifindex, held)| *held == u32::from(slot) && *ifindex != kept);
        for (ifindex, _) in earlier.collect::<Vec<_>>() {
            self.slots.remove(&ifindex).map_err(DataplaneError::map("removing from", "INTERFACE_SLOTS"))?;
        }
        Ok(())
    }

    fn put(&mut self, slot: u16, interface: Interface) -> Result<(), DataplaneError> {
        self.interfaces
            .set(slot.into(), interface, 0)
            .map_err(DataplaneError::map("writing", "INTERFACES"))?;
        self.devices.set(slot.into(), interface.ifindex, None, 0).map_err(|error| match error {
            XdpMapError::MapError(error) => DataplaneError::map("writing", "DEVICES")(error),
            XdpMapError::ChainedProgramNotSupported => DataplaneError::ObjectLacks("DEVICES"),
        })
    }
}
