//! The keys of a probe that asks something over HTTP, and the [`Question`] that they become.
//!
//! Deliberately absent: the host to ask for; it is `server_name`, or what the backend is given by.

use std::ops::RangeInclusive;

use hyper::http::uri::PathAndQuery;

use super::problem::{Fault, quoted};
use super::source::Located;
use super::table::Table;
use super::{Question, ranges};

const PATH: &str = "/";
const GOOD: RangeInclusive<u16> = 200..=399;
/// What can be the status of an answer.
const STATUSES: RangeInclusive<u16> = 100..=599;

/// As written.
#[derive(Debug, Default, Clone)]
pub(super) struct QuestionKeys {
    pub(super) path: Option<Located<PathAndQuery>>,
    pub(super) expect_status: Option<Located<Vec<RangeInclusive<u16>>>>,
    pub(super) expect_body: Option<Located<String>>,
}

impl QuestionKeys {
    pub(super) fn read(table: &mut Table<'_>) -> Self {
        Self {
            path: table.text("path", path),
            expect_status: table.text("expect_status", |written| ranges::parse(written, &STATUSES)),
            expect_body: table.text("expect_body", |written| Ok(written.to_owned())),
        }
    }

    /// With the defaults where nothing is written.
    pub(super) fn question(&self) -> Question {
        Question {
            path: self.path.as_ref().map_or(PathAndQuery::from_static(PATH), |path| path.value.clone()),
            expect_status: self.expect_status.as_ref().map_or(vec![GOOD], |good| good.value.clone()),
            expect_body: self.expect_body.as_ref().map(|text| text.value.clone()).unwrap_or_default(),
        }
    }
}

fn path(written: &str) -> Result<PathAndQuery, Fault> {
    // What stands behind a `#` is never sent.
    let odd = |byte: u8| !byte.is_ascii_graphic() || byte == b'#';
    let is_plain = written.starts_with('/') && !written.bytes().any(odd);
    let path = is_plain.then(|| PathAndQuery::try_from(written));
    match path {
        Some(Ok(path)) => Ok(path),
        Some(Err(_)) | None => Err(Fault::new(
            format!("{} is not the path of a URL", quoted(written)),
            "start with `/`, leave out `#`, and write spaces and other characters than visible ASCII as %XX",
        )),
    }
}
