//! Interfaces of a running daemon come, go and change under living traffic: it forwards again within two seconds, nothing
//! of its state is lost, and meanwhile `status` says what is missing.

use std::{
    fs,
    process::Output,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, ensure};
use balancer_tests::{
    gateway::{PATIENCE, Status},
    inventory::{Inventory, attached_programs},
    lab::Topology,
    poll::poll_until,
    site::{Held, Options, PASSWORDS, Programs, Site, WEB, Watcher},
};
use balancer_user::dataplane::object::{self, Wanted};
use serde_json::Value;

/// For forwarding to work again.
const PROMISE: Duration = Duration::from_secs(2);

#[test]
fn an_interface_that_is_made_anew_has_the_program_again_and_its_flows_go_on() -> Result<()> {
    let mut watched = Watched::start("anew")?;
    let before = watched.site.gateway.status()?;
    let held = Inventory::of(&before);
    for (interface, remake) in
        [("lan0", Site::remake_lan as fn(&Site) -> Result<()>), ("wan0", Site::remake_wan)]
    {
        watched.gateway(&["ip", "link", "del", interface])?;
        watched.trouble_with(interface, "does not exist")?;
        remake(&watched.site)?;
        watched.forwards_again(interface)?;
    }
    let after = watched.site.gateway.status()?;
    assert!(after.link_ids().iter().all(|id| !before.link_ids().contains(id)), "{after}");
    poll_until(PATIENCE, "as many programs, links and maps as before", || {
        let now = Inventory::of(&after);
        if now.counts() == held.counts() { Ok(()) } else { Err(format!("{now:?}, before {held:?}")) }
    })?;
    watched.told_once("interface lan0")?;
    watched.told_once("interface wan0")
}

#[test]
fn an_interface_that_was_in_another_namespace_is_served_when_it_is_back() -> Result<()> {
    let mut watched = Watched::start("moved")?;
    let before = watched.site.gateway.status()?;
    let elsewhere = watched.site.lab().client().namespace().to_owned();
    watched.gateway(&["ip", "link", "set", "lan0", "netns", &elsewhere])?;
    watched.trouble_with("lan0", "does not exist")?;
    let client = watched.site.lab().client();
    client.run(["ip", "link", "set", "lan0", "netns", watched.site.lab().gateway().namespace()])?;
    watched.site.address("lan0", "10.0.2.1/24")?;
    watched.forwards_again("lan0")?;
    assert_eq!(
        watched.site.gateway.status()?.link_ids(),
        before.link_ids(),
        "the program was on it all the time"
    );
    watched.told_once("interface lan0")
}

#[test]
fn an_interface_that_is_set_down_and_up_keeps_its_program() -> Result<()> {
    let mut watched = Watched::start("down")?;
    let links = watched.site.gateway.status()?.link_ids();
    watched.gateway(&["ip", "link", "set", "lan0", "down"])?;
    watched.trouble_with("lan0", "it is down")?;
    watched.gateway(&["ip", "link", "set", "lan0", "up"])?;
    watched.forwards_again("lan0")?;
    // Its cable, as the gateway sees it.
    watched.on_switch(&["ip", "link", "set", "gateway", "down"])?;
    watched.trouble_with("lan0", "no carrier")?;
    watched.on_switch(&["ip", "link", "set", "gateway", "up"])?;
    watched.forwards_again("lan0")?;
    assert_eq!(watched.site.gateway.status()?.link_ids(), links);
    Ok(())
}

#[test]
fn a_renamed_interface_goes_on_and_is_told_until_it_has_its_name_again() -> Result<()> {
    let mut watched = Watched::start("renamed")?;
    let links = watched.site.gateway.status()?.link_ids();
    rename(&watched, "lan0", "other0")?;
    watched.trouble_with("lan0", "its device is called other0 now")?;
    // Nothing has happened to the traffic.
    watched.is_served()?;
    rename(&watched, "other0", "lan0")?;
    watched.forwards_again("lan0")?;
    assert_eq!(watched.site.gateway.status()?.link_ids(), links);
    watched.told_once("interface lan0")
}

