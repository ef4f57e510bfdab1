//! Runs one virtual machine, and reports what it says.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::Program;
use super::console::{Console, Heard};
use super::kernel::Kernel;
use crate::test::Tally;

/// How long a machine is listened to.
#[derive(Clone, Copy)]
struct Patience {
    /// Without a word.
    silence: Duration,
    /// In all: it may keep talking and come to no end.
    whole: Duration,
}

/// The slowest test says nothing for less than a minute, on a host that does nothing else.
const PATIENCE: Patience = Patience { silence: Duration::from_secs(600), whole: Duration::from_secs(3600) };

/// Two processors, as the program counts on each apart. Two ways around what QEMU 7.2 (Debian 12's) gets wrong, so
/// rarely that it looks like a bug of the kernel's: with a thread for each processor one may run code that the other has
/// just replaced ("Oops: int3"); and after `cmpxchg16b`, which a kernel's allocator does all the time, all flags but one
/// are those bits of another number, which an interrupt at that moment saves ("double fault").
const PROCESSORS: [&str; 6] = ["-accel", "tcg,thread=single", "-cpu", "max,-cx16", "-smp", "2"];

/// An oops is the end, and the end is a reset, which `-no-reboot` makes the end of QEMU. `quiet` keeps the kernel from
/// speaking into the tests' lines as long as all is well.
const KERNEL_ARGUMENTS: &str = "console=ttyS0 quiet oops=panic panic=-1";

/// Boots the kernel, prints how the tests go and adds them up. An error is a machine that came to no good end; tests
/// that failed are in the tally.
pub(super) fn run(kernel: &Kernel, initramfs: &Path, programs: &[Program], tally: &mut Tally) -> Result<()> {
    println!("{}: boots {}", kernel.version, kernel.image.display());
    let mut machine = Machine::start(&mut qemu(kernel, initramfs), &kernel.folder.join("console.log"))?;
    let mut console = Console::default();
    let ended = machine.listen(&kernel.version, PATIENCE, &mut console);
    tally.add(&console.tally);
    if let Err(error) = ended {
        bail!("{error:#}; what it said at last:\n{}", console.tail());
    }
    if console.ended() != programs.len() {
        bail!("{} of {} test programs ran", console.ended(), programs.len());
    }
    println!("{}: done in {} s", kernel.version, machine.started.elapsed().as_secs());
    Ok(())
}

fn qemu(kernel: &Kernel, initramfs: &Path) -> Command {
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args(PROCESSORS)
        .args(["-m", "2048", "-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"])
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", KERNEL_ARGUMENTS]);
    command
}

/// A machine that runs: a process that ends with this guard, and what it says on its output.
struct Machine {
    process: Child,
    started: Instant,
    lines: Receiver<String>,
}

impl Machine {
    fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let log = File::create(log).with_context(|| format!("writing {}", log.display()))?;
        let mut process = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", command.get_program().display()))?;
        let console = process.stdout.take().context("its output is a pipe")?;
        Ok(Self { process, started: Instant::now(), lines: lines_of(console, log) })
    }

    /// Until the machine is done: an error if it ends, is silent or goes on for too long before.
    fn listen(&mut self, name: &str, patience: Patience, console: &mut Console) -> Result<()> {
        loop {
            let left = patience.whole.saturating_sub(self.started.elapsed());
            let line = match self.lines.recv_timeout(left.min(patience.silence)) {
                Ok(line) => line,
                Err(RecvTimeoutError::Disconnected) => bail!("it ended too early ({})", self.process.wait()?),
                Err(RecvTimeoutError::Timeout) if left < patience.silence => {
                    bail!("it is not done after {} s", patience.whole.as_secs())
                }
                Err(RecvTimeoutError::Timeout) => {
                    bail!("it has been silent for {} s", patience.silence.as_secs())
                }
            };
            match console.hear(&line) {
                Heard::Booted(release) => {
                    println!("{name}: booted {release} in {} s", self.started.elapsed().as_secs());
                }
                Heard::Started(program) => println!("{name}: {program}"),
                Heard::Result(line) => println!("{name}: {line}"),
                Heard::Failed(what) => println!("{}{name}: {what}", console.tail()),
                Heard::Done => return Ok(()),
                Heard::Noise => {}
            }
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may be gone already: it powers itself off when it is done.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The console's lines, which go into the log as they come.
fn lines_of(console: ChildStdout, mut log: File) -> Receiver<String> {
    let (sender, lines) = channel();
    thread::spawn(move || {
        let mut console = BufReader::new(console);
        let mut bytes = Vec::new();
        // Bytes, as a kernel that dies may say anything.
        while console.read_until(b'\n', &mut bytes).is_ok_and(|length| length > 0) {
            let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
            // The log is for people who look later; a full disk must not end the tests.
            let _ = writeln!(log, "{line}");
            if sender.send(line).is_err() {
                break;
            }
            bytes.clear();
        }
    });
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(300);
    const LONG: Duration = Duration::from_secs(60);

    /// What a shell says stands for a machine's console.
    fn listened_to(script: &str, patience: Patience) -> (Result<()>, Console) {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("console.log");
        let mut machine = Machine::start(Command::new("sh").args(["-c", script]), &log).unwrap();
        let mut console = Console::default();
        let ended = machine.listen("test", patience, &mut console);
        (ended, console)
    }

    #[test]
    fn a_machine_is_heard_until_it_is_done() {
        let patience = Patience { silence: LONG, whole: LONG };
        let script = "printf 'vm: start a\\r\\ntest result: ok. 2 passed;\\r\\nvm: end a 0\\r\\nvm: done\\r\\n'; exec sleep 60";
        let (ended, console) = listened_to(script, patience);
        ended.unwrap();
        assert_eq!((console.ended(), console.tally.passed, console.tally.broken), (1, 2, false));
    }

    #[test]
    fn a_machine_that_ends_hangs_or_comes_to_no_end_is_an_error() {
        let patience = Patience { silence: LONG, whole: LONG };
        let cases = [
            ("echo panic; exit 3", patience, "it ended too early (exit status: 3)"),
            ("echo stuck; exec sleep 60", Patience { silence: SHORT, ..patience }, "it has been silent for"),
            (
                "while echo on; do sleep 0.01; done",
                Patience { whole: SHORT, ..patience },
                "it is not done after",
            ),
        ];
        for (script, patience, expected) in cases {
            let (ended, _) = listened_to(script, patience);
            let error = format!("{:#}", ended.unwrap_err());
            assert!(error.starts_with(expected), "{script}: {error}");
        }
    }
}
