//! Members of a client's body, held to their types when they are taken: what is there and not understood is never as good
//! as not there. It is refused where its type is wrong, and named where only its own dialect knows what it means.

use crate::chat::{Conversation, Losses, ToolChoice};
use crate::json::Kind;
use crate::json::tree::{Members, Tree};
use crate::openai::error::Invalid;

/// Why a field is lost that nobody takes.
pub(crate) const NO_WORD: &str = "the provider's dialect has no such field";

/// Why a value is lost.
pub(crate) const NO_VALUE: &str = "other dialects have no such value";

/// What `read` makes of a value that was taken; a 400 that names the field if it makes nothing of it.
pub(crate) fn typed<'t, T>(
    value: Option<&Tree<'t>>,
    field: &str,
    expected: &str,
    read: impl FnOnce(&Tree<'t>) -> Option<T>,
) -> Result<Option<T>, Invalid> {
    let Some(value) = value else { return Ok(None) };
    let wrong = || Invalid::field(field.to_owned(), format!("`{field}` must be {expected}"));
    read(value).map(Some).ok_or_else(wrong)
}

/// Takes a number.
pub(crate) fn number(from: &mut Members<'_>, path: &str, name: &str) -> Result<Option<f64>, Invalid> {
    typed(from.take(name).as_ref(), &format!("{path}{name}"), "a number", Tree::number)
}

/// Takes a whole number from 0 on.
pub(crate) fn count(from: &mut Members<'_>, path: &str, name: &str) -> Result<Option<u64>, Invalid> {
    typed(from.take(name).as_ref(), &format!("{path}{name}"), "a whole number of 0 or more", Tree::whole)
}

/// Takes a boolean.
pub(crate) fn boolean(from: &mut Members<'_>, path: &str, name: &str) -> Result<Option<bool>, Invalid> {
    typed(from.take(name).as_ref(), &format!("{path}{name}"), "a boolean", Tree::boolean)
}

/// Takes a string.
pub(crate) fn text(from: &mut Members<'_>, path: &str, name: &str) -> Result<Option<String>, Invalid> {
    let read = |value: &Tree<'_>| value.text().map(str::to_owned);
    typed(from.take(name).as_ref(), &format!("{path}{name}"), "a string", read)
}

/// Takes a seed. One that no 64 bits hold is lost: nobody else could be given it.
pub(crate) fn seed(
    value: Option<&Tree<'_>>,
    field: &str,
    losses: &mut Losses,
) -> Result<Option<i64>, Invalid> {
    let read = |value: &Tree<'_>| {
        let written = value.text().unwrap_or(value.raw());
        if let Ok(seed) = written.parse::<i64>() {
            return Some(Some(seed));
        }
        let number =
            written.parse::<f64>().ok().filter(|number| number.is_finite() && number.fract() == 0.0)?;
        // Beyond 2^53 a float no longer says which whole number it is.
        Some((number.abs() <= 9_007_199_254_740_992.0).then_some(number as i64))
    };
    let seed = typed(value, field, "a whole number", read)?;
    losses.note_if(seed == Some(None), field, "a seed has 64 bits at most");
    Ok(seed.flatten())
}

/// Whether a value asks for nothing: `false`, an empty object or array.
pub(crate) fn says_nothing(value: &Tree<'_>) -> bool {
    match value.kind() {
        Kind::Null => true,
        Kind::Bool => value.boolean() == Some(false),
        Kind::Array => value.items().is_empty(),
        Kind::Object => value.clone().into_members().rest().next().is_none(),
        Kind::String | Kind::Number => false,
    }
}

/// Names what nobody took; `path` ends where a name may follow.
pub(crate) fn note_rest(members: Members<'_>, path: &str, losses: &mut Losses) {
    for (name, _) in members.rest().filter(|(_, value)| !says_nothing(value)) {
        losses.note(format!("{path}{name}"), NO_WORD);
    }
}

/// Watches for the one loss that leaves nothing to answer: that of all of the last message.
#[derive(Debug, Default)]
pub(crate) struct Emptied {
    losses: usize,
    last: Option<String>,
}

impl Emptied {
    /// A message is about to be read.
    pub(crate) fn before(&mut self, all: &Conversation) {
        self.losses = all.losses.count();
    }

    /// It was read, and this many parts of it are left. Whether all of it is lost, so that it is not to be said at all.
    pub(crate) fn after(&mut self, path: &str, parts: usize, losses: &Losses) -> bool {
        let emptied = parts == 0 && losses.count() > self.losses;
        self.last = emptied.then(|| path.to_owned());
        emptied
    }

    /// Refuses a conversation whose last message is lost.
    pub(crate) fn refuse(self) -> Result<(), Invalid> {
        let Some(path) = self.last else { return Ok(()) };
        let text = format!(
            "`{path}`: nothing of it can be said in the dialect of another provider, so that nothing is left to answer"
        );
        Err(Invalid::field(path, text))
    }
}

/// Holds the choice of a tool to the tools that are left when those are gone that only their provider runs.
pub(crate) fn hold_choice(all: &mut Conversation, dropped: bool) {
    let why = match &all.tool_choice {
        Some(ToolChoice::Tool(name)) if dropped && all.tools.iter().all(|tool| tool.name != *name) => {
            Some("it names a tool that only its provider runs")
        }
        Some(ToolChoice::Any | ToolChoice::Tool(_)) if all.tools.is_empty() => {
            Some("there are no tools to choose from")
        }
        // Without tools nothing is to be chosen in any case.
        Some(ToolChoice::Auto | ToolChoice::None) if all.tools.is_empty() => None,
        Some(ToolChoice::Auto | ToolChoice::None | ToolChoice::Any | ToolChoice::Tool(_)) | None => return,
    };
    if let Some(why) = why {
        all.losses.note("tool_choice", why);
    }
    all.tool_choice = None;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_read_in_every_spelling_and_never_vanish() {
        let read = |text: &str| {
            let mut losses = Losses::default();
            let tree = Tree::parse(text, 1).unwrap();
            seed(Some(&tree), "seed", &mut losses)
                .map(|seed| (seed, losses.count()))
                .map_err(|error| error.status)
        };
        assert_eq!(read("7"), Ok((Some(7), 0)));
        assert_eq!(read("-7"), Ok((Some(-7), 0)));
        assert_eq!(read("3.0"), Ok((Some(3), 0)));
        assert_eq!(read("\"12\""), Ok((Some(12), 0)));
        assert_eq!(read("9223372036854775807"), Ok((Some(i64::MAX), 0)));
        assert_eq!(read("9223372036854775808"), Ok((None, 1)));
        for wrong in ["3.5", "true", "\"x\"", "[]"] {
            assert_eq!(read(wrong), Err(400), "{wrong}");
        }
    }
}
