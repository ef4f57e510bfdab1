//! What a pool does when backends fail, as its configuration says: flows reset or kept, new ones refused, the operator
//! asked, a cold standby started, a change held that can't be written down. And one pool's hook, which is nothing to another.

use std::{
    fs,
    io::{ErrorKind, Read},
    path::Path,
};

use anyhow::Result;
use balancer_tests::{
    folder::Folder,
    gateway::{PATIENCE, Status},
    lab::Topology,
    poll::poll_until,
    site::{Options, PASSWORDS, POOL, Pool, Programs, Service, Site, WEB},
};
use serde_json::Value;

const KEEP: &str = "on_backend_down = \"keep\"\n";

/// Writes down that it ran, for whom, and waits until the test lets it end.
const PATIENT_HOOK: &str = r#"
echo "$BALANCER_FROM $BALANCER_TO $BALANCER_REASON" >> "$folder/ran"
while [ ! -e "$folder/go" ]; do sleep 0.05; done
"#;

#[test]
fn clients_of_a_failed_backend_are_reset_by_default() -> Result<()> {
    let site = site("reset", Options::default(), |text| text.replace(KEEP, ""))?;
    let idle = [site.connect(WEB)?, site.connect(WEB)?];
    // One that doesn't answer: of one that was killed they would hear by its kernel.
    site.lab().backend(0).nft_silence()?;
    for mut stream in &idle {
        let read = stream.read(&mut [0; 1]).map_err(|error| error.kind());
        assert_eq!(read, Err(ErrorKind::ConnectionReset));
    }
    let status = site.gateway.status()?;
    assert_eq!(status.active(), "server2", "nobody is reset before there is somewhere to go: {status}");
    site.gateway.wait_until("the flows to be gone", |status| status.backend("server1")["flows"] == 0)?;
    Ok(())
}

#[test]
fn clients_of_a_failed_backend_are_kept_where_that_is_wanted() -> Result<()> {
    let site = site("keep", Options::default(), |text| text)?;
    let mut held = site.hold(PASSWORDS, WEB)?;
    site.lab().backend(0).nft_silence()?;
    site.gateway.wait_until("the backup to be active", |status| status.active() == "server2")?;
    site.lab().backend(0).nft_restore()?;
    site.gateway.wait_until("the first one to be up", |status| status.is("server1", "up"))?;
    assert_eq!(held.ask()?, "server1");
    Ok(())
}

#[test]
fn with_reject_new_flows_are_refused_while_all_are_down() -> Result<()> {
    let reject = |text: String| text.replace(KEEP, "when_all_down = \"reject\"\n");
    let mut site = site("reject", Options { fail_timeout: "1s", ..Options::default() }, reject)?;
    site.kill(1);
    site.gateway.wait_until("the backup to be down", |status| status.is("server2", "down"))?;
    let idle = site.connect(WEB)?;
    site.lab().backend(0).nft_silence()?;
    let status = site.gateway.wait_until("all to be down", |status| status.pool()["state"] == "all_down")?;
    assert_eq!(status.pool()["active"], Value::Null, "{status}");
    let error = site.connect(WEB).expect_err("nobody is there");
    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    assert_eq!(kind, Some(ErrorKind::ConnectionRefused), "{error:#}");
    assert_eq!(site.gateway.verb(&["status", "--exit-code"])?.code, Some(6));

    site.gateway.kill();
    site.gateway.start(&[])?;
    let status = site.gateway.wait_until("all to be down", |status| status.pool()["state"] == "all_down")?;
    assert_eq!(status.pool()["active"], Value::Null, "after a restart: {status}");
    let forced = ["failover", POOL, "--to", "server1", "--force", "-o", "json"];
    for is_news in [true, false] {
        let outcome = site.gateway.verb(&forced)?.expect(0)?.json()?;
        assert_eq!(
            (&outcome["changed"], &outcome["active"]),
            (&is_news.into(), &"server1".into()),
            "{outcome}"
        );
    }
    site.serve(1)?;
    site.gateway.wait_until("the backup to be up", |status| status.is("server2", "up"))?;
    site.gateway.verb(&["failback", POOL])?.expect(0)?;
    let status = site.gateway.wait_until("the backup", |status| status.active() == "server2")?;
    assert_eq!(status.pool()["state"], "serving", "{status}");
    let report = site.load(WEB, &["--connections", "20", "--expect", "server2"])?;
    assert_eq!(report["failed"], 0, "{report}");
    drop(idle);
    Ok(())
}

