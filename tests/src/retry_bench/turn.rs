//! A subject's turn: a site of its own, connections at a steady rate, and in the middle of them the primary's failure.
//!
//! Who was affected is told by who stands between: a peer's log has whom it has sent on, and behind balancer it is who was
//! answered by the backup before the pool had moved there.

use std::thread;

use anyhow::{Result, anyhow};
use serde_json::{Value, json};

use crate::{
    account::{Account, Answer, Attempt, Loss, unix_ms},
    gateway::PATIENCE,
    lab::{Process, Topology},
    peers::Peers,
    poll::poll_until,
    site::Site,
};

use super::{
    Failure, Options, Plan, Subject,
    subject::{haproxy_configuration, nginx_configuration, sent_on},
};

/// A few, so that caches are warm and neighbours known when it begins.
const WARM_UP: [&str; 4] = ["--connections", "20", "--expect", "server1"];

pub(super) struct Turn {
    subject: Subject,
    failure: Failure,
    /// nginx or HAProxy.
    peer: Option<Process>,
    site: Site,
}

pub(super) struct Told {
    pub(super) account: Account,
    pub(super) raw: Value,
}

impl Turn {
    /// Returns when the primary has answered connections through it.
    pub(super) fn start(subject: Subject, failure: Failure, options: &Options) -> Result<Self> {
        let (topology, site_options) = (Topology::two_armed(), subject.options(failure));
        let mut site = Site::prepare("bench_retry", &topology, site_options, &options.programs)?;
        let mut peer = None;
        if let Subject::Balancer { .. } = subject {
            site.begin()?;
        } else {
            // First the servers: who is refused by one leaves it alone for a while.
            (0..2).try_for_each(|server| site.serve(server))?;
            peer = start_peer(subject, &site, &options.peers)?;
        }
        poll_until(PATIENCE, "answers by the primary", || {
            if let Some(process) = &mut peer
                && !process.is_running()
            {
                return Ok(Err(anyhow!("it has ended: {} {}", process.stderr(), process.stdout())));
            }
            match site.load(subject.service(), &WARM_UP) {
                Ok(report) if report["failed"] == 0 => Ok(Ok(())),
                Ok(report) => Err(report.to_string()),
                Err(error) => Ok(Err(error)),
            }
        })??;
        Ok(Self { subject, failure, peer, site })
    }

    pub(super) fn run(mut self, plan: &Plan) -> Result<Told> {
        let every_us = 1_000_000 / self.failure.rate();
        let duration_ms = (plan.before + plan.after).as_millis();
        let (every, duration) = (format!("{every_us}us"), format!("{duration_ms}ms"));
        let words = ["--interval", every.as_str(), "--duration", &duration];
        let watcher = self.site.watch_as(self.subject.service(), &words)?;
        thread::sleep(plan.before);
        let loss = self.fail()?;
        let lines = watcher.finish()?;
        let attempts = lines.iter().map(Attempt::of).collect::<Result<Vec<_>>>()?;

        let (is_affected, stats): (Box<IsAffected>, Value) = match &self.peer {
            None => {
                let switched_ms = unix_ms(self.site.gateway.moved_to("server2")?)?;
                let stats = self.site.gateway.verb(&["stats", "-o", "json"])?.expect(0)?.json()?;
                let is_affected = move |one: &Attempt, answer: &Answer| {
                    answer.server == "server2" && one.started_ms < switched_ms
                };
                (Box::new(is_affected), json!({"switched_ms": switched_ms, "stats": stats}))
            }
            Some(peer) => {
                let sent_on = sent_on(self.subject, &peer.stdout());
                let told = json!({"sent_on": sent_on});
                (Box::new(move |_: &Attempt, answer: &Answer| sent_on.contains(&answer.client)), told)
            }
        };
        let account = Account::of(&attempts, loss, is_affected)?;
        let raw = json!({
            "failed_from_ms": loss.began_ms,
            "failed_until_ms": loss.ended_ms,
            "subject": stats,
            "attempts": lines,
        });
        Ok(Told { account, raw })
    }

    fn fail(&mut self) -> Result<Loss> {
        Loss::during(|| match self.failure {
            Failure::Killed => {
                self.site.kill(0);
                Ok(())
            }
            Failure::Silenced => self.site.lab().backend(0).nft_silence(),
        })
    }
}

type IsAffected = dyn Fn(&Attempt, &Answer) -> bool;

fn start_peer(subject: Subject, site: &Site, peers: &Peers) -> Result<Option<Process>> {
    let lab = site.lab();
    let servers = [0, 1].map(|server| lab.backend(server).address());
    match subject {
        Subject::Balancer { .. } => Ok(None),
        Subject::Nginx => peers.nginx(lab, &nginx_configuration(lab.vip(), servers)).map(Some),
        Subject::Haproxy => peers.haproxy(lab, &haproxy_configuration(lab.vip(), servers)).map(Some),
    }
}
