//! A configuration that holds against this machine, with its probers: what a start and a reload accept, and `check` looks at.
//!
//! Nothing here changes anything. Deliberately not here: where the text comes from (`choice`, `prepare`).

use std::path::Path;
use std::sync::Arc;

use crate::config::{Config, ConfigErrors, Known, Missing, Names, Parsed, Surroundings};
use crate::dataplane::pins::PinDirectory;
use crate::exit::{Exit, Failure};
use crate::resolver::Resolver;

use super::replace::Probers;
use super::{failed, names, plan};

/// A configuration that was read and checked, and its probers.
#[derive(Clone)]
pub(super) struct Accepted {
    /// It may have backends of which nobody knows where they are: then it can run without them ([`Config::settled`]).
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
    /// What it means that nobody knows where one leads.
    pub(super) nowhere: Missing,
}

impl<'a> Asking<'a> {
    /// For a start: what it would take over stays, and goes on without those of whom nobody knows where they are.
    pub(super) fn at_a_start(resolver: &'a Resolver, known: &'a Known, pin_dir: &Path) -> Self {
        let nowhere = at_a_start(pin_dir);
        Self { resolver, known, stay: nowhere == Missing::Warn, nowhere }
    }
}

/// What it means at a start that something isn't there: with something to adopt, traffic goes on without it.
fn at_a_start(pin_dir: &Path) -> Missing {
    if PinDirectory::could_be_adopted(pin_dir) { Missing::Warn } else { Missing::Refuse }
}

/// Holds a configuration against this machine; with its text. Without `names` host names, and interfaces that are missing, are
/// left alone.
pub(super) fn checked(
    parsed: Result<Parsed, ConfigErrors>,
    pin_dir: &Path,
    names: Option<&Asking<'_>>,
) -> Result<(Config, Arc<str>), Unfit> {
    let parsed = parsed.map_err(Unfit::Invalid)?;
    let text = parsed.text();
    let answers = names.map(|asking| (names::ask(asking.resolver, &parsed.hosts(), asking.known), asking));
    let (hosts, interfaces) = match &answers {
        Some((answers, Asking { known, stay, nowhere, .. })) => {
            (Names::Asked { answers, known, stay: *stay, nowhere: *nowhere }, at_a_start(pin_dir))
        }
        None => (Names::LeftAlone, Missing::Warn),
    };
    let machine = Surroundings::read().map_err(|error| Unfit::Unseen(failed(error)))?;
    Ok((parsed.check(&machine, interfaces, &hosts).map_err(Unfit::Invalid)?, text))
}

/// Why a configuration can't be used.
pub(super) enum Unfit {
    /// It is wrong, or wrong for this machine.
    Invalid(ConfigErrors),
    /// This machine can't be looked at.
    Unseen(Failure),
}

impl From<Unfit> for Failure {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            Unfit::Invalid(errors) => Self::new(Exit::Config, errors.render(false)),
            Unfit::Unseen(failure) => failure,
        }
    }
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
