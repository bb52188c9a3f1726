//! Pages that a text cites, in whichever form a dialect writes them.

use crate::json::tree::Tree;
use crate::json::write::object;

/// A page that a text cites.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Where it is.
    pub url: String,
    /// Its title; empty where it is not known.
    pub title: String,
    /// The characters of the text that stand on it, from one to before another; `None`: all of the text.
    pub span: Option<(u64, u64)>,
}

impl Page {
    /// The page that a citation is of, if it is one: an annotation of OpenAI's, in either of its forms, a result of a search
    /// as Anthropic cites it, a place in the web of Bedrock's, or [`Self::json`].
    pub fn of(citation: &Tree<'_>) -> Option<Self> {
        let it = citation.get("url_citation").unwrap_or(citation);
        let text = |name: &str| it.get(name).and_then(Tree::text).map(str::to_owned);
        let place = it.get("location").and_then(|location| location.get("web")?.get("url")?.text());
        let url = text("url").or_else(|| place.map(str::to_owned)).or_else(|| {
            // What a search of the client's own found has a source of the client's own naming, often a page.
            text("source").filter(|source| source.starts_with("https://") || source.starts_with("http://"))
        })?;
        let place = |name: &str| it.get(name).and_then(Tree::whole);
        let span = place("start_index").zip(place("end_index")).filter(|(start, end)| start <= end);
        Some(Self { url, title: text("title").unwrap_or_default(), span })
    }

    /// The same of a JSON text.
    pub fn parse(citation: &str) -> Option<Self> {
        Self::of(&Tree::parse(citation, crate::dialect::CONVERTED_DEPTH_MAX).ok()?)
    }

    /// All that a list of citations names, and whether there are others.
    pub fn all_of(citations: Option<&str>) -> (Vec<Self>, bool) {
        let Some(citations) = citations else { return (Vec::new(), false) };
        let list = Tree::parse(citations, crate::dialect::CONVERTED_DEPTH_MAX).map(Tree::into_items);
        let list = list.unwrap_or_default();
        let pages: Vec<Self> = list.iter().filter_map(Self::of).collect();
        let others = pages.len() < list.len();
        (pages, others)
    }

    /// The form that stands in a conversation where a dialect's own counts from somewhere else than the text's beginning.
    pub fn json(&self) -> String {
        object(|it| {
            it.text("type", "url_citation");
            if let Some((start, end)) = self.span {
                it.count("start_index", start).count("end_index", end);
            }
            it.text("url", &self.url).text("title", &self.title);
        })
    }

    /// The same, counted from another beginning.
    #[must_use]
    pub fn from(mut self, start: u64) -> Self {
        self.span = self.span.map(|(from, to)| (from.saturating_sub(start), to.saturating_sub(start)));
        self
    }

    /// The characters that stand on it, of a text of so many.
    pub fn place(&self, chars: u64) -> (u64, u64) {
        let (start, end) = self.span.unwrap_or((0, chars));
        (start.min(chars), end.min(chars))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_known_in_every_form() {
        let page = |span| Some(Page { url: "https://a.example/".to_owned(), title: "A".to_owned(), span });
        for (citation, span) in [
            (
                r#"{"type":"url_citation","url":"https://a.example/","title":"A","start_index":3,"end_index":5}"#,
                Some((3, 5)),
            ),
            (
                r#"{"type":"url_citation","url_citation":{"url":"https://a.example/","title":"A","start_index":3,"end_index":5}}"#,
                Some((3, 5)),
            ),
            (
                r#"{"type":"web_search_result_location","url":"https://a.example/","title":"A","encrypted_index":"E","cited_text":"x"}"#,
                None,
            ),
            (
                r#"{"type":"search_result_location","source":"https://a.example/","title":"A","start_block_index":0}"#,
                None,
            ),
            (r#"{"title":"A","location":{"web":{"url":"https://a.example/","domain":"a.example"}}}"#, None),
            (r#"{"url":"https://a.example/","title":"A","start_index":5,"end_index":3}"#, None),
        ] {
            assert_eq!(Page::parse(citation), page(span), "{citation}");
        }
        for other in [
            r#"{"type":"char_location","document_index":0}"#,
            r#"{"type":"search_result_location","source":"shelf 3"}"#,
            r#"{"type":"file_citation","file_id":"f"}"#,
            "[]",
            "7",
        ] {
            assert_eq!(Page::parse(other), None, "{other}");
        }
        let written = page(Some((1, 2))).unwrap();
        assert_eq!(Page::parse(&written.json()), Some(written));
    }
}
