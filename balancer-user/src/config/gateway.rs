//! `[gateway]` and `[http]`: what concerns the machine as a whole.

use std::collections::BTreeMap;
use std::time::Duration;

use super::limits::{FLOWS, INTERFACES, SHORTEST_IDLE};
use super::notes::Says;
use super::problem::Fault;
use super::source::{Located, Span};
use super::table::Table;
use super::{Gateway, Http, XdpMode, addresses, names};

const MAX_FLOWS: u32 = 262_144;
const MAX_HALF_OPEN: u32 = 65_536;
const IDLE_TIMEOUT: Duration = Duration::from_secs(2 * 3600 + 5 * 60);
const INTERFACES_EXAMPLE: &str = "interfaces = [\"wan0\", \"lan0\"]";

/// Reads `[gateway]`. None where an error was noted.
pub(super) fn read(top: &mut Table<'_>) -> Option<Gateway> {
    let Some(mut table) = top.table("gateway") else {
        if !top.has("gateway") {
            top.missing("gateway", &format!("[gateway] and below it {INTERFACES_EXAMPLE}"));
        }
        return None;
    };
    let interfaces = interfaces(&mut table);
    let xdp_mode = table.choice(
        "xdp_mode",
        &[("auto", XdpMode::Auto), ("native", XdpMode::Native), ("generic", XdpMode::Generic)],
    );
    let max_flows = table.number("max_flows", 1..=FLOWS);
    let max_half_open = table.number("max_half_open", 1..=FLOWS);
    let idle_timeout = table.duration("idle_timeout", SHORTEST_IDLE);
    let notify = names::command(&mut table, "notify");
    table.finish();
    Some(Gateway {
        interfaces: interfaces?,
        xdp_mode: xdp_mode.map_or(XdpMode::Auto, |mode| mode.value),
        max_flows: max_flows.map_or(MAX_FLOWS, |number| number.value),
        max_half_open: max_half_open.map_or(MAX_HALF_OPEN, |number| number.value),
        idle_timeout: idle_timeout.map_or(IDLE_TIMEOUT, |duration| duration.value),
        notify,
    })
}

fn interfaces(table: &mut Table<'_>) -> Option<Vec<String>> {
    const KEY: &str = "interfaces";
    if !table.has(KEY) {
        table.missing(KEY, INTERFACES_EXAMPLE);
    }
    let written = table.texts(KEY, INTERFACES, names::interface)?;
    if written.value.is_empty() {
        let instead = format!("write for example {INTERFACES_EXAMPLE}");
        table.error(written.span, KEY, Fault::new("names no interface to attach to", instead));
    }
    let mut seen: BTreeMap<String, Span> = BTreeMap::new();
    let mut names = Vec::new();
    for Located { value, span } in written.value {
        if let Some(first) = seen.get(&value) {
            let message = format!("`{value}` stands here already on line {}", table.notes().line(*first));
            table.error(span, KEY, Fault::new(message, "name each interface once"));
            continue;
        }
        seen.insert(value.clone(), span);
        table.claim(span, KEY, Says::Interface(value.clone()));
        names.push(value);
    }
    Some(names)
}

/// Reads `[http]`.
pub(super) fn read_http(top: &mut Table<'_>) -> Option<Http> {
    let mut table = top.table("http")?;
    let listen = table.required_text("listen", "listen = \"127.0.0.1:9464\"", addresses::socket);
    let token_file = table.text("token_file", names::path);
    if let Some(Located { value, span }) = &token_file {
        table.claim(*span, "token_file", Says::Token(value.clone()));
        if listen.as_ref().is_some_and(|listen| !listen.value.ip().is_loopback()) {
            table.notes().warning(
                *span,
                "the token can be read on the way, as there is no TLS: listen on 127.0.0.1 and come through ssh -L, or see that \
                 nobody else is on that network",
            );
        }
    }
    table.finish();
    Some(Http { listen: listen?.value, token_file: token_file.map(|file| file.value), token: None })
}
