//! The demo, as a person starts it: it tells what it shows, what it says to type works, and nothing of it stays.

use std::{
    collections::BTreeSet,
    env, fs,
    io::Write,
    os::unix::{
        fs::PermissionsExt,
        process::{CommandExt, ExitStatusExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use balancer_tests::poll::poll_until;
use rustix::process::{Pid, Signal, kill_process_group};

const DEMO: &str = env!("CARGO_BIN_EXE_demo");
/// The whole demo takes 10 s on a quiet machine.
const PATIENCE: Duration = Duration::from_secs(60);
const WIDTH: usize = 100;

#[test]
fn it_runs_to_its_end_and_leaves_nothing() {
    let demo = Running::start(&[]);
    let (output, traces) = demo.finish();
    let told = text(&output.stdout);
    assert!(output.status.success(), "{}: {told}\n{}", output.status, text(&output.stderr));
    for line in [
        "kill -9 server1",
        "probe of server1 failed",
        "● server2 now serves (switched ",
        " ms after the kill)",
        "probe of server1 is good: server1 is up again",
        "kill -9 of the daemon",
        "the new daemon takes over",
        "$ balancer failback passwords",
        "● server1 serves again",
        "failed                 ",
        "All of it happened.",
    ] {
        assert!(told.contains(line), "{line:?} is missing in {told}");
    }
    let (before, after) = told.split_once("[4/6]").expect("a fourth step");
    assert!(before.contains("● server2 still serves"), "sticky: {before}");
    assert!(after.contains("without a daemon") && after.contains(", 0 failed"), "{after}");
    assert_eq!(text(&output.stderr), "", "nothing to complain about");
    traces.are_gone();
}

#[test]
fn its_output_is_plain_and_fits_in_a_terminal() {
    // The introduction, a status table and the first steps: all kinds of lines.
    let mut demo = Running::start(&[]);
    demo.wait_for("● server2 now serves");
    let told = demo.told();
    assert!(!told.contains('\x1b'), "{told}");
    let wide: Vec<_> = told.lines().filter(|line| line.chars().count() > WIDTH).collect();
    assert_eq!(wide, Vec::<&str>::new());
}

#[test]
fn a_demo_that_is_killed_in_the_middle_leaves_nothing() {
    for (signal, last_words) in [
        (Signal::KILL, "● server2 now serves"),
        // As a terminal's Ctrl-C does it: to the whole group.
        (Signal::INT, "lan0  native  program"),
        (Signal::TERM, "kill -9 of the daemon"),
    ] {
        let mut demo = Running::start(&[]);
        demo.wait_for(last_words);
        let traces = demo.traces();
        assert!(!traces.found().is_empty(), "{signal:?} came too early");
        demo.signal(signal);
        let status = demo.child.wait().unwrap();
        assert_eq!(status.signal(), Some(signal.as_raw()), "{status}");
        traces.are_gone();
    }
}

#[test]
fn a_kept_lab_can_be_looked_into_and_ended_by_what_it_says_to_type() {
    let demo = Running::start(&["--keep"]);
    let (output, traces) = demo.finish();
    // A demo that failed keeps its lab as well.
    let _end = EndsAnyway(&traces);
    let told = text(&output.stdout);
    assert!(output.status.success(), "{}: {told}\n{}", output.status, text(&output.stderr));
    let commands = commands_in(&told);
    let find = |part: &str| commands.iter().find(|command| command.contains(part)).expect(part);

    let table = typed(find(" status "));
    assert!(table.contains("serving on server1"), "{table}");
    assert_eq!(typed(find("curl")).trim(), "server1");
    assert!(typed(find("ip address")).contains("203.0.113.10"), "{commands:?}");
    typed(find("# server1"));
    poll_until(PATIENCE, "the failover of the kept lab", || {
        match typed(&format!("{} || true", find("curl"))).trim() {
            "server2" => Ok(()),
            other => Err(other.to_owned()),
        }
    })
    .unwrap();
    typed(find("/end"));
    traces.are_gone();
}

#[test]
fn the_configuration_that_it_recommends_is_valid() {
    let configuration = include_str!("../src/demo/first.toml");
    let mut check = Command::new(balancer())
        .args(["check", "--no-resolve", "--config", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    check.stdin.take().unwrap().write_all(configuration.as_bytes()).unwrap();
    let output = check.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn a_step_that_fails_is_named_with_the_end_of_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let imposter = dir.path().join("balancer");
    fs::write(&imposter, "#!/bin/sh\necho no daemon here >&2\n").unwrap();
    fs::set_permissions(&imposter, fs::Permissions::from_mode(0o755)).unwrap();
    let (output, traces) = Running::start_with(&imposter, &[]).finish();
    let complaint = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{complaint}");
    assert!(complaint.contains("step 1 of 6 (server1 serves both services)"), "{complaint}");
    assert!(complaint.contains("the daemon has ended by itself"), "{complaint}");
    assert!(complaint.contains("daemon's log:\n  no daemon here\n"), "{complaint}");
    traces.are_gone();
}

#[test]
fn without_root_there_is_one_message_that_says_so() {
    const NOBODY: u32 = 65534;
    // Where anybody may start it.
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let copy = dir.path().join("demo");
    fs::copy(DEMO, &copy).unwrap();
    let output = Command::new(copy).uid(NOBODY).gid(NOBODY).current_dir("/").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stdout), "");
    let complaint = text(&output.stderr);
    assert!(complaint.contains("needs root") && complaint.trim().lines().count() == 1, "{complaint}");
}

/// A demo of its own process group, whose output goes to files.
struct Running {
    child: Child,
    dir: tempfile::TempDir,
}

impl Running {
    fn start(arguments: &[&str]) -> Self {
        Self::start_with(&balancer(), arguments)
    }

    fn start_with(balancer: &Path, arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let file = |name: &str| fs::File::create(dir.path().join(name)).expect("a file for output");
        let child = Command::new(DEMO)
            .arg("--balancer")
            .arg(balancer)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(file("out"))
            .stderr(file("err"))
            .process_group(0)
            .spawn()
            .expect("start the demo");
        Self { child, dir }
    }

    fn told(&self) -> String {
        fs::read_to_string(self.dir.path().join("out")).expect("its stdout")
    }

    fn complained(&self) -> String {
        fs::read_to_string(self.dir.path().join("err")).expect("its stderr")
    }

    fn wait_for(&mut self, words: &str) {
        poll_until(PATIENCE, words, || {
            let ended = self.child.try_wait().expect("its status");
            let told = self.told();
            let seen = format!("{told}\n{}", self.complained());
            match ended {
                _ if told.contains(words) => Ok(Ok(())),
                Some(status) => Ok(Err(format!("{status}: {seen}"))),
                None => Err(seen),
            }
        })
        .and_then(|found| found.map_err(anyhow::Error::msg))
        .expect("the demo's words");
    }

    fn finish(mut self) -> (Output, Traces) {
        let status = poll_until(PATIENCE, "the demo's end", || {
            self.child
                .try_wait()
                .expect("its status")
                .ok_or_else(|| format!("{}\n{}", self.told(), self.complained()))
        })
        .expect("the demo's end");
        let traces = self.traces();
        let (stdout, stderr) = (self.told().into_bytes(), self.complained().into_bytes());
        (Output { status, stdout, stderr }, traces)
    }

    fn signal(&self, signal: Signal) {
        kill_process_group(Pid::from_child(&self.child), signal).expect("a signal");
    }

    /// By what this demo's belongings can be found, as far as it has told.
    fn traces(&self) -> Traces {
        let told = self.told();
        let ids = told
            .split("native  program ")
            .skip(1)
            .filter_map(|rest| rest.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok());
        Traces { prefix: format!("bl-demo-{}-", self.child.id()), programs: ids.collect() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Once reaped, the id may belong to a stranger.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Ends a kept lab when its test fails: nobody else would.
struct EndsAnyway<'a>(&'a Traces);

impl Drop for EndsAnyway<'_> {
    fn drop(&mut self) {
        let Ok(entries) = fs::read_dir("/run") else { return };
        for entry in entries.flatten() {
            let end = entry.path().join("end");
            if entry.file_name().to_string_lossy().starts_with(&self.0.prefix) && end.exists() {
                let _ = Command::new(end).status();
            }
        }
    }
}

/// What a demo leaves while it runs.
struct Traces {
    prefix: String,
    /// The kernel's ids of its XDP programs.
    programs: BTreeSet<u32>,
}

impl Traces {
    fn found(&self) -> BTreeSet<String> {
        let places = ["/run/netns", "/run", "/sys/fs/bpf"].map(fs::read_dir);
        let files = places.into_iter().flatten().flatten();
        let files = files.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut found: BTreeSet<_> = files.filter(|file| file.starts_with(&self.prefix)).collect();
        let processes = fs::read_dir("/proc").expect("/proc").filter_map(|entry| {
            let line = fs::read(entry.ok()?.path().join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            line.contains(&self.prefix).then(|| format!("process: {}", line.trim()))
        });
        found.extend(processes);
        let programs = aya::programs::loaded_programs().flatten().map(|program| program.id());
        found.extend(programs.filter(|id| self.programs.contains(id)).map(|id| format!("program {id}")));
        found
    }

    /// The guardian and the kernel need a moment.
    fn are_gone(&self) {
        poll_until(PATIENCE, "everything of the demo to go", || {
            let found = self.found();
            if found.is_empty() { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .expect("nothing left");
    }
}

fn balancer() -> PathBuf {
    env::var_os("BALANCER_BINARY").expect("BALANCER_BINARY: `cargo xtask test` sets it").into()
}

/// The indented commands between "The lab is still up" and what comes after the demo.
fn commands_in(told: &str) -> Vec<String> {
    let (_, rest) = told.split_once("The lab is still up").expect("how to look into it");
    let rest = rest.split("To use it for real").next().unwrap_or_default().replace("\\\n", " ");
    rest.lines().filter(|line| line.starts_with("  ")).map(|line| line.trim().to_owned()).collect()
}

/// Types a command into a shell, and returns what it prints.
fn typed(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).stdin(Stdio::null()).output().expect("a shell");
    assert!(output.status.success(), "{command}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
