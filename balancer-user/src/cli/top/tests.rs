//! Golden screens, and what keys do.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::action::Action;
use super::draw::draw;
use super::model::{Dialog, Model, Seen, Step};
use crate::control::protocol::{Admin, Backend, BackendStats, Health, Timestamp, example};

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

/// The example with a backup.
fn seen() -> Seen {
    let (mut status, mut stats) = (example::status(), example::stats());
    let pool = &mut status.pools[0];
    let backup = Backend {
        name: "server2".to_owned(),
        address: "10.0.2.12".to_owned(),
        backup: true,
        health: Health::Down,
        reason: Some("web: refused".to_owned()),
        flows: 0,
        ..pool.backends[0].clone()
    };
    pool.backends.push(backup);
    let backup =
        BackendStats { backend: "server2".to_owned(), new_flows: 0, packets: 0, ..stats.backends[0].clone() };
    stats.backends.push(backup);
    Seen { status, stats }
}

/// After two answers, two seconds apart.
fn model() -> Model {
    let mut model = Model::default();
    let first = seen();
    let mut second = first.clone();
    let now = at("2026-01-02T03:04:07.678Z");
    (second.status.as_of, second.stats.as_of) = (now, now);
    second.stats.services[0].new_flows += 5;
    second.stats.services[0].packets += 300;
    second.stats.backends[0].new_flows += 5;
    second.stats.backends[0].packets += 300;
    *second.stats.drops.get_mut("too_big").expect("a reason") += 4;
    model.see(first, at("2026-01-02T03:04:05.678Z"));
    model.see(second, now);
    model
}

fn screen(model: &Model, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
    terminal.draw(|frame| draw(model, frame, false)).expect("it is drawn");
    let buffer = terminal.backend().buffer().clone();
    let row = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..height).map(row).collect()
}

fn press(model: &mut Model, key: char) -> Step {
    model.press(KeyEvent::new(KeyCode::Char(key), KeyModifiers::NONE))
}

#[test]
fn pools_backends_and_rates_are_on_one_screen() {
    let wanted = "\
balancer 0.1.0, pid 4242, up 12s, configuration generation 1
     BACKEND           HEALTH  ADMIN       FLOWS    NEW/s    PKT/s  ADDRESS     SINCE  REASON
> passwords serving on server1 for 3m6s, initial, failback manual
   ● server1           up      ready           3      2.5      150  10.0.2.11    3m6s  -
   ○ server2 (backup)  down    ready           0        0        0  10.0.2.12    3m6s  web: refused";
    let screen = screen(&model(), 100, 16);
    assert_eq!(screen[..5].join("\n"), wanted);
    let plots = &screen[11];
    let titles = ["passwords: new flows/s 2.5", "passwords: packets/s 150", "drops/s 2.0"];
    assert!(titles.iter().all(|title| plots.contains(title)), "{screen:#?}");
    assert!(screen[14].contains('█'), "{screen:#?}");
    assert!(screen[15].starts_with("q quit  ? help"), "{screen:#?}");
}

#[test]
fn a_narrow_low_terminal_shows_who_serves_and_nothing_breaks() {
    let narrow = screen(&model(), 32, 6);
    assert!(narrow[3].starts_with("   ● server1           up"), "{narrow:#?}");
    for (width, height) in [(1, 1), (2, 2), (10, 3), (80, 2), (300, 100)] {
        let mut model = model();
        for dialog in [None, Some(Dialog::Help)] {
            model.dialog = dialog;
            assert_eq!(screen(&model, width, height).len(), usize::from(height));
        }
    }
}

#[test]
fn what_is_stale_and_what_no_daemon_tells_says_so() {
    let mut model = model();
    model.set_now(at("2026-01-02T03:04:19.678Z"));
    assert!(screen(&model, 100, 8)[0].ends_with("generation 1; 12s OLD"));
    model.miss("no answer\x1b[2J".to_owned());
    let head = &screen(&model, 100, 8)[0];
    assert_eq!(head, "NO ANSWER, what is shown is 12s old: no answer\\u{1b}[2J");
    let mut dead = seen();
    dead.status.daemon = None;
    model.see(dead, at("2026-01-02T03:04:19.678Z"));
    assert!(screen(&model, 100, 8)[0].starts_with("NO DAEMON: this is from the pinned maps"));
    press(&mut model, 'f');
    assert!(model.dialog.is_none() && model.told.as_ref().is_some_and(Result::is_err));
}

