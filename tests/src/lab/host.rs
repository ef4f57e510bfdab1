//! One host of a lab: a network namespace, and what tests do in it.
//!
//! Programs enter with `nsenter --net=` and not with `ip netns exec`: that would remount /sys and hide bpffs. Only the
//! network is a host's own; files and processes are the machine's.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    net::Ipv4Addr,
    os::fd::AsFd,
    panic,
    path::{Path, PathBuf},
    process::{Command, Output},
    thread,
};

use anyhow::{Context, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::process::{Process, checked};

/// One end of a cable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name within the host: `eth0`, on the gateway `wan0` and `lan0`.
    pub name: String,
    /// Its first address, of a /24.
    pub address: Ipv4Addr,
}

/// A client, the gateway or a backend.
#[derive(Debug, Clone)]
pub struct Host {
    role: String,
    namespace: String,
    dir: PathBuf,
    interfaces: Vec<Interface>,
}

impl Host {
    pub(super) fn new(role: &str, namespace: String, dir: &Path, interfaces: Vec<Interface>) -> Self {
        Self { role: role.to_owned(), namespace, dir: dir.to_owned(), interfaces }
    }

    /// `client0`, `gateway`, `backend1`.
    #[must_use]
    pub fn role(&self) -> &str {
        &self.role
    }