#[test]
fn a_reload_that_takes_the_other_name_keeps_program_and_flows() -> Result<()> {
    let mut watched = Watched::start("reloaded")?;
    let links = watched.site.gateway.status()?.link_ids();
    rename(&watched, "lan0", "other0")?;
    let text = fs::read_to_string(watched.site.gateway.configuration())?.replace("\"lan0\"", "\"other0\"");
    // Whether or not it was told of the name yet.
    let said = watched.site.gateway.reload(&text)?;
    assert!(said[1].starts_with("gateway: interfaces "), "{said:?}");
    watched.forwards_again("other0")?;
    let status = watched.site.gateway.status()?;
    assert_eq!(status.link_ids(), links, "{status}");
    // And the next daemon finds them so.
    watched.site.gateway.kill();
    watched.site.gateway.start(&[])?;
    assert_eq!(watched.site.gateway.status()?.link_ids(), links);
    watched.is_served()
}

#[test]
fn a_name_that_is_given_to_another_device_means_that_one() -> Result<()> {
    let mut watched = Watched::start("given")?;
    rename(&watched, "lan0", "other0")?;
    watched.gateway(&["ip", "address", "flush", "dev", "other0"])?;
    watched.on_switch(&["ip", "link", "set", "gateway", "name", "former"])?;
    // A backend that still sends there finds the gateway's stack once the program has left it, and would be reset by it.
    watched.on_switch(&["ip", "link", "set", "former", "down"])?;
    watched.site.remake_lan()?;
    watched.forwards_again("lan0")?;
    let names: Vec<_> = attached_programs(watched.site.lab().gateway())?.into_keys().collect();
    assert_eq!(names, ["lan0", "wan0"], "the program has left the former one");
    Ok(())
}

#[test]
fn interfaces_that_exchange_their_names_keep_their_programs() -> Result<()> {
    let mut watched = Watched::start("exchanged")?;
    let mut links = watched.site.gateway.status()?.link_ids();
    rename(&watched, "lan0", "between0")?;
    rename(&watched, "wan0", "lan0")?;
    rename(&watched, "between0", "wan0")?;
    watched.forwards_again("lan0")?;
    watched.forwards_again("wan0")?;
    links.reverse();
    assert_eq!(watched.site.gateway.status()?.link_ids(), links);
    // And the next daemon finds them so.
    watched.site.gateway.kill();
    watched.site.gateway.start(&[])?;
    assert_eq!(watched.site.gateway.status()?.link_ids(), links);
    watched.is_served()
}

#[test]
fn a_foreign_program_on_an_interface_made_anew_is_left_there_until_it_goes() -> Result<()> {
    let mut watched = Watched::start("foreign")?;
    watched.gateway(&["ip", "link", "del", "lan0"])?;
    watched.trouble_with("lan0", "does not exist")?;
    watched.site.make_lan("new0")?;
    let wanted = Wanted { max_flows: 16, max_half_open: 16, ipv4: true, ipv6: false, frags: true };
    let mut foreign = object::load(wanted, None)?;
    let program = foreign.program()?;
    watched.site.lab().gateway().enter(|| program.attach("new0", aya::programs::XdpMode::Driver))??;
    let id = attached_programs(watched.site.lab().gateway())?["new0"];
    rename(&watched, "new0", "lan0")?;
    watched.site.address("lan0", "10.0.2.1/24")?;
    watched.trouble_with("lan0", &format!("(id {id})"))?;
    assert_eq!(attached_programs(watched.site.lab().gateway())?["lan0"], id);
    drop(foreign);
    // Nobody tells that it went; it is tried again.
    let is_well = |status: &Status| attachment(status, "lan0")["error"].is_null();
    watched.site.gateway.wait_until("the program to be on lan0", is_well)?;
    // What the foreign one has passed is the stack's, which has reset what stood.
    watched.site.stack.forget()?;
    watched.held.clear();
    watched.forwards_again("lan0")
}

#[test]
fn an_interface_that_was_not_there_at_the_start_is_served_when_it_comes() -> Result<()> {
    let mut watched = Watched::start("later")?;
    watched.site.gateway.kill();
    watched.gateway(&["ip", "link", "del", "lan0"])?;
    watched.site.gateway.launch(&[])?;
    watched.trouble_with("lan0", "does not exist")?;
    watched.site.remake_lan()?;
    watched.forwards_again("lan0")?;
    watched.told_once("interface lan0")
}

