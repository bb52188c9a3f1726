//! Pages that an answer stands on: what Google searched and found, in the form of this dialect.

use crate::chat::{Losses, Page, Part};
use crate::json::tree::Members;
use crate::json::write::object;

use super::reply::NO_WORD;
use super::words::{says_nothing, take, take_count, take_items, take_members, take_text};

/// Places of one answer that are cited. A few bytes name a page of thousands, or a whole text, so that an answer of many such
/// would grow to many times its size.
const PLACES_MAX: usize = 256;
/// Bytes of a page's address and title.
const PAGE_BYTES_MAX: usize = 8 * 1024;
/// Bytes of a text that is shown beside its place.
const SHOWN_BYTES_MAX: usize = 1024;
/// Why others are lost.
const TOO_MANY: &str = "more is cited than is carried over";

/// A page, and the bytes of one part's text that stand on it.
pub(super) struct Found {
    url: String,
    title: String,
    bytes: Option<(u64, u64)>,
    /// The part, as it is counted in the answer.
    part: u64,
}

impl Found {
    /// The page as it is cited by a text, of which a place in bytes may be found in characters.
    fn page(&self, chars_at: impl Fn(u64) -> Option<u64>) -> Page {
        let span = self.bytes.and_then(|(start, end)| chars_at(start).zip(chars_at(end)));
        Page { url: self.url.clone(), title: self.title.clone(), span }
    }
}

/// Reads what is said of them. Pages that nothing is said of stand for all of the answer.
pub(super) fn read(mut metadata: Members<'_>, path: &str, losses: &mut Losses) -> Vec<Found> {
    let mut pages = Vec::new();
    for (at, chunk) in take_items(&mut metadata, "groundingChunks").into_iter().enumerate() {
        let mut chunk = chunk.into_members();
        let mut web = take_members(&mut chunk, "web");
        let title = take_text(&mut web, "title").unwrap_or_default();
        let is_page = |url: &String| !url.is_empty() && url.len() + title.len() <= PAGE_BYTES_MAX;
        let url = take_text(&mut web, "uri").filter(is_page);
        losses.note_if(
            url.is_none(),
            &format!("{path}.groundingChunks[{at}]"),
            "only pages are cited alike elsewhere",
        );
        pages.push((url, title, false));
    }
    let mut found = Vec::new();
    for support in take_items(&mut metadata, "groundingSupports") {
        let mut support = support.into_members();
        let mut segment = take_members(&mut support, "segment");
        let start = take_count(&mut segment, "startIndex").unwrap_or(0);
        let bytes = take_count(&mut segment, "endIndex").map(|end| (start, end));
        let part = take_count(&mut segment, "partIndex").unwrap_or(0);
        for index in take_items(&mut support, "groundingChunkIndices") {
            let at = index.whole().and_then(|index| usize::try_from(index).ok());
            let Some((Some(url), title, used)) = at.and_then(|at| pages.get_mut(at)) else { continue };
            *used = true;
            if found.len() >= PLACES_MAX {
                losses.note(format!("{path}.groundingSupports"), TOO_MANY);
                break;
            }
            found.push(Found { url: url.clone(), title: title.clone(), bytes, part });
        }
    }
    for (url, title, used) in pages {
        if let Some(url) = url.filter(|_| !used && found.len() < PLACES_MAX) {
            found.push(Found { url, title, bytes: None, part: 0 });
        }
    }
    // They name the same places again, for calls of another kind.
    take(&mut metadata, "retrievalMetadata");
    for (name, _) in metadata.rest().filter(|(_, value)| !says_nothing(value)) {
        losses.note(format!("{path}.{name}"), NO_WORD);
    }
    found
}

/// Puts pages to the texts of a whole answer; `texts` says which of them each part of the answer is.
pub(super) fn cite(found: &[Found], parts: &mut [Part], texts: &[Option<usize>], losses: &mut Losses) {
    let first = texts.iter().flatten().next().copied();
    for page in found {
        let own = usize::try_from(page.part).ok().and_then(|part| texts.get(part).copied().flatten());
        let Some(Part::Text { text, citations, .. }) = own.or(first).and_then(|at| parts.get_mut(at)) else {
            losses.note("groundingMetadata", NO_TEXT);
            continue;
        };
        let chars_at = |byte: u64| Some(text.get(..usize::try_from(byte).ok()?)?.chars().count() as u64);
        let one = page.page(chars_at).json();
        *citations = Some(match citations.as_deref().and_then(|known| known.strip_suffix(']')) {
            Some(known) => format!("{known},{one}]"),
            None => format!("[{one}]"),
        });
    }
}

/// The citation of a text of which only lengths are known. Bytes are characters if there are as many of them.
pub(super) fn citation(found: &Found, bytes: u64, chars: u64) -> String {
    found.page(|byte| (bytes == chars && byte <= bytes).then_some(byte)).json()
}

