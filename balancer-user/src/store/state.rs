//! `state.json`: the document, and what makes it trustworthy. Names, never positions: the configuration may have changed by
//! the time it is read.
//!
//! Deliberately not here: files (`file`), and what the policy makes of it (`daemon::memory`).

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use balancer_common::limits::{MAX_BACKENDS, MAX_SERVICES};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

pub use super::confirmation::{Confirmation, Why};
use crate::control::protocol::{PoolReason, Timestamp};

/// The document's name and version.
pub const FORMAT: &str = "balancer.state/1";
/// As many as a configuration may have of each, and a little: more is damage.
const MAX_POOLS: usize = 1024;
const MAX_MEMBERS: usize = 64;
/// As many as the kernel's maps have slots for backends and services together.
const MAX_LEAVERS: usize = MAX_BACKENDS + MAX_SERVICES;

/// What is behind the checksum, and before it; and how long it is.
const END: &[u8] = b"\"\n}\n";
const CHECKSUM: &[u8] = b"\n  \"checksum\": \"";
const DIGITS: usize = 64;

/// Everything that is remembered. What another version says beside it is left out, here and in every part but those of which it could
/// change the meaning: a change under way, and a reload that waits. A key that was damaged is told by the checksum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// [`FORMAT`].
    pub format: String,
    /// When it was written, for people.
    pub written: Timestamp,
    /// The kernel's random name of the boot in which it was written.
    pub boot_id: String,
    /// `CLOCK_BOOTTIME` when it was written, in milliseconds.
    pub boottime_ms: u64,
    /// The id of the last change of any pool's active backend.
    pub last_transition: u64,
    /// The id of the last record of the journal.
    pub last_event: u64,
    /// In the configuration's order.
    pub pools: Vec<Pool>,
    /// Who has left the configuration and may have flows; not written if there is nobody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leaving: Vec<Leaver>,
    /// Pools that have left the configuration lately; not written if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub departed: Vec<Departed>,
    /// A reload that waits for its confirmation, or was taken back; not written if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmation: Option<Confirmation>,
    /// Where host names have led last, also those of the configuration to go back to; not written if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<Host>,
    /// SHA-256 in hex of the document with this left empty.
    pub checksum: String,
}

/// A backend or a service that has left the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaver {
    /// Whether it is a service.
    pub is_service: bool,
    /// As the kernel's maps number it, which outlive the daemon.
    pub slot: u16,
    /// Its pool's name.
    pub pool: String,
    /// How much is left until its flows are cut.
    pub ends_in_ms: u64,
}

/// A pool that has left the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Departed {
    /// How long before this was written.
    pub ago_ms: u64,
    /// As it was then.
    pub pool: Pool,
}

/// A host name of backends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// As in the configuration.
    pub name: String,
    /// Where they were last, each once.
    pub addresses: Vec<IpAddr>,
}

/// What fails over as one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Its name in the configuration.
    pub name: String,
    /// Where its new flows go.
    pub active: Option<String>,
    /// The address of that backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_at: Option<IpAddr>,
    /// Since when.
    pub since: Timestamp,
    /// Why.
    pub reason: PoolReason,
    /// What the operator's last `failover` still asks for.
    pub wish: Wish,
    /// In list order.
    pub backends: Vec<Backend>,
    /// The change that is under way.
    pub transition: Option<Transition>,
    /// Who was active before is not known, and the operator was asked.
    pub doubtful: bool,
}

/// What the operator's last `failover` still asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wish {
    /// Nothing.
    Automatic,
    /// No failback by itself.
    Stay,
    /// As before, and it stays although it isn't eligible.
    Forced,
}

/// A member of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    /// Its name in the configuration.
    pub name: String,
    /// Where it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// What the operator wants of it.
    pub admin: Admin,
    /// How much is left until its flows are cut.
    pub drain_ends_in_ms: Option<u64>,
    /// Those of its services of which something is to be remembered.
    pub services: Vec<Service>,
}

/// What the operator wants of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Admin {
    /// Takes part.
    Ready,
    /// No new flows; old ones finish.
    Drain,
    /// No flows.
    Maint,
}

/// The health of one service on one backend, as far as it outlives the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its name in the configuration.
    pub name: String,
    /// How much is left of its time down; null when it isn't down.
    pub down_for_ms: Option<u64>,
    /// How long it was last down.
    pub last_down_ms: u64,
    /// How much is left of the time in which going down again counts as a relapse.
    pub relapse_until_ms: Option<u64>,
}

