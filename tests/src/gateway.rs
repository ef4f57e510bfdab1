//! A running balancer on the gateway of a lab, as a black box: its configuration, its daemon, its verbs and its log.
//!
//! What it says is read as any other program would read it: documents as JSON, exit codes, log lines. Deliberately not
//! here: what the configuration says (`site.rs`), and what the kernel holds (`inventory.rs`).

use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context, Error, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::{
    lab::{Host, Lab, Process},
    poll::poll_until,
};

/// For everything that a test waits for: a hundred times what it takes, because the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The binary under test. No other is looked for: a test must not pass with one that was forgotten somewhere.
///
/// # Errors
/// When `BALANCER_BINARY` names none.
pub fn binary_under_test() -> Result<PathBuf> {
    let named = env::var_os("BALANCER_BINARY").context("BALANCER_BINARY is not set: run cargo xtask test")?;
    let binary = PathBuf::from(named);
    ensure!(binary.is_file(), "BALANCER_BINARY={}: no such file; run cargo xtask test", binary.display());
    Ok(binary)
}

/// What a verb printed, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Data.
    pub stdout: String,
    /// Prose.
    pub stderr: String,
}

impl Said {
    /// # Errors
    /// When the exit code is another one; with all that was said.
    pub fn expect(self, code: i32) -> Result<Self> {
        ensure!(self.code == Some(code), "wanted exit code {code}: {self:?}");
        Ok(self)
    }

    /// # Errors
    /// When stdout isn't one JSON document.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.stdout).with_context(|| format!("JSON on stdout: {self:?}"))
    }
}

/// An instance of balancer, its daemon running or not; the daemon is killed when this is dropped.
#[derive(Debug)]
pub struct Gateway {
    host: Host,
    binary: PathBuf,
    configuration: PathBuf,
    socket: PathBuf,
    state_dir: PathBuf,
    pin_dir: PathBuf,
    daemon: Option<Process>,
}

impl Gateway {
    /// An instance in this lab, with everything in the lab's own places. Nothing runs yet.
    ///
    /// # Errors
    /// When the configuration can't be written.
    pub fn new(lab: &Lab, binary: &Path, configuration: &str) -> Result<Self> {
        let gateway = Self {
            host: lab.gateway().clone(),
            binary: binary.to_owned(),
            configuration: lab.dir().join("balancer.toml"),
            socket: lab.socket(),
            state_dir: lab.state_dir(),
            pin_dir: lab.pin_dir().to_owned(),
            daemon: None,
        };
        gateway.configure(configuration)?;
        Ok(gateway)
    }

