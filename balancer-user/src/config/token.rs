//! `[http] token_file`: the secret of whoever may act on the dashboard.
//!
//! Only its digest is kept, so that neither a log nor a difference between two configurations can show it. Deliberately not
//! here: whose file it has to be (`program::secret`), and what a request must show besides (`observe`).

use std::fmt;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::problem::Fault;
use crate::program::{self, Untrusted};

/// Fewer characters can be guessed, at the rate at which guesses are taken, within a person's life.
const SHORTEST: usize = 16;
/// A person pastes it, and a request's head has room for it.
const LONGEST: usize = 256;
/// Room for the longest, and for the end of its line.
const FILE_BYTES: usize = 1024;

const MAKE: &str =
    "write a new one: (umask 077; head -c 24 /dev/urandom | base64 > FILE), FILE being this path, as root";

/// The digest of a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Token([u8; 32]);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    /// Whether this is the secret. Takes as long for every text of the same length.
    #[must_use]
    pub fn is(&self, presented: &[u8]) -> bool {
        let presented = Self::of(presented);
        let differing =
            self.0.iter().zip(presented.0).fold(0, |differing, (one, other)| differing | (one ^ other));
        std::hint::black_box(differing) == 0
    }

    pub(crate) fn of(text: &[u8]) -> Self {
        Self(Sha256::digest(text).into())
    }

    /// Out of its file, which only root may have.
    pub(super) fn read(path: &Path) -> Result<Self, Fault> {
        let bytes = program::secret(path, FILE_BYTES).map_err(|error| match error {
            Untrusted::Distrust(distrust) => {
                let message = format!("{} {}", distrust.path.display(), distrust.why);
                Fault::new(message, distrust.remedy.to_string())
            }
            Untrusted::Io { .. } => {
                Fault::new(error.to_string(), "write the path of a file that root can read")
            }
        })?;
        let text = bytes.trim_ascii();
        let problem = if text.len() < SHORTEST {
            format!("holds a token of {} characters, which are fewer than {SHORTEST}", text.len())
        } else if text.len() > LONGEST {
            format!("holds a token of {} characters, which are more than {LONGEST}", text.len())
        } else if !text.iter().all(u8::is_ascii_graphic) {
            "holds something that is no token: one line of letters, digits and signs".to_owned()
        } else {
            return Ok(Self::of(text));
        };
        Err(Fault::new(format!("{} {problem}", path.display()), MAKE))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::program::tests::Folder;

    const SECRET: &str = "correct-horse-battery";

    fn read(text: impl AsRef<[u8]>) -> Result<Token, Fault> {
        let folder = Folder::new();
        let path = folder.at("token");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        Token::read(&path)
    }

    #[test]
    fn only_the_same_text_is_the_token_and_it_is_never_shown() {
        let token = read(format!("{SECRET}\n")).unwrap();
        assert!(token.is(SECRET.as_bytes()));
        for wrong in ["", "correct-horse-batter", "correct-horse-battery ", "Correct-horse-battery"] {
            assert!(!token.is(wrong.as_bytes()), "{wrong:?}");
        }
        assert_eq!(format!("{token:?}"), "Token");
    }

    #[test]
    fn what_is_no_token_is_refused_with_the_way_to_make_one() {
        let long = "x".repeat(LONGEST + 1);
        for (text, words) in [
            ("", "fewer than 16"),
            ("123456789012345\n", "15 characters"),
            (long.as_str(), "more than 256"),
            ("one two three four five", "no token"),
            ("token-with-an-umlaut-ä", "no token"),
            ("two-lines-of-text\nand-another", "no token"),
        ] {
            let fault = read(text).unwrap_err();
            assert!(fault.message.contains(words), "{text:?}: {}", fault.message);
            assert!(fault.instead.contains("/dev/urandom"), "{}", fault.instead);
        }
        let fault = read("x".repeat(FILE_BYTES + 1)).unwrap_err();
        assert!(fault.message.contains("larger than"), "{}", fault.message);
    }
}
