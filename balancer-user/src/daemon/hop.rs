//! A next hop: what is known of the neighbour there, and when the kernel is to be asked to find it out or to confirm it.
//!
//! Pure; a deadline is a value. The kernel by itself believes a neighbour for up to 45 s, and then asks for 3 s more where it
//! was; a standby that has moved to another machine would cost the first clients that long. So it is asked every second, by a
//! question that only it hears, and when it does not answer within a moment everybody is asked. Traffic uses the known
//! address meanwhile. Deliberately not here: who asks.

use std::time::{Duration, Instant};

use crate::dataplane::neighbours::{Known, Neighbour};

/// How often a neighbour is asked whether it is still where it was.
const CONFIRM: Duration = Duration::from_secs(1);
/// The same where there are many next hops: one question for so long each, so that they don't cost more and more.
const CONFIRM_EACH: Duration = Duration::from_millis(4);
/// For its answer; in a LAN that takes a millisecond.
const ANSWER: Duration = Duration::from_millis(400);
/// How often the kernel is asked for one that nobody knows.
const FIND: Duration = Duration::from_millis(500);
/// For how long a neighbour may be unknown before that is worth telling.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// What is to be asked of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// Find it out.
    Find,
    /// Is it still there?
    Confirm,
    /// It does not answer: who is there?
    FindAnew,
}

/// A next hop.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hop {
    neighbour: Option<Neighbour>,
    /// When it was last asked for; `None`: never.
    asked: Option<Instant>,
    /// Since when nothing is known of it.
    unknown_since: Instant,
}

impl Hop {
    pub(super) fn new(neighbour: Option<Neighbour>, now: Instant) -> Self {
        Self { neighbour, asked: None, unknown_since: now }
    }

    /// What the kernel knows of it now.
    pub(super) fn learn(&mut self, neighbour: Option<Neighbour>, now: Instant) {
        if self.neighbour.is_some() && neighbour.is_none() {
            self.unknown_since = now;
        }
        self.neighbour = neighbour;
    }

    pub(super) fn mac(&self) -> Option<[u8; 6]> {
        self.neighbour.map(|neighbour| neighbour.mac)
    }

    /// When it is unknown for so long that it is to be told.
    pub(super) fn is_silent_at(&self) -> Instant {
        self.unknown_since + PATIENCE
    }

    /// When the next question is due, with so many next hops in all; `None`: never.
    pub(super) fn due(&self, hops: usize) -> Option<Instant> {
        let Some(asked) = self.asked else { return Some(self.unknown_since) };
        let hops = u32::try_from(hops).unwrap_or(u32::MAX);
        match self.neighbour.map(|neighbour| neighbour.known) {
            None => Some(asked + FIND),
            Some(Known::Given) => None,
            Some(Known::Heard) => Some(asked + CONFIRM.max(CONFIRM_EACH.saturating_mul(hops))),
            Some(Known::Asked) => Some(asked + ANSWER),
        }
    }

    /// The question that is due.
    pub(super) fn question(&mut self, hops: usize, now: Instant) -> Option<Question> {
        if self.due(hops).is_none_or(|due| due > now) {
            return None;
        }
        let asked = self.asked.replace(now);
        match self.neighbour.map(|neighbour| neighbour.known) {
            None => Some(Question::Find),
            Some(Known::Given) => None,
            Some(Known::Heard) => Some(Question::Confirm),
            // By the kernel, which has just begun.
            Some(Known::Asked) if asked.is_none() => None,
            Some(Known::Asked) => Some(Question::FindAnew),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn neighbour(known: Known) -> Option<Neighbour> {
        Some(Neighbour { mac: [2, 0, 0, 0, 0, 1], known })
    }

    #[test]
    fn one_that_answers_is_asked_once_a_second_and_nobody_else_is() {
        let start = Instant::now();
        let mut hop = Hop::new(neighbour(Known::Heard), start);
        let mut questions = Vec::new();
        for ms in 0..3500 {
            let now = start + MS * ms;
            if let Some(question) = hop.question(1, now) {
                questions.push((ms, question));
                hop.learn(neighbour(Known::Asked), now);
            }
            // The answer comes at once.
            hop.learn(neighbour(Known::Heard), now);
        }
        let confirm = Question::Confirm;
        assert_eq!(questions, [(0, confirm), (1000, confirm), (2000, confirm), (3000, confirm)]);
    }

    #[test]
    fn for_one_that_does_not_answer_everybody_is_asked_within_two_seconds() {
        let start = Instant::now();
        let mut hop = Hop::new(neighbour(Known::Heard), start);
        assert_eq!(hop.question(1, start), Some(Question::Confirm));
        hop.learn(neighbour(Known::Asked), start);
        assert_eq!(hop.question(1, start + ANSWER - MS), None);
        assert_eq!(hop.question(1, start + ANSWER), Some(Question::FindAnew));
        assert!(CONFIRM + ANSWER < Duration::from_secs(2));
        // Then the kernel is at it: it is only reminded.
        hop.learn(None, start + ANSWER);
        assert_eq!(hop.question(1, start + ANSWER + FIND - MS), None);
        assert_eq!(hop.question(1, start + ANSWER + FIND), Some(Question::Find));
    }

    #[test]
    fn what_an_operator_has_put_there_is_never_asked() {
        let start = Instant::now();
        let mut hop = Hop::new(neighbour(Known::Given), start);
        assert_eq!(hop.question(1, start), None);
        assert_eq!(hop.due(1), None);
    }

    #[test]
    fn a_question_that_the_kernel_has_begun_by_itself_is_waited_for() {
        let start = Instant::now();
        let mut hop = Hop::new(neighbour(Known::Asked), start);
        assert_eq!(hop.question(1, start), None);
        assert_eq!(hop.question(1, start + ANSWER), Some(Question::FindAnew));
    }

    #[test]
    fn many_are_asked_less_often_so_that_all_cost_the_same() {
        let start = Instant::now();
        let mut hop = Hop::new(neighbour(Known::Heard), start);
        assert_eq!(hop.question(1000, start), Some(Question::Confirm));
        hop.learn(neighbour(Known::Heard), start);
        assert_eq!(hop.due(1000), Some(start + CONFIRM_EACH * 1000));
    }

    #[test]
    fn one_is_silent_only_after_a_while() {
        let start = Instant::now();
        let mut hop = Hop::new(neighbour(Known::Heard), start);
        hop.learn(None, start + MS);
        hop.learn(None, start + MS * 2);
        assert_eq!(hop.is_silent_at(), start + MS + PATIENCE);
    }
}
