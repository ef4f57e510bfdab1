//! The ways to backends and the facts of interfaces, as the daemon's loop sees them: what is to be watched, and what has
//! changed.
//!
//! What is watched may be replaced at any time; what was found out for an earlier list is never told after that. Deliberately
//! not here: how it is found out (`watcher`), and what follows from it (`interfaces`, `carry_out`).

use std::collections::BTreeMap;
use std::net::IpAddr;

use balancer_common::abi::{Interface, NextHop};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::dataplane::attach::Target;
use crate::dataplane::neighbours::Neighbours;

use super::watcher::Watcher;

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
pub(super) type Way = Result<(IpAddr, NextHop), String>;

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

/// Of a list, and its number: each replacement has the next one.
pub(super) type Numbered<T> = (u64, T);

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
