//! nginx's words: from text to words, `;`, `{` and `}`, each with its line.
//!
//! Exactly as `ngx_conf_read_token` does it (nginx 1.31.5): where a word ends, what a backslash does, that a comment
//! starts only where a word could, and that `${name}` opens no block. What the words mean is not known here.

use super::syntax::SyntaxError;

/// nginx's buffer: a longer word is refused there, too, as one whose quote was lost.
const WORD_BYTES: usize = 4096;

/// What a token is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Word(String),
    /// `;`
    End,
    /// `{`
    Open,
    /// `}`
    Close,
}

/// A token and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    /// From 1.
    pub(super) line: usize,
    /// How far it is from the line's beginning, if it is the first token there.
    pub(super) indent: Option<usize>,
}

/// Reads one token after the other.
#[derive(Debug)]
pub(super) struct Words<'t> {
    text: &'t str,
    at: usize,
    line: usize,
    /// Width of the blanks so far, as long as nothing else stood on the line.
    indent: Option<usize>,
}

impl<'t> Words<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        // nginx would take it for a part of the first word, and refuse that.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Self { text, at: 0, line: 1, indent: Some(0) }
    }

    pub(super) fn line(&self) -> usize {
        self.line
    }

    /// The next token; none at the end.
    pub(super) fn next(&mut self) -> Result<Option<Token>, SyntaxError> {
        self.skip_blank();
        let Some(byte) = self.peek() else { return Ok(None) };
        let (line, indent) = (self.line, self.indent);
        let kind = match byte {
            b';' => self.single(Kind::End),
            b'{' => self.single(Kind::Open),
            b'}' => self.single(Kind::Close),
            b'"' | b'\'' => Kind::Word(self.quoted(byte)?),
            _ => Kind::Word(self.bare()?),
        };
        Ok(Some(Token { kind, line, indent }))
    }

    /// Skips Lua up to the `}` that ends its block, which OpenResty reads by Lua's own rules. Whether there is one.
    pub(super) fn skip_lua(&mut self) -> bool {
        let mut depth = 1_usize;
        while let Some(byte) = self.peek() {
            match byte {
                b'{' => depth += 1,
                b'}' => depth -= 1,
                b'"' | b'\'' => self.skip_lua_string(byte),
                b'-' if self.rest().starts_with("--") => {
                    self.advance();
                    self.advance();
                    if !self.skip_long_bracket() {
                        self.skip_line();
                    }
                    continue;
                }
                b'[' if self.skip_long_bracket() => continue,
                _ => {}
            }
            self.advance();
            if depth == 0 {
                return true;
            }
        }
        false
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// One byte on; within a character of several bytes, too, where nothing is ever looked at.
    fn advance(&mut self) {
        match self.peek() {
            Some(b'\n') => {
                self.line += 1;
                self.indent = Some(0);
            }
            Some(b' ' | b'\r') => self.indent = self.indent.map(|width| width + 1),
            Some(b'\t') => self.indent = self.indent.map(|width| width + 8),
            Some(_) => self.indent = None,
            None => {}
        }
        self.at += 1;
    }

    fn single(&mut self, kind: Kind) -> Kind {
        self.advance();
        kind
    }

    fn skip_line(&mut self) {
        while self.peek().is_some_and(|byte| byte != b'\n') {
            self.advance();
        }
    }

    fn skip_blank(&mut self) {
        while let Some(byte) = self.peek() {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => self.advance(),
                b'#' => self.skip_line(),
                _ => break,
            }
        }
    }

    fn bare(&mut self) -> Result<String, SyntaxError> {
        let (start, line) = (self.at, self.line);
        let mut is_variable = false;
        while let Some(byte) = self.peek() {
            match byte {
                b'{' if is_variable => {}
                b' ' | b'\t' | b'\r' | b'\n' | b';' | b'{' => break,
                b'\\' => {
                    is_variable = false;
                    self.advance();
                }
                _ => is_variable = byte == b'$',
            }
            self.advance();
        }
        self.word(start, self.at.min(self.text.len()), line)
    }

    fn quoted(&mut self, quote: u8) -> Result<String, SyntaxError> {
        let line = self.line;
        self.advance();
        let start = self.at;
        loop {
            match self.peek() {
                None => return Err(SyntaxError::new(line, "a quote is opened here and never closed")),
                Some(byte) if byte == quote => break,
                Some(b'\\') => self.advance(),
                Some(_) => {}
            }
            self.advance();
        }
        let word = self.word(start, self.at, line)?;
        self.advance();
        match self.peek() {
            None | Some(b' ' | b'\t' | b'\r' | b'\n' | b';' | b'{' | b')') => Ok(word),
            Some(_) => {
                Err(SyntaxError::new(self.line, "a word goes on behind its closing quote, without a blank"))
            }
        }
    }

    fn word(&self, start: usize, end: usize, line: usize) -> Result<String, SyntaxError> {
        let written = self.text.get(start..end).unwrap_or_default();
        if written.len() > WORD_BYTES {
            let message =
                format!("a word of {} bytes starts here: nginx reads at most {WORD_BYTES}", written.len());
            return Err(SyntaxError::new(line, &message));
        }
        Ok(unescaped(written))
    }

    fn skip_lua_string(&mut self, quote: u8) {
        self.advance();
        while let Some(byte) = self.peek() {
            match byte {
                b'\\' => self.advance(),
                b'\n' => return,
                _ if byte == quote => return,
                _ => {}
            }
            self.advance();
        }
    }

    /// `[[…]]` or `[==[…]==]`; false, and nothing skipped, where none starts.
    fn skip_long_bracket(&mut self) -> bool {
        let Some(inner) = self.rest().strip_prefix('[') else { return false };
        let level = inner.bytes().take_while(|byte| *byte == b'=').count();
        if inner.as_bytes().get(level) != Some(&b'[') {
            return false;
        }
        let closing = format!("]{}]", "=".repeat(level));
        let length = self.rest().find(&closing).map_or(self.rest().len(), |at| at + closing.len());
        for _ in 0..length {
            self.advance();
        }
        true
    }
}

