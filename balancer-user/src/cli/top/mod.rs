//! `balancer top`: the gateway live in a terminal, with keys for what an operator does there.
//!
//! Here are the terminal, the clock and the daemon; what they amount to is a [`model::Model`], and what that looks like is
//! `draw`: both pure. The terminal is put back however this ends: by a key, by a signal, by an error, by a panic. Deliberately
//! not here: anything that other verbs don't do as well.

mod action;
mod draw;
mod model;
mod screen;
#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal as _};
use std::thread;
use std::time::Duration;

use crossterm::event::{self, Event};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};

use self::action::Action;
use self::model::{Model, Seen, Step};
use self::screen::Screen;
use super::remains::{self, Remains};
use super::{Paths, ask};
use crate::control::client::Client;
use crate::exit::{Exit, Failure};

/// How often the daemon is asked.
const EVERY: Duration = Duration::from_secs(1);
/// Keys that wait, and answers: a person is slower.
const WAITING: usize = 16;

/// Shows it until a key or a signal ends it.
///
/// # Errors
/// No terminal; no answer at first and nothing left of a daemon; the terminal refuses.
pub fn run(paths: &Paths, remains: Remains) -> Result<Exit, Failure> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        let text = "top needs a terminal to draw on: `balancer status --watch` goes anywhere";
        return Err(Failure::new(Exit::Usage, text));
    }
    ask::wait(live(paths, remains))
}

async fn live(paths: &Paths, remains: Remains) -> Result<Exit, Failure> {
    // Before there is something to put back.
    let mut model = Model::default();
    model.see(look(paths, remains).await?, ask::now());
    let mut signals = Vec::new();
    for kind in [SignalKind::terminate(), SignalKind::hangup(), SignalKind::interrupt()] {
        signals.push(signal(kind).map_err(|error| failed("waiting for signals", &error))?);
    }
    let [mut terminate, mut hang_up, mut interrupt] =
        signals.try_into().map_err(|_| Failure::new(Exit::Failed, "signals"))?;
    let mut screen = Screen::open().map_err(|error| failed("the terminal", &error))?;
    let (mut answers, refresh) = start_asking(paths.clone(), remains);
    let (done, mut outcomes) = mpsc::channel(WAITING);
    let mut keys = start_reading();
    let mut redraw = interval(EVERY);
    loop {
        screen.draw(&model).map_err(|error| failed("drawing", &error))?;
        tokio::select! {
            Some(answer) = answers.recv() => match answer {
                Ok(seen) => model.see(seen, ask::now()),
                Err(failure) => model.miss(failure.to_string()),
            },
            Some(outcome) = outcomes.recv() => {
                model.tell(outcome);
                refresh.send_replace(());
            }
            event = keys.recv() => match event {
                // The terminal is gone.
                None => break,
                Some(Event::Key(key)) => match model.press(key) {
                    Step::Stay => {}
                    Step::Quit => break,
                    Step::Do(action) => carry_out(action, Client::new(&paths.socket), done.clone()),
                },
                Some(_) => {}
            },
            _ = terminate.recv() => break,
            _ = hang_up.recv() => break,
            _ = interrupt.recv() => break,
            _ = redraw.tick() => model.set_now(ask::now()),
        }
    }
    Ok(Exit::Ok)
}

/// What there is now.
async fn look(paths: &Paths, remains: Remains) -> Result<Seen, Failure> {
    let client = Client::new(&paths.socket);
    let (of, also_of) = (paths.clone(), paths.clone());
    let status = remains::or_else(client.get().await, move || (remains.status)(&of)).await?;
    let stats = remains::or_else(client.get().await, move || (remains.stats)(&also_of)).await?;
    Ok(Seen { status: status.document, stats: stats.document })
}

/// Asks every second, and when there is news.
fn start_asking(
    paths: Paths,
    remains: Remains,
) -> (mpsc::Receiver<Result<Seen, Failure>>, watch::Sender<()>) {
    let (answers, received) = mpsc::channel(1);
    let (refresh, mut news) = watch::channel(());
    tokio::spawn(async move {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                changed = news.changed() => if changed.is_err() { return },
            }
            if answers.send(look(&paths, remains).await).await.is_err() {
                return;
            }
        }
    });
    (received, refresh)
}

/// Keys come from a thread that blocks; it ends with the process.
fn start_reading() -> mpsc::Receiver<Event> {
    let (keys, received) = mpsc::channel(WAITING);
    thread::spawn(move || {
        while let Ok(event) = event::read() {
            if keys.blocking_send(event).is_err() {
                return;
            }
        }
    });
    received
}

/// What came of it is told, a refusal too.
fn carry_out(action: Action, client: Client, done: mpsc::Sender<Result<String, String>>) {
    tokio::spawn(async move {
        let outcome = match action.carry_out(&client).await {
            Ok(outcome) => Ok(outcome.message),
            Err(error) => Err(error.to_string()),
        };
        // Nobody looks any more.
        let _ = done.send(outcome).await;
    });
}

fn failed(what: &str, error: &io::Error) -> Failure {
    Failure::new(Exit::Failed, format_args!("{what}: {error}"))
}
