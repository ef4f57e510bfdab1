//! The text of `/metrics`: OpenMetrics, with the contract's names.
//!
//! Made anew for each scrape, of the same documents that `status` and `stats` print: the numbers can't differ. Nothing has to
//! be escaped: names are letters, digits, `.`, `_` and `-`.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::control::protocol::{Admin, Backend, BackendStats, Health, Pool, ServiceStats, Stats, Status};

use super::tallies::{Counted, Tallies, Target};

/// As it is sent.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything that is shown.
#[derive(Debug)]
struct Scrape {
    status: Status,
    stats: Stats,
    counted: Counted,
}

/// Label names and values of one line.
type Labels<'a> = Vec<(&'static str, &'a str)>;

/// The whole text.
///
/// # Errors
/// Never in practice: it is written into a String.
pub(super) fn render(status: Status, stats: Stats, tallies: &Tallies) -> Result<String, fmt::Error> {
    let pools: Vec<&str> = status.pools.iter().map(|pool| pool.name.as_str()).collect();
    let counted = tallies.of_now(|target| is_known(&status, target), &pools);
    let mut registry = Registry::with_prefix("balancer");
    registry.register_collector(Box::new(Arc::new(Scrape { status, stats, counted })));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

fn is_known(status: &Status, target: &Target) -> bool {
    let pool = status.pools.iter().find(|pool| pool.name == target.pool);
    pool.is_some_and(|pool| {
        pool.backends.iter().any(|backend| backend.name == target.backend)
            && pool.services.iter().any(|service| service.name == target.service)
    })
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut sheet = Sheet(encoder);
        self.backends(&mut sheet)?;
        self.traffic(&mut sheet)?;
        self.attempts(&mut sheet)?;
        self.probes(&mut sheet)?;
        self.changes(&mut sheet)?;
        self.gateway(&mut sheet)
    }
}

impl Scrape {
    fn backends(&self, sheet: &mut Sheet<'_>) -> fmt::Result {
        let mut gauge = |name, help, value: fn(&Pool, &Backend) -> u64| {
            let of_pool = |pool| {
                let line = move |of| (in_pool(pool, of), value(pool, of) as f64);
                shown(pool).map(line)
            };
            sheet.gauges(name, help, self.status.pools.iter().flat_map(of_pool))
        };
        gauge("backend_up", "Whether its health is up", |_, of| u64::from(of.health == Health::Up))?;
        gauge("backend_active", "Whether new flows go to it", |pool, of| {
            u64::from(pool.active.as_ref() == Some(&of.name))
        })?;
        gauge("backend_admin_ready", "Whether the operator has it in use", |_, of| {
            u64::from(of.admin == Admin::Ready)
        })?;
        gauge("backend_flows", "Established flows that have not closed", |_, of| of.flows)
    }

    fn traffic(&self, sheet: &mut Sheet<'_>) -> fmt::Result {
        let mut counter = |name, help, value: fn(&ServiceStats) -> u64| {
            let line = |of| (of_service(of), value(of));
            sheet.counters(name, help, self.stats.services.iter().map(line))
        };
        counter("new_flows", "Handshakes that were completed", |of| of.new_flows)?;
        counter("packets", "Packets in both directions", |of| of.packets)?;
        counter("bytes", "Bytes in both directions", |of| of.bytes)?;
        let Stats { drops, answers, .. } = &self.stats;
        let drops = drops.iter().map(|(reason, count)| (vec![("reason", reason.as_str())], *count));
        sheet.counters("drops", "Packets dropped", drops)?;
        let answers = answers.iter().map(|(reason, count)| (vec![("reason", reason.as_str())], *count));
        sheet.counters("answers", "Packets answered by the gateway itself", answers)
    }

