//! What runs around a change of the backend that serves.

use super::super::{Hook, HookWhen, OnError, Pool};
use super::{Text, command};
use crate::duration::Shown;

pub(super) fn explain(pool: &Pool, text: &mut Text) {
    if pool.has_steps() {
        text.line(
            1,
            "Before another backend serves, all flows of the others are cut and new ones wait, while these run, one by one:",
        );
        steps(pool, HookWhen::Before, text);
    }
    if pool.hooks.iter().any(|hook| hook.when == HookWhen::After) {
        text.line(1, "Once another backend serves, these run, one by one:");
        steps(pool, HookWhen::After, text);
    }
}

fn steps(pool: &Pool, when: HookWhen, text: &mut Text) {
    for (place, hook) in pool.hooks.iter().filter(|hook| hook.when == when).enumerate() {
        let Hook { name, run, timeout, on_error, .. } = hook;
        let failed = match (on_error, when) {
            (OnError::Hold, HookWhen::Before) => {
                format!("If it fails, new flows wait until `balancer resume {}`.", pool.name)
            }
            (OnError::Hold, HookWhen::After) => {
                format!("If it fails, those behind it wait for `balancer resume {}`.", pool.name)
            }
            (OnError::Continue, _) => "If it fails, the next step follows all the same.".to_owned(),
        };
        text.line(
            2,
            format!("{}. {name}: {}, for {} at most. {failed}", place + 1, command(run), Shown(*timeout)),
        );
    }
}
