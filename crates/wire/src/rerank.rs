//! Rerank in its two forms, turned into each other.
//!
//! The requests differ in little: Jina gives documents back unless told not to, and takes images; Cohere's second version
//! takes texts only, gives none back and cuts them at `max_tokens_per_doc`. The answers differ in how they count.

use serde::Deserialize;

use crate::chat::Losses;
use crate::dialect::CONVERTED_DEPTH_MAX;
use crate::json::tree::Tree;
use crate::json::write::{Object, object};
use crate::json::{JsonError, quote};
use crate::openai::error::{ErrorBody, Invalid};

/// Whose form it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// Cohere's second version: `/v2/rerank`.
    Cohere,
    /// Jina's, which vLLM and others speak, and Cohere's first version with it: `/v1/rerank`.
    #[default]
    Jina,
    /// Requests like Jina's, answers that are a bare list, as SGLang has them. No client speaks it.
    List,
}

impl Form {
    /// All.
    pub const ALL: [Self; 3] = [Self::Cohere, Self::Jina, Self::List];

    /// The name in vendor records and docs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cohere => "cohere",
            Self::Jina => "jina",
            Self::List => "list",
        }
    }

    /// The form of that name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|form| form.name() == name)
    }

    /// The form that clients of a path speak.
    pub fn of_path(path: &str) -> Option<Self> {
        match path {
            "/v2/rerank" => Some(Self::Cohere),
            "/v1/rerank" | "/rerank" => Some(Self::Jina),
            _ => None,
        }
    }
}

/// What is to be ranked.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rerank {
    /// What documents are held against: a JSON value, nearly always a string.
    pub query: String,
    /// They.
    pub documents: Vec<Document>,
    /// Results that are asked for.
    pub top_n: Option<u64>,
    /// Whether documents are to be given back; `None`: not said.
    pub return_documents: Option<bool>,
    /// Tokens at which a document is cut.
    pub tokens_per_document_max: Option<u64>,
    /// What the other form has no word for.
    pub losses: Losses,
}

/// A document.
#[derive(Debug, Clone, PartialEq)]
pub enum Document {
    /// Its text.
    Text(String),
    /// An object without a text, such as an image, as it was written.
    Other(String),
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Ranked {
    /// The provider's id of it.
    pub id: Option<String>,
    /// The model, as the provider names it.
    pub model: Option<String>,
    /// The documents, the best first.
    pub results: Vec<Ranking>,
    /// Tokens that were used.
    pub tokens: Option<u64>,
    /// Searches that are billed.
    pub searches: Option<u64>,
}

/// One document's place.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranking {
    /// Which of the documents that were sent.
    pub index: u64,
    /// How well it fits, as the provider wrote it.
    pub score: String,
    /// The document, a JSON value, if it was given back.
    pub document: Option<String>,
}

/// Why something is lost.
const NO_WORD: &str = "the other form of rerank has no such field";
/// Tokens at which Cohere cuts a document if nothing is said.
const COHERE_TOKENS_PER_DOCUMENT: u64 = 4_096;

/// What a body asks for. [`tasks::json::parse`](crate::tasks::json::parse) must have accepted it.
pub fn read(body: &str) -> Result<Rerank, Invalid> {
    let mut body = Tree::parse(body, CONVERTED_DEPTH_MAX).map_err(Invalid::from)?.into_members();
    body.take("model");
    let mut asked = Rerank {
        query: body.take("query").map(|query| query.raw().to_owned()).unwrap_or_default(),
        top_n: body.take("top_n").and_then(|count| count.count()),
        return_documents: body.take("return_documents").and_then(|value| value.boolean()),
        tokens_per_document_max: body.take("max_tokens_per_doc").and_then(|count| count.count()),
        ..Rerank::default()
    };
    let documents = body.take("documents").map(Tree::into_items).unwrap_or_default();
    for (at, document) in documents.into_iter().enumerate() {
        asked.documents.push(match (document.text(), document.get("text").and_then(Tree::text)) {
            (Some(text), _) => Document::Text(text.to_owned()),
            (None, Some(text)) => {
                let more = document.clone().into_members().rest().count() > 1;
                asked.losses.note_if(more, &format!("documents[{at}]"), "only its text is ranked");
                Document::Text(text.to_owned())
            }
            (None, None) => Document::Other(document.raw().to_owned()),
        });
    }
    for (name, _) in body.rest() {
        asked.losses.note(name, NO_WORD);
    }
    Ok(asked)
}