    /// Writes the configuration, which the next start reads.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn configure(&self, configuration: &str) -> Result<()> {
        fs::write(&self.configuration, configuration)
            .with_context(|| format!("write {}", self.configuration.display()))
    }

    /// The next start is of this program.
    pub fn set_binary(&mut self, binary: &Path) {
        self.binary = binary.to_owned();
    }

    /// Where the configuration is.
    #[must_use]
    pub fn configuration(&self) -> &Path {
        &self.configuration
    }

    /// A command line of this instance: `balancer`, its places, and these words.
    #[must_use]
    pub fn words(&self, verb: &[&str]) -> Vec<String> {
        let places = [
            ("--config", &self.configuration),
            ("--socket", &self.socket),
            ("--state-dir", &self.state_dir),
            ("--pin-dir", &self.pin_dir),
        ];
        let mut words = vec![self.binary.display().to_string()];
        words.extend(verb.iter().map(|&word| word.to_owned()));
        words.extend(places.iter().flat_map(|(flag, path)| [(*flag).to_owned(), path.display().to_string()]));
        words
    }

    /// Runs a verb to its end.
    ///
    /// # Errors
    /// When it can't be started or doesn't end; its own failure is in the answer.
    pub fn verb(&self, verb: &[&str]) -> Result<Said> {
        self.run(&self.words(verb))
    }

    /// Runs any command line on the gateway to its end.
    ///
    /// # Errors
    /// As [`Gateway::verb`].
    pub fn run(&self, words: &[String]) -> Result<Said> {
        let mut process = self.host.spawn(words)?;
        let status = process.wait(PATIENCE)?;
        Ok(Said { code: status.code(), stdout: process.stdout(), stderr: process.stderr() })
    }

    /// Starts the daemon and waits until it is ready: attached to every interface.
    ///
    /// # Errors
    /// When it ends, or isn't ready in time.
    pub fn start(&mut self, arguments: &[&str]) -> Result<()> {
        self.launch(arguments)?;
        self.wait_until_ready()
    }

    /// As [`Gateway::start`], by a command that becomes the daemon: `prlimit`, `sh -c 'exec "$@"'` or the like, with what
    /// it wants before the daemon's own words.
    ///
    /// # Errors
    /// As [`Gateway::start`].
    pub fn start_by(&mut self, command: &[&str]) -> Result<()> {
        self.kill();
        let words = command.iter().map(|&word| word.to_owned());
        let words = words.chain(self.words(&["run", "--log-format", "json"]));
        self.daemon = Some(self.host.spawn(words)?);
        self.wait_until_ready()
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let pid = self.pid()?;
        poll_until(PATIENCE, "the daemon to be ready", || {
            if !self.daemon.as_mut().is_some_and(Process::is_running) {
                return Ok(Err(format!("the daemon has ended: {}", self.log())));
            }
            let status = self.status().map_err(|error| format!("{error:#}"))?;
            let is_own = status.0["daemon"]["pid"] == pid;
            if is_own && status.is_attached() { Ok(Ok(())) } else { Err(status.to_string()) }
        })?
        .map_err(Error::msg)
    }

    /// Starts the daemon and waits for nothing. One that runs already is killed.
    ///
    /// # Errors
    /// When the process can't be started.
    pub fn launch(&mut self, arguments: &[&str]) -> Result<()> {
        self.kill();
        let verb = [&["run", "--log-format", "json"], arguments].concat();
        self.daemon = Some(self.host.spawn(self.words(&verb))?);
        Ok(())
    }

    /// Ends the daemon as a crash does, by SIGKILL.
    pub fn kill(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.kill();
        }
    }

    /// Asks the daemon to end (SIGTERM) and waits until it has.
    ///
    /// # Errors
    /// When it doesn't end, or with another exit code than 0.
    pub fn terminate(&mut self) -> Result<()> {
        let Some(mut daemon) = self.daemon.take() else { bail!("the daemon does not run") };
        daemon.signal(Signal::TERM)?;
        daemon.finish(PATIENCE).map(drop)
    }

    /// Sends the daemon a signal.
    ///
    /// # Errors
    /// When it isn't running, or the kernel refuses.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.daemon.as_mut().context("the daemon does not run")?.signal(signal)
    }

    /// Writes the configuration and has the daemon take it; the lines that it says.
    ///
    /// # Errors
    /// When it can't be written, or isn't taken.
    pub fn reload(&self, configuration: &str) -> Result<Vec<String>> {
        self.configure(configuration)?;
        let said = self.verb(&["reload"])?.expect(0)?;
        Ok(said.stdout.lines().map(str::to_owned).collect())
    }

    /// The daemon's process id.
    ///
    /// # Errors
    /// When it isn't running.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.daemon.as_ref().context("the daemon does not run")?.id())
    }

    /// The lines that the running daemon has logged for this event.
    #[must_use]
    pub fn logged(&self, event: &str) -> Vec<Value> {
        let log = self.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["event"] == event).collect()
    }

    /// When the running daemon last made this backend the active one of its pool, by its log.
    ///
    /// # Errors
    /// When it never did.
    pub fn moved_to(&self, backend: &str) -> Result<SystemTime> {
        let lines = self.logged("transition");
        let line = lines.iter().rfind(|line| line["to"] == backend);
        let line = line.with_context(|| format!("no change to {backend}: {lines:?}"))?;
        let at = line["timestamp"].as_str().with_context(|| format!("the time in {line}"))?;
        humantime::parse_rfc3339(at).with_context(|| format!("the time in {line}"))
    }

    /// What `stats` tells of a backend.
    ///
    /// # Errors
    /// When no daemon answers, or it knows no such backend.
    pub fn stats_of(&self, backend: &str) -> Result<Value> {
        let stats = self.verb(&["stats", "-o", "json"])?.expect(0)?.json()?;
        let found = stats["backends"].as_array().into_iter().flatten().find(|one| one["backend"] == backend);
        found.cloned().with_context(|| format!("{backend} in {stats}"))
    }

    fn log(&self) -> String {
        self.daemon.as_ref().map(Process::stderr).unwrap_or_default()
    }

    /// The status document.
    ///
    /// # Errors
    /// When no daemon answers.
    pub fn status(&self) -> Result<Status> {
        Ok(Status(self.verb(&["status", "-o", "json"])?.expect(0)?.json()?))
    }

    /// Waits until the status is as wanted, and hands it on.
    ///
    /// # Errors
    /// After [`PATIENCE`], with the status as it was last.
    pub fn wait_until(&self, what: &str, is_so: impl Fn(&Status) -> bool) -> Result<Status> {
        poll_until(PATIENCE, what, || match self.status() {
            Ok(status) if is_so(&status) => Ok(status),
            Ok(status) => Err(status.to_string()),
            Err(error) => Err(format!("{error:#}")),
        })
    }

    /// New flows that a backend has been given so far.
    ///
    /// # Errors
    /// When no daemon answers, or it knows no such backend.
    pub fn new_flows_of(&self, backend: &str) -> Result<u64> {
        let stats = self.stats_of(backend)?;
        stats["new_flows"].as_u64().with_context(|| format!("new_flows in {stats}"))
    }
}

