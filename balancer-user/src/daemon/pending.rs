//! What of the configuration is still to come, for the answer to a reload and for `status`: a sentence each.
//!
//! Deliberately not here: what is wrong (`degraded`).

use super::kin::Delay;
use super::{Daemon, kin, plan};

impl Daemon {
    /// What is still to come, a sentence each.
    pub(super) fn pending(&self) -> Vec<String> {
        let confirmation = self.reloads.confirmed_until().map(|until| {
            format!(
                "the last reload is taken back at {} unless `balancer reload --confirmed` comes before",
                self.written(until)
            )
        });
        let delays = self.reloads.delays().iter().map(|delay| match delay {
            Delay::Busy(pool) => {
                format!("pool {pool} is in the middle of a change: it gets its new configuration when that is over")
            }
            Delay::HandsOver { pool, backend } => format!(
                "pool {pool}: {} ({}) is left out by the configuration, and goes when another backend has taken over",
                backend.name, backend.address
            ),
        });
        let restart =
            kin::for_a_restart(&plan::wanted(self.reloads.wanted()), &plan::wanted(&self.parts.config));
        let attached =
            self.interfaces.awaited().map(|name| format!("interface {name} is about to get the program"));
        confirmation
            .into_iter()
            .chain(delays)
            .chain(restart)
            .chain(self.other_modes())
            .chain(attached)
            .collect()
    }

    /// Interfaces on which the program runs in another mode than is wanted.
    fn other_modes(&self) -> Vec<String> {
        let choice = plan::mode_choice(&self.parts.config);
        let others = self.interfaces.attachments().filter(|attachment| !choice.allows(attachment.mode));
        let words = others.map(|attachment| {
            format!(
                "interface {} stays in {} mode: another one would cut its traffic for a moment; `balancer detach` and a new \
                 start change it",
                attachment.interface,
                attachment.mode.name()
            )
        });
        words.collect()
    }
}
