//! How clients that would go on are told to end in order: by SIGTERM.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

/// Whether it is time to end.
#[derive(Debug, Clone, Default)]
pub struct Ending(Arc<AtomicBool>);

impl Ending {
    /// From now on SIGTERM doesn't kill, but is seen here.
    ///
    /// # Errors
    /// When the signal can't be waited for.
    pub fn by_sigterm() -> Result<Self> {
        let ending = Self::default();
        let mut terminate = signal(SignalKind::terminate()).context("wait for SIGTERM")?;
        let seen = ending.clone();
        tokio::spawn(async move {
            terminate.recv().await;
            seen.0.store(true, Ordering::Relaxed);
        });
        Ok(ending)
    }

    /// It is.
    #[must_use]
    pub fn is_here(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
