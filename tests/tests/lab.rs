//! The lab itself: its hosts reach whom they should and nobody else, and nothing of it outlives its owner.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, BufRead, BufReader},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use balancer_tests::{
    capture::{Capture, Direction},
    certificates::{Authority, ServerFiles, Validity},
    lab::{Family, Host, Lab, Process, Topology},
    poll::poll_until,
};
use serde_json::Value;

const LAB_HOST: &str = env!("CARGO_BIN_EXE_lab-host");
const SERVER_NAME: &str = "pw.example.org";
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn the_kernel_forwards_nothing_between_the_gateways_sides() {
    let lab = Lab::new("two", &Topology::two_armed().dual_stack()).unwrap();
    assert_eq!(lab.gateway().sysctl("net/ipv4/ip_forward").unwrap(), "0");
    assert_eq!(lab.gateway().sysctl("net/ipv6/conf/all/forwarding").unwrap(), "0");
    let of = |host: &Host, family: usize| host.interfaces()[0].addresses[family];
    for (family, &vip) in lab.vips().iter().enumerate() {
        reaches(lab.client(), vip).unwrap();
        reaches(lab.client(), of(lab.gateway(), family)).unwrap();
        for backend in lab.backends().iter().map(|backend| of(backend, family)) {
            reaches(lab.gateway(), backend).unwrap();
            assert!(reaches(lab.client(), backend).is_err(), "the client reaches {backend}");
        }
        reaches(lab.backend(0), of(lab.backend(1), family)).unwrap();
    }
}

#[test]
fn routers_stand_between_the_gateway_and_its_clients_and_backends() {
    let topology = Topology::two_armed().dual_stack().client_router().backend_router();
    let lab = Lab::new("routed", &topology).unwrap();
    let of = |host: &Host, family: usize| host.interfaces()[0].addresses[family];
    for (family, &vip) in lab.vips().iter().enumerate() {
        reaches(lab.client(), vip).unwrap();
        reaches(lab.gateway(), of(lab.client(), family)).unwrap();
        reaches(lab.gateway(), of(lab.backend(0), family)).unwrap();
        reaches(lab.backend(1), vip).unwrap();
        assert!(reaches(lab.client(), of(lab.backend(0), family)).is_err());
    }
}

#[test]
fn every_arm_has_its_backends_and_clients_may_stand_beside_them() {
    let topology = Topology::three_armed().family(Family::V6).lan_clients(1).snat_addresses(2).mtu(9000);
    let lab = Lab::new("three", &topology).unwrap();
    let [_, beside] = lab.clients() else { panic!("two clients wanted") };
    for backend in lab.backends() {
        reaches(lab.gateway(), backend.address()).unwrap();
    }
    reaches(beside, lab.backend(0).address()).unwrap();
    reaches(beside, lab.vip()).unwrap();
    assert!(reaches(beside, lab.backend(1).address()).is_err(), "another arm's subnet");
    let [first, second] = lab.snat_addresses() else { panic!("two SNAT addresses wanted") };
    reaches(lab.backend(0), *first).unwrap();
    reaches(lab.backend(0), *second).unwrap();
}

#[test]
fn several_clients_share_the_wan_side() {
    let lab = Lab::new("wan", &Topology::two_armed().clients(2)).unwrap();
    let [first, second] = lab.clients() else { panic!("two clients wanted") };
    assert_ne!(first.address(), second.address());
    reaches(first, lab.vip()).unwrap();
    reaches(second, lab.vip()).unwrap();
    reaches(first, second.address()).unwrap();
}

#[test]
fn one_armed_hosts_reach_each_other_over_tls() {
    for family in [Family::V4, Family::V6] {
        let lab = Lab::new("one", &Topology::one_armed().family(family)).unwrap();
        reaches(lab.client(), lab.vip()).unwrap();
        let (authority, files) = certificates(&lab).unwrap();
        let _server = serve(lab.backend(0), &files, "server1").unwrap();
        let report =
            load(lab.client(), lab.backend(0).address(), &authority, &["--expect", "server1"]).unwrap();
        assert_eq!(report["ok"], 100, "{report}");
    }
}

