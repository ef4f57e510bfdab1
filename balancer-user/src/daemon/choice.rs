//! Which configuration a start is made with: the file's. Or the one before it, where a reload to what the file says still waits for
//! its confirmation, and there can be no start with that; or where the time for that is over. Whoever may have locked himself out
//! waits for the one before.
//!
//! A file that says something else by now was written by somebody who is there: what is wrong with it ends the start, as ever. One
//! that can't be read says nothing. The file itself is left alone, and so is what is remembered of the reload, for the next start.
//! Deliberately not here: a confirmation that doesn't come in time (`confirmation`), and what a start is (`life`).

use tracing::{error, warn};

use crate::config::{self, ConfigErrors, Parsed, Text};
use crate::exit::Failure;
use crate::resolver::Resolver;
use crate::store::state::{self, Host, State};

use super::accepted::{Accepted, Asking, accepted};
use super::{Options, confirmation, memory, names};

/// What errors call the configuration to go back to.
pub(super) const BEFORE: &str = "<the configuration before>";

/// What a start is made with.
pub(super) struct Choice<'a> {
    chosen: Chosen<Accepted>,
    reader: Reader<'a>,
}

/// One of two.
struct Chosen<T> {
    now: T,
    /// Why it isn't what the file says.
    taken_back: Option<TakenBack>,
    /// What comes in its place if no start can be made with it.
    other: Option<Other<T>>,
    /// Why no start can be made with the one in whose place it is.
    failed: Option<Failure>,
}

enum Other<T> {
    File(T),
    Before(Unconfirmed),
}

/// A reload that was taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TakenBack {
    /// The SHA-256, in hex, of the configuration that it had brought.
    pub(super) of: String,
    pub(super) why: Why,
}

/// Why it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// No start can be made with it: what is wrong, in a line.
    NoStart(String),
    /// The time for its confirmation was over.
    Late,
}

/// A reload to what the file says waits for its confirmation.
struct Unconfirmed {
    /// The digest of that.
    of: String,
    /// The configuration before.
    before: String,
    /// The time is over.
    is_late: bool,
}

/// What a configuration is held against.
struct Reader<'a> {
    options: &'a Options,
    resolver: &'a Resolver,
    /// Where host names had led in an earlier life.
    hosts: Vec<Host>,
}

impl<'a> Choice<'a> {
    /// The file's, if that can be accepted.
    pub(super) fn make(options: &'a Options, resolver: &'a Resolver) -> Result<Self, Failure> {
        let earlier = memory::earlier(&options.state_dir);
        let file = config::fetch(&options.config);
        let text = file.as_ref().ok().map(Text::bytes);
        let unconfirmed = earlier.as_ref().and_then(|state| Unconfirmed::remembered(text, state));
        let hosts = earlier.map(|state| state.hosts).unwrap_or_default();
        let reader = Reader { options, resolver, hosts };
        let file = reader.accept(file.and_then(Text::parse));
        let chosen = Chosen::of(file, unconfirmed, |parsed| reader.accept(parsed))?;
        Ok(Self { chosen, reader })
    }

    /// No start can be made with it: the other one takes its place, or the start has failed.
    pub(super) fn go_on_after(&mut self, failure: Failure) -> Result<(), Failure> {
        self.chosen.go_on_after(failure, |parsed| self.reader.accept(parsed))
    }

    pub(super) const fn accepted(&self) -> &Accepted {
        &self.chosen.now
    }

    /// Why it isn't what the file says.
    pub(super) const fn taken_back(&self) -> Option<&TakenBack> {
        self.chosen.taken_back.as_ref()
    }

    /// Who was asked for host names.
    pub(super) const fn resolver(&self) -> &Resolver {
        self.reader.resolver
    }
}

impl<T> Chosen<T> {
    fn of(
        file: Result<T, Failure>,
        unconfirmed: Option<Unconfirmed>,
        accept: impl FnOnce(Result<Parsed, ConfigErrors>) -> Result<T, Failure>,
    ) -> Result<Self, Failure> {
        match (file, unconfirmed) {
            (Err(failure), None) => Err(failure),
            (Err(failure), Some(unconfirmed)) => unconfirmed.take_back(failure, accept),
            (Ok(file), Some(unconfirmed)) if unconfirmed.is_late => Ok(unconfirmed.end(file, accept)),
            (Ok(now), unconfirmed) => {
                Ok(Self { now, taken_back: None, other: unconfirmed.map(Other::Before), failed: None })
            }
        }
    }

