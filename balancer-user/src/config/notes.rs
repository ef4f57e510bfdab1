//! What reading a configuration leaves behind besides its values: errors, warnings, and claims about the machine.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

use super::Warning;
use super::problem::{ConfigErrors, Fault, Problem, Problems};
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
    /// Ports of `pool`'s `snat_ports` are free for it; an index into the pools.
    SnatPorts { pool: usize },
}

/// Collects while the tables are read; shared by all readers of one text.
#[derive(Debug)]
pub(super) struct Notes<'s> {
    source: &'s SourceText,
    problems: RefCell<Problems>,
    warnings: RefCell<BTreeSet<(usize, String)>>,
    claims: RefCell<Vec<Claim>>,
}

impl<'s> Notes<'s> {
    pub(super) fn new(source: &'s SourceText) -> Self {
        Self {
            source,
            problems: RefCell::default(),
            warnings: RefCell::default(),
            claims: RefCell::default(),
        }
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
        let locate = |(offset, message)| Warning { line: self.source.line(offset), message };
        Ok((self.claims.into_inner(), self.warnings.into_inner().into_iter().map(locate).collect()))
    }
}
