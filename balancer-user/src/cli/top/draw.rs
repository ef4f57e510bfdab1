//! What a [`Model`] looks like: the same model always gives the same screen.
//!
//! What matters most stands left, as a narrow terminal cuts lines at its right edge. Colour is only ever added to a word; the
//! selected line has a mark, too. Text that came from elsewhere is made printable.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Sparkline, Wrap};

use super::model::{Dialog, FRESH, Model, Row, Series};
use crate::cli::layout::{age, printable};
use crate::cli::rates;
use crate::control::protocol::{Admin, Backend, Health, Pool, PoolState, Status};

/// Rows of a plot, with its title.
const PLOT_ROWS: u16 = 4;
/// Below this height there are no plots.
const ROWS_FOR_PLOTS: u16 = 14;
/// Longer names are cut, so that what is right of them can be seen.
const NAME_CHARS: usize = 30;

const KEYS: &str = "q quit  ? help  ↑↓ select  d drain  m maint  r ready  f failover  b failback";

const HELP: [&str; 9] = [
    "↑ ↓ j k   select a pool or a backend",
    "d         drain the backend: no new flows, old ones may end",
    "m         maintenance: no new flows, old ones are reset",
    "r         ready: back into use",
    "f         failover: to the selected backend, or to the next one",
    "b         failback: to the first eligible backend in order",
    "q         quit",
    "",
    "● serves   NEW/s, PKT/s: what came in the last second",
];

/// Styles, or none.
#[derive(Clone, Copy)]
struct Paint {
    is_coloured: bool,
}

impl Paint {
    fn word(self, colour: Color) -> Style {
        if self.is_coloured { Style::new().fg(colour) } else { Style::new() }
    }

    /// Seen without colours, too.
    const fn alarm(self) -> Style {
        let style = Style::new().add_modifier(Modifier::REVERSED);
        if self.is_coloured { style.fg(Color::Red) } else { style }
    }
}

/// Draws the whole screen.
pub(super) fn draw(model: &Model, frame: &mut Frame<'_>, is_coloured: bool) {
    let paint = Paint { is_coloured };
    let plots = if frame.area().height >= ROWS_FOR_PLOTS { PLOT_ROWS } else { 0 };
    let rows = [Constraint::Length(1), Constraint::Min(1), Constraint::Length(plots), Constraint::Length(1)];
    let [head, body, plots, foot] = Layout::vertical(rows).areas(frame.area());
    let Some(seen) = model.seen() else { return };
    frame.render_widget(headline(model, &seen.status, paint), head);
    table(model, &seen.status, paint, frame, body);
    if plots.height > 0 {
        self::plots(model, paint, frame, plots);
    }
    frame.render_widget(footline(model, paint), foot);
    match &model.dialog {
        None => {}
        Some(Dialog::Help) => {
            let lines = HELP.iter().map(|line| Line::raw(*line)).collect();
            dialog(" keys ", lines, frame);
        }
        Some(Dialog::Confirm(action)) => {
            let told = model.chosen().map(|(pool, _)| action.consequences(pool)).unwrap_or_default();
            let mut lines: Vec<Line<'_>> = told.into_iter().map(Line::raw).collect();
            lines.extend([Line::raw(""), Line::raw("y: do it    any other key: leave it")]);
            dialog(&format!(" {}? ", action.typed()), lines, frame);
        }
    }
}

fn headline<'a>(model: &Model, status: &Status, paint: Paint) -> Line<'a> {
    let since = age(model.age());
    if let Some(missed) = model.missed() {
        return Line::styled(
            format!("NO ANSWER, what is shown is {since} old: {}", printable(missed)),
            paint.alarm(),
        );
    }
    let Some(daemon) = &status.daemon else {
        let text = "NO DAEMON: this is from the pinned maps and the state file; nobody probes";
        return Line::styled(text, paint.alarm());
    };
    let old = if model.age() > FRESH { format!("; {since} OLD") } else { String::new() };
    let text = format!(
        "balancer {}, pid {}, up {}, configuration generation {}{old}",
        printable(&daemon.version),
        daemon.pid,
        age(Duration::from_secs(daemon.uptime_s)),
        daemon.config_generation
    );
    let mut spans = vec![Span::raw(text)];
    if let Some(first) = status.degraded.first() {
        spans.push(Span::raw("  "));
        spans.push(Span::styled(format!("degraded: {}", printable(first)), paint.alarm()));
    }
    Line::from(spans)
}

