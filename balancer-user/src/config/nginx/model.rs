//! What a tree of directives says: upstreams with their servers, `server` blocks, and what is in neither.
//!
//! In nginx's terms, and with its defaults. What isn't understood is left, with its line and what that means here.

use std::borrow::Cow;

use super::directive::{Directive, Place};
use super::meaning;
use super::member::Member;
use super::server::{Scope, Server};

/// Which of nginx's two proxies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Http,
    Stream,
}

/// A line that isn't carried over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) place: Place,
    pub(super) text: String,
    /// What that means.
    pub(super) meaning: Cow<'static, str>,
}

impl Left {
    pub(super) fn new(directive: &Directive) -> Self {
        Self::because(directive, meaning::of(&directive.name))
    }

    pub(super) fn because(directive: &Directive, meaning: &'static str) -> Self {
        Self { place: directive.place.clone(), text: directive.shown(), meaning: meaning.into() }
    }
}

/// `upstream`
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) name: String,
    /// None: in a file that is included by `http` or by `stream`, and doesn't show by which.
    pub(super) protocol: Option<Protocol>,
    pub(super) place: Place,
    pub(super) members: Vec<Member>,
    pub(super) left: Vec<Left>,
    /// A host in `proxy_pass`, which nginx takes for an upstream with one server.
    pub(super) is_implied: bool,
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) upstreams: Vec<Upstream>,
    pub(super) servers: Vec<Server>,
    /// Outside of both.
    pub(super) left: Vec<Left>,
}

impl Model {
    pub(super) fn new(directives: &[Directive]) -> Self {
        let mut model = Self::default();
        model.read(directives, None, &Scope::default().within(directives));
        model
    }

    fn read(&mut self, directives: &[Directive], protocol: Option<Protocol>, scope: &Scope) {
        for directive in directives {
            let inner = directive.inner();
            match directive.name.as_str() {
                "http" if protocol.is_none() => self.read(inner, Some(Protocol::Http), &scope.within(inner)),
                "stream" if protocol.is_none() => {
                    self.read(inner, Some(Protocol::Stream), &scope.within(inner))
                }
                "upstream" if directive.block.is_some() => {
                    self.upstreams.extend(upstream(directive, protocol));
                }
                "server" if directive.block.is_some() => {
                    let protocol = protocol.unwrap_or_else(|| likely_protocol(inner));
                    self.servers.push(Server::new(directive, protocol, scope));
                }
                _ => self.left.push(Left::new(directive)),
            }
        }
    }
}

/// Of a `server` in a file that doesn't say: only in `stream` it has a `proxy_pass` of its own.
fn likely_protocol(server: &[Directive]) -> Protocol {
    if server.iter().any(|directive| directive.is("proxy_pass")) { Protocol::Stream } else { Protocol::Http }
}

fn upstream(directive: &Directive, protocol: Option<Protocol>) -> Option<Upstream> {
    let mut upstream = Upstream {
        name: directive.argument()?.to_owned(),
        protocol,
        place: directive.place.clone(),
        members: Vec::new(),
        left: Vec::new(),
        is_implied: false,
    };
    for inner in directive.inner() {
        match Member::read(inner, protocol.unwrap_or(Protocol::Http)) {
            Some(member) => upstream.members.push(member),
            None => upstream.left.push(Left::new(inner)),
        }
    }
    Some(upstream)
}
