//! Members of requests that have two spellings.

use std::borrow::Cow;

use crate::json::{Kind, Text};
use crate::openai::error::Invalid;

use super::fields::folded;
use super::forbidden::forbidden;
use super::shown;
use super::values::wrong_type;

/// Which of `names`, each in two spellings, a member's name is; an error if it is one in another case, or would tell an
/// upstream where to go.
pub(crate) fn member_of(
    key: &Text<'_>,
    names: &[(&'static str, &'static str)],
    path: &str,
) -> Result<Option<usize>, Invalid> {
    let text = match (key.escaped(), key.raw().is_ascii()) {
        (false, true) => Cow::Borrowed(key.raw()),
        // Half a surrogate pair is part of no name that any parser folds into one of these.
        (true, _) | (false, false) => Cow::Owned(folded(&key.decode().unwrap_or_default())),
    };
    let either = |fits: &dyn Fn(&str) -> bool| names.iter().position(|(one, other)| fits(one) || fits(other));
    // Most members are spelt as they should be.
    if let Some(at) = either(&|name| *name == *text) {
        return Ok(Some(at));
    }
    if let Some(at) = either(&|name| name.eq_ignore_ascii_case(&text)) {
        let (name, got) = (names.get(at).map_or("", |(name, _)| name), shown(&text));
        let text = format!("the field {got} differs from `{path}{name}` only in case; spell it `{name}`");
        return Err(Invalid::field(format!("{path}{name}"), text));
    }
    match forbidden(&text) {
        Some(name) => {
            let got = shown(&text);
            Err(Invalid::field(
                format!("{path}{name}"),
                format!("{got} is not for clients to say; leave it out"),
            ))
        }
        None => Ok(None),
    }
}

/// An error unless the next value is of this kind.
pub(crate) fn expect(
    scanner: &mut crate::json::Scanner<'_>,
    kind: Kind,
    param: impl Fn() -> String,
) -> Result<(), Invalid> {
    let got = scanner.peek()?;
    if got == kind { Ok(()) } else { Err(wrong_type(&param(), kind.name(), got)) }
}
