//! `[[pool.hook]]`: a step around a change of the active backend. Checked, and then refused as not supported yet.

use super::limits::SHORTEST_DURATION;
use super::names;
use super::problem::Fault;
use super::problem::quoted;
use super::table::Table;

/// When a hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HookWhen {
    /// Before anything new reaches the new backend.
    Before,
    /// Once it is active.
    After,
}

/// Reads one hook; none when it says wrongly when it runs.
pub(super) fn read(mut table: Table<'_>) -> Option<HookWhen> {
    const RUN_EXAMPLE: &str = "run = [\"/etc/balancer/hooks/promote\"]";
    table.required_text("name", "name = \"promote the standby database\"", title);
    if !table.has("when") {
        table.missing("when", "when = \"before\" or when = \"after\"");
    }
    let when = table.choice("when", &[("before", HookWhen::Before), ("after", HookWhen::After)]);
    if !table.has("run") {
        table.missing("run", RUN_EXAMPLE);
    }
    names::command(&mut table, "run");
    table.duration("timeout", SHORTEST_DURATION);
    table.choice("on_error", &[("hold", ()), ("continue", ())]);
    table.finish();
    when.map(|when| when.value)
}

/// A hook's name is a sentence for people: spaces are allowed, control characters are not.
fn title(written: &str) -> Result<(), Fault> {
    const CHARS: usize = 100;
    if written.trim().is_empty() || written.contains(char::is_control) || written.chars().nth(CHARS).is_some()
    {
        return Err(Fault::new(
            format!("{} can't name a hook", quoted(written)),
            format!("write 1 to {CHARS} characters on one line that say what it does"),
        ));
    }
    Ok(())
}
