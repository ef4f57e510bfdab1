//! Ways to backends before they have a place in the kernel's tables, so that the first packet to them needn't wait for the
//! watcher of ways to find them there.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::dataplane::neighbours::Neighbours;

/// Between looks: a neighbour on a LAN answers in less.
const PAUSE: Duration = Duration::from_millis(10);

/// A way to somebody who has no slot yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FirstWay {
    /// Our address towards it.
    pub(super) source: IpAddr,
    /// Where it leaves.
    pub(super) ifindex: u32,
    /// Whom it is handed to there.
    pub(super) mac: [u8; 6],
}

/// Looks until all are found or the time is over.
pub(super) async fn first_ways(addresses: &[IpAddr], limit: Duration) -> BTreeMap<IpAddr, FirstWay> {
    let mut found = BTreeMap::new();
    if addresses.is_empty() {
        return found;
    }
    let Ok(kernel) = Neighbours::connect() else { return found };
    let until = Instant::now() + limit;
    loop {
        for address in addresses {
            if !found.contains_key(address)
                && let Some(way) = way(&kernel, *address).await
            {
                found.insert(*address, way);
            }
        }
        if found.len() == addresses.len() || Instant::now() >= until {
            return found;
        }
        sleep(PAUSE).await;
    }
}

async fn way(kernel: &Neighbours, address: IpAddr) -> Option<FirstWay> {
    let route = kernel.route(address).await.ok()??;
    let Some(known) = kernel.neighbour(route.ifindex, route.next_hop).await.ok()? else {
        // The next look finds what came of it.
        let _ = kernel.find(route.ifindex, route.next_hop).await;
        return None;
    };
    Some(FirstWay { source: route.source?, ifindex: route.ifindex, mac: known.mac })
}