#[test]
fn nothing_changes_without_a_confirmation_that_says_what_follows() {
    let mut model = model();
    assert_eq!(press(&mut model, 'f'), Step::Stay);
    let shown = screen(&model, 100, 16).join("\n");
    for told in [
        " balancer failover passwords? ",
        "New flows of passwords go to the next eligible backend instead",
        "y: do it    any other key: leave it",
    ] {
        assert!(shown.contains(told), "{told} in\n{shown}");
    }
    assert_eq!(press(&mut model, 'n'), Step::Stay);
    assert_eq!((&model.dialog, &model.told), (&None, &None));
    press(&mut model, 'f');
    let Step::Do(Action::Failover(order)) = press(&mut model, 'y') else { panic!("it is done") };
    assert_eq!((order.pool.as_str(), order.to), ("passwords", None));
}

#[test]
fn what_is_selected_is_what_a_key_is_about() {
    let mut model = model();
    press(&mut model, 'd');
    assert!(model.dialog.is_none(), "a pool is not drained");
    press(&mut model, 'j');
    press(&mut model, 'd');
    let shown = screen(&model, 100, 16).join("\n");
    assert!(
        shown.contains("balancer drain passwords server1?") && shown.contains("Its 3 flows may end"),
        "{shown}"
    );
    assert!(shown.contains("It serves now: another one becomes active first"), "{shown}");
    press(&mut model, 'n');
    for _ in 0..9 {
        press(&mut model, 'j');
    }
    press(&mut model, 'f');
    assert!(screen(&model, 100, 16).join("\n").contains("balancer failover passwords --to server2?"));
    press(&mut model, 'n');
    // What it was is gone: the first line is as good as any.
    let mut less = seen();
    less.status.pools[0].backends.pop();
    model.see(less, at("2026-01-02T03:04:08.678Z"));
    assert_eq!(model.selected(), 0);
}

#[test]
fn the_selected_line_is_in_sight_however_many_there_are() {
    let mut many = seen();
    let pool = many.status.pools[0].clone();
    for index in 0..100 {
        let mut pool = pool.clone();
        pool.name = format!("pool{index}");
        many.status.pools.push(pool);
    }
    let mut model = Model::default();
    model.see(many, at("2026-01-02T03:04:05.678Z"));
    for _ in 0..150 {
        press(&mut model, 'j');
    }
    let screen = screen(&model, 80, 10);
    assert!(screen.iter().any(|line| line.starts_with("> ")), "{screen:#?}");
}

#[test]
fn names_and_reasons_cannot_steer_the_terminal() {
    let mut hostile = seen();
    let pool = &mut hostile.status.pools[0];
    pool.name = "p\x1b[31m".to_owned();
    pool.backends[0].name = "b\u{9b}2J".to_owned();
    pool.backends[0].reason = Some("r\n\x07".to_owned());
    pool.backends[0].admin = Admin::Drain;
    hostile.status.degraded = vec!["d\x1b".to_owned()];
    let mut model = Model::default();
    model.see(hostile, at("2026-01-02T03:04:05.678Z"));
    model.tell(Err("e\x1b[2J".to_owned()));
    let shown = screen(&model, 160, 16).join("");
    assert!(!shown.contains(char::is_control), "{shown:?}");
    assert!(shown.contains("p\\u{1b}[31m") && shown.contains("b\\u{9b}2J") && shown.contains("e\\u{1b}[2J"));
}

#[test]
fn rates_need_two_answers_and_maps_made_anew_have_none() {
    let mut model = Model::default();
    model.see(seen(), at("2026-01-02T03:04:05.678Z"));
    assert_eq!(model.pool_rates("passwords"), [None, None]);
    let mut anew = seen();
    anew.stats.as_of = at("2026-01-02T03:04:06.678Z");
    anew.stats.services[0].packets = 0;
    model.see(anew, at("2026-01-02T03:04:06.678Z"));
    assert_eq!(model.pool_rates("passwords"), [Some(0.0), None]);
    assert_eq!(model.plots("passwords").map(|[new, packets]| (new.len(), packets.len())), Some((1, 0)));
}

#[test]
fn q_escape_and_control_c_end_it() {
    assert_eq!(press(&mut model(), 'q'), Step::Quit);
    assert_eq!(model().press(KeyEvent::new(KeyCode::Esc, KeyModifiers::NONE)), Step::Quit);
    let mut asked = model();
    press(&mut asked, 'f');
    assert_eq!(asked.press(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Step::Quit);
    assert_eq!(press(&mut asked, 'q'), Step::Stay, "closes what is asked first");
}