#[test]
fn with_manual_failover_the_operator_is_called_and_nothing_moves() -> Result<()> {
    let folder = Folder::new()?;
    let notify = folder.script("notify", "cat >> \"$folder/events\"")?;
    let mut site = site("manual", Options { fail_timeout: "60s", ..Options::default() }, |text| {
        text.replace("[gateway]", &format!("[gateway]\nnotify = [{notify:?}]"))
            .replace("failback = ", "failover = \"manual\"\nfailback = ")
    })?;
    site.kill(0);
    let status = site.gateway.wait_until("the pool to wait", |status| status.pool()["state"] == "waiting")?;
    assert_eq!((status.active(), status.is("server1", "down")), ("server1", true), "{status}");
    assert_eq!(site.gateway.verb(&["status", "--exit-code"])?.code, Some(6));
    let called =
        poll_until(PATIENCE, "the call", || folder.lines("events").first().cloned().ok_or("nothing"))?;
    let event: Value = serde_json::from_str(&called)?;
    let told = ["event", "pool", "from", "to"].map(|key| event[key].as_str().unwrap_or_default());
    assert_eq!(told, ["waiting", POOL, "server1", "server2"], "{event}");

    // A restarted daemon waits as well.
    site.gateway.kill();
    site.gateway.start(&[])?;
    let status = site.gateway.wait_until("the pool to wait", |status| status.pool()["state"] == "waiting")?;
    assert_eq!(status.active(), "server1", "{status}");
    site.gateway.verb(&["failover", POOL])?.expect(0)?;
    let status = site.gateway.status()?;
    let told = (status.active(), &status.pool()["state"], &status.pool()["reason"]);
    assert_eq!(told, ("server2", &"serving".into(), &"operator".into()), "{status}");
    let report = site.load(WEB, &["--connections", "20", "--expect", "server2"])?;
    assert_eq!(report["failed"], 0, "{report}");
    Ok(())
}

#[test]
fn a_cold_standby_is_left_alone_until_a_hook_starts_it() -> Result<()> {
    let folder = Folder::new()?;
    let hook = folder.script("hook", "echo \"$BALANCER_TO\" >> \"$folder/ran\"")?;
    let mut site = prepared("cold", Options::default())?;
    let text = site.configuration(Options::default()).replace(KEEP, "");
    site.gateway.configure(&format!("{text}cold = true\n{}", before(&hook)))?;
    site.serve(0)?;
    site.gateway.start(&[])?;
    let status = site.gateway.wait_until("the first one to be up", |status| status.is("server1", "up"))?;
    let standby = status.backend("server2");
    assert_eq!((&standby["last_probe"], &standby["health"]), (&Value::Null, &"unknown".into()), "{status}");

    site.kill(0);
    poll_until(PATIENCE, "the hook", || match folder.lines("ran").as_slice() {
        [to] if to == "server2" => Ok(()),
        other => Err(format!("{other:?}")),
    })?;
    let status = site.gateway.status()?;
    assert_eq!((&status.pool()["state"], status.active()), (&"switching".into(), "server1"), "{status}");
    let waiting = site.start_load(
        WEB,
        &["--connections", "20", "--parallel", "20", "--timeout", "60s", "--expect", "server2"],
    )?;
    let probed = |status: &Status| status.backend("server2")["last_probe"]["ok"] == false;
    site.gateway.wait_until("it to be probed", probed)?;
    site.serve(1)?;
    site.gateway.wait_until("the standby to be active", |status| status.active() == "server2")?;
    let report = waiting.report()?;
    assert_eq!((&report["ok"], &report["failed"]), (&20.into(), &0.into()), "{report}");
    Ok(())
}

#[test]
fn without_a_state_directory_a_pool_without_hooks_fails_over_all_the_same() -> Result<()> {
    let mut site = site("unwritten", Options::default(), |text| text)?;
    fs::create_dir_all(block(&site).join("full"))?;
    site.kill(0);
    site.gateway.wait_until("the backup to be active", |status| status.active() == "server2")?;
    let degraded = |status: &Status| status.0["degraded"].to_string().contains("state.json");
    site.gateway.wait_until("the trouble to be told", degraded)?;
    let report = site.load(WEB, &["--connections", "20", "--expect", "server2"])?;
    assert_eq!(report["failed"], 0, "{report}");
    Ok(())
}

#[test]
fn a_hook_that_cannot_be_written_down_is_not_run() -> Result<()> {
    let folder = Folder::new()?;
    fs::write(folder.at("go"), "")?;
    let hook = folder.script("hook", PATIENT_HOOK)?;
    let site = site("unrecorded", Options { fail_timeout: "1s", ..Options::default() }, |text| {
        text.replace(KEEP, "") + &before(&hook)
    })?;
    fs::create_dir_all(block(&site).join("full"))?;
    site.lab().backend(0).nft_silence()?;
    let status =
        site.gateway.wait_until("the change to be held", |status| status.pool()["state"] == "held")?;
    assert_eq!(status.active(), "server1", "{status}");
    assert_eq!(folder.lines("ran"), Vec::<String>::new());
    let table = site.gateway.verb(&["status"])?.expect(0)?.stdout;
    assert!(table.contains("state.json") && table.contains("`balancer resume passwords --retry`"), "{table}");
    // Not even by hand.
    let said = site.gateway.verb(&["resume", POOL, "--retry"])?.expect(1)?;
    assert!(said.stderr.contains("not started") && said.stderr.contains("state.json"), "{said:?}");
    let said = site.gateway.verb(&["drain", POOL, "server2"])?.expect(1)?;
    assert!(said.stderr.contains("is held in transition"), "{said:?}");
    assert_eq!(folder.lines("ran"), Vec::<String>::new());

    fs::remove_dir_all(block(&site))?;
    site.gateway.verb(&["resume", POOL, "--retry"])?.expect(0)?;
    assert_eq!(folder.lines("ran"), ["server1 server2 backend_down"]);
    let status = site.gateway.status()?;
    assert_eq!((status.active(), &status.pool()["state"]), ("server2", &"serving".into()), "{status}");
    let report = site.load(WEB, &["--connections", "20", "--expect", "server2"])?;
    assert_eq!(report["failed"], 0, "{report}");
    Ok(())
}

