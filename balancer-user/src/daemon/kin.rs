//! Two configurations: who of the one before is who in the one after, and what of the new one can be carried out now.
//!
//! A pool is known by its name, a backend by its pool, its name and its address, a service by its pool and where its
//! backends are asked: its port and its name, or its listening address. Pure. Deliberately not here: what the kernel
//! knows them by (`dataplane::slots`), and what becomes of who is gone (`leaving`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use crate::config::{self, Config};
use crate::dataplane::object::Wanted;
use crate::policy::{BackendIndex, Heirloom, Kin, PoolIndex, ServiceIndex};

/// Who of `before` each pool of `now`, and each of its members, was.
pub(super) fn kin(before: &Config, now: &Config) -> Vec<Kin> {
    now.pools.iter().map(|pool| kin_of(before, pool)).collect()
}

fn kin_of(before: &Config, pool: &config::Pool) -> Kin {
    let Some(index) = before.pools.iter().position(|known| known.name == pool.name) else {
        let nobody = |count| std::iter::repeat_n(None, count).collect();
        return Kin {
            pool: None,
            backends: nobody(pool.backends.len()),
            services: vec![None; pool.services.len()],
            past: None,
            regains: None,
        };
    };
    let earlier = &before.pools[index];
    let backend = |backend: &config::Backend| {
        earlier.backends.iter().position(|known| is_same_backend(known, backend)).map(BackendIndex)
    };
    let service = |service: &config::Service| {
        let at = earlier_service(earlier, service)?;
        let asks_anew = earlier.services[at].probe.check != service.probe.check;
        Some(Heirloom { service: ServiceIndex(at), asks_anew })
    };
    let mut services: Vec<Option<Heirloom>> = Vec::new();
    for heirloom in pool.services.iter().map(service) {
        // Names may have been exchanged: nobody is two.
        let is_taken =
            |kin: &&Option<Heirloom>| kin.map(|kin| kin.service) == heirloom.map(|kin| kin.service);
        services.push(heirloom.filter(|_| !services.iter().any(|kin| is_taken(&kin))));
    }
    let backends = pool.backends.iter().map(backend).collect();
    Kin { pool: Some(PoolIndex(index)), backends, services, past: None, regains: None }
}

/// Whether nobody can tell who has the role of a pool that is new: its steps hand it over, and it has a backend that a pool had
/// which is gone. `gone`: their addresses.
pub(super) fn is_doubtful(before: &Config, pool: &config::Pool, gone: &BTreeSet<IpAddr>) -> bool {
    before.pools.iter().all(|known| known.name != pool.name) && may_have_had_a_role(pool, gone)
}

/// Whether somebody of a pool with steps was in one that is gone.
pub(super) fn may_have_had_a_role(pool: &config::Pool, gone: &BTreeSet<IpAddr>) -> bool {
    pool.has_steps() && pool.backends.iter().any(|backend| gone.contains(&backend.address))
}

pub(super) fn is_same_backend(one: &config::Backend, other: &config::Backend) -> bool {
    one.name == other.name && one.address == other.address
}

fn earlier_service(earlier: &config::Pool, service: &config::Service) -> Option<usize> {
    let of_port = |known: &&config::Service| known.backend_port == service.backend_port;
    let by = |is_it: &dyn Fn(&config::Service) -> bool| {
        earlier.services.iter().position(|known| of_port(&known) && is_it(known))
    };
    by(&|known| known.name == service.name).or_else(|| by(&|known| known.listen == service.listen))
}

/// What a pool that runs can do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing else, before what is under way has ended.
    Busy,
    /// Anything; this backend is the active one.
    Free(Option<BackendIndex>),
}

/// Why not all of a configuration is carried out at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Delay {
    /// The pool is busy, and left as it is until then.
    Busy(String),
    /// A backend that the configuration leaves out has its pool's role, and has to hand it over first: the pool, and where
    /// it is.
    HandsOver { pool: String, backend: config::Backend },
}

/// What is carried out of `wanted` now, and what has to wait; who is nowhere yet comes when it is known where. `standing` tells how each pool of `running` stands.
pub(super) fn feasible(
    wanted: &Config,
    running: &Config,
    standing: impl Fn(PoolIndex) -> Standing,
) -> Result<(Config, Vec<Delay>), String> {
    let wanted = &wanted.settled();
    let mut delays = Vec::new();
    let is_busy = |index: usize| standing(PoolIndex(index)) == Standing::Busy;
    let mut pools = Vec::new();
    for pool in &wanted.pools {
        match running.pools.iter().position(|known| known.name == pool.name) {
            Some(index) if is_busy(index) && running.pools[index] != *pool => {
                delays.push(Delay::Busy(pool.name.clone()));
                pools.push(running.pools[index].clone());
            }
            Some(index) => {
                let mut pool = pool.clone();
                if let Some(backend) = departing(&pool, &running.pools[index], standing(PoolIndex(index))) {
                    delays.push(Delay::HandsOver { pool: pool.name.clone(), backend: backend.clone() });
                    pool.backends.push(config::Backend { disabled: true, ..backend });
                }
                pools.push(pool);
            }
            None => pools.push(pool.clone()),
        }
    }
    for (index, pool) in running.pools.iter().enumerate() {
        if is_busy(index) && wanted.pools.iter().all(|known| known.name != pool.name) {
            delays.push(Delay::Busy(pool.name.clone()));
            pools.push(pool.clone());
        }
    }
    refuse_twice(&pools)?;
    let gateway = config::Gateway {
        max_flows: running.gateway.max_flows,
        max_half_open: running.gateway.max_half_open,
        ..wanted.gateway.clone()
    };
    let (http, warnings) = (wanted.http.clone(), wanted.warnings.clone());
    Ok((Config { gateway, http, pools, warnings }, delays))
}

