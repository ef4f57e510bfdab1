//! What happened, for those who ask: read by a thread of the store's, so that the loop never waits for it.

use std::time::SystemTime;

use tokio::sync::oneshot;

use crate::control::protocol::{EventsQuery, Why, WhyQuery, WhySchema};
use crate::control::server::Told;
use crate::policy::PoolIndex;
use crate::store::Past;

use super::Daemon;

impl Daemon {
    /// Tells what happened, and lets whoever follows hear what happens.
    pub(super) fn tell_events(&mut self, query: EventsQuery, reply: oneshot::Sender<Result<Told, String>>) {
        let live = if query.follow { self.journal.follow() } else { None };
        if query.follow && live.is_none() {
            // Who asked may be gone.
            let _ = reply.send(Err("as many follow the events as may at once: end one of them".to_owned()));
            return;
        }
        let known = self.pool_names();
        self.store.read(move |past| {
            let past = read(past, |past| past.newest(query.pool.as_deref(), query.limit));
            let told = past.and_then(|past| match query.pool {
                // A pool that was configured once has a past.
                Some(pool) if past.is_empty() && query.limit > 0 && !known.contains(&pool) => {
                    Err(unknown(&pool, &known))
                }
                _ => Ok(Told { as_of: SystemTime::now().into(), past, live }),
            });
            let _ = reply.send(told);
        });
    }

    /// Tells what led to a pool's active backend.
    pub(super) fn tell_why(&self, query: WhyQuery, reply: oneshot::Sender<Result<Why, String>>) {
        let known = self.pool_names();
        let Some(index) = known.iter().position(|pool| *pool == query.pool) else {
            let _ = reply.send(Err(unknown(&query.pool, &known)));
            return;
        };
        let view = self.policy.snapshot(PoolIndex(index), self.clock.now());
        let backends = &self.parts.config.pools[index].backends;
        let [active, holder] =
            [view.active, view.holder].map(|one| one.map(|one| backends[one.0].name.clone()));
        self.store.read(move |past| {
            let chain = holder.as_ref().map(|holder| read(past, |past| past.why(&query.pool, holder)));
            let why = chain.unwrap_or_else(|| Ok(Vec::new())).map(|chain| Why {
                schema: WhySchema::V1,
                as_of: SystemTime::now().into(),
                pool: query.pool,
                active,
                chain,
            });
            let _ = reply.send(why);
        });
    }

    pub(super) fn pool_names(&self) -> Vec<String> {
        self.parts.config.pools.iter().map(|pool| pool.name.clone()).collect()
    }
}

fn unknown(pool: &str, known: &[String]) -> String {
    format!("there is no pool {pool:?}; there is {}", known.join(", "))
}

fn read<T>(past: Option<&Past<'_>>, read: impl FnOnce(&Past<'_>) -> std::io::Result<T>) -> Result<T, String> {
    let past = past.ok_or("too many ask for the journal at once, or its disk does not answer")?;
    read(past).map_err(|error| format!("the journal in the state directory can't be read: {error}"))
}
