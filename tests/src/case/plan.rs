//! What is given, in the words of the production code.

use std::time::Duration;

use balancer_user::dataplane::object::Wanted;
use balancer_user::dataplane::slots::{self, BackendPlan, PoolPlan, ServicePlan};

use super::given::{Given, Pool};
use super::scene::Forwarding;

/// Longer than a tick of the program's clock on any kernel, and than a case takes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The program that a controller would load.
pub(super) fn wanted(given: &Given) -> Wanted {
    let has = |is_ipv4: bool| given.pools.iter().any(|pool| pool.scene.is_ipv4() == is_ipv4);
    Wanted {
        max_flows: given.max_flows,
        max_half_open: given.max_half_open,
        ipv4: has(true),
        ipv6: has(false),
        frags: true,
    }
}

/// The pools as a controller would hand them over.
pub(super) fn pools(given: &Given) -> Vec<PoolPlan> {
    given.pools.iter().map(|one| pool(given, one)).collect()
}

fn pool(given: &Given, pool: &Pool) -> PoolPlan {
    let scene = pool.scene;
    let service = |service: super::Service| ServicePlan {
        name: service.name.into(),
        listen: service.listen,
        backend_port: service.backend_port,
    };
    let backend = |member: super::Member| BackendPlan { name: member.name.into(), address: member.address };
    PoolPlan {
        name: scene.name.into(),
        forwarding: match scene.forwarding {
            Forwarding::Snat => slots::Forwarding::Snat,
            Forwarding::Dnat => slots::Forwarding::Dnat,
        },
        snat_addresses: scene.snat_addresses.to_vec(),
        snat_ports: pool.snat_ports.clone(),
        retry: given.retry,
        connect_timeout: CONNECT_TIMEOUT,
        services: scene.services().map(service).into(),
        backends: scene.members().map(backend).into(),
    }
}
