//! What is not as it should be though the daemon goes on: collected from those who know, a sentence each.

use crate::policy::Whose;

use super::Daemon;

impl Daemon {
    /// What a person has to know.
    pub(super) fn degraded(&self) -> Vec<String> {
        let disk = self.store.written().borrow().degraded();
        let cuts = self.cuts.failing().map(|(cut, problem)| {
            let pool = self.pool_name(cut.pool);
            let whose = match cut.whose {
                Whose::Of(backend) => format!("flows of {} of {pool}", self.backend_name(cut.pool, backend)),
                Whose::AllBut(_) => format!("flows of {pool}"),
            };
            format!("{whose} could not be ended: {problem}; it is tried again")
        });
        disk.into_iter().chain(cuts).collect()
    }
}
