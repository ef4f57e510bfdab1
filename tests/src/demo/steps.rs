//! The show itself, step by step. Each step makes something happen and waits until it has, or the show is over.

use std::{
    process,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, ensure};

use super::account::{Account, Moments, Tally};
use super::log::Event;
use super::page::Tone;
use super::site::{CLIENT_TIMEOUT, FIRST, POOL, PROBE_INTERVAL, SECOND};
use super::timeline::Timeline;

/// Told beforehand, and as titles.
pub(super) const TITLES: [&str; 6] = [
    "server1 serves both services",
    "server1 is killed: the probes notice, and both services move to server2 together",
    "server1 returns: nothing moves back by itself (failback = \"manual\")",
    "the daemon is killed for a second: traffic does not notice, and the next one takes over",
    "`balancer failback passwords`: back on server1",
    "every connection is accounted for",
];

/// Answers on each service that make a step believable: about a second of traffic, time enough to read along.
const ANSWERS: usize = 30;
/// A client loop's connections in one interval of the probes.
const PROBE_PHASES: usize = 16;
/// How long there is no daemon.
const WITHOUT_DAEMON: Duration = Duration::from_secs(1);
/// What the product promises from the decision until it is in the kernel.
const SWITCH_MAX: Duration = Duration::from_millis(1);

/// Plays all steps.
///
/// # Errors
/// The first step that did not come true, by number and title.
pub(super) fn play(timeline: &mut Timeline) -> Result<()> {
    let mut number = 0;
    let mut begin = |timeline: &Timeline| {
        number += 1;
        let title = format!("\n[{number}/{}] {}", TITLES.len(), TITLES[number - 1]);
        timeline.page.text(Tone::Title, &title)?;
        Ok::<_, anyhow::Error>(format!("step {number} of {} ({})", TITLES.len(), TITLES[number - 1]))
    };
    let step = begin(timeline)?;
    start(timeline).context(step)?;
    let step = begin(timeline)?;
    let (killed, switched) = kill_the_first(timeline).context(step)?;
    let step = begin(timeline)?;
    bring_the_first_back(timeline).context(step)?;
    let step = begin(timeline)?;
    let (daemon_killed, daemon_back) = kill_the_daemon(timeline).context(step)?;
    let step = begin(timeline)?;
    let (failback_asked, failback_done) = fail_back(timeline).context(step)?;
    let step = begin(timeline)?;
    let moments = Moments { killed, switched, daemon_killed, daemon_back, failback_asked, failback_done };
    settle(timeline, &moments).context(step)
}

fn start(timeline: &mut Timeline) -> Result<()> {
    let started = SystemTime::now();
    timeline.site.start_server(0)?;
    timeline.site.start_server(1)?;
    timeline.tell(Tone::Plain, "both servers listen; the daemon starts")?;
    timeline.site.start_daemon()?;
    timeline.until("the daemon to be ready", |seen| {
        seen.logged(started, |event| *event == Event::Ready).map(drop)
    })?;
    let connecting = SystemTime::now();
    timeline.site.start_clients()?;
    timeline.tell(Tone::Plain, "the client connects to both services, again and again")?;
    // The kill then meets another phase of the probes in each run: a fixed one would always be as lucky, or unlucky.
    let answers = ANSWERS + process::id() as usize % PROBE_PHASES;
    timeline.until("answers by server1", |seen| seen.answered(connecting, FIRST, answers))?;
    show_status(timeline)
}

fn kill_the_first(timeline: &mut Timeline) -> Result<(SystemTime, SystemTime)> {
    let killed = SystemTime::now();
    timeline.killed = Some(killed);
    timeline.site.kill_server(0);
    timeline.page.event(killed, Tone::Bad, "kill -9 server1")?;
    let (switched, took) = timeline.until("the switch to server2", |seen| {
        let is_switch = |event: &Event| is_transition(event, SECOND, "backend_down");
        let entry = seen.logged(killed, is_switch)?;
        let Event::Transition { took, .. } = entry.event else { return Err("no transition".to_owned()) };
        Ok((entry.at, took))
    })?;
    ensure!(took < SWITCH_MAX, "the switch took {took:?} after the decision, promised are {SWITCH_MAX:?}");
    timeline.until("answers by server2", |seen| seen.answered(switched, SECOND, ANSWERS))?;
    show_status(timeline)?;
    Ok((killed, switched))
}

fn bring_the_first_back(timeline: &mut Timeline) -> Result<()> {
    timeline.site.start_server(0)?;
    let returned = SystemTime::now();
    timeline.tell(Tone::Plain, "server1 listens again; its probes count again after fail_timeout = 2s")?;
    let up = first_is_up(timeline, returned)?;
    timeline.until("answers by server2", |seen| seen.answered(up, SECOND, ANSWERS))?;
    ensure!(
        timeline.seen.logged(returned, |event| matches!(event, Event::Transition { .. })).is_err(),
        "the pool has moved although nobody asked for it"
    );
    timeline.tell(Tone::Good, &format!("● server2 still serves, {}", tally(timeline, up)))
}

