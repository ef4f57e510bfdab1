//! What may happen to a daemon on a bad day: killed at any moment, stopped, out of descriptors, with a disk that takes nothing
//! and a log that nobody reads, besieged on its control socket (failure classes 19, 35, 49, 51 and 52). Traffic goes on, nobody
//! is blamed, and `status` says what is wrong for as long as it is.

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Write as _},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use balancer_tests::{
    folder::Folder,
    gateway::{Gateway, Status},
    lab::Topology,
    site::{Load, Options, POOL, Programs, Site, WEB},
};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

/// Four seconds of it: eight intervals of the probes.
const STEADY: [&str; 6] = ["--rate", "150", "--parallel", "50", "--connections", "600"];

#[test]
fn killed_at_random_moments_it_comes_back_with_what_it_was_told() -> Result<()> {
    let mut site = site("random")?;
    let before = site.gateway.status()?;
    let load = site.start_load(WEB, &["--rate", "100", "--parallel", "50", "--connections", "2000"])?;
    let mut random = Random::new();
    for round in 0..12 {
        let was = site.gateway.status()?.active().to_owned();
        let to = if was == "server1" { "server2" } else { "server1" };
        // Somewhere between the request, the decision, the maps, the disk and the answer.
        let patience = random.up_to(Duration::from_millis(25));
        let words = site.gateway.words(&["failover", POOL, "--to", to]);
        let mut asked = site.lab().gateway().spawn(&words)?;
        thread::sleep(patience);
        site.gateway.kill();
        let was_done = asked.wait(Duration::from_secs(20))?.success();
        // And now and then while it starts.
        if round % 3 == 0 {
            site.gateway.launch(&[])?;
            thread::sleep(random.up_to(Duration::from_millis(400)));
        }
        site.gateway.start(&[])?;
        let status = site.gateway.status()?;
        let is_right = if was_done { status.active() == to } else { [&*was, to].contains(&status.active()) };
        ensure!(is_right, "{was} -> {to}, done: {was_done}, killed after {patience:?}: {status}");
        assert_eq!(status.link_ids(), before.link_ids());
        assert_eq!(status.pool()["state"], "serving", "{status}");
    }
    flawless(load)
}

#[test]
fn a_stopped_daemon_blames_nobody_when_it_goes_on() -> Result<()> {
    let mut site = site("stopped")?;
    let told = |gateway: &Gateway| [gateway.logged("health").len(), gateway.logged("transition").len()];
    let before = told(&site.gateway);
    site.gateway.signal(Signal::STOP)?;
    flawless(site.start_load(WEB, &STEADY)?)?;
    site.gateway.signal(Signal::CONT)?;
    // As long again, for what was under way to come to its end.
    flawless(site.start_load(WEB, &STEADY)?)?;
    let status = site.gateway.status()?;
    assert_eq!((status.active(), status.are_all_up()), ("server1", true), "{status}");
    assert_eq!(told(&site.gateway), before);
    Ok(())
}

#[test]
fn a_daemon_that_is_ended_says_that_traffic_goes_on() -> Result<()> {
    let mut site = site("ended")?;
    site.gateway.terminate()?;
    let events = site.gateway.verb(&["events", "--limit", "1", "-o", "json"])?.expect(0)?.json()?;
    let last = &events["events"][0];
    assert_eq!(
        (&last["event"], &last["evidence"]),
        (&"stopped".into(), &"traffic goes on without it".into())
    );
    flawless(site.start_load(WEB, &STEADY)?)
}

#[test]
fn a_limit_of_32_descriptors_is_raised_or_said_to_be_too_low() -> Result<()> {
    let mut site = site("limit")?;
    site.gateway.start_by(&["prlimit", "--nofile=32:"])?;
    site.gateway.wait_until("nothing to be wrong", |status| is_well(status) && status.are_all_up())?;
    flawless(site.start_load(WEB, &STEADY)?)?;

    site.gateway.terminate()?;
    let mut words: Vec<_> =
        ["setpriv", "--bounding-set", "-sys_resource", "prlimit", "--nofile=32:32"].map(str::to_owned).into();
    words.extend(site.gateway.words(&["run"]));
    let said = site.gateway.run(&words)?.expect(1)?;
    assert!(said.stderr.contains("raise LimitNOFILE"), "{said:?}");
    // What was pinned is as it was.
    flawless(site.start_load(WEB, &STEADY)?)?;
    site.gateway.start(&[])?;
    assert_eq!(site.gateway.status()?.pool()["reason"], "restored");
    Ok(())
}

