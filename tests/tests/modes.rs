//! In which mode XDP runs: natively only where what it sends arrives, and never with packets lost in silence.
//!
//! A veth is the driver that has both: what is redirected into one end arrives while the other end has GRO on. The
//! client's end is directly behind the gateway's `wan0`.

use anyhow::{Context, Result};
use balancer_tests::{
    gateway::Status,
    inventory::attached_programs,
    lab::Topology,
    site::{API, Options, Programs, Site, WEB},
};
use balancer_user::dataplane::neighbours::Neighbours;
use serde_json::Value;

#[test]
fn without_transmit_auto_is_generic_everywhere_and_traffic_passes() -> Result<()> {
    let mut site = site("auto")?;
    set_gro(&site, "off")?;
    serve(&mut site)?;
    site.gateway.start(&[])?;
    let status = site.gateway.status()?;
    for interface in ["wan0", "lan0"] {
        assert_eq!(attachment(&status, interface)["mode"], "generic", "{status}");
    }
    let error = attachment(&status, "wan0")["error"].as_str().unwrap_or_default();
    let words = ["wan0", "no XDP transmit", "ethtool -K PEER gro on", "generic mode"];
    assert!(words.iter().all(|word| error.contains(word)), "{status}");
    assert_eq!(attachment(&status, "lan0")["error"], Value::Null, "{status}");
    assert_eq!(warnings(&site, "attached").len(), 1, "{:?}", site.gateway.logged("attached"));
    passes(&site)
}

#[test]
fn without_transmit_native_is_refused_and_nothing_is_attached() -> Result<()> {
    let mut site = site("native")?;
    site.gateway.configure(&native(&site))?;
    set_gro(&site, "off")?;
    let said = site.gateway.verb(&["run"])?.expect(1)?;
    let words = ["native mode", "wan0", "ethtool -K PEER gro on", "xdp_mode = \"generic\""];
    assert!(words.iter().all(|word| said.stderr.contains(word)), "{said:?}");
    assert!(attached_programs(site.lab().gateway())?.is_empty());
    assert!(!site.lab().pin_dir().exists());

    // And it is no dead end: the remedy of the message helps.
    set_gro(&site, "on")?;
    serve(&mut site)?;
    site.gateway.start(&[])?;
    let status = site.gateway.status()?;
    for interface in ["wan0", "lan0"] {
        let found = attachment(&status, interface);
        assert_eq!((&found["mode"], &found["error"]), (&"native".into(), &Value::Null), "{status}");
    }
    passes(&site)
}

#[test]
fn transmit_that_is_lost_later_is_shown_and_told_once_and_recovers() -> Result<()> {
    let mut site = site("later")?;
    serve(&mut site)?;
    site.gateway.start(&[])?;
    let links = site.gateway.status()?.link_ids();
    let is_shown = |status: &Status| {
        attachment(status, "wan0")["error"].as_str().is_some_and(|error| error.contains("no XDP transmit"))
    };
    set_gro(&site, "off")?;
    let status = site.gateway.wait_until("the loss to be shown", is_shown)?;
    assert_eq!(attachment(&status, "wan0")["mode"], "native", "traffic is not cut: {status}");
    assert_eq!(attachment(&status, "lan0")["error"], Value::Null, "{status}");
    let report = site.load(WEB, &["--connections", "1"])?;
    assert_eq!(report["ok"], 0, "what is shown is true: {report}");

    // A daemon that finds it so says it too, and changes nothing.
    assert_eq!(warnings(&site, "transmit").len(), 1);
    site.gateway.kill();
    site.gateway.start(&[])?;
    let status = site.gateway.wait_until("the loss to be shown again", is_shown)?;
    assert_eq!(status.link_ids(), links, "{status}");
    assert_eq!(warnings(&site, "transmit").len(), 1);

    set_gro(&site, "on")?;
    site.gateway.wait_until("the loss to be over", |status| !is_shown(status))?;
    assert_eq!(site.gateway.logged("transmit").len(), 2);
    passes(&site)
}

