//! Programs as probes.

use std::net::SocketAddr;
use std::time::Duration;

use crate::probe::{Failure, LocalFault, Outcome, Prober, Role};
use crate::program::CommandLine;
use crate::program::tests::{Folder, PATIENT, SHORT, runtime};

fn probe(run: CommandLine, timeout: Duration) -> Result<Outcome, LocalFault> {
    let prober = Prober::exec("passwords", run, timeout).for_backend("server1", Role::Candidate);
    runtime().block_on(prober.run(SocketAddr::from(([10, 0, 2, 11], 10001))))
}

fn failure(body: &str, timeout: Duration) -> Failure {
    probe(Folder::new().script(body), timeout).unwrap().result.unwrap_err()
}

#[test]
fn exit_code_0_is_good_and_what_was_said_does_not_matter() {
    let outcome = probe(Folder::new().script("echo replica; exit 0"), PATIENT).unwrap();
    assert_eq!((outcome.result, outcome.certificate_expires), (Ok(()), None));
}

#[test]
fn a_program_is_told_about_the_backend_and_its_role() {
    let folder = Folder::new();
    let script = "tr '\\0' '\\n' < /proc/$$/environ | grep -v ^PATH= | sort > $folder/seen";
    probe(folder.script(script), PATIENT).unwrap();
    assert_eq!(
        folder.written("seen"),
        "BALANCER_ADDRESS=10.0.2.11\nBALANCER_BACKEND=server1\nBALANCER_POOL=passwords\nBALANCER_PORT=10001\n\
         BALANCER_ROLE=candidate\n"
    );
}

#[test]
fn each_way_to_fail_has_its_token_and_the_last_line_as_evidence() {
    for (body, timeout, token, evidence) in [
        ("echo not primary; exit 3", PATIENT, "exit_code", "exit_code 3: not primary"),
        ("exit 1", PATIENT, "exit_code", "exit_code 1"),
        ("echo so far; kill -SEGV $$", PATIENT, "killed_by_signal", "killed_by_signal 11: so far"),
        ("echo connecting; exec sleep 1000", SHORT, "timeout", "timeout: connecting"),
    ] {
        let failure = failure(body, timeout);
        assert_eq!((failure.token(), failure.evidence().as_str()), (token, evidence), "{failure}");
    }
}

#[test]
fn what_it_says_is_short_and_harmless() {
    let failure = failure("printf '\\033[2Jred%01000d\\n' 7; exit 1", PATIENT);
    for told in [failure.evidence(), failure.to_string()] {
        assert!(told.contains("[2Jred000") && told.chars().count() < 260, "{told}");
        assert!(!told.contains(char::is_control), "{told}");
    }
}

#[test]
fn a_program_that_can_not_run_counts_against_nobody() {
    let folder = Folder::new();
    let run = CommandLine { program: folder.at("missing"), arguments: vec![] };
    let fault = probe(run, PATIENT).unwrap_err().to_string();
    assert!(fault.contains("could not probe 10.0.2.11:10001") && fault.contains("does not exist"), "{fault}");
}
