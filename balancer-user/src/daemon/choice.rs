//! Which configuration a start is made with: the file's. Or the one before it, where a reload to what the file says still waits for
//! its confirmation, and there can be no start with that; or where it was taken back before. Whoever may have locked himself out
//! waits for the one before.
//!
//! A time that has run out while there was no daemon takes nothing back here: a start knows backends by their names, and hands
//! nothing over. So who is active might be nobody's of the configuration before, or be elsewhere in it, and no hook would run. The
//! start is made with the file's, and a reload takes it back right behind it (`confirmation`).
//!
//! A file that says something else by now was written by somebody who is there: what is wrong with it ends the start, as ever. One
//! that can't be read says nothing. The file itself is left alone, and so is what is remembered of the reload, for the next start.
//! Deliberately not here: what a start is (`life`).

use tracing::{error, warn};

use crate::config::{self, ConfigErrors, Parsed, Text};
use crate::exit::Failure;
use crate::resolver::Resolver;
use crate::store::state::{self, Host, Why};

use super::accepted::{Accepted, Asking, accepted};
use super::reload::ROLL_BACK_AGAIN;
use super::{Options, memory, names};

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
    other: Option<Other>,
    /// Why no start can be made with the one in whose place it is.
    failed: Option<Failure>,
}

enum Other {
    /// Not asked for anything yet.
    File(Box<Result<Parsed, ConfigErrors>>),
    Before(Unconfirmed),
}

/// A reload that was taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TakenBack {
    /// The SHA-256, in hex, of the configuration that it had brought.
    pub(super) of: String,
    pub(super) why: Why,
    /// A person was called for it.
    pub(super) is_told: bool,
}

