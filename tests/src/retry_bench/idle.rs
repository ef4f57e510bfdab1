//! Idle connections whose backend goes silent: from the decision to leave it until the last client knows.
//!
//! Silent, not killed: a dead process's kernel would tell the clients itself.

use std::{fmt::Write as _, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    account::unix_ms,
    gateway::{Gateway, PATIENCE, Status},
    lab::{Lab, Topology},
    site::Programs,
};

/// Of the subject.
pub(super) const NAME: &str = "balancer idle";
const PORT: u16 = 9000;
/// Of making the connections, and of their end: far beyond what is wanted of either.
const CLIENT_MAX: Duration = Duration::from_secs(120);

pub(super) struct Told {
    /// From the decision to the last client's RST.
    pub(super) took_ms: f64,
    pub(super) raw: Value,
}

pub(super) fn measure(programs: &Programs, connections: usize) -> Result<Told> {
    let lab = Lab::new("bench_idle", &Topology::two_armed())?;
    let servers = lab.backends().iter().map(|backend| {
        let listen = format!("{}:{PORT}", backend.address());
        let command = backend.command(&programs.lab_host, ["plain", "serve", "--listen", &listen]);
        let mut server = backend.spawn_command(command)?;
        server.wait_for_line("ready", PATIENCE)?;
        Ok(server)
    });
    let _servers = servers.collect::<Result<Vec<_>>>()?;
    let mut gateway = Gateway::new(&lab, &programs.balancer, &configuration(&lab)?)?;
    gateway.start(&[])?;
    gateway.wait_until("both servers to be up", Status::are_all_up)?;

    let (target, number) = (format!("{}:{PORT}", lab.vip()), connections.to_string());
    let words = ["plain", "idle", "--target", &target, "--connections", &number];
    let command = lab.client().command(&programs.lab_host, words);
    let mut client = lab.client().spawn_command(command)?;
    client.wait_for_line("ready", CLIENT_MAX)?;
    lab.backend(0).nft_silence()?;
    let said = client.finish(CLIENT_MAX)?;
    let report = said.lines().last().with_context(|| format!("the report of idle connections: {said}"))?;
    let report: Value = serde_json::from_str(report).context("the report of idle connections")?;
    ensure!(report["reset"] == connections, "not all of {connections} were told: {report}");
    let switched_ms = unix_ms(gateway.moved_to("server2")?)?;
    let last_ms = report["last_reset_unix_ms"].as_f64().context("the last RST's time")?;
    Ok(Told { took_ms: last_ms - switched_ms, raw: json!({"switched_ms": switched_ms, "clients": report}) })
}

/// With all that isn't about idle connections switched off.
fn configuration(lab: &Lab) -> Result<String> {
    let mut text = format!(
        r#"[gateway]
interfaces = ["wan0", "lan0"]
max_flows = 65536

[[pool]]
name = "idle"
on_backend_down = "reset"
passive = "off"
connect_retry = "off"
probe = {{ kind = "tcp", interval = "500ms", timeout = "500ms" }}

[[pool.service]]
name = "plain"
listen = "{}:{PORT}"
"#,
        lab.vip()
    );
    for (number, backend) in lab.backends().iter().enumerate() {
        let address = backend.address();
        write!(text, "\n[[pool.backend]]\nname = \"server{}\"\naddress = \"{address}\"\n", number + 1)?;
    }
    Ok(text)
}
