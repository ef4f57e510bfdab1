//! Hooks: from one step around a change of the active backend to one run of its program, and back to a result.
//!
//! Deliberately not here: which step comes when, what a failure leads to, and that a step which was started is never
//! repeated by itself. That is the policy's; this runs what it is told, once.

use std::time::Duration;

use serde::Serialize;
use tracing::info;

use crate::config::Hook;
use crate::program::{self, Call, Output, Rest};

/// Lines of one hook's output in the log: what a person reads of it, and 64 KiB may be as many lines.
const LINES_LOGGED: usize = 500;

/// One step of one change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The pool that changes.
    pub pool: String,
    /// The backend that is left; none at first.
    pub from: Option<String>,
    /// The backend that becomes active.
    pub to: String,
    /// Why, as a word: `backend_down`.
    pub reason: &'static str,
    /// The same for all steps of one change, and after a restart in the middle of it.
    pub transition: u64,
    /// Which of the pool's hooks, from 0.
    pub number: u32,
    /// The hook itself.
    pub hook: Hook,
}

/// What a hook reads from stdin.
#[derive(Serialize)]
struct Told<'s> {
    pool: &'s str,
    from: Option<&'s str>,
    to: &'s str,
    reason: &'s str,
    transition: u64,
    step: u32,
    when: &'s str,
}

/// What came of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Whether the hook has done its work.
    pub outcome: Outcome,
    /// How it ended, and its last line: `exit code 3: no such database`.
    pub evidence: String,
    /// How long that took.
    pub took: Duration,
}

/// Whether a hook has done its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Exit code 0.
    Done,
    /// It ran, or may have: how far it came is not known.
    Failed,
    /// Its program was refused before it ran, so it has done nothing.
    NeverRan,
}

impl Step {
    /// Runs the hook once and logs what it says. Ends by itself, some seconds after the hook's timeout at the latest.
    /// Dropping the future, or the end of the daemon, doesn't end the hook: what comes of it is unknown then.
    pub async fn run(&self) -> Finished {
        let report = program::run(self.call()).await;
        self.log(&report.output);
        let outcome = match &report.ending {
            _ if report.is_good() => Outcome::Done,
            ending if ending.never_ran() => Outcome::NeverRan,
            _ => Outcome::Failed,
        };
        Finished { outcome, evidence: report.evidence(), took: report.took }
    }

    fn call(&self) -> Call {
        let Self { pool, from, to, reason, transition, number, hook } = self;
        let told = Told {
            pool,
            from: from.as_deref(),
            to,
            reason,
            transition: *transition,
            step: *number,
            when: hook.when.token(),
        };
        // Strings and numbers always become JSON.
        let mut input = serde_json::to_vec(&told).unwrap_or_default();
        input.push(b'\n');
        Call {
            command: hook.run.clone(),
            variables: vec![
                ("BALANCER_POOL", pool.clone()),
                ("BALANCER_FROM", from.clone().unwrap_or_default()),
                ("BALANCER_TO", to.clone()),
                ("BALANCER_REASON", (*reason).to_owned()),
                ("BALANCER_TRANSITION", transition.to_string()),
            ],
            input,
            timeout: hook.timeout,
            rest: Rest::LeftToDeadline,
        }
    }

