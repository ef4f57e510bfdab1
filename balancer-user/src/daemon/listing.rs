//! Listing flows: slots become names, and what isn't wanted is left out. What a listing needs is copied when it is asked
//! for, so that it can be made beside the loop.
//!
//! What is deliberately not here: an order. Flows come as they stand in the tables; whoever wants them sorted sorts them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::SystemTime;

use tokio::sync::oneshot;

use crate::control::listing::{Listing, ListingWriter};
use crate::control::protocol::{Flow, FlowState, FlowsQuery};
use crate::dataplane::flows::{self, FlowTable};
use crate::policy::Refusal;

use super::leaving::{Leaving, Slot};
use super::parts::Parts;

/// A name, and its pool's, by slot.
pub(super) type Names = BTreeMap<u16, (String, String)>;

/// Which flows are wanted, and what is at the slots that they refer to.
pub(super) struct Wanted {
    query: FlowsQuery,
    services: Names,
    backends: Names,
}

/// What a listing is made from, for somebody who waits for it.
pub(super) struct Order {
    wanted: Wanted,
    reply: oneshot::Sender<Result<Listing, String>>,
}

impl Order {
    /// A query that names what there isn't is refused, and answered at once.
    pub(super) fn new(
        parts: &Parts,
        leaving: &Leaving,
        query: FlowsQuery,
        reply: oneshot::Sender<Result<Listing, String>>,
    ) -> Option<Self> {
        let (mut services, mut backends) = (Names::new(), Names::new());
        for (pool, slots) in parts.config.pools.iter().zip(&parts.slots) {
            let name = |name: &String| (pool.name.clone(), name.clone());
            let named = pool.services.iter().zip(&slots.services);
            services.extend(named.map(|(service, slot)| (slot.index, name(&service.name))));
            let named = pool.backends.iter().zip(&slots.backends);
            backends.extend(named.map(|(backend, slot)| (slot.index, name(&backend.name))));
        }
        // Whoever has left the configuration has flows for a while.
        for (slot, leaver) in leaving.all() {
            let (of, slot) = match slot {
                Slot::Service(slot) => (&mut services, slot),
                Slot::Backend(slot) => (&mut backends, slot),
            };
            of.insert(*slot, (leaver.pool.clone(), leaver.name.clone()));
        }
        let pools = parts.config.pools.iter().map(|pool| pool.name.as_str());
        let pools = pools.chain(leaving.all().map(|(_, leaver)| leaver.pool.as_str()));
        match Wanted::new(query, services, backends, pools) {
            Ok(wanted) => Some(Self { wanted, reply }),
            Err(reason) => {
                // Who asked may be gone.
                let _ = reply.send(Err(reason));
                None
            }
        }
    }

    pub(super) fn is_gone(&self) -> bool {
        self.reply.is_closed()
    }

    /// Walks over the flows and answers.
    pub(super) fn carry_out(self, table: &FlowTable) {
        let listing = self.wanted.list(|| self.is_gone(), |visit| table.for_each(visit));
        let _ = self.reply.send(listing);
    }
}

