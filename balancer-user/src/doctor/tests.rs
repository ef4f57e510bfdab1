//! What the topics' tests share, and the tests of what belongs to no topic.

use std::path::Path;

use super::*;
use crate::config;

pub(super) const TEXT: &str = r#"
[gateway]
interfaces = ["lo"]
[[pool]]
name = "p"
[[pool.service]]
name = "web"
listen = "203.0.113.10:443"
[[pool.service]]
name = "api"
listen = "203.0.113.10:8877"
[pool.probe]
kind = "tcp"
[[pool.backend]]
name = "b"
address = "10.0.2.11"
"#;

pub(super) fn config() -> Config {
    config::parse("test", TEXT).expect("a configuration").as_written()
}

pub(super) fn places() -> Places {
    Places {
        config: "/etc/balancer/balancer.toml".into(),
        socket: "/run/balancer/control.sock".into(),
        state_dir: "/var/lib/balancer".into(),
        pin_dir: "/sys/fs/bpf/balancer".into(),
    }
}

/// The ids of those that aren't well.
pub(super) fn ills(findings: &[Finding]) -> Vec<&'static str> {
    findings.iter().filter(|finding| !finding.ok).map(|finding| finding.id).collect()
}

#[track_caller]
pub(super) fn find<'a>(findings: &'a [Finding], id: &str) -> &'a Finding {
    findings.iter().find(|finding| finding.id == id).unwrap_or_else(|| panic!("no {id} in {findings:?}"))
}

#[test]
fn what_could_not_be_seen_is_said_with_the_command_that_sees_it() {
    assert_eq!(Unseen::default().judge("balancer doctor"), None);
    let mut unseen = Unseen::default();
    unseen.push("this");
    unseen.push("that");
    let finding = unseen.judge("balancer doctor").expect("a finding");
    assert!(
        finding.cause.ends_with("this; that") && finding.fix.as_deref() == Some("sudo balancer doctor"),
        "{finding:?}"
    );
}

#[test]
fn partial_checksums_are_told_once_there_are_any() {
    assert!(judge_partial(0).ok);
    let finding = judge_partial(7);
    assert!(
        !finding.ok
            && finding.cause.contains("7 packets")
            && finding.fix.is_some_and(|fix| fix.contains("tx off"))
    );
}

#[test]
fn a_command_names_the_instance() {
    let places = Places { pin_dir: Path::new("/sys/fs/bpf/a b").into(), ..places() };
    assert_eq!(
        places.command("doctor"),
        "balancer doctor --config /etc/balancer/balancer.toml --socket /run/balancer/control.sock --state-dir \
         /var/lib/balancer --pin-dir '/sys/fs/bpf/a b'"
    );
}

#[test]
fn every_finding_that_is_not_well_has_a_fix_and_every_other_none() {
    let nowhere = tempfile::tempdir().expect("a directory");
    let places = Places { config: nowhere.path().join("no.toml"), ..places() };
    let found = examine(&places);
    assert!(ills(&found.findings).contains(&"configuration"));
    assert!(found.findings.len() > 5, "what can be seen without a configuration is seen: {found:?}");
    for finding in &found.findings {
        assert_eq!(finding.ok, finding.fix.is_none(), "{finding:?}");
    }
}
