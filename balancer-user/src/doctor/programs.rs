//! The operator's programs: whether the daemon would run them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Unseen;
use super::finding::{About, about, quoted};
use crate::config::{Check, Config};
use crate::control::protocol::{Finding, Severity};
use crate::program::{self, CommandLine, Untrusted};

/// What was seen: each program once, who wants it, and whether it would be run.
#[derive(Debug, Default)]
pub(super) struct Programs {
    pub(super) all: BTreeMap<PathBuf, (String, Result<(), Untrusted>)>,
}

impl Programs {
    pub(super) fn look(config: Option<&Config>, unseen: &mut Unseen) -> Self {
        let wanted = config.map(wanted).unwrap_or_default();
        if !wanted.is_empty() && !rustix::process::geteuid().is_root() {
            unseen.push("whether the daemon would run the programs of the configuration");
            return Self::default();
        }
        let look = |(path, whose): (PathBuf, String)| {
            let trusted = program::trusted(&path);
            (path, (whose, trusted))
        };
        Self { all: wanted.into_iter().map(look).collect() }
    }

    pub(super) fn judge(&self) -> Vec<Finding> {
        self.all.iter().map(|(path, (whose, trusted))| judge(path, whose, trusted)).collect()
    }
}

fn judge(path: &Path, whose: &str, trusted: &Result<(), Untrusted>) -> Finding {
    let about: About = about("program", Severity::Error, path.display().to_string());
    match trusted {
        Ok(()) => about.well(format!("{whose}: the daemon would run it")),
        Err(Untrusted::Distrust(distrust)) => {
            let cause = format!(
                "{whose}: the daemon would not run it, as {} {}",
                distrust.path.display(),
                distrust.why
            );
            match distrust.remedy.command(Path::new(&quoted(&distrust.path))) {
                Some(command) => about.ill(cause, command),
                None => about.ask(cause, distrust.remedy.to_string()),
            }
        }
        Err(error @ Untrusted::Io { .. }) => {
            about.ask(format!("{whose}: {error}"), "write the path of a program that can be opened")
        }
    }
}

/// The programs of a configuration, and the first that wants each.
fn wanted(config: &Config) -> BTreeMap<PathBuf, String> {
    let mut wanted = BTreeMap::new();
    let mut want = |line: &CommandLine, whose: String| {
        wanted.entry(line.program.clone()).or_insert(whose);
    };
    if let Some(line) = &config.gateway.notify {
        want(line, "notify".to_owned());
    }
    for pool in &config.pools {
        for hook in &pool.hooks {
            want(&hook.run, format!("hook `{}` of pool {}", hook.name, pool.name));
        }
        for service in &pool.services {
            if let Check::Exec { run } = &service.probe.check {
                want(run, format!("probe of service {} in pool {}", service.name, pool.name));
            }
        }
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::super::tests::{config, find, ills};
    use super::*;
    use crate::directory::Remedy;
    use crate::program::Distrust;

    fn distrust(remedy: Remedy) -> Programs {
        let path = PathBuf::from("/etc/balancer/hooks/promote");
        let error = Distrust { path: path.clone(), why: "is open".into(), remedy };
        Programs { all: [(path, ("hook `h` of pool p".to_owned(), Err(error.into())))].into() }
    }

    #[test]
    fn a_program_that_would_not_run_is_an_error_with_what_mends_it() {
        let findings = distrust(Remedy::Chmod).judge();
        assert_eq!(ills(&findings), ["program"]);
        assert_eq!(find(&findings, "program").fix.as_deref(), Some("chmod 0755 /etc/balancer/hooks/promote"));
        let findings = distrust(Remedy::ByHand("install it there")).judge();
        assert_eq!(find(&findings, "program").fix.as_deref(), Some("# install it there"));
        let good = Programs { all: [("/x".into(), ("notify".to_owned(), Ok(())))].into() };
        assert_eq!(ills(&good.judge()), Vec::<&str>::new());
    }

    #[test]
    fn every_kind_of_program_is_looked_at_once() {
        let mut config = config();
        let line = |path: &str| CommandLine { program: path.into(), arguments: vec![] };
        config.gateway.notify = Some(line("/n"));
        config.pools[0].services[0].probe.check = Check::Exec { run: line("/e") };
        config.pools[0].services[1].probe.check = Check::Exec { run: line("/e") };
        let found = wanted(&config);
        assert_eq!(found.keys().map(|path| path.display().to_string()).collect::<Vec<_>>(), ["/e", "/n"]);
    }
}
