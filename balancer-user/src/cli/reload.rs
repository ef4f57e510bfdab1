//! `balancer reload`: what is another way now, one line for each difference; or why nothing is.

use super::layout::printable;
use super::{Output, Paths, ReloadArgs, ask};
use crate::control::client::Client;
use crate::control::protocol::{ReloadCommand, Reloaded};
use crate::exit::{self, Exit, Failure};

/// Has the daemon read its configuration once more, and waits until that is done.
///
/// # Errors
/// No answer, no permission, an invalid configuration, or refused with the daemon's reason.
pub fn run(paths: &Paths, arguments: &ReloadArgs, output: Output) -> Result<Exit, Failure> {
    let command = ReloadCommand {
        confirm_ms: arguments.confirm.map(|within| u64::try_from(within.as_millis()).unwrap_or(u64::MAX)),
        confirmed: arguments.confirmed,
        no_wait: arguments.no_wait,
    };
    let reloaded = ask::wait(Client::new(&paths.socket).reload(&command))?;
    let text = match output {
        Output::Json => ask::json(&reloaded)?,
        Output::Table => lines(&reloaded, arguments.confirmed || arguments.no_wait),
    };
    exit::print(&text)?;
    Ok(Exit::Ok)
}

fn lines(reloaded: &Reloaded, is_only_a_message: bool) -> String {
    let mut lines = vec![printable(&reloaded.message)];
    if reloaded.changes.is_empty() && !is_only_a_message {
        lines.push("nothing changed".to_owned());
    }
    lines.extend(reloaded.changes.iter().map(|change| printable(change)));
    lines.extend(reloaded.pending.iter().map(|pending| format!("pending: {}", printable(pending))));
    lines.push(String::new());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_difference_is_a_line_and_none_is_said_too() {
        let mut reloaded = Reloaded {
            config_generation: 2,
            changes: Vec::new(),
            pending: Vec::new(),
            confirm_until: None,
            message: "configuration generation 2 is accepted".to_owned(),
        };
        assert_eq!(lines(&reloaded, false), "configuration generation 2 is accepted\nnothing changed\n");
        assert_eq!(lines(&reloaded, true), "configuration generation 2 is accepted\n");
        reloaded.changes = vec!["pool a added".to_owned(), "pool b\u{1b}[2J removed".to_owned()];
        reloaded.pending = vec!["something".to_owned()];
        let wanted = "configuration generation 2 is accepted\npool a added\npool b\\u{1b}[2J removed\npending: something\n";
        assert_eq!(lines(&reloaded, false), wanted);
    }
}
