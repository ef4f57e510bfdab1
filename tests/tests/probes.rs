//! Probes that look behind the handshake, and what any of them says about certificates. Every way to fail is tested with
//! the prober itself; here is that the daemon runs it as it is configured.

use std::collections::BTreeSet;

use anyhow::Result;
use balancer_tests::{
    certificates::Validity,
    folder::Folder,
    gateway::{PATIENCE, Status},
    lab::Topology,
    poll::poll_until,
    site::{Options, Programs, Site},
};
use serde_json::Value;

/// A site whose probes have these keys in the place of `kind = "tls"`, and whose gateway has these ones besides.
fn site(label: &str, probe: &str, gateway: &str, options: Options) -> Result<Site> {
    let programs = Programs::under_test(env!("CARGO_BIN_EXE_lab-host"))?;
    let mut site = Site::prepare(label, &Topology::two_armed(), options, &programs)?;
    let text = site.configuration(options).replace("kind = \"tls\"", probe);
    site.gateway.configure(&text.replace("[gateway]", &format!("[gateway]\n{gateway}")))?;
    (0..2).try_for_each(|server| site.serve(server))?;
    site.gateway.start(&[])?;
    Ok(site)
}

#[test]
fn an_https_probe_sees_an_application_that_is_ill_behind_a_good_handshake() -> Result<()> {
    let probe = "kind = \"https\"\nexpect_body = \"server1\"";
    let site = site("https", probe, "", Options::default())?;
    let status = site.gateway.wait_until("the other server to be down", |status| {
        status.is("server1", "up") && status.is("server2", "down")
    })?;
    assert_eq!(status.active(), "server1");
    let last = &status.backend("server2")["last_probe"];
    assert_eq!((&last["ok"], &last["reason"]), (&false.into(), &"body_mismatch".into()), "{status}");
    assert!(last["certificate_expires"].is_string(), "{status}");
    Ok(())
}

#[test]
fn an_unexpected_status_is_shown_with_its_number() -> Result<()> {
    let probe = "kind = \"https\"\npath = \"/10\"\nexpect_status = \"204, 500-599\"";
    let site = site("status", probe, "", Options::default())?;
    let status = site.gateway.wait_until("a failure of both services", |status| {
        status.is("server1", "down") && status.is("server2", "down")
    })?;
    for server in ["server1", "server2"] {
        assert!(status.reason(server).ends_with(": unexpected_status 200"), "{status}");
        assert_eq!(status.backend(server)["last_probe"]["reason"], "unexpected_status", "{status}");
    }
    Ok(())
}

#[test]
fn a_certificate_that_ends_soon_is_told_once_for_each_service_of_each_backend() -> Result<()> {
    let options = Options { validity: Validity::EndsSoon, ..Options::default() };
    let folder = Folder::new()?;
    let notify = folder.script("notify", "cat >> \"$folder/events\"")?;
    let site = site("ending", "kind = \"tls\"", &format!("notify = [{notify:?}]"), options)?;
    let up = site.gateway.wait_until("all servers to be up", Status::are_all_up)?;
    let told = poll_until(PATIENCE, "four warnings", || {
        let told = site.gateway.logged("certificate");
        if told.len() >= 4 { Ok(told) } else { Err(format!("{told:?}")) }
    })?;
    let places: BTreeSet<_> =
        told.iter().map(|line| (line["backend"].as_str(), line["service"].as_str())).collect();
    assert_eq!((told.len(), places.len()), (4, 4), "{told:?}");
    for line in &told {
        assert_eq!((&line["level"], &line["days_left"]), (&"WARN".into(), &4.into()), "{line}");
        assert_eq!(line["expires"], up.backend("server1")["last_probe"]["certificate_expires"], "{line}");
    }
    let notified = poll_until(PATIENCE, "four events for notify", || match folder.lines("events") {
        lines if lines.len() >= 4 => Ok(lines),
        lines => Err(format!("{lines:?}")),
    })?;
    // Each is probed again, and nothing is told again.
    site.gateway.wait_until("further probes", |status| {
        let at = |status: &Status, server| status.backend(server)["last_probe"]["at"].to_string();
        ["server1", "server2"].iter().all(|server| at(status, server) > at(&up, server))
    })?;
    assert_eq!(site.gateway.logged("certificate").len(), 4);
    assert_eq!(folder.lines("events"), notified);
    let notified =
        notified.iter().map(|line| serde_json::from_str(line)).collect::<Result<Vec<Value>, _>>()?;
    let story = site.gateway.verb(&["events", "-o", "json"])?.expect(0)?.json()?;
    let recorded = story["events"].as_array().into_iter().flatten();
    let recorded: Vec<_> = recorded.filter(|record| record["event"] == "certificate").collect();
    assert_eq!(recorded.len(), 4, "{story}");
    for event in ["event", "pool", "backend", "reason", "evidence"] {
        let both = notified.iter().zip(&recorded);
        assert!(both.clone().all(|(notified, record)| notified[event] == record[event]), "{both:?}");
    }
    let evidence = notified[0]["evidence"].as_str().unwrap_or_default();
    assert!(notified[0]["reason"] == "ends_soon" && evidence.ends_with("days left: 4)"), "{notified:?}");
    Ok(())
}
