//! Vendors that speak the OpenAI dialect, as records.
//!
//! A new vendor is a new table in `vendors.toml`; no code knows one by name.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::LazyLock;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use crate::cloud::Cloud;
use crate::dialect::{self, ProviderDef};
use crate::engine::Family;
use crate::openai::chat::habits::{Field, Habits};
use crate::openai::continuation::Style;
use crate::rerank::Form;

/// How a vendor is spoken to.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts of a vendor, each a yes or no")]
pub struct Vendor {
    /// The `kind` in the configuration.
    pub kind: String,
    /// Other spellings of the kind.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Where it is, unless the configuration says otherwise: scheme, host and port, no path.
    pub base_url: Option<String>,
    /// What it speaks, by a name of [`PROVIDERS`](crate::dialect::PROVIDERS).
    #[serde(default = "openai", deserialize_with = "dialect")]
    pub dialect: &'static ProviderDef,
    /// Headers that every request to it carries, such as the version of its API.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// What precedes the operation's path, such as `/v1`.
    #[serde(default = "default_path_prefix")]
    pub path_prefix: String,
    /// The cloud that it is part of: where it is, and what its requests carry, then depends on an account.
    pub cloud: Option<Cloud>,
    /// How it wants its key.
    #[serde(default)]
    pub auth: Auth,
    /// What a base URL looks like where one has to be configured because it differs from account to account: what is in
    /// capitals is to be put in.
    pub base_url_form: Option<String>,
    /// A path whose success shows that it is up, and that never costs anything; if absent its listing of models.
    #[serde(default)]
    pub health_path: String,
    /// Environment variables that usually hold its key, the first that is set counts.
    #[serde(default)]
    pub env: Vec<String>,
    /// Whether a key in one of these variables is a reason to use it on the first run; not if programs of another purpose
    /// have their keys there.
    #[serde(default = "yes")]
    pub discover: bool,
    /// The port it listens on by default, for discovery on loopback.
    pub port: Option<u16>,
    /// Whether it is an engine one runs oneself: requests cost nothing.
    #[serde(default)]
    pub engine: bool,
    /// How it speaks of its load, if it is an engine that does.
    pub signals: Option<&'static Family>,
    /// Whether it has the Responses API itself, as its documentation says. Where it has not, such requests are turned into
    /// its dialect.
    #[serde(default)]
    pub responses: bool,
    /// Fields that it knows by another name than OpenAI does. Requests that are turned into its dialect have them by its own.
    #[serde(default)]
    pub renamed_fields: BTreeMap<Field, String>,
    /// Fields that it refuses, and that requests which are turned into its dialect do not have.
    #[serde(default)]
    pub refused_fields: Vec<Field>,
    /// Whether it understands `stream_options.include_usage`.
    #[serde(default = "yes")]
    pub stream_usage: bool,
    /// Whether it speaks the Open Inference Protocol (KServe v2).
    #[serde(default)]
    pub kserve: Kserve,
    /// The form in which it takes reranks, if it takes any.
    #[serde(default)]
    pub rerank: Form,
    /// How it is told to go on with an answer that broke off elsewhere, if it can.
    pub continuation: Option<Style>,
    /// The field that has a model's thoughts in messages and deltas, if it sends them in one. What the model thought before
    /// is sent back in it.
    pub reasoning_field: Option<String>,
    /// Whether it refuses turns that call tools and have nothing in that field.
    #[serde(default)]
    pub reasoning_demanded: bool,
    /// The letters and digits that it holds the ids of calls to, if it takes no others.
    pub call_id_chars: Option<u8>,
    /// The headers by which its answers say what is left of its limits, as its documentation names them.
    #[serde(default)]
    pub limit_headers: Vec<String>,
    /// What else differs on the wire, a sentence each.
    #[serde(default)]
    pub quirks: Vec<String>,
    /// Where this was read.
    pub source: Option<String>,
    /// The value of the metric attribute `gen_ai.provider.name`; the kind if absent.
    pub gen_ai_name: Option<String>,
}

