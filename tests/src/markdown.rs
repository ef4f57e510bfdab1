//! What benchmarks report: lines and tables that read alike on a terminal and as Markdown.

use std::fmt::Write as _;

/// Aligned; the first row is the header.
#[must_use]
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0).max(3);
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        line(&mut text, format_args!("| {} |", cells.collect::<Vec<_>>().join(" | ")));
        if number == 0 {
            let rule = widths.iter().enumerate().map(|(column, &width)| {
                if column == 0 { "-".repeat(width) } else { format!("{}:", "-".repeat(width - 1)) }
            });
            line(&mut text, format_args!("| {} |", rule.collect::<Vec<_>>().join(" | ")));
        }
    }
    text
}

/// A line of it.
pub(crate) fn line(text: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a String can't fail.
    let _ = writeln!(text, "{what}");
}

#[cfg(test)]
mod tests {
    use super::table;

    #[test]
    fn a_table_is_markdown_and_aligned() {
        let rows =
            [vec![String::new(), "nft".to_owned()], vec!["round trip, µs".to_owned(), "17".to_owned()]];
        assert_eq!(
            table(&rows),
            "|                | nft |\n| -------------- | --: |\n| round trip, µs |  17 |\n"
        );
    }
}
