//! Ring buffers by which the packet path tells things one by one: read in bounded batches, and waited for.
//!
//! What was told to nobody, as no daemon ran, is of no use to anybody later and is thrown away. Deliberately absent: what the
//! records say.
#![expect(unsafe_code, reason = "that a descriptor stays what it is can only be promised")]

use std::os::fd::{AsRawFd, RawFd};

use aya::Ebpf;
use aya::maps::{MapData, RingBuf};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::DataplaneError;
use super::tables::take;

/// So many are read in one go, which takes some microseconds.
const AT_ONCE: usize = 64;

/// A buffer of records. There is one reader of a pinned one, as its directory has one user.
pub struct Ring<T> {
    name: &'static str,
    ring: RingBuf<MapData>,
    parse: fn(&[u8]) -> Option<T>,
}

impl<T> Ring<T> {
    /// From a loaded object. `bytes`: its size; `parse`: a record of its bytes, if they are one.
    pub(super) fn take(
        ebpf: &mut Ebpf,
        name: &'static str,
        bytes: usize,
        parse: fn(&[u8]) -> Option<T>,
    ) -> Result<Self, DataplaneError> {
        let mut ring: RingBuf<MapData> = take(ebpf, name)?;
        // More than there can be; what comes meanwhile is new.
        (0..bytes).take_while(|_| ring.next().is_some()).for_each(drop);
        Ok(Self { name, ring, parse })
    }

    /// For a task that waits until there are some.
    ///
    /// # Errors
    /// The kernel has no room for one more descriptor to wait for.
    pub fn awaited(self) -> Result<AsyncFd<Self>, DataplaneError> {
        let name = self.name;
        // SAFETY: the ring buffer has its map's descriptor for as long as it lives, gives out that one alone, and closes it
        // when it is dropped, which is after the registration has been.
        let awaited = unsafe { AsyncFd::register_with_interest(self, Interest::READABLE) };
        awaited
            .map_err(|error| DataplaneError::Io { what: format!("waiting for {name}"), source: error.into() })
    }

    /// The next ones, each CPU's in the order in which they were told; `true`: there may be more.
    pub fn read(&mut self) -> (Vec<T>, bool) {
        let mut told = Vec::new();
        for _ in 0..AT_ONCE {
            let Some(record) = self.ring.next() else { return (told, false) };
            told.extend((self.parse)(&record));
        }
        (told, true)
    }
}

impl<T> AsRawFd for Ring<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}

/// What is told next; waits until there is something.
pub async fn heard<T>(ring: &mut AsyncFd<Ring<T>>) -> Vec<T> {
    let Ok(mut guard) = ring.readable_mut().await else {
        // The runtime ends.
        return std::future::pending().await;
    };
    let (told, may_be_more) = guard.get_inner_mut().read();
    if !may_be_more {
        guard.clear_ready();
    }
    told
}