fn footline<'a>(model: &Model, paint: Paint) -> Line<'a> {
    match &model.told {
        None => Line::raw(KEYS),
        Some(Ok(message)) => Line::raw(printable(message)),
        Some(Err(error)) => Line::styled(printable(error), paint.alarm()),
    }
}

/// Pools and backends, as many as there is room for around the selected one.
fn table(model: &Model, status: &Status, paint: Paint, frame: &mut Frame<'_>, area: Rect) {
    let columns = Columns::of(status);
    let mut lines = vec![columns.heading()];
    let selected = model.selected();
    let (rows, room) = (model.rows(), usize::from(area.height).saturating_sub(1));
    let first = selected.saturating_sub(room.saturating_sub(1)).min(rows.len().saturating_sub(room));
    for (index, row) in rows.iter().enumerate().skip(first).take(room) {
        let is_selected = index == selected;
        let Some(line) = row_line(model, status, row, &columns, paint) else { continue };
        let mark = if is_selected { "> " } else { "  " };
        let mut line = Line::from([vec![Span::raw(mark)], line.spans].concat());
        if is_selected {
            line = line.patch_style(Style::new().add_modifier(Modifier::BOLD));
        }
        lines.push(line);
    }
    frame.render_widget(Paragraph::new(lines), area);
}

fn row_line<'a>(
    model: &Model,
    status: &Status,
    row: &Row,
    columns: &Columns,
    paint: Paint,
) -> Option<Line<'a>> {
    let pool = status.pools.iter().find(|pool| pool.name == row.pool)?;
    let Some(name) = &row.backend else { return Some(pool_line(pool, status, paint)) };
    let backend = pool.backends.iter().find(|backend| backend.name == *name)?;
    Some(columns.line(model, status, pool, backend, paint))
}

fn pool_line<'a>(pool: &Pool, status: &Status, paint: Paint) -> Line<'a> {
    let colour = match pool.state {
        PoolState::Serving => Color::Green,
        PoolState::Switching => Color::Yellow,
        PoolState::Held | PoolState::Waiting | PoolState::AllDown => Color::Red,
    };
    let active = printable(pool.active.as_deref().unwrap_or("no backend"));
    let since = age(pool.since.age_at(status.as_of));
    Line::from(vec![
        Span::raw(format!("{} ", cut(&printable(&pool.name)))),
        Span::styled(pool.state.to_string(), paint.word(colour)),
        Span::raw(format!(" on {active} for {since}, {}, failback {}", pool.reason, pool.failback)),
    ])
}

/// How wide the columns of backends are.
struct Columns {
    name: usize,
    health: usize,
    address: usize,
}

impl Columns {
    fn of(status: &Status) -> Self {
        let backends = || status.pools.iter().flat_map(|pool| &pool.backends);
        let widest = |of: fn(&Backend) -> String, least: usize| {
            backends().map(|backend| of(backend).chars().count()).max().unwrap_or(0).max(least)
        };
        Self {
            name: widest(title, "BACKEND".len()),
            health: widest(health, "HEALTH".len()),
            address: widest(|backend| printable(&backend.address), "ADDRESS".len()),
        }
    }

    fn heading<'a>(&self) -> Line<'a> {
        let Self { name, health, address } = self;
        Line::raw(format!(
            "     {:name$}  {:health$}  {:8}  {:>7}  {:>7}  {:>7}  {:address$}  {:>6}  REASON",
            "BACKEND", "HEALTH", "ADMIN", "FLOWS", "NEW/s", "PKT/s", "ADDRESS", "SINCE"
        ))
    }

