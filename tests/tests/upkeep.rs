//! A backend is taken out of use and put back while clients are connected: what `drain`, `maint`, `ready` and `failover`
//! do to flows that stand and to new ones, what outlives the daemon, and what is refused.

use std::{
    io::{ErrorKind, Read},
    net::TcpStream,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use balancer_tests::{
    gateway::{Said, Status},
    lab::Topology,
    poll::poll_until,
    site::{API, Held, Options, PASSWORDS, POOL, Programs, Site, WEB},
};

/// For what comes at once, and has to come before a client would notice by itself.
const SOON: Duration = Duration::from_secs(10);

#[test]
fn a_drained_backend_keeps_its_flows_and_no_request_fails() -> Result<()> {
    const DOWNLOAD: &str = "400000000";
    let site = site("drain", Options::default())?;
    let held = (0..4).map(|_| site.hold(PASSWORDS, WEB)).collect::<Result<Vec<_>>>()?;
    let target = (site.vip(PASSWORDS), API.port).into();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| -> Result<()> {
        let download = scope.spawn(|| site.transfer_to(site.lab().client(), target, &["--down", DOWNLOAD]));
        let has_begun =
            |status: &Status| status.service("api")["bytes"].as_u64().is_some_and(|bytes| bytes > 1_000_000);
        site.gateway.wait_until("the download to have begun", has_begun)?;
        let talks: Vec<_> = held.into_iter().map(|held| scope.spawn(|| talk(held, &is_over))).collect();
        let steady = ["--rate", "300", "--parallel", "50", "--connections", "1500"];
        let mut load = site.start_load(WEB, &steady)?;
        site.gateway
            .wait_until("connections", |status| status.service("web")["new_flows"].as_u64() > Some(100))?;

        let said = site.gateway.verb(&["drain", POOL, "server1", "-o", "json"])?.expect(0)?.json()?;
        assert_eq!((&said["changed"], &said["active"]), (&true.into(), &"server2".into()), "{said}");
        assert!(load.is_running() && !download.is_finished(), "nothing was under way: {said}");
        let before = site.gateway.new_flows_of("server1")?;
        let status = site.gateway.status()?;
        assert_eq!(status.backend("server1")["admin"], "drain", "{status}");
        assert_eq!(status.pool()["reason"], "drain", "{status}");
        let later = site.load(WEB, &["--connections", "50", "--expect", "server2"])?;
        assert_eq!(later["failed"], 0, "{later}");

        let report = load.report()?;
        assert_eq!(report["failed"], 0, "{report}");
        assert!(report["by_name"]["server2"].as_u64() > Some(0), "{report}");
        let download = download.join().expect("no panic")?;
        assert_eq!(download["name"], "server1", "{download}");
        assert_eq!(site.gateway.new_flows_of("server1")?, before, "new flows of a drained backend");
        site.gateway.wait_until("the talks to be what is left", |status| left(status) == Some(4))?;
        is_over.store(true, Ordering::Relaxed);
        for talk in talks {
            let asked = talk.join().expect("no panic")?;
            assert!(asked > 10, "{asked} requests");
        }
        site.gateway.wait_until("nothing to be left", |status| left(status) == Some(0))?;
        Ok(())
    })?;
    let again = site.gateway.verb(&["drain", POOL, "server1", "--deadline", "1h", "-o", "json"])?;
    let again = again.expect(0)?.json()?;
    let says_so = again["message"].as_str().is_some_and(|message| message.contains("another deadline"));
    assert!(again["changed"] == true && says_so, "{again}");
    site.gateway.verb(&["ready", POOL, "server1"])?.expect(0)?;
    let status = site.gateway.status()?;
    let told = (status.active(), &status.backend("server1")["admin"]);
    assert_eq!(told, ("server2", &"ready".into()), "it is back in use, and nothing moves: {status}");
    site.gateway.verb(&["failback", POOL])?.expect(0)?;
    let report = site.load(WEB, &["--connections", "20", "--expect", "server1"])?;
    assert_eq!(report["failed"], 0, "{report}");
    Ok(())
}

