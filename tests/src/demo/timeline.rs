//! Everything that happens on the site, told in the order in which it happened, and kept for the steps to look at.

use std::{collections::BTreeMap, time::SystemTime};

use anyhow::Result;

use crate::poll::poll_until;

use super::attempt::{Attempt, Fate};
use super::log::{Entry, Event};
use super::page::{Page, Tone};
use super::site::{PATIENCE, SERVICES, Site};

/// How much of the daemon's log a failure shows.
const LOG_TAIL: usize = 20;

/// What has been seen so far.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) log: Vec<Entry>,
    pub(super) attempts: Vec<Attempt>,
}

impl Seen {
    /// The first line of the log, from `since` on, of which `is_wanted` holds.
    pub(super) fn logged(
        &self,
        since: SystemTime,
        is_wanted: impl Fn(&Event) -> bool,
    ) -> Result<&Entry, String> {
        let recent = || self.log.iter().filter(|entry| entry.at >= since);
        recent().find(|entry| is_wanted(&entry.event)).ok_or_else(|| match recent().next_back() {
            Some(entry) => format!("the daemon's last event is {:?}", entry.event),
            None => "the daemon has logged nothing since".to_owned(),
        })
    }

    /// Whether each service was answered by `server` at least `count` times on connections started after `since`.
    pub(super) fn answered(&self, since: SystemTime, server: &str, count: usize) -> Result<(), String> {
        let answers = SERVICES.map(|(service, ..)| {
            let of_service = self.attempts.iter().filter(|attempt| attempt.service == service);
            of_service.filter(|attempt| attempt.started > since && attempt.is_answered_by(server)).count()
        });
        if answers.iter().all(|&answers| answers >= count) {
            return Ok(());
        }
        let last = self.attempts.last().map(|attempt| (attempt.service, &attempt.fate));
        Err(format!("{answers:?} answers of {count} by {server}; the last connection: {last:?}"))
    }
}

/// The site, what was seen of it, and the page on which it is told.
#[derive(Debug)]
pub(super) struct Timeline {
    pub(super) page: Page,
    pub(super) site: Site,
    pub(super) seen: Seen,
    /// When the active backend was killed, if it was.
    pub(super) killed: Option<SystemTime>,
    /// Who answered last, by service, and how many have failed since.
    clients: BTreeMap<&'static str, (Option<String>, usize)>,
    raw_log: Vec<String>,
}

impl Timeline {
    pub(super) fn new(page: Page, site: Site) -> Self {
        Self {
            page,
            site,
            seen: Seen::default(),
            killed: None,
            clients: BTreeMap::new(),
            raw_log: Vec::new(),
        }
    }

    /// Tells something that happens now.
    pub(super) fn tell(&self, tone: Tone, text: &str) -> Result<()> {
        self.page.event(SystemTime::now(), tone, text)
    }

    /// Looks at everything until `come` has come true, and tells on the way what happens.
    ///
    /// # Errors
    /// After `PATIENCE`, with what was seen last; at once when a program of the site has ended by itself.
    pub(super) fn until<T>(&mut self, what: &str, come: impl Fn(&Seen) -> Result<T, String>) -> Result<T> {
        poll_until(PATIENCE, what, || match self.look() {
            Ok(()) => come(&self.seen).map(Ok),
            Err(error) => Ok(Err(error)),
        })?
    }

    /// Kills the daemon, and returns the moment just before.
    pub(super) fn kill_daemon(&mut self) -> Result<SystemTime> {
        self.look()?;
        let now = SystemTime::now();
        let lines = self.site.kill_daemon()?;
        self.take(lines, Vec::new())?;
        Ok(now)
    }

    /// The end of the daemon's log, as it was written.
    pub(super) fn log_tail(&mut self) -> Vec<String> {
        let fresh = self.site.daemon_lines();
        self.raw_log.extend(fresh);
        self.raw_log[self.raw_log.len().saturating_sub(LOG_TAIL)..].to_vec()
    }

    fn look(&mut self) -> Result<()> {
        // First whether all run, then what they said: last words are not missed.
        let all_run = self.site.all_run();
        let (log, told) = (self.site.daemon_lines(), self.site.client_lines());
        self.take(log, told)?;
        all_run
    }

    fn take(&mut self, log: Vec<String>, told: Vec<(&'static str, String)>) -> Result<()> {
        let now = SystemTime::now();
        let mut news = Vec::new();
        for line in &log {
            let entry = Entry::parse(line, now);
            news.extend(entry.told(self.killed).map(|(tone, text)| (entry.at, tone, text)));
            self.seen.log.push(entry);
        }
        self.raw_log.extend(log);
        for (service, line) in told {
            let attempt = Attempt::parse(service, &line)?;
            news.extend(self.change(&attempt).map(|(tone, text)| (attempt.ended, tone, text)));
            self.seen.attempts.push(attempt);
        }
        news.sort_by_key(|(at, ..)| *at);
        news.iter().try_for_each(|(at, tone, text)| self.page.event(*at, *tone, text))
    }

    /// What is new about a connection: the first failure, and another server.
    fn change(&mut self, attempt: &Attempt) -> Option<(Tone, String)> {
        let service = attempt.service;
        let (last, failures) = self.clients.entry(service).or_default();
        match &attempt.fate {
            Fate::Failed(cause) => {
                *failures += 1;
                (*failures == 1)
                    .then(|| (Tone::Bad, format!("client: a connection to {service} failed: {cause}")))
            }
            Fate::AnsweredBy(server) => {
                let failed = match std::mem::take(failures) {
                    0 => String::new(),
                    failed => format!(" ({failed} failed before)"),
                };
                let is_news = last.as_ref() != Some(server) || !failed.is_empty();
                *last = Some(server.clone());
                is_news.then(|| (Tone::Plain, format!("client: {service} is answered by {server}{failed}")))
            }
        }
    }
}