fn kill_the_daemon(timeline: &mut Timeline) -> Result<(SystemTime, SystemTime)> {
    let killed = timeline.kill_daemon()?;
    timeline.page.event(
        killed,
        Tone::Bad,
        "kill -9 of the daemon; the program in the kernel goes on without it",
    )?;
    timeline.until("a second of traffic without a daemon", |seen| {
        seen.answered(killed + WITHOUT_DAEMON, SECOND, 1)
    })?;
    timeline.tell(Tone::Good, &format!("● server2 still serves, {}", tally(timeline, killed)))?;

    let restarted = SystemTime::now();
    timeline.site.start_daemon()?;
    let back = timeline.until("the new daemon to take over and to be ready", |seen| {
        seen.logged(restarted, |event| *event == Event::Started { is_adopted: true })?;
        seen.logged(restarted, |event| *event == Event::Ready).map(|entry| entry.at)
    })?;
    timeline.until("answers by server2", |seen| seen.answered(back, SECOND, ANSWERS))?;
    timeline.tell(Tone::Good, &format!("● server2 still serves, {}", tally(timeline, back)))?;
    // Only then can the operator have it back.
    first_is_up(timeline, restarted)?;
    Ok((killed, back))
}

fn fail_back(timeline: &mut Timeline) -> Result<(SystemTime, SystemTime)> {
    let asked = SystemTime::now();
    let said = timeline.site.ask(&["failback", POOL])?;
    let done = SystemTime::now();
    timeline.page.event(done, Tone::Plain, &format!("$ balancer failback {POOL}"))?;
    timeline.page.below(&format!("          {}", said.trim_end()))?;
    timeline.until("the switch back to server1", |seen| {
        seen.logged(asked, |event| is_transition(event, FIRST, "failback")).map(drop)
    })?;
    // By then each connection that started before the failback has been told, also one that waited in vain.
    timeline.until("answers by server1", |seen| seen.answered(done + CLIENT_TIMEOUT, FIRST, 1))?;
    timeline.tell(Tone::Good, &format!("● server1 serves again, {}", tally(timeline, done)))?;
    Ok((asked, done))
}

fn settle(timeline: &Timeline, moments: &Moments) -> Result<()> {
    let account = Account::of(&timeline.seen.attempts, moments)?;
    let between = |from: SystemTime, to: SystemTime| to.duration_since(from).unwrap_or_default();
    let first_answer = account.first_answer_after.context("server2 never answered")?;
    ensure!(account.without_daemon.made > 0, "no connection was made while there was no daemon");

    let answered: Vec<_> =
        account.answered.iter().map(|(server, count)| format!("{count} by {server}")).collect();
    let mut failed: Vec<_> = account.failed.iter().map(|(cause, count)| format!("{count} {cause}")).collect();
    if account.cut_off > 0 {
        failed.push(format!("{} cut off by the kill itself", account.cut_off));
    }
    let failed = match account.failed() {
        0 => "0".to_owned(),
        count => {
            format!("{count}: {}; all of them between the kill of server1 and the switch", failed.join(", "))
        }
    };
    let page = &timeline.page;
    page.below(&format!("connections made       {}", account.made))?;
    page.below(&format!("answered               {}", answered.join(", ")))?;
    page.below(&format!("failed                 {failed}"))?;
    page.below(&format!(
        "time to switch         {} ms after the kill (by chance: each probe runs every {PROBE_INTERVAL})",
        between(moments.killed, moments.switched).as_millis()
    ))?;
    page.below(&format!("server2's first answer {} ms after the kill", first_answer.as_millis()))?;
    page.below(&format!(
        "without a daemon       {:.2} s: {}",
        between(moments.daemon_killed, moments.daemon_back).as_secs_f64(),
        account.without_daemon
    ))?;
    page.below(&format!("since the failback     {}", account.since_failback))?;
    page.text(Tone::Good, "\nAll of it happened.")
}

fn is_transition(event: &Event, wanted: &str, because: &str) -> bool {
    matches!(event, Event::Transition { to, reason, .. } if to == wanted && reason == because)
}

/// Waits until the daemon knows that the first server is up again.
fn first_is_up(timeline: &mut Timeline, since: SystemTime) -> Result<SystemTime> {
    timeline.until("the probes of server1 to be good", |seen| {
        let is_up = |event: &Event| matches!(event, Event::Health { backend, to, .. } if backend == FIRST && to == "up");
        seen.logged(since, is_up).map(|entry| entry.at)
    })
}

/// What became of the connections that started after `since`.
fn tally(timeline: &Timeline, since: SystemTime) -> Tally {
    Tally::of(&timeline.seen.attempts, |started| started > since)
}

/// `balancer status` as anybody would see it; it also says that the pool is on an up backend.
fn show_status(timeline: &Timeline) -> Result<()> {
    let table = timeline.site.ask(&["status", "--exit-code"])?;
    timeline.tell(Tone::Plain, "$ balancer status")?;
    timeline.page.below(&table)
}
