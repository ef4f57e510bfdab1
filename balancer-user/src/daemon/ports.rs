//! Whether the ports that flows leave from are enough, and still nobody else's. Numbers in, words out, as troubles: nothing here
//! decides about a flow.
//!
//! The kernel's own ports can be set at any time, and a probe from a port that flows leave from has its answer taken for a
//! flow's. So they are looked at again and again; what is done about it is the operator's, by a reload.

use std::ops::RangeInclusive;
use std::time::Duration;

use balancer_common::verdict::Reason;
use tracing::warn;

use crate::config::{self, Config, KernelPorts};
use crate::policy::Moment;

use super::Daemon;

/// After the last connection that was dropped for want of a port, so long nothing is well yet: a client that tries again does
/// so within this.
const QUIET: Duration = Duration::from_secs(60);

/// What was found at the last look.
#[derive(Debug, Default)]
pub(super) struct Ports {
    exhaustion: Exhaustion,
    taken: Option<String>,
}

/// Connections that found no port.
#[derive(Debug, Default)]
struct Exhaustion {
    /// All in all, and at which look there were more than before.
    dropped: Option<u64>,
    last: Option<Moment>,
}

impl Exhaustion {
    fn is(&mut self, dropped: u64, now: Moment) {
        let has_grown = self.dropped.replace(dropped).is_some_and(|before| before < dropped);
        if has_grown {
            self.last = Some(now);
        }
        self.last = self.last.filter(|last| now < *last + QUIET);
    }

    fn trouble(&self) -> Option<String> {
        self.last.map(|_| {
            "new connections are dropped, as every source port towards their backend is in use (snat_exhausted): widen \
             snat_ports, or add to snat_addresses"
                .to_owned()
        })
    }
}

impl Ports {
    /// What is not as it should be: a name that stays, and words.
    pub(super) fn troubles(&self) -> impl Iterator<Item = (String, String)> {
        let exhausted = self.exhaustion.trouble().map(|words| ("snat_exhausted".to_owned(), words));
        let taken = self.taken.clone().map(|words| ("snat_ports".to_owned(), words));
        exhausted.into_iter().chain(taken)
    }
}

/// Ports that flows of a pool leave from and the kernel gives to sockets of this machine by now.
fn taken(config: &Config, kernel: &KernelPorts) -> Option<String> {
    let taken: Vec<RangeInclusive<u16>> = kernel.all().collect();
    config.pools.iter().find_map(|pool| {
        let both = config::common_ports(&pool.snat_ports, &taken);
        (!both.is_empty()).then(|| {
            format!(
                "ports {} of {}'s snat_ports belong to this machine's own connections since net.ipv4.ip_local_port_range or \
                 net.ipv4.ip_local_reserved_ports was changed: probes from them fail; `balancer reload` leaves them out",
                config::shown_ranges(&both),
                pool.name
            )
        })
    })
}

impl Daemon {
    /// Looks at both.
    pub(super) fn look_at_ports(&mut self) {
        match self.parts.tables.tally(Reason::SnatExhausted) {
            Ok(tally) => self.ports.exhaustion.is(tally.dropped, self.clock.now()),
            Err(error) => {
                warn!(event = "dataplane", error = %error, "connections without a port are not seen")
            }
        }
        match KernelPorts::read() {
            Ok(kernel) => self.ports.taken = taken(&self.parts.config, &kernel),
            Err(error) => warn!(event = "ports", error = %error, "the kernel's own ports are not seen"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;

    #[test]
    fn what_was_dropped_before_is_nobodys_trouble_now_and_what_is_dropped_is_for_a_minute() {
        let at = |seconds| Moment::after_zero(Duration::from_secs(seconds));
        let mut exhaustion = Exhaustion::default();
        let looks = [(0, 7), (3, 7), (6, 8), (9, 8), (60, 8), (65, 8), (66, 8), (69, 9)];
        let told = looks.map(|(seconds, dropped)| {
            exhaustion.is(dropped, at(seconds));
            exhaustion.trouble().is_some()
        });
        assert_eq!(told, [false, false, true, true, true, true, false, true]);
    }

    #[test]
    fn ports_that_became_the_kernels_are_told_with_their_pool() {
        let config = example::config(example::BASE);
        let kernel = |first, last| KernelPorts { ephemeral: first..=last, reserved: vec![3000..=3000] };
        let told = taken(&config, &kernel(30000, 60999)).unwrap();
        assert!(told.starts_with("ports 3000,30000-32767 of passwords's snat_ports belong to "), "{told}");
        let alone = KernelPorts { reserved: Vec::new(), ..kernel(32768, 60999) };
        assert_eq!(taken(&config, &alone), None);
    }
}
