//! Text for a terminal: columns, colours, and numbers as people read them.
//!
//! What is deliberately not here: cutting text to the terminal's width. A reason that is cut off is of no use, and a
//! pipe has no width.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::time::Duration;

/// Colour is only ever added to a word that says the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colour {
    Good,
    Bad,
    Doubtful,
}

/// Whether colours are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Palette {
    coloured: bool,
}

impl Palette {
    /// For text that goes anywhere.
    #[cfg(test)]
    pub(super) const PLAIN: Self = Self { coloured: false };

    /// For stdout as it is: colours on a terminal that has them, unless `NO_COLOR` is set (no-color.org).
    pub(super) fn of_stdout() -> Self {
        Self { coloured: wants_colour() }
    }

    pub(super) fn paint(self, text: &str, colour: Option<Colour>, into: &mut String) {
        let code = match colour.filter(|_| self.coloured) {
            None => return into.push_str(text),
            Some(Colour::Good) => "32",
            Some(Colour::Bad) => "31",
            Some(Colour::Doubtful) => "33",
        };
        // Writing into a String cannot fail.
        let _infallible = write!(into, "\x1b[{code}m{text}\x1b[0m");
    }
}

/// Of stdout, and of whoever looks at it.
pub(super) fn wants_colour() -> bool {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    io::stdout().is_terminal() && !unwanted && !dumb
}

/// One field of a row.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    text: String,
    colour: Option<Colour>,
    right: bool,
}

impl Cell {
    pub(super) fn text(text: impl AsRef<str>) -> Self {
        Self { text: printable(text.as_ref()), colour: None, right: false }
    }

    pub(super) fn number(number: u64) -> Self {
        Self { text: number.to_string(), colour: None, right: true }
    }

    /// A heading over numbers.
    pub(super) fn right(text: &str) -> Self {
        Self { right: true, ..Self::text(text) }
    }

    pub(super) fn coloured(self, colour: Option<Colour>) -> Self {
        Self { colour, ..self }
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

/// Rows whose cells stand under each other.
#[derive(Debug, Default)]
pub(super) struct Columns {
    rows: Vec<Vec<Cell>>,
}

impl Columns {
    /// Between two columns.
    const GAP: &'static str = "  ";

    pub(super) fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Appends the rows, each after `indent`, without spaces at the end of a line.
    pub(super) fn render(&self, indent: &str, palette: Palette, into: &mut String) {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                self.rows.iter().filter_map(|row| row.get(column)).map(Cell::width).max().unwrap_or(0)
            })
            .collect();
        for row in &self.rows {
            let mut line = indent.to_owned();
            for (index, (cell, width)) in row.iter().zip(&widths).enumerate() {
                if index > 0 {
                    line.push_str(Self::GAP);
                }
                let padding = " ".repeat(width - cell.width());
                if cell.right {
                    line.push_str(&padding);
                }
                palette.paint(&cell.text, cell.colour, &mut line);
                if !cell.right {
                    line.push_str(&padding);
                }
            }
            into.push_str(line.trim_end());
            into.push('\n');
        }
    }
}

/// `text` with its control characters escaped: the reason of a failed probe may quote what came from the network.
pub(super) fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            printable.extend(character.escape_default());
        } else {
            printable.push(character);
        }
    }
    printable
}

/// `45s`, `3m4s`, `2h5m`, `4d3h`: the two largest units, because nobody wants the seconds of a week.
pub(super) fn age(age: Duration) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let seconds = age.as_secs();
    let Some(largest) = UNITS.iter().position(|(unit, _)| seconds >= *unit) else {
        return "0s".to_owned();
    };
    let (unit, name) = UNITS[largest];
    let mut text = format!("{}{name}", seconds / unit);
    if let Some((smaller, name)) = UNITS.get(largest + 1)
        && seconds % unit >= *smaller
    {
        let _infallible = write!(text, "{}{name}", seconds % unit / smaller);
    }
    text
}

/// `999 B`, `10.0 kB`, `1.2 GB`: powers of 1000, as network people count.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut tenths = bytes / 100;
    let mut unit = 0;
    while tenths >= 10_000 {
        tenths /= 1000;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_shows_its_two_largest_units() {
        let cases = [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (184, "3m4s"),
            (3_599, "59m59s"),
            (7_504, "2h5m"),
            (86_400, "1d"),
            (86_459, "1d"),
            (356_400, "4d3h"),
        ];
        for (seconds, text) in cases {
            assert_eq!(age(Duration::from_secs(seconds)), text, "{seconds} s");
        }
    }

    #[test]
    fn bytes_are_counted_in_powers_of_1000_up_to_the_largest() {
        let cases = [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (999_999, "999.9 kB"),
            (1_000_000, "1.0 MB"),
            (u64::MAX, "18.4 EB"),
        ];
        for (number, text) in cases {
            assert_eq!(bytes(number), text);
        }
    }

    #[test]
    fn columns_align_and_lines_end_without_spaces() {
        let mut columns = Columns::default();
        columns.row(vec![Cell::text("a"), Cell::right("n"), Cell::text("")]);
        columns.row(vec![Cell::text("long"), Cell::number(1234), Cell::text("x")]);
        let mut text = String::new();
        columns.render("  ", Palette::PLAIN, &mut text);
        assert_eq!(text, "  a        n\n  long  1234  x\n");
    }

    #[test]
    fn colour_changes_no_alignment() {
        let mut columns = Columns::default();
        columns.row(vec![Cell::text("up").coloured(Some(Colour::Good)), Cell::text("x")]);
        columns.row(vec![Cell::text("down").coloured(Some(Colour::Bad)), Cell::text("y")]);
        let mut text = String::new();
        columns.render("", Palette { coloured: true }, &mut text);
        assert_eq!(text, "\x1b[32mup\x1b[0m    x\n\x1b[31mdown\x1b[0m  y\n");
    }

    #[test]
    fn control_characters_never_reach_the_terminal() {
        let mut columns = Columns::default();
        columns.row(vec![Cell::text("\x1b]0;owned\x07\u{9b}2J")]);
        let mut text = String::new();
        columns.render("", Palette::PLAIN, &mut text);
        assert_eq!(text, "\\u{1b}]0;owned\\u{7}\\u{9b}2J\n");
    }
}
