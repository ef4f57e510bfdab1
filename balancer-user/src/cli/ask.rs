//! From a verb, which blocks, to the client, which doesn't; and the one moment at which a verb reads the clock.

use std::time::SystemTime;

use super::layout;
use crate::control::client::ClientError;
use crate::control::protocol::Timestamp;
use crate::exit::{Exit, Failure};

/// Waits for the daemon's answer; the client bounds how long.
pub(super) fn wait<T, E>(answer: impl Future<Output = Result<T, E>>) -> Result<T, Failure>
where
    Failure: From<E>,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Failed, format_args!("cannot wait for the daemon: {error}")))?;
    Ok(runtime.block_on(answer)?)
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let exit = match error {
            ClientError::NoDaemon { .. } => Exit::NoDaemon,
            ClientError::Permission { .. } | ClientError::Forbidden(_) => Exit::Permission,
            ClientError::Invalid(_) => Exit::Config,
            ClientError::Refused(_)
            | ClientError::Late { .. }
            | ClientError::Dropped
            | ClientError::Version { .. }
            | ClientError::Broken { .. } => Exit::Failed,
        };
        // Errors of a configuration come with the lines that they are about.
        let text = error.to_string();
        let lines: Vec<String> = match error {
            ClientError::Invalid(_) => text.lines().map(layout::printable).collect(),
            _ => vec![layout::printable(&text)],
        };
        Self::new(exit, lines.join("\n"))
    }
}

/// A document as text, as it came over the socket but for the indentation.
pub(super) fn json(document: &impl serde::Serialize) -> Result<String, Failure> {
    let mut text = serde_json::to_string_pretty(document)
        .map_err(|error| Failure::new(Exit::Failed, format_args!("cannot write JSON: {error}")))?;
    text.push('\n');
    Ok(text)
}

/// One of many documents: on a line of its own.
pub(super) fn json_line(document: &impl serde::Serialize) -> Result<String, Failure> {
    let mut text = serde_json::to_string(document)
        .map_err(|error| Failure::new(Exit::Failed, format_args!("cannot write JSON: {error}")))?;
    text.push('\n');
    Ok(text)
}

/// For telling how old an answer is.
pub(super) fn now() -> Timestamp {
    Timestamp::from(SystemTime::now())
}
