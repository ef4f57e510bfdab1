//! `balancer trace`: what became of each packet, as it happens, in a gateway with real clients and servers.

use std::fs;
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use balancer_common::limits::MAX_TRACES;
use balancer_tests::{
    gateway::PATIENCE,
    lab::{Process, Topology},
    poll::poll_until,
    schema::Schema,
    site::{API, Options, PASSWORDS, POOL, Pool, Programs, Service, Site, WEB},
};
use rustix::process::Signal;
use serde_json::{Value, json};

fn site(label: &str) -> Result<Site> {
    let programs = Programs::under_test(env!("CARGO_BIN_EXE_lab-host"))?;
    Site::start(label, &Topology::two_armed(), Options::default(), &programs)
}

/// A trace that has begun.
fn start(site: &Site, words: &[&str]) -> Result<Process> {
    let words = site.gateway.words(&[&["trace"], words].concat());
    let mut trace = site.lab().gateway().spawn(&words)?;
    let has_begun = poll_until(PATIENCE, "a trace", || {
        let is_running = trace.is_running();
        let said = trace.stderr();
        let has_begun = said.contains("packets are shown as they come");
        if has_begun || !is_running { Ok(has_begun) } else { Err(said) }
    })?;
    ensure!(has_begun, "{}", trace.stderr());
    Ok(trace)
}

