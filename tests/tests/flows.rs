//! `balancer flows`: it lists the connections that there are, and no others, each with what is true of it.

use std::{collections::BTreeMap, net::SocketAddr};

use anyhow::{Context, Result, ensure};
use balancer_tests::{
    gateway::{PATIENCE, Status},
    lab::Topology,
    poll::poll_until,
    site::{API, Held, Options, PASSWORDS, POOL, Pool, Programs, Site, WEB},
};
use serde_json::Value;

/// Over IPv6.
const SIX: Pool = Pool { name: "passwords6", family: 1, ..PASSWORDS };

/// What `flows` shows with these words behind it.
fn flows(site: &Site, words: &[&str]) -> Result<Vec<Value>> {
    let verb = [&["flows", "-o", "json"], words].concat();
    let document = site.gateway.verb(&verb)?.expect(0)?.json()?;
    ensure!(document["schema"] == "balancer.flows/1" && document["as_of"].is_string(), "{document}");
    Ok(document["flows"].as_array().with_context(|| document.to_string())?.clone())
}

/// By client: pool, service and backend, all of them established, and with packets and bytes of both directions.
fn told(flows: &[Value]) -> BTreeMap<String, [Value; 3]> {
    let counts = ["age_s", "idle_s", "packets", "bytes"];
    let tell = |flow: &Value| {
        let word = |key| flow[key].as_str().unwrap_or_default().to_owned();
        let [age, idle, packets, bytes] = counts.map(|key| flow[key].as_u64().unwrap_or(u64::MAX));
        assert_eq!(word("state"), "established", "{flow}");
        // A handshake of TCP, one of TLS with a certificate, a request and its answer.
        assert!((8..1000).contains(&packets) && (2000..100_000).contains(&bytes), "{flow}");
        assert!(idle <= age && age < 60, "{flow}");
        (word("client"), ["pool", "service", "backend"].map(|key| flow[key].clone()))
    };
    flows.iter().map(tell).collect()
}

fn is(held: &Held, pool: &str, service: &str, backend: &str) -> (String, [Value; 3]) {
    (held.local.to_string(), [pool, service, backend].map(Value::from))
}

#[test]
fn exactly_the_open_connections_are_listed_and_filters_leave_out_the_others() -> Result<()> {
    let site = site("flows", Options { pools: &[PASSWORDS, SIX], ..Options::default() })?;
    assert_eq!(flows(&site, &[])?, Vec::<Value>::new(), "probes are no flows");
    let four = [site.hold(PASSWORDS, WEB)?, site.hold(PASSWORDS, WEB)?, site.hold(PASSWORDS, API)?];
    let six = site.hold(SIX, WEB)?;
    site.gateway.verb(&["failover", POOL, "--to", "server2"])?.expect(0)?;
    let moved = site.hold(PASSWORDS, WEB)?;

    let [one, two, three] = &four;
    let of_four =
        [is(one, POOL, "web", "server1"), is(two, POOL, "web", "server1"), is(three, POOL, "api", "server1")];
    let (of_six, of_moved) = (is(&six, SIX.name, "web", "server1"), is(&moved, POOL, "web", "server2"));
    let all: BTreeMap<_, _> = of_four.iter().chain([&of_six, &of_moved]).cloned().collect();
    assert_eq!(told(&flows(&site, &[])?), all);

    let client = |held: &Held| held.local.ip().to_string();
    let (client4, client6) = (client(one), client(&six));
    let cases: [(&[&str], Vec<_>); 8] = [
        (&["--pool", POOL], of_four.iter().chain([&of_moved]).collect()),
        (&["--pool", SIX.name], vec![&of_six]),
        (&["--backend", "server1"], of_four.iter().chain([&of_six]).collect()),
        (&["--pool", POOL, "--backend", "server2"], vec![&of_moved]),
        (&["--pool", SIX.name, "--backend", "server2"], vec![]),
        (&["--client", &client4], of_four.iter().chain([&of_moved]).collect()),
        (&["--client", &client6, "--limit", "7"], vec![&of_six]),
        (&["--client", "198.51.100.99"], vec![]),
    ];
    for (words, wanted) in cases {
        let wanted: BTreeMap<_, _> = wanted.into_iter().cloned().collect();
        assert_eq!(told(&flows(&site, words)?), wanted, "{words:?}");
    }
    let some = told(&flows(&site, &["--limit", "2"])?);
    assert!(some.len() == 2 && some.iter().all(|(client, flow)| all.get(client) == Some(flow)), "{some:?}");

    let table = site.gateway.verb(&["flows", "--backend", "server2"])?.expect(0)?.stdout;
    let row: Vec<_> = table.lines().nth(3).unwrap_or_default().split_whitespace().collect();
    let begin = [of_moved.0.as_str(), "passwords/web", "server2", "established"];
    assert!(row.starts_with(&begin) && table.contains(": 1 flow\n"), "{table}");
    Ok(())
}