    fn attempts(&self, sheet: &mut Sheet<'_>) -> fmt::Result {
        let retries = self.backend_stats().flat_map(|of| {
            let causes = [("refused", of.retried_refused), ("unanswered", of.retried_unanswered)];
            causes.map(|(cause, count)| ([of_backend(of), vec![("cause", cause)]].concat(), count))
        });
        sheet.counters("retries", "Connection attempts that went on from it to another backend", retries)?;
        let mut counter = |name, help, value: fn(&BackendStats) -> u64| {
            let line = |of| (of_backend(of), value(of));
            sheet.counters(name, help, self.backend_stats().map(line))
        };
        counter("rescued", "Connection attempts that it took after another backend had not", |of| {
            of.rescued
        })?;
        counter("resets_sent", "Clients that were told that their flow has ended", |of| of.resets_sent)
    }

    /// While an address changes two have the same name; the one that comes first is the one to stay.
    fn backend_stats(&self) -> impl Iterator<Item = &BackendStats> {
        let mut seen = BTreeSet::new();
        self.stats.backends.iter().filter(move |of| seen.insert((&of.pool, &of.backend)))
    }

    fn probes(&self, sheet: &mut Sheet<'_>) -> fmt::Result {
        let probes = &self.counted.probes;
        let help = "How long probes took, the failed ones included";
        sheet.histograms(
            "probe_seconds",
            help,
            probes.iter().map(|(of, probes)| (of_target(of), &probes.seconds)),
        )?;
        let failures = probes.iter().flat_map(|(of, probes)| {
            let labels = |reason| [of_target(of), vec![("reason", reason)]].concat();
            probes.failures.iter().map(move |(reason, count)| (labels(*reason), *count))
        });
        sheet.counters("probe_failures", "Probes that failed", failures)?;
        let ends =
            probes.iter().filter_map(|(of, probes)| Some((of_target(of), unix(probes.certificate_expires?))));
        sheet.gauges(
            "certificate_expiry_timestamp_seconds",
            "When the last certificate ends that it showed",
            ends,
        )
    }

    fn changes(&self, sheet: &mut Sheet<'_>) -> fmt::Result {
        let Counted { failovers, last_failover, failover_seconds, .. } = &self.counted;
        let lines = failovers
            .iter()
            .map(|((pool, reason), count)| (vec![("pool", pool.as_str()), ("reason", *reason)], *count));
        sheet.counters("failovers", "Changes of the active backend", lines)?;
        let lines = last_failover.iter().map(|(pool, at)| (vec![("pool", pool.as_str())], unix(*at)));
        sheet.gauges("last_failover_timestamp_seconds", "When the active backend last changed", lines)?;
        let help =
            "After a failure: from the last good answer of the old backend to the first of the new one";
        let metric = sheet.0.encode_descriptor("failover_seconds", help, None, MetricType::Histogram)?;
        failover_seconds.encode(metric)
    }

    fn gateway(&self, sheet: &mut Sheet<'_>) -> fmt::Result {
        let used = self.counted.used.iter().map(|(table, ratio)| (vec![("table", *table)], *ratio));
        sheet.gauges("flow_table_used_ratio", "Flows of those that there may be", used)?;
        let Some(daemon) = &self.status.daemon else { return Ok(()) };
        let help = "1 at the start, and one more for each reload";
        let mut metric = sheet.0.encode_descriptor("config_generation", help, None, MetricType::Gauge)?;
        metric.encode_gauge(&daemon.config_generation)?;
        let build = [(vec![("version", daemon.version.as_str())], 1.0)];
        sheet.gauges("build_info", "What runs", build.into_iter())
    }
}

/// While an address changes the backend before has the name of the one behind it, and is disabled.
fn shown(pool: &Pool) -> impl Iterator<Item = &Backend> {
    let is_twin = |of: &Backend| {
        of.admin == Admin::Disabled && pool.backends.iter().filter(|other| other.name == of.name).count() > 1
    };
    pool.backends.iter().filter(move |of| !is_twin(of))
}

fn in_pool<'a>(pool: &'a Pool, of: &'a Backend) -> Labels<'a> {
    vec![("pool", &pool.name), ("backend", &of.name)]
}

fn of_service(of: &ServiceStats) -> Labels<'_> {
    vec![("pool", &of.pool), ("service", &of.service)]
}

fn of_backend(of: &BackendStats) -> Labels<'_> {
    vec![("pool", &of.pool), ("backend", &of.backend)]
}

