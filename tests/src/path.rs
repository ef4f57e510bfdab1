//! Measures whole paths: a client, a gateway and a backend on virtual cables, and on the gateway balancer or one of its
//! peers: the kernel's routing, its NAT, nginx and HAProxy; and the path that leaves the gateway out.
//!
//! Everybody has the same lab, the same offloads and the same clients (`plain/`), one after the other and round after
//! round. Deliberately not here: a judgement. The report says what is wanted beside what is; small and busy machines
//! measure the other work on them as well.

mod cables;
mod direct;
pub(crate) mod machine;
mod measure;
mod metric;
mod programs;
mod report;
mod samples;
mod stand;
mod subject;
mod turn;

pub use cables::Cables;
pub use measure::{Plan, measure};
pub use metric::Metric;
pub use programs::Programs;
pub use report::{PREFACE, report};
pub use samples::{Attempts, Middle, Samples};
pub use stand::Stand;
pub use subject::Subject;