/// The body of a request in a form.
pub fn write(asked: &Rerank, to: Form, model: &str, losses: &mut Losses) -> String {
    object(|it| {
        it.text("model", model).raw("query", &asked.query);
        let object_query = asked.query.starts_with('{') && to == Form::Cohere;
        losses.note_if(object_query, "query", "Cohere takes a text");
        let documents: Vec<String> = asked
            .documents
            .iter()
            .enumerate()
            .map(|(at, document)| match document {
                Document::Text(text) => quote(text),
                Document::Other(raw) if to == Form::Cohere => {
                    losses.note(format!("documents[{at}]"), "Cohere ranks texts; this one goes as its JSON");
                    quote(raw)
                }
                Document::Other(raw) => raw.clone(),
            })
            .collect();
        it.array("documents", documents).count_if("top_n", asked.top_n);
        match to {
            // What is not given back is put in from the request: see `write_answer`.
            Form::Cohere => _ = it.count_if("max_tokens_per_doc", asked.tokens_per_document_max),
            Form::Jina | Form::List => {
                it.boolean("return_documents", false);
                let cut = asked.tokens_per_document_max.filter(|max| *max != COHERE_TOKENS_PER_DOCUMENT);
                losses.note_if(cut.is_some(), "max_tokens_per_doc", NO_WORD);
            }
        }
    })
}

/// What an answer says, in either form.
pub fn read_answer(body: &str) -> Result<Ranked, JsonError> {
    let tree = Tree::parse(body, CONVERTED_DEPTH_MAX)?;
    let meta = tree.get("meta");
    let of_meta = |group: &str, name: &str| meta?.get(group)?.get(name)?.count();
    let tokens = tree.get("usage").and_then(|usage| usage.get("total_tokens")?.count());
    let results = tree.get("results").map_or_else(|| tree.items(), Tree::items);
    Ok(Ranked {
        id: tree.get("id").and_then(Tree::text).map(str::to_owned),
        model: tree.get("model").and_then(Tree::text).map(str::to_owned),
        results: results
            .iter()
            .filter_map(|result| {
                Some(Ranking {
                    index: result.get("index")?.count()?,
                    score: result
                        .get("relevance_score")
                        .or_else(|| result.get("score"))
                        .filter(|score| score.number().is_some())?
                        .raw()
                        .to_owned(),
                    document: result
                        .get("document")
                        .map(|given| given.raw().to_owned())
                        .filter(|given| given != "null"),
                })
            })
            .collect(),
        tokens: tokens
            .or_else(|| of_meta("tokens", "input_tokens"))
            .or_else(|| of_meta("billed_units", "total_tokens")),
        searches: of_meta("billed_units", "search_units"),
    })
}

/// What the client is told beside the answer itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Told {
    /// The model, as the client asked for it.
    pub model: String,
    /// An id for answers that have none: the request's.
    pub id: String,
}

/// The body of an answer in a form. Documents that are wanted and did not come back are those of the request.
pub fn write_answer(ranked: &Ranked, asked: &Rerank, to: Form, told: &Told) -> String {
    let wanted = match to {
        Form::Cohere => asked.return_documents == Some(true),
        Form::Jina | Form::List => asked.return_documents != Some(false),
    };
    // Not everybody knows how many are wanted.
    let top = asked.top_n.and_then(|top| usize::try_from(top).ok()).unwrap_or(usize::MAX);
    let results: Vec<String> =
        ranked.results.iter().take(top).map(|result| result_json(result, asked, wanted)).collect();
    object(|it| {
        it.text("id", ranked.id.as_deref().unwrap_or(&told.id));
        if to != Form::Cohere {
            it.text("model", &told.model).text("object", "list");
            if let Some(tokens) = ranked.tokens {
                it.object("usage", |it| _ = it.count("total_tokens", tokens));
            }
        }
        it.array("results", results);
        // Clients of Cohere's first version call the path that Jina's do, so both get it.
        let meta = object(|it| fill_meta(it, ranked, to));
        if meta != "{}" {
            it.raw("meta", &meta);
        }
    })
}

/// The body of an error, where a form's clients look for its words: with Cohere at the top, with Jina in `detail`. Beside
/// that it has the whole error as everywhere else.
pub fn error(form: Form, error: &ErrorBody, id: &str) -> String {
    object(|it| {
        match form {
            Form::Cohere => _ = it.text("id", id).text("message", &error.message),
            Form::Jina | Form::List => _ = it.text("detail", &error.message),
        }
        it.raw("error", &format!("{{{}}}", error.members()));
    })
}

fn fill_meta(it: &mut Object, ranked: &Ranked, to: Form) {
    if to == Form::Cohere {
        it.object("api_version", |it| _ = it.text("version", "2"));
    }
    if let Some(searches) = ranked.searches {
        it.object("billed_units", |it| _ = it.count("search_units", searches));
    }
    if let Some(tokens) = ranked.tokens.filter(|_| to == Form::Cohere) {
        it.object("tokens", |it| _ = it.count("input_tokens", tokens));
    }
}

fn result_json(result: &Ranking, asked: &Rerank, wanted: bool) -> String {
    object(|it| {
        it.count("index", result.index).raw("relevance_score", &result.score);
        if !wanted {
            return;
        }
        let sent = usize::try_from(result.index).ok().and_then(|index| asked.documents.get(index));
        match (&result.document, sent) {
            (Some(document), _) if document.starts_with('"') => {
                it.object("document", |it| _ = it.raw("text", document));
            }
            (Some(document), _) => _ = it.raw("document", document),
            (None, Some(Document::Text(text))) => _ = it.object("document", |it| _ = it.text("text", text)),
            (None, Some(Document::Other(raw))) => _ = it.raw("document", raw),
            (None, None) => {}
        }
    })
}
