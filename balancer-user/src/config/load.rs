//! A configuration's text, out of a file or from stdin, with bounds. Apart from what it means: whoever starts with it asks
//! first whether it is a text that he knows.

use std::path::Path;

use super::limits::CONFIG_BYTES;
use super::problem::{Fault, Problem, Problems};
use super::source::{SourceText, Span};
use super::{ConfigErrors, Parsed, ReadError, parse, read};

/// What was read.
#[derive(Debug)]
pub struct Text {
    /// As errors call it.
    name: String,
    bytes: Vec<u8>,
}

impl Text {
    /// All of it.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Parses it; it has to be UTF-8.
    pub fn parse(self) -> Result<Parsed, ConfigErrors> {
        match String::from_utf8(self.bytes) {
            Ok(text) => parse(&self.name, &text),
            Err(error) => Err(not_utf8(&self.name, &error)),
        }
    }
}

/// Reads a file, or stdin for `-`: at most 1 MiB, a regular file.
pub fn fetch(path: &Path) -> Result<Text, ConfigErrors> {
    let (name, bytes) = if path == Path::new("-") {
        ("<stdin>".to_owned(), read::bounded(std::io::stdin().lock(), CONFIG_BYTES))
    } else {
        (path.display().to_string(), read::file(path, CONFIG_BYTES))
    };
    match bytes {
        Ok(bytes) => Ok(Text { name, bytes }),
        Err(error) => {
            let instead = match error {
                ReadError::Io(_) => {
                    "write the configuration there, or name another file with --config".to_owned()
                }
                ReadError::Denied(_) => read::remedy(path),
                ReadError::NotAFile(_) => "name a regular file with --config, or `-` for stdin".to_owned(),
                ReadError::TooLarge(_) => {
                    "name the right file with --config; a configuration is smaller".to_owned()
                }
            };
            let fault = Fault::new(format!("can't read the configuration: {error}"), instead);
            Err(ConfigErrors::unreadable(&name, fault))
        }
    }
}

/// Reads and parses a file, or stdin for `-`.
pub fn load(path: &Path) -> Result<Parsed, ConfigErrors> {
    fetch(path)?.parse()
}

/// Where the first byte stands that isn't UTF-8.
fn not_utf8(name: &str, error: &std::string::FromUtf8Error) -> ConfigErrors {
    let offset = error.utf8_error().valid_up_to();
    let byte = error.as_bytes()[offset];
    let source = SourceText::new(name, &String::from_utf8_lossy(error.as_bytes()));
    // Up to here both texts are the same; the replacement character behind is three bytes long.
    let span = Span { start: offset, end: offset + char::REPLACEMENT_CHARACTER.len_utf8() };
    let mut problems = Problems::default();
    problems.push(Problem {
        span,
        key: String::new(),
        message: format!("is not UTF-8: byte 0x{byte:02x}"),
        instead: "save the file as UTF-8".to_owned(),
    });
    problems.locate(&source)
}
