//! What is not as it should be though the daemon goes on: collected from those who know, and told when it comes and when it
//! goes.
//!
//! Each trouble has a name that stays the same while its words change, so that a person is called once for each. Deliberately
//! not here: pools and backends, which have states of their own.

use std::collections::{BTreeMap, BTreeSet};

use crate::policy::{BackendIndex, PoolIndex, Whose};

use super::probe_log::Faulty;
use super::{Daemon, Entry};

/// What has been told of.
#[derive(Debug, Default)]
pub(super) struct Told(BTreeSet<String>);

/// What is news: those that have come, with their words, and those that have gone.
type News = (Vec<(String, String)>, Vec<String>);

impl Told {
    fn news(&mut self, troubles: BTreeMap<String, String>) -> News {
        let gone = self.0.iter().filter(|name| !troubles.contains_key(*name)).cloned().collect();
        let names = troubles.keys().cloned().collect();
        let come = troubles.into_iter().filter(|(name, _)| !self.0.contains(name)).collect();
        self.0 = names;
        (come, gone)
    }
}

impl Daemon {
    /// What a person has to know, a sentence each.
    pub(super) fn degraded(&self) -> Vec<String> {
        self.troubles().into_values().collect()
    }

    /// Calls a person for each trouble that has come.
    pub(super) fn tell_troubles(&mut self) {
        let (come, gone) = self.degraded_told.news(self.troubles());
        for (name, words) in come {
            self.alarm(Entry::degraded(&name, &words));
        }
        for name in gone {
            self.note(Entry::degraded_over(&name));
        }
    }

    /// A cold standby isn't, while it stands by.
    fn is_probed(&self, pool: PoolIndex, backend: BackendIndex) -> bool {
        let view = self.policy.snapshot(pool, self.clock.now());
        let is_to_be = view.transition.is_some_and(|change| change.to == backend);
        let of = &self.parts.config.pools[pool.0].backends[backend.0];
        !of.disabled && (!of.cold || view.holder == Some(backend) || is_to_be)
    }

    fn troubles(&self) -> BTreeMap<String, String> {
        let disk = self.store.written().borrow().degraded();
        let disk = disk.into_iter().map(|(what, words)| (what.to_owned(), words));
        let interfaces = self.interfaces.problems().map(|(interface, problem)| {
            (format!("interface {interface}"), format!("interface {interface}: {problem}"))
        });
        let cuts = self.cuts.failing().filter_map(|(cut, problem)| {
            let cut = self.by_place(cut)?;
            let pool = self.pool_name(cut.pool);
            let whose = match cut.whose {
                Whose::Of(backend) => format!("flows of {} of {pool}", self.backend_name(cut.pool, backend)),
                Whose::AllBut(_) => format!("flows of {pool}"),
            };
            let words = format!("{whose} could not be ended: {problem}; it is tried again");
            Some((whose, words))
        });
        let descriptors = self.descriptors.iter().map(|words| ("descriptors".to_owned(), words.clone()));
        let leavers = self.leaving.all().filter_map(|(_, leaver)| {
            let whose =
                format!("flows of {} of {}, which has left the configuration", leaver.name, leaver.pool);
            let words =
                format!("{whose}, could not be ended: {}; it is tried again", leaver.problem.as_ref()?);
            Some((whose, words))
        });
        let probes = self.probes.faulty(|pool, backend| self.is_probed(pool, backend)).map(|(pool, faulty)| {
            let Faulty { backend, service, problem, others } = faulty;
            let service = &self.parts.config.pools[pool.0].services[service.0].name;
            let (backend, pool) = (self.backend_name(pool, backend), self.pool_name(pool));
            let more = if others == 0 { String::new() } else { format!(" (and {others} more of the pool)") };
            let words = format!(
                "pool {pool}: {backend}'s {service} can't be probed{more}: {problem}; its health stays what it was, whatever becomes \
                 of it"
            );
            (format!("probes of {pool}"), words)
        });
        let (names, redirects) = (self.names.troubles(), self.redirect_troubles());
        let others = descriptors
            .chain(probes)
            .chain(self.ports.troubles())
            .chain(names)
            .chain(redirects)
            .chain(self.reload_troubles())
            .chain(self.dashboard.trouble());
        disk.chain(interfaces).chain(cuts).chain(leavers).chain(others).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_is_news_when_it_comes_and_when_it_goes_whatever_its_words() {
        let troubles = |troubles: &[(&str, &str)]| {
            troubles.iter().map(|(name, words)| ((*name).to_owned(), (*words).to_owned())).collect()
        };
        let mut told = Told::default();
        let come = vec![("state".to_owned(), "full".to_owned())];
        assert_eq!(told.news(troubles(&[("state", "full")])), (come.clone(), vec![]));
        assert_eq!(told.news(troubles(&[("state", "read-only")])), (vec![], vec![]));
        assert_eq!(told.news(troubles(&[])), (vec![], vec!["state".to_owned()]));
        assert_eq!(told.news(troubles(&[("state", "full")])), (come, vec![]), "a new onset");
    }
}
