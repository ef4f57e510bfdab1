//! Commands and what they come to. A key that is not known is refused, so that a misspelt `force` is never ignored.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What the operator wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Make a backend active.
    Failover(FailoverCommand),
    /// Return to the first eligible backend.
    Failback(FailbackCommand),
    /// No new flows for a backend.
    Drain(DrainCommand),
    /// No flows for a backend.
    Maint(MaintCommand),
    /// A backend back in.
    Ready(ReadyCommand),
    /// Go on from a failed hook.
    Resume(ResumeCommand),
}

/// A command as it is posted.
pub trait Order: Serialize + DeserializeOwned + Sync {
    /// Where it is posted to.
    const PATH: &'static str;

    /// One of all commands.
    fn command(self) -> Command;
}

/// The structs of commands: what is posted, where to, and what it is among all commands.
macro_rules! orders {
    ($($(#[$doc:meta])* $name:ident = $variant:ident at $path:literal {
        $($(#[$field_doc:meta])* $field:ident: $type:ty $(= $default:tt)?,)+
    })+) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            /// The pool's name.
            pub pool: String,
            $($(#[$field_doc])* $(#[serde($default)])? pub $field: $type,)+
        }

        impl Order for $name {
            const PATH: &'static str = $path;

            fn command(self) -> Command {
                Command::$variant(self)
            }
        }
    )+

        impl Command {
            /// The pool that it is about.
            #[must_use]
            pub fn pool(&self) -> &str {
                match self {
                    $(Self::$variant(asked) => &asked.pool,)+
                }
            }

            /// Whether to answer as soon as it is begun.
            #[must_use]
            pub const fn no_wait(&self) -> bool {
                match self {
                    $(Self::$variant(asked) => asked.no_wait,)+
                }
            }
        }
    };
}

orders! {
    /// `POST /v1/failover`: make a backend active now.
    FailoverCommand = Failover at "/v1/failover" {
        /// The backend's name; without it, the next eligible one after the active one.
        to: Option<String> = default,
        /// Go to it although it isn't eligible; named, it also gives up a change that is held.
        force: bool = default,
        /// End the flows of the one before.
        reset: bool = default,
        /// Answer as soon as it is begun.
        no_wait: bool = default,
    }
    /// `POST /v1/failback`: return to the first eligible backend in order.
    FailbackCommand = Failback at "/v1/failback" {
        /// Answer as soon as it is begun.
        no_wait: bool = default,
    }
    /// `POST /v1/drain`: no new flows for a backend; old ones may end.
    DrainCommand = Drain at "/v1/drain" {
        /// The backend's name.
        backend: String,
        /// Flows that are left after this are ended; the pool's `drain_deadline`, if not said.
        deadline_ms: Option<u64> = default,
        /// Though no other backend is eligible.
        force: bool = default,
        /// Answer as soon as it is begun.
        no_wait: bool = default,
    }
    /// `POST /v1/maint`: no flows for a backend.
    MaintCommand = Maint at "/v1/maint" {
        /// The backend's name.
        backend: String,
        /// Though no other backend is eligible.
        force: bool = default,
        /// Answer as soon as it is begun.
        no_wait: bool = default,
    }
    /// `POST /v1/ready`: a backend back in.
    ReadyCommand = Ready at "/v1/ready" {
        /// The backend's name.
        backend: String,
        /// Answer as soon as it is begun.
        no_wait: bool = default,
    }
    /// `POST /v1/resume`: go on from a failed hook.
    ResumeCommand = Resume at "/v1/resume" {
        /// Without it, rather than once more.
        skip: bool,
        /// Answer as soon as it is begun.
        no_wait: bool = default,
    }
}

impl Command {
    /// The backend that it names.
    #[must_use]
    pub fn backend(&self) -> Option<&str> {
        match self {
            Self::Failover(asked) => asked.to.as_deref(),
            Self::Drain(asked) => Some(&asked.backend),
            Self::Maint(asked) => Some(&asked.backend),
            Self::Ready(asked) => Some(&asked.backend),
            Self::Failback(_) | Self::Resume(_) => None,
        }
    }

    /// As it is typed on the command line, but for how it is waited for.
    #[must_use]
    pub fn typed(&self) -> String {
        let flag = |set: bool, flag: &'static str| if set { flag } else { "" };
        let pool = self.pool();
        match self {
            Self::Failover(asked) => {
                let to = asked.to.as_ref().map(|to| format!(" --to {to}")).unwrap_or_default();
                let (reset, force) = (flag(asked.reset, " --reset"), flag(asked.force, " --force"));
                format!("failover {pool}{to}{reset}{force}")
            }
            Self::Failback(_) => format!("failback {pool}"),
            Self::Drain(asked) => {
                let deadline = asked.deadline_ms.map(|ms| format!(" --deadline {ms}ms")).unwrap_or_default();
                format!("drain {pool} {}{deadline}{}", asked.backend, flag(asked.force, " --force"))
            }
            Self::Maint(asked) => format!("maint {pool} {}{}", asked.backend, flag(asked.force, " --force")),
            Self::Ready(asked) => format!("ready {pool} {}", asked.backend),
            Self::Resume(asked) => format!("resume {pool} {}", if asked.skip { "--skip" } else { "--retry" }),
        }
    }
}

/// What a command that was carried out came to.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Outcome {
    /// Whether something is another way now.
    pub changed: bool,
    /// The active backend now.
    pub active: Option<String>,
    /// The same as a sentence.
    pub message: String,
}

/// The body of every answer that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What went wrong, why, and what to do.
    pub error: String,
}
