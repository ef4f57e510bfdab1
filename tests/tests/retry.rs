//! Clients don't notice that their server has failed: their SYNs go on to the next one, whatever the first one does, and
//! who was connected is told at once. Clients are a TLS library's and curl, and know nothing of it.
//!
//! Times are generous here: `cargo xtask bench retry` measures them.

use std::{
    collections::BTreeMap,
    fs,
    io::{ErrorKind, Read},
    net::SocketAddr,
    ops::RangeInclusive,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use balancer_tests::{
    account::{Account, Attempt, Loss, first_answered_by, unix_ms},
    capture::{Capture, Direction, Path, Report},
    certificates::Validity,
    folder::Folder,
    gateway::PATIENCE,
    lab::{Host, Topology},
    packet::{Icmp, Mac, Packet},
    poll::poll_until,
    site::{API, Options, PASSWORDS, Programs, SERVER_NAME, Site, WEB},
    twin::Wire,
};
use serde_json::Value;

/// So rare that they have no part in what is tested: the second one comes at its turn, which may be right after the first.
const RARELY: Options = Options { interval: "1h", fast_interval: "1h", ..PLAIN };

/// A failover that takes some seconds by probes alone.
const SOMETIMES: Options = Options { interval: "2s", fast_interval: "500ms", ..PLAIN };

const PLAIN: Options = Options {
    failback: "manual",
    max_fails: 1,
    fail_timeout: "30s",
    interval: "500ms",
    fast_interval: "125ms",
    timeout: "500ms",
    on_backend_down: "reset",
    passive: "off",
    connect_retry: "instant",
    xdp_mode: "auto",
    pools: &[PASSWORDS],
    validity: Validity::Now,
};

/// A client that has sent three SYNs had better luck than it deserves.
const SLOW_MAX_MS: f64 = 3500.0;
/// The gateway's own connections to servers, the probes among them, come from these.
const PROBES: RangeInclusive<u16> = 32768..=60999;

fn site(label: &str, options: Options) -> Result<Site> {
    let programs = Programs::under_test(env!("CARGO_BIN_EXE_lab-host"))?;
    Site::start(label, &Topology::two_armed(), options, &programs)
}

/// Clients come at a steady rate, and in the middle of them the primary fails.
struct Around {
    attempts: Vec<Attempt>,
    loss: Loss,
    moved_ms: f64,
    /// On the client's interface.
    seen: Report,
}

impl Around {
    fn failure(site: &mut Site, every: &str, fail: impl FnOnce(&mut Site) -> Result<()>) -> Result<Self> {
        let capture = Capture::start(site.lab().client(), "eth0")?;
        let watcher = site.watch_as(WEB, &["--interval", every, "--duration", "5s"])?;
        poll_until(PATIENCE, "connections before the failure", || {
            let number = watcher.attempts().len();
            if number >= 100 { Ok(()) } else { Err(format!("{number} of 100")) }
        })?;
        let loss = Loss::during(|| fail(site))?;
        let lines = watcher.finish()?;
        let attempts = lines.iter().map(Attempt::of).collect::<Result<_>>()?;
        let seen = capture.stop()?;
        ensure!((seen.bad, seen.missed, seen.unlisted) == (0, 0, 0), "the capture isn't whole: {seen:?}");
        site.gateway.wait_until("the backup to be active", |status| status.active() == "server2")?;
        let moved_ms = unix_ms(site.gateway.moved_to("server2")?)?;
        Ok(Self { attempts, loss, moved_ms, seen })
    }

    /// By retries, so many.
    fn affected(&self, retried: u64) -> Vec<String> {
        first_answered_by("server2", retried, &self.attempts)
    }

    fn account(&self) -> Result<Account> {
        Account::of(&self.attempts, self.loss, &[])
    }
}

/// SYNs out, and SYN-ACKs and RSTs in, of a client's connection to a service. What is out of it is its own affair: curl
/// resets who says goodbye too late.
fn saw(seen: &Report, client: SocketAddr, service: SocketAddr) -> [u64; 3] {
    let out = Path { direction: Direction::Out, source: client, destination: service };
    let back = Path { direction: Direction::In, source: service, destination: client };
    let of = |paths: &BTreeMap<Path, u64>, path| paths.get(path).copied().unwrap_or(0);
    [of(&seen.syns, &out), of(&seen.syns, &back), of(&seen.rsts, &back)]
}

fn killed(site: &mut Site) -> Result<()> {
    site.kill(0);
    Ok(())
}

fn silenced(site: &mut Site) -> Result<()> {
    site.lab().backend(0).nft_silence()
}

fn web(site: &Site) -> SocketAddr {
    SocketAddr::new(site.lab().vip(), WEB.port)
}

fn stat(site: &Site, backend: &str, name: &str) -> Result<u64> {
    let stats = site.gateway.stats_of(backend)?;
    stats[name].as_u64().with_context(|| format!("{name} in {stats}"))
}

#[test]
fn clients_of_a_killed_primary_see_one_syn_and_one_syn_ack() -> Result<()> {
    let mut site = site("retrykill", SOMETIMES)?;
    let around = Around::failure(&mut site, "3333us", killed)?;
    let account = around.account()?;
    assert_eq!(account.failed, 0, "{account:?}");
    let (retried, rescued) = (stat(&site, "server1", "retried_refused")?, stat(&site, "server2", "rescued")?);
    assert!(retried > 0, "nobody came between the kill and the failover: {account:?}");
    assert_eq!(rescued, retried);
    for client in around.affected(retried) {
        let saw = saw(&around.seen, client.parse()?, web(&site));
        assert_eq!(saw, [1, 1, 0], "SYN, SYN-ACK and RST of {client}");
    }
    println!("{retried} of {} went on, {} ms at most", account.attempts, account.slowest_ms);
    assert_eq!(stat(&site, "server1", "retried_unanswered")?, 0);
    Ok(())
}

#[test]
fn a_refused_client_has_the_primary_probed_at_once_and_does_not_notice() -> Result<()> {
    let mut site = site("retryprobe", Options { passive: "probe", ..RARELY })?;
    let around = Around::failure(&mut site, "3333us", killed)?;
    let account = around.account()?;
    assert_eq!(account.failed, 0, "{account:?}");
    let took_ms = around.moved_ms - around.loss.began_ms;
    println!("moved {took_ms} ms after the kill; {account:?}");
    assert!(took_ms < 1000.0, "moved after {took_ms} ms, and probes come every hour");
    assert!(site.gateway.status()?.reason("server1").ends_with(": refused"), "{}", site.gateway.status()?);
    Ok(())
}

#[test]
fn without_retry_the_client_is_refused_and_the_pool_moves_all_the_same() -> Result<()> {
    let mut site = site("retryoff", Options { passive: "probe", connect_retry: "off", ..RARELY })?;
    let killed = site.kill(0);
    let report = site.load(WEB, &["--connections", "1"])?;
    let errors = report["errors"].as_object().context("errors")?;
    assert!(
        errors.keys().any(|error| error.starts_with("Connect:") && error.contains("refused")),
        "{report}"
    );
    site.gateway.wait_until("the backup to be active", |status| status.active() == "server2")?;
    let took = site.gateway.moved_to("server2")?.duration_since(killed)?;
    assert!(took < Duration::from_secs(3), "moved after {took:?}, and probes come every hour");
    assert_eq!(stat(&site, "server1", "retried_refused")?, 0);
    Ok(())
}

#[test]
fn with_retransmit_nobody_is_refused_and_repeated_syns_are_taken() -> Result<()> {
    let mut site = site("retryagain", Options { connect_retry: "retransmit", ..SOMETIMES })?;
    let around = Around::failure(&mut site, "20ms", killed)?;
    let account = around.account()?;
    assert_eq!(account.failed, 0, "{account:?}");
    let retried = stat(&site, "server1", "retried_refused")?;
    assert!(retried > 0, "nobody came between the kill and the failover: {account:?}");
    for client in around.affected(retried) {
        let [syns, syn_acks, resets] = saw(&around.seen, client.parse()?, web(&site));
        // One is enough when the pool moves before it is repeated.
        assert!(syns >= 1 && (syn_acks, resets) == (1, 0), "{client}: {syns} {syn_acks} {resets}");
    }
    assert!(account.slowest_ms < SLOW_MAX_MS, "{account:?}");
    Ok(())
}

/// A black hole; the probes have no part in seeing it, but for one that is asked for.
fn nobody_fails_at_a_silent_primary(label: &str, passive: &'static str) -> Result<()> {
    let mut site = site(label, Options { passive, ..RARELY })?;
    let around = Around::failure(&mut site, "5ms", silenced)?;
    let account = around.account()?;
    let took_ms = around.moved_ms - around.loss.began_ms;
    println!("passive = {passive}: moved after {took_ms} ms; {account:?}");
    assert_eq!(account.failed, 0, "{account:?}");
    assert!(account.slowest_ms < SLOW_MAX_MS, "{account:?}");
    assert!(stat(&site, "server1", "retried_unanswered")? > 0);
    assert!(stat(&site, "server2", "rescued")? > 0);
    let status = site.gateway.status()?;
    assert_eq!((status.active(), &status.pool()["reason"]), ("server2", &"backend_down".into()), "{status}");
    Ok(())
}

#[test]
fn nobody_fails_at_a_silent_primary_when_traffic_is_counted() -> Result<()> {
    nobody_fails_at_a_silent_primary("retrycount", "count")
}

#[test]
fn nobody_fails_at_a_silent_primary_when_traffic_has_it_probed() -> Result<()> {
    nobody_fails_at_a_silent_primary("retryhole", "probe")
}

#[test]
fn curl_is_answered_at_its_first_attempt() -> Result<()> {
    let mut site = site("retrycurl", RARELY)?;
    site.kill(0);
    let client = site.lab().client();
    let capture = Capture::start(client, "eth0")?;
    let resolve = format!("{SERVER_NAME}:443:{}", site.lab().vip());
    let (ca_file, url) = (site.ca_file().display().to_string(), format!("https://{SERVER_NAME}/"));
    let words = ["curl", "-sS", "--max-time", "20", "--cacert", &ca_file, "--resolve", &resolve, &url];
    let said = client.run(words)?;
    assert_eq!(String::from_utf8_lossy(&said.stdout).trim(), "server2");
    let seen = capture.stop()?;
    let clients: Vec<_> =
        seen.syns.keys().filter(|path| path.destination == web(&site)).map(|path| path.source).collect();
    let [client] = clients[..] else { panic!("{seen:?}") };
    assert_eq!(saw(&seen, client, web(&site)), [1, 1, 0], "SYN, SYN-ACK and RST: {seen:?}");
    let status = site.gateway.status()?;
    assert_eq!((status.active(), status.is("server1", "up")), ("server1", true), "nobody was told: {status}");
    Ok(())
}

#[test]
fn no_client_reaches_the_backup_before_the_hooks_are_done() -> Result<()> {
    let folder = Folder::new()?;
    let step = folder.script(
        "step",
        r#"echo begun >> "$folder/begun"; while [ -e "$folder/wait" ]; do sleep 0.05; done"#,
    )?;
    let options = Options { passive: "probe", ..RARELY };
    let programs = Programs::under_test(env!("CARGO_BIN_EXE_lab-host"))?;
    let mut site = Site::prepare("retryhook", &Topology::two_armed(), options, &programs)?;
    let hook = format!(
        "\n[[pool.hook]]\nname = \"promote\"\nwhen = \"before\"\nrun = [{step:?}]\ntimeout = \"60s\"\n"
    );
    site.gateway.configure(&(site.configuration(options) + &hook))?;
    site.begin()?;
    fs::write(folder.at("wait"), "")?;

    let backup = SocketAddr::new(site.lab().backend(1).address(), WEB.backend_port);
    let capture = Capture::start(site.lab().backend(1), "eth0")?;
    site.kill(0);
    const CLIENTS: &str = "20";
    let clients =
        site.start_load(WEB, &["--connections", CLIENTS, "--parallel", CLIENTS, "--timeout", "60s"])?;
    poll_until(PATIENCE, "the first step, and all clients to wait", || {
        let flows = site.gateway.verb(&["flows", "-o", "json"])?.expect(0)?.json()?;
        let flows = flows["flows"].as_array().cloned().unwrap_or_default();
        let waiting = flows.iter().filter(|flow| flow["state"] == "half_open").count();
        let has_begun = !folder.lines("begun").is_empty();
        ensure!(has_begun && waiting.to_string() == CLIENTS, "begun: {has_begun}; {flows:?}");
        Ok(())
    })?;
    let seen = capture.stop()?;
    let early: Vec<_> = seen
        .syns
        .keys()
        .filter(|path| path.destination == backup && !PROBES.contains(&path.source.port()))
        .collect();
    assert!(early.is_empty(), "SYNs at the backup before the hook was done: {early:?}");

    fs::remove_file(folder.at("wait"))?;
    let report = clients.report()?;
    assert_eq!((&report["failed"], &report["by_name"]["server2"]), (&0.into(), &20.into()), "{report}");
    Ok(())
}

#[test]
fn idle_clients_of_a_silent_primary_are_told_when_the_pool_moves() -> Result<()> {
    let site = site("retryidle", PLAIN)?;
    let idle = (0..20).map(|_| site.connect(WEB)).collect::<Result<Vec<_>>>()?;
    site.lab().backend(0).nft_silence()?;
    for mut stream in idle {
        let how = stream.read(&mut [0; 1]).err().map(|error| error.kind());
        assert_eq!(how, Some(ErrorKind::ConnectionReset));
    }
    // Clients come first: the daemon tells of the change when they have been told.
    site.gateway.wait_until("the backup to be active", |status| status.active() == "server2")?;
    poll_until(PATIENCE, "all resets to be counted", || {
        let sent = stat(&site, "server1", "resets_sent")?;
        ensure!(sent >= 20, "{sent} of 20");
        Ok(())
    })
}

/// The gateway's hardware address towards the servers.
fn mac_of(host: &Host, interface: &str) -> Result<Mac> {
    let told: Value =
        serde_json::from_slice(&host.run(["ip", "-j", "link", "show", "dev", interface])?.stdout)?;
    let text = told[0]["address"].as_str().with_context(|| format!("the address in {told}"))?;
    let bytes = text.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<Vec<_>, _>>()?;
    bytes.try_into().map_err(|bytes| anyhow::anyhow!("{bytes:?} is no hardware address"))
}

/// A host in the servers' network says in the primary's name that every SYN was refused, and knows no sequence number.
fn forge_refusals(site: &Site, forger: &Host) -> Result<()> {
    let lab = site.lab();
    let (wire, gateway) = (Wire::open(forger, "eth0")?, lab.gateway());
    let (to, from) = (mac_of(gateway, "lan0")?, mac_of(forger, "eth0")?);
    let lan = gateway.interfaces().iter().find(|one| one.name == "lan0").context("lan0")?.address();
    let primary = SocketAddr::new(lab.backend(0).address(), WEB.backend_port);
    let sent_from = |port| SocketAddr::new(lan, port);
    // Nothing is sent from where a service listens.
    for port in (1024..=32767).chain(61000..=65535).filter(|port| *port != API.port) {
        for acknowledged in [0, 0x7fff_ffff] {
            let refusal = Packet::new(primary, sent_from(port)).rst_ack().acks(acknowledged);
            wire.send(
                &refusal.with(|it| (it.ethernet.source, it.ethernet.destination) = (from, to)).to_frame(),
            )?;
        }
        let quoted = Packet::new(sent_from(port), primary).syn().seq(7);
        let error = Icmp::new(primary.ip(), lan, 3, 1).about(&quoted);
        wire.send(&error.with(|it| (it.ethernet.source, it.ethernet.destination) = (from, to)).to_frame())?;
    }
    Ok(())
}

#[test]
fn who_knows_no_sequence_number_moves_nothing() -> Result<()> {
    let options = Options { passive: "count", ..RARELY };
    let programs = Programs::under_test(env!("CARGO_BIN_EXE_lab-host"))?;
    let topology = Topology::two_armed().lan_clients(1);
    let mut site = Site::prepare("retryforged", &topology, options, &programs)?;
    let patient =
        site.configuration(options).replace("\nconnect_retry", "\nconnect_timeout = \"10s\"\nconnect_retry");
    site.gateway.configure(&patient)?;
    site.begin()?;
    // Deaf to clients for a while, and not to probes: their handshakes stand, and may be refused by whoever wants to.
    let primary = site.lab().backend(0);
    primary.run([
        "nft",
        "add table inet deaf; add chain inet deaf in { type filter hook input priority -400; }; \
         add rule inet deaf in tcp dport 10001 tcp sport != 32768-60999 drop",
    ])?;
    let clients = site.start_load(WEB, &["--connections", "10", "--parallel", "10", "--timeout", "60s"])?;
    poll_until(PATIENCE, "all clients' handshakes", || {
        let flows = site.gateway.verb(&["flows", "-o", "json"])?.expect(0)?.json()?;
        let number = flows["flows"].as_array().map_or(0, Vec::len);
        ensure!(number == 10, "{flows}");
        Ok(())
    })?;
    let forger = site.lab().clients().last().context("a client in the servers' network")?;
    forge_refusals(&site, forger)?;
    primary.run(["nft", "delete table inet deaf"])?;

    let report = clients.report()?;
    assert_eq!((&report["failed"], &report["by_name"]["server1"]), (&0.into(), &10.into()), "{report}");
    let status = site.gateway.status()?;
    assert_eq!((status.active(), status.is("server1", "up")), ("server1", true), "{status}");
    assert_eq!(site.gateway.logged("transition").len(), 1, "the initial one");
    for (backend, name) in
        [("server1", "retried_refused"), ("server1", "retried_unanswered"), ("server2", "rescued")]
    {
        assert_eq!(stat(&site, backend, name)?, 0, "{name} of {backend}");
    }
    let forged = status.0["drops"]["bad_handshake"].as_u64().unwrap_or_default();
    assert!(forged >= 20, "the forger has met no handshake, and nothing was proven: {}", status.0["drops"]);
    Ok(())
}
