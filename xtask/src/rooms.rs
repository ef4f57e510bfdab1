//! Who may know whom: the rules that keep the rooms of this project apart, checked against what the sources say.

use std::fs;
use std::path::{Path, PathBuf};

use crate::run::root;

/// Below `folder`, but not below `except`, no line may have any of the words.
struct Rule {
    folder: &'static str,
    except: &'static [&'static str],
    words: &'static [&'static str],
    why: &'static str,
}

const RULES: &[Rule] = &[
    Rule {
        folder: "balancer-common/src",
        except: &["balancer-common/src/pod.rs"],
        words: &["aya", "balancer_user", "balancer_ebpf", "Instant", "SystemTime"],
        why: "common knows nobody, and no clock",
    },
    Rule {
        folder: "balancer-ebpf/src",
        except: &[],
        words: &["balancer_user"],
        why: "the packet path and the controller meet only in common",
    },
    Rule {
        folder: "balancer-user/src",
        except: &["balancer-user/src/dataplane"],
        words: &["use aya", "aya::", "rtnetlink"],
        why: "only the data plane touches aya, maps and netlink",
    },
    Rule {
        folder: "balancer-user/src/policy",
        except: &[],
        words: &[
            "tokio",
            "aya",
            "serde",
            "tracing",
            "::now()",
            "crate::config",
            "crate::dataplane",
            "crate::probe",
            "crate::program",
            "crate::control",
            "crate::cli",
            "crate::daemon",
        ],
        why: "the policy is pure",
    },
    Rule {
        folder: "balancer-user/src/cli",
        except: &[],
        words: &["crate::daemon", "crate::dataplane", "crate::policy", "crate::probe", "crate::config"],
        why: "the command line is a client of the daemon",
    },
    Rule {
        folder: "balancer-user/src/dataplane",
        except: &[],
        words: &[
            "crate::policy",
            "crate::probe",
            "crate::control",
            "crate::cli",
            "crate::daemon",
            "crate::config",
        ],
        why: "the data plane has no opinion",
    },
    Rule {
        folder: "balancer-user/src/probe",
        except: &[],
        words: &["crate::policy", "crate::dataplane", "crate::control", "crate::cli", "crate::daemon"],
        why: "a probe runs one check",
    },
    Rule {
        folder: "balancer-user/src/program",
        except: &[],
        words: &[
            "crate::config",
            "crate::policy",
            "crate::probe",
            "crate::control",
            "crate::cli",
            "crate::daemon",
        ],
        why: "a program is run, whoever wants it",
    },
    Rule {
        folder: "balancer-user/src/observe",
        except: &[],
        words: &["crate::policy", "crate::dataplane", "crate::probe", "crate::cli", "crate::daemon"],
        why: "what is shown is asked for as clients ask for it",
    },
    Rule {
        folder: "balancer-user/src/redirect",
        except: &[],
        words: &["crate::config", "crate::control", "crate::dataplane", "crate::policy", "crate::daemon"],
        why: "a redirect knows where it leads, and nothing else",
    },
    Rule {
        folder: "balancer-user/src/doctor",
        except: &[],
        words: &["crate::policy", "crate::probe", "crate::cli", "crate::store"],
        why: "the doctor looks at the machine, not at backends",
    },
    Rule {
        folder: "balancer-user/src/store",
        except: &[],
        words: &[
            "crate::policy",
            "crate::dataplane",
            "crate::probe",
            "crate::config",
            "crate::cli",
            "crate::daemon",
        ],
        why: "the store keeps what it is given",
    },
];

fn sources(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_dir() {
        let entries = fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        for entry in entries {
            sources(&entry.unwrap().path(), found);
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        found.push(path.to_owned());
    }
}

/// The line without what is only said about others.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

#[test]
fn rooms_know_only_whom_they_may() {
    let mut trespasses = Vec::new();
    for rule in RULES {
        let mut files = Vec::new();
        sources(&root().join(rule.folder), &mut files);
        assert!(!files.is_empty(), "{} is empty", rule.folder);
        for file in files {
            let name = file.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
            if rule.except.iter().any(|except| name.starts_with(except)) {
                continue;
            }
            for (number, line) in fs::read_to_string(&file).unwrap().lines().enumerate() {
                if let Some(word) = rule.words.iter().find(|word| code(line).contains(**word)) {
                    trespasses.push(format!("{name}:{}: {word}: {}", number + 1, rule.why));
                }
            }
        }
    }
    assert!(trespasses.is_empty(), "\n{}", trespasses.join("\n"));
}