/// Asks again and again on one connection, which stays on server1; says how often it was answered.
fn talk(mut held: Held, is_over: &AtomicBool) -> Result<u32> {
    // The server closes after a thousand requests.
    const REQUESTS: u32 = 900;
    const PAUSE: Duration = Duration::from_millis(50);
    let mut asked = 0;
    while !is_over.load(Ordering::Relaxed) {
        if asked < REQUESTS {
            let name = held.ask()?;
            ensure!(name == "server1", "answered by {name}");
            asked += 1;
        }
        thread::sleep(PAUSE);
    }
    Ok(asked)
}

/// Flows that the backend that is left still has.
fn left(status: &Status) -> Option<u64> {
    status.backend("server1")["flows"].as_u64()
}

#[test]
fn what_a_drain_leaves_is_reset_at_its_deadline_and_not_before() -> Result<()> {
    let site = site("deadline", Options::default())?;
    let (idle, mut busy) = (site.connect(API)?, site.hold(PASSWORDS, WEB)?);
    let begun = Instant::now();
    site.gateway.verb(&["drain", POOL, "server1", "--deadline", "2s"])?.expect(0)?;
    assert_eq!(busy.ask()?, "server1");
    assert_eq!(left(&site.gateway.status()?), Some(2));
    is_reset(&idle)?;
    assert!(begun.elapsed() >= Duration::from_secs(2), "after {:?}", begun.elapsed());
    ends(&mut busy)?;
    let status = site.gateway.wait_until("nothing to be left", |status| left(status) == Some(0))?;
    assert_eq!(status.backend("server1")["admin"], "drain", "it stays out of use: {status}");
    Ok(())
}

#[test]
fn a_drain_goes_on_after_a_restart_and_ends_at_the_same_time() -> Result<()> {
    let mut site = site("goes_on", Options::default())?;
    let (idle, mut busy) = (site.connect(API)?, site.hold(PASSWORDS, WEB)?);
    let begun = Instant::now();
    site.gateway.verb(&["drain", POOL, "server1", "--deadline", "4s"])?.expect(0)?;
    site.gateway.kill();
    site.gateway.start(&[])?;
    if begun.elapsed() < Duration::from_secs(3) {
        assert_eq!(busy.ask()?, "server1");
    }
    is_reset(&idle)?;
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(4) && took < SOON, "after {took:?}");
    ends(&mut busy)?;
    Ok(())
}

#[test]
fn the_last_word_about_a_backend_counts() -> Result<()> {
    let site = site("last_word", Options::default())?;
    let idle = site.connect(API)?;
    let begun = Instant::now();
    for deadline in ["1h", "1s"] {
        site.gateway.verb(&["drain", POOL, "server1", "--deadline", deadline])?.expect(0)?;
    }
    is_reset(&idle)?;
    assert!(begun.elapsed() < SOON, "the first deadline: {:?}", begun.elapsed());
    site.gateway.verb(&["ready", POOL, "server1"])?.expect(0)?;

    // Flows of one that is not the active one any more.
    let idle = site.connect(API)?;
    site.gateway.verb(&["drain", POOL, "server2"])?.expect(0)?;
    let moved = site.gateway.status()?;
    site.gateway.verb(&["maint", POOL, "server2"])?.expect(0)?;
    is_reset(&idle)?;
    let status = site.gateway.status()?;
    assert_eq!((status.active(), &status.pool()["since"]), ("server1", &moved.pool()["since"]), "{status}");
    assert_eq!(status.backend("server2")["admin"], "maint", "{status}");
    Ok(())
}