#[test]
fn five_thousand_connections_fifty_at_a_time_are_comfortable_and_have_good_checksums() {
    let lab = Lab::new("load", &Topology::two_armed()).unwrap();
    let (authority, files) = certificates(&lab).unwrap();
    let _server = serve(lab.backend(0), &files, "server1").unwrap();
    let capture = Capture::start(lab.backend(0), "eth0").unwrap();
    let report = load(
        lab.gateway(),
        lab.backend(0).address(),
        &authority,
        &["--connections", "5000", "--parallel", "50"],
    )
    .unwrap();
    let seen = capture.stop().unwrap();
    assert_eq!((&report["ok"], &report["failed"]), (&5000.into(), &0.into()), "{report}");
    assert_eq!(report["by_name"]["server1"], 5000, "{report}");
    assert_eq!(seen.bad_checksums, Vec::<String>::new());
    assert_eq!(seen.missed, 0, "{seen:?}");
    // The server's kernel may send RSTs: a client's FIN, repeated as a tail loss probe, can overtake the last ACK. Then
    // nothing keeps the client's port from being used once more: so SYNs are counted, not pairs of ends.
    let syns: u64 = seen.syns.values().sum();
    assert!(syns >= 2 * 5000, "a SYN and a SYN-ACK for each, and there were {syns}");
    let reset_by_client = seen.rsts.keys().find(|path| path.direction == Direction::In);
    assert_eq!(reset_by_client, None, "the client closes properly");
    assert!(seen.checked > 5000, "{seen:?}");
    assert_eq!(lab.backend(0).snmp("Tcp", "InCsumErrors").unwrap(), 0);
}

#[test]
fn bad_certificates_and_wrong_names_are_told_apart_from_good_ones() {
    let lab = Lab::new("certs", &Topology::one_armed()).unwrap();
    let authority = Authority::new(lab.dir(), "ca").unwrap();
    let cases = [
        ("expired", SERVER_NAME, Validity::Expired, "certificate expired"),
        ("early", SERVER_NAME, Validity::NotYet, "certificate not valid yet"),
        ("named", "other.example.org", Validity::Now, "not valid for name"),
    ];
    for (file, name, validity, complaint) in cases {
        let files = authority.issue(file, &[name], validity).unwrap();
        let _server = serve(lab.backend(0), &files, file).unwrap();
        let report =
            load(lab.client(), lab.backend(0).address(), &authority, &["--connections", "3"]).unwrap();
        assert_eq!(report["failed"], 3, "{file}: {report}");
        assert!(report["errors"].to_string().contains(complaint), "{file}: {report}");
    }
}

#[test]
fn a_silenced_host_answers_nobody_until_it_is_restored() {
    let lab = Lab::new("silence", &Topology::one_armed()).unwrap();
    let backend = lab.backend(0);
    reaches(lab.client(), backend.address()).unwrap();
    backend.nft_silence().unwrap();
    backend.nft_silence().unwrap();
    assert!(reaches(lab.client(), backend.address()).is_err());
    reaches(backend, Ipv4Addr::LOCALHOST.into()).expect("loopback is no cable");
    backend.nft_restore().unwrap();
    backend.nft_restore().unwrap();
    poll_until(PATIENCE, "the backend's return", || reaches(lab.client(), backend.address())).unwrap();
}

#[test]
fn a_watcher_sees_the_server_go_and_come_back() {
    let lab = Lab::new("watch", &Topology::one_armed()).unwrap();
    let (authority, files) = certificates(&lab).unwrap();
    let server = serve(lab.backend(0), &files, "server1").unwrap();
    let target = SocketAddr::new(lab.backend(0).address(), 443).to_string();
    let ca_file = authority.ca_file().display().to_string();
    let watcher = lab
        .client()
        .spawn([
            LAB_HOST,
            "watch",
            "--target",
            &target,
            "--sni",
            SERVER_NAME,
            "--ca",
            &ca_file,
            "--interval",
            "20ms",
        ])
        .unwrap();
    wait_for_attempt(&watcher, "an answer", 0, |attempt| attempt["name"] == "server1").unwrap();
    server.kill();
    let gone = attempts(&watcher).len();
    wait_for_attempt(&watcher, "a refusal", gone, |attempt| attempt["error"].to_string().contains("refused"))
        .unwrap();
    let back = attempts(&watcher).len();
    let _server = serve(lab.backend(0), &files, "server1").unwrap();
    wait_for_attempt(&watcher, "an answer again", back, |attempt| attempt["name"] == "server1").unwrap();
}

