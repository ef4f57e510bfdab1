//! What a key asks for, in the words of the verb that does the same, and what follows from it.

use crate::cli::layout::printable;
use crate::control::client::{Client, ClientError};
use crate::control::protocol::{
    Backend, DrainCommand, FailbackCommand, FailbackPolicy, FailoverCommand, MaintCommand, Order as _,
    Outcome, Pool, ReadyCommand,
};

/// Something that changes a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Drain(DrainCommand),
    Maint(MaintCommand),
    Ready(ReadyCommand),
    Failover(FailoverCommand),
    Failback(FailbackCommand),
}

impl Action {
    /// What this key means for a pool, or for a backend of it; `None`: nothing.
    pub(super) fn of_key(key: char, pool: &Pool, backend: Option<&Backend>) -> Option<Self> {
        let of = pool.name.clone();
        let named = || backend.map(|backend| backend.name.clone());
        Some(match key {
            'd' => Self::Drain(DrainCommand {
                pool: of,
                backend: named()?,
                deadline_ms: None,
                force: false,
                no_wait: false,
            }),
            'm' => Self::Maint(MaintCommand { pool: of, backend: named()?, force: false, no_wait: false }),
            'r' => Self::Ready(ReadyCommand { pool: of, backend: named()?, no_wait: false }),
            'f' => Self::Failover(FailoverCommand {
                pool: of,
                // Where it is already is no place to go to.
                to: named().filter(|name| Some(name) != pool.active.as_ref()),
                force: false,
                reset: false,
                no_wait: false,
            }),
            'b' => Self::Failback(FailbackCommand { pool: of, no_wait: false }),
            _ => return None,
        })
    }

    /// As it is typed on the command line.
    pub(super) fn typed(&self) -> String {
        let command = match self.clone() {
            Self::Drain(order) => order.command(),
            Self::Maint(order) => order.command(),
            Self::Ready(order) => order.command(),
            Self::Failover(order) => order.command(),
            Self::Failback(order) => order.command(),
        };
        printable(&format!("balancer {}", command.typed()))
    }

    /// What follows from it, as things are.
    pub(super) fn consequences(&self, pool: &Pool) -> Vec<String> {
        let name = printable(&pool.name);
        let active = printable(pool.active.as_deref().unwrap_or("no backend"));
        let flows = |backend: &str| {
            let found = pool.backends.iter().find(|known| known.name == backend);
            found.map_or(0, |backend| backend.flows)
        };
        let moves = |backend: &str| {
            (pool.active.as_deref() == Some(backend))
                .then(|| "It serves now: another one becomes active first, hooks included.".to_owned())
        };
        match self {
            Self::Drain(order) => {
                let backend = printable(&order.backend);
                let mut told = vec![format!(
                    "{backend} gets no new flows. Its {} flows may end; those left at the pool's drain_deadline are reset.",
                    flows(&order.backend)
                )];
                told.extend(moves(&order.backend));
                told
            }
            Self::Maint(order) => {
                let backend = printable(&order.backend);
                let mut told = vec![format!(
                    "{backend} gets no new flows, and its {} flows are reset at once.",
                    flows(&order.backend)
                )];
                told.extend(moves(&order.backend));
                told
            }
            Self::Ready(order) => {
                let backend = printable(&order.backend);
                let then = match pool.failback {
                    FailbackPolicy::Manual => "Nothing moves by that.",
                    FailbackPolicy::Auto => "The pool goes back to it if it comes first and is up.",
                };
                vec![format!("{backend} may serve again. {then}")]
            }
            Self::Failover(order) => {
                let to = order.to.as_deref().map_or("the next eligible backend".to_owned(), printable);
                vec![
                    format!("New flows of {name} go to {to} instead of {active}, hooks included."),
                    format!(
                        "Flows of {active} go on, unless the pool has `before` hooks: then they are cut. It stays there until a failback."
                    ),
                ]
            }
            Self::Failback(_) => vec![
                format!("New flows of {name} go to the first eligible backend in order, hooks included."),
                format!("Flows of {active} go on, unless the pool has `before` hooks: then they are cut."),
            ],
        }
    }

    /// Waits until it is done.
    pub(super) async fn carry_out(&self, client: &Client) -> Result<Outcome, ClientError> {
        match self {
            Self::Drain(order) => client.tell(order).await,
            Self::Maint(order) => client.tell(order).await,
            Self::Ready(order) => client.tell(order).await,
            Self::Failover(order) => client.tell(order).await,
            Self::Failback(order) => client.tell(order).await,
        }
    }
}
