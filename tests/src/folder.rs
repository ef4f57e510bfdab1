//! A folder of scripts for the daemon to run, and of what they write. Below `/tmp`, where the lab is, none would be run.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use anyhow::{Context, Result};

/// It goes when it is dropped.
pub struct Folder(tempfile::TempDir);

impl Folder {
    /// An empty one.
    ///
    /// # Errors
    /// When `/var/lib` takes none.
    pub fn new() -> Result<Self> {
        let made = tempfile::Builder::new().prefix("balancer-test-").tempdir_in("/var/lib");
        Ok(Self(made.context("make a folder in /var/lib")?))
    }

    /// The path of a file in it.
    #[must_use]
    pub fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A program that runs `body`, in which `$folder` is this folder.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn script(&self, name: &str, body: &str) -> Result<PathBuf> {
        let path = self.at(name);
        fs::write(&path, format!("#!/bin/sh\nfolder='{}'\n{body}\n", self.0.path().display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(path)
    }

    /// What is written in a file; nothing if there is none.
    #[must_use]
    pub fn lines(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.at(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}