    fn go_on_after(
        &mut self,
        failure: Failure,
        accept: impl FnOnce(Result<Parsed, ConfigErrors>) -> Result<T, Failure>,
    ) -> Result<(), Failure> {
        *self = match (self.failed.take(), self.other.take()) {
            (Some(first), _) => return Err(both(&first, self.taken_back.is_some(), &failure)),
            (None, None) => return Err(failure),
            (None, Some(Other::Before(unconfirmed))) => unconfirmed.take_back(failure, accept)?,
            (None, Some(Other::File(now))) => {
                tell(&failure);
                error!(
                    event = "reload",
                    "no start can be made with the configuration before the last reload, which nobody has confirmed: what the \
                     file says is tried"
                );
                Self { now, taken_back: None, other: None, failed: Some(failure) }
            }
        };
        Ok(())
    }
}

impl Reader<'_> {
    fn accept(&self, parsed: Result<Parsed, ConfigErrors>) -> Result<Accepted, Failure> {
        let Self { options, resolver, hosts } = self;
        let known = names::remembered(parsed.as_ref().ok(), hosts, &options.pin_dir);
        let asking = Asking::at_a_start(resolver, &known, &options.pin_dir);
        let accepted = accepted(parsed, &options.pin_dir, &asking)?;
        for warning in &accepted.config.warnings {
            warn!(event = "configuration", line = warning.line, "{}", warning.message);
        }
        Ok(accepted)
    }
}

impl Unconfirmed {
    /// In an earlier life. `file`: what it says, if that can be read.
    fn remembered(file: Option<&[u8]>, earlier: &State) -> Option<Self> {
        let waiting = earlier.confirmation.as_ref()?;
        let left = confirmation::time_left(waiting, earlier.age_at(&memory::boot_moment()));
        Self::of(file, waiting, left.is_zero())
    }

    fn of(file: Option<&[u8]>, waiting: &state::Confirmation, is_late: bool) -> Option<Self> {
        let state::Confirmation { of, before, .. } = waiting;
        let is_it = file.is_none_or(|text| state::digest(text) == *of);
        let is_another = state::digest(before.as_bytes()) != *of;
        (is_it && is_another).then(|| Self { of: of.clone(), before: before.clone(), is_late })
    }

    /// The configuration before, in the place of one with which the start fails.
    fn take_back<T>(
        self,
        failure: Failure,
        accept: impl FnOnce(Result<Parsed, ConfigErrors>) -> Result<T, Failure>,
    ) -> Result<Chosen<T>, Failure> {
        let now = match accept(config::parse(BEFORE, &self.before)) {
            Ok(accepted) => accepted,
            Err(second) => return Err(both(&failure, true, &second)),
        };
        let said = tell(&failure);
        error!(
            event = "reload",
            "no start can be made with what the file says, and nobody has confirmed the reload to it: the configuration before is \
             tried"
        );
        let why = Why::NoStart(said.lines().next().unwrap_or_default().to_owned());
        Ok(Chosen {
            now,
            taken_back: Some(TakenBack { of: self.of, why }),
            other: None,
            failed: Some(failure),
        })
    }

    /// The same, as the time is over; or else the file's.
    fn end<T>(
        self,
        file: T,
        accept: impl FnOnce(Result<Parsed, ConfigErrors>) -> Result<T, Failure>,
    ) -> Chosen<T> {
        match accept(config::parse(BEFORE, &self.before)) {
            Ok(now) => Chosen {
                now,
                taken_back: Some(TakenBack { of: self.of, why: Why::Late }),
                other: Some(Other::File(file)),
                failed: None,
            },
            Err(failure) => {
                tell(&failure);
                error!(
                    event = "reload",
                    "nobody has confirmed the last reload in time, but the configuration before it can't be used: what the file \
                     says stays"
                );
                Chosen { now: file, taken_back: None, other: None, failed: None }
            }
        }
    }
}

/// What ends a start that neither can be made with: the failure of the one that came first. `is_before`: the second one is the
/// configuration before.
fn both(first: &Failure, is_before: bool, second: &Failure) -> Failure {
    let which = if is_before {
        "the configuration before, to which it would go back as nobody has confirmed the last reload"
    } else {
        "what the file says"
    };
    Failure::new(first.exit, format_args!("{first}\nno start can be made either with {which}: {second}"))
}

