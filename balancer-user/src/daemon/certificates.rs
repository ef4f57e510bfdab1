//! When to warn of a certificate that ends: 30, 7 and 1 days before, and once it is over.
//!
//! Each probe sees the certificate anew, and a person wants to hear of it once: what was told of which certificate is
//! kept, by where it was shown. A certificate is known by its end; a renewed one is another. Several machines behind one
//! address may show several, so the latest few are kept for each.
//!
//! Wall time, as in certificates, comes as an argument. Deliberately not here: what a certificate means for health (the
//! probe's affair).

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, SystemTime};

use tracing::warn;

use crate::control::protocol::Timestamp;
use crate::policy::{BackendIndex, Kin, PoolIndex, ProbeTicket, ServiceIndex};

use super::{Daemon, Entry};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Certificates of one service on one backend whose warnings are kept: an old and a new one, twice.
const KEPT: usize = 4;

/// How near the end is, from far to near.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Month,
    Week,
    Day,
    Over,
}

/// Where a certificate is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) pool: PoolIndex,
    pub(super) backend: BackendIndex,
    pub(super) service: ServiceIndex,
}

impl From<&ProbeTicket> for Place {
    fn from(ticket: &ProbeTicket) -> Self {
        Self { pool: ticket.pool, backend: ticket.backend, service: ticket.service }
    }
}

/// Something to tell of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct CertificateWarning {
    /// Whole days until its end; negative: since then.
    days_left: i64,
    /// It is over.
    expired: bool,
}

/// A certificate that was told of.
#[derive(Debug)]
struct Told {
    expires: SystemTime,
    stage: Stage,
    /// When it was seen first.
    since: SystemTime,
}

/// What was told; as large as the configuration, however many certificates are shown.
#[derive(Debug, Default)]
pub(super) struct Certificates {
    told: BTreeMap<Place, VecDeque<Told>>,
}

impl Certificates {
    /// Places are others now; what was told of one that is gone is forgotten.
    pub(super) fn succeed(&mut self, kin: &[Kin]) {
        let told = std::mem::take(&mut self.told).into_iter().filter_map(|(place, told)| {
            let (pool, kin) = Kin::of(kin, place.pool)?;
            let (backend, service) = (kin.backend(place.backend)?, kin.service(place.service)?);
            Some((Place { pool, backend, service }, told))
        });
        self.told = told.collect();
    }

    /// A probe was shown a certificate that ends then; says what has to be told now.
    fn shown(&mut self, place: Place, expires: SystemTime, now: SystemTime) -> Option<CertificateWarning> {
        let stage = stage(expires, now)?;
        let told = self.told.entry(place).or_default();
        match told.iter_mut().find(|known| known.expires == expires) {
            // A clock that was set back doesn't repeat it either.
            Some(known) if known.stage >= stage => return None,
            Some(known) => known.stage = stage,
            None => {
                if told.len() >= KEPT {
                    // A backend that shows another one each time would crowd out what else there is to tell.
                    let is_recent = |known: &Told| now.duration_since(known.since).is_ok_and(|age| age < DAY);
                    if told.front().is_some_and(is_recent) {
                        return None;
                    }
                    told.pop_front();
                }
                told.push_back(Told { expires, stage, since: now });
            }
        }
        Some(CertificateWarning { days_left: days_left(expires, now), expired: stage == Stage::Over })
    }
}

impl Daemon {
    /// A probe was shown a certificate that ends then; people are told if it is time.
    pub(super) fn certificate_shown(&mut self, place: Place, expires: SystemTime, now: SystemTime) {
        let Some(warning) = self.certificates.shown(place, expires, now) else { return };
        let CertificateWarning { days_left, expired } = warning;
        let pool = &self.parts.config.pools[place.pool.0];
        let service = &pool.services[place.service.0].name;
        let (pool_name, backend) = (pool.name.clone(), pool.backends[place.backend.0].name.clone());
        let expires = Timestamp::from(expires);
        let (reason, said) = if expired {
            ("expired", "the certificate has expired")
        } else {
            ("ends_soon", "the certificate ends soon: renew it")
        };
        warn!(event = "certificate", pool = pool_name, backend, service, %expires, days_left, "{said}");
        let evidence = format!("{service}: {said} (expires {expires}, days left: {days_left})");
        self.alarm(Entry::certificate(&pool_name, &backend, reason, evidence));
    }
}