    fn line<'a>(
        &self,
        model: &Model,
        status: &Status,
        pool: &Pool,
        backend: &Backend,
        paint: Paint,
    ) -> Line<'a> {
        let serves = pool.active.as_ref() == Some(&backend.name);
        let colour = match backend.health {
            Health::Up => Color::Green,
            Health::Down => Color::Red,
            Health::Probation | Health::Unknown => Color::Yellow,
        };
        let admin = if backend.admin == Admin::Ready { Style::new() } else { paint.word(Color::Yellow) };
        let [new, packets] = model.backend_rates(&pool.name, &backend.name).map(rates::shown);
        let (name, width, address) = (self.name, self.health, self.address);
        Line::from(vec![
            Span::raw(if serves { " ● " } else { " ○ " }),
            Span::raw(format!("{:name$}  ", title(backend))),
            Span::styled(format!("{:width$}", health(backend)), paint.word(colour)),
            Span::styled(format!("  {:8}", backend.admin.to_string()), admin),
            Span::raw(format!(
                "  {:>7}  {new:>7}  {packets:>7}  {:address$}  {:>6}  {}",
                backend.flows,
                printable(&backend.address),
                age(backend.since.age_at(status.as_of)),
                printable(backend.reason.as_deref().unwrap_or("-"))
            )),
        ])
    }
}

fn title(backend: &Backend) -> String {
    let backup = if backend.backup { " (backup)" } else { "" };
    format!("{}{backup}", cut(&printable(&backend.name)))
}

fn health(backend: &Backend) -> String {
    match backend.fails {
        fails if fails > 0 && backend.health != Health::Down => {
            format!("{} ({fails} failed)", backend.health)
        }
        _ => backend.health.to_string(),
    }
}

fn cut(name: &str) -> String {
    if name.chars().count() <= NAME_CHARS {
        return name.to_owned();
    }
    let mut short: String = name.chars().take(NAME_CHARS - 1).collect();
    short.push('…');
    short
}

/// New flows and packets of the selected pool, and drops of all.
fn plots(model: &Model, paint: Paint, frame: &mut Frame<'_>, area: Rect) {
    let Some((pool, _)) = model.chosen() else { return };
    let name = cut(&printable(&pool.name));
    let [new, packets] = model.pool_rates(&pool.name);
    let drops = model.drop_rate();
    let nothing = [Series::new(), Series::new()];
    let [of_new, of_packets] = model.plots(&pool.name).unwrap_or(&nothing);
    let titles = [
        (format!("{name}: new flows/s {}", rates::shown(new)), of_new, Color::Green),
        (format!("{name}: packets/s {}", rates::shown(packets)), of_packets, Color::Blue),
        (format!("drops/s {}", rates::shown(drops)), &model.drops, Color::Red),
    ];
    let areas: [Rect; 3] = Layout::horizontal([Constraint::Fill(1); 3]).spacing(1).areas(area);
    for ((title, series, colour), area) in titles.into_iter().zip(areas) {
        let newest = series.len().saturating_sub(usize::from(area.width));
        let data: Vec<u64> = series.iter().skip(newest).copied().collect();
        let plot = Sparkline::default().data(data).style(paint.word(colour)).block(Block::new().title(title));
        frame.render_widget(plot, area);
    }
}

/// In the middle, as high as it has to be.
fn dialog(title: &str, lines: Vec<Line<'_>>, frame: &mut Frame<'_>) {
    let whole = frame.area();
    let width = whole.width.min(72);
    let inner = usize::from(width.saturating_sub(2)).max(1);
    // Words are kept whole, so a line may take one row more than its length says.
    let height: usize =
        lines.iter().map(|line| line.width() / inner + 1 + usize::from(line.width() > inner)).sum();
    let height = u16::try_from(height + 2).unwrap_or(u16::MAX).min(whole.height);
    let area = Rect {
        x: whole.x + (whole.width - width) / 2,
        y: whole.y + (whole.height - height) / 2,
        width,
        height,
    };
    frame.render_widget(Clear, area);
    let text =
        Paragraph::new(lines).wrap(Wrap { trim: false }).block(Block::bordered().title(title.to_owned()));
    frame.render_widget(text, area);
}