/// The packets that were shown so far, each as its schema says.
fn shown(trace: &Process) -> Result<Vec<Value>> {
    let text = trace.stdout();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    Ok(whole.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

/// Waits until a packet like this was shown.
fn wait_for(trace: &Process, what: &str, is_it: impl Fn(&Value) -> bool) -> Result<Value> {
    poll_until(PATIENCE, what, || {
        let shown = shown(trace).map_err(|error| error.to_string())?;
        let found = shown.iter().find(|packet| is_it(packet)).cloned();
        found.ok_or_else(|| shown.iter().map(|packet| format!("{packet}\n")).collect::<String>())
    })
}

#[test]
fn a_connection_is_shown_from_its_first_packet_on_both_ways() -> Result<()> {
    let site = site("trace_flow")?;
    let client = site.lab().client().address().to_string();
    let trace = start(&site, &["--client", &client, "-o", "json"])?;
    let held = site.hold(PASSWORDS, WEB)?;
    let (from, vip) = (held.local.to_string(), format!("{}:443", site.vip(PASSWORDS)));
    let syn =
        wait_for(&trace, "the SYN", |packet| packet["flags"] == "syn" && packet["from"] == from.as_str())?;
    for (key, value) in [
        ("interface", json!("wan0")),
        ("protocol", json!("tcp")),
        ("to", json!(vip)),
        ("verdict", json!("forwarded")),
        ("reason", Value::Null),
        ("pool", json!(POOL)),
        ("service", json!("web")),
        ("backend", json!("server1")),
        ("acknowledgement", Value::Null),
        ("missed", json!(0)),
    ] {
        ensure!(syn[key] == value, "{key} of {syn}");
    }
    let backend = syn["became"]["to"].as_str().context("where it went")?;
    let answer = wait_for(&trace, "its answer", |packet| packet["flags"] == "syn,ack")?;
    ensure!(answer["from"] == backend && answer["interface"] == "lan0", "{answer} after {syn}");
    ensure!(answer["became"] == json!({ "from": vip, "to": from }), "{answer}");
    ensure!(answer["service"] == "web" && answer["backend"] == "server1", "{answer}");
    let next = syn["sequence"].as_u64().context("a sequence number")? + 1;
    ensure!(answer["acknowledgement"] == next % (1 << 32), "{answer} after {syn}");

    let said = site.gateway.verb(&["schema", "trace"])?.expect(0)?.json()?;
    let schema = Schema::closed(&said)?;
    for packet in shown(&trace)? {
        let wrong = schema.errors(&packet);
        ensure!(wrong.is_empty(), "{wrong:?} in {packet}");
    }
    Ok(())
}

#[test]
fn what_is_dropped_answered_or_left_to_the_kernel_is_shown_with_its_reason() -> Result<()> {
    let mut site = site("trace_fates")?;
    let client = site.lab().client();
    let trace = start(&site, &["--client", &client.address().to_string(), "-o", "json"])?;
    // Nobody listens there, and it isn't balancer's to say so.
    let closed = (site.vip(PASSWORDS), 4443);
    client
        .enter(|| TcpStream::connect_timeout(&closed.into(), Duration::from_secs(5)).map(drop))?
        .unwrap_err();
    let passed = wait_for(&trace, "what passed", |packet| packet["verdict"] == "passed")?;
    ensure!(passed["to"] == format!("{}:4443", closed.0) && passed["service"].is_null(), "{passed}");
    ensure!(passed["became"].is_null() && passed["reason"].is_null(), "{passed}");

    // Flows that a restart with --replace has forgotten.
    let mut held = site.hold(PASSWORDS, WEB)?;
    site.gateway.terminate()?;
    site.gateway.verb(&["detach"])?.expect(0)?;
    site.gateway.start(&[])?;
    let trace = start(&site, &["--service", "web", "-o", "json"])?;
    held.ask().unwrap_err();
    let answered = wait_for(&trace, "what was answered", |packet| packet["verdict"] == "answered")?;
    ensure!(answered["reason"] == "no_flow" && answered["service"] == "web", "{answered}");
    Ok(())
}

#[test]
fn a_services_packets_are_shown_alone_and_a_name_must_be_one() -> Result<()> {
    let site = site("trace_service")?;
    let trace = start(&site, &["--service", "passwords/api", "-o", "json"])?;
    let _web = site.hold(PASSWORDS, WEB)?;
    let _api = site.hold(PASSWORDS, API)?;
    wait_for(&trace, "a request to the api", |packet| packet["flags"] == "psh,ack")?;
    for packet in shown(&trace)? {
        ensure!(packet["service"] == "api", "{packet}");
    }
    let refused = site.gateway.verb(&["trace", "--service", "smtp"])?.expect(1)?;
    ensure!(refused.stderr.contains("there is no service \"smtp\""), "{refused:?}");
    Ok(())
}

#[test]
fn a_service_is_followed_by_its_name_over_reloads_and_its_trace_ends_with_it() -> Result<()> {
    const MOVED: Service = Service { port: 8878, ..API };
    let site = site("trace_reload")?;
    let before = fs::read_to_string(site.gateway.configuration())?;
    let mut trace = start(&site, &["--service", "api", "-o", "json"])?;
    // It has another slot at another port, and its old one drains.
    site.gateway.reload(&before.replace(":8877\"", ":8878\""))?;
    let held = site.hold(PASSWORDS, MOVED)?;
    let from = held.local.to_string();
    let syn =
        wait_for(&trace, "a SYN", |packet| packet["flags"] == "syn" && packet["from"] == from.as_str())?;
    ensure!(syn["service"] == "api" && syn["to"] == format!("{}:8878", site.vip(PASSWORDS)), "{syn}");

    let others = Options { pools: &[Pool { services: &[WEB], ..PASSWORDS }], ..Options::default() };
    site.gateway.reload(&site.configuration(others))?;
    ensure!(trace.wait(PATIENCE)?.success(), "{}", trace.stderr());
    let why = "service passwords/api is not in the configuration any more";
    ensure!(trace.stderr().contains(why), "{}", trace.stderr());
    let said = site.gateway.verb(&["schema", "trace"])?.expect(0)?.json()?;
    let (schema, shown) = (Schema::closed(&said)?, shown(&trace)?);
    let last = shown.last().context("a line")?;
    ensure!(last["ended"] == why && schema.errors(last).is_empty(), "{last}: {:?}", schema.errors(last));
    Ok(())
}

#[test]
fn for_people_it_is_a_line_a_packet_and_so_many_as_are_wanted() -> Result<()> {
    let site = site("trace_lines")?;
    let mut trace = start(&site, &["--service", "web", "--limit", "3"])?;
    let _held = site.hold(PASSWORDS, WEB)?;
    ensure!(trace.wait(PATIENCE)?.success(), "{}", trace.stderr());
    let text = trace.stdout();
    let lines: Vec<_> = text.lines().collect();
    ensure!(lines.len() == 3, "{text}");
    ensure!(
        lines[0].contains(":443 tcp syn seq ")
            && lines[0].contains(" B: forwarded (passwords/web), server1, as "),
        "{text}"
    );
    ensure!(lines[1].contains(" tcp syn,ack seq "), "{text}");
    Ok(())
}

#[test]
fn what_is_left_out_is_told_though_no_packet_follows() -> Result<()> {
    /// For it to be counted, and told.
    const SOON: Duration = Duration::from_secs(4);
    let site = site("trace_missed")?;
    let trace = start(&site, &["--client", &site.lab().client().address().to_string(), "-o", "json"])?;
    let is_note = |line: &Value| line["verdict"].is_null() && line["missed"].as_u64() > Some(0);
    let note = poll_until(PATIENCE, "a line without a packet", || {
        // More at once than is told: unless the last of them are, nothing follows what was left out.
        let report = site.load(WEB, &["--connections", "200"]).map_err(|error| format!("{error:#}"))?;
        poll_until(SOON, "what was left out", || {
            let shown = shown(&trace).map_err(|error| format!("{error:#}"))?;
            shown.into_iter().find(is_note).ok_or_else(|| "no such line".to_owned())
        })
        .map_err(|error| format!("{error:#} after {report}"))
    })?;
    ensure!(note["ended"].is_null(), "{note}");
    Ok(())
}

#[test]
fn as_many_traces_as_there_may_be_leave_room_when_one_ends() -> Result<()> {
    let site = site("trace_many")?;
    let mut traces = (0..MAX_TRACES).map(|_| start(&site, &["-o", "json"])).collect::<Result<Vec<_>>>()?;
    let refused = site.gateway.verb(&["trace"])?.expect(1)?;
    ensure!(refused.stderr.contains("traces are under way, as many as there may be"), "{refused:?}");
    let mut first = traces.remove(0);
    first.signal(Signal::INT)?;
    first.wait(PATIENCE)?;
    let one_more = poll_until(PATIENCE, "room for one more", || {
        start(&site, &["-o", "json"]).map_err(|error| format!("{error:#}"))
    })?;
    let held = site.hold(PASSWORDS, WEB)?;
    let from = held.local.to_string();
    for trace in traces.iter().chain([&one_more]) {
        wait_for(trace, "the same SYN", |packet| {
            packet["flags"] == "syn" && packet["from"] == from.as_str()
        })?;
    }
    Ok(())
}

#[test]
fn a_trace_ends_with_its_daemon_and_the_next_daemon_has_room_for_all() -> Result<()> {
    let mut site = site("trace_end")?;
    let mut traces = (0..MAX_TRACES).map(|_| start(&site, &["-o", "json"])).collect::<Result<Vec<_>>>()?;
    site.gateway.kill();
    for trace in &mut traces {
        ensure!(trace.wait(PATIENCE)?.success(), "{}", trace.stderr());
        ensure!(trace.stderr().contains("the daemon has ended"), "{}", trace.stderr());
    }
    let alone = site.gateway.verb(&["trace"])?.expect(4)?;
    ensure!(alone.stderr.contains("no daemon answers"), "{alone:?}");
    site.gateway.start(&[])?;
    let trace = start(&site, &["-o", "json"])?;
    let _held = site.hold(PASSWORDS, WEB)?;
    wait_for(&trace, "a SYN", |packet| packet["flags"] == "syn")?;
    Ok(())
}
