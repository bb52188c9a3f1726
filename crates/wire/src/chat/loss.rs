//! What a conversion cannot carry over.

use std::fmt;

/// Something that the other dialect has no word for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// The field of the client's body, such as `messages[2].content[0].cache_control`, or of the answer; in the client's words
    /// where its dialect has them.
    pub field: String,
    /// Why it cannot be carried over.
    pub why: &'static str,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.field, self.why)
    }
}

/// Losses that are named; more are only counted.
const NAMED_MAX: usize = 32;

/// All that one conversion cannot carry over.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Losses {
    named: Vec<Loss>,
    unnamed: usize,
}

impl Losses {
    /// Notes one.
    pub fn note(&mut self, field: impl Into<String>, why: &'static str) {
        let loss = Loss { field: field.into(), why };
        if self.named.contains(&loss) {
            return;
        }
        if self.named.len() < NAMED_MAX {
            self.named.push(loss);
        } else {
            self.unnamed += 1;
        }
    }

    /// Notes one if it is there.
    pub fn note_if(&mut self, there: bool, field: &str, why: &'static str) {
        if there {
            self.note(field, why);
        }
    }

    /// Those that are named, at most 32, in the order they were found.
    pub fn named(&self) -> &[Loss] {
        &self.named
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.named.len() + self.unnamed
    }

    /// Whether nothing is lost.
    pub fn is_empty(&self) -> bool {
        self.named.is_empty()
    }

    /// The same, named otherwise.
    pub(crate) fn named_by(mut self, name: impl Fn(&str) -> String) -> Self {
        for loss in &mut self.named {
            loss.field = name(&loss.field);
        }
        self
    }

    /// Adds those of another step.
    pub fn extend(&mut self, others: Losses) {
        self.unnamed += others.unnamed;
        for loss in others.named {
            self.note(loss.field, loss.why);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_loss_is_named_once_and_only_so_many() {
        let mut losses = Losses::default();
        for field in 0..100 {
            losses.note(format!("f{}", field % 50), "there is no such thing");
        }
        assert_eq!(losses.named().len(), NAMED_MAX);
        assert!(
            losses.count() > NAMED_MAX && losses.named()[0].to_string() == "`f0`: there is no such thing"
        );
    }
}