/// A status document, asked about its first pool unless told otherwise; displays as JSON.
#[derive(Debug, Clone, PartialEq)]
pub struct Status(pub Value);

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Status {
    /// The first pool.
    #[must_use]
    pub fn pool(&self) -> &Value {
        &self.0["pools"][0]
    }

    /// The active backend's name; empty when there is none.
    #[must_use]
    pub fn active(&self) -> &str {
        self.pool()["active"].as_str().unwrap_or_default()
    }

    /// A backend of the pool; null when it has none of this name.
    #[must_use]
    pub fn backend(&self, name: &str) -> &Value {
        named(&self.pool()["backends"], name)
    }

    /// A service of the pool; null when it has none of this name.
    #[must_use]
    pub fn service(&self, name: &str) -> &Value {
        named(&self.pool()["services"], name)
    }

    /// Whether a backend's health is this word.
    #[must_use]
    pub fn is(&self, backend: &str, health: &str) -> bool {
        self.backend(backend)["health"] == health
    }

    /// Whether all backends of all pools are up.
    #[must_use]
    pub fn are_all_up(&self) -> bool {
        let pools = self.0["pools"].as_array().into_iter().flatten();
        let mut backends = pools.flat_map(|pool| pool["backends"].as_array().into_iter().flatten());
        backends.all(|backend| backend["health"] == "up")
    }

    /// A pool of a site that has several; null when there is none of this name.
    #[must_use]
    pub fn pool_named(&self, name: &str) -> &Value {
        named(&self.0["pools"], name)
    }

    /// Why a backend is as it is: `SERVICE: REASON` in a pool of several services.
    #[must_use]
    pub fn reason(&self, backend: &str) -> &str {
        self.backend(backend)["reason"].as_str().unwrap_or_default()
    }

    /// The kernel's ids of the links, in the order of the interfaces.
    #[must_use]
    pub fn link_ids(&self) -> Vec<u64> {
        self.attachments().filter_map(|attachment| attachment["link_id"].as_u64()).collect()
    }

    fn is_attached(&self) -> bool {
        let mut attachments = self.attachments().peekable();
        attachments.peek().is_some() && attachments.all(|attachment| attachment["link_id"].is_u64())
    }

    fn attachments(&self) -> impl Iterator<Item = &Value> {
        self.0["attachments"].as_array().into_iter().flatten()
    }
}

fn named<'a>(list: &'a Value, name: &str) -> &'a Value {
    list.as_array().into_iter().flatten().find(|one| one["name"] == name).unwrap_or(&Value::Null)
}