#[test]
fn news_that_the_kernel_could_not_deliver_cost_nothing_but_a_look() -> Result<()> {
    let mut watched = Watched::start("overrun")?;
    let stopped = Stopped::new(watched.site.gateway.pid()?)?;
    // More than any buffer of the daemon takes, and behind it the one thing that matters.
    let flood = "for i in $(seq 0 39); do for j in $(seq 1 250); do echo neigh add 10.0.2.$j dev lan0 lladdr 02:00:00:00:01:01 nud stale; \
                 echo neigh del 10.0.2.$j dev lan0; done; done | ip -force -batch - >/dev/null 2>&1; ip link del lan0";
    watched.gateway(&["sh", "-c", flood])?;
    watched.site.remake_lan()?;
    drop(stopped);
    watched.forwards_again("lan0")
}

/// A site, a client that connects all the time, and connections that were there before.
struct Watched {
    site: Site,
    clients: Watcher,
    held: Vec<Held>,
}

impl Watched {
    fn start(label: &str) -> Result<Self> {
        let programs = Programs::under_test(env!("CARGO_BIN_EXE_lab-host"))?;
        // Nobody is down: that a server can't be reached is what is done to it here.
        let options = Options { max_fails: 0, ..Options::default() };
        let site = Site::start(label, &Topology::two_armed(), options, &programs)?;
        let held = (0..3).map(|_| site.hold(PASSWORDS, WEB)).collect::<Result<_>>()?;
        let clients = site.watch_as(WEB, &["--interval", "20ms", "--timeout", "500ms"])?;
        Ok(Self { site, clients, held })
    }

    fn gateway(&self, words: &[&str]) -> Result<Output> {
        self.site.lab().gateway().run(words)
    }

    fn on_switch(&self, words: &[&str]) -> Result<Output> {
        self.site.on_switch(words)
    }

    /// What `status` tells of an interface, and as degraded.
    fn trouble_with(&self, interface: &str, words: &str) -> Result<Status> {
        let is_told = |status: &Status| {
            let said = [&attachment(status, interface)["error"], &status.0["degraded"][0]];
            said.iter().all(|said| said.as_str().is_some_and(|said| said.contains(words)))
        };
        self.site.gateway.wait_until(words, is_told)
    }

    /// From now on: clients are answered in time, what was connected before still is, and nothing is told any more.
    fn forwards_again(&mut self, interface: &str) -> Result<()> {
        let took = self.clients.first_answer("server1", SystemTime::now())?;
        ensure!(took < PROMISE, "it took {took:?}");
        self.is_served()?;
        let is_well = |status: &Status| {
            attachment(status, interface)["error"].is_null()
                && status.0["degraded"] == Value::Array(Vec::new())
        };
        self.site.gateway.wait_until("nothing to be missing", is_well).map(drop)
    }

    fn is_served(&mut self) -> Result<()> {
        for held in &mut self.held {
            assert_eq!(held.ask().context("a connection that was there before")?, "server1");
        }
        let report = self.site.load(WEB, &["--connections", "20", "--expect", "server1"])?;
        ensure!(report["failed"] == 0, "{report}");
        Ok(())
    }

    /// One event when it came and one when it was over.
    fn told_once(&self, what: &str) -> Result<()> {
        let said = self.site.gateway.verb(&["events", "--limit", "1000", "-o", "json"])?.expect(0)?.json()?;
        let events = said["events"].as_array().into_iter().flatten().filter(|event| event["reason"] == what);
        let events: Vec<_> = events.map(|event| event["event"].clone()).collect();
        assert_eq!(events, ["degraded", "degraded_over"], "{said}");
        Ok(())
    }
}

/// A process that stands still; dropping this lets it go on.
struct Stopped(rustix::process::Pid);

impl Stopped {
    fn new(pid: u32) -> Result<Self> {
        let pid = rustix::process::Pid::from_raw(pid.try_into()?).context("a process id")?;
        rustix::process::kill_process(pid, rustix::process::Signal::STOP)?;
        Ok(Self(pid))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process(self.0, rustix::process::Signal::CONT);
    }
}

fn attachment<'a>(status: &'a Status, interface: &str) -> &'a Value {
    let mut all = status.0["attachments"].as_array().into_iter().flatten();
    all.find(|one| one["interface"] == interface).unwrap_or(&Value::Null)
}

fn rename(watched: &Watched, from: &str, to: &str) -> Result<()> {
    // Older kernels rename only what is down.
    watched.gateway(&["ip", "link", "set", from, "down"])?;
    watched.gateway(&["ip", "link", "set", from, "name", to])?;
    watched.gateway(&["ip", "link", "set", to, "up"]).map(drop)
}
