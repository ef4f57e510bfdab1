//! What a client's connection that its backend did not take says, and what becomes of it.

use super::super::{Check, ConnectRetry, Failover, Passive, Pool};
use super::Text;
use crate::duration::Shown;

pub(super) fn explain(pool: &Pool, text: &mut Text) {
    let retry = retry(pool);
    if pool.passive == Passive::Off && pool.connect_retry == ConnectRetry::Off {
        text.line(1, "A client's connection that its backend refuses or does not answer has no consequence.");
        return;
    }
    let which = format!(
        "A client's connection that its backend refuses, or does not answer within {},",
        Shown(pool.connect_timeout)
    );
    text.line(1, format!("{which} {}. {retry}", says(pool)));
}

fn says(pool: &Pool) -> &'static str {
    let is_probed = pool.services.iter().any(|service| service.probe.check != Check::None);
    match pool.passive {
        Passive::Probe if is_probed => "has that backend probed at once",
        Passive::Probe => "would have that backend probed, but no service is",
        Passive::Count => {
            "counts as a failure of that backend, if there are two or more and none was answered in the last 100ms"
        }
        Passive::Off => "says nothing of that backend",
    }
}

fn retry(pool: &Pool) -> &'static str {
    match pool.connect_retry {
        ConnectRetry::Off => "Its client sees that it failed.",
        _ if pool.failover == Failover::Manual => {
            "It goes on to no other, as the pool would not by itself: its client sees that it failed."
        }
        _ if pool.has_steps() => "It waits for the pool to change, and goes on then.",
        ConnectRetry::Instant => "It goes on to the next backend at once, and its client does not see it.",
        ConnectRetry::Retransmit => "It goes on to the next backend when its client repeats it.",
    }
}