#[test]
fn a_closure_runs_in_the_hosts_network_and_only_there() {
    let lab = Lab::new("enter", &Topology::one_armed()).unwrap();
    let address = SocketAddr::from((lab.backend(0).address(), 7777));
    let listener = lab.backend(0).enter(|| TcpListener::bind(address)).unwrap().unwrap();
    assert!(TcpListener::bind(address).is_err(), "this thread has moved too");
    lab.client().enter(|| TcpStream::connect_timeout(&address, PATIENCE)).unwrap().unwrap();
    drop(listener);
}

#[test]
fn two_labs_at_once_do_not_see_each_other() {
    let one = Lab::new("twin", &Topology::two_armed()).unwrap();
    let other = Lab::new("twin", &Topology::two_armed()).unwrap();
    assert_ne!(one.name(), other.name());
    one.backend(0).nft_silence().unwrap();
    reaches(other.gateway(), other.backend(0).address()).unwrap();
    let name = one.name().to_owned();
    drop(one);
    assert_eq!(traces_of(&name), BTreeSet::new());
    reaches(other.gateway(), other.backend(0).address()).unwrap();
}

#[test]
fn a_dropped_lab_leaves_nothing_not_even_forgotten_processes() {
    let lab = Lab::new("drop", &Topology::two_armed()).unwrap();
    let name = lab.name().to_owned();
    let forgotten = lab.client().spawn(["sleep", "1000"]).unwrap();
    let pid = forgotten.id();
    poll_until(PATIENCE, "the process in its namespace", || {
        let pids = lab.client().run(["ip", "netns", "pids", lab.client().namespace()]).unwrap().stdout;
        let pids = String::from_utf8_lossy(&pids).into_owned();
        if pids.lines().any(|line| line == pid.to_string()) { Ok(()) } else { Err(pids) }
    })
    .unwrap();
    forgotten.leave_running();
    drop(lab);
    assert_eq!(traces_of(&name), BTreeSet::new());
    assert!(!lives(pid), "the forgotten process {pid} still runs");
}

#[test]
fn an_owner_that_was_killed_leaves_nothing() {
    let (mut owner, name) = owner_of_a_lab("killed").unwrap();
    let processes: Vec<_> = ["client0", "gateway", "backend1"]
        .map(|role| {
            Command::new("nsenter")
                .arg(format!("--net=/run/netns/{name}-{role}"))
                // Deaf to everything that can be ignored, and with a child.
                .args(["sh", "-c", "trap '' HUP INT TERM; sleep 1000; :"])
                .spawn()
                .unwrap()
        })
        .into();
    owner.kill().unwrap();
    owner.wait().unwrap();
    poll_until(PATIENCE, "the guardian to end the lab", || {
        let traces = traces_of(&name);
        if traces.is_empty() { Ok(()) } else { Err(format!("{traces:?}")) }
    })
    .unwrap();
    for mut process in processes {
        poll_until(PATIENCE, "the end of a process in the lab", || process.try_wait().unwrap().ok_or("runs"))
            .unwrap();
    }
}

#[test]
fn a_sweep_ends_what_owner_and_guardian_left_and_spares_the_living() {
    let living = Lab::new("living", &Topology::one_armed()).unwrap();
    let (mut owner, name) = owner_of_a_lab("orphan").unwrap();
    let guardian = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .find(|pid| {
            let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words = String::from_utf8_lossy(&words).into_owned();
            words.contains("\0lab-guardian\0") && words.contains(&name)
        })
        .expect("the guardian's process");
    let guardian = rustix::process::Pid::from_raw(guardian).unwrap();
    rustix::process::kill_process(guardian, rustix::process::Signal::KILL).unwrap();
    owner.kill().unwrap();
    owner.wait().unwrap();

    let sweeps = [(); 2].map(|()| thread::spawn(Lab::sweep_leftovers));
    let ended: Vec<_> = sweeps.into_iter().flat_map(|sweep| sweep.join().unwrap().unwrap()).collect();
    assert!(ended.contains(&name), "{ended:?}");
    assert_eq!(traces_of(&name), BTreeSet::new());
    reaches(living.client(), living.vip()).unwrap();
}

