//! Backends that stay down, as the journal has them. Such a one is tried after every `fail_timeout`, and fails: records of each
//! time would push everything else out of the journal within days, first of all why the pool is where it is. So a probation that
//! fails is recorded the first times, and then ever more rarely. The log has each.

use std::collections::BTreeMap;

use crate::policy::{BackendIndex, Event, Health, PoolIndex};

/// So many in a row are recorded; behind them those with the number of a power of two.
const FIRST: u32 = 8;

/// How often in a row each backend has been tried for nothing, the present time included.
#[derive(Debug, Default)]
pub(super) struct Relapses(BTreeMap<(PoolIndex, BackendIndex), u32>);

impl Relapses {
    /// Whether the journal is to have it.
    pub(super) fn is_worth_a_record(&mut self, event: &Event) -> bool {
        let Event::Health { pool, backend, from, to, .. } = event else { return true };
        let backend = (*pool, *backend);
        match (from, to) {
            (Health::Down, Health::Probation) => {
                let tried = self.0.entry(backend).or_default();
                *tried = tried.saturating_add(1);
            }
            (Health::Probation, Health::Down) => {}
            _ => {
                self.0.remove(&backend);
            }
        }
        self.0.get(&backend).is_none_or(|tried| *tried <= FIRST || tried.is_power_of_two())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(from: Health, to: Health) -> Event {
        Event::Health { pool: PoolIndex(0), backend: BackendIndex(1), from, to, reason: None }
    }

    #[test]
    fn a_month_of_relapses_is_a_page_and_what_ends_it_is_always_told() {
        let mut relapses = Relapses::default();
        let (tried, failed) =
            (health(Health::Down, Health::Probation), health(Health::Probation, Health::Down));
        assert!(relapses.is_worth_a_record(&health(Health::Up, Health::Down)));
        let mut recorded = Vec::new();
        for number in 1..=259_200 {
            let both = [&tried, &failed].map(|event| relapses.is_worth_a_record(event));
            assert_eq!(both[0], both[1], "{number}");
            recorded.extend(both[0].then_some(number));
        }
        assert_eq!(recorded[..10], [1, 2, 3, 4, 5, 6, 7, 8, 16, 32]);
        assert_eq!(recorded.len(), 22);
        assert!(relapses.is_worth_a_record(&health(Health::Probation, Health::Up)));
        assert!(relapses.is_worth_a_record(&health(Health::Up, Health::Down)));
        assert!(relapses.is_worth_a_record(&tried), "a new series");
    }
}