impl Wanted {
    /// # Errors
    /// It names what there isn't among these.
    pub(super) fn new<'a>(
        query: FlowsQuery,
        services: Names,
        backends: Names,
        pools: impl Iterator<Item = &'a str>,
    ) -> Result<Self, String> {
        check(&query, pools, &backends)?;
        Ok(Self { query, services, backends })
    }

    /// Nothing more is added to a listing that has become too long, or that nobody waits for any more.
    pub(super) fn list(
        &self,
        is_gone: impl Fn() -> bool,
        walk: impl FnOnce(&mut dyn FnMut(flows::Flow)),
    ) -> Result<Listing, String> {
        let mut writer = ListingWriter::new(SystemTime::now().into());
        let mut failed = None;
        self.each(walk, &mut |flow| match writer.push(&flow) {
            Ok(is_at_a_piece) => !(is_at_a_piece && is_gone()),
            Err(error) => {
                failed = Some(error.to_string());
                false
            }
        });
        failed.map_or_else(|| Ok(writer.finish()), Err)
    }

    /// Has those flows of a walk visited that are wanted, until it says that no more are.
    pub(super) fn each(
        &self,
        walk: impl FnOnce(&mut dyn FnMut(flows::Flow)),
        visit: &mut dyn FnMut(Flow<'_>) -> bool,
    ) {
        let mut left = self.query.limit.unwrap_or(u64::MAX);
        walk(&mut |flow| {
            if left == 0 {
                return;
            }
            let flow = self.named(&flow);
            if self.is_wanted(&flow) {
                left = if visit(flow) { left - 1 } else { 0 };
            }
        });
    }

    fn named(&self, flow: &flows::Flow) -> Flow<'_> {
        let service = self.services.get(&flow.service);
        let backend = self.backends.get(&flow.backend);
        Flow {
            client: flow.client,
            pool: service.or(backend).map(|(pool, _)| Cow::Borrowed(pool.as_str())),
            service: service.map_or_else(
                || Cow::Owned(flow.listen.to_string()),
                |(_, service)| Cow::Borrowed(service.as_str()),
            ),
            backend: backend.map(|(_, backend)| Cow::Borrowed(backend.as_str())),
            state: match flow.state {
                flows::FlowState::HalfOpen => FlowState::HalfOpen,
                flows::FlowState::Established => FlowState::Established,
                flows::FlowState::Closing => FlowState::Closing,
            },
            age_s: flow.age.as_secs(),
            idle_s: flow.idle.as_secs(),
            packets: flow.packets,
            bytes: flow.bytes,
        }
    }

    fn is_wanted(&self, flow: &Flow<'_>) -> bool {
        let FlowsQuery { pool, backend, client, limit: _ } = &self.query;
        let is = |wanted: &Option<String>, found: &Option<Cow<'_, str>>| {
            wanted.as_ref().is_none_or(|wanted| found.as_deref() == Some(wanted))
        };
        let is_client = |wanted: &IpAddr| wanted.to_canonical() == flow.client.ip();
        is(pool, &flow.pool) && is(backend, &flow.backend) && client.as_ref().is_none_or(is_client)
    }
}

