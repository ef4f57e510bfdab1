//! The verbs that change something: one line about what came of it.

use super::{
    DrainArgs, FailbackArgs, FailoverArgs, MaintArgs, Output, Paths, ReadyArgs, ResumeArgs, ask, layout,
};
use crate::control::client::Client;
use crate::control::protocol::{
    DrainCommand, FailbackCommand, FailoverCommand, MaintCommand, Order, ReadyCommand, ResumeCommand,
};
use crate::exit::{self, Exit, Failure};

/// What a verb of the command line asks for.
pub trait Asks {
    /// As it is posted.
    type Order: Order;

    /// Out of what was typed.
    fn order(&self) -> Self::Order;
}

/// Has it carried out, and waits until it is, unless told not to.
///
/// # Errors
/// No answer, no permission, or refused with the daemon's reason.
pub fn operate(paths: &Paths, arguments: &impl Asks, output: Output) -> Result<Exit, Failure> {
    let outcome = ask::wait(Client::new(&paths.socket).tell(&arguments.order()))?;
    let text = match output {
        Output::Json => ask::json(&outcome)?,
        Output::Table => format!("{}\n", layout::printable(&outcome.message)),
    };
    exit::print(&text)?;
    Ok(Exit::Ok)
}

impl Asks for FailoverArgs {
    type Order = FailoverCommand;

    fn order(&self) -> FailoverCommand {
        FailoverCommand {
            pool: self.pool.clone(),
            to: self.to.clone(),
            force: self.force,
            reset: self.reset,
            no_wait: self.wait.no_wait,
        }
    }
}

impl Asks for FailbackArgs {
    type Order = FailbackCommand;

    fn order(&self) -> FailbackCommand {
        FailbackCommand { pool: self.pool.clone(), no_wait: self.wait.no_wait }
    }
}

impl Asks for DrainArgs {
    type Order = DrainCommand;

    fn order(&self) -> DrainCommand {
        DrainCommand {
            pool: self.pool.clone(),
            backend: self.backend.clone(),
            deadline_ms: self
                .deadline
                .map(|deadline| u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX)),
            force: self.force,
            no_wait: self.wait.no_wait,
        }
    }
}

impl Asks for MaintArgs {
    type Order = MaintCommand;

    fn order(&self) -> MaintCommand {
        MaintCommand {
            pool: self.pool.clone(),
            backend: self.backend.clone(),
            force: self.force,
            no_wait: self.wait.no_wait,
        }
    }
}

impl Asks for ReadyArgs {
    type Order = ReadyCommand;

    fn order(&self) -> ReadyCommand {
        ReadyCommand { pool: self.pool.clone(), backend: self.backend.clone(), no_wait: self.wait.no_wait }
    }
}

impl Asks for ResumeArgs {
    type Order = ResumeCommand;

    fn order(&self) -> ResumeCommand {
        ResumeCommand { pool: self.pool.clone(), skip: self.how.skip, no_wait: self.wait.no_wait }
    }
}
