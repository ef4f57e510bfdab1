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

/// Holds a configuration against this machine; with its text. `names`: who is asked for host names, and where they have led
/// last; none leaves them, and interfaces that are missing, alone.
pub(super) fn checked(
    parsed: Result<Parsed, ConfigErrors>,
    pin_dir: &Path,
    names: Option<(&Resolver, &Known)>,
) -> Result<(Config, Arc<str>), Failure> {
    let invalid = |errors: ConfigErrors| Failure::new(Exit::Config, errors.render(false));
    let parsed = parsed.map_err(invalid)?;
    let text = parsed.text();
    let answers = names.map(|(resolver, known)| (names::ask(resolver, &parsed.hosts(), known), known));
    let hosts = match &answers {
        Some((answers, known)) => Names::Asked { answers, known },
        None => Names::LeftAlone,
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
    names: (&Resolver, &Known),
) -> Result<Accepted, Failure> {
    let (config, text) = checked(parsed, pin_dir, Some(names))?;
    let probers = config.pools.iter().map(plan::probers).collect::<Result<_, _>>();
    let probers = probers.map_err(|error| Failure::new(Exit::Config, error))?;
    Ok(Accepted { config, probers, text })
}
