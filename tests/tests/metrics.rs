//! What Prometheus is shown: the numbers that `status` and `stats` tell, and what happened.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, ensure};
use balancer_tests::docs::root;
use balancer_tests::gateway::PATIENCE;
use balancer_tests::lab::Topology;
use balancer_tests::poll::poll_until;
use balancer_tests::site::{Options, Programs, Site, WEB};
use serde_json::Value;

const LISTEN: &str = "127.0.0.1:9464";

fn scraped(site: &Site) -> Result<String> {
    let scrape = || -> Result<String> {
        let mut stream = TcpStream::connect(LISTEN).context("connect to [http] listen")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    let text = site.lab().gateway().enter(scrape)??;
    ensure!(text.starts_with("HTTP/1.1 200") && text.ends_with("# EOF\n"), "{text}");
    Ok(text)
}

/// Waits until all of these lines are there.
fn shows(site: &Site, lines: &[&str]) -> Result<()> {
    poll_until(PATIENCE, "the metrics", || {
        let text = scraped(site).map_err(|error| format!("{error:#}"))?;
        let missing: Vec<_> =
            lines.iter().filter(|line| !text.lines().any(|found| found == **line)).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?} in:\n{text}")) }
    })
}

#[test]
fn a_scrape_tells_who_serves_what_was_carried_and_what_happened() -> Result<()> {
    let programs = Programs::under_test(env!("CARGO_BIN_EXE_lab-host"))?;
    let options = Options::default();
    let mut site = Site::prepare("metrics", &Topology::two_armed(), options, &programs)?;
    let shown = format!("{}\n[http]\nlisten = \"{LISTEN}\"\n", site.configuration(options));
    site.gateway.configure(&shown)?;
    site.begin()?;
    let report = site.load(WEB, &["--connections", "20", "--expect", "server1"])?;
    ensure!(report["failed"] == 0, "{report}");
    shows(
        &site,
        &[
            "balancer_backend_active{pool=\"passwords\",backend=\"server1\"} 1.0",
            "balancer_backend_up{pool=\"passwords\",backend=\"server2\"} 1.0",
            "balancer_new_flows_total{pool=\"passwords\",service=\"web\"} 20",
            "balancer_config_generation 1",
        ],
    )?;
    site.kill(0);
    site.gateway.wait_until("the backup to be active", |status| status.active() == "server2")?;
    ensure!(site.load(WEB, &["--connections", "1"])?["failed"] == 0);
    shows(
        &site,
        &[
            "balancer_backend_active{pool=\"passwords\",backend=\"server2\"} 1.0",
            "balancer_backend_up{pool=\"passwords\",backend=\"server1\"} 0.0",
            "balancer_failovers_total{pool=\"passwords\",reason=\"backend_down\"} 1",
            "balancer_failover_seconds_count 1",
        ],
    )?;
    let text = scraped(&site)?;
    ensure!(text.contains("reason=\"refused\"") && text.contains("balancer_certificate_expiry"), "{text}");
    for file in ["docs/alerts.yml", "docs/grafana.json"] {
        asks_for_what_is_there(file, &text)?;
    }
    Ok(())
}

/// Every metric that a file for others names is in the scrape.
fn asks_for_what_is_there(file: &str, scrape: &str) -> Result<()> {
    let text = fs::read_to_string(root().join(file))?;
    let is_part = |c: char| c.is_ascii_lowercase() || c == '_';
    let words = text.split(|c| !is_part(c)).filter(|word| word.starts_with("balancer_"));
    let names: BTreeSet<_> = words.collect();
    ensure!(names.len() > 5, "{file}: {names:?}");
    for name in names {
        // A counter and a histogram are described without the ends of their samples' names.
        let described = ["_total", "_bucket"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        ensure!(scrape.contains(&format!("# TYPE {described} ")), "{file}: {name} in:\n{scrape}");
    }
    Ok(())
}

#[test]
fn prometheus_takes_the_alert_rules_and_grafana_s_file_is_whole() -> Result<()> {
    let promtool = env::var_os("BALANCER_PROMTOOL").context("BALANCER_PROMTOOL: run cargo xtask test")?;
    let said =
        Command::new(promtool).args(["check", "rules"]).arg(root().join("docs/alerts.yml")).output()?;
    ensure!(said.status.success(), "{said:?}");
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(root().join("docs/grafana.json"))?)?;
    let panels = dashboard["panels"].as_array().context("panels")?;
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].to_string()).collect();
    assert_eq!(ids.len(), panels.len(), "each panel has an id of its own");
    for panel in panels {
        let targets = panel["targets"].as_array().context("targets")?;
        ensure!(!targets.is_empty() && targets.iter().all(|target| target["expr"].is_string()), "{panel}");
    }
    Ok(())
}

#[test]
fn an_address_that_somebody_has_ends_the_start_before_anything_is_made() -> Result<()> {
    let programs = Programs::under_test(env!("CARGO_BIN_EXE_lab-host"))?;
    let options = Options::default();
    let site = Site::prepare("metricsbusy", &Topology::two_armed(), options, &programs)?;
    let shown = format!("{}\n[http]\nlisten = \"192.0.2.99:9464\"\n", site.configuration(options));
    site.gateway.configure(&shown)?;
    let said = site.gateway.verb(&["run"])?.expect(1)?;
    ensure!(said.stderr.contains("[http] listen: 192.0.2.99:9464"), "{said:?}");
    ensure!(
        !site.lab().pin_dir().exists() || site.lab().pin_dir().read_dir()?.next().is_none(),
        "nothing is pinned"
    );
    Ok(())
}
