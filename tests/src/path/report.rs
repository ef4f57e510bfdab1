//! The report: tables that read alike on a terminal and as Markdown, and what is to be known about them.

use crate::markdown::{line, table};

use super::{
    cables::Cables,
    machine,
    measure::Plan,
    metric::Metric,
    programs::Programs,
    samples::{Middle, Samples},
    subject::Subject,
};

/// What a document says before the report: what is measured, how, and what it means.
pub const PREFACE: &str = include_str!("preface.md");

/// What costs more with a gateway than without one, and what that is called. A difference of medians: no ratios of those, which
/// would be of their noise.
const OF_THE_GATEWAY: [(Metric, &str); 2] = [
    (Metric::CpuPerConnection, "CPU of the gateway per connection, µs"),
    (Metric::CpuPerGigabyte, "CPU of the gateway per GB, ms"),
];

/// Nothing was measured, or there is nothing to say, or a gateway costs no more than none.
const NONE: &str = "-";

/// The whole report, in Markdown.
#[must_use]
pub fn report(samples: &Samples, plan: Plan, programs: &Programs) -> String {
    let mut text = String::from("## Machine\n\n");
    for (what, is) in machine::describe(&programs.balancer, &programs.peers) {
        line(&mut text, format_args!("- {what}: {is}"));
    }
    let [hosts, gateway] = Cables::Wire.words();
    let [_, merging] = Cables::Merging.words();
    let [whole, _] = Cables::Whole.words();
    line(
        &mut text,
        format_args!("- offloads (`ethtool -K`): client and backend `{hosts}`, gateway `{gateway}`;"),
    );
    line(
        &mut text,
        format_args!(
            "  in the rows with GRO and of frames: gateway `{merging}`; with 64 KiB packets: all `{whole}`"
        ),
    );
    line(
        &mut text,
        format_args!("- {} rounds, {} ms for each value\n", plan.rounds, plan.window.as_millis()),
    );
    line(&mut text, format_args!("## Medians (smallest to largest)\n"));
    text += &medians(samples);
    line(&mut text, format_args!("\n## Ratios: balancer to each peer (wanted)\n"));
    text += &ratios(samples);
    for note in samples.notes() {
        line(&mut text, format_args!("\n- {note}"));
    }
    text
}

fn medians(samples: &Samples) -> String {
    let mut rows = vec![header(&Subject::ALL)];
    for metric in Metric::ALL {
        let cells = Subject::ALL.iter().map(|&subject| {
            samples.middle(metric, subject).map_or_else(|| NONE.to_owned(), |middle| shown(&middle))
        });
        rows.push([metric.title().to_owned()].into_iter().chain(cells).collect());
    }
    for (metric, title) in OF_THE_GATEWAY {
        let cells = Subject::ALL.iter().map(|&subject| {
            samples
                .beyond_the_ends(metric, subject)
                .map_or_else(|| NONE.to_owned(), |cost| format!("{cost:.0}"))
        });
        rows.push([title.to_owned()].into_iter().chain(cells).collect());
    }
    let failed = Subject::ALL.iter().map(|&subject| {
        let attempts = samples.attempts(subject);
        match attempts.ok + attempts.failed {
            0 => NONE.to_owned(),
            all => format!("{} of {all}", attempts.failed),
        }
    });
    rows.push(["failed connections".to_owned()].into_iter().chain(failed).collect());
    let busy = Subject::ALL.iter().map(|&subject| {
        let (busy, all) = samples.busy_turns(subject);
        format!("{busy} of {all}")
    });
    rows.push(["turns on a busy machine".to_owned()].into_iter().chain(busy).collect());
    table(&rows)
}

fn ratios(samples: &Samples) -> String {
    let peers = &Subject::ALL[1..];
    let mut rows = vec![header(peers)];
    for metric in Metric::ALL {
        let cells = peers.iter().map(|&peer| match (samples.ratio(metric, peer), metric.wanted(peer)) {
            (None, _) => NONE.to_owned(),
            (Some(ratio), None) => format!("{ratio:.2}"),
            (Some(ratio), Some(wanted)) => format!("{ratio:.2} ({wanted:.2})"),
        });
        let better = if metric.is_better_when_more() { "more" } else { "less" };
        let title = format!("{}; {better} is better", metric.title());
        rows.push([title].into_iter().chain(cells).collect());
    }
    table(&rows)
}

fn header(subjects: &[Subject]) -> Vec<String> {
    let names = subjects.iter().map(|subject| subject.name().to_owned());
    [String::new()].into_iter().chain(names).collect()
}

fn shown(Middle { median, min, max }: &Middle) -> String {
    let decimals = if *median < 100.0 { 1 } else { 0 };
    format!("{median:.decimals$} ({min:.decimals$} to {max:.decimals$})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_measured_is_a_dash() {
        let text = ratios(&Samples::default());
        assert!(text.lines().skip(2).all(|line| line.matches(" - ").count() == 6), "{text}");
    }
}
