//! nginx's directives and blocks, also of a text that has lost closing braces, as published examples often have.
//!
//! A block whose brace is lost shows in what can't stand in it (`server {` within an `upstream`), and in the indentation
//! of the braces that are left, which is looked at only when they don't add up. What a directive means is not known here,
//! but for the few that tell where they belong.

use std::rc::Rc;

use super::directive::{Directive, Place, shown};
use super::words::{Kind, Token, Words};

/// Blocks within blocks; real configurations have five.
const DEPTH: usize = 32;

/// Why a text isn't nginx's; with the line, from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SyntaxError {
    pub(super) line: usize,
    pub(super) message: String,
}

impl SyntaxError {
    pub(super) fn new(line: usize, message: &str) -> Self {
        Self { line, message: message.to_owned() }
    }
}

/// What a text holds.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    pub(super) directives: Vec<Directive>,
    /// What had to be guessed, by line.
    pub(super) repairs: Vec<(usize, String)>,
    /// How many directives there are, on all levels.
    pub(super) count: usize,
}

/// Reads a text of at most `room` directives.
pub(super) fn parse(text: &str, file: &Rc<str>, room: usize) -> Result<Parsed, SyntaxError> {
    let plain = Parser::new(file, room, false).run(text)?;
    // A brace was lost, or there is one too many: where lines begin tells more than the braces alone.
    if plain.repairs.is_empty() { Ok(plain) } else { Parser::new(file, room, true).run(text) }
}

/// A block that is open.
struct Open {
    name: String,
    arguments: Vec<String>,
    line: usize,
    /// Of its line.
    indent: Option<usize>,
    inner: Vec<Directive>,
}

struct Parser<'f> {
    file: &'f Rc<str>,
    room: usize,
    by_indentation: bool,
    open: Vec<Open>,
    parsed: Parsed,
    /// The directive that is being read, and where it began.
    words: Vec<String>,
    began: (usize, Option<usize>),
}

impl<'f> Parser<'f> {
    fn new(file: &'f Rc<str>, room: usize, by_indentation: bool) -> Self {
        let parsed = Parsed::default();
        Self { file, room, by_indentation, open: Vec::new(), parsed, words: Vec::new(), began: (1, None) }
    }

    fn run(mut self, text: &str) -> Result<Parsed, SyntaxError> {
        let mut words = Words::new(text);
        while let Some(token) = words.next()? {
            self.take(token, &mut words)?;
        }
        let last = words.line();
        if !self.words.is_empty() {
            self.unended(last)?;
        }
        while !self.open.is_empty() {
            self.repair_unclosed("at the end of the file", last);
        }
        Ok(self.parsed)
    }

    fn take(&mut self, token: Token, words: &mut Words<'_>) -> Result<(), SyntaxError> {
        let line = token.line;
        match token.kind {
            Kind::Word(word) => {
                if self.words.is_empty() {
                    self.began = (line, token.indent);
                }
                self.words.push(word);
            }
            Kind::End if self.words.is_empty() => self.repair(line, "a `;` ends nothing".to_owned()),
            Kind::End => self.leaf()?,
            Kind::Open if self.words.is_empty() => {
                return Err(SyntaxError::new(line, "a `{` has no name before it"));
            }
            Kind::Open => self.open(words)?,
            Kind::Close => {
                if !self.words.is_empty() {
                    self.unended(line)?;
                }
                self.close(line, token.indent);
            }
        }
        Ok(())
    }

    /// A directive without its `;`.
    fn unended(&mut self, line: usize) -> Result<(), SyntaxError> {
        let (name, arguments) = (self.words[0].clone(), self.words[1..].to_vec());
        self.repair(line, format!("`{}` is not ended by a `;`", shown(&name, &arguments, "")));
        self.leaf()
    }

    fn leaf(&mut self) -> Result<(), SyntaxError> {
        let mut words = std::mem::take(&mut self.words).into_iter();
        let Some(name) = words.next() else { return Ok(()) };
        let line = self.began.0;
        self.count(line)?;
        self.close_what_cannot_hold(&name, false, line);
        let place = self.place(line);
        self.push(Directive { name, arguments: words.collect(), place, block: None });
        Ok(())
    }

