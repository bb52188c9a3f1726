//! The paths of this dialect, which name the model and what is asked of it.

use crate::dialect::{Asked, Elsewhere};
use crate::openai::request::Operation;
use crate::url::segment_into;

/// A stream of events, and one that is a single array.
pub(super) const STREAM: &str = "streamGenerateContent?alt=sse";
pub(super) const STREAM_AS_ARRAY: &str = "streamGenerateContent";

/// What is asked of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// An answer.
    GenerateContent,
    /// An answer, streamed.
    StreamGenerateContent,
    /// How many tokens a prompt has.
    CountTokens,
    /// An embedding.
    EmbedContent,
    /// Several of them.
    BatchEmbedContents,
}

impl Method {
    /// Every method.
    pub const ALL: [Self; 5] = [
        Self::GenerateContent,
        Self::StreamGenerateContent,
        Self::CountTokens,
        Self::EmbedContent,
        Self::BatchEmbedContents,
    ];

    /// Its name in paths.
    pub const fn name(self) -> &'static str {
        match self {
            Self::GenerateContent => "generateContent",
            Self::StreamGenerateContent => "streamGenerateContent",
            Self::CountTokens => "countTokens",
            Self::EmbedContent => "embedContent",
            Self::BatchEmbedContents => "batchEmbedContents",
        }
    }

    /// The operation that it is to routing. Counting needs what answering needs.
    pub const fn operation(self) -> Operation {
        match self {
            Self::GenerateContent | Self::StreamGenerateContent | Self::CountTokens => Operation::Chat,
            Self::EmbedContent | Self::BatchEmbedContents => Operation::Embedding,
        }
    }

    /// Whether the answer is streamed.
    pub const fn streams(self) -> bool {
        match self {
            Self::StreamGenerateContent => true,
            Self::GenerateContent | Self::CountTokens | Self::EmbedContent | Self::BatchEmbedContents => {
                false
            }
        }
    }
}

/// A path of this dialect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The model that is named, without `models/`.
    pub model: String,
    /// What is asked of it.
    pub method: Method,
}

impl Route {
    /// What a path says: `/v1beta/models/{model}:{method}`, also below `/v1` and `/v1alpha`.
    pub fn of_path(path: &str) -> Option<Self> {
        let below = ["/v1beta/", "/v1/", "/v1alpha/"].iter().find_map(|prefix| path.strip_prefix(prefix))?;
        let (named, method) = below.rsplit_once(':')?;
        let method = Method::ALL.into_iter().find(|known| known.name() == method)?;
        // Tuned models are told apart from others by their prefix.
        let model = match named.strip_prefix("models/") {
            Some(model) => model,
            None if named.starts_with("tunedModels/") => named,
            None => return None,
        };
        Some(Self { model: decoded(model)?, method })
    }
}

/// What a path asks for. The call is its method; of a stream of events with the query that asks for them.
pub(super) fn asked(path: &str, query: Option<&str>) -> Option<Asked> {
    let Route { model, method } = Route::of_path(path)?;
    let call = match method {
        Method::StreamGenerateContent if super::Form::of_query(query) == super::Form::Events => STREAM,
        Method::StreamGenerateContent
        | Method::GenerateContent
        | Method::CountTokens
        | Method::EmbedContent
        | Method::BatchEmbedContents => method.name(),
    };
    let elsewhere = match method {
        Method::GenerateContent | Method::StreamGenerateContent => Elsewhere::Converted,
        Method::CountTokens => Elsewhere::Estimated,
        Method::EmbedContent | Method::BatchEmbedContents => Elsewhere::Unserved,
    };
    Some(Asked { operation: method.operation(), call, model: Some(model), elsewhere })
}

/// The method of a call.
pub(super) fn method_of(call: &str) -> Method {
    let name = call.split('?').next().unwrap_or_default();
    Method::ALL.into_iter().find(|method| method.name() == name).unwrap_or(Method::GenerateContent)
}

/// The path below a provider's prefix.
pub(super) fn path_of(model: &str, method: &str) -> String {
    let (folder, name) = ["models/", "tunedModels/"]
        .into_iter()
        .find_map(|folder| Some((folder, model.strip_prefix(folder)?)))
        .unwrap_or(("models/", model));
    let mut path = format!("/{folder}");
    segment_into(name, &mut path);
    path.push(':');
    path.push_str(method);
    path
}

/// The path of a call that is relayed as it is. A stream that is to be one array is not: what it used is read of events.
pub(super) fn relay_path(asked: &Asked, model: &str) -> Option<String> {
    (asked.call != STREAM_AS_ARRAY).then(|| path_of(model, asked.call))
}

/// What `%41` stands for; `None` if that is no text.
fn decoded(text: &str) -> Option<String> {
    let (bytes, mut out, mut at) = (text.as_bytes(), Vec::with_capacity(text.len()), 0);
    while let Some(byte) = bytes.get(at) {
        if *byte == b'%' {
            let digits = std::str::from_utf8(bytes.get(at + 1..at + 3)?).ok()?;
            out.push(u8::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'))?);
            at += 3;
        } else {
            out.push(*byte);
            at += 1;
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_the_model_and_the_method() {
        let check = |path: &str, expected: Option<(&str, Method)>| {
            let got = Route::of_path(path).map(|route| (route.model, route.method));
            assert_eq!(got, expected.map(|(model, method)| (model.to_owned(), method)), "{path}");
        };
        check(
            "/v1beta/models/gemini-2.5-flash:generateContent",
            Some(("gemini-2.5-flash", Method::GenerateContent)),
        );
        check("/v1/models/a@2:streamGenerateContent", Some(("a@2", Method::StreamGenerateContent)));
        check("/v1beta/models/org/name:countTokens", Some(("org/name", Method::CountTokens)));
        check("/v1beta/models/org%2Fname:1b:embedContent", Some(("org/name:1b", Method::EmbedContent)));
        check(
            "/v1beta/tunedModels/t:batchEmbedContents",
            Some(("tunedModels/t", Method::BatchEmbedContents)),
        );
        for path in [
            "/v1beta/models/a",
            "/v1beta/models/a:fly",
            "/v1beta/files/a:countTokens",
            "/models/a:countTokens",
            "/v1beta/models/%f:countTokens",
            "/v1beta/models/%+1:countTokens",
            "/v1beta/models/%ff:countTokens",
        ] {
            check(path, None);
        }
    }
}
