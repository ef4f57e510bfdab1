//! `balancer trace`: packets as they are decided about, a line each, and how many are not shown.

use super::layout::{Colour, Palette, printable};
use super::{Output, Paths, TraceArgs, ask};
use crate::control::client::Client;
use crate::control::protocol::{TraceLine, TraceNote, TraceQuery, Traced, Verdict};
use crate::exit::{self, Exit, Failure, say};

/// Asks and prints, until so many were shown, the daemon or the service has gone, or nobody reads any more.
///
/// # Errors
/// No daemon, or refused: no such service, or too many traces already.
pub fn run(paths: &Paths, arguments: &TraceArgs, output: Output) -> Result<Exit, Failure> {
    let TraceArgs { client, service, limit } = arguments.clone();
    let query = TraceQuery { client, service };
    ask::wait(show(&Client::new(&paths.socket), &query, limit, output))
}

async fn show(
    client: &Client,
    query: &TraceQuery,
    limit: Option<u64>,
    output: Output,
) -> Result<Exit, Failure> {
    let palette = Palette::of_stdout();
    let mut lines = client.trace(query).await?;
    say("packets are shown as they come; Ctrl-C ends it");
    let mut left = limit.unwrap_or(u64::MAX);
    while left > 0 {
        let Some(told) = lines.next().await? else {
            say("the daemon has ended, and with it the trace");
            return Ok(Exit::Ok);
        };
        let text = match (output, &told) {
            (Output::Json, _) => ask::json_line(&told)?,
            (Output::Table, TraceLine::Packet(packet)) => line(packet, palette),
            (Output::Table, TraceLine::Note(note)) => missed(note.missed),
        };
        if !exit::offer(&text)? {
            return Ok(Exit::Ok);
        }
        match told {
            TraceLine::Packet(_) => left -= 1,
            TraceLine::Note(TraceNote { ended: Some(why), .. }) => {
                say(&format!("the trace has ended: {}", printable(&why)));
                return Ok(Exit::Ok);
            }
            TraceLine::Note(_) => {}
        }
    }
    Ok(Exit::Ok)
}

/// A line, if there are any.
fn missed(count: u64) -> String {
    if count > 0 { format!("... {count} more that are not shown\n") } else { String::new() }
}

/// As in `… wan0 192.0.2.7:40000 > 203.0.113.10:443 tcp syn … 60 B: forwarded (passwords/web), server1, as 10.0.2.1:… > …`.
pub(super) fn line(packet: &Traced, palette: Palette) -> String {
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let mut text = missed(packet.missed);
    let head = [
        Some(packet.at.to_string()),
        Some(or_dash(&packet.interface)),
        Some(format!("{} > {}", or_dash(&packet.from), or_dash(&packet.to))),
        packet.protocol.clone(),
        packet.flags.clone(),
        packet.sequence.map(|number| format!("seq {number}")),
        packet.acknowledgement.map(|number| format!("ack {number}")),
        Some(format!("{} B: ", packet.bytes)),
    ];
    text += &printable(&head.into_iter().flatten().collect::<Vec<_>>().join(" "));
    palette.paint(&packet.verdict.to_string(), colour(packet), &mut text);
    text += &printable(&what_else(packet));
    text.push('\n');
    text
}

/// What there is to say behind the verdict.
fn what_else(packet: &Traced) -> String {
    let reason = packet.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let by = match (&packet.pool, &packet.service) {
        (Some(pool), Some(service)) => format!(" ({pool}/{service})"),
        (Some(pool), None) => format!(" ({pool})"),
        _ => String::new(),
    };
    let became = match (&packet.became, &packet.backend) {
        (Some(ends), Some(backend)) => format!(", {backend}, as {} > {}", ends.from, ends.to),
        (Some(ends), None) => format!(", as {} > {}", ends.from, ends.to),
        (None, Some(backend)) => format!(", {backend}"),
        (None, None) => String::new(),
    };
    format!("{reason}{by}{became}")
}

fn colour(packet: &Traced) -> Option<Colour> {
    match packet.verdict {
        Verdict::Forwarded => Some(Colour::Good),
        Verdict::Dropped => Some(Colour::Bad),
        Verdict::Answered => Some(Colour::Doubtful),
        Verdict::Passed => None,
    }
}
