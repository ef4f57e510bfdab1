//! What stands in the way of the program on an interface, and what mends it: the same words for whoever tries (`attach`)
//! and for whoever only looks (`balancer doctor`).
//!
//! Deliberately absent: finding out which of it is the case, and how bad that is.

use std::fmt;

/// The largest MTU whose packets are in one buffer in every driver: a page of 4 KiB less headroom and what the kernel
/// keeps behind the packet.
pub const ONE_BUFFER_MTU: u32 = 3498;

/// What is wrong, in plain words, and what to do about it. Displays as both in one sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// What is wrong, and what follows from it.
    pub cause: String,
    /// What mends it.
    pub fix: Fix,
}

/// What mends something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fix {
    /// A command line, as it is.
    Command(String),
    /// What a person has to do; commands in it stand in backticks.
    ByHand(String),
}

impl fmt::Display for Fix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(command) => write!(f, "`{command}` mends that"),
            Self::ByHand(what) => f.write_str(what),
        }
    }
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.cause, self.fix)
    }
}

impl Advice {
    fn command(cause: String, command: String) -> Self {
        Self { cause, fix: Fix::Command(command) }
    }

    pub(super) fn by_hand(cause: impl Into<String>, what: impl Into<String>) -> Self {
        Self { cause: cause.into(), fix: Fix::ByHand(what.into()) }
    }
}

/// Whoever is on the interface already.
pub fn foreign(interface: &str, id: Option<u32>) -> Advice {
    let program = id.map(|id| format!(" (id {id})")).unwrap_or_default();
    Advice::by_hand(
        format!(
            "interface {interface} already has an XDP program{program}, which is not ours and is not replaced"
        ),
        format!(
            "detach it first, by its owner's command, `ip link set dev {interface} xdp off`, or `bpftool link detach id N` \
             where a link holds it (`bpftool link` tells)"
        ),
    )
}

/// Only generic mode is possible.
pub fn no_native(interface: &str) -> Advice {
    Advice::by_hand(
        format!("the driver of {interface} has no native XDP"),
        "use xdp_mode = \"generic\" or \"auto\", or a network card whose driver has it",
    )
}

/// A driver that can receive frames of one buffer only. The kernel doesn't tell the driver's limit; a veth's is that of
/// the largest packet its other end may send.
pub fn one_buffer(interface: &str) -> Advice {
    Advice::by_hand(
        format!(
            "native XDP takes packets of one buffer on {interface}, and its MTU, or on a veth that of its other end, is \
             larger"
        ),
        format!(
            "lower it (`{}` fits every driver), use Linux 5.18 or newer, or xdp_mode = \"generic\"",
            lower_mtu(interface)
        ),
    )
}

/// The command that makes every packet fit one buffer.
pub fn lower_mtu(interface: &str) -> String {
    format!("ip link set dev {interface} mtu {ONE_BUFFER_MTU}")
}

/// A driver without transmit, or whose transmit is off now.
pub fn no_transmit(interface: &str) -> Advice {
    Advice::by_hand(
        format!("packets that XDP redirects to {interface} are lost, as its driver has no XDP transmit now"),
        "on a veth, `ethtool -K PEER gro on` for its other end mends that, elsewhere use xdp_mode = \"generic\"",
    )
}

/// A driver whose transmit knows one buffer only.
pub fn no_long_transmit(interface: &str, mtu: u32) -> Advice {
    Advice::by_hand(
        format!(
            "large packets that XDP redirects to {interface} are lost, as its driver has no XDP transmit for more than one \
             buffer, and its MTU is {mtu}"
        ),
        format!("lower it (`{}`), or use xdp_mode = \"generic\"", lower_mtu(interface)),
    )
}

/// A driver whose native XDP can't send packets on.
pub fn no_redirect(interface: &str) -> Advice {
    Advice::by_hand(
        format!("{interface} can't redirect packets, as its driver has native XDP without it"),
        "use xdp_mode = \"generic\"",
    )
}

/// Packets of VLANs would be taken for others.
pub fn hidden_tags(interface: &str) -> Advice {
    Advice::command(
        format!(
            "{interface} has VLAN interfaces, and its driver takes the tags off before XDP sees the packets"
        ),
        format!("ethtool -K {interface} rxvlan off"),
    )
}

/// The hardware, or the hypervisor, joins packets, which XDP can't take apart.
pub fn joins_packets(interface: &str, offload: &str) -> Advice {
    Advice::command(
        format!(
            "{interface} joins received packets into large ones ({offload}), and some drivers refuse native XDP then"
        ),
        format!("ethtool -K {interface} {offload} off"),
    )
}

/// What the kernel's refusal to attach means, if it is a usual one.
pub fn refusal(code: i32, interface: &str) -> Option<Advice> {
    match code {
        libc::ERANGE => Some(one_buffer(interface)),
        libc::EOPNOTSUPP => Some(no_native(interface)),
        libc::ENODEV => Some(Advice::by_hand(
            format!("interface {interface} is gone"),
            format!("make it again, or take it out of [gateway] interfaces: `ip link show {interface}`"),
        )),
        // As a veth says it whose other end has more queues.
        libc::ENOSPC => Some(Advice::by_hand(
            format!("{interface} has too few queues for native XDP"),
            format!(
                "give it as many as there are CPUs, or on a veth as its other end sends by (`ethtool -L {interface} rx \
                 N`), or use xdp_mode = \"generic\""
            ),
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_refusals_are_explained_with_the_interface_and_what_to_type() {
        for (code, words) in [
            (libc::ERANGE, "`ip link set dev lan0 mtu 3498`"),
            (libc::EOPNOTSUPP, "xdp_mode = \"generic\""),
            (libc::ENODEV, "`ip link show lan0`"),
            (libc::ENOSPC, "`ethtool -L lan0 rx N`"),
        ] {
            let said = refusal(code, "lan0").map(|advice| advice.to_string()).unwrap_or_default();
            assert!(said.contains(words) && said.contains("lan0"), "{code}: {said}");
        }
        assert_eq!(refusal(libc::EINVAL, "lan0"), None);
    }

    #[test]
    fn a_command_is_told_as_one() {
        let said = hidden_tags("lan0").to_string();
        assert!(said.ends_with(": `ethtool -K lan0 rxvlan off` mends that"), "{said}");
    }
}
