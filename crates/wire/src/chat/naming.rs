//! What a client calls a field that a provider's dialect has no word for.

/// How a dialect's clients call fields of a conversation where it is not as chat completions does: the beginning of a path
/// and what stands for it, or with a dot before it, what is within one.
pub type Words = &'static [(&'static str, &'static str)];

/// Where messages and tools stand in the client's own lists, which may have others before them. What is not here stands where
/// it does in the conversation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Places {
    /// By message.
    pub messages: Vec<Place>,
    /// By tool.
    pub tools: Vec<usize>,
}

/// What a message is in the client's own list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The message at this place, so that its parts stand where they do there.
    Whole(usize),
    /// Some of what stands there.
    PartOf(usize),
    /// Several of them in a row.
    Several,
}

/// The client's name of a field, or of the least that is sure to hold it.
pub(crate) fn own_name(words: &[Words], places: &Places, field: &str) -> String {
    let words = || words.iter().copied().flatten();
    let mut name = placed(places, field);
    for (ours, own) in words().filter(|(ours, _)| ours.starts_with('.')) {
        name = name.replacen(ours, own, 1);
    }
    let is_of = |ours: &str| {
        name.strip_prefix(ours).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    match words().filter(|(ours, _)| is_of(ours)).max_by_key(|(ours, _)| ours.len()) {
        Some((ours, own)) => format!("{own}{}", &name[ours.len()..]),
        None => name,
    }
}

/// The same field with the places of the client's own lists.
fn placed(places: &Places, field: &str) -> String {
    let within = |list: &str| {
        let (at, rest) = field.strip_prefix(list)?.strip_prefix('[')?.split_once(']')?;
        Some((at.parse::<usize>().ok()?, rest.to_owned()))
    };
    if let Some((at, rest)) = within("tools") {
        return format!("tools[{}]{rest}", places.tools.get(at).copied().unwrap_or(at));
    }
    let Some((at, rest)) = within("messages") else { return field.to_owned() };
    match places.messages.get(at) {
        None => field.to_owned(),
        Some(Place::Whole(at)) => format!("messages[{at}]{rest}"),
        Some(Place::PartOf(at)) => format!("messages[{at}]{}", without_places(&rest)),
        Some(Place::Several) => "messages".to_owned(),
    }
}

fn without_places(field: &str) -> String {
    field.split('[').map(|piece| piece.split_once(']').map_or(piece, |(_, behind)| behind)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_has_the_name_that_its_client_wrote() {
        const WORDS: Words =
            &[("messages", "contents"), (".content", ".parts"), ("stop", "config.stops"), ("stop.x", "y")];
        let messages = vec![Place::Whole(2), Place::Whole(5), Place::PartOf(6), Place::Several];
        let places = Places { messages, tools: vec![1] };
        for (field, own) in [
            ("stop", "config.stops"),
            ("stop[1]", "config.stops[1]"),
            ("stop.x", "y"),
            ("stopped", "stopped"),
            ("seed", "seed"),
            ("messages[0].content[1].signature", "contents[2].parts[1].signature"),
            ("messages[1]", "contents[5]"),
            ("messages[2].content[1].signature", "contents[6].parts.signature"),
            ("messages[3].content[1]", "contents"),
            ("messages[9].name", "contents[9].name"),
            ("messages[x]", "contents[x]"),
            ("messages", "contents"),
            ("tools[0].strict", "tools[1].strict"),
            ("tools[7]", "tools[7]"),
        ] {
            assert_eq!(own_name(&[WORDS], &places, field), own, "{field}");
        }
        assert_eq!(own_name(&[], &Places::default(), "messages[3].content[0]"), "messages[3].content[0]");
    }
}
