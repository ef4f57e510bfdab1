//! Whole configurations of nginx, as people have them, and what becomes of them.

mod damaged;
mod differences;
mod hostile;
mod samples;

use std::fs;
use std::path::Path;

use super::super::{Config, ConfigErrors, Pool, parse};
use super::{ImportError, Imported, Settings, import};

/// Imports a file that holds `text`, beside others.
fn imported_beside(
    text: &str,
    others: &[(&str, &str)],
    settings: &Settings,
) -> Result<Imported, ImportError> {
    let folder = tempfile::tempdir().unwrap();
    let main = folder.path().join("pw.conf");
    fs::write(&main, text).unwrap();
    for (name, text) in others {
        fs::write(folder.path().join(name), text).unwrap();
    }
    import(&main, settings)
}

#[track_caller]
fn imported(text: &str, settings: &Settings) -> (Imported, Config) {
    let imported =
        imported_beside(text, &[], settings).unwrap_or_else(|error| panic!("{error}\nin:\n{text}"));
    let config = config(&imported.toml);
    (imported, config)
}

/// What the product itself makes of it.
#[track_caller]
fn config(toml: &str) -> Config {
    try_config(toml).unwrap_or_else(|errors| panic!("{errors}\nin:\n{toml}"))
}

fn try_config(toml: &str) -> Result<Config, ConfigErrors> {
    parse("f.toml", toml).map(|parsed| parsed.config)
}

#[track_caller]
fn refused(text: &str) -> String {
    match imported_beside(text, &[], &Settings::default()) {
        Ok(imported) => panic!("imported:\n{}", imported.toml),
        Err(error) => error.to_string(),
    }
}

/// The text as one line, so that words are found wherever it is wrapped.
fn unwrapped(toml: &str) -> String {
    toml.lines().map(|line| line.trim_start_matches('#').trim()).collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn assert_says(imported: &Imported, words: &[&str]) {
    let text = unwrapped(&imported.toml);
    for words in words {
        assert!(text.contains(words), "no {words:?} in:\n{}", imported.toml);
    }
}

#[track_caller]
fn assert_warns(imported: &Imported, words: &[&str]) {
    let remarks: Vec<String> = imported.remarks.iter().map(ToString::to_string).collect();
    for words in words {
        assert!(
            remarks.iter().any(|remark| remark.contains(words)),
            "no {words:?} in:\n{}",
            remarks.join("\n")
        );
    }
}

fn listens(pool: &Pool) -> Vec<String> {
    pool.services.iter().map(|service| format!("{}>{}", service.listen, service.backend_port)).collect()
}

fn backends(pool: &Pool) -> Vec<String> {
    pool.backends.iter().map(|backend| backend.address.to_string()).collect()
}

fn names(config: &Config) -> Vec<&str> {
    config.pools.iter().map(|pool| pool.name.as_str()).collect()
}

#[test]
fn a_file_that_is_missing_is_said() {
    let error = import(Path::new("/nonexistent/nginx.conf"), &Settings::default()).unwrap_err();
    assert!(matches!(error, ImportError::Unreadable { .. }), "{error}");
}