    fn open(&mut self, text: &mut Words<'_>) -> Result<(), SyntaxError> {
        let mut words = std::mem::take(&mut self.words).into_iter();
        let Some(name) = words.next() else { return Ok(()) };
        let (line, indent) = self.began;
        self.count(line)?;
        self.close_what_cannot_hold(&name, true, line);
        if self.open.len() == DEPTH {
            return Err(SyntaxError::new(line, &format!("blocks are nested more than {DEPTH} deep")));
        }
        let is_lua = name.ends_with("_by_lua_block");
        self.open.push(Open { name, arguments: words.collect(), line, indent, inner: Vec::new() });
        if is_lua {
            if text.skip_lua() {
                self.finish();
            } else {
                self.repair_unclosed("at the end of the file", text.line());
            }
        }
        Ok(())
    }

    /// A `}`.
    fn close(&mut self, line: usize, indent: Option<usize>) {
        if self.by_indentation
            && indent.is_some()
            && let Some(owner) = self.open.iter().rposition(|open| open.indent == indent)
        {
            while self.open.len() > owner + 1 {
                self.repair_unclosed(&format!("before line {line}, whose `}}` stands further out"), line);
            }
        }
        if self.open.is_empty() {
            self.repair(line, "a `}` closes nothing".to_owned());
        } else {
            self.finish();
        }
    }

    fn close_what_cannot_hold(&mut self, name: &str, is_block: bool, line: usize) {
        while self.open.last().is_some_and(|outer| cannot_hold(&outer.name, name, is_block)) {
            self.repair_unclosed(&format!("before line {line}, as `{name}` can't stand in it"), line);
        }
    }

    /// Ends the innermost block although its brace is missing.
    fn repair_unclosed(&mut self, ends: &str, line: usize) {
        let Some(open) = self.open.last() else { return };
        let what = shown(&open.name, &open.arguments, " {");
        let message =
            format!("`{what}` on line {} has lost its closing brace; taken to end {ends}", open.line);
        self.repair(line, message);
        self.finish();
    }

    fn finish(&mut self) {
        let Some(Open { name, arguments, line, inner, .. }) = self.open.pop() else { return };
        let place = self.place(line);
        self.push(Directive { name, arguments, place, block: Some(inner) });
    }

    fn push(&mut self, directive: Directive) {
        match self.open.last_mut() {
            Some(open) => open.inner.push(directive),
            None => self.parsed.directives.push(directive),
        }
    }

    fn repair(&mut self, line: usize, message: String) {
        self.parsed.repairs.push((line, message));
    }

    fn place(&self, line: usize) -> Place {
        Place { file: Rc::clone(self.file), line }
    }

    fn count(&mut self, line: usize) -> Result<(), SyntaxError> {
        self.parsed.count += 1;
        if self.parsed.count > self.room {
            return Err(SyntaxError::new(line, "there are too many directives to be one gateway's"));
        }
        Ok(())
    }
}

