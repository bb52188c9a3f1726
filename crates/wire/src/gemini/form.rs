//! The two forms of a stream.

/// The form of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Server-sent events.
    Events,
    /// One JSON array.
    Array,
}

impl Form {
    /// What the query of a request asks for: events with `alt=sse`.
    pub fn of_query(query: Option<&str>) -> Self {
        let events = query.unwrap_or_default().split('&').any(|pair| pair == "alt=sse" || pair == "$alt=sse");
        if events { Self::Events } else { Self::Array }
    }

    /// What shows a client that its stream lives, between two events or elements: a blank line. Comments are no part of
    /// either form to the dialect's own clients, some of which take them for data.
    pub const fn ping() -> &'static str {
        "\n"
    }

    /// Its content type.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Events => "text/event-stream",
            Self::Array => "application/json",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_names_the_form() {
        assert_eq!(Form::of_query(Some("key=x&alt=sse")), Form::Events);
        assert_eq!(Form::of_query(Some("alt=json")), Form::Array);
        assert_eq!(Form::of_query(None), Form::Array);
    }
}