/// The active backend, if the pool is to do without it.
fn departing(pool: &config::Pool, running: &config::Pool, standing: Standing) -> Option<config::Backend> {
    let Standing::Free(Some(active)) = standing else { return None };
    let active = running.backends.get(active.0)?;
    let is_there = pool.backends.iter().any(|backend| is_same_backend(backend, active));
    // Steps know it by its name, which leads to another server now: they can't take the role from it.
    let is_elsewhere = pool.has_steps() && pool.backends.iter().any(|backend| backend.name == active.name);
    (!is_there && !is_elsewhere).then(|| active.clone())
}

fn refuse_twice(pools: &[config::Pool]) -> Result<(), String> {
    let mut holders: BTreeMap<SocketAddr, &str> = BTreeMap::new();
    for pool in pools {
        let redirects = pool.services.iter().filter_map(|service| Some(service.redirect.as_ref()?.listen));
        for listen in pool.services.iter().map(|service| service.listen).chain(redirects) {
            if let Some(holder) = holders.insert(listen, &pool.name) {
                return Err(format!(
                    "the pools {holder:?} and {:?} would both listen on {listen}: one of them is in the middle of a change \
                     and keeps its services until that is over; try again then",
                    pool.name
                ));
            }
        }
    }
    Ok(())
}

