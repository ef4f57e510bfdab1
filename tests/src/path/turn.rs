//! A subject's turn: it is set up on the gateway, and afterwards nothing of it is left. An XDP program on the interfaces
//! costs everybody a little, so nobody runs while another one is measured.

use std::{thread, time::Duration};

use anyhow::{Context, Result, anyhow};

use crate::{
    gateway::{Gateway, PATIENCE, Status},
    lab::{Host, Process},
    plain::echoes,
    poll::poll_until,
};

use super::{stand::Stand, subject::Subject};

/// Proxies need many ports for the connections that they make themselves; what balancer sends from is outside of this.
const PROXY_PORTS: &str = "1024 65535";
/// The kernel's default.
const ORDINARY_PORTS: &str = "32768 60999";
const RULES: &str = "ip path";

/// Who is set up; ends when [`Turn::end`] is called, or with the lab.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    stand: &'a Stand,
    running: Running,
}

#[derive(Debug)]
enum Running {
    Balancer(Box<Gateway>),
    Routing,
    Nft,
    Process(Process),
    Nothing,
}

impl<'a> Turn<'a> {
    /// Returns when a connection through it has been answered.
    pub(super) fn start(stand: &'a Stand, subject: Subject) -> Result<Self> {
        let mut running = start(stand, subject).with_context(|| format!("start {}", subject.name()))?;
        if subject.takes_connections() {
            let target = subject.target(stand.lab());
            let what = format!("an answer through {}", subject.name());
            let client = stand.lab().client();
            poll_until(PATIENCE, &what, || {
                if let Running::Process(process) = &mut running
                    && !process.is_running()
                {
                    return Ok(Err(anyhow!("{} has ended: {}", subject.name(), process.stderr())));
                }
                let answer = client.enter(|| echoes(target, Duration::from_secs(1)));
                answer.and_then(|answer| answer).map(Ok).map_err(|error| format!("{error:#}"))
            })??;
        }
        Ok(Self { stand, running })
    }

    /// Leaves the gateway as it was.
    pub(super) fn end(self) -> Result<()> {
        let gateway = self.stand.lab().gateway();
        match self.running {
            Running::Balancer(mut balancer) => {
                balancer.terminate()?;
                balancer.verb(&["detach"])?.expect(0)?;
            }
            Running::Routing => forward(gateway, false)?,
            Running::Nft => {
                gateway.run(format!("nft delete table {RULES}").split(' '))?;
                forward(gateway, false)?;
            }
            Running::Process(process) => process.kill(),
            Running::Nothing => {}
        }
        gateway.set_sysctl("net/ipv4/ip_local_port_range", ORDINARY_PORTS)?;
        // What the dead still had to say is not the next one's.
        thread::sleep(Duration::from_millis(50));
        Ok(())
    }
}

fn start(stand: &Stand, subject: Subject) -> Result<Running> {
    let (lab, programs) = (stand.lab(), stand.programs());
    let gateway = lab.gateway();
    match subject {
        Subject::Balancer => {
            let configuration = balancer_configuration(stand);
            let mut balancer = Gateway::new(lab, &programs.balancer, &configuration)?;
            balancer.start(&[])?;
            balancer.wait_until("the backend to be up", Status::are_all_up)?;
            Ok(Running::Balancer(Box::new(balancer)))
        }
        Subject::Routing => forward(gateway, true).map(|()| Running::Routing),
        Subject::Nft => {
            forward(gateway, true)?;
            gateway.run(["nft", &nft_rules(stand)])?;
            Ok(Running::Nft)
        }
        Subject::Nginx => {
            gateway.set_sysctl("net/ipv4/ip_local_port_range", PROXY_PORTS)?;
            programs.peers.nginx(lab, &nginx_configuration(stand)).map(Running::Process)
        }
        Subject::Haproxy => {
            gateway.set_sysctl("net/ipv4/ip_local_port_range", PROXY_PORTS)?;
            programs.peers.haproxy(lab, &haproxy_configuration(stand)).map(Running::Process)
        }
        Subject::Redirect => {
            let words = ["redirect", "--from", "wan0", "--to", "lan0"];
            stand.serve_programs(gateway, &words).map(Running::Process)
        }
        Subject::Direct => Ok(Running::Nothing),
    }
}

fn forward(gateway: &Host, does: bool) -> Result<()> {
    gateway.set_sysctl("net/ipv4/ip_forward", if does { "1" } else { "0" })
}

fn balancer_configuration(stand: &Stand) -> String {
    let (target, backend) = (Subject::Balancer.target(stand.lab()), Subject::Balancer.backend(stand.lab()));
    format!(
        r#"[gateway]
interfaces = ["wan0", "lan0"]

[[pool]]
name = "path"
forwarding = "snat"
on_backend_down = "keep"
passive = "off"
connect_retry = "off"

[pool.probe]
kind = "tcp"

[[pool.service]]
name = "plain"
listen = "{target}"
backend_port = {}

[[pool.backend]]
name = "server1"
address = "{}"
"#,
        backend.port(),
        backend.ip()
    )
}

fn nft_rules(stand: &Stand) -> String {
    let (target, backend) = (Subject::Nft.target(stand.lab()), Subject::Nft.backend(stand.lab()));
    let (vip, port) = (target.ip(), target.port());
    format!(
        "add table {RULES}
         add chain {RULES} in {{ type nat hook prerouting priority dstnat; }}
         add chain {RULES} out {{ type nat hook postrouting priority srcnat; }}
         add rule {RULES} in ip daddr {vip} tcp dport {port} dnat to {backend}
         add rule {RULES} out ip daddr {} tcp dport {} masquerade",
        backend.ip(),
        backend.port()
    )
}

fn nginx_configuration(stand: &Stand) -> String {
    let (target, backend) = (Subject::Nginx.target(stand.lab()), Subject::Nginx.backend(stand.lab()));
    format!(
        "worker_processes {};
worker_rlimit_nofile 16384;
events {{
    worker_connections 4096;
    multi_accept on;
}}
stream {{
    server {{
        listen {target} reuseport backlog=4096;
        tcp_nodelay on;
        proxy_buffer_size 64k;
        proxy_pass {backend};
    }}
}}
",
        stand.cores()
    )
}

fn haproxy_configuration(stand: &Stand) -> String {
    let (target, backend) = (Subject::Haproxy.target(stand.lab()), Subject::Haproxy.backend(stand.lab()));
    format!(
        "global
    nbthread {}
    maxconn 4096
    tune.bufsize 65536
defaults
    mode tcp
    backlog 4096
    timeout connect 5s
    timeout client 60s
    timeout server 60s
listen path
    bind {target} shards by-thread
    server server1 {backend}
",
        stand.cores()
    )
}
