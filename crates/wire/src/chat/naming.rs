//! What a client calls a field that a provider's dialect has no word for.

/// How a dialect's clients call fields of a conversation where it is not as chat completions does: the beginning of a path
/// and what stands for it, or with a dot before it, a member of a message.
pub type Words = &'static [(&'static str, &'static str)];

/// The client's name of a field. `places` says where each message stands in the client's own list.
pub(crate) fn own_name(words: &[Words], places: &[usize], field: &str) -> String {
    let mut name = field.to_owned();
    let words = || words.iter().copied().flatten();
    if let Some((at, rest)) = field.strip_prefix("messages[").and_then(|rest| rest.split_once(']'))
        && let Ok(at) = at.parse::<usize>()
    {
        let place = places.get(at).copied().unwrap_or(at);
        let members = words().filter(|(own, _)| own.starts_with('.'));
        let rest = members.fold(rest.to_owned(), |rest, (ours, own)| rest.replacen(ours, own, 1));
        name = format!("messages[{place}]{rest}");
    }
    let is_of = |ours: &str| {
        name.strip_prefix(ours).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    match words().filter(|(ours, _)| is_of(ours)).max_by_key(|(ours, _)| ours.len()) {
        Some((ours, own)) => format!("{own}{}", &name[ours.len()..]),
        None => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_has_the_name_that_its_client_wrote() {
        const WORDS: Words =
            &[("messages", "contents"), (".content", ".parts"), ("stop", "config.stops"), ("stop.x", "y")];
        for (field, own) in [
            ("stop", "config.stops"),
            ("stop[1]", "config.stops[1]"),
            ("stop.x", "y"),
            ("stopped", "stopped"),
            ("seed", "seed"),
            ("messages[0].content[1].signature", "contents[2].parts[1].signature"),
            ("messages[1]", "contents[5]"),
            ("messages[9].name", "contents[9].name"),
            ("messages[x]", "contents[x]"),
            ("messages", "contents"),
        ] {
            assert_eq!(own_name(&[WORDS], &[2, 5], field), own, "{field}");
        }
        assert_eq!(own_name(&[], &[], "messages[3].content[0]"), "messages[3].content[0]");
    }
}
