//! What reading a configuration leaves behind besides its values: errors, warnings, and claims about the machine.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

use super::Warning;
use super::problem::{ConfigErrors, Fault, Problem, Problems};
use super::shape::{Shape, Shapes};
use super::source::{SourceText, Span};

/// Something that a configuration says about the machine, and where it says so. The machine is asked in the second
/// stage ([`machine`](super::machine)).
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) span: Span,
    pub(super) key: String,
    pub(super) says: Says,
}

/// What is claimed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Says {
    /// This interface exists.
    Interface(String),
    /// Packets for this address reach this machine.
    ServiceAddress(IpAddr),
    /// This address is one of this machine, for it to send from.
    SourceAddress(IpAddr),
    /// This address belongs to another machine.
    BackendAddress(IpAddr),
    /// This backend has a name that leads to another machine; indices into the pools and their backends.
    BackendHost { pool: usize, backend: usize },
    /// Certificates stand in this file.
    CaFile(PathBuf),
    /// Only root can have written this program.
    Program(PathBuf),
    /// In this file, which only root can read, stands the dashboard's token.
    Token(PathBuf),
    /// Ports of `pool`'s `snat_ports` are free for it; an index into the pools.
    SnatPorts { pool: usize },
}

/// A key that a table could have, and hasn't.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LeftOut {
    /// The line of the table's header.
    pub(super) line: usize,
    /// With its tables.
    pub(super) key: String,
}

/// Collects while the tables are read; shared by all readers of one text.
#[derive(Debug)]
pub(super) struct Notes<'s> {
    source: &'s SourceText,
    problems: RefCell<Problems>,
    warnings: RefCell<BTreeSet<(usize, String)>>,
    claims: RefCell<Vec<Claim>>,
    left_out: RefCell<Vec<LeftOut>>,
    learned: RefCell<Shapes>,
}

impl<'s> Notes<'s> {
    pub(super) fn new(source: &'s SourceText) -> Self {
        Self {
            source,
            problems: RefCell::default(),
            warnings: RefCell::default(),
            claims: RefCell::default(),
            left_out: RefCell::default(),
            learned: RefCell::default(),
        }
    }

    /// A reader asks for a key of the table at `path`.
    pub(super) fn learn(&self, path: &str, key: &'static str, shape: Shape) {
        self.learned.borrow_mut().learn(path, key, shape);
    }

    /// A reader can't do without this key, named in full.
    pub(super) fn learn_required(&self, key: String) {
        self.learned.borrow_mut().require(key);
    }

    /// What the readers have asked for so far.
    pub(super) fn learned(&self) -> Shapes {
        self.learned.take()
    }

    /// A key isn't written in the table at `path`, whose header is at `span`.
    pub(super) fn left_out(&self, span: Span, path: &str, key: &str) {
        let key = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        self.left_out.borrow_mut().push(LeftOut { line: self.line(span), key });
    }

    /// The keys that were left out so far.
    pub(super) fn all_left_out(&self) -> Vec<LeftOut> {
        self.left_out.take()
    }

    /// The line on which this stands, to name it in an error elsewhere.
    pub(super) fn line(&self, span: Span) -> usize {
        self.source.line(span.start)
    }

    pub(super) fn error(&self, span: Span, key: impl Into<String>, fault: Fault) {
        let Fault { message, instead } = fault;
        self.problems.borrow_mut().push(Problem { span, key: key.into(), message, instead });
    }

    /// A warning at this byte of the text.
    pub(super) fn warning(&self, span: Span, message: impl Into<String>) {
        self.warnings.borrow_mut().insert((span.start, message.into()));
    }

    pub(super) fn claim(&self, span: Span, key: impl Into<String>, says: Says) {
        self.claims.borrow_mut().push(Claim { span, key: key.into(), says });
    }

    /// The claims and warnings, if there was no error.
    pub(super) fn conclude(self) -> Result<(Vec<Claim>, Vec<Warning>), ConfigErrors> {
        let problems = self.problems.into_inner();
        if !problems.is_empty() {
            return Err(problems.locate(self.source));
        }
        let locate = |(offset, message)| {
            let (line, column) = self.source.position(offset);
            Warning { line, column, message }
        };
        Ok((self.claims.into_inner(), self.warnings.into_inner().into_iter().map(locate).collect()))
    }
}