/// A change of the active backend that is not over yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transition {
    /// Its id.
    pub id: u64,
    /// The backend that is left.
    pub from: Option<String>,
    /// The backend that becomes active.
    pub to: String,
    /// Its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_at: Option<IpAddr>,
    /// Why.
    pub reason: PoolReason,
    /// What was seen, in words.
    pub evidence: String,
    /// When it began.
    pub started: Timestamp,
    /// The target is taken whatever its health.
    pub forced: bool,
    /// The target is the active one; what is left are hooks behind the switch.
    pub switched: bool,
    /// The pool's hooks, which steps are numbers of: when each runs, and its name.
    pub hooks: Vec<String>,
    /// How far it is.
    pub reached: Reached,
}

/// How far a change is. Hooks are counted from 0, in the configuration's order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Reached {
    /// The old backend's flows are cut.
    Cutting,
    /// This is next.
    Next(Next),
    /// This hook was started: without a recorded result it is never started again by itself.
    Running(u32),
    /// It waits for the operator.
    Held {
        /// What stopped it.
        stop: Stop,
        /// The same in words.
        why: String,
    },
}

/// What is done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Next {
    /// This hook.
    Hook(u32),
    /// A cold standby is waited for.
    Start,
    /// The switch.
    Switch,
}

/// What stopped a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// Old flows that did not end.
    Uncut,
    /// This hook.
    Failed(u32),
    /// The target went down; that would have been next.
    Lost(Next),
    /// A cold standby didn't come up.
    Late,
    /// Whether hooks behind the switch have run was not written down.
    Unrecorded,
}

/// A moment that can be told from one of another boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootMoment {
    /// The kernel's random name of this boot; empty when it can't be read.
    pub boot_id: String,
    /// `CLOCK_BOOTTIME`, which goes on while the machine is suspended.
    pub boottime: Duration,
}

impl State {
    /// How long ago it was written: zero when that was in another boot, as nothing tells how long the machine was off.
    /// What was left then is left again.
    #[must_use]
    pub fn age_at(&self, now: &BootMoment) -> Duration {
        if self.boot_id.is_empty() || self.boot_id != now.boot_id {
            return Duration::ZERO;
        }
        now.boottime.saturating_sub(Duration::from_millis(self.boottime_ms))
    }

    /// Whether it says the same as another, whenever that was written.
    #[must_use]
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.last_transition == other.last_transition
            && self.pools == other.pools
            && self.departed.iter().map(|gone| &gone.pool).eq(other.departed.iter().map(|gone| &gone.pool))
            && self.leaving == other.leaving
            && self.confirmation == other.confirmation
            && self.hosts == other.hosts
    }

    /// The text to be written, with its checksum in it.
    pub(super) fn sealed(mut self) -> serde_json::Result<String> {
        self.checksum.clear();
        self.checksum = digest(self.text()?.as_bytes());
        self.text()
    }

    fn text(&self) -> serde_json::Result<String> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        Ok(text)
    }

    /// What there is more of than there can be.
    pub(super) fn excess(&self) -> Option<&'static str> {
        let members = |pool: &Pool| pool.backends.len();
        let services = |pool: &Pool| pool.backends.iter().map(|backend| backend.services.len()).max();
        let mut pools = self.pools.iter().chain(self.departed.iter().map(|gone| &gone.pool));
        if self.pools.len() > MAX_POOLS || self.departed.len() > MAX_POOLS {
            Some("pools")
        } else if pools.clone().any(|pool| members(pool) > MAX_MEMBERS) {
            Some("backends of a pool")
        } else if pools.any(|pool| services(pool) > Some(MAX_MEMBERS)) {
            Some("services of a backend")
        } else if self.leaving.len() > MAX_LEAVERS {
            Some("members of earlier configurations")
        } else if self.hosts.len() > MAX_POOLS * MAX_MEMBERS {
            Some("host names")
        } else if self.hosts.iter().any(|host| host.addresses.len() > MAX_POOLS) {
            Some("addresses of a host name")
        } else {
            None
        }
    }
}

/// Whether a text is as some version has written it, whatever it knew: its checksum is that of the same text with none in it.
pub(super) fn is_whole(text: &[u8]) -> bool {
    let split = text.strip_suffix(END).and_then(<[u8]>::split_last_chunk::<DIGITS>);
    let is_it = |(head, sum): (&[u8], &[u8; DIGITS])| {
        head.ends_with(CHECKSUM) && digest(&[head, END].concat()).as_bytes() == sum
    };
    split.is_some_and(is_it)
}

/// The SHA-256 in hex.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}
