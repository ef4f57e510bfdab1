//! `balancer doctor`: findings as a table, those that want something done last, where the eye is.

use super::layout::{Cell, Colour, Columns, Palette, printable};
use super::{Output, ask};
use crate::control::protocol::{Doctor, Finding, Severity};
use crate::exit::{self, Exit, Failure};

/// Prints what was found; the exit code is 1 when something would not work.
///
/// # Errors
/// When it can't be printed.
pub fn run(found: &Doctor, output: Output) -> Result<Exit, Failure> {
    let text = match output {
        Output::Json => ask::json(found)?,
        Output::Table => table(found, Palette::of_stdout()),
    };
    exit::print(&text)?;
    Ok(if found.is_bad() { Exit::Failed } else { Exit::Ok })
}

pub(super) fn table(found: &Doctor, palette: Palette) -> String {
    let mut text = format!("as of {}\n\n", found.as_of);
    let mut columns = Columns::default();
    for finding in found.findings.iter().filter(|finding| finding.ok) {
        columns.row(vec![
            Cell::text("ok").coloured(Some(Colour::Good)),
            Cell::text(finding.id),
            Cell::text(&finding.subject),
            Cell::text(&finding.cause),
        ]);
    }
    columns.render("", palette, &mut text);
    let mut ill: Vec<&Finding> = found.findings.iter().filter(|finding| !finding.ok).collect();
    ill.sort_by_key(|finding| finding.severity);
    for finding in &ill {
        block(finding, palette, &mut text);
    }
    text.push_str(&summary(&ill));
    text
}

/// A finding that isn't well: a cause may be long, so it has lines of its own, and the fix one to copy.
fn block(finding: &Finding, palette: Palette, text: &mut String) {
    let colour = match finding.severity {
        Severity::Error => Some(Colour::Bad),
        Severity::Warning => Some(Colour::Doubtful),
        Severity::Info => None,
    };
    text.push('\n');
    palette.paint(&finding.severity.to_string(), colour, text);
    text.push_str(&format!("  {}  {}\n", finding.id, printable(&finding.subject)));
    text.push_str(&format!("    {}\n", printable(&finding.cause)));
    if let Some(fix) = &finding.fix {
        text.push_str(&format!("    {}\n", printable(fix)));
    }
}

fn summary(ill: &[&Finding]) -> String {
    let count = |severity| ill.iter().filter(|finding| finding.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let plural = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let verdict = if errors > 0 { ": this would not work" } else { "" };
    format!("\n{}, {}{verdict}\n", plural(errors, "error"), plural(warnings, "warning"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::DoctorSchema;

    fn finding(id: &'static str, severity: Severity, fix: Option<&str>) -> Finding {
        Finding {
            id,
            ok: fix.is_none(),
            severity,
            subject: "wan0".to_owned(),
            cause: "because\nof \x1b[2J".to_owned(),
            fix: fix.map(ToOwned::to_owned),
        }
    }

    #[test]
    fn errors_come_last_each_with_cause_and_fix_on_lines_of_their_own() {
        let found = Doctor {
            schema: DoctorSchema::V1,
            as_of: "2026-01-02T03:04:05.678Z".parse().expect("a time"),
            findings: vec![
                finding("vip_present", Severity::Error, Some("ip address add 203.0.113.10/32 dev wan0")),
                finding("lro", Severity::Warning, None),
                finding("mtu", Severity::Warning, Some("# decide")),
            ],
        };
        let wanted = "as of 2026-01-02T03:04:05.678Z\n\n\
            ok  lro  wan0  because\\nof \\u{1b}[2J\n\n\
            warning  mtu  wan0\n    because\\nof \\u{1b}[2J\n    # decide\n\n\
            error  vip_present  wan0\n    because\\nof \\u{1b}[2J\n    ip address add 203.0.113.10/32 dev wan0\n\n\
            1 error, 1 warning: this would not work\n";
        assert_eq!(table(&found, Palette::PLAIN), wanted);
    }
}
