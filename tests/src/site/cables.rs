//! The gateway's interfaces, made anew as they were but for the devices.

use std::process::Output;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::Site;
use crate::inventory::attached_programs;

/// A daemon that stands still doesn't use it.
const FOR_THE_PROGRAM: Duration = Duration::from_secs(1);

impl Site {
    /// Runs a command on the switch between the gateway and the servers.
    ///
    /// # Errors
    /// When it fails.
    pub fn on_switch(&self, words: &[&str]) -> Result<Output> {
        let switch = format!("--net=/run/netns/{}-switch_lan", self.lab.name());
        self.lab.gateway().run([&["nsenter", &switch], words].concat())
    }

    /// A cable from the switch to the gateway, with nothing but a name. That comes last: when it has one that the daemon
    /// waits for, its other end takes what XDP sends.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn make_lan(&self, name: &str) -> Result<()> {
        let gateway = self.lab.gateway();
        let end = ["type", "veth", "peer", "name", "unnamed0", "netns", gateway.namespace()];
        self.on_switch(&[&["ip", "link", "add", "gateway"][..], &end].concat())?;
        self.on_switch(&["ip", "link", "set", "gateway", "master", "br0", "up"])?;
        self.on_switch(&["ethtool", "-K", "gateway", "gro", "on"])?;
        gateway.run(["ip", "link", "set", "unnamed0", "name", name]).map(drop)
    }

    /// The one towards the servers.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn remake_lan(&self) -> Result<()> {
        self.make_lan("lan0")?;
        self.await_program("lan0")?;
        self.address("lan0", "10.0.2.1/24")
    }

    /// Gives a running daemon time to put its program onto an interface that is not up yet. What comes in before that is the
    /// stack's, which resets it: so it is with every device that is up before its program is there.
    fn await_program(&self, interface: &str) -> Result<()> {
        let until = Instant::now() + FOR_THE_PROGRAM;
        while !attached_programs(self.lab.gateway())?.contains_key(interface) && Instant::now() < until {
            sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Gives an interface of the gateway an address, and sets it up.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn address(&self, interface: &str, address: &str) -> Result<()> {
        let gateway = self.lab.gateway();
        gateway.run(["ip", "address", "add", address, "dev", interface])?;
        gateway.run(["ip", "link", "set", interface, "up"]).map(drop)
    }

    /// The one towards the client; the client's end of the cable is another one as well.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn remake_wan(&self) -> Result<()> {
        let client = self.lab.client();
        let gateway = self.lab.gateway();
        let peer = ["peer", "name", "unnamed0", "netns", gateway.namespace()];
        client.run([&["ip", "link", "add", "eth0", "type", "veth"][..], &peer].concat())?;
        client.run(["ip", "address", "add", "203.0.113.7/24", "dev", "eth0"])?;
        client.run(["ip", "link", "set", "eth0", "up"])?;
        // A veth that is down does not begin to poll by this.
        client.run(["ethtool", "-K", "eth0", "tx", "off", "gro", "on"])?;
        client.run(["ip", "route", "add", "default", "via", "203.0.113.1"])?;
        gateway.run(["ip", "link", "set", "unnamed0", "name", "wan0"])?;
        self.await_program("wan0")?;
        self.address("wan0", "203.0.113.1/24")?;
        self.address("wan0", &format!("{}/32", self.lab.vip()))
    }
}
