//! What is worth telling of an answer beyond its text: that it is a refusal, empty, cut short, filtered, or not what was
//! asked for.

use super::{Answer, Choice, Event, Opened, Part, Stop};

/// One thing that is worth telling of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Finding {
    /// The model will not answer.
    Refusal = 1,
    /// It says nothing: no text, no call of a tool, no refusal. Thoughts alone are no answer.
    EmptyAnswer = 1 << 1,
    /// It ended because it had as many tokens as it may have.
    LengthStop = 1 << 2,
    /// The provider's filter ended it.
    ContentFilter = 1 << 3,
    /// It does not fit the JSON schema that the request holds it to.
    SchemaMismatch = 1 << 4,
}

impl Finding {
    /// Each of them.
    pub const ALL: [Self; 5] =
        [Self::Refusal, Self::EmptyAnswer, Self::LengthStop, Self::ContentFilter, Self::SchemaMismatch];

    /// The name in records and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refusal => "refusal",
            Self::EmptyAnswer => "empty_answer",
            Self::LengthStop => "length_stop",
            Self::ContentFilter => "content_filter",
            Self::SchemaMismatch => "schema_mismatch",
        }
    }

    /// What the reason of an end tells.
    pub const fn of_stop(stop: Stop) -> Option<Self> {
        match stop {
            Stop::Length => Some(Self::LengthStop),
            Stop::Filtered => Some(Self::ContentFilter),
            Stop::Refused => Some(Self::Refusal),
            Stop::End | Stop::Sequence | Stop::ToolCalls | Stop::Paused | Stop::Other => None,
        }
    }
}

/// All that is worth telling of one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Findings(u8);

impl Findings {
    /// Adds one.
    pub const fn insert(&mut self, finding: Finding) {
        self.0 |= finding as u8;
    }

    /// Adds those of another part of the answer.
    pub const fn extend(&mut self, others: Self) {
        self.0 |= others.0;
    }

    /// Whether it is among them.
    pub const fn contains(self, finding: Finding) -> bool {
        self.0 & finding as u8 != 0
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Each, in the order of [`Finding::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Finding> {
        Finding::ALL.into_iter().filter(move |one| self.contains(*one))
    }

    /// What is worth telling of a whole answer. Of several choices each one tells.
    pub fn of_answer(answer: &Answer) -> Self {
        let mut findings = Self::default();
        if answer.choices.is_empty() {
            findings.insert(Finding::EmptyAnswer);
        }
        for choice in &answer.choices {
            findings.extend(Self::of_choice(choice));
        }
        findings
    }

    /// What is worth telling of one choice.
    pub fn of_choice(choice: &Choice) -> Self {
        let mut findings = Self::default();
        findings.0 |= choice.stop.and_then(Finding::of_stop).map_or(0, |finding| finding as u8);
        if choice.parts.iter().any(|part| matches!(part, Part::Refusal(_))) {
            findings.insert(Finding::Refusal);
        }
        if !choice.parts.iter().any(says_something) && !findings.contains(Finding::Refusal) {
            findings.insert(Finding::EmptyAnswer);
        }
        findings
    }
}

fn says_something(part: &Part) -> bool {
    match part {
        Part::Text { text, .. } => !text.is_empty(),
        Part::Media(_) | Part::ToolCall { .. } | Part::ToolResult { .. } | Part::Refusal(_) => true,
        Part::Thinking { .. } | Part::HiddenThinking { .. } => false,
    }
}

/// Gathers what is worth telling of a stream.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    findings: Findings,
    /// Whether a part is open whose text is no answer; the parts of a choice come one after the other.
    thinking: bool,
    answered: bool,
    ended: bool,
}

impl Tally {
    /// Takes the next event in.
    pub fn take(&mut self, event: &Event) {
        match event {
            Event::Opened { what, .. } => {
                self.thinking = matches!(what, Opened::Thinking | Opened::HiddenThinking { .. });
                self.answered |= matches!(what, Opened::ToolCall { .. } | Opened::Refusal);
                if *what == Opened::Refusal {
                    self.findings.insert(Finding::Refusal);
                }
            }
            Event::Added { text, .. } => self.answered |= !text.is_empty() && !self.thinking,
            Event::Stopped { stop, .. } => {
                self.findings.0 |= Finding::of_stop(*stop).map_or(0, |finding| finding as u8);
            }
            Event::Ended => self.ended = true,
            Event::Started { .. }
            | Event::Signed { .. }
            | Event::Cited { .. }
            | Event::Likely { .. }
            | Event::Closed { .. }
            | Event::Used(_)
            | Event::Failed(_)
            | Event::Ping
            | Event::Lost(_) => {}
        }
    }

    /// What is worth telling so far. Only a stream that came to its end can be empty.
    pub const fn findings(&self) -> Findings {
        let mut findings = self.findings;
        if self.ended && !self.answered && !findings.contains(Finding::Refusal) {
            findings.insert(Finding::EmptyAnswer);
        }
        findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(findings: Findings) -> Vec<&'static str> {
        findings.iter().map(Finding::name).collect()
    }

    fn choice(parts: Vec<Part>, stop: Stop) -> Findings {
        Findings::of_answer(&Answer {
            choices: vec![Choice { parts, stop: Some(stop), ..Choice::default() }],
            ..Answer::default()
        })
    }

    #[test]
    fn whole_answers_tell() {
        let thought = Part::Thinking { text: "hm".to_owned(), signature: None };
        assert_eq!(names(choice(vec![Part::text("yes")], Stop::End)), [""; 0]);
        assert_eq!(names(choice(vec![Part::text("")], Stop::End)), ["empty_answer"]);
        assert_eq!(names(choice(vec![thought], Stop::Length)), ["empty_answer", "length_stop"]);
        assert_eq!(names(choice(vec![Part::Refusal("no".to_owned())], Stop::End)), ["refusal"]);
        assert_eq!(names(choice(vec![], Stop::Refused)), ["refusal"]);
        assert_eq!(names(choice(vec![Part::text("a")], Stop::Filtered)), ["content_filter"]);
    }

    #[test]
    fn streams_tell_the_same() {
        let told = |events: &[Event]| {
            let mut tally = Tally::default();
            for event in events {
                tally.take(event);
            }
            names(tally.findings())
        };
        let open = |what| Event::Opened { choice: 0, part: 0, what };
        let add = || Event::Added { choice: 0, part: 0, text: "a".to_owned() };
        let stop = |stop| Event::Stopped { choice: 0, stop, sequence: None };
        assert_eq!(told(&[open(Opened::Text), add(), stop(Stop::End), Event::Ended]), [""; 0]);
        assert_eq!(told(&[open(Opened::Text)]), [""; 0], "it may still come");
        let thoughts = [open(Opened::Thinking), add(), stop(Stop::Length), Event::Ended];
        assert_eq!(told(&thoughts), ["empty_answer", "length_stop"]);
        assert_eq!(told(&[open(Opened::Refusal), add(), stop(Stop::End), Event::Ended]), ["refusal"]);
    }
}