/// Whether a vendor speaks the Open Inference Protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kserve {
    /// Not at all.
    #[default]
    No,
    /// As well as the API it is asked by otherwise.
    Also,
    /// And nothing else.
    Only,
}

/// How a vendor wants its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Auth {
    /// `authorization: Bearer <key>`
    #[default]
    Bearer,
    /// `api-key: <key>`
    ApiKey,
    /// `x-api-key: <key>`
    XApiKey,
    /// `x-goog-api-key: <key>`
    XGoogApiKey,
}

impl Auth {
    /// The name of the header, in lower case.
    pub const fn header(self) -> &'static str {
        match self {
            Self::Bearer => "authorization",
            Self::ApiKey => "api-key",
            Self::XApiKey => "x-api-key",
            Self::XGoogApiKey => "x-goog-api-key",
        }
    }

    /// The value of the header for a key.
    pub fn value(self, key: &str) -> String {
        match self {
            Self::Bearer => format!("Bearer {key}"),
            Self::ApiKey | Self::XApiKey | Self::XGoogApiKey => key.to_owned(),
        }
    }
}

impl Vendor {
    /// Whether a base URL has to be configured.
    pub const fn needs_base_url(&self) -> bool {
        self.base_url.is_none()
    }

    /// What it does otherwise than its dialect.
    pub fn habits(&'static self) -> Habits {
        Habits {
            stream_usage: self.stream_usage,
            renamed_fields: &self.renamed_fields,
            refused_fields: &self.refused_fields,
            reasoning_field: self.reasoning_field.as_deref(),
            reasoning_demanded: self.reasoning_demanded,
            call_id_chars: self.call_id_chars,
        }
    }

    /// The value of the metric attribute `gen_ai.provider.name`.
    pub fn gen_ai_name(&self) -> &str {
        self.gen_ai_name.as_deref().unwrap_or(&self.kind)
    }
}

/// A vendor nobody has a record of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown provider kind `{name}`{}", did_you_mean(.nearest.as_deref()))]
pub struct UnknownVendor {
    /// The name that was asked for.
    pub name: String,
    /// The known kind that is spelt most alike, if any is near.
    pub nearest: Option<String>,
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |nearest| format!("; did you mean `{nearest}`?"))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    vendor: Vec<Vendor>,
}

static VENDORS: LazyLock<Vec<Vendor>> =
    LazyLock::new(|| read(include_str!("vendors.toml")).expect("the embedded table is tested"));

/// Reads a table of vendors.
///
/// # Errors
/// What is wrong, with its line.
pub fn read(text: &str) -> Result<Vec<Vendor>, String> {
    let table: Table = toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
    let mut vendors = table.vendor;
    for vendor in &mut vendors {
        if vendor.health_path.is_empty() {
            vendor.health_path = format!("{}/models", vendor.path_prefix);
        }
    }
    Ok(vendors)
}

/// Every vendor, in the order of the table.
pub fn vendors() -> &'static [Vendor] {
    &VENDORS
}

/// How alike two spellings have to be to be taken for each other, from 0 to 1.
const LIKENESS_MIN: f64 = 0.75;

/// The vendor of a kind or alias. `-` and `_` are the same.
pub fn vendor(kind: &str) -> Result<&'static Vendor, UnknownVendor> {
    let wanted = &kind.replace('-', "_");
    let names = |vendor: &'static Vendor| std::iter::once(&vendor.kind).chain(&vendor.aliases);
    if let Some(found) = vendors().iter().find(|vendor| names(vendor).any(|name| name == wanted)) {
        return Ok(found);
    }
    let nearest = vendors()
        .iter()
        .flat_map(|vendor| names(vendor).map(move |name| (strsim::jaro_winkler(name, wanted), vendor)))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, vendor)| vendor.kind.clone());
    Err(UnknownVendor { name: kind.to_owned(), nearest })
}

/// The kinds and aliases of [`vendors`] as a JSON Schema; use with `#[schemars(with = "VendorKind")]`.
#[derive(Debug, Clone, Copy)]
pub struct VendorKind;