#[test]
fn ready_before_the_deadline_calls_the_reset_off() -> Result<()> {
    let site = site("called_off", Options::default())?;
    let mut held = site.hold(PASSWORDS, WEB)?;
    let begun = Instant::now();
    site.gateway.verb(&["drain", POOL, "server1", "--deadline", "2s"])?.expect(0)?;
    site.gateway.verb(&["ready", POOL, "server1"])?.expect(0)?;
    // Three seconds of it, or there would be nothing to see.
    while begun.elapsed() < Duration::from_secs(3) {
        assert_eq!(held.ask()?, "server1");
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

#[test]
fn maint_moves_the_pool_resets_everything_and_outlives_a_reboot() -> Result<()> {
    let mut site = site("maint", Options { failback: "auto", ..Options::default() })?;
    let idle = [site.connect(WEB)?, site.connect(API)?];
    let mut busy = site.hold(PASSWORDS, WEB)?;
    let begun = Instant::now();
    site.gateway.verb(&["maint", POOL, "server1"])?.expect(0)?;
    assert_eq!(left(&site.gateway.status()?), Some(0), "the verb has waited for the end of the flows");
    for stream in &idle {
        is_reset(stream)?;
    }
    ends(&mut busy)?;
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    drop(idle);

    in_maintenance(&site, "maint")?;
    let before = site.gateway.new_flows_of("server1")?;
    site.gateway.kill();
    site.gateway.start(&[])?;
    in_maintenance(&site, "restored")?;
    assert_eq!(site.gateway.new_flows_of("server1")?, before);
    site.gateway.kill();
    // What a reboot leaves of the kernel's side.
    site.gateway.verb(&["detach"])?.expect(0)?;
    site.gateway.start(&[])?;
    in_maintenance(&site, "restored")?;
    assert_eq!(site.gateway.new_flows_of("server1")?, 0);

    // With `failback = "auto"` there is nothing else to wait for.
    site.gateway.verb(&["ready", POOL, "server1"])?.expect(0)?;
    site.gateway.wait_until("the first one to be back", |status| status.active() == "server1")?;
    let report = site.load(WEB, &["--connections", "20", "--expect", "server1"])?;
    assert_eq!(report["failed"], 0, "{report}");
    Ok(())
}

/// It is told, and what is new goes elsewhere.
fn in_maintenance(site: &Site, reason: &str) -> Result<()> {
    let status = site.gateway.wait_until("both to be up", Status::are_all_up)?;
    let told = (status.active(), &status.pool()["reason"], &status.backend("server1")["admin"]);
    assert_eq!(told, ("server2", &reason.into(), &"maint".into()), "{status}");
    for service in [WEB, API] {
        let report = site.load(service, &["--connections", "50", "--expect", "server2"])?;
        assert_eq!(report["failed"], 0, "{report}");
    }
    Ok(())
}

#[test]
fn what_would_leave_nobody_is_refused_and_done_with_force() -> Result<()> {
    let mut site = site("nobody", Options { fail_timeout: "60s", ..Options::default() })?;
    refused(&site, &["resume", POOL, "--retry"], &["is not held"])?;
    for verb in ["drain", "maint", "ready"] {
        refused(&site, &[verb, POOL, "server3"], &["no backend \"server3\"", "server1, server2"])?;
        refused(&site, &[verb, "mails", "server1"], &["there is no pool \"mails\""])?;
    }
    site.gateway.verb(&["drain", POOL, "server2"])?.expect(0)?;
    let said = site.gateway.verb(&["drain", POOL, "server2", "-o", "json"])?.expect(0)?.json()?;
    assert_eq!((&said["changed"], &said["active"]), (&false.into(), &"server1".into()), "{said}");
    let to = ["failover", POOL, "--to", "server2"];
    refused(&site, &to, &["is in drain", "balancer ready passwords server2"])?;
    refused(&site, &[&to[..], &["--force"]].concat(), &["is in drain"])?;
    for verb in ["drain", "maint"] {
        refused(&site, &[verb, POOL, "server1"], &["no other is eligible", "--force"])?;
    }
    let status = site.gateway.status()?;
    assert_eq!(
        (status.active(), &status.backend("server1")["admin"]),
        ("server1", &"ready".into()),
        "{status}"
    );
    assert_eq!(site.gateway.logged("transition").len(), 1, "the initial one");

    // Nobody is left: clients are told so.
    let idle = site.connect(WEB)?;
    site.gateway.verb(&["maint", POOL, "server1", "--force"])?.expect(0)?;
    is_reset(&idle)?;
    let refusal = site.connect(WEB).unwrap_err();
    assert_eq!(kind(&refusal), Some(ErrorKind::ConnectionRefused), "{refusal:#}");
    let status = site.gateway.status()?;
    assert_eq!(
        (&status.pool()["active"], &status.pool()["state"]),
        (&().into(), &"all_down".into()),
        "{status}"
    );
    site.gateway.verb(&["ready", POOL, "server1"])?.expect(0)?;
    let report = site.load(WEB, &["--connections", "20", "--expect", "server1"])?;
    assert_eq!(report["failed"], 0, "{report}");

    // One is left that is down.
    site.gateway.verb(&["ready", POOL, "server2"])?.expect(0)?;
    site.kill(1);
    site.gateway.wait_until("the backup to be down", |status| status.is("server2", "down"))?;
    refused(&site, &["drain", POOL, "server1"], &["no other is eligible"])?;
    site.serve(1)?;
    site.gateway.verb(&["drain", POOL, "server1", "--force"])?.expect(0)?;
    let report = site.load(WEB, &["--connections", "20", "--expect", "server2"])?;
    assert_eq!(report["failed"], 0, "{report}");
    Ok(())
}

#[test]
fn a_disabled_backend_stays_out_of_use() -> Result<()> {
    let mut site = prepared("disabled", Options::default())?;
    let text = site.configuration(Options::default());
    site.gateway.configure(&format!("{text}disabled = true\n"))?;
    site.serve(0)?;
    site.serve(1)?;
    site.gateway.start(&[])?;
    for verb in ["drain", "maint", "ready"] {
        refused(&site, &[verb, POOL, "server2"], &["disabled in the configuration"])?;
    }
    refused(&site, &["failover", POOL, "--to", "server2", "--force"], &["disabled in the configuration"])?;
    refused(&site, &["drain", POOL, "server1"], &["no other is eligible"])?;
    let status = site.gateway.status()?;
    let told = (status.active(), &status.backend("server2")["admin"]);
    assert_eq!(told, ("server1", &"disabled".into()), "{status}");
    Ok(())
}

#[test]
fn failover_keeps_flows_unless_it_is_told_to_reset_them() -> Result<()> {
    let site = site("reset", Options::default())?;
    let mut first = site.hold(PASSWORDS, WEB)?;
    site.gateway.verb(&["failover", POOL])?.expect(0)?;
    assert_eq!(first.ask()?, "server1");

    let second = site.connect(WEB)?;
    site.gateway.verb(&["failover", POOL, "--reset"])?.expect(0)?;
    assert_eq!(site.gateway.status()?.backend("server2")["flows"], 0, "the verb has waited for their end");
    is_reset(&second)?;
    assert_eq!(first.ask()?, "server1", "only the flows of the one that was active end");
    let resets = || -> Result<Option<u64>> {
        let stats = site.gateway.verb(&["stats", "-o", "json"])?.expect(0)?.json()?;
        Ok(stats["backends"][1]["resets_sent"].as_u64())
    };
    poll_until(SOON, "the reset to be counted", || match resets() {
        Ok(Some(1)) => Ok(()),
        other => Err(format!("{other:?}")),
    })
}

/// The connection ends, and its client is told how.
fn is_reset(mut stream: &TcpStream) -> Result<()> {
    match stream.read(&mut [0; 1]) {
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
        other => bail!("not reset, but {other:?}"),
    }
}

/// One flow ends after the other; and the first write to one that was reset may hear of it, the second of a broken pipe.
fn ends(held: &mut Held) -> Result<()> {
    poll_until(SOON, "the connection to end", || match held.ask() {
        Ok(name) => Err(format!("answered by {name}")),
        Err(error) => Ok(kind(&error)),
    })
    .and_then(|how| match how {
        Some(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => Ok(()),
        other => bail!("ended by {other:?}"),
    })
}

/// Of the system's error below.
fn kind(error: &anyhow::Error) -> Option<ErrorKind> {
    error.downcast_ref::<std::io::Error>().map(std::io::Error::kind)
}

fn refused(site: &Site, verb: &[&str], words: &[&str]) -> Result<()> {
    let said: Said = site.gateway.verb(verb)?.expect(1)?;
    ensure!(words.iter().all(|word| said.stderr.contains(word)), "{words:?} in {said:?}");
    ensure!(said.stdout.is_empty(), "{said:?}");
    Ok(())
}

fn prepared(label: &str, options: Options) -> Result<Site> {
    let programs = Programs::under_test(env!("CARGO_BIN_EXE_lab-host"))?;
    Site::prepare(label, &Topology::two_armed(), options, &programs)
}

fn site(label: &str, options: Options) -> Result<Site> {
    let mut site = prepared(label, options)?;
    site.begin().context("begin")?;
    Ok(site)
}
