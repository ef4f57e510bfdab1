//! `import nginx`: an nginx configuration as one of balancer's, with a comment for each thing that is different.
//!
//! From text to words ([`words`]), directives ([`syntax`], [`include`]), what they say in nginx's terms ([`model`], [`server`]), which
//! address leads to which upstream ([`routes`]), pools ([`carry_over`]), and text again ([`write`]). Only `include` reads files.
//! The files are not trusted: everything is bounded, and nothing of them is shown raw.
//!
//! Deliberately absent: variables, conditions and names, which nginx decides by for each request. What can't be said in
//! balancer's terms is left out and said, never guessed.

mod address;
mod backends;
mod carry_over;
mod directive;
mod draft;
mod glob;
mod include;
mod leftovers;
mod meaning;
mod member;
mod model;
mod naming;
mod probes;
mod remarks;
mod routes;
mod server;
mod syntax;
#[cfg(test)]
mod tests;
mod time;
mod verb;
mod words;
mod write;

use std::net::IpAddr;
use std::path::Path;

pub use remarks::Remark;
pub use verb::{Request, run};

use super::read::ReadError;
use model::Model;
use remarks::Remarks;

/// What nginx doesn't know.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// To attach to; none: examples are written.
    pub interfaces: Vec<String>,
    /// Where services listen whose `listen` names no address; none: an example is written.
    pub vip: Option<IpAddr>,
    /// Upstreams with the same hosts stay apart.
    pub separate: bool,
}

/// A configuration that was imported.
#[derive(Debug)]
pub struct Imported {
    /// TOML with comments.
    pub toml: String,
    /// What to look at; in the comments, too.
    pub remarks: Vec<Remark>,
    /// Pools, services and backends in it.
    pub counts: [usize; 3],
}

/// Why there is nothing.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file can't be read.
    #[error("can't read {file}: {error}; name nginx's configuration, as /etc/nginx/nginx.conf")]
    Unreadable {
        /// As named.
        file: String,
        /// Why.
        error: ReadError,
    },
    /// It is something else.
    #[error("{file}:{line}: not a configuration of nginx: {message}; see what `nginx -t` says")]
    NotNginx {
        /// As named.
        file: String,
        /// From 1.
        line: usize,
        /// Why.
        message: String,
    },
    /// Nothing in it leads to a backend.
    #[error("{file}: nothing to import: no `upstream` and no `proxy_pass` that can be carried over{}", because(.remarks))]
    Nothing {
        /// As named.
        file: String,
        /// What was found instead.
        remarks: Vec<Remark>,
    },
}

/// One line for each remark.
fn because(remarks: &[Remark]) -> String {
    remarks.iter().map(|remark| format!("\n  {remark}")).collect()
}

/// Reads nginx's configuration in `file`, with all that it includes.
pub fn import(file: &Path, settings: &Settings) -> Result<Imported, ImportError> {
    let mut remarks = Remarks::default();
    let directives = include::load(file, &mut remarks)?;
    let folder = include::folder(file);
    let mut model = Model::new(&directives);
    let draft = carry_over::carry_over(&mut model, file, &folder, settings, &mut remarks);
    let remarks = remarks.into_list();
    if draft.pools.is_empty() {
        return Err(ImportError::Nothing { file: file.display().to_string(), remarks });
    }
    let services = draft.pools.iter().map(|pool| pool.services.len()).sum();
    let backends = draft.pools.iter().flat_map(|pool| &pool.backends).filter(|entry| entry.backend.is_some());
    let counts = [draft.pools.len(), services, backends.count()];
    Ok(Imported { toml: write::toml(&draft, &remarks), remarks, counts })
}
