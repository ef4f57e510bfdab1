//! What is traced, and what is told of it.

use std::time::Duration;

use anyhow::Result;
use balancer_common::abi::Traced;
use balancer_common::limits::MAX_TRACES;
use balancer_user::dataplane::traces::Wish;

use super::Gateway;

impl Gateway {
    /// Has this traced instead of everything, for so long.
    ///
    /// # Errors
    /// When the program can't be told.
    pub fn trace(&mut self, wishes: &[Wish], lasts: Duration) -> Result<()> {
        self.watch.want(wishes, lasts)
    }

    /// What was told since then to whoever traces: of the last frame, as a rule.
    pub fn traced(&mut self) -> Vec<Traced> {
        self.watch.told()
    }

    /// How many packets each wish wanted that it wasn't told of.
    ///
    /// # Errors
    /// When the table can't be read.
    pub fn untold(&self) -> Result<[u64; MAX_TRACES]> {
        self.watch.missed()
    }

    /// Whether the program looks at packets for anybody.
    ///
    /// # Errors
    /// When the table can't be read.
    pub fn is_tracing(&self) -> Result<bool> {
        self.watch.is_on()
    }
}