/// Without the backslashes that nginx takes away: before quotes, itself, and `t`, `r`, `n`. Others stay.
fn unescaped(written: &str) -> String {
    let mut word = String::with_capacity(written.len());
    let mut characters = written.chars().peekable();
    while let Some(character) = characters.next() {
        let escaped = match (character, characters.peek()) {
            ('\\', Some(next @ ('"' | '\'' | '\\'))) => Some(*next),
            ('\\', Some('t')) => Some('\t'),
            ('\\', Some('r')) => Some('\r'),
            ('\\', Some('n')) => Some('\n'),
            _ => None,
        };
        if escaped.is_some() {
            characters.next();
        }
        word.push(escaped.unwrap_or(character));
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Vec<String> {
        let mut words = Words::new(text);
        let mut shown = Vec::new();
        while let Some(token) = words.next().unwrap() {
            shown.push(match token.kind {
                Kind::Word(word) => word,
                Kind::End => "<;>".to_owned(),
                Kind::Open => "<{>".to_owned(),
                Kind::Close => "<}>".to_owned(),
            });
        }
        shown
    }

    #[test]
    fn words_end_where_nginx_ends_them() {
        for (text, expected) in [
            ("a b;c{}", &["a", "b", "<;>", "c", "<{>", "<}>"][..]),
            ("a\t'b c' \"d;e{}#\";", &["a", "b c", "d;e{}#", "<;>"]),
            ("a # b\nc#d;", &["a", "c#d", "<;>"]),
            ("set $a ${b}c;", &["set", "$a", "${b}c", "<;>"]),
            ("a${b{c}", &["a${b", "<{>", "c}"]),
            ("~^\\d{2}$ x;", &["~^\\d", "<{>", "2}$", "x", "<;>"]),
            ("\"~^\\d{2}$\" x;", &["~^\\d{2}$", "x", "<;>"]),
            ("a\\ b \\;c;", &["a\\ b", "\\;c", "<;>"]),
            (r#""a\"b" 'a\'b' "a\\b" a\nb \d;"#, &["a\"b", "a'b", "a\\b", "a\nb", "\\d", "<;>"]),
            ("if ($a = \"b\") {", &["if", "($a", "=", "b", ")", "<{>"]),
            ("a'b c;", &["a'b", "c", "<;>"]),
            ("'' x", &["", "x"]),
            ("\u{feff}user x;", &["user", "x", "<;>"]),
            ("größe ä;\\", &["größe", "ä", "<;>", "\\"]),
        ] {
            assert_eq!(tokens(text), expected, "{text:?}");
        }
    }

    #[test]
    fn lines_and_indentation_are_known() {
        let mut words = Words::new("a\n  b c\n\t'x\ny' }\n}");
        let mut seen = Vec::new();
        while let Some(token) = words.next().unwrap() {
            seen.push((token.line, token.indent));
        }
        assert_eq!(seen, [(1, Some(0)), (2, Some(2)), (2, None), (3, Some(8)), (4, None), (5, Some(0))]);
    }

    #[test]
    fn what_nginx_refuses_is_refused_with_its_line() {
        for (text, line, words) in [
            ("a;\n\"b", 2, "never closed"),
            ("a 'b'c;", 1, "goes on behind its closing quote"),
            (&format!("a;\n{}", "x".repeat(5000)), 2, "5000 bytes"),
        ] {
            let mut reader = Words::new(text);
            let error = loop {
                match reader.next() {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("{text} was read"),
                    Err(error) => break error,
                }
            };
            assert!(error.line == line && error.message.contains(words), "{text:.20}: {error:?}");
        }
    }

    #[test]
    fn lua_is_skipped_by_its_own_rules() {
        for lua in [
            "x = { a = { } } }",
            "x = \"}\" y = '}\\'}' }",
            "-- }\nx = 1 }",
            "--[[ }\n} ]] x = [==[ ]] } ]==] }",
            "x = a[1] }",
        ] {
            let text = format!("{lua} next;");
            let mut words = Words::new(&text);
            assert!(words.skip_lua(), "{lua}");
            assert_eq!(words.rest(), " next;", "{lua}");
        }
        assert!(!Words::new("x = [[ }").skip_lua());
    }
}