#[test]
fn no_wait_returns_while_the_hook_runs_and_others_are_refused_meanwhile() -> Result<()> {
    let folder = Folder::new()?;
    let hook = folder.script("hook", PATIENT_HOOK)?;
    let site = site("no_wait", Options::default(), |text| text.replace(KEEP, "") + &before(&hook))?;
    let mut held = site.hold(PASSWORDS, WEB)?;
    let said = site.gateway.verb(&["failover", POOL, "--no-wait", "-o", "json"])?.expect(0)?.json()?;
    assert_eq!((&said["changed"], &said["active"]), (&true.into(), &"server1".into()), "{said}");
    let step = |status: &Status| status.pool()["transition"]["hook"] == "ask the test";
    let status = site.gateway.wait_until("the hook", step)?;
    assert_eq!(status.pool()["state"], "switching", "{status}");
    assert!(held.ask().is_err(), "flows end before the first hook");
    for verb in [&["failover", POOL][..], &["failback", POOL], &["drain", POOL, "server2"]] {
        let said = site.gateway.verb(verb)?.expect(1)?;
        assert!(said.stderr.contains("is switching to \"server2\""), "{said:?}");
    }
    fs::write(folder.at("go"), "")?;
    site.gateway.wait_until("the switch", |status| status.active() == "server2")?;
    // Drained by hand, and this time waited for.
    site.gateway.verb(&["drain", POOL, "server2"])?.expect(0)?;
    let ran = ["server1 server2 operator", "server2 server1 drain"];
    assert_eq!(
        (site.gateway.status()?.active(), folder.lines("ran").as_slice()),
        ("server1", &ran.map(str::to_owned)[..])
    );
    Ok(())
}

#[test]
fn a_hook_that_hangs_holds_up_no_other_pool() -> Result<()> {
    const SMTPS: Service = Service { name: "smtps", port: 465, backend_port: 10465 };
    const MAIL: Pool = Pool { name: "mail", services: &[SMTPS], servers: &[2, 3], ..PASSWORDS };
    let options = Options { pools: &[PASSWORDS, MAIL], ..Options::default() };
    let folder = Folder::new()?;
    let hook = folder.script("hook", PATIENT_HOOK)?;
    let programs = Programs::under_test(env!("CARGO_BIN_EXE_lab-host"))?;
    let mut site = Site::prepare("two", &Topology::two_armed().backends(4), options, &programs)?;
    let text = site.configuration(options).replace(KEEP, "");
    site.gateway.configure(&(text + &before(&hook)))?;
    site.begin()?;
    site.kill(2);
    let mail_is = |state: &'static str| move |status: &Status| status.pool_named("mail")["state"] == state;
    site.gateway.wait_until("the mail's hook", mail_is("switching"))?;
    let smtps = (site.vip(MAIL), SMTPS.port).into();
    site.kill(0);
    site.gateway.wait_until("the other pool's backup", |status| status.active() == "server2")?;
    let report = site.load(WEB, &["--connections", "20", "--expect", "server2"])?;
    assert_eq!(report["failed"], 0, "{report}");
    site.serve(0)?;
    site.gateway.wait_until("the first one to be up", |status| status.is("server1", "up"))?;
    site.gateway.verb(&["failback", POOL])?.expect(0)?;
    let status = site.gateway.status()?;
    assert!(mail_is("switching")(&status), "all the while: {status}");
    fs::write(folder.at("go"), "")?;
    site.gateway.wait_until("the mail's backup", mail_is("serving"))?;
    let report =
        site.load_from(site.lab().client(), smtps, &["--connections", "20", "--expect", "server4"])?;
    assert_eq!(report["failed"], 0, "{report}");
    Ok(())
}

/// Not even root writes a file where a directory stands that isn't empty.
fn block(site: &Site) -> std::path::PathBuf {
    site.lab().state_dir().join("state.json.new")
}

/// To be written behind the last pool.
fn before(hook: &Path) -> String {
    format!(
        "\n[[pool.hook]]\nname = \"ask the test\"\nwhen = \"before\"\nrun = [{hook:?}]\ntimeout = \"10m\"\n"
    )
}

fn prepared(label: &str, options: Options) -> Result<Site> {
    let programs = Programs::under_test(env!("CARGO_BIN_EXE_lab-host"))?;
    Site::prepare(label, &Topology::two_armed(), options, &programs)
}

/// All its servers are up.
fn site(label: &str, options: Options, change: impl FnOnce(String) -> String) -> Result<Site> {
    let mut site = prepared(label, options)?;
    site.gateway.configure(&change(site.configuration(options)))?;
    site.begin()?;
    Ok(site)
}
