//! Backends that are given by name: resolved at the start and again and again, followed under traffic, and kept where they are
//! when nobody knows, or when the answer is none.

use std::{
    fs,
    net::IpAddr,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use balancer_tests::{
    folder::Folder,
    gateway::{Said, Status},
    lab::Topology,
    name_server::{Answer, NameServer},
    poll::poll_until,
    site::{Forwarding, Options, PASSWORDS, POOL, Pool, Programs, SERVER_NAME, Site, WEB},
};
use serde_json::Value;

/// A round comes 5 s after a start or a reload and then every 30 s, and two have to say the same; an answer is waited for for up
/// to 20 s. One test waits for a second round; what more of them would say hold the host's tests of `daemon::names`.
const ROUNDS: Duration = Duration::from_secs(120);
/// The first server's name, also in its certificate.
const FIRST: &str = SERVER_NAME;
const SECOND: &str = "db2.example.org";
const OTHER_POOL: &str = "mails";

/// As [`PASSWORDS`], with a third server to which a name may lead.
const THREE: Pool = Pool {
    name: "passwords",
    family: 0,
    forwarding: Forwarding::Snat,
    services: &[WEB],
    servers: &[0, 1, 2],
};

#[test]
fn a_name_that_leads_elsewhere_moves_new_connections_and_drains_old_ones_once_its_pool_is_free() -> Result<()>
{
    let folder = Folder::new()?;
    let mut site = Named::prepare("followed", &[FIRST])?;
    let hook = folder.script("step", "while [ -e $folder/wait ]; do sleep 0.05; done")?;
    fs::write(folder.at("wait"), "")?;
    site.add_pool_with_hook(&hook)?;
    site.tell(FIRST, &[0])?;
    site.begin()?;
    let status = site.wait_for(Status::are_all_up)?;
    let backend = status.backend("server1");
    assert_eq!((&backend["address"], &backend["host"]), (&"10.0.2.11".into(), &FIRST.into()), "{status}");
    site.site.gateway.verb(&["failover", OTHER_POOL, "--no-wait"])?.expect(0)?;
    let mut held = site.site.hold(PASSWORDS, WEB)?;
    let load = site.site.start_load(WEB, &["--rate", "20", "--parallel", "20", "--connections", "3000"])?;

    site.tell(FIRST, &[2])?;
    // Asked now and then: a server ends a connection on which nothing is asked for half a minute, or a thousand times.
    let mut asked = Instant::now();
    let status = site.wait_for(|status| {
        if asked.elapsed() > Duration::from_secs(5) {
            assert_eq!(held.ask().expect("what stands goes on"), "server1");
            asked = Instant::now();
        }
        status.backend("server1")["address"] == "10.0.2.13"
    })?;
    assert_eq!(
        (status.active(), &status.0["daemon"]["config_generation"]),
        ("server1", &1.into()),
        "{status}"
    );
    site.wait_for(|status| status.is("server1", "up"))?;
    let report = site.site.load(WEB, &["--connections", "20", "--expect", "server3"])?;
    assert_eq!(report["failed"], 0, "{report}");
    assert_eq!(held.ask()?, "server1", "what stands goes on");
    let report = load.end()?;
    assert_eq!(report["failed"], 0, "{report}");
    let event = site.event("address")?.context("the event")?;
    let told = ["backend", "from", "to", "evidence"].map(|key| event[key].as_str().unwrap_or_default());
    assert_eq!(told, ["server1", "10.0.2.11", "10.0.2.13", FIRST]);

    // A pool that is switching waits for the end of that.
    let status = site.site.gateway.status()?;
    let other = status.pool_named(OTHER_POOL);
    assert!(status.0["pending"][0].is_string() && other["state"] == "switching", "{status}");
    assert_eq!(other["backends"][0]["address"], "10.0.2.11", "{status}");
    fs::remove_file(folder.at("wait"))?;
    let moved = |status: &Status| status.pool_named(OTHER_POOL)["backends"][0]["address"] == "10.0.2.13";
    let status = site.wait_for(moved)?;
    let other = status.pool_named(OTHER_POOL);
    assert_eq!((&other["active"], &other["reason"]), (&"server2".into(), &"operator".into()), "{status}");

    // A reload asks by itself, and an address stays as long as the name has it.
    site.tell(FIRST, &[0, 2])?;
    let said = site.site.gateway.verb(&["reload"])?.expect(0)?;
    assert!(said.stdout.contains("nothing changed"), "{said:?}");
    site.tell(FIRST, &[0])?;
    let said = site.site.gateway.verb(&["reload"])?.expect(0)?;
    assert!(said.stdout.contains("address of server1 10.0.2.13 -> 10.0.2.11"), "{said:?}");
    let report = site.site.load(WEB, &["--connections", "20", "--expect", "server1"])?;
    assert_eq!(report["failed"], 0, "{report}");
    Ok(())
}

#[test]
fn a_resolver_that_fails_or_hangs_or_lies_changes_nothing_and_is_told() -> Result<()> {
    let mut site = Named::prepare("failing", &[FIRST, SECOND])?;
    site.tell(FIRST, &[0])?;
    site.tell(SECOND, &[1])?;
    site.begin()?;
    site.wait_for(Status::are_all_up)?;
    let load = site.site.start_load(WEB, &["--rate", "20", "--parallel", "20", "--connections", "6000"])?;

    // Over a start, too; one that is silent once is told to nobody, a lie at once.
    site.names.tell(FIRST, Answer::Silence);
    site.names.tell(SECOND, Answer::Addresses(vec![[127, 0, 0, 1].into()]));
    site.site.gateway.kill();
    site.start()?;
    let status = site.wait_for(|status| is_degraded(status, "a loopback address"))?;
    assert!(!is_degraded(&status, "can't be resolved"), "{status}");
    let status = site.wait_for(|status| is_degraded(status, "can't be resolved"))?;
    assert!(
        is_degraded(&status, &format!("{FIRST} (")) && !is_degraded(&status, &format!("{SECOND} (")),
        "{status}"
    );
    site.names.tell(FIRST, Answer::Failure);
    let said = site.site.gateway.verb(&["reload"])?.expect(0)?;
    assert!(said.stdout.contains("nothing changed"), "{said:?}");
    // After a reload the next round comes soon.
    site.tell(FIRST, &[0])?;
    site.tell(SECOND, &[1])?;
    let status = site.wait_for(|status| status.0["degraded"] == serde_json::json!([]))?;
    let addresses = ["server1", "server2"].map(|server| status.backend(server)["address"].clone());
    assert_eq!(addresses, ["10.0.2.11", "10.0.2.12"]);
    assert!(site.event("address")?.is_none());
    let report = load.end()?;
    assert_eq!(report["failed"], 0, "{report}");
    Ok(())
}

#[test]
fn without_a_resolver_a_start_takes_the_last_good_addresses() -> Result<()> {
    let mut site = Named::prepare("restart", &[FIRST])?;
    site.names.tell(FIRST, Answer::Failure);
    for verb in ["check", "run"] {
        let said = site.says(&[verb])?.expect(3)?;
        assert!(said.stderr.contains(&format!("`{FIRST}` can't be resolved: ")), "{said:?}");
    }
    site.says(&["check", "--no-resolve"])?.expect(0)?;
    site.tell(FIRST, &[2])?;
    site.begin()?;
    site.wait_for(|status| status.is("server1", "up"))?;
    site.site.gateway.terminate()?;
    // As after a reboot: nothing is in the kernel, and nobody resolves anything yet.
    site.site.gateway.verb(&["detach"])?.expect(0)?;
    site.names.tell(FIRST, Answer::Silence);
    let said = site.says(&["check"])?.expect(0)?;
    assert!(said.stderr.contains("its last good address 10.0.2.13 is used"), "{said:?}");
    site.start()?;
    let status = site.wait_for(|status| status.is("server1", "up"))?;
    assert_eq!(status.backend("server1")["address"], "10.0.2.13", "{status}");
    let report = site.site.load(WEB, &["--connections", "20", "--expect", "server3"])?;
    assert_eq!(report["failed"], 0, "{report}");
    // Whoever asks what would be in the way of a start is told that it isn't.
    let found = site.says(&["doctor", "-o", "json"])?.json()?;
    let finding = |id: &str| {
        let all = found["findings"].as_array().into_iter().flatten();
        all.filter(|one| one["id"] == id).map(|one| one["ok"].clone()).collect::<Vec<_>>()
    };
    assert_eq!((finding("configuration"), finding("host_name")), (vec![true.into()], vec![false.into()]));
    assert!(found.to_string().contains("its last good address 10.0.2.13 is used"), "{found}");
    // Without the file the kernel's maps know.
    site.site.gateway.kill();
    fs::remove_file(site.site.lab().state_dir().join("state.json"))?;
    let said = site.says(&["check"])?.expect(0)?;
    assert!(said.stderr.contains("its last good address 10.0.2.13 is used"), "{said:?}");
    site.start()?;
    assert_eq!(site.site.gateway.status()?.backend("server1")["address"], "10.0.2.13");
    Ok(())
}

#[test]
fn a_reload_that_is_taken_back_after_a_restart_knows_where_its_names_have_led() -> Result<()> {
    let mut site = Named::prepare("goback", &[FIRST, SECOND])?;
    site.tell(FIRST, &[0])?;
    site.tell(SECOND, &[1])?;
    site.begin()?;
    site.wait_for(Status::are_all_up)?;
    let named = fs::read_to_string(site.site.gateway.configuration())?;
    let third = format!("address = \"{}\"", site.site.lab().backend(2).address());
    site.site.gateway.configure(&named.replace(&format!("address = \"{FIRST}\""), &third))?;
    site.site.gateway.verb(&["reload", "--confirm", "3s"])?.expect(0)?;
    assert_eq!(site.site.gateway.status()?.backend("server1")["address"], "10.0.2.13");
    site.site.gateway.kill();
    // Only the configuration before has the name, and nobody knows it any more.
    site.names.tell(FIRST, Answer::Failure);
    site.start()?;
    let status = site.wait_for(|status| status.backend("server1")["address"] == "10.0.2.11")?;
    assert_eq!(status.backend("server1")["host"], FIRST, "{status}");
    Ok(())
}

#[test]
fn beside_traffic_a_start_leaves_out_who_is_nowhere_until_that_is_known() -> Result<()> {
    const THIRD: &str = "db3.example.org";
    let mut site = Named::prepare("nowhere", &[FIRST, SECOND])?;
    site.tell(FIRST, &[0])?;
    site.tell(SECOND, &[1])?;
    site.begin()?;
    site.wait_for(Status::are_all_up)?;
    let mut held = site.site.hold(PASSWORDS, WEB)?;
    let right = fs::read_to_string(site.site.gateway.configuration())?;
    let other = format!("{right}\n[[pool.backend]]\nname = \"server3\"\naddress = \"{THIRD}\"\n");
    site.names.tell(THIRD, Answer::Failure);
    site.site.gateway.configure(&other)?;
    let said = site.site.gateway.verb(&["reload"])?.expect(3)?;
    assert!(said.stderr.contains(&format!("`{THIRD}` can't be resolved")), "{said:?}");
    site.site.gateway.kill();
    let said = site.says(&["check", "--explain"])?.expect(0)?;
    assert!(said.stderr.contains("server3 is left out until its name leads where it can be"), "{said:?}");
    assert!(said.stdout.contains(&format!("server3 at {THIRD}")), "{said:?}");
    site.start()?;
    let status = site.site.gateway.status()?;
    assert!(is_degraded(&status, &format!("server3: {THIRD} has led nowhere yet")), "{status}");
    let listed = status.pool()["backends"].as_array().map(Vec::len);
    assert_eq!((status.active(), listed), ("server1", Some(2)), "{status}");
    assert_eq!(held.ask()?, "server1");
    site.wait_for(|status| is_degraded(status, &format!("{THIRD} can't be resolved: ")))?;
    // Those are probed of whom it is known where they are.
    site.wait_for(Status::are_all_up)?;

    // Soon after a start there is a round, else twice a minute.
    site.site.gateway.kill();
    site.start()?;
    let status = site.site.gateway.status()?;
    assert!(is_degraded(&status, &format!("server3: {THIRD} has led nowhere yet")), "{status}");
    site.tell(THIRD, &[2])?;
    let is_there = |status: &Status| status.pool()["backends"].as_array().is_some_and(|all| all.len() == 3);
    site.wait_for(is_there)?;
    let status = site.wait_for(|status| status.is("server3", "up"))?;
    assert_eq!(status.backend("server3")["address"], "10.0.2.13", "{status}");
    assert_eq!(status.0["degraded"], serde_json::json!([]), "{status}");
    let event = site.event("address")?.context("the event")?;
    assert_eq!((&event["from"], &event["to"]), (&Value::Null, &"10.0.2.13".into()), "{event}");
    site.site.gateway.verb(&["failover", POOL, "--to", "server3"])?.expect(0)?;
    let report = site.site.load(WEB, &["--connections", "20", "--expect", "server3"])?;
    assert_eq!(report["failed"], 0, "{report}");

    // Where nobody would be left it is an error.
    site.site.gateway.kill();
    let mut nobody = right;
    for (server, name, to) in [("server1", FIRST, "db4.example.org"), ("server2", SECOND, "db5.example.org")]
    {
        nobody = nobody.replace(&format!("\"{server}\""), &format!("\"new{server}\""));
        nobody = nobody.replace(&format!("address = \"{name}\""), &format!("address = \"{to}\""));
        site.names.tell(to, Answer::Failure);
    }
    site.site.gateway.configure(&nobody)?;
    let said = site.says(&["run"])?.expect(3)?;
    assert!(said.stderr.contains("db4.example.org") && said.stderr.contains("db5.example.org"), "{said:?}");
    Ok(())
}

#[test]
fn an_answer_where_no_backend_can_be_is_refused_at_the_start() -> Result<()> {
    let site = Named::prepare("refused", &[FIRST, SECOND])?;
    site.tell(SECOND, &[1])?;
    let vip = site.site.vip(PASSWORDS).to_string();
    let gateway = site.site.lab().gateway().interfaces()[1].address().to_string();
    for (address, words) in [
        ("127.0.0.1", "a loopback address"),
        ("224.0.0.1", "a multicast address"),
        ("2001:db8::1", "has no IPv4 address"),
        (vip.as_str(), "the address that clients connect to"),
        (gateway.as_str(), "an address of this gateway"),
        ("10.0.2.12", "where server"),
    ] {
        site.names.tell(FIRST, Answer::Addresses(vec![address.parse()?]));
        let said = site.says(&["check"])?.expect(3)?;
        assert!(said.stderr.contains(words), "{words}: {said:?}");
    }
    Ok(())
}

/// Whether a sentence about what is wrong has these words.
fn is_degraded(status: &Status, words: &str) -> bool {
    let mut sentences = status.0["degraded"].as_array().into_iter().flatten();
    sentences.any(|sentence| sentence.as_str().is_some_and(|sentence| sentence.contains(words)))
}

/// A site whose first servers are given by name.
struct Named {
    site: Site,
    names: NameServer,
}

impl Named {
    fn prepare(label: &str, names: &[&str]) -> Result<Self> {
        let programs = Programs::under_test(env!("CARGO_BIN_EXE_lab-host"))?;
        let options = Options { pools: &[THREE], ..Options::default() };
        let site = Site::prepare(label, &Topology::two_armed().backends(3), options, &programs)?;
        let mut text = site.configuration(options);
        for (server, name) in names.iter().enumerate() {
            let address = format!("\"{}\"", site.lab().backend(server).address());
            ensure!(text.contains(&address), "{address} in {text}");
            text = text.replace(&address, &format!("\"{name}\""));
        }
        let rest = text.match_indices("[[pool.backend]]").nth(names.len()).context("the other servers")?.0;
        text.truncate(rest);
        // With one server its own name is the one to verify.
        if names.len() == 1 {
            text = text.replace(&format!("server_name = \"{SERVER_NAME}\"\n"), "");
        }
        site.gateway.configure(&text)?;
        let names = NameServer::start(site.lab())?;
        Ok(Self { site, names })
    }

    /// With a pool whose `server1` has the first one's name, too, and whose change runs this program before.
    fn add_pool_with_hook(&self, program: &Path) -> Result<()> {
        let (vip, second) = (self.site.vip(PASSWORDS), self.site.lab().backend(1).address());
        let text = fs::read_to_string(self.site.gateway.configuration())?;
        let pool = format!(
            r#"
[[pool]]
name = "{OTHER_POOL}"
[[pool.service]]
name = "imap"
listen = "{vip}:993"
backend_port = {}
[pool.probe]
kind = "tcp"
[[pool.backend]]
name = "server1"
address = "{FIRST}"
[[pool.backend]]
name = "server2"
address = "{second}"
[[pool.hook]]
name = "promote"
when = "before"
run = [{program:?}]
timeout = "200s"
"#,
            WEB.backend_port
        );
        self.site.gateway.configure(&(text + &pool))
    }

    /// A name leads to these servers from now on.
    fn tell(&self, name: &str, servers: &[usize]) -> Result<()> {
        let address = |server: &usize| -> IpAddr { self.site.lab().backend(*server).address() };
        self.names.tell(name, Answer::Addresses(servers.iter().map(address).collect()));
        Ok(())
    }

    fn begin(&mut self) -> Result<()> {
        (0..3).try_for_each(|server| self.site.serve(server))?;
        self.start()
    }

    fn start(&mut self) -> Result<()> {
        let command = self.names.command();
        self.site.gateway.start_by(&command.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn says(&self, verb: &[&str]) -> Result<Said> {
        self.site.gateway.run(&[self.names.command(), self.site.gateway.words(verb)].concat())
    }

    fn wait_for(&self, mut is_so: impl FnMut(&Status) -> bool) -> Result<Status> {
        poll_until(ROUNDS, "what the names say", || match self.site.gateway.status() {
            Ok(status) if is_so(&status) => Ok(status),
            Ok(status) => Err(status.to_string()),
            Err(error) => Err(format!("{error:#}")),
        })
    }

    fn event(&self, event: &str) -> Result<Option<Value>> {
        let events = self.site.gateway.verb(&["events", "-o", "json"])?.expect(0)?.json()?;
        Ok(events["events"].as_array().into_iter().flatten().find(|one| one["event"] == event).cloned())
    }
}