fn of_target(of: &Target) -> Labels<'_> {
    vec![("pool", &of.pool), ("backend", &of.backend), ("service", &of.service)]
}

fn unix(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// Where metrics are written, each with all of its lines.
struct Sheet<'a>(DescriptorEncoder<'a>);

impl Sheet<'_> {
    fn gauges<'l>(
        &mut self,
        name: &str,
        help: &str,
        lines: impl Iterator<Item = (Labels<'l>, f64)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in lines {
            metric.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    /// `_total` is added to the name.
    fn counters<'l>(
        &mut self,
        name: &str,
        help: &str,
        lines: impl Iterator<Item = (Labels<'l>, u64)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in lines {
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&value, None)?;
        }
        Ok(())
    }

    fn histograms<'l>(
        &mut self,
        name: &str,
        help: &str,
        lines: impl Iterator<Item = (Labels<'l>, &'l Histogram)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (labels, histogram) in lines {
            histogram.encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::control::protocol::example;

    fn shown() -> String {
        let tallies = Tallies::default();
        let target = |backend: &str| Target {
            pool: "passwords".to_owned(),
            backend: backend.to_owned(),
            service: "web".to_owned(),
        };
        let expires = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        tallies.probed(target("server1"), Duration::from_millis(3), None, Some(expires));
        tallies.probed(target("server1"), Duration::from_secs(1), Some("handshake_timeout"), None);
        tallies.probed(target("removed"), Duration::from_secs(1), Some("refused"), None);
        tallies.moved("passwords", "backend_down", UNIX_EPOCH + Duration::from_secs(1_700_000_000));
        tallies.recovered(Duration::from_millis(209));
        tallies.filled("established", 0.25);
        render(example::status(), example::stats(), &tallies).unwrap()
    }

    #[test]
    fn it_has_the_contracts_names_and_the_documents_numbers() {
        let text = shown();
        let target = "pool=\"passwords\",backend=\"server1\",service=\"web\"";
        for line in [
            "balancer_backend_up{pool=\"passwords\",backend=\"server1\"} 1.0".to_owned(),
            "balancer_backend_active{pool=\"passwords\",backend=\"server1\"} 1.0".to_owned(),
            format!("balancer_probe_seconds_bucket{{le=\"0.005\",{target}}} 1"),
            format!("balancer_probe_seconds_count{{{target}}} 2"),
            format!("balancer_probe_failures_total{{{target},reason=\"handshake_timeout\"}} 1"),
            format!("balancer_certificate_expiry_timestamp_seconds{{{target}}} 1800000000.0"),
            "balancer_failovers_total{pool=\"passwords\",reason=\"backend_down\"} 1".to_owned(),
            "balancer_last_failover_timestamp_seconds{pool=\"passwords\"} 1700000000.0".to_owned(),
            "balancer_failover_seconds_bucket{le=\"0.25\"} 1".to_owned(),
            "balancer_flow_table_used_ratio{table=\"established\"} 0.25".to_owned(),
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in:\n{text}");
        }
        for name in ["new_flows", "packets", "bytes", "retries", "rescued", "resets_sent", "drops", "answers"]
        {
            assert!(text.contains(&format!("# TYPE balancer_{name} counter\n")), "{name} in:\n{text}");
            assert!(text.contains(&format!("\nbalancer_{name}_total{{")), "{name} in:\n{text}");
        }
        assert!(!text.contains("removed"), "what isn't configured any more is forgotten:\n{text}");
    }

    #[test]
    fn each_metric_is_told_of_once_and_its_lines_are_together() {
        let text = shown();
        assert!(text.ends_with("\n# EOF\n"), "{text}");
        let mut seen = BTreeSet::new();
        let mut current = "";
        for line in text.lines().filter(|line| *line != "# EOF") {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                current = rest.split(' ').next().unwrap();
                assert!(seen.insert(current), "{current} stands twice");
            } else if !line.starts_with('#') {
                assert!(line.starts_with(current), "{line} stands under {current}");
                let (_, value) = line.rsplit_once(' ').unwrap();
                assert!(value.parse::<f64>().is_ok(), "{line}");
            }
        }
        assert!(seen.len() > 20, "{seen:?}");
    }
}
