//! The daemon's log: stderr, as text or JSON.
//!
//! A thread of its own writes it, and drops lines when nobody reads them fast enough: a full pipe must not stop the
//! probes. Nothing that came from the network gets here raw: whoever logs it has made it printable.

use std::io::IsTerminal;

use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

use super::LogFormat;

/// Lines that wait to be written: some seconds of the worst minute.
const WAITING_LINES: usize = 8192;

/// Starts the log; what waits is written when the guard is dropped. `BALANCER_LOG` chooses what is logged, as `RUST_LOG`
/// does elsewhere; INFO by default.
pub fn start(format: LogFormat) -> WorkerGuard {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .with_env_var("BALANCER_LOG")
        .from_env_lossy();
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(WAITING_LINES)
        .finish(std::io::stderr());
    // A log pipe that is closed must not end the daemon: complaining about it on stderr would.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(colour)
        .with_target(false)
        .log_internal_errors(false);
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    guard
}
