//! Strangers' connections: so many at once, and of these so many from one place, so that nobody keeps all others out.
//!
//! A place is an address, or what mostly belongs to one: of IPv6 the whole /64. Deliberately not here: listening, and what
//! becomes of those who are not let in.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many are here, and from where. Clones are the same crowd.
#[derive(Clone, Debug)]
pub struct Crowd {
    room: Arc<Semaphore>,
    from_one_place: usize,
    from: Arc<Mutex<BTreeMap<IpAddr, usize>>>,
}

/// One of them; it leaves when this is dropped.
#[derive(Debug)]
pub struct Guest {
    crowd: Crowd,
    place: IpAddr,
    permit: Option<OwnedSemaphorePermit>,
}

/// Why somebody is not let in.
#[derive(Debug, PartialEq, Eq)]
pub enum Crowded {
    /// Enough are here from there.
    There,
    /// Enough are here.
    Everywhere,
}

impl Crowd {
    /// `room`: for so many; `from_one_place`: for so many of them.
    #[must_use]
    pub fn new(room: usize, from_one_place: usize) -> Self {
        Self { room: Arc::new(Semaphore::new(room)), from_one_place, from: Arc::default() }
    }

    /// Lets one in, once there is room. None: enough are here from there.
    pub async fn admit(&self, peer: IpAddr) -> Option<Guest> {
        let mut guest = self.count_in(peer)?;
        // Closed never.
        guest.permit = Some(self.room.clone().acquire_owned().await.ok()?);
        Some(guest)
    }

    /// Lets one in if there is room now.
    ///
    /// # Errors
    /// Who is in the way.
    pub fn admit_now(&self, peer: IpAddr) -> Result<Guest, Crowded> {
        let mut guest = self.count_in(peer).ok_or(Crowded::There)?;
        guest.permit = Some(self.room.clone().try_acquire_owned().map_err(|_| Crowded::Everywhere)?);
        Ok(guest)
    }

    fn count_in(&self, peer: IpAddr) -> Option<Guest> {
        let place = place(peer);
        let mut from = self.from();
        let here = from.entry(place).or_default();
        if *here >= self.from_one_place {
            return None;
        }
        *here += 1;
        Some(Guest { crowd: self.clone(), place, permit: None })
    }

    fn from(&self) -> MutexGuard<'_, BTreeMap<IpAddr, usize>> {
        // Each change is whole, whatever became of who made it.
        self.from.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut from = self.crowd.from();
        if let Some(here) = from.get_mut(&self.place) {
            *here -= 1;
            if *here == 0 {
                from.remove(&self.place);
            }
        }
    }
}

/// Whoever has an IPv6 address mostly has its whole /64.
#[must_use]
pub fn place(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() >> 64 << 64).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn who_has_a_network_of_addresses_is_one_place() {
        for (one, other) in [
            ("2001:db8::1:2:3:4", "2001:db8::5"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("192.0.2.7", "192.0.2.7"),
        ] {
            assert_eq!(place(ip(one)), place(ip(other)));
        }
        for (one, other) in [("2001:db8::1", "2001:db8:0:1::1"), ("192.0.2.7", "192.0.2.8")] {
            assert_ne!(place(ip(one)), place(ip(other)));
        }
    }

    #[tokio::test]
    async fn one_place_leaves_room_for_others_and_who_leaves_makes_room() {
        let (crowd, one, other) = (Crowd::new(3, 2), ip("192.0.2.1"), ip("192.0.2.2"));
        let first = crowd.admit(one).await.unwrap();
        let _second = crowd.admit_now(one).unwrap();
        assert!(crowd.admit(one).await.is_none());
        assert_eq!(crowd.admit_now(one).unwrap_err(), Crowded::There);
        let _third = crowd.admit(other).await.unwrap();
        assert_eq!(crowd.clone().admit_now(other).unwrap_err(), Crowded::Everywhere);
        // It waits, as it may be somebody's from elsewhere that leaves.
        let (fourth, ()) = tokio::join!(crowd.admit(other), async { drop(first) });
        drop(fourth.unwrap());
        assert!(crowd.admit_now(one).is_ok());
    }

    #[tokio::test]
    async fn who_gives_up_waiting_or_has_left_is_not_remembered() {
        let (crowd, one, other) = (Crowd::new(1, 1), ip("192.0.2.1"), ip("192.0.2.2"));
        let guest = crowd.admit(one).await.unwrap();
        let waits = timeout(Duration::from_millis(10), crowd.admit(other)).await;
        assert!(waits.is_err(), "there is no room");
        assert_eq!(crowd.from().len(), 1);
        drop(guest);
        assert!(crowd.from().is_empty());
    }
}