/// What of the tables that are wanted waits for a new start, in words.
pub(crate) fn for_a_restart(wanted: &Wanted, running: &Wanted) -> Vec<String> {
    let sizes = [
        ("max_flows", wanted.max_flows, running.max_flows),
        ("max_half_open", wanted.max_half_open, running.max_half_open),
    ];
    let sizes = sizes.into_iter().filter(|(_, wanted, running)| wanted != running);
    let words = sizes.map(|(key, wanted, running)| {
        format!(
            "{key} stays {running} until the daemon is started anew with --replace, which ends all flows: the size of a \
             table can't be changed to {wanted} while it is in use"
        )
    });
    words.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::example::{BASE, config, replaced};
    use crate::daemon::plan;

    const SERVER1: &str = "[[pool.backend]]\nname = \"server1\"\naddress = \"10.0.2.11\"\n";
    const SECOND: &str = "[[pool]]\nname = \"mails\"\n[[pool.service]]\nname = \"web\"\nlisten = \"203.0.113.10:25\"\n\
                          [pool.probe]\nkind = \"tcp\"\n[[pool.backend]]\nname = \"server1\"\naddress = \"10.0.2.11\"\n";

    fn kin_after(changes: &[(&str, &str)]) -> Vec<Kin> {
        kin(&config(BASE), &replaced(changes))
    }

    const fn heirloom(asks_anew: bool) -> Option<Heirloom> {
        Some(Heirloom { service: ServiceIndex(0), asks_anew })
    }

    fn free_on(active: usize) -> impl Fn(PoolIndex) -> Standing {
        move |_| Standing::Free(Some(BackendIndex(active)))
    }

    #[test]
    fn a_backend_is_its_name_and_its_address_and_a_service_its_port() {
        let [same] = kin_after(&[]).try_into().unwrap();
        let both = vec![Some(BackendIndex(0)), Some(BackendIndex(1))];
        assert_eq!((same.pool, &same.backends), (Some(PoolIndex(0)), &both));
        assert_eq!(same.services, [heirloom(false)]);
        assert_eq!(kin_after(&[("10.0.2.12", "10.0.2.13")])[0].backends, [Some(BackendIndex(0)), None]);
        assert_eq!(kin_after(&[("server2", "server3")])[0].backends, [Some(BackendIndex(0)), None]);
        assert_eq!(kin_after(&[("10001", "10002")])[0].services, [None]);
        assert_eq!(
            kin_after(&[("10:443", "10:444")])[0].services,
            [heirloom(false)],
            "it is asked as before"
        );
        assert_eq!(kin_after(&[("\"web\"", "\"www\"")])[0].services, [heirloom(false)]);
        assert_eq!(kin_after(&[("kind = \"tcp\"", "kind = \"http\"")])[0].services, [heirloom(true)]);
        let renamed = &kin_after(&[("passwords", "mails")])[0];
        assert_eq!((renamed.pool, &renamed.backends), (None, &vec![None, None]));
    }

    #[test]
    fn a_busy_pool_is_left_as_it_is_and_kept_though_it_is_removed() {
        let running = config(&format!("{BASE}{SECOND}"));
        let busy = |pool: PoolIndex| {
            if pool == PoolIndex(1) { Standing::Busy } else { Standing::Free(Some(BackendIndex(0))) }
        };
        let wanted = config(&format!("{BASE}{}", SECOND.replace("10:25", "10:26")));
        let (now, delays) = feasible(&wanted, &running, busy).unwrap();
        assert_eq!((&now.pools[1], &delays[..]), (&running.pools[1], &[Delay::Busy("mails".to_owned())][..]));
        let (now, delays) = feasible(&config(BASE), &running, busy).unwrap();
        assert_eq!((now.pools.len(), &now.pools[1], delays.len()), (2, &running.pools[1], 1));
        let (now, delays) = feasible(&config(BASE), &running, free_on(0)).unwrap();
        assert_eq!((now.pools.len(), delays.len()), (1, 0));
    }

    #[test]
    fn what_a_busy_pool_listens_on_is_nobody_elses() {
        let running = config(&format!("{BASE}{SECOND}"));
        let busy = |pool: PoolIndex| {
            if pool == PoolIndex(1) { Standing::Busy } else { Standing::Free(Some(BackendIndex(0))) }
        };
        let wanted = replaced(&[("10:443", "10:25")]);
        let error = feasible(&wanted, &running, busy).unwrap_err();
        assert!(error.contains("203.0.113.10:25") && error.contains("try again then"), "{error}");
    }

    #[test]
    fn the_active_backend_goes_last() {
        let (running, wanted) = (config(BASE), replaced(&[(SERVER1, "")]));
        let (now, delays) = feasible(&wanted, &running, free_on(0)).unwrap();
        let names: Vec<_> =
            now.pools[0].backends.iter().map(|one| (one.name.as_str(), one.disabled)).collect();
        assert_eq!(names, [("server2", false), ("server1", true)]);
        assert_eq!(delays.len(), 1);
        let (now, delays) = feasible(&wanted, &running, free_on(1)).unwrap();
        assert_eq!((now, delays.len()), (wanted, 0), "server2 has the role");
        let (now, _) = feasible(&replaced(&[("10.0.2.11", "10.0.2.19")]), &running, free_on(0)).unwrap();
        assert_eq!(now.pools[0].backends.len(), 3, "at another address it is somebody else");
    }

    #[test]
    fn steps_hand_nothing_over_from_a_name_that_leads_elsewhere() {
        const STEP: &str =
            "[[pool.hook]]\nname = \"promote\"\nwhen = \"before\"\nrun = [\"/usr/bin/true\"]\n";
        let running = config(&format!("{BASE}{STEP}"));
        let moved = config(&format!("{}{STEP}", BASE.replace("10.0.2.11", "10.0.2.19")));
        let (now, delays) = feasible(&moved, &running, free_on(0)).unwrap();
        assert_eq!((now.pools[0].backends.len(), delays.len()), (2, 0), "whose it is nobody knows");
        assert_eq!(kin(&running, &now)[0].backends, [None, Some(BackendIndex(1))]);
        let left_out = config(&format!("{}{STEP}", BASE.replace(SERVER1, "")));
        assert_eq!(feasible(&left_out, &running, free_on(0)).unwrap().1.len(), 1);
    }

    #[test]
    fn who_is_nowhere_is_left_out_until_that_is_known() {
        let (running, mut wanted) = (replaced(&[(SERVER1, "")]), config(BASE));
        wanted.pools[0].backends[0].address = [0, 0, 0, 0].into();
        let busy = |_: PoolIndex| Standing::Busy;
        for (now, delays) in
            [feasible(&wanted, &running, free_on(0)).unwrap(), feasible(&wanted, &running, busy).unwrap()]
        {
            assert_eq!((now, delays), (running.clone(), vec![]));
        }
        let (now, delays) = feasible(&config(BASE), &running, free_on(0)).unwrap();
        assert_eq!((now, delays), (config(BASE), vec![]));
    }

    #[test]
    fn the_size_of_tables_waits_for_a_restart_and_the_rest_does_not() {
        let running = config(BASE);
        let wanted = replaced(&[("[gateway]\n", "[gateway]\nmax_flows = 1000\nidle_timeout = \"1h\"\n")]);
        let (now, delays) = feasible(&wanted, &running, free_on(0)).unwrap();
        assert_eq!((now.gateway.max_flows, delays.len()), (running.gateway.max_flows, 0));
        assert_eq!(now.gateway.idle_timeout.as_secs(), 3600);
        let said = for_a_restart(&plan::wanted(&wanted), &plan::wanted(&running));
        assert!(said.len() == 1 && said[0].starts_with("max_flows stays 262144 until"), "{said:?}");
    }
}
