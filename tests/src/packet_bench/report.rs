//! The table: what each row costs, what it is compared with, and what is wanted of it.

use super::gateway::Gateway;
use super::samples::{Row, Samples};

/// A promise: one row costs at most so many times as much as another.
#[derive(Clone, Debug)]
pub(super) struct Comparison {
    pub(super) row: Row,
    pub(super) with: Row,
    pub(super) wanted: Wanted,
}

/// What is promised of a comparison.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Wanted {
    /// Nothing: it is good to know.
    Nothing,
    /// No more than that can be told apart from nothing.
    NoMore,
    /// At most so many times as much.
    AtMost(f64),
}

/// Medians of one and the same program differ by as much from run to run on a machine that does other things too.
const NOISE: f64 = 0.05;

/// Prints all rows, each with its comparison; returns how many are worse than is wanted.
pub(super) fn print(samples: &Samples, comparisons: &[Comparison]) -> usize {
    let mut missed = 0;
    println!(
        "{:52}{:>9}{:>9}{:>17}{:>4}  ratio",
        "ns/packet without the harness", "flows", "median", "least .. most", "n"
    );
    for row in samples.rows() {
        let Some(summary) = samples.summary(&row) else { continue };
        let spread = format!("{:.1} .. {:.1}", summary.least, summary.most);
        print!("{:52}{:>9}{:>9.1}{spread:>17}{:>4}", row.what, row.flows, summary.median, summary.rounds);
        for comparison in comparisons.iter().filter(|comparison| comparison.row == row) {
            let Some(with) = samples.summary(&comparison.with) else { continue };
            let ratio = summary.median / with.median;
            print!("  {ratio:.2} x {}", comparison.with.what);
            if comparison.with.flows != row.flows {
                print!(" ({} flows)", comparison.with.flows);
            }
            let (is_kept, wanted) = match comparison.wanted {
                Wanted::Nothing => continue,
                Wanted::NoMore => (ratio <= 1.0 + NOISE, "no more".to_owned()),
                Wanted::AtMost(most) => (ratio <= most, format!("{most:.2}")),
            };
            missed += usize::from(!is_kept);
            print!(" (wanted {wanted}{})", if is_kept { "" } else { ", missed" });
        }
        println!();
    }
    missed
}

/// Prints what the verifier and the compiler made of a program.
pub(super) fn print_program(name: &str, gateway: &Gateway) {
    let size = gateway.size;
    println!(
        "program, {name}: {} instructions verified, {} bytes translated, {} bytes of machine code",
        size.verified, size.translated, size.jited
    );
}

/// Prints the program's tables, and how much an IPv4 flow takes of them.
pub(super) fn print_memory(gateway: &Gateway, wanted_bytes: f64) -> usize {
    println!(
        "\n{:18}{:>10}{:>6}{:>7}{:>14}{:>14}",
        "map", "entries", "key", "value", "key + value", "in kernel"
    );
    for map in &gateway.maps {
        println!(
            "{:18}{:>10}{:>6}{:>7}{:>14}{:>14}",
            map.name,
            map.entries,
            map.key_bytes,
            map.value_bytes,
            map.bytes(),
            map.kernel_bytes
        );
    }
    let [plain, kernel] = gateway.bytes_per_flow();
    let is_kept = plain <= wanted_bytes;
    println!(
        "memory for each IPv4 flow at max_flows = {}: {plain:.0} bytes of keys and values (wanted {wanted_bytes:.0}{}), \
         {kernel:.0} allocated by the kernel",
        gateway.wanted.max_flows,
        if is_kept { "" } else { ", missed" }
    );
    usize::from(!is_kept)
}