/// Whether there is what the query names.
fn check<'a>(
    query: &FlowsQuery,
    mut pools: impl Iterator<Item = &'a str>,
    backends: &Names,
) -> Result<(), String> {
    if let Some(pool) = &query.pool
        && !pools.any(|known| known == pool)
    {
        return Err(Refusal::UnknownPool { pool: pool.clone() }.to_string());
    }
    let Some(wanted) = &query.backend else { return Ok(()) };
    let of_pool =
        || backends.values().filter(|(pool, _)| query.pool.as_ref().is_none_or(|wanted| wanted == pool));
    if of_pool().any(|(_, backend)| backend == wanted) {
        return Ok(());
    }
    Err(match &query.pool {
        Some(pool) => {
            let known = of_pool().map(|(_, backend)| backend.clone()).collect();
            Refusal::UnknownBackend { pool: pool.clone(), backend: wanted.clone(), known }.to_string()
        }
        None => format!("no pool has a backend {wanted:?}; `balancer status` lists them"),
    })
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use serde_json::Value;

    use super::*;

    const LISTEN: &str = "203.0.113.10:443";

    fn names(slots: &[(u16, &str, &str)]) -> Names {
        slots.iter().map(|(slot, pool, name)| (*slot, ((*pool).to_owned(), (*name).to_owned()))).collect()
    }

    /// Two pools with backends of the same names.
    fn backends() -> Names {
        names(&[(1, "mails", "server1"), (2, "mails", "server2"), (3, "passwords", "server1")])
    }

    fn query(text: &str) -> FlowsQuery {
        FlowsQuery::parse(text).unwrap()
    }

    fn flow(client: &str, service: u16, backend: u16) -> flows::Flow {
        flows::Flow {
            client: SocketAddr::new(client.parse().unwrap(), 40_000),
            listen: LISTEN.parse().unwrap(),
            service,
            backend,
            state: flows::FlowState::Established,
            age: Duration::from_millis(2_900),
            idle: Duration::from_millis(999),
            packets: 10,
            bytes: 1_000,
        }
    }

    /// The flows that are listed of these.
    fn listed(text: &str, flows: &[flows::Flow]) -> Vec<Value> {
        let services = names(&[(1, "mails", "imap"), (2, "passwords", "web")]);
        let wanted = Wanted { query: query(text), services, backends: backends() };
        let listing = wanted.list(|| false, |visit| flows.iter().cloned().for_each(visit)).unwrap();
        let document: Value = serde_json::from_slice(&listing.to_bytes()).unwrap();
        document["flows"].as_array().unwrap().clone()
    }

    #[test]
    fn a_flow_is_told_by_the_names_of_its_slots() {
        let flows = listed("", &[flow("192.0.2.7", 2, 3)]);
        let wanted = serde_json::json!([{ "client": "192.0.2.7:40000", "pool": "passwords", "service": "web",
            "backend": "server1", "state": "established", "age_s": 2, "idle_s": 0, "packets": 10, "bytes": 1000 }]);
        assert_eq!(Value::from(flows), wanted);
    }

    #[test]
    fn what_is_not_configured_any_more_is_told_by_the_flows_own_key() {
        let cases = [
            ((9, 9), (Value::Null, LISTEN.into(), Value::Null)),
            ((9, 2), ("mails".into(), LISTEN.into(), "server2".into())),
            ((1, 9), ("mails".into(), "imap".into(), Value::Null)),
            ((1, 0), ("mails".into(), "imap".into(), Value::Null)),
        ];
        for ((service, backend), (pool, name, of)) in cases {
            let flows = listed("", &[flow("192.0.2.7", service, backend)]);
            let told = (flows[0]["pool"].clone(), flows[0]["service"].clone(), flows[0]["backend"].clone());
            assert_eq!(told, (pool, name, of), "service {service}, backend {backend}");
        }
    }

    #[test]
    fn only_what_the_query_names_is_listed() {
        let flows = [
            flow("192.0.2.7", 1, 1),
            flow("192.0.2.8", 1, 2),
            flow("192.0.2.7", 2, 3),
            flow("2001:db8::7", 9, 9),
        ];
        let cases = [
            ("", 4),
            ("pool=mails", 2),
            ("pool=passwords", 1),
            ("backend=server1", 2),
            ("pool=mails&backend=server1", 1),
            ("client=192.0.2.7", 2),
            ("client=::ffff:192.0.2.7", 2),
            ("client=2001:db8::7", 1),
            ("client=192.0.2.9", 0),
            ("limit=3", 3),
            ("limit=9", 4),
            ("limit=0", 0),
            ("client=192.0.2.7&limit=1", 1),
        ];
        for (query, count) in cases {
            assert_eq!(listed(query, &flows).len(), count, "{query}");
        }
    }

    #[test]
    fn a_listing_that_nobody_waits_for_is_not_made_to_its_end() {
        let (reply, answer) = oneshot::channel();
        let wanted = Wanted { query: query(""), services: Names::new(), backends: Names::new() };
        let order = Order { wanted, reply };
        drop(answer);
        assert!(order.is_gone());
        let walk = |visit: &mut dyn FnMut(_)| (0..100_000).for_each(|_| visit(flow("192.0.2.7", 9, 9)));
        let listing = order.wanted.list(|| order.is_gone(), walk).unwrap();
        assert!(listing.to_bytes().len() < 200_000, "one piece, and an end");
    }

    #[test]
    fn a_query_that_names_what_there_is_not_is_refused() {
        let check = |text| check(&query(text), ["mails", "passwords"].into_iter(), &backends());
        for good in ["", "pool=mails", "backend=server2", "pool=passwords&backend=server1", "client=::1"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        let cases = [
            ("pool=mail", "there is no pool \"mail\"; `balancer status` lists the pools"),
            ("pool=mail&backend=server1", "there is no pool \"mail\"; `balancer status` lists the pools"),
            ("backend=server3", "no pool has a backend \"server3\"; `balancer status` lists them"),
            (
                "pool=passwords&backend=server2",
                "pool \"passwords\" has no backend \"server2\"; it has: server1",
            ),
        ];
        for (text, error) in cases {
            assert_eq!(check(text).unwrap_err(), error, "{text}");
        }
    }
}
