//! Backends that are given by host name: whether those lead there now, and what a start would do where they don't.
//!
//! Where a start would fail for it that is the configuration's own finding. Deliberately not here: asking (`resolver`), and which
//! answers are taken (`config`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::finding::about;
use crate::config::{Config, LEFT_OUT, Unsettled, Why};
use crate::control::protocol::{Finding, Severity};
use crate::resolver::Answers;

/// Each backend that is given by name, in the order of the configuration.
#[derive(Debug, Default)]
pub(super) struct HostNames(Vec<HostName>);

#[derive(Debug)]
struct HostName {
    /// Its pool's name and its own.
    backend: String,
    host: String,
    /// Where it is, or was last; `None`: nobody knows.
    at: Option<IpAddr>,
    /// Where the name leads instead, and nobody goes at once.
    elsewhere: Option<IpAddr>,
    /// What the name doesn't say.
    why: Option<Why>,
}

impl HostNames {
    /// Of a configuration that was held against these answers, and against a machine with its `own` addresses. `stay`: as then.
    pub(super) fn of(config: &Config, answers: &Answers, own: &BTreeSet<IpAddr>, stay: bool) -> Self {
        // Once more, it says the same.
        let mut elsewhere = BTreeMap::new();
        let unsettled = config.clone().settle(answers, own, |pool, backend, address| {
            elsewhere.insert((pool.to_owned(), backend.name.clone()), address);
            !stay
        });
        let why = |pool: usize, backend: usize| {
            let mut all = unsettled.iter();
            all.find(|one| (one.pool, one.backend) == (pool, backend))
                .map(|Unsettled { why, .. }| why.clone())
        };
        let mut names = Vec::new();
        for (pool_index, pool) in config.pools.iter().enumerate() {
            for (index, backend) in pool.backends.iter().enumerate() {
                names.extend(backend.host.as_ref().map(|host| HostName {
                    backend: format!("{}/{}", pool.name, backend.name),
                    host: host.clone(),
                    at: backend.is_settled().then_some(backend.address),
                    elsewhere: elsewhere.get(&(pool.name.clone(), backend.name.clone())).copied(),
                    why: why(pool_index, index),
                }));
            }
        }
        Self(names)
    }

    pub(super) fn judge(&self) -> impl Iterator<Item = Finding> {
        self.0.iter().map(HostName::judge)
    }
}

impl HostName {
    fn judge(&self) -> Finding {
        let Self { backend, host, at, elsewhere, why } = self;
        let about = about("host_name", Severity::Warning, backend);
        let Some(why) = why else {
            let at = at.map_or_else(|| "nowhere".to_owned(), |at| at.to_string());
            return about.well(match elsewhere {
                Some(elsewhere) => format!(
                    "{host} leads to {elsewhere} now, and was at {at}: there it stays until the name has said so twice, \
                     or until a reload"
                ),
                None => format!("{host} is resolved: it is at {at}"),
            });
        };
        let then = match at {
            Some(at) => format!("its last good address {at} is used"),
            None => format!("it {LEFT_OUT}"),
        };
        let what = match why {
            Why::NoAnswer(_) => {
                format!(
                    "mend what resolves it, or correct the name, until this tells its address: getent ahosts {host}"
                )
            }
            Why::Unusable(_) => {
                "have the name lead to the backend, or write the backend's IP address".to_owned()
            }
        };
        about.ask(format!("{host} {why}; {then}"), what)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::TEXT;
    use super::*;
    use crate::config;

    #[test]
    fn what_a_name_does_not_say_is_told_with_where_its_backend_is_taken_to_be() {
        let parsed =
            config::parse("test", &TEXT.replace("10.0.2.11", "db1.example.org")).expect("a configuration");
        let mut config = parsed.unresolved().clone();
        let judged = |config: &Config, answer: Result<[u8; 4], &str>| {
            let answer = answer.map(|address| vec![address.into()]).map_err(ToOwned::to_owned);
            let answers = [("db1.example.org".to_owned(), answer)].into();
            let findings: Vec<_> = HostNames::of(config, &answers, &BTreeSet::new(), true).judge().collect();
            let [finding] = &findings[..] else { panic!("{findings:?}") };
            assert_eq!((finding.id, finding.subject.as_str()), ("host_name", "p/b"));
            (finding.ok, finding.cause.clone())
        };
        let silence = Err("no answer within 10s");
        let said = "db1.example.org can't be resolved: no answer within 10s; ";
        let left_out = format!("{said}it is left out until its name leads where it can be");
        assert_eq!(judged(&config, silence), (false, left_out));
        config.pools[0].backends[0].address = [10, 0, 2, 11].into();
        assert_eq!(
            judged(&config, silence),
            (false, format!("{said}its last good address 10.0.2.11 is used"))
        );
        let (ok, cause) = judged(&config, Ok([127, 0, 0, 1]));
        assert!(
            !ok && cause.contains("a loopback address; its last good address 10.0.2.11 is used"),
            "{cause}"
        );
        let resolved = "db1.example.org is resolved: it is at 10.0.2.11".to_owned();
        assert_eq!(judged(&config, Ok([10, 0, 2, 11])), (true, resolved));
        let (ok, cause) = judged(&config, Ok([10, 0, 2, 13]));
        assert!(
            ok && cause.starts_with("db1.example.org leads to 10.0.2.13 now, and was at 10.0.2.11"),
            "{cause}"
        );
    }
}