/// Line by line.
fn tell(failure: &Failure) -> String {
    let said = failure.to_string();
    for line in said.lines() {
        error!(event = "reload", "{line}");
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::example::BASE;
    use crate::exit::Exit;

    const NEW: &[u8] = b"[gateway]\ninterfaces = [\"gone0\"]\n";
    const GONE: &str = "there is no interface gone0\nand more";

    fn waiting(is_late: bool) -> Option<Unconfirmed> {
        Unconfirmed::of(Some(NEW), &confirmation(), is_late)
    }

    fn confirmation() -> state::Confirmation {
        state::Confirmation { ends_in_ms: 1, of: state::digest(NEW), before: BASE.to_owned() }
    }

    fn failure(words: &str) -> Failure {
        Failure::new(Exit::Config, words)
    }

    fn accept(parsed: Result<Parsed, ConfigErrors>) -> Result<String, Failure> {
        Ok(parsed.unwrap().text().to_string())
    }

    fn refuse(_: Result<Parsed, ConfigErrors>) -> Result<String, Failure> {
        Err(Failure::new(Exit::Failed, "nor the other"))
    }

    fn file() -> Result<String, Failure> {
        Ok("the file's".to_owned())
    }

    fn told(chosen: &Chosen<String>) -> (&str, Option<&Why>) {
        if let Some(taken_back) = &chosen.taken_back {
            assert_eq!(taken_back.of, state::digest(NEW));
        }
        (&chosen.now, chosen.taken_back.as_ref().map(|taken_back| &taken_back.why))
    }

    #[test]
    fn only_what_waits_for_its_confirmation_is_taken_back() {
        let no_start = Why::NoStart("there is no interface gone0".to_owned());
        let chosen = |text: Option<&[u8]>| {
            let unconfirmed = Unconfirmed::of(text, &confirmation(), false);
            Chosen::of(Err(failure(GONE)), unconfirmed, accept)
        };
        assert_eq!(told(&chosen(Some(NEW)).unwrap()), (BASE, Some(&no_start)));
        assert_eq!(told(&chosen(None).unwrap()), (BASE, Some(&no_start)), "nobody can read anything else");
        let Err(failed) = chosen(Some(b"another word")) else { panic!("somebody else has written that") };
        assert!(failed.exit == Exit::Config && failed.to_string() == GONE, "{failed}");
        let Err(failed) = Chosen::of(Err(failure(GONE)), None, accept) else { panic!("nothing waits") };
        assert_eq!(failed.to_string(), GONE);
    }

    #[test]
    fn what_can_be_accepted_and_not_started_with_is_taken_back_too() {
        let mut chosen = Chosen::of(file(), waiting(false), accept).unwrap();
        assert_eq!(told(&chosen), ("the file's", None), "it may still be confirmed");
        chosen.go_on_after(failure("no native mode"), accept).unwrap();
        assert_eq!(told(&chosen), (BASE, Some(&Why::NoStart("no native mode".to_owned()))));
        let mut confirmed = Chosen::of(file(), None, accept).unwrap();
        let failed = confirmed.go_on_after(failure("no native mode"), accept).unwrap_err();
        assert_eq!(failed.to_string(), "no native mode");
    }

    #[test]
    fn what_nobody_confirmed_in_time_is_used_only_where_the_one_before_can_not_be() {
        let mut chosen = Chosen::of(file(), waiting(true), accept).unwrap();
        assert_eq!(told(&chosen), (BASE, Some(&Why::Late)));
        chosen.go_on_after(failure("no native mode"), accept).unwrap();
        assert_eq!(told(&chosen), ("the file's", None));
        assert!(chosen.go_on_after(failure("nor that"), accept).is_err());
        assert_eq!(told(&Chosen::of(file(), waiting(true), refuse).unwrap()), ("the file's", None));
    }

    #[test]
    fn where_no_start_can_be_made_with_either_the_first_ones_error_ends_it_and_the_second_is_named() {
        let is_both = |failed: &Failure, first: &str, second: &str| {
            let said = failed.to_string();
            assert!(
                failed.exit == Exit::Config && said.starts_with(first) && said.ends_with(second),
                "{said}"
            );
        };
        let Err(failed) = Chosen::of(Err(failure(GONE)), waiting(false), refuse) else { panic!("refused") };
        is_both(&failed, GONE, "nor the other");
        let second = || Failure::new(Exit::Failed, "nor can this be attached");
        let mut chosen = Chosen::of(Err(failure(GONE)), waiting(false), accept).unwrap();
        is_both(&chosen.go_on_after(second(), accept).unwrap_err(), GONE, "nor can this be attached");
        for is_late in [false, true] {
            let mut chosen = Chosen::of(file(), waiting(is_late), accept).unwrap();
            chosen.go_on_after(failure("no native mode"), accept).unwrap();
            let failed = chosen.go_on_after(second(), accept).unwrap_err();
            is_both(&failed, "no native mode", "nor can this be attached");
            assert_eq!(failed.to_string().contains("what the file says"), is_late, "{failed}");
        }
        let mut chosen = Chosen::of(file(), waiting(false), accept).unwrap();
        is_both(&chosen.go_on_after(failure(GONE), refuse).unwrap_err(), GONE, "nor the other");
    }
}
