//! Which configuration a start is made with: the file's. Or the one before it, where a reload to what the file says still waits for
//! its confirmation, and there can be no start with that: whoever may have locked himself out waits for the one before.
//!
//! A file that says something else by now was written by somebody who is there: what is wrong with it ends the start, as ever. One
//! that can't be read says nothing. The file itself is left alone, and so is what is remembered of the reload, for the next start.
//! Deliberately not here: a confirmation that doesn't come in time (`confirmation`).

use tracing::{error, warn};

use crate::config::{self, ConfigErrors, Parsed, Text};
use crate::exit::Failure;
use crate::resolver::Resolver;
use crate::store::state::{self, State};

use super::accepted::{Accepted, Asking, accepted};
use super::{Options, memory, names};

/// What errors call the configuration to go back to.
pub(super) const BEFORE: &str = "<the configuration before>";

/// What a start is made with.
pub(super) struct Choice<'a> {
    pub(super) accepted: Accepted,
    /// Why it isn't what the file says.
    pub(super) taken_back: Option<TakenBack>,
    unconfirmed: Option<Unconfirmed>,
    reader: Reader<'a>,
}

/// A reload that was taken back by a start.
#[derive(Debug)]
pub(super) struct TakenBack {
    /// The SHA-256, in hex, of the configuration that it had brought.
    pub(super) of: String,
    /// What is wrong with that, in a line.
    pub(super) why: String,
}

/// A reload to what the file says waits for its confirmation.
struct Unconfirmed {
    /// The digest of that.
    of: String,
    /// The configuration before.
    before: String,
}

/// What a configuration is held against.
struct Reader<'a> {
    options: &'a Options,
    resolver: &'a Resolver,
    /// What an earlier life remembered.
    earlier: Option<State>,
}

impl<'a> Choice<'a> {
    /// The file's, if that can be accepted.
    pub(super) fn make(options: &'a Options, resolver: &'a Resolver) -> Result<Self, Failure> {
        let earlier = memory::earlier(&options.state_dir);
        let reader = Reader { options, resolver, earlier };
        let file = config::fetch(&options.config);
        let waiting = reader.earlier.as_ref().and_then(|state| state.confirmation.as_ref());
        let mut unconfirmed = Unconfirmed::of(file.as_ref().ok().map(Text::bytes), waiting);
        let (accepted, taken_back) = match reader.accept(file.and_then(Text::parse)) {
            Ok(accepted) => (accepted, None),
            Err(failure) => {
                let (accepted, why) = take_back(unconfirmed.take(), failure, |parsed| reader.accept(parsed))?;
                (accepted, Some(why))
            }
        };
        Ok(Self { accepted, taken_back, unconfirmed, reader })
    }

    /// No start can be made with it: the one before takes its place, or the start has failed.
    pub(super) fn go_back(&mut self, failure: Failure) -> Result<(), Failure> {
        let before = take_back(self.unconfirmed.take(), failure, |parsed| self.reader.accept(parsed))?;
        (self.accepted, self.taken_back) = (before.0, Some(before.1));
        Ok(())
    }
}

impl Reader<'_> {
    fn accept(&self, parsed: Result<Parsed, ConfigErrors>) -> Result<Accepted, Failure> {
        let Self { options, resolver, earlier } = self;
        let known = names::remembered(parsed.as_ref().ok(), earlier.as_ref(), &options.pin_dir);
        let asking = Asking::at_a_start(resolver, &known, &options.pin_dir);
        let accepted = accepted(parsed, &options.pin_dir, &asking)?;
        for warning in &accepted.config.warnings {
            warn!(event = "configuration", line = warning.line, "{}", warning.message);
        }
        Ok(accepted)
    }
}

impl Unconfirmed {
    /// `file`: what it says, if that can be read.
    fn of(file: Option<&[u8]>, waiting: Option<&state::Confirmation>) -> Option<Self> {
        let state::Confirmation { of, before, .. } = waiting?;
        let is_it = file.is_none_or(|text| state::digest(text) == *of);
        is_it.then(|| Self { of: of.clone(), before: before.clone() })
    }
}

/// The configuration before, in the place of one with which the start fails.
fn take_back<T>(
    unconfirmed: Option<Unconfirmed>,
    failure: Failure,
    accept: impl FnOnce(Result<Parsed, ConfigErrors>) -> Result<T, Failure>,
) -> Result<(T, TakenBack), Failure> {
    let Some(Unconfirmed { of, before }) = unconfirmed else { return Err(failure) };
    let said = failure.to_string();
    for line in said.lines() {
        error!(event = "reload", "{line}");
    }
    let accepted = match accept(config::parse(BEFORE, &before)) {
        Ok(accepted) => accepted,
        Err(other) => {
            for line in other.to_string().lines() {
                error!(event = "reload", "{line}");
            }
            error!(
                event = "reload",
                "the configuration before that one, to which nobody confirmed the reload, can't be used either"
            );
            return Err(failure);
        }
    };
    error!(
        event = "reload",
        "no start can be made with what the file says, and nobody has confirmed the reload to it: the configuration before is \
         back; the file still holds that one"
    );
    let why = said.lines().next().unwrap_or_default().to_owned();
    Ok((accepted, TakenBack { of, why }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::example::BASE;
    use crate::exit::Exit;

    const NEW: &[u8] = b"[gateway]\ninterfaces = [\"gone0\"]\n";

    fn waiting() -> state::Confirmation {
        state::Confirmation { ends_in_ms: 1, of: state::digest(NEW), before: BASE.to_owned() }
    }

    fn failure() -> Failure {
        Failure::new(Exit::Config, "there is no interface gone0\nand more")
    }

    #[test]
    fn only_what_waits_for_its_confirmation_is_taken_back() {
        let is_taken_back = |file: Option<&[u8]>, waiting: Option<&state::Confirmation>| {
            let unconfirmed = Unconfirmed::of(file, waiting);
            let accept = |parsed: Result<Parsed, ConfigErrors>| Ok(parsed.unwrap().text().to_string());
            let taken_back = take_back(unconfirmed, failure(), accept);
            taken_back.map(|(text, TakenBack { of, why })| {
                assert_eq!((text.as_str(), of), (BASE, state::digest(NEW)));
                assert_eq!(why, "there is no interface gone0");
            })
        };
        let waits = waiting();
        assert!(is_taken_back(Some(NEW), Some(&waits)).is_ok());
        assert!(is_taken_back(None, Some(&waits)).is_ok(), "nobody can read anything else");
        for (file, waiting) in
            [(Some(NEW), None), (None, None), (Some(b"another word".as_slice()), Some(&waits))]
        {
            let failure = is_taken_back(file, waiting).unwrap_err();
            assert_eq!(failure.exit, Exit::Config);
            assert!(failure.to_string().starts_with("there is no interface gone0"), "{failure}");
        }
    }

    #[test]
    fn where_the_one_before_can_not_be_used_either_the_files_error_ends_the_start() {
        let unconfirmed = Unconfirmed::of(Some(NEW), Some(&waiting()));
        let refused = |_| Err::<(), _>(Failure::new(Exit::Failed, "nor the other"));
        let Err(said) = take_back(unconfirmed, failure(), refused) else { panic!("it was refused") };
        assert!(said.exit == Exit::Config && said.to_string().contains("gone0"), "{said}");
    }
}
