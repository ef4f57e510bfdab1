//! A subject's turn: a site of its own, connections at a steady rate, and in the middle of them the primary's failure.
//!
//! Who was affected is told by who stands between: a peer's log has whom it has sent on, and balancer counts them: as many
//! were the first ones that the backup answered.

use std::thread;

use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};

use crate::{
    account::{Account, Attempt, Loss, first_answered_by, unix_ms},
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

        let (affected, told) = match &self.peer {
            None => {
                let stats = self.site.gateway.verb(&["stats", "-o", "json"])?.expect(0)?.json()?;
                let moved_ms = unix_ms(self.site.gateway.moved_to("server2")?)?;
                let primary = self.site.gateway.stats_of("server1")?;
                let number = primary["retried_refused"].as_u64().context("how many were sent on")?;
                let affected = first_answered_by("server2", number, &attempts);
                (affected, json!({"moved_ms": moved_ms, "stats": stats}))
            }
            Some(peer) => {
                let sent_on = sent_on(self.subject, &peer.stdout());
                let told = json!({"sent_on": sent_on});
                (sent_on, told)
            }
        };
        let account = Account::of(&attempts, loss, &affected)?;
        let raw = json!({
            "failed_from_ms": loss.began_ms,
            "failed_until_ms": loss.ended_ms,
            "subject": told,
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

fn start_peer(subject: Subject, site: &Site, peers: &Peers) -> Result<Option<Process>> {
    let lab = site.lab();
    let servers = [0, 1].map(|server| lab.backend(server).address());
    match subject {
        Subject::Balancer { .. } => Ok(None),
        Subject::Nginx => peers.nginx(lab, &nginx_configuration(lab.vip(), servers)).map(Some),
        Subject::Haproxy => peers.haproxy(lab, &haproxy_configuration(lab.vip(), servers)).map(Some),
    }
}