#[test]
fn a_kept_lab_stays_until_it_is_ended() {
    let lab = Lab::new("kept", &Topology::one_armed()).unwrap();
    let name = lab.name().to_owned();
    let sleeper = lab.client().spawn(["sleep", "1000"]).unwrap();
    let pid = sleeper.id();
    sleeper.leave_running();
    let kept = lab.keep().unwrap();
    assert_eq!(kept.namespaces.len(), 4, "{kept:?}");
    assert!(!traces_of(&name).is_empty());
    assert!(lives(pid));
    assert!(Command::new(&kept.end_command).status().unwrap().success());
    assert_eq!(traces_of(&name), BTreeSet::new());
    assert!(!lives(pid));
}

/// Whether packets get there and back: a refused connection is an answer too.
fn reaches(from: &Host, to: IpAddr) -> Result<()> {
    const DISCARD: u16 = 9;
    let connected =
        from.enter(|| TcpStream::connect_timeout(&(to, DISCARD).into(), Duration::from_secs(1)))?;
    match connected {
        Err(error) if error.kind() != io::ErrorKind::ConnectionRefused => {
            Err(error).with_context(|| format!("{} to {to}", from.role()))
        }
        _ => Ok(()),
    }
}

fn certificates(lab: &Lab) -> Result<(Authority, ServerFiles)> {
    let authority = Authority::new(lab.dir(), "ca")?;
    let files = authority.issue("server", &[SERVER_NAME], Validity::Now)?;
    Ok((authority, files))
}

fn serve(host: &Host, files: &ServerFiles, name: &str) -> Result<Process> {
    let listen = SocketAddr::new(host.address(), 443).to_string();
    let (cert, key) = (files.certificate.display().to_string(), files.key.display().to_string());
    let mut server =
        host.spawn([LAB_HOST, "serve", "--listen", &listen, "--cert", &cert, "--key", &key, "--name", name])?;
    server.wait_for_line("ready", PATIENCE)?;
    Ok(server)
}

/// The report of `lab-host load`, whose exit code has to agree with it.
fn load(host: &Host, to: IpAddr, authority: &Authority, more: &[&str]) -> Result<Value> {
    let target = SocketAddr::new(to, 443).to_string();
    let ca_file = authority.ca_file().display().to_string();
    let words = [LAB_HOST, "load", "--target", &target, "--sni", SERVER_NAME, "--ca", &ca_file];
    let mut loader = host.spawn(words.iter().chain(more))?;
    let status = loader.wait(Duration::from_secs(60))?;
    let report: Value = serde_json::from_str(&loader.stdout())
        .with_context(|| format!("report of load: {:?} {:?}", loader.stdout(), loader.stderr()))?;
    assert_eq!(status.success(), report["failed"] == 0, "{status}: {report}");
    Ok(report)
}

fn attempts(watcher: &Process) -> Vec<Value> {
    // The last line may be half written.
    watcher.stdout().lines().map_while(|line| serde_json::from_str(line).ok()).collect()
}

fn wait_for_attempt(
    watcher: &Process,
    what: &str,
    after: usize,
    is_wanted: impl Fn(&Value) -> bool,
) -> Result<()> {
    poll_until(PATIENCE, what, || {
        let attempts = attempts(watcher);
        if attempts.iter().skip(after).any(&is_wanted) {
            Ok(())
        } else {
            Err(format!("{:?}", attempts.last()))
        }
    })
}

/// A process of its own that owns a lab, and the lab's name.
fn owner_of_a_lab(label: &str) -> Result<(Child, String)> {
    let mut owner = Command::new(LAB_HOST)
        .args(["lab", "two-armed", "--label", label])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let lines = BufReader::new(owner.stdout.take().context("the owner's stdout")?).lines();
    let told = lines.take_while(|line| line.as_ref().map_or(true, |line| line != "ready"));
    let name = told.collect::<Result<Vec<_>, _>>()?.into_iter().next().context("the lab's name")?;
    assert!(Path::new("/run/netns").join(format!("{name}-gateway")).exists(), "{name}");
    Ok((owner, name))
}

/// Files by which a lab could be found.
fn traces_of(name: &str) -> BTreeSet<String> {
    let files =
        ["/run/netns", "/run", "/sys/fs/bpf"].into_iter().filter_map(|place| fs::read_dir(place).ok());
    let names = files.flatten().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|file| file == name || file.starts_with(&format!("{name}-"))).collect()
}

/// Whether a process runs; a zombie doesn't.
fn lives(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}