/// The nearest stage that has come; `None`: the end is far.
fn stage(expires: SystemTime, now: SystemTime) -> Option<Stage> {
    // Its last second belongs to it (RFC 5280).
    let Ok(left) = expires.duration_since(now) else { return Some(Stage::Over) };
    let stages = [(DAY, Stage::Day), (7 * DAY, Stage::Week), (30 * DAY, Stage::Month)];
    stages.into_iter().find(|(within, _)| left <= *within).map(|(_, stage)| stage)
}

fn days_left(expires: SystemTime, now: SystemTime) -> i64 {
    let days = |span: Duration| i64::try_from(span.as_secs() / DAY.as_secs()).unwrap_or(i64::MAX);
    match expires.duration_since(now) {
        Ok(left) => days(left),
        Err(over) => -days(over.duration()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_nanos(1);

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + 20_000 * DAY
    }

    fn at(pool: usize, backend: usize, service: usize) -> Place {
        Place { pool: PoolIndex(pool), backend: BackendIndex(backend), service: ServiceIndex(service) }
    }

    /// What is told of a certificate that ends after this long, seen for the first time.
    fn first(left: Duration) -> Option<(i64, bool)> {
        let warning = Certificates::default().shown(at(0, 0, 0), now() + left, now());
        warning.map(|warning| (warning.days_left, warning.expired))
    }

    #[test]
    fn the_nearest_threshold_counts_to_the_tick() {
        assert_eq!(first(30 * DAY + TICK), None);
        assert_eq!(first(30 * DAY), Some((30, false)));
        assert_eq!(first(7 * DAY), Some((7, false)));
        assert_eq!(first(DAY - TICK), Some((0, false)));
        assert_eq!(first(Duration::ZERO), Some((0, false)));
        let over = Certificates::default().shown(at(0, 0, 0), now() - 3 * DAY, now()).unwrap();
        assert_eq!((over.days_left, over.expired), (-3, true));
        assert!(Certificates::default().shown(at(0, 0, 0), now() - TICK, now()).unwrap().expired);
    }

    #[test]
    fn a_life_is_told_four_times_however_often_it_is_seen() {
        let mut certificates = Certificates::default();
        let expires = now() + 40 * DAY;
        let hours = (0..50 * 24).map(|hour| now() + hour * Duration::from_secs(3600));
        let told: Vec<_> = hours
            .filter_map(|hour| certificates.shown(at(0, 0, 0), expires, hour))
            .map(|warning| (warning.days_left, warning.expired))
            .collect();
        assert_eq!(told, [(30, false), (7, false), (1, false), (0, true)]);
    }

    #[test]
    fn a_renewed_certificate_starts_anew_and_a_clock_set_back_repeats_nothing() {
        let mut certificates = Certificates::default();
        let mut is_told = |left, now| certificates.shown(at(0, 0, 0), left, now).is_some();
        assert!(is_told(now() + 5 * DAY, now()));
        assert!(!is_told(now() + 90 * DAY, now()), "the new one is far from its end");
        assert!(!is_told(now() + 5 * DAY, now()), "an old one that is still shown somewhere");
        assert!(!is_told(now() + 5 * DAY, now() - 20 * DAY));
        assert!(is_told(now() + 90 * DAY, now() + 61 * DAY));
    }

    #[test]
    fn each_service_of_each_backend_is_told_for_itself() {
        let mut certificates = Certificates::default();
        for place in [at(0, 0, 0), at(0, 0, 1), at(0, 1, 0), at(1, 0, 0)] {
            assert!(certificates.shown(place, now() + DAY, now()).is_some(), "{place:?}");
            assert!(certificates.shown(place, now() + DAY, now()).is_none(), "{place:?}");
        }
    }

    #[test]
    fn a_backend_that_shows_another_one_each_time_is_told_a_few_times_a_day_and_does_not_grow_the_memory() {
        let mut certificates = Certificates::default();
        let minutes = (0..2 * 24 * 60).map(|minute| minute * Duration::from_secs(60));
        let told = minutes.filter(|passed| {
            let expires = now() + 20 * DAY + *passed;
            certificates.shown(at(0, 0, 0), expires, now() + *passed).is_some()
        });
        assert_eq!(told.count(), 2 * KEPT);
        assert_eq!(certificates.told.values().map(VecDeque::len).sum::<usize>(), KEPT);
    }
}
