//! The documents as a reader has them: their blocks of code, and a shell on the gateway in which they are run as written.
//!
//! Deliberately not here: what each command has to come to, which the tests say.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{
    gateway::{Gateway, PATIENCE, Said},
    lab::{Host, Lab, Process},
};

/// The project's folder.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A Markdown file.
#[derive(Debug, Clone)]
pub struct Document {
    /// Its path below the project's folder.
    pub name: String,
    /// All of it.
    pub text: String,
}

/// What stands between two fences.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Behind the first fence; empty if there is nothing.
    pub language: String,
    /// Without the indentation of its fences.
    pub text: String,
}

impl Document {
    /// # Errors
    /// When it can't be read.
    pub fn read(name: &str) -> Result<Self> {
        let text = fs::read_to_string(root().join(name)).with_context(|| format!("read {name}"))?;
        Ok(Self { name: name.to_owned(), text })
    }

    /// The README, and all of `docs`.
    ///
    /// # Errors
    /// When one can't be read.
    pub fn all() -> Result<Vec<Self>> {
        let files = fs::read_dir(root().join("docs")).context("list docs")?;
        let files = files.map(|file| file.map(|file| file.file_name())).collect::<io::Result<Vec<_>>>()?;
        let names = files.iter().map(|file| file.to_string_lossy()).filter(|file| file.ends_with(".md"));
        let mut names: Vec<_> = names.map(|file| format!("docs/{file}")).collect();
        names.sort();
        names.insert(0, "README.md".to_owned());
        names.iter().map(|name| Self::read(name)).collect()
    }

    /// All blocks of code, in order.
    #[must_use]
    pub fn blocks(&self) -> Vec<Block> {
        blocks(&self.text)
    }

    /// The commands that a reader is to type, in order. Scripts aren't among them.
    #[must_use]
    pub fn commands(&self) -> Vec<String> {
        let typed = self.blocks().into_iter().filter(|block| block.language == "sh" && !block.is_script());
        typed.flat_map(|block| block.text.lines().filter_map(command).collect::<Vec<_>>()).collect()
    }

    /// The first block behind these words.
    ///
    /// # Errors
    /// When there are no such words, or no block behind them.
    pub fn block_after(&self, words: &str) -> Result<String> {
        let (_, rest) = self.text.split_once(words).with_context(|| format!("{words:?} in {}", self.name))?;
        let block = blocks(rest).into_iter().next();
        Ok(block.with_context(|| format!("a block behind {words:?} in {}", self.name))?.text)
    }
}

impl Block {
    /// To be saved and run, not typed.
    #[must_use]
    pub fn is_script(&self) -> bool {
        self.text.starts_with("#!") || self.text.starts_with("exec ")
    }
}

fn blocks(text: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(language) = line.trim_start().strip_prefix("```") else { continue };
        let indentation = line.len() - line.trim_start().len();
        let inside = lines.by_ref().take_while(|line| line.trim() != "```");
        let text = inside.map(|line| line.get(indentation..).unwrap_or_default().to_owned() + "\n").collect();
        found.push(Block { language: language.to_owned(), text });
    }
    found
}

/// A line without the comment behind it.
fn command(line: &str) -> Option<String> {
    let command = line.split_once("  #").map_or(line, |(command, _)| command).trim();
    (!command.is_empty() && !command.starts_with('#')).then(|| command.to_owned())
}

/// A shell on the gateway, for which `balancer` is the one under test, with its places.
#[derive(Debug)]
pub struct Shell {
    host: Host,
    folder: PathBuf,
    environment: Vec<(&'static str, PathBuf)>,
}

impl Shell {
    /// # Errors
    /// When its folder can't be made.
    pub fn new(lab: &Lab, gateway: &Gateway, balancer: &Path) -> Result<Self> {
        let folder = lab.dir().join("shell");
        fs::create_dir(&folder).context("make the shell's folder")?;
        symlink(balancer, folder.join("balancer")).context("link balancer")?;
        let environment = vec![
            ("BALANCER_CONFIG", gateway.configuration().to_owned()),
            ("BALANCER_SOCKET", lab.socket()),
            ("BALANCER_STATE_DIR", lab.state_dir()),
            ("BALANCER_PIN_DIR", lab.pin_dir().to_owned()),
        ];
        Ok(Self { host: lab.gateway().clone(), folder, environment })
    }

    /// Where it is, and what comes first in its `PATH`.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Starts a command line.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start(&self, line: &str) -> Result<Process> {
        let mut command: Command = self.host.command("sh", ["-c", line]);
        let path = format!("{}:{}", self.folder.display(), std::env::var("PATH").unwrap_or_default());
        command.current_dir(&self.folder).env("PATH", path).envs(self.environment.iter().cloned());
        self.host.spawn_command(command)
    }

    /// Runs a command line to its end, which must be one of these exit codes.
    ///
    /// # Errors
    /// When it can't be started, doesn't end, or ends otherwise.
    pub fn run(&self, line: &str, codes: &[i32]) -> Result<Said> {
        let mut process = self.start(line)?;
        let code = process.wait(PATIENCE).with_context(|| format!("`{line}`"))?.code();
        let said = Said { code, stdout: process.stdout(), stderr: process.stderr() };
        ensure!(
            code.is_some_and(|code| codes.contains(&code)),
            "`{line}`, wanted one of {codes:?}: {said:?}"
        );
        Ok(said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_and_commands_are_found_in_lists_too_and_scripts_are_no_commands() {
        let text = "# x\n\n```sh\na b    # why\n# all of it\n\nc\n```\n- y\n\n  ```sh\n  exec z\n  ```\n```toml\nk = 1\n```\n";
        let document = Document { name: "x".to_owned(), text: text.to_owned() };
        assert_eq!(document.commands(), ["a b", "c"]);
        let blocks = document.blocks();
        assert_eq!(blocks.len(), 3);
        assert_eq!(blocks[1], Block { language: "sh".to_owned(), text: "exec z\n".to_owned() });
        assert_eq!(document.block_after("- y").unwrap(), "exec z\n");
        assert!(document.block_after("nowhere").is_err());
    }
}
