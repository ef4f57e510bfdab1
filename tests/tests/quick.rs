//! How long an operator waits: `status` with a hundred pools, `flows` with two hundred thousand of them; and that probes wait for
//! neither. The best of some tries counts, as the machine has other things to do; it is held against what was promised by `cargo
//! xtask soak` only, on a machine that has nothing else to do.

use std::{
    fmt::Write as _,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream},
    os::fd::AsRawFd as _,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use balancer_tests::{
    gateway::{Gateway, PATIENCE, binary_under_test},
    lab::{Lab, Topology},
    packet::Packet,
    soak::Scale,
};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
};

const POOLS: usize = 100;
const FLOWS: usize = 200_000;
/// A burst may be more than an interface's ring takes.
const OPENED: u32 = 204_000;
/// Of the service that is flooded, and of the port on the server that answers nothing.
const PORT: u16 = 7;
const METRICS: u16 = 9464;

#[test]
fn the_status_of_a_hundred_pools_is_there_at_once() -> Result<()> {
    let lab = Lab::new("quick_status", &Topology::two_armed())?;
    let mut gateway = Gateway::new(&lab, &binary_under_test()?, &many_pools(&lab))?;
    gateway.start(&[])?;
    let best = best_of(20, || {
        let status = gateway.status()?;
        ensure!(status.0["pools"].as_array().is_some_and(|pools| pools.len() == POOLS), "{status}");
        Ok(())
    })?;
    println!("status of {POOLS} pools: {best:?}, the start of the program included");
    ensure!(!Scale::wanted().is_full || best < Duration::from_millis(20), "{best:?}");
    Ok(())
}

#[test]
fn two_hundred_thousand_flows_are_listed_and_no_probe_waits_for_that() -> Result<()> {
    let lab = Lab::new("quick_flows", &Topology::two_armed())?;
    let mut gateway = Gateway::new(&lab, &binary_under_test()?, &flooded(&lab))?;
    // Its own stack would refuse what nobody listens for.
    lab.backends()[0].run(["nft", "add table inet quick; add chain inet quick in { type filter hook input priority 0; }; add rule inet quick in tcp dport 7 drop"])?;
    gateway.start(&[])?;
    let idle = probes_a_second(&lab, || {
        std::thread::sleep(Duration::from_secs(2));
        Ok(())
    })?;
    let mut best = Duration::MAX;
    for _ in 0..3 {
        open(&lab)?;
        let started = Instant::now();
        let said = gateway.verb(&["flows", "-o", "json"])?.expect(0)?;
        let took = started.elapsed();
        let listed = said.stdout.matches("\"half_open\"").count();
        ensure!(listed >= FLOWS, "{listed} flows");
        println!("{listed} flows: {took:?}, {} MB", said.stdout.len() / 1_000_000);
        best = best.min(took);
    }
    let busy = probes_a_second(&lab, || {
        let until = Instant::now() + Duration::from_secs(2);
        while Instant::now() < until {
            gateway.verb(&["flows", "-o", "json"])?.expect(0)?;
        }
        Ok(())
    })?;
    println!("probes a second: {idle:.1} without a listing, {busy:.1} beside listings");
    let (most, least) = if Scale::wanted().is_full { (Duration::from_secs(2), 0.8) } else { (PATIENCE, 0.2) };
    ensure!(best < most, "{best:?}");
    ensure!(busy > least * idle, "{busy} probes a second beside listings, {idle} without");
    Ok(())
}

fn best_of(tries: usize, mut what: impl FnMut() -> Result<()>) -> Result<Duration> {
    let mut best = Duration::MAX;
    for _ in 0..tries {
        let started = Instant::now();
        what()?;
        best = best.min(started.elapsed());
    }
    Ok(best)
}