/// Whether `inner` shows that the block `outer` must have ended before it. Only what is certain: blocks of other modules
/// may hold what they like.
fn cannot_hold(outer: &str, inner: &str, is_block: bool) -> bool {
    let in_server = matches!(outer, "location" | "if" | "limit_except");
    let in_protocol =
        in_server || matches!(outer, "upstream" | "server" | "types" | "map" | "geo" | "events");
    match inner {
        "http" | "stream" | "events" | "mail" if is_block => {
            in_protocol || matches!(outer, "http" | "stream" | "mail")
        }
        "upstream" | "server" if is_block => in_protocol,
        "location" if is_block => outer == "upstream",
        "listen" | "server_name" if !is_block => in_server,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tree on one line, and what was repaired.
    fn read(text: &str) -> (String, Vec<String>) {
        let parsed = parse(text, &Rc::from("f"), 1000).unwrap();
        let repairs =
            parsed.repairs.into_iter().map(|(line, message)| format!("{line}: {message}")).collect();
        (tree(&parsed.directives), repairs)
    }

    fn tree(directives: &[Directive]) -> String {
        let each = directives.iter().map(|directive| {
            let head: Vec<&str> =
                std::iter::once(&directive.name).chain(&directive.arguments).map(String::as_str).collect();
            match &directive.block {
                Some(inner) => format!("{}{{{}}}", head.join(" "), tree(inner)),
                None => head.join(" "),
            }
        });
        each.collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn blocks_hold_directives_with_their_lines() {
        let parsed = parse("a 1;\nb {\n c;\n d {\n }\n}\n", &Rc::from("f"), 1000).unwrap();
        assert_eq!(tree(&parsed.directives), "a 1; b{c; d{}}");
        assert!(parsed.repairs.is_empty(), "{:?}", parsed.repairs);
        assert_eq!(parsed.directives[1].inner()[1].place.to_string(), "f:4");
        assert_eq!(parsed.count, 4);
    }

    #[test]
    fn a_lost_brace_is_found_by_what_cannot_stand_in_the_block() {
        let (tree, repairs) =
            read("upstream a {\nserver x;\n\nserver {\nlisten 443;\nlocation / {\nproxy_pass a;\n}\n}\n");
        assert_eq!(tree, "upstream a{server x}; server{listen 443; location /{proxy_pass a}}");
        assert_eq!(
            repairs,
            [
                "4: `upstream a {` on line 1 has lost its closing brace; taken to end before line 4, as `server` can't \
              stand in it"
            ]
        );
    }

    #[test]
    fn a_lost_brace_is_found_by_the_indentation_of_the_next() {
        let text = "http {\n  server {\n    location / {\n      x;\n  }\n  y {\n  }\n}\n";
        let (tree, repairs) = read(text);
        assert_eq!(tree, "http{server{location /{x}}; y{}}");
        assert_eq!(
            repairs,
            [
                "5: `location / {` on line 3 has lost its closing brace; taken to end before line 5, whose `}` stands \
              further out"
            ]
        );
    }

    #[test]
    fn indentation_means_nothing_while_the_braces_add_up() {
        let (tree, repairs) = read("http {\n  a {\n   b;\n}\n  c;\n}\n");
        assert_eq!(tree, "http{a{b}; c}");
        assert!(repairs.is_empty(), "{repairs:?}");
    }

    #[test]
    fn what_is_open_at_the_end_is_closed_there() {
        let (tree, repairs) = read("http {\nserver {\nlisten 1;\nroot /x");
        assert_eq!(tree, "http{server{listen 1; root /x}}");
        assert_eq!(repairs.len(), 3, "{repairs:?}");
        assert!(repairs[0].contains("`root /x` is not ended by a `;`"), "{repairs:?}");
        assert!(repairs[1].contains("`server {` on line 2"), "{repairs:?}");
    }

    #[test]
    fn a_brace_too_many_and_a_lost_semicolon_are_said() {
        let (tree, repairs) = read("a { b c }\n}\nd;;");
        assert_eq!(tree, "a{b c}; d");
        assert_eq!(
            repairs,
            ["1: `b c` is not ended by a `;`", "2: a `}` closes nothing", "3: a `;` ends nothing"]
        );
    }

    #[test]
    fn lua_is_no_nginx() {
        let (tree, repairs) =
            read("server { content_by_lua_block { x = '}' if a then b(\"{\") end } listen 1; }");
        assert_eq!(tree, "server{content_by_lua_block{}; listen 1}");
        assert!(repairs.is_empty(), "{repairs:?}");
    }

    #[test]
    fn blocks_of_other_modules_hold_what_they_like() {
        let (tree, repairs) = read("rtmp { server { listen 1935; } }");
        assert_eq!(tree, "rtmp{server{listen 1935}}");
        assert!(repairs.is_empty(), "{repairs:?}");
    }

    #[test]
    fn depth_and_number_are_bounded() {
        let refused = |text: &str| parse(text, &Rc::from("f"), 1000).unwrap_err().message;
        assert!(refused(&"a { ".repeat(33)).contains("nested"));
        assert!(refused(&"a;".repeat(1001)).contains("too many"));
        assert!(refused("{").contains("no name"));
    }
}
