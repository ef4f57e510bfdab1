//! The verb: what was typed, held against what balancer takes; TOML to stdout, what to look at to stderr.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::super::limits::INTERFACES;
use super::super::{addresses, names};
use super::remarks::printable;
use super::{ImportError, Settings, import};
use crate::exit::{Exit, Failure, print, say};

/// As typed.
#[derive(Debug, Clone)]
pub struct Request {
    /// nginx's configuration.
    pub file: PathBuf,
    /// `--interface`, each time.
    pub interfaces: Vec<String>,
    /// `--vip`
    pub vip: Option<IpAddr>,
    /// `--separate`
    pub separate: bool,
}

/// Prints the configuration that nginx's file comes to.
///
/// # Errors
/// A file that can't be read (1), one without anything to import (3), or a wrong flag (2).
pub fn run(request: &Request) -> Result<Exit, Failure> {
    let settings = settings(request).map_err(|why| Failure::new(Exit::Usage, printable(&why)))?;
    let imported = import(&request.file, &settings).map_err(|error| failure(&error))?;
    for remark in &imported.remarks {
        say(&format!("warning: {remark}"));
    }
    let [pools, services, backends] = imported.counts;
    say(&format!(
        "{}: {}, {}, {}; the comments say what is different",
        printable(&request.file.display().to_string()),
        counted(pools, "pool"),
        counted(services, "service"),
        counted(backends, "backend")
    ));
    print(&imported.toml)?;
    Ok(Exit::Ok)
}

fn failure(error: &ImportError) -> Failure {
    let exit = match error {
        ImportError::Unreadable { .. } => Exit::Failed,
        ImportError::NotNginx { .. } | ImportError::Nothing { .. } => Exit::Config,
    };
    let lines: Vec<String> = error.to_string().lines().map(printable).collect();
    Failure::new(exit, lines.join("\n"))
}

fn counted(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn settings(request: &Request) -> Result<Settings, String> {
    if let Some(vip) = request.vip {
        // The port only completes the form.
        addresses::listen(&SocketAddr::new(vip, 1).to_string())
            .map_err(|fault| format!("--vip: {}; {}", fault.message, fault.instead))?;
    }
    let mut interfaces = Vec::new();
    for name in &request.interfaces {
        names::interface(name)
            .map_err(|fault| format!("--interface: {}; {}", fault.message, fault.instead))?;
        if !interfaces.contains(name) {
            interfaces.push(name.clone());
        }
    }
    if interfaces.len() > INTERFACES {
        return Err(format!("--interface: {} are too many; name at most {INTERFACES}", interfaces.len()));
    }
    Ok(Settings { interfaces, vip: request.vip, separate: request.separate })
}