    fn log(&self, output: &Output) {
        let Self { pool, transition, number: step, .. } = self;
        let lines = output.lines();
        for line in lines.iter().take(LINES_LOGGED) {
            info!(event = "hook_output", pool, hook = self.hook.name, transition, step, line);
        }
        let (lines, bytes) = (lines.len().saturating_sub(LINES_LOGGED), output.lost());
        if lines > 0 || bytes > 0 {
            info!(
                event = "hook_output",
                pool,
                hook = self.hook.name,
                transition,
                step,
                lines,
                bytes,
                "there was more: lines that are not logged, and bytes that were not kept",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::config::{HookWhen, OnError};
    use crate::probe::tests::in_a_process_of_its_own;
    use crate::program::CommandLine;
    use crate::program::tests::{Folder, PATIENT, SHORT, runtime};

    fn step(run: CommandLine) -> Step {
        let (when, on_error) = (HookWhen::Before, OnError::Hold);
        Step {
            pool: "passwords".to_owned(),
            from: Some("server1".to_owned()),
            to: "server2".to_owned(),
            reason: "backend_down",
            transition: 17,
            number: 1,
            hook: Hook { name: "promote the standby".to_owned(), when, run, timeout: PATIENT, on_error },
        }
    }

    /// What the hook finds in its environment, and on stdin.
    fn told(change: impl FnOnce(&mut Step)) -> (String, Value) {
        let folder = Folder::new();
        let see = "tr '\\0' '\\n' < /proc/$$/environ | grep -v ^PATH= | sort > $folder/env; cat > $folder/in";
        let mut step = step(folder.script(see));
        change(&mut step);
        let finished = runtime().block_on(step.run());
        assert_eq!(finished.outcome, Outcome::Done, "{finished:?}");
        (folder.written("env"), serde_json::from_str(&folder.written("in")).unwrap())
    }

    #[test]
    fn a_hook_is_told_what_changes() {
        let (environment, input) = told(|_| {});
        assert_eq!(
            environment,
            "BALANCER_FROM=server1\nBALANCER_POOL=passwords\nBALANCER_REASON=backend_down\nBALANCER_TO=server2\n\
             BALANCER_TRANSITION=17\n"
        );
        assert_eq!(
            input,
            json!({"pool": "passwords", "from": "server1", "to": "server2", "reason": "backend_down",
                   "transition": 17, "step": 1, "when": "before"})
        );
    }

    #[test]
    fn without_a_backend_before_from_is_empty() {
        let (environment, input) = told(|step| {
            step.from = None;
            step.hook.when = HookWhen::After;
        });
        assert!(environment.starts_with("BALANCER_FROM=\n"), "{environment}");
        assert_eq!((&input["from"], &input["when"]), (&Value::Null, &json!("after")));
    }

    #[test]
    fn a_hook_that_failed_is_told_from_one_that_never_ran() {
        let folder = Folder::new();
        let finished = runtime().block_on(step(folder.script("echo no such database; exit 3")).run());
        assert_eq!(finished.outcome, Outcome::Failed);
        assert_eq!(finished.evidence, "exit code 3: no such database");
        let missing = CommandLine { program: folder.at("missing"), arguments: vec![] };
        let finished = runtime().block_on(step(missing).run());
        assert_eq!(finished.outcome, Outcome::NeverRan);
        assert!(finished.evidence.contains("missing does not exist"), "{finished:?}");
    }

    #[test]
    fn a_hook_that_hangs_has_failed() {
        let folder = Folder::new();
        let mut step = step(folder.script("echo promoting; exec sleep 1000"));
        step.hook.timeout = SHORT;
        let finished = runtime().block_on(step.run());
        assert_eq!(finished.outcome, Outcome::Failed);
        assert_eq!(finished.evidence, "not done in time, and ended: promoting");
    }

    #[test]
    fn all_it_says_is_in_the_log_and_harmless() {
        // Where a line was logged first decides for the whole process whether it is logged at all.
        let said = in_a_process_of_its_own(
            "all_it_says_is_in_the_log_and_harmless",
            ("BALANCER_TEST_LOGS", "stdout"),
            |_| {
                let folder = Folder::new();
                let script = folder.script("printf 'one\\n\\033[2Jtwo\\n'; seq 3 2000");
                let log = tracing_subscriber::fmt().with_ansi(false).finish();
                tracing::subscriber::with_default(log, || drop(runtime().block_on(step(script).run())));
            },
        );
        let Some(said) = said else { return };
        let lines: Vec<&str> = said.lines().filter(|line| line.contains("event=\"hook_output\"")).collect();
        assert_eq!(lines.len(), LINES_LOGGED + 1, "{said}");
        for words in ["hook=\"promote the standby\"", "transition=17", "line=\"one\""] {
            assert!(lines[0].contains(words), "{words} in {}", lines[0]);
        }
        assert!(lines[1].contains("u{1b}[2Jtwo") && !said.contains('\x1b'), "{}", lines[1]);
        assert!(lines[LINES_LOGGED].contains("lines=1500"), "{}", lines[LINES_LOGGED]);
    }
}