#[test]
fn without_descriptors_traffic_and_failover_go_on_and_status_says_why() -> Result<()> {
    let mut site = site("descriptors")?;
    let usual = limit_of(site.gateway.pid()?)?;
    set_limit(site.gateway.pid()?, "32:")?;
    let degraded = |status: &Status| status.0["degraded"].to_string().contains("limit 32");
    site.gateway.wait_until("it to be said", degraded)?;
    flawless(site.start_load(WEB, &STEADY)?)?;
    let status = site.gateway.status()?;
    assert_eq!((status.active(), status.are_all_up()), ("server1", true), "{status}");
    assert_eq!(site.gateway.logged("transition").len(), 1, "the first one alone");
    site.kill(0);
    site.gateway.wait_until("the backup to be active", |status| status.active() == "server2")?;
    set_limit(site.gateway.pid()?, &format!("{usual}:"))?;
    site.gateway.wait_until("nothing to be wrong", is_well).map(drop)
}

#[test]
fn a_disk_that_takes_nothing_stops_neither_traffic_nor_failover() -> Result<()> {
    for (label, trouble) in [("full", Trouble::Full), ("readonly", Trouble::ReadOnly)] {
        let mut site = site(label)?;
        let disk = Disk::under(&mut site, trouble)?;
        let load = site.start_load(WEB, &STEADY)?;
        let moved = site.gateway.verb(&["failover", POOL])?.expect(0)?;
        ensure!(moved.stdout.contains("a reboot may forget it"), "{label}: {moved:?}");
        let status = site.gateway.wait_until("it to be said", |status| !is_well(status))?;
        assert_eq!(status.active(), "server2", "{label}: {status}");
        flawless(load)?;
        site.kill(1);
        site.gateway.wait_until("the other one to be active", |status| status.active() == "server1")?;
        disk.mend()?;
        site.gateway.wait_until("nothing to be wrong", is_well)?;
        let saved = fs::read_to_string(disk.path().join("state.json"))?;
        ensure!(saved.contains("server1"), "{label}: it is written by itself: {saved}");
    }
    Ok(())
}

#[test]
fn with_a_full_disk_a_pool_with_hooks_is_held_until_there_is_room() -> Result<()> {
    let folder = Folder::new()?;
    let mut site = site("fullhook")?;
    let step = folder.script("step", "echo ran >> \"$folder/ran\"")?;
    let text = site.configuration(Options::default()).replace("on_backend_down = \"keep\"\n", "");
    let hook = format!("\n[[pool.hook]]\nname = \"promote\"\nwhen = \"before\"\nrun = [{step:?}]\n");
    site.gateway.configure(&(text + &hook))?;
    let disk = Disk::under(&mut site, Trouble::Full)?;
    site.kill(0);
    let held = |status: &Status| status.pool()["state"] == "held";
    site.gateway.wait_until("the hold", held)?;
    assert!(folder.lines("ran").is_empty(), "not before it is on the disk that it was started");
    disk.mend()?;
    site.gateway.wait_until("nothing to be wrong", is_well)?;
    site.gateway.verb(&["resume", POOL, "--retry"])?.expect(0)?;
    assert_eq!(folder.lines("ran").len(), 1);
    flawless(site.start_load(WEB, &["--connections", "20", "--expect", "server2"])?)
}

#[test]
fn a_log_that_nobody_reads_holds_up_nothing() -> Result<()> {
    for (label, is_stuck) in [("logstuck", true), ("logclosed", false)] {
        let mut site = site(label)?;
        let pipe = site.lab().dir().join("log");
        site.lab().gateway().run(["mkfifo", &pipe.display().to_string()])?;
        // Open for both, so that opening it waits for nobody.
        let reader = OpenOptions::new().read(true).write(true).open(&pipe)?;
        let become_daemon = format!("exec \"$@\" 2>{}", pipe.display());
        site.gateway.start_by(&["env", "BALANCER_LOG=trace", "sh", "-c", &become_daemon, "sh"])?;
        let reader = is_stuck.then_some(reader);
        site.gateway.wait_until("all servers to be up", Status::are_all_up)?;
        flawless(site.start_load(WEB, &STEADY)?)?;
        site.kill(0);
        site.gateway.wait_until("the backup to be active", |status| status.active() == "server2")?;
        let asked = Instant::now();
        site.gateway.terminate()?;
        ensure!(asked.elapsed() < Duration::from_secs(5), "{label}: it ended after {:?}", asked.elapsed());
        drop(reader);
    }
    Ok(())
}

