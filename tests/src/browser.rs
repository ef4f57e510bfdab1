//! A headless Chromium on a host of a lab, driven as WebDriver says (W3C), through `chromedriver`.
//!
//! A small client of our own, as a few of its commands are all that tests need. It ends with its guard; what was left over
//! after a panic ends with the lab, as everything does that runs on one of its hosts.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::{
    gateway::PATIENCE,
    lab::{Host, Lab, Process},
    poll::poll_until,
};

/// Of the namespace that it is started in, so always free.
const DRIVER: &str = "127.0.0.1:9515";
/// A browser's start, on a busy machine.
const START: Duration = Duration::from_secs(60);

const ARGUMENTS: [&str; 10] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1280,1000",
];

/// A browser, looked at through one tab at a time.
#[derive(Debug)]
pub struct Browser {
    host: Host,
    session: String,
    _driver: Process,
}

/// A tab of a browser.
#[derive(Debug)]
pub struct Tab(Value);

impl Browser {
    /// Starts one with an empty profile.
    ///
    /// # Errors
    /// When `chromium` or `chromedriver` is missing, or doesn't come up.
    pub fn start(lab: &Lab, host: &Host) -> Result<Self> {
        require()?;
        let port = DRIVER.rsplit(':').next().unwrap_or_default();
        let driver = host.spawn(["chromedriver", &format!("--port={port}")])?;
        poll_until(PATIENCE, "chromedriver", || {
            call(host, "GET", "/status", None, PATIENCE).map_err(|error| format!("{error:#}"))
        })?;
        let profile = lab.dir().join("browser");
        let mut arguments = ARGUMENTS.map(str::to_owned).to_vec();
        arguments.push(format!("--user-data-dir={}", profile.display()));
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let session = call(host, "POST", "/session", Some(&wanted), START).context("start chromium")?;
        let session = session["sessionId"].as_str().context("a session's id")?.to_owned();
        Ok(Self { host: host.clone(), session, _driver: driver })
    }

    /// Loads a page, and waits until it is.
    ///
    /// # Errors
    /// When it can't be loaded.
    pub fn open(&self, url: &str) -> Result<()> {
        self.command("url", &json!({ "url": url })).map(drop)
    }

    /// The tab that is looked at.
    ///
    /// # Errors
    /// When the browser has ended.
    pub fn tab(&self) -> Result<Tab> {
        let handle = call(&self.host, "GET", &format!("/session/{}/window", self.session), None, PATIENCE)?;
        Ok(Tab(handle))
    }

    /// Opens one more tab, and looks at it.
    ///
    /// # Errors
    /// When the browser refuses.
    pub fn open_tab(&self) -> Result<Tab> {
        let new = self.command("window/new", &json!({ "type": "tab" }))?;
        let tab = Tab(new["handle"].clone());
        self.look_at(&tab)?;
        Ok(tab)
    }

    /// Brings a tab before the others.
    ///
    /// # Errors
    /// When it is closed.
    pub fn look_at(&self, tab: &Tab) -> Result<()> {
        self.command("window", &json!({ "handle": tab.0 }))?;
        self.command("goog/cdp/execute", &json!({ "cmd": "Page.bringToFront", "params": {} })).map(drop)
    }

    /// Runs the body of a function in the page, and hands on what it returns.
    ///
    /// # Errors
    /// When it throws.
    pub fn run(&self, script: &str) -> Result<Value> {
        self.command("execute/sync", &json!({ "script": script, "args": [] }))
            .with_context(|| format!("run {script}"))
    }

    /// Waits until an expression is true in the page.
    ///
    /// # Errors
    /// After [`PATIENCE`], with the page's text.
    pub fn wait_until(&self, what: &str, expression: &str) -> Result<()> {
        poll_until(PATIENCE, what, || {
            let is_so =
                self.run(&format!("return Boolean({expression})")).map_err(|error| format!("{error:#}"))?;
            if is_so == true { Ok(()) } else { Err(self.text().unwrap_or_default()) }
        })
    }

    /// What a person can read.
    ///
    /// # Errors
    /// When the browser has ended.
    pub fn text(&self) -> Result<String> {
        let text = self.run("return document.body.innerText")?;
        text.as_str().map(str::to_owned).context("the page's text")
    }

    /// What stands in the console since this was asked last.
    ///
    /// # Errors
    /// When the browser has ended.
    pub fn console(&self) -> Result<Vec<Value>> {
        let log = self.command("se/log", &json!({ "type": "browser" }))?;
        log.as_array().cloned().context("the console's lines")
    }

    /// Makes the window as wide as a phone, or as it was.
    ///
    /// # Errors
    /// When the browser refuses.
    pub fn be_a_phone(&self, is_one: bool) -> Result<()> {
        let (name, parameters) = if is_one {
            let phone = json!({ "width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": true });
            ("Emulation.setDeviceMetricsOverride", phone)
        } else {
            ("Emulation.clearDeviceMetricsOverride", json!({}))
        };
        self.command("goog/cdp/execute", &json!({ "cmd": name, "params": parameters })).map(drop)
    }

    fn command(&self, name: &str, body: &Value) -> Result<Value> {
        call(&self.host, "POST", &format!("/session/{}/{name}", self.session), Some(body), PATIENCE)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It may have ended before.
        let _ = call(&self.host, "DELETE", &format!("/session/{}", self.session), None, PATIENCE);
    }
}

/// Fails with what is missing: else only a log of `nsenter` would tell.
fn require() -> Result<()> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    for program in ["chromium", "chromedriver"] {
        let mut folders = std::env::split_paths(&folders);
        ensure!(
            folders.any(|folder| is_there(&folder.join(program))),
            "{program} is missing: run cargo xtask setup"
        );
    }
    Ok(())
}

fn is_there(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|found| found.is_file())
}

/// One command, and the value that it is answered with.
fn call(host: &Host, method: &str, path: &str, body: Option<&Value>, patience: Duration) -> Result<Value> {
    let body = body.map(Value::to_string).unwrap_or_default();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {DRIVER}\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let exchange = || -> Result<(String, Vec<u8>)> {
        let stream = TcpStream::connect(DRIVER).context("connect to chromedriver")?;
        stream.set_read_timeout(Some(patience))?;
        (&stream).write_all(request.as_bytes())?;
        answer_of(stream).with_context(|| format!("{method} {path}"))
    };
    let (head, body) = host.enter(exchange)??;
    let document: Value =
        serde_json::from_slice(&body).with_context(|| format!("{method} {path}: {head}"))?;
    if !head.starts_with("HTTP/1.1 200") {
        bail!("{method} {path}: {}", document["value"]["message"]);
    }
    Ok(document["value"].clone())
}

/// Head and body; the driver keeps connections open whatever it is told.
fn answer_of(stream: TcpStream) -> Result<(String, Vec<u8>)> {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        ensure!(stream.read_line(&mut head)? > 0, "it broke off after {head:?}");
    }
    let lines = head.lines().filter_map(|line| line.split_once(':'));
    let mut length = lines.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length = length.next().with_context(|| format!("a length in {head:?}"))?.1.trim().parse()?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((head, body))
}