#[test]
fn modes_may_be_mixed_where_every_interface_has_transmit() -> Result<()> {
    let mut site = mixed("mixed")?;
    serve(&mut site)?;
    site.gateway.start(&[])?;
    let status = site.gateway.status()?;
    let modes = ["wan0", "lan0"].map(|interface| attachment(&status, interface)["mode"].clone());
    assert_eq!(modes, ["native", "generic"], "{status}");
    passes(&site)
}

#[test]
fn modes_are_not_mixed_where_an_interface_has_no_transmit() -> Result<()> {
    let mut site = mixed("apart")?;
    // Of the generic one: what comes in natively on the other would be lost there.
    let switch = format!("{}-switch_lan", site.lab().name());
    let far_end = format!("--net=/run/netns/{switch}");
    site.lab().gateway().run(["nsenter", &far_end, "ethtool", "-K", "gateway", "gro", "off"])?;
    serve(&mut site)?;
    site.gateway.start(&[])?;
    let status = site.gateway.status()?;
    let modes = ["wan0", "lan0"].map(|interface| attachment(&status, interface)["mode"].clone());
    assert_eq!(modes, ["generic", "generic"], "{status}");
    passes(&site)
}

#[test]
fn the_kernel_tells_whether_tags_are_stripped() -> Result<()> {
    let site = site("tags")?;
    let gateway = site.lab().gateway();
    for (rxvlan, strips) in [("on", true), ("off", false)] {
        gateway.run(["ethtool", "-K", "wan0", "rxvlan", rxvlan])?;
        let asked = gateway.enter(|| -> Result<_> {
            tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
                let kernel = Neighbours::connect()?;
                let (target, _) = kernel.interface("wan0").await?;
                Ok((kernel.strips_tags(target.ifindex).await?, kernel.hidden_tags(&[&target]).await?))
            })
        })??;
        assert_eq!(asked.0, strips);
        assert!(asked.1.is_empty(), "no VLAN interface is on it: {asked:?}");
    }
    Ok(())
}

/// Connections to both services are answered.
fn passes(site: &Site) -> Result<()> {
    for service in [WEB, API] {
        let report = site.load(service, &["--connections", "20", "--expect", "server1"])?;
        assert_eq!(report["failed"], 0, "{report}");
    }
    Ok(())
}

fn attachment<'a>(status: &'a Status, interface: &str) -> &'a Value {
    let mut all = status.0["attachments"].as_array().into_iter().flatten();
    all.find(|one| one["interface"] == interface).unwrap_or(&Value::Null)
}

fn warnings(site: &Site, event: &str) -> Vec<Value> {
    site.gateway.logged(event).into_iter().filter(|line| line["level"] == "WARN").collect()
}

/// Of the client's end of the cable to `wan0`.
fn set_gro(site: &Site, gro: &str) -> Result<()> {
    site.lab().client().run(["ethtool", "-K", "eth0", "gro", gro]).map(drop)
}

fn native(site: &Site) -> String {
    site.configuration(Options::default()).replace("[gateway]", "[gateway]\nxdp_mode = \"native\"")
}

fn serve(site: &mut Site) -> Result<()> {
    [0, 1].into_iter().try_for_each(|server| site.serve(server))
}

/// `lan0` has a program in generic mode from an earlier life, and is to stay so.
fn mixed(label: &str) -> Result<Site> {
    let mut site = site(label)?;
    let usual = site.configuration(Options::default());
    let both = "interfaces = [\"wan0\", \"lan0\"]";
    assert!(usual.contains(both), "{usual}");
    let generic = usual.replace(both, "xdp_mode = \"generic\"\ninterfaces = [\"lan0\"]");
    site.gateway.configure(&generic)?;
    site.gateway.start(&[]).context("the earlier life")?;
    site.gateway.terminate()?;
    site.gateway.configure(&usual)?;
    Ok(site)
}

fn site(label: &str) -> Result<Site> {
    let programs = Programs::under_test(env!("CARGO_BIN_EXE_lab-host"))?;
    Site::prepare(label, &Topology::two_armed(), Options::default(), &programs)
}
