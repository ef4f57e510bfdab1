//! Plain HTTP at the VIP: answered by the daemon with the way to https, from its start, over reloads, and as soon as it can.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
};

use anyhow::{Result, ensure};
use balancer_tests::{
    gateway::PATIENCE,
    lab::Topology,
    poll::poll_until,
    site::{Options, Programs, SERVER_NAME, Site, WEB},
};

/// What is added to the service `web`.
fn with(site: &Site, redirect: &str) -> String {
    let text = site.configuration(Options::default());
    text.replace("name = \"web\"\n", &format!("name = \"web\"\n{redirect}\n"))
}

fn at(site: &Site, port: u16) -> SocketAddr {
    SocketAddr::new(site.lab().vip(), port)
}

/// What the first client is answered to this request.
fn said(site: &Site, address: SocketAddr, request: &str) -> Result<String> {
    let ask = || -> Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(request.as_bytes())?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    site.lab().client().enter(ask)?
}

/// Waits until a request for `/a?b=c` by this host is answered with this URL.
fn leads(site: &Site, address: SocketAddr, host: &str, url: &str) -> Result<()> {
    let request = format!("GET /a?b=c HTTP/1.1\r\nHost: {host}\r\n\r\n");
    poll_until(PATIENCE, url, || match said(site, address, &request) {
        Ok(text) if text.contains(&format!("location: {url}\r\n")) && text.contains(" 301 ") => Ok(()),
        Ok(text) => Err(text),
        Err(error) => Err(format!("{error:#}")),
    })
}

fn prepared(label: &str) -> Result<Site> {
    let programs = Programs::under_test(env!("CARGO_BIN_EXE_lab-host"))?;
    Site::prepare(label, &Topology::two_armed(), Options::default(), &programs)
}

#[test]
fn clients_of_plain_http_are_sent_to_the_service_by_the_name_of_its_certificate() -> Result<()> {
    let mut site = prepared("redirect")?;
    let plain = at(&site, 80);
    site.gateway.configure(&with(&site, &format!("redirect_http = \"{plain}\"")))?;
    site.begin()?;
    let vip = site.lab().vip();
    let by_name = format!("https://{SERVER_NAME}/a?b=c");
    leads(&site, plain, SERVER_NAME, &by_name)?;
    leads(&site, plain, "evil.example", &by_name)?;
    leads(&site, plain, &vip.to_string(), &format!("https://{vip}/a?b=c"))?;
    let text = said(&site, plain, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nxy")?;
    ensure!(text.starts_with("HTTP/1.1 308 "), "{text}");
    let text = said(&site, plain, "nonsense\r\n\r\n")?;
    ensure!(text.starts_with("HTTP/1.1 400 "), "{text}");
    // What it leads to is served as ever.
    ensure!(site.load(WEB, &["--connections", "10", "--expect", "server1"])?["failed"] == 0);
    Ok(())
}

#[test]
fn a_reload_adds_changes_and_takes_away_and_what_can_not_be_is_refused() -> Result<()> {
    let mut site = prepared("redirectreload")?;
    site.begin()?;
    let (plain, other) = (at(&site, 80), at(&site, 8080));
    let one =
        |address: SocketAddr| format!("redirect_http = \"{address}\"\nredirect_hosts = [\"a.example\"]");
    let lines = site.gateway.reload(&with(&site, &one(plain)))?;
    ensure!(lines.iter().any(|line| line.contains("redirect_http of service web - -> ")), "{lines:?}");
    leads(&site, plain, "x", "https://a.example/a?b=c")?;
    site.gateway.reload(&with(&site, &one(plain).replace("a.example", "b.example")))?;
    leads(&site, plain, "x", "https://b.example/a?b=c")?;

    let taken = site.lab().gateway().enter(|| TcpListener::bind(other))??;
    site.gateway.configure(&with(&site, &one(other)))?;
    let refused = site.gateway.verb(&["reload"])?.expect(1)?;
    ensure!(
        refused.stderr.contains(&format!("redirect_http: {other}: Address already in use")),
        "{refused:?}"
    );
    leads(&site, plain, "x", "https://b.example/a?b=c")?;
    drop(taken);
    site.gateway.reload(&with(&site, &one(other)))?;
    leads(&site, other, "x", "https://a.example/a?b=c")?;
    site.gateway.reload(&site.configuration(Options::default()))?;
    for gone in [plain, other] {
        let reached = site.lab().client().enter(|| TcpStream::connect_timeout(&gone, PATIENCE).is_ok())?;
        ensure!(!reached, "{gone} is still answered");
    }
    let status = site.gateway.status()?;
    ensure!(status.0["daemon"]["config_generation"] == 5, "{status}");
    Ok(())
}

#[test]
fn a_port_that_somebody_has_at_the_start_is_told_and_taken_when_it_is_free() -> Result<()> {
    let mut site = prepared("redirectbusy")?;
    let plain = at(&site, 80);
    let redirect = with(&site, &format!("redirect_http = \"{plain}\""));
    site.gateway.configure(&redirect)?;
    let taken = site.lab().gateway().enter(|| TcpListener::bind(plain))??;
    site.begin()?;
    let words = format!("redirect_http {plain}: nobody answers there: Address already in use");
    let is_told =
        |status: &balancer_tests::gateway::Status| status.0["degraded"].to_string().contains(&words);
    let status = site.gateway.status()?;
    ensure!(is_told(&status), "{status}");
    // What can't be had is no news to a reload.
    site.gateway.reload(&redirect)?;
    drop(taken);
    leads(&site, plain, "x", &format!("https://{SERVER_NAME}/a?b=c"))?;
    site.gateway.wait_until("all to be well", |status| !is_told(status))?;
    Ok(())
}

#[test]
fn an_address_that_comes_later_is_answered_at_from_then_on() -> Result<()> {
    let mut site = prepared("redirectlater")?;
    let plain = SocketAddr::new("203.0.113.77".parse()?, 80);
    site.gateway.configure(&with(&site, &format!("redirect_http = \"{plain}\"")))?;
    site.begin()?;
    let status = site.gateway.status()?;
    ensure!(
        status.0["degraded"] == serde_json::json!([]),
        "a standby hasn't the address, and is well: {status}"
    );
    site.lab().gateway().run(["ip", "address", "add", "203.0.113.77/24", "dev", "wan0"])?;
    leads(&site, plain, "x", &format!("https://{SERVER_NAME}/a?b=c"))
}