#[test]
fn a_besieged_control_socket_holds_up_neither_an_operator_nor_traffic() -> Result<()> {
    let site = site("siege")?;
    let enough = Rlimit { current: Some(8192), maximum: getrlimit(Resource::Nofile).maximum };
    setrlimit(Resource::Nofile, enough).context("a thousand sockets")?;
    let load = site.start_load(WEB, &STEADY)?;
    let socket = site.lab().socket();
    let mut idle = Vec::new();
    for number in 0..1000 {
        let mut client = connect(&socket)?;
        client.set_nonblocking(true)?;
        // Some say nothing; some begin and don't go on; some ask for much and don't take it; some say too much.
        let words: &[u8] = match number % 4 {
            0 => b"",
            1 => b"GET /v1/sta",
            2 => b"GET /v1/status HTTP/1.1\r\nHost: balancer\r\n\r\n",
            _ => &[b'x'; 128 * 1024],
        };
        // One that is refused already is as good.
        let _ = client.write(words);
        idle.push(client);
        if number % 250 == 249 {
            let asked = Instant::now();
            let status = site.gateway.status()?;
            assert_eq!(status.active(), "server1");
            ensure!(asked.elapsed() < Duration::from_secs(10), "status took {:?}", asked.elapsed());
        }
    }
    site.gateway.verb(&["failover", POOL])?.expect(0)?;
    assert_eq!(site.gateway.status()?.active(), "server2");
    flawless(load)
}

/// As soon as there is a place in the queue of those who wait.
fn connect(socket: &PathBuf) -> Result<UnixStream> {
    balancer_tests::poll::poll_until(Duration::from_secs(20), "a place in the queue", || {
        match UnixStream::connect(socket) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Err(error),
            other => Ok(other),
        }
    })?
    .context("connect to the control socket")
}

/// What is wrong with a disk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trouble {
    Full,
    ReadOnly,
}

/// A small one for the state directory, that the daemon alone has.
struct Disk {
    daemon: u32,
    state_dir: PathBuf,
    trouble: Trouble,
}

impl Disk {
    /// Starts the site's daemon with one that has this trouble. It is read-only from the beginning, as one whose files are open
    /// doesn't become that by asking.
    fn under(site: &mut Site, trouble: Trouble) -> Result<Self> {
        let state_dir = site.lab().state_dir();
        fs::create_dir_all(&state_dir)?;
        let place = state_dir.display();
        let mut script = format!("mount -t tmpfs -o size=256k,mode=0755 tmpfs {place} && ");
        if trouble == Trouble::ReadOnly {
            script += &format!("mount -o remount,ro {place} && ");
        }
        site.gateway.start_by(&["unshare", "--mount", "sh", "-c", &(script + "exec \"$@\""), "sh"])?;
        site.gateway.wait_until("all servers to be up", Status::are_all_up)?;
        let disk = Self { daemon: site.gateway.pid()?, state_dir, trouble };
        if trouble == Trouble::Full {
            let mut filler = File::create(disk.path().join("filler"))?;
            while filler.write_all(&[0; 1024]).is_ok() {}
        }
        Ok(disk)
    }

    /// From outside of the daemon's namespace.
    fn path(&self) -> PathBuf {
        let inside = self.state_dir.strip_prefix("/").unwrap_or(&self.state_dir);
        PathBuf::from(format!("/proc/{}/root", self.daemon)).join(inside)
    }

    fn mend(&self) -> Result<()> {
        if self.trouble == Trouble::Full {
            return fs::remove_file(self.path().join("filler")).context("remove the filler");
        }
        let (daemon, state_dir) = (self.daemon.to_string(), self.state_dir.display().to_string());
        let remount = ["mount", "-o", "remount,rw", &state_dir];
        run(&[&["nsenter", "--target", &daemon, "--mount"], &remount[..]].concat()).map(drop)
    }
}

fn limit_of(pid: u32) -> Result<String> {
    let words =
        ["prlimit", "--pid", &pid.to_string(), "--nofile", "--noheadings", "--raw", "--output", "SOFT"];
    Ok(run(&words)?.trim().to_owned())
}

/// As prlimit(1) takes it; what isn't said stays.
fn set_limit(pid: u32, limit: &str) -> Result<()> {
    run(&["prlimit", "--pid", &pid.to_string(), &format!("--nofile={limit}")]).map(drop)
}

fn run(words: &[&str]) -> Result<String> {
    let output = Command::new(words[0]).args(&words[1..]).output().with_context(|| format!("{words:?}"))?;
    ensure!(output.status.success(), "{words:?}: {output:?}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Not to be predicted, and told when a test fails: the moments differ from run to run.
struct Random(u64);

impl Random {
    fn new() -> Self {
        let seed = std::process::id().into();
        println!("the seed is {seed}");
        Self(seed)
    }

    fn up_to(&mut self, longest: Duration) -> Duration {
        // Knuth's MMIX; the upper bits are the good ones.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        longest.mul_f64((self.0 >> 40) as f64 / (1_u64 << 24) as f64)
    }
}

fn is_well(status: &Status) -> bool {
    status.0["degraded"].as_array().is_some_and(Vec::is_empty)
}

fn flawless(load: Load) -> Result<()> {
    let report = load.report()?;
    ensure!(report["failed"] == 0, "{report}");
    Ok(())
}

fn site(label: &str) -> Result<Site> {
    let programs = Programs::under_test(env!("CARGO_BIN_EXE_lab-host"))?;
    Site::start(label, &Topology::two_armed(), Options::default(), &programs)
}
