//! What a virtual machine says on its console: lines of `init.sh`, of the test programs and of the kernel.

use std::collections::VecDeque;

use crate::test::Tally;

/// How much of what was said is kept, to be shown when something is wrong.
const TAIL_LINES: usize = 200;

/// What a line tells.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard<'a> {
    /// The machine is up, with this kernel.
    Booted(&'a str),
    /// A program begins.
    Started(&'a str),
    /// A test, or all of a program's, came to its end.
    Result(&'a str),
    /// A program ended badly, or couldn't be prepared for.
    Failed(String),
    /// Nothing more will come.
    Done,
    /// Anything else.
    Noise,
}

/// Listens to one machine.
#[derive(Default)]
pub(super) struct Console {
    pub(super) tally: Tally,
    /// Programs that ended.
    ended: usize,
    /// The program that runs has said how its tests ended.
    has_result: bool,
    /// What was said since the last program began.
    tail: VecDeque<String>,
}

impl Console {
    pub(super) fn hear<'a>(&mut self, line: &'a str) -> Heard<'a> {
        self.keep(line);
        if let Some(word) = line.strip_prefix("vm: ") {
            return self.hear_init(word);
        }
        let is_result = self.tally.read(line);
        self.has_result |= is_result;
        // "test NAME ... ok"; the kernel's console may put a word of its own between.
        let is_test = line.starts_with("test ") && line.contains(" ... ");
        if is_result || is_test { Heard::Result(line) } else { Heard::Noise }
    }

    /// What was said since the last program began.
    pub(super) fn tail(&self) -> String {
        self.tail.iter().fold(String::new(), |text, line| text + "    " + line + "\n")
    }

    /// How many programs have ended, well or badly.
    pub(super) fn ended(&self) -> usize {
        self.ended
    }

    fn hear_init<'a>(&mut self, word: &'a str) -> Heard<'a> {
        if let Some(release) = word.strip_prefix("booted ") {
            return Heard::Booted(release);
        }
        if let Some(program) = word.strip_prefix("start ") {
            self.tail.clear();
            self.has_result = false;
            return Heard::Started(program);
        }
        if let Some(what) = word.strip_prefix("failed ") {
            self.tally.broken = true;
            return Heard::Failed(format!("failed {what}"));
        }
        if let Some((program, status)) = word.strip_prefix("end ").and_then(|end| end.split_once(' ')) {
            return self.end(program, status);
        }
        if word == "done" { Heard::Done } else { Heard::Noise }
    }

    fn end<'a>(&mut self, program: &str, status: &str) -> Heard<'a> {
        self.ended += 1;
        if status == "0" && self.has_result {
            return Heard::Noise;
        }
        self.tally.broken = true;
        let without = if self.has_result { "" } else { " without telling how its tests ended" };
        Heard::Failed(format!("{program} ended with status {status}{without}"))
    }

    fn keep(&mut self, line: &str) {
        if self.tail.len() == TAIL_LINES {
            self.tail.pop_front();
        }
        self.tail.push_back(line.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(lines: &str) -> (Console, Vec<Heard<'_>>) {
        let mut console = Console::default();
        let heard = lines.lines().map(|line| console.hear(line)).collect();
        (console, heard)
    }

    #[test]
    fn a_good_run_adds_up() {
        let (console, heard) = told(
            "[    0.1] a kernel's word\nvm: booted 6.1.0-50-cloud-amd64\nvm: start packets\nrunning 2 tests\n\
             test a::b ... ok\ntest result: ok. 2 passed; 0 failed; 1 ignored; 0 measured\nvm: end packets 0\n\
             vm: done",
        );
        let expected = [
            Heard::Noise,
            Heard::Booted("6.1.0-50-cloud-amd64"),
            Heard::Started("packets"),
            Heard::Noise,
            Heard::Result("test a::b ... ok"),
            Heard::Result("test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured"),
            Heard::Noise,
            Heard::Done,
        ];
        assert_eq!(heard, expected);
        assert_eq!(console.tally, Tally { passed: 2, failed: 0, skipped: 1, broken: false });
        assert_eq!(console.ended(), 1);
    }

    #[test]
    fn a_failed_program_shows_what_it_said_and_nothing_of_others() {
        let (console, heard) = told(
            "vm: start packets\nearlier\ntest result: ok. 1 passed; 0 failed; 0 ignored\nvm: end packets 0\n\
             vm: start flow_table\nthread panicked\ntest result: FAILED. 3 passed; 1 failed; 0 ignored\n\
             vm: end flow_table 101",
        );
        assert_eq!(heard.last(), Some(&Heard::Failed("flow_table ended with status 101".into())));
        assert_eq!(console.tally, Tally { passed: 4, failed: 1, skipped: 0, broken: true });
        assert!(console.tail().contains("thread panicked"), "{}", console.tail());
        assert!(!console.tail().contains("earlier"), "{}", console.tail());
    }

    #[test]
    fn a_module_that_cannot_be_loaded_is_a_failure() {
        let (console, heard) = told("vm: failed to load veth");
        assert_eq!(heard, [Heard::Failed("failed to load veth".into())]);
        assert!(console.tally.broken);
    }

    #[test]
    fn a_program_without_a_result_line_has_failed_whatever_its_status() {
        let (console, heard) =
            told("vm: start packets\ntest result[ 1.0] WARNING: ok. 1 pas\nvm: end packets 0");
        let expected = "packets ended with status 0 without telling how its tests ended";
        assert_eq!(heard.last(), Some(&Heard::Failed(expected.into())));
        assert!(console.tally.broken);
    }
}