/// A reload to what the file says waits for its confirmation, or was taken back.
struct Unconfirmed {
    /// The digest of that.
    of: String,
    /// The configuration before.
    before: String,
    taken_back: Option<Why>,
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
        let remembered = earlier.as_ref().and_then(|state| state.confirmation.as_ref());
        let unconfirmed = remembered.and_then(|remembered| Unconfirmed::of(text, remembered));
        let hosts = earlier.map(|state| state.hosts).unwrap_or_default();
        let reader = Reader { options, resolver, hosts };
        let chosen = Chosen::of(file.and_then(Text::parse), unconfirmed, |parsed| reader.accept(parsed))?;
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
        file: Result<Parsed, ConfigErrors>,
        unconfirmed: Option<Unconfirmed>,
        accept: impl Fn(Result<Parsed, ConfigErrors>) -> Result<T, Failure>,
    ) -> Result<Self, Failure> {
        let Some(unconfirmed) = unconfirmed else {
            return Ok(Self { now: accept(file)?, taken_back: None, other: None, failed: None });
        };
        if let Some(why) = unconfirmed.taken_back.clone() {
            return unconfirmed.leave_taken_back(why, file, accept);
        }
        match accept(file) {
            Ok(now) => {
                Ok(Self { now, taken_back: None, other: Some(Other::Before(unconfirmed)), failed: None })
            }
            Err(failure) => unconfirmed.take_back(failure, accept),
        }
    }

    fn go_on_after(
        &mut self,
        failure: Failure,
        accept: impl Fn(Result<Parsed, ConfigErrors>) -> Result<T, Failure>,
    ) -> Result<(), Failure> {
        *self = match (self.failed.take(), self.other.take()) {
            (Some(first), _) => return Err(both(&first, self.taken_back.is_some(), &failure)),
            (None, None) => return Err(failure),
            (None, Some(Other::Before(unconfirmed))) => unconfirmed.take_back(failure, accept)?,
            (None, Some(Other::File(file))) => Self::file_after_all(*file, failure, accept)?,
        };
        Ok(())
    }

    /// What the file says, in the place of the configuration before with which the start fails.
    fn file_after_all(
        file: Result<Parsed, ConfigErrors>,
        failure: Failure,
        accept: impl Fn(Result<Parsed, ConfigErrors>) -> Result<T, Failure>,
    ) -> Result<Self, Failure> {
        let now = accept(file).map_err(|second| both(&failure, false, &second))?;
        tell(&failure);
        error!(
            event = "reload",
            "no start can be made with the configuration before the last reload, which was taken back: what the file says is tried; \
             once that runs, the one before is tried again every {ROLL_BACK_AGAIN:?} until it is back"
        );
        Ok(Self { now, taken_back: None, other: None, failed: Some(failure) })
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
    /// `file`: what it says, if that can be read.
    fn of(file: Option<&[u8]>, remembered: &state::Confirmation) -> Option<Self> {
        let state::Confirmation { of, before, taken_back, .. } = remembered.clone();
        let is_it = file.is_none_or(|text| state::digest(text) == of);
        let is_another = state::digest(before.as_bytes()) != of;
        (is_it && is_another).then_some(Self { of, before, taken_back })
    }

    /// The configuration before, in the place of one with which the start fails.
    fn take_back<T>(
        self,
        failure: Failure,
        accept: impl Fn(Result<Parsed, ConfigErrors>) -> Result<T, Failure>,
    ) -> Result<Chosen<T>, Failure> {
        let before = accept(config::parse(BEFORE, &self.before));
        let now = before.map_err(|second| both(&failure, true, &second))?;
        let said = tell(&failure);
        error!(
            event = "reload",
            "no start can be made with what the file says, and nobody has confirmed the reload to it: the configuration before is \
             tried"
        );
        let why = Why::NoStart(said.lines().next().unwrap_or_default().to_owned());
        Ok(Chosen {
            now,
            taken_back: Some(TakenBack { of: self.of, why, is_told: false }),
            other: None,
            failed: Some(failure),
        })
    }

    /// The same, as it was taken back before; or else the file's.
    fn leave_taken_back<T>(
        self,
        why: Why,
        file: Result<Parsed, ConfigErrors>,
        accept: impl Fn(Result<Parsed, ConfigErrors>) -> Result<T, Failure>,
    ) -> Result<Chosen<T>, Failure> {
        match accept(config::parse(BEFORE, &self.before)) {
            Ok(now) => Ok(Chosen {
                now,
                taken_back: Some(TakenBack { of: self.of, why, is_told: true }),
                other: Some(Other::File(Box::new(file))),
                failed: None,
            }),
            Err(failure) => Chosen::file_after_all(file, failure, accept),
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
    use crate::config::example::replaced;
    use crate::daemon::example::BASE;
    use crate::exit::Exit;

    const GONE: &str = "there is no interface gone0\nand more";

    type Accept = fn(Result<Parsed, ConfigErrors>) -> Result<String, Failure>;

    /// What the file says.
    fn new() -> String {
        replaced(&[("10.0.2.12", "10.0.2.13")])
    }

    fn file() -> Result<Parsed, ConfigErrors> {
        config::parse("file", &new())
    }

    fn remembered(taken_back: Option<Why>) -> state::Confirmation {
        // The time that is left has no say in it.
        let of = state::digest(new().as_bytes());
        state::Confirmation { ends_in_ms: 0, of, before: BASE.to_owned(), taken_back }
    }

    fn waiting() -> Option<Unconfirmed> {
        Unconfirmed::of(Some(new().as_bytes()), &remembered(None))
    }

    fn taken_back() -> Option<Unconfirmed> {
        Unconfirmed::of(Some(new().as_bytes()), &remembered(Some(Why::Late)))
    }

    fn failure(words: &str) -> Failure {
        Failure::new(Exit::Config, words)
    }

    fn accept(parsed: Result<Parsed, ConfigErrors>) -> Result<String, Failure> {
        Ok(parsed.unwrap().text().to_string())
    }

    fn only_before(parsed: Result<Parsed, ConfigErrors>) -> Result<String, Failure> {
        accept(parsed).and_then(|text| if text == BASE { Ok(text) } else { Err(failure(GONE)) })
    }

    fn only_file(parsed: Result<Parsed, ConfigErrors>) -> Result<String, Failure> {
        let nor = || Failure::new(Exit::Failed, "nor the other");
        accept(parsed).and_then(|text| if text == BASE { Err(nor()) } else { Ok(text) })
    }

    fn neither(parsed: Result<Parsed, ConfigErrors>) -> Result<String, Failure> {
        only_before(parsed).and_then(|_| Err(Failure::new(Exit::Failed, "nor the other")))
    }

    fn told(chosen: &Chosen<String>) -> (&str, Option<(&Why, bool)>) {
        if let Some(taken_back) = &chosen.taken_back {
            assert_eq!(taken_back.of, state::digest(new().as_bytes()));
        }
        (&chosen.now, chosen.taken_back.as_ref().map(|taken_back| (&taken_back.why, taken_back.is_told)))
    }

    fn fails(chosen: Result<Chosen<String>, Failure>) -> Failure {
        chosen.map(|chosen| chosen.now).unwrap_err()
    }

    #[test]
    fn only_what_waits_for_its_confirmation_is_taken_back() {
        let no_start = Why::NoStart("there is no interface gone0".to_owned());
        let chosen = |text: Option<&[u8]>| {
            Chosen::of(file(), Unconfirmed::of(text, &remembered(None)), only_before as Accept)
        };
        assert_eq!(told(&chosen(Some(new().as_bytes())).unwrap()), (BASE, Some((&no_start, false))));
        let nothing = chosen(None).unwrap();
        assert_eq!(told(&nothing), (BASE, Some((&no_start, false))), "nobody can read anything else");
        for unconfirmed in [Unconfirmed::of(Some(b"another word"), &remembered(None)), None] {
            let failed = fails(Chosen::of(file(), unconfirmed, only_before));
            assert!(failed.exit == Exit::Config && failed.to_string() == GONE, "{failed}");
        }
    }

    #[test]
    fn what_can_be_accepted_and_not_started_with_is_taken_back_too() {
        let mut chosen = Chosen::of(file(), waiting(), accept).unwrap();
        assert_eq!(told(&chosen), (&*new(), None), "whatever time is left: it may still be confirmed");
        chosen.go_on_after(failure("no native mode"), accept).unwrap();
        assert_eq!(told(&chosen), (BASE, Some((&Why::NoStart("no native mode".to_owned()), false))));
        let mut confirmed = Chosen::of(file(), None, accept).unwrap();
        let failed = confirmed.go_on_after(failure("no native mode"), accept).unwrap_err();
        assert_eq!(failed.to_string(), "no native mode");
    }

    #[test]
    fn what_was_taken_back_is_not_even_looked_at_unless_the_one_before_can_not_be_used() {
        let chosen = Chosen::of(file(), taken_back(), only_before).unwrap();
        assert_eq!(told(&chosen), (BASE, Some((&Why::Late, true))), "that is known, and it stays");
        let mut chosen = Chosen::of(file(), taken_back(), accept).unwrap();
        chosen.go_on_after(failure("no native mode"), accept).unwrap();
        assert_eq!(told(&chosen), (&*new(), None));
        assert!(chosen.go_on_after(failure("nor that"), accept).is_err());
        assert_eq!(told(&Chosen::of(file(), taken_back(), only_file).unwrap()), (&*new(), None));
    }

    #[test]
    fn where_no_start_can_be_made_with_either_the_first_ones_error_ends_it_and_the_second_is_named() {
        let is_both = |failed: &Failure, first: &str, second: &str| {
            let said = failed.to_string();
            assert!(said.starts_with(first) && said.ends_with(second), "{said}");
        };
        let failed = fails(Chosen::of(file(), waiting(), neither));
        is_both(&failed, GONE, "nor the other");
        assert!(failed.exit == Exit::Config, "the first one's");
        is_both(&fails(Chosen::of(file(), taken_back(), |_| Err(failure("no")))), "no", "no");
        let second = || Failure::new(Exit::Failed, "nor can this be attached");
        let mut chosen = Chosen::of(file(), waiting(), only_before).unwrap();
        is_both(&chosen.go_on_after(second(), accept).unwrap_err(), GONE, "nor can this be attached");
        for (unconfirmed, is_file) in [(waiting(), false), (taken_back(), true)] {
            let mut chosen = Chosen::of(file(), unconfirmed, accept).unwrap();
            chosen.go_on_after(failure("no native mode"), accept).unwrap();
            let failed = chosen.go_on_after(second(), accept).unwrap_err();
            is_both(&failed, "no native mode", "nor can this be attached");
            assert_eq!(failed.to_string().contains("what the file says"), is_file, "{failed}");
        }
        let mut chosen = Chosen::of(file(), waiting(), accept).unwrap();
        is_both(&chosen.go_on_after(failure(GONE), only_file).unwrap_err(), GONE, "nor the other");
        let mut chosen = Chosen::of(file(), taken_back(), accept).unwrap();
        is_both(&chosen.go_on_after(failure("no"), only_before).unwrap_err(), "no", GONE);
    }
}