impl JsonSchema for VendorKind {
    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("VendorKind")
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let kinds: Vec<&str> = vendors()
            .iter()
            .flat_map(|vendor| std::iter::once(&vendor.kind).chain(&vendor.aliases))
            .map(String::as_str)
            .collect();
        json_schema!({ "type": "string", "enum": kinds })
    }
}

fn openai() -> &'static ProviderDef {
    &crate::openai::chat::provider::DEF
}

fn dialect<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<&'static ProviderDef, D::Error> {
    let name = String::deserialize(deserializer)?;
    dialect::provider(&name).ok_or_else(|| serde::de::Error::custom(format!("unknown dialect `{name}`")))
}

fn default_path_prefix() -> String {
    "/v1".to_owned()
}

const fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn records_parse_and_names_are_unique() {
        let mut names = BTreeSet::new();
        let mut ports = BTreeSet::new();
        for record in vendors() {
            for name in std::iter::once(&record.kind).chain(&record.aliases) {
                assert!(names.insert(name.clone()), "{name} twice");
                assert!(
                    name.bytes()
                        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
                );
                assert_eq!(vendor(name).unwrap().kind, record.kind);
            }
            if let Some(port) = record.port {
                assert!(ports.insert(port), "port {port} twice");
                assert!(record.engine);
            }
            if let Some(url) = &record.base_url {
                assert!(url.starts_with("http") && !url.ends_with('/'), "{url}");
            }
            assert!(
                record.engine || record.signals.is_none(),
                "{} costs money and is not polled",
                record.kind
            );
            assert!(record.health_path.starts_with('/'));
            assert!(record.path_prefix.is_empty() || record.path_prefix.starts_with('/'));
            assert!(!record.path_prefix.ends_with('/'), "{}", record.kind);
            assert!(record.base_url_form.is_none() || record.needs_base_url(), "{}", record.kind);
            for header in &record.limit_headers {
                assert_eq!(*header, header.to_ascii_lowercase(), "{}", record.kind);
            }
        }
    }

    #[test]
    fn at_least_25_vendors_are_not_our_own_engines_and_say_where_that_was_read() {
        let paid = vendors().iter().filter(|vendor| !vendor.engine && vendor.dialect.name == "openai");
        let paid: Vec<&Vendor> = paid.filter(|vendor| vendor.kind != "openai_compatible").collect();
        assert!(paid.len() >= 25, "{}", paid.len());
        for vendor in paid {
            assert!(vendor.source.is_some(), "{}", vendor.kind);
        }
    }

    #[test]
    fn a_vendor_is_one_record() {
        let record = "[[vendor]]\nkind = 'acme'\nbase_url = 'https://llm.acme.example'\n\
                      path_prefix = '/serve/v2'\nauth = 'api_key'\n";
        let read = read(record).expect("a table");
        let acme = &read[0];
        assert_eq!((acme.health_path.as_str(), acme.stream_usage), ("/serve/v2/models", true));
        assert_eq!((acme.auth.header(), acme.gen_ai_name()), ("api-key", "acme"));
        let error = super::read("[[vendor]]\nkind = 'acme'\nprefix = '/v2'\n").expect_err("no such key");
        assert!(error.contains("line 3") && error.contains("unknown field `prefix`"), "{error}");
    }

    #[test]
    fn an_unknown_kind_names_the_nearest() {
        let check = |name: &str, nearest: Option<&str>| {
            assert_eq!(vendor(name).unwrap_err().nearest.as_deref(), nearest, "{name}");
        };
        check("opanai", Some("openai"));
        check("lama_cpp", Some("llama_cpp"));
        check("zzz", None);
        assert_eq!(
            vendor("vlm").unwrap_err().to_string(),
            "unknown provider kind `vlm`; did you mean `vllm`?"
        );
        assert_eq!(vendor("llama-cpp").unwrap().kind, "llama_cpp");
    }

    #[test]
    fn keys_go_into_the_header_the_vendor_wants() {
        assert_eq!(
            (Auth::Bearer.header(), Auth::Bearer.value("k")),
            ("authorization", "Bearer k".to_owned())
        );
        assert_eq!((Auth::ApiKey.header(), Auth::ApiKey.value("k")), ("api-key", "k".to_owned()));
    }
}
