//! `[[pool.hook]]`: a step around a change of the active backend.

use std::time::Duration;

use super::limits::SHORTEST_DURATION;
use super::problem::{Fault, quoted};
use super::source::Located;
use super::table::Table;
use super::{Hook, HookWhen, OnError, names};

/// Long enough to promote a database, short enough for those who wait.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A hook as written, with the place of what must be unique.
#[derive(Debug)]
pub(super) struct HookKeys {
    pub(super) name: Option<Located<String>>,
    /// None when it is missing or wrong.
    pub(super) when: Option<HookWhen>,
    run: Option<crate::program::CommandLine>,
    timeout: Duration,
    on_error: OnError,
}

impl HookKeys {
    pub(super) fn read(mut table: Table<'_>) -> Self {
        const RUN_EXAMPLE: &str = "run = [\"/etc/balancer/hooks/promote\"]";
        let name = table.required_text("name", "name = \"promote the standby database\"", title);
        if !table.has("when") {
            table.missing("when", "when = \"before\" or when = \"after\"");
        }
        let when = table.choice("when", &[("before", HookWhen::Before), ("after", HookWhen::After)]);
        if !table.has("run") {
            table.missing("run", RUN_EXAMPLE);
        }
        let run = names::command(&mut table, "run");
        let timeout = table.duration("timeout", SHORTEST_DURATION);
        let on_error = table.choice("on_error", &[("hold", OnError::Hold), ("continue", OnError::Continue)]);
        table.finish();
        Self {
            name,
            when: when.map(|when| when.value),
            run,
            timeout: timeout.map_or(TIMEOUT, |timeout| timeout.value),
            on_error: on_error.map_or(OnError::Hold, |on_error| on_error.value),
        }
    }

    /// The hook; none where an error was noted.
    pub(super) fn into_hook(self) -> Option<Hook> {
        Some(Hook {
            name: self.name?.value,
            when: self.when?,
            run: self.run?,
            timeout: self.timeout,
            on_error: self.on_error,
        })
    }
}

/// A hook's name is a sentence for people: spaces are allowed, control characters are not.
fn title(written: &str) -> Result<String, Fault> {
    const CHARS: usize = 100;
    if written.trim().is_empty() || written.contains(char::is_control) || written.chars().nth(CHARS).is_some()
    {
        return Err(Fault::new(
            format!("{} can't name a hook", quoted(written)),
            format!("write 1 to {CHARS} characters on one line that say what it does"),
        ));
    }
    Ok(written.to_owned())
}
