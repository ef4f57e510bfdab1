//! A configuration that holds against this machine, with its probers: what a start and a reload accept, and `check` looks at.
//!
//! Nothing here changes anything. Deliberately not here: where the text comes from (`choice`, `prepare`).

use std::path::Path;
use std::sync::Arc;

use crate::config::{Config, ConfigErrors, Known, MissingInterface, Names, Parsed, Surroundings};
use crate::dataplane::pins::PinDirectory;
use crate::exit::{Exit, Failure};
use crate::resolver::Resolver;

use super::replace::Probers;
use super::{failed, names, plan};

/// A configuration that was read and checked, and its probers.
#[derive(Clone)]
pub(super) struct Accepted {
    pub(super) config: Config,
    pub(super) probers: Probers,
    /// As it is written.
    pub(super) text: Arc<str>,
}

/// Whom to ask for host names.
pub(super) struct Asking<'a> {
    pub(super) resolver: &'a Resolver,
    /// Where they have led last.
    pub(super) known: &'a Known,
    /// Whether what is there stays there, so that one answer moves nobody.
    pub(super) stay: bool,
}

impl<'a> Asking<'a> {
    /// For a start: what it would take over stays.
    pub(super) fn at_a_start(resolver: &'a Resolver, known: &'a Known, pin_dir: &Path) -> Self {
        Self { resolver, known, stay: PinDirectory::could_be_adopted(pin_dir) }
    }
}

/// Holds a configuration against this machine; with its text. No `names`: they are left alone, and so are interfaces that are
/// missing.
pub(super) fn checked(
    parsed: Result<Parsed, ConfigErrors>,
    pin_dir: &Path,
    names: Option<&Asking<'_>>,
) -> Result<(Config, Arc<str>), Failure> {
    let invalid = |errors: ConfigErrors| Failure::new(Exit::Config, errors.render(false));
    let parsed = parsed.map_err(invalid)?;
    let text = parsed.text();
    let answers = names.map(|asking| names::ask(asking.resolver, &parsed.hosts(), asking.known));
    let hosts = match (&answers, names) {
        (Some(answers), Some(Asking { known, stay, .. })) => Names::Asked { answers, known, stay: *stay },
        _ => Names::LeftAlone,
    };
    let machine = Surroundings::read().map_err(failed)?;
    let missing = if names.is_none() || PinDirectory::could_be_adopted(pin_dir) {
        MissingInterface::Warn
    } else {
        MissingInterface::Refuse
    };
    Ok((parsed.check(&machine, missing, &hosts).map_err(invalid)?, text))
}

/// The same, with all that is needed to run with it.
pub(super) fn accepted(
    parsed: Result<Parsed, ConfigErrors>,
    pin_dir: &Path,
    names: &Asking<'_>,
) -> Result<Accepted, Failure> {
    let (config, text) = checked(parsed, pin_dir, Some(names))?;
    let probers = config.pools.iter().map(plan::probers).collect::<Result<_, _>>();
    let probers = probers.map_err(|error| Failure::new(Exit::Config, error))?;
    Ok(Accepted { config, probers, text })
}
