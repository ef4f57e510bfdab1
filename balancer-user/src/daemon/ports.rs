//! Whether the ports that flows leave from are enough, and still nobody else's. Numbers in, words out, as troubles: nothing here
//! decides about a flow.
//!
//! The kernel's own ports can be set at any time, and what answers a connection of this machine from a port that flows leave from
//! is taken for a flow's. So they are looked at again and again; probes keep to others meanwhile, and what is done about it is
//! the operator's, by a reload.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use balancer_common::verdict::Reason;
use tracing::warn;

use crate::config::{self, KernelPorts};
use crate::policy::Moment;
use crate::probe::LocalPorts;

use super::Daemon;

/// After the last connection that was dropped for want of a port, so long nothing is well yet: a client that tries again does
/// so within this.
const QUIET: Duration = Duration::from_secs(60);

/// What was found at the last look.
#[derive(Debug, Default)]
pub(super) struct Ports {
    exhaustion: Exhaustion,
    taken: Option<String>,
    /// The kernel's when the configuration was accepted, which has left them out.
    accepted: Vec<RangeInclusive<u16>>,
    of_probes: Arc<LocalPorts>,
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

    /// Which ports probes leave from.
    pub(super) fn of_probes(&self) -> Arc<LocalPorts> {
        self.of_probes.clone()
    }

    /// What is accepted once more without a look at the machine may have left few out, or none.
    fn accept(&mut self, flows: &[RangeInclusive<u16>], kernel: &KernelPorts) {
        let left = |accepted: &[RangeInclusive<u16>]| -> usize {
            config::ports_without(accepted, flows.iter().cloned()).iter().map(ExactSizeIterator::len).sum()
        };
        let accepted = vec![kernel.ephemeral.clone()];
        if left(&accepted) >= left(&self.accepted) {
            self.accepted = accepted;
        }
    }

    /// These are the ports that flows leave from now, and the kernel's own ones.
    fn are(&mut self, flows: Vec<RangeInclusive<u16>>, kernel: &KernelPorts) {
        self.taken = taken(&flows, kernel);
        let own = config::ports_without(&self.accepted, flows.iter().cloned());
        if self.of_probes.both() != (&flows[..], &own[..]) {
            self.of_probes = Arc::new(LocalPorts::new(flows, own));
        }
    }
}

/// Ports that flows leave from and that the kernel gives to connections of this machine by now.
fn taken(flows: &[RangeInclusive<u16>], kernel: &KernelPorts) -> Option<String> {
    let given =
        config::ports_without(std::slice::from_ref(&kernel.ephemeral), kernel.reserved.iter().cloned());
    let both = config::common_ports(flows, &given);
    (!both.is_empty()).then(|| {
        format!(
            "ports {} of snat_ports are this machine's own since net.ipv4.ip_local_port_range was changed: what answers its \
             connections from there is taken for answers to flows (probes leave from others); `balancer reload` leaves them out",
            config::shown_ranges(&both)
        )
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
        self.with_kernel_ports(|ports, flows, kernel| ports.are(flows, kernel));
    }

    /// A configuration is in force, which has left out what is the kernel's own now.
    pub(super) fn ports_are_accepted(&mut self) {
        self.with_kernel_ports(|ports, flows, kernel| {
            ports.accept(&flows, kernel);
            ports.are(flows, kernel);
        });
    }

    fn with_kernel_ports(&mut self, look: impl FnOnce(&mut Ports, Vec<RangeInclusive<u16>>, &KernelPorts)) {
        match KernelPorts::read() {
            Ok(kernel) => look(&mut self.ports, self.parts.tables.flow_ports(), &kernel),
            Err(error) => warn!(event = "ports", error = %error, "the kernel's own ports are not seen"),
        }
    }
}

#[cfg(test)]
mod tests {
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
    fn ports_that_became_the_kernels_are_told_and_probes_keep_to_the_others() {
        let kernel = |first, last| KernelPorts { ephemeral: first..=last, reserved: vec![32000..=33000] };
        let flows = || vec![1024..=32767, 61000..=65535];
        let mut ports = Ports { accepted: vec![32768..=60999], ..Ports::default() };
        ports.are(flows(), &kernel(32768, 60999));
        assert_eq!(ports.taken, None);
        let before = ports.of_probes();
        assert_eq!(before.both(), (&flows()[..], &[32768..=60999][..]));
        ports.are(flows(), &kernel(30000, 61000));
        let told = ports.taken.clone().unwrap();
        assert!(told.starts_with("ports 30000-31999,61000 of snat_ports are this machine's own "), "{told}");
        assert!(Arc::ptr_eq(&before, &ports.of_probes()), "nothing is another way for probes");
        // Those of an earlier configuration that are kept for a while aren't left from either.
        ports.are(vec![1024..=40000], &kernel(32768, 60999));
        assert_eq!(ports.of_probes().both().1, [40001..=60999]);
        for (ephemeral, accepted) in
            [((2000, 3000), 32768..=60999), ((2000, 32769), 32768..=60999), ((2000, 60999), 2000..=60999)]
        {
            ports.accept(&flows(), &kernel(ephemeral.0, ephemeral.1));
            assert_eq!(ports.accepted, [accepted]);
        }
    }
}
