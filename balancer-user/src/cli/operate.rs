//! `balancer failover` and `balancer failback`: one line about what came of it.

use super::{FailbackArgs, FailoverArgs, Output, Paths, ask, layout};
use crate::control::client::Client;
use crate::control::protocol::{FailbackCommand, FailoverCommand, Outcome};
use crate::exit::{self, Exit, Failure};

/// Makes another backend active, and waits until it is.
///
/// # Errors
/// No answer, no permission, or refused with the daemon's reason.
pub fn failover(paths: &Paths, arguments: &FailoverArgs, output: Output) -> Result<Exit, Failure> {
    let command =
        FailoverCommand { pool: arguments.pool.clone(), to: arguments.to.clone(), force: arguments.force };
    let outcome = ask::wait(Client::new(&paths.socket).failover(&command))?;
    tell(&outcome, output)
}

/// Returns to the first eligible backend in order, and waits until it is active.
///
/// # Errors
/// As [`failover`].
pub fn failback(paths: &Paths, arguments: &FailbackArgs, output: Output) -> Result<Exit, Failure> {
    let command = FailbackCommand { pool: arguments.pool.clone() };
    let outcome = ask::wait(Client::new(&paths.socket).failback(&command))?;
    tell(&outcome, output)
}

fn tell(outcome: &Outcome, output: Output) -> Result<Exit, Failure> {
    let text = match output {
        Output::Json => ask::json(outcome)?,
        Output::Table => format!("{}\n", layout::printable(&outcome.message)),
    };
    exit::print(&text)?;
    Ok(Exit::Ok)
}
