//! The configuration: from TOML text to a [`Config`] in which everything holds that the daemon relies on.
//!
//! Two stages. [`parse`] is pure: it reads all keys, and reports all errors with line, column and what to write
//! instead. [`Parsed::check`] then holds the result against the machine, which comes as data ([`Surroundings`], and what
//! host names lead to: [`Names`]).
//! [`load`] reads the text first, from a file or from stdin, with bounds.
//!
//! [`nginx`] writes such a text from another program's. Deliberately absent: carrying anything out, and resolving names.

mod addresses;
mod attempts;
mod backend;
#[cfg(test)]
pub(crate) mod example;
mod explain;
mod gateway;
mod hints;
mod hook;
mod hosts;
mod keys;
mod limits;
mod load;
mod machine;
mod model;
mod names;
pub mod nginx;
mod notes;
mod pool;
mod probe;
mod problem;
mod question;
mod ranges;
mod read;
mod schema;
mod service;
mod shape;
mod snat;
mod source;
mod surroundings;
mod syntax;
mod table;
#[cfg(test)]
mod tests;
mod token;

use std::collections::BTreeSet;
use std::sync::Arc;

use toml::de::DeTable;

pub use explain::explain;
pub use hosts::{Known, LEFT_OUT, Names, Unsettled, Why};
pub use load::{Text, fetch, load};
pub use machine::Missing;
pub use model::{
    Backend, Check, Config, ConnectRetry, Failback, Failover, Forwarding, Gateway, Hook, HookWhen, Http,
    OnBackendDown, OnError, Passive, Pool, Probe, Question, Redirect, Service, Verify, Warning, WhenAllDown,
    XdpMode,
};
pub use problem::{ConfigError, ConfigErrors};
pub use ranges::{common as common_ports, shown as shown_ranges, without as ports_without};
pub use read::ReadError;
pub use schema::schema;
pub use surroundings::{KernelPorts, Surroundings, SurroundingsError};
pub use token::Token;

use notes::{Claim, LeftOut, Notes};
use problem::Fault;
use source::SourceText;
use table::Table;

/// A configuration that is right in itself, not yet held against the machine: go on with [`Parsed::check`].
#[derive(Debug)]
pub struct Parsed {
    source: SourceText,
    config: Config,
    claims: Vec<Claim>,
    left_out: Vec<LeftOut>,
}

impl Parsed {
    /// What is written, whether or not the machine can carry it out: for whoever looks at what it says. Backends that are given
    /// by name are at the unspecified address.
    #[must_use]
    pub const fn unresolved(&self) -> &Config {
        &self.config
    }

    /// The same without those: for whoever looks at the machine itself.
    #[must_use]
    pub fn as_written(&self) -> Config {
        self.config.settled()
    }

    /// The text that it was parsed from.
    #[must_use]
    pub fn text(&self) -> Arc<str> {
        self.source.text.as_str().into()
    }

    /// The backends that are given by host name: their pools' names, their own, and those.
    pub fn named(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.config.pools.iter().flat_map(|pool| {
            let named = pool.backends.iter().filter_map(|backend| Some((backend, backend.host.as_deref()?)));
            named.map(|(backend, host)| (pool.name.as_str(), backend.name.as_str(), host))
        })
    }

    /// The host names that are to be asked for before [`Parsed::check`].
    #[must_use]
    pub fn hosts(&self) -> BTreeSet<String> {
        self.config.hosts()
    }

    /// What was left out, and what holds instead, for people.
    #[must_use]
    pub fn defaults(&self) -> String {
        explain::defaults(&self.left_out)
    }
}

/// Parses a configuration; `name` is what errors call it. Pure.
pub fn parse(name: &str, text: &str) -> Result<Parsed, ConfigErrors> {
    let source = SourceText::new(name, text);
    let notes = Notes::new(&source);
    let read = syntax::tree(&source.text, &notes).and_then(|tree| {
        let (gateway, http, pools) = read_tables(&tree, &notes);
        Some((gateway?, http, pools?))
    });
    let left_out = notes.all_left_out();
    let (claims, warnings) = notes.conclude()?;
    match read {
        Some((gateway, http, pools)) => {
            Ok(Parsed { config: Config { gateway, http, pools, warnings }, claims, left_out, source })
        }
        // A reader that drops something must note why; were one not to, nothing may start from what is left.
        None => Err(ConfigErrors::unreadable(
            name,
            Fault::new("a part of the configuration was left out without an error", "report this as a bug"),
        )),
    }
}

/// Has every table read; none where an error was noted.
fn read_tables<'t>(
    tree: &'t DeTable<'t>,
    notes: &'t Notes<'t>,
) -> (Option<Gateway>, Option<Http>, Option<Vec<Pool>>) {
    let mut top = Table::top(tree, notes);
    let gateway = gateway::read(&mut top);
    let http = gateway::read_http(&mut top);
    let pools = pool::read_all(&mut top, http.as_ref().map(|http| http.listen));
    top.finish();
    (gateway, http, pools)
}