#[test]
fn a_closed_connection_is_no_longer_established_and_the_others_are() -> Result<()> {
    let site = site("flows_end", Options::default())?;
    let (mut held, closed) = (site.hold(PASSWORDS, WEB)?, site.hold(PASSWORDS, API)?);
    let (stays, goes) = (held.local.to_string(), closed.local.to_string());
    drop(closed);
    let states = || -> Result<BTreeMap<String, String>> {
        let word = |flow: &Value, key: &str| flow[key].as_str().unwrap_or_default().to_owned();
        Ok(flows(&site, &[])?.iter().map(|flow| (word(flow, "client"), word(flow, "state"))).collect())
    };
    let is = |states: &BTreeMap<String, String>, client: &String, state| {
        states.get(client).is_some_and(|found| found == state)
    };
    let states = poll_until(PATIENCE, "the flow to be closing, or gone", || {
        let states = states().map_err(|error| format!("{error:#}"))?;
        if is(&states, &goes, "established") { Err(format!("{states:?}")) } else { Ok(states) }
    })?;
    assert!(is(&states, &stays, "established"), "{states:?}");
    assert!(is(&states, &goes, "closing") || !states.contains_key(&goes), "{states:?}");
    assert_eq!(held.ask()?, "server1");
    Ok(())
}

#[test]
fn flows_of_a_service_that_was_taken_out_are_told_by_their_address() -> Result<()> {
    let mut site = site("flows_out", Options::default())?;
    let (mut web, api) = (site.hold(PASSWORDS, WEB)?, site.hold(PASSWORDS, API)?);
    let options = Options { pools: &[Pool { services: &[API], ..PASSWORDS }], ..Options::default() };
    site.gateway.configure(&site.configuration(options))?;
    site.gateway.terminate()?;
    site.gateway.start(&[])?;
    site.gateway.wait_until("all servers to be up", Status::are_all_up)?;
    let listen = SocketAddr::new(site.vip(PASSWORDS), WEB.port).to_string();
    let wanted = BTreeMap::from([is(&web, POOL, &listen, "server1"), is(&api, POOL, "api", "server1")]);
    assert_eq!(told(&flows(&site, &[])?), wanted);
    assert_eq!(web.ask()?, "server1", "it goes on");
    Ok(())
}

#[test]
fn what_there_is_not_is_refused_and_what_is_no_address_is_a_usage_error() -> Result<()> {
    let site = site("flows_no", Options::default())?;
    let cases: [(&[&str], i32, &str); 5] = [
        (&["--pool", "mails"], 1, "there is no pool \"mails\""),
        (&["--backend", "server3"], 1, "no pool has a backend \"server3\""),
        (&["--pool", POOL, "--backend", "server3"], 1, "it has: server1, server2"),
        (&["--client", "server1"], 2, "invalid value 'server1' for '--client <IP>'"),
        (&["--limit", "0"], 2, "invalid value '0' for '--limit <N>'"),
    ];
    for (words, code, error) in cases {
        let said = site.gateway.verb(&[&["flows"], words].concat())?.expect(code)?;
        assert!(said.stdout.is_empty() && said.stderr.contains(error), "{error:?}: {said:?}");
    }
    Ok(())
}

fn site(label: &str, options: Options) -> Result<Site> {
    let programs = Programs::under_test(env!("CARGO_BIN_EXE_lab-host"))?;
    let topology = Topology::two_armed();
    let topology = if options.pools.len() > 1 { topology.dual_stack() } else { topology };
    Site::start(label, &topology, options, &programs)
}
