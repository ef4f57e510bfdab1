//! A prepared reload: taken over at once, or refused. Deliberately not here: how it is written (`replace`), and who is told (`told`).

use std::collections::BTreeMap;
use std::net::IpAddr;

use tracing::{error, warn};

use crate::control::server::NotReloaded;
use crate::daemon::Daemon;
use crate::daemon::accepted::Accepted;
use crate::daemon::choice::TakenBack;
use crate::daemon::difference::difference;
use crate::daemon::first_ways::FirstWay;
use crate::daemon::kin::{self, Delay, Standing};
use crate::daemon::names::moved;
use crate::daemon::prepare::{Listeners, Prepared};
use crate::daemon::replace::Probers;
use crate::dataplane::slots::Busy;
use crate::policy::PoolIndex;
use crate::store::state::{self, Why};

use super::Cause;

impl Daemon {
    /// Everything is known that has to be: it is carried out, or refused.
    pub(in crate::daemon) fn prepared(&mut self, prepared: Prepared) {
        let Prepared { cause, wanted, busy, ways, listeners } = prepared;
        self.reloads.listeners = listeners;
        // What the policy has said is to be said of what was there.
        self.carry_out();
        match wanted {
            Ok(accepted) => self.take_over(cause, accepted, &busy, &ways),
            Err(problem) => self.refuse(cause, problem),
        }
        self.carry_out();
        self.reloads.listeners = Listeners::default();
        (self.reloads.is_under_way, self.reloads.is_rolling_back) = (false, false);
        // One that can be refused at once makes way for the next.
        while !self.reloads.is_under_way
            && let Some(next) = self.reloads.waiting.pop_front()
        {
            self.begin(next);
        }
    }

    fn take_over(
        &mut self,
        cause: Cause,
        accepted: Accepted,
        busy: &Busy,
        ways: &BTreeMap<IpAddr, FirstWay>,
    ) {
        let changes = difference(&self.reloads.wanted.config, &accepted.config);
        let moved = moved(&self.reloads.wanted.config, &accepted.config);
        let before = std::mem::replace(&mut self.reloads.wanted, accepted);
        let is_new = cause.is_new();
        let mut told = false;
        // The second time for who has handed over the role meanwhile.
        for _ in 0..2 {
            let carried_out = self.carry_out_what_can_be(busy, ways, |daemon| {
                if std::mem::replace(&mut told, true) {
                    return;
                }
                if is_new {
                    daemon.reloads.generation += 1;
                    daemon.tell_reload(&cause, &changes);
                }
                daemon.tell_moved(&moved, &cause);
                let bound = daemon.reloads.listeners.http.take();
                daemon.show(bound);
            });
            if let Err(reason) = carried_out {
                if told {
                    // It is accepted, and most of it runs.
                    error!(event = "reload", reason, "not all of it could be carried out; reload once more");
                    self.reloads.is_behind = true;
                    break;
                }
                self.reloads.wanted = before;
                self.refuse(cause, NotReloaded::Refused(reason));
                return;
            }
            // What it says of who is where is said before anybody stands elsewhere again.
            self.carry_out();
            if !self.reloads.delays.iter().any(|delay| self.is_over(delay)) {
                break;
            }
        }
        for warning in self.reloads.wanted.config.warnings.iter().filter(|_| is_new) {
            warn!(event = "configuration", line = warning.line, "{}", warning.message);
        }
        if is_new {
            self.names.was_read(self.clock.now());
            self.reloads.taken_back = None;
        }
        if matches!(cause, Cause::Expired) {
            self.reloads.confirmation = None;
            // The file still holds it: the next start leaves it there.
            if before.text != self.reloads.wanted.text {
                let of = state::digest(before.text.as_bytes());
                self.reloads.taken_back = Some(TakenBack { of, why: Why::Late, is_told: true });
            }
        }
        if let Cause::Verb(asked, ..) = &cause
            && let Some(within) = asked.confirm()
        {
            self.await_confirmation(within, before);
        }
        self.remember();
        if let Cause::Verb(_, _, reply) = cause {
            self.reply(reply, self.reloaded(changes));
        }
    }

    /// Carries out what can be of what is wanted, or nothing. `accepted` is called once nothing can fail any more.
    fn carry_out_what_can_be(
        &mut self,
        busy: &Busy,
        ways: &BTreeMap<IpAddr, FirstWay>,
        accepted: impl FnOnce(&mut Self),
    ) -> Result<(), String> {
        let standing = |pool: PoolIndex| {
            if self.policy.is_busy(pool) {
                Standing::Busy
            } else {
                Standing::Free(self.policy.snapshot(pool, self.clock.now()).holder)
            }
        };
        let wanted = &self.reloads.wanted;
        let (config, delays) = kin::feasible(&wanted.config, &self.parts.config, standing)?;
        let probers = config.pools.iter().map(|pool| {
            let is_left_alone = delays.contains(&Delay::Busy(pool.name.clone()));
            let (of, probers) = if is_left_alone {
                (&self.parts.config, &self.parts.probers)
            } else {
                (&wanted.config, &wanted.probers)
            };
            let at = of.pools.iter().position(|known| known.name == pool.name);
            at.map(|at| probers[at].clone()).unwrap_or_default()
        });
        let probers: Probers = probers.collect();
        let is_same = config.gateway == self.parts.config.gateway && config.pools == self.parts.config.pools;
        if is_same && !std::mem::take(&mut self.reloads.is_behind) {
            // Files that the configuration names may be others all the same.
            self.parts.probers = probers;
            self.reloads.delays = delays;
            accepted(self);
            return Ok(());
        }
        let written = self.write(config, probers, busy, ways)?;
        self.reloads.delays = delays;
        accepted(self);
        self.put_in_place(written);
        Ok(())
    }
}