    /// The name of its network namespace, a file in /run/netns.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Its interfaces; the gateway's VIP is on the first.
    #[must_use]
    pub fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }

    /// The address of its first interface.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.interfaces[0].address
    }

    /// The program, to be started in this host; redirect and start it as any other command.
    pub fn command<A: AsRef<OsStr>>(
        &self,
        program: impl AsRef<OsStr>,
        arguments: impl IntoIterator<Item = A>,
    ) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.namespace_file().display())).arg(program).args(arguments);
        command
    }

    /// Runs `program argument…` to its end.
    ///
    /// # Errors
    /// When it can't be started or doesn't exit with 0; with all it said.
    pub fn run<A: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = A>) -> Result<Output> {
        let mut words = words.into_iter();
        let program = words.next().context("run: a program is needed")?;
        checked(self.command(program, words)).with_context(|| format!("on {}", self.role))
    }

    /// Starts `program argument…` and lets it run until its guard is dropped.
    ///
    /// # Errors
    /// When `nsenter` can't be started. A program that can't be started shows as a process that ends at once.
    pub fn spawn<A: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = A>) -> Result<Process> {
        let mut words = words.into_iter();
        let program = words.next().context("spawn: a program is needed")?;
        self.spawn_command(self.command(program, words))
    }

    /// As [`Host::spawn`], with a command made by [`Host::command`] and prepared further (its environment, say).
    ///
    /// # Errors
    /// As [`Host::spawn`].
    pub fn spawn_command(&self, command: Command) -> Result<Process> {
        Process::start(command, &self.role, &self.dir).with_context(|| format!("on {}", self.role))
    }

    /// Runs a closure on a thread of its own that is in this host's network: sockets it opens are the host's.
    ///
    /// # Errors
    /// When the namespace can't be entered: not root, or the lab has ended.
    ///
    /// # Panics
    /// When the closure does.
    pub fn enter<T: Send>(&self, body: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            let entered = scope.spawn(|| self.move_this_thread_in().map(|()| body()));
            entered.join().unwrap_or_else(|panicked| panic::resume_unwind(panicked))
        })
    }

    /// Puts the calling thread into this host's network for good. Not for a process's main thread: the lab's end
    /// kills the processes whose main thread is in a host.
    pub(crate) fn move_this_thread_in(&self) -> Result<()> {
        let file = self.namespace_file();
        let namespace = File::open(&file).with_context(|| format!("open {}", file.display()))?;
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
            .with_context(|| format!("enter {} (needs root)", file.display()))
    }

    /// Cuts it off as a broken cable does: nothing in, nothing out, no ARP either, and nobody is told.
    ///
    /// # Errors
    /// When nft refuses.
    pub fn nft_silence(&self) -> Result<()> {
        // The arp family has no interface `lo` to spare, and its hooks see no loopback packets.
        self.run([
            "nft",
            "add table inet lab_silence; flush table inet lab_silence; \
             add chain inet lab_silence in { type filter hook input priority -400; }; \
             add chain inet lab_silence out { type filter hook output priority -400; }; \
             add rule inet lab_silence in iifname != lo drop; \
             add rule inet lab_silence out oifname != lo drop; \
             add table arp lab_silence; \
             add chain arp lab_silence in { type filter hook input priority -400; policy drop; }; \
             add chain arp lab_silence out { type filter hook output priority -400; policy drop; }",
        ])
        .map(drop)
    }

    /// Undoes [`Host::nft_silence`]; without one, does nothing.
    ///
    /// # Errors
    /// When nft refuses.
    pub fn nft_restore(&self) -> Result<()> {
        // `add` first: deleting a table that isn't there would be an error.
        self.run([
            "nft",
            "add table inet lab_silence; delete table inet lab_silence; \
             add table arp lab_silence; delete table arp lab_silence",
        ])
        .map(drop)
    }

    /// A counter of /proc/net/snmp, such as `("Tcp", "InCsumErrors")`.
    ///
    /// # Errors
    /// When this kernel has no such counter.
    pub fn snmp(&self, table: &str, counter: &str) -> Result<u64> {
        // Not /proc/net: that is the network of the process's main thread.
        let text = self
            .enter(|| fs::read_to_string("/proc/thread-self/net/snmp"))?
            .context("read /proc/net/snmp")?;
        counter_of(&text, table, counter).with_context(|| format!("no {table} {counter} in /proc/net/snmp"))
    }

    /// A network sysctl by its path below /proc/sys, such as `net/ipv4/ip_forward`.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn sysctl(&self, name: &str) -> Result<String> {
        let file = Path::new("/proc/sys").join(name);
        let text = self.enter(|| fs::read_to_string(&file))?;
        text.map(|text| text.trim().to_owned())
            .with_context(|| format!("read {} on {}", file.display(), self.role))
    }

    /// Sets a network sysctl of this host.
    ///
    /// # Errors
    /// When there is none of this name, or the value is refused.
    pub fn set_sysctl(&self, name: &str, value: &str) -> Result<()> {
        self.write_sysctl(name, value)?.with_context(|| format!("set {name} to {value} on {}", self.role))
    }

    /// As [`Host::set_sysctl`]; what this kernel doesn't have need not be set.
    pub(super) fn set_sysctl_if_there(&self, name: &str, value: &str) -> Result<()> {
        match self.write_sysctl(name, value)? {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            written => written.with_context(|| format!("set {name} to {value} on {}", self.role)),
        }
    }

    fn write_sysctl(&self, name: &str, value: &str) -> Result<io::Result<()>> {
        let file = Path::new("/proc/sys").join(name);
        self.enter(|| fs::write(file, value))
    }

    fn namespace_file(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.namespace)
    }
}

/// Reads one value of a text in which a line of names is followed by a line of values.
fn counter_of(text: &str, table: &str, counter: &str) -> Option<u64> {
    let prefix = format!("{table}:");
    let mut rows = text.lines().filter_map(|line| line.strip_prefix(&prefix));
    let names = rows.next()?.split_ascii_whitespace();
    let values = rows.next()?.split_ascii_whitespace();
    names.zip(values).find(|&(name, _)| name == counter)?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_found_by_table_and_name() {
        let text = "Ip: InReceives InErrors\nIp: 7 1\nTcp: InSegs InErrors\nTcp: 9 3\n";
        assert_eq!(counter_of(text, "Tcp", "InErrors"), Some(3));
        assert_eq!(counter_of(text, "Ip", "InErrors"), Some(1));
        assert_eq!(counter_of(text, "Udp", "InErrors"), None);
    }
}