/// Why a citation is lost.
pub(super) const NO_TEXT: &str = "there is no text that it could stand for";

/// What is written of them.
#[derive(Default)]
pub(super) struct Grounding {
    chunks: Vec<(String, String)>,
    supports: Vec<String>,
}

impl Grounding {
    /// A page that stands behind these bytes of a part's text, which is shown where it is there.
    pub(super) fn add(&mut self, page: &Page, part: u64, (start, end): (u64, u64), text: Option<&str>) {
        let at = self.chunks.iter().position(|(url, _)| *url == page.url).unwrap_or_else(|| {
            self.chunks.push((page.url.clone(), page.title.clone()));
            self.chunks.len() - 1
        });
        self.supports.push(object(|it| {
            it.object("segment", |it| {
                let some = |count: u64| Some(count).filter(|count| *count > 0);
                it.count_if("partIndex", some(part)).count_if("startIndex", some(start));
                it.count("endIndex", end).text_if("text", text);
            });
            it.array("groundingChunkIndices", [at.to_string()]);
        }));
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.supports.len()
    }

    /// The same of a text that is there. What there is no room for is noted.
    pub(super) fn add_all(&mut self, pages: &[Page], part: u64, text: &str, losses: &mut Losses) {
        let room = PLACES_MAX.saturating_sub(self.len());
        losses.note_if(pages.len() > room, "citations", TOO_MANY);
        let chars = text.chars().count() as u64;
        let byte_at = |char: u64| {
            let char = usize::try_from(char).unwrap_or(usize::MAX);
            text.char_indices().nth(char).map_or(text.len(), |(at, _)| at)
        };
        for page in pages.iter().take(room) {
            let (start, end) = page.place(chars);
            let (start, end) = (byte_at(start), byte_at(end));
            let shown = text.get(start..end).filter(|shown| shown.len() <= SHOWN_BYTES_MAX);
            self.add(page, part, (start as u64, end as u64), shown);
        }
    }

    /// It; `None` if there are no pages.
    pub(super) fn json(&self) -> Option<String> {
        (!self.chunks.is_empty()).then(|| {
            object(|it| {
                let chunk = |(url, title): &(String, String)| {
                    object(|it| _ = it.object("web", |it| _ = it.text("uri", url).text("title", title)))
                };
                it.array("groundingChunks", self.chunks.iter().map(chunk));
                it.array("groundingSupports", &self.supports);
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::tree::Tree;

    #[test]
    fn places_are_bytes_here_and_characters_elsewhere() {
        let text = "Größe: 3 m. Ja.";
        let page = Page { url: "https://a.example/".into(), title: "A".into(), span: Some((7, 11)) };
        let mut grounding = Grounding::default();
        let mut losses = Losses::default();
        grounding.add_all(std::slice::from_ref(&page), 1, text, &mut losses);
        let json = grounding.json().unwrap();
        assert!(json.contains(r#""partIndex":1,"startIndex":9,"endIndex":13,"text":"3 m.""#), "{json}");
        let found = read(Tree::parse(&json, 8).unwrap().into_members(), "g", &mut losses);
        let mut parts = [Part::text("x"), Part::text(text)];
        cite(&found, &mut parts, &[Some(0), Some(1)], &mut losses);
        let Part::Text { citations, .. } = &parts[1] else { panic!("it is a text") };
        assert_eq!(Page::all_of(citations.as_deref()), (vec![page], false));
        assert!(losses.is_empty(), "{losses:?}");
        assert!(!citation(&found[0], 16, 15).contains("start_index"), "bytes are not characters there");
        assert!(citation(&found[0], 16, 16).contains(r#""start_index":9,"end_index":13"#));
    }

    #[test]
    fn what_is_cited_grows_to_no_multiple_of_the_answer() {
        let indices = vec!["0"; 100_000].join(",");
        let metadata = |url: &str| {
            format!(
                r#"{{"groundingChunks":[{{"web":{{"uri":"{url}"}}}}],"groundingSupports":[{{"groundingChunkIndices":[{indices}]}}]}}"#
            )
        };
        let found = |url: &str| {
            let (json, mut losses) = (metadata(url), Losses::default());
            let found = read(Tree::parse(&json, 8).unwrap().into_members(), "g", &mut losses);
            (found.len(), losses.is_empty())
        };
        assert_eq!(found("https://a.example/"), (PLACES_MAX, false));
        assert_eq!(found(&"x".repeat(PAGE_BYTES_MAX + 1)), (0, false));
        let page = Page { url: "https://a.example/".into(), title: String::new(), span: None };
        let (mut grounding, text) = (Grounding::default(), "a long text ".repeat(10_000));
        let mut losses = Losses::default();
        grounding.add_all(&vec![page; 10_000], 0, &text, &mut losses);
        assert_eq!((grounding.len(), losses.is_empty()), (PLACES_MAX, false));
        assert!(grounding.json().unwrap().len() < text.len());
    }
}
