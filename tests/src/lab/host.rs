//! One host of a lab: a network namespace, and what tests do in it.
//!
//! Programs enter with `nsenter --net=` and not with `ip netns exec`: that would remount /sys and hide bpffs. Only the
//! network is a host's own; files and processes are the machine's.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    net::IpAddr,
    os::fd::AsFd,
    panic,
    path::{Path, PathBuf},
    process::{Command, Output},
    thread,
};

use anyhow::{Context, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{
    process::{Process, checked},
    subnet::Family,
};

/// One end of a cable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name within the host: `eth0`, on the gateway `wan0` and `lan0`.
    pub name: String,
    /// Its first address in each of the lab's families.
    pub addresses: Vec<IpAddr>,
}

impl Interface {
    /// Its first address, of the lab's first family.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.addresses[0]
    }
}

/// A client, the gateway or a backend.
#[derive(Debug, Clone)]
pub struct Host {
    role: String,
    namespace: String,
    dir: PathBuf,
    interfaces: Vec<Interface>,
    default_routers: Vec<IpAddr>,
}

impl Host {
    pub(super) fn new(
        role: &str,
        namespace: String,
        dir: &Path,
        interfaces: Vec<Interface>,
        default_routers: Vec<IpAddr>,
    ) -> Self {
        Self { role: role.to_owned(), namespace, dir: dir.to_owned(), interfaces, default_routers }
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

    /// The address of its first interface, of the lab's first family.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.interfaces[0].address()
    }

    /// Where its default routes lead, one for each of the lab's families; the gateway has none.
    #[must_use]
    pub fn default_routers(&self) -> &[IpAddr] {
        &self.default_routers
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

    /// Sets an interface's MTU.
    ///
    /// # Errors
    /// When the interface isn't there, or can't.
    pub fn set_mtu(&self, interface: &str, mtu: u16) -> Result<()> {
        self.run(["ip", "link", "set", interface, "mtu", &mtu.to_string()]).map(drop)
    }

    /// Gives an interface another hardware address, and has it tell its neighbours, as a host does that moves.
    ///
    /// # Errors
    /// When the interface isn't there, or can't.
    pub fn change_mac(&self, interface: &str, mac: &str) -> Result<()> {
        self.set_sysctl(&format!("net/ipv4/conf/{interface}/arp_notify"), "1")?;
        self.set_sysctl_if_there(&format!("net/ipv6/conf/{interface}/ndisc_notify"), "1")?;
        self.run(["ip", "link", "set", interface, "address", mac]).map(drop)
    }

    /// Sends no packet larger than this by its default routes, and still takes large ones: what a host does that
    /// knows of a narrow place, which those who send to it have to learn of by ICMP.
    ///
    /// # Errors
    /// When it has no default route.
    pub fn limit_sending(&self, mtu: u16) -> Result<()> {
        // What it announces is as if the MTU were 1500: less the headers, which are larger in IPv6.
        let words = |family| {
            let mss = match family {
                Family::V4 => 1460,
                Family::V6 => 1440,
            };
            format!("mtu {mtu} advmss {mss}")
        };
        self.change_default_routes(words)
    }

    /// Undoes [`Host::limit_sending`].
    ///
    /// # Errors
    /// As [`Host::limit_sending`].
    pub fn send_as_before(&self) -> Result<()> {
        self.change_default_routes(|_| String::new())
    }

    fn change_default_routes(&self, metrics: impl Fn(Family) -> String) -> Result<()> {
        for router in &self.default_routers {
            let (family, via) = (Family::of(*router), router.to_string());
            let route = ["ip", family.option(), "route", "change", "default", "via", &via];
            self.run(route.into_iter().chain(metrics(family).split_whitespace()))?;
        }
        Ok(())
    }

    /// Forgets what ICMP has told it of paths: it would announce segments to fit them.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn forget_paths(&self) -> Result<()> {
        [Family::V4, Family::V6]
            .iter()
            .try_for_each(|family| self.run(["ip", family.option(), "route", "flush", "cache"]).map(drop))
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