fn head(lab: &Lab, max_half_open: u32) -> String {
    let names = lab.gateway().interfaces().iter().map(|interface| format!("\"{}\"", interface.name));
    let names = names.collect::<Vec<_>>().join(", ");
    format!(
        "[gateway]\ninterfaces = [{names}]\nmax_half_open = {max_half_open}\n[http]\nlisten = \"127.0.0.1:{METRICS}\"\n"
    )
}

fn many_pools(lab: &Lab) -> String {
    let mut text = head(lab, 65_536);
    let (vip, backends) = (lab.vips()[0], lab.backends());
    for pool in 0..POOLS {
        let _ = write!(
            text,
            "[[pool]]\nname = \"pool{pool}\"\npassive = \"off\"\n[pool.probe]\nkind = \"none\"\n\
             [[pool.service]]\nname = \"s\"\nlisten = \"{vip}:{}\"\n",
            20_000 + pool
        );
        for (index, backend) in backends.iter().take(2).enumerate() {
            let _ =
                write!(text, "[[pool.backend]]\nname = \"b{index}\"\naddress = \"{}\"\n", backend.address());
        }
    }
    text
}

/// One pool to be flooded, whose server answers nothing, and one that is probed ten times a second: what is refused is an
/// answer to a probe, too.
fn flooded(lab: &Lab) -> String {
    let (vip, backends) = (lab.vips()[0], lab.backends());
    format!(
        "{}[[pool]]\nname = \"flooded\"\nforwarding = \"dnat\"\npassive = \"off\"\nconnect_retry = \"off\"\n\
         [pool.probe]\nkind = \"none\"\n[[pool.service]]\nname = \"s\"\nlisten = \"{vip}:{PORT}\"\n\
         [[pool.backend]]\nname = \"b\"\naddress = \"{}\"\n\
         [[pool]]\nname = \"probed\"\npassive = \"off\"\n[pool.probe]\nkind = \"tcp\"\ninterval = \"100ms\"\n\
         fast_interval = \"100ms\"\n[[pool.service]]\nname = \"s\"\nlisten = \"{vip}:8\"\n\
         [[pool.backend]]\nname = \"b\"\naddress = \"{}\"\nmax_fails = 0\n",
        head(lab, 400_000),
        backends[0].address(),
        backends[1].address(),
    )
}

/// SYNs of as many clients as that, from the client's host.
fn open(lab: &Lab) -> Result<()> {
    let IpAddr::V4(vip) = lab.vips()[0] else { anyhow::bail!("an IPv4 lab") };
    let IpAddr::V4(client) = lab.client().address() else { anyhow::bail!("an IPv4 lab") };
    let [a, b, c, _] = client.octets();
    lab.client().enter(|| -> Result<()> {
        let raw = socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), SockProtocol::Raw)?;
        let to = SockaddrIn::from(SocketAddrV4::new(vip, 0));
        for number in 0..OPENED {
            let source = Ipv4Addr::new(a, b, c, 200 + (number / 51_000) as u8);
            let source = SocketAddr::from((source, 10_000 + (number % 51_000) as u16));
            let syn = Packet::new(source, SocketAddr::from((vip, PORT))).syn().to_packet();
            sendto(raw.as_raw_fd(), &syn, &to, MsgFlags::empty())?;
        }
        Ok(())
    })?
}

/// How many probes end in a second of what is done meanwhile.
fn probes_a_second(lab: &Lab, meanwhile: impl FnOnce() -> Result<()>) -> Result<f64> {
    let (before, started) = (probes(lab)?, Instant::now());
    meanwhile()?;
    let (after, took) = (probes(lab)?, started.elapsed());
    Ok((after - before) / took.as_secs_f64())
}

fn probes(lab: &Lab) -> Result<f64> {
    let metrics = lab.gateway().enter(|| -> Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", METRICS))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    })??;
    let counts = metrics.lines().filter(|line| line.starts_with("balancer_probe_seconds_count"));
    let count: f64 = counts.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
    ensure!(count > 0.0 || metrics.contains("200 OK"), "{metrics}");
    Ok(count)
}
