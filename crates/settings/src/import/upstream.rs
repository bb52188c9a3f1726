//! Where deployments are sent: what a provider of each kind needs, filled in where the other router finds it itself.

use pointsman_wire::cloud::Cloud;
use pointsman_wire::vendor::{self, Vendor};
use serde_json::{Map, Value, json};

use super::node::{Kind, Node};

/// Where Vertex AI is where nobody says so.
const VERTEX_LOCATION: &str = "us-central1";
/// Engines that are asked on their usual port of this machine where nobody says so.
const LOCAL_ENGINES: [&str; 2] = ["ollama", "llama_cpp"];

/// The variables in which the other router looks for what a configuration does not say.
pub(super) struct Variables {
    pub(super) aws_region: &'static str,
    pub(super) google_project: &'static str,
    pub(super) azure_base_url: &'static str,
    pub(super) azure_key: &'static str,
}

/// A provider while it is gathered.
#[derive(Default)]
pub(super) struct Upstream {
    pub(super) kind: &'static str,
    pub(super) base_url: Option<String>,
    pub(super) location: Option<String>,
    pub(super) project: Option<String>,
    pub(super) api_version: Option<String>,
    pub(super) region: Option<String>,
    pub(super) headers: Map<String, Value>,
    /// The fields of its credential; none if it has none.
    pub(super) credential: Map<String, Value>,
}

impl Upstream {
    fn vendor(&self) -> Option<&'static Vendor> {
        vendor::vendor(self.kind).ok()
    }

    /// The cloud it is part of.
    pub(super) fn cloud(&self) -> Option<Cloud> {
        self.vendor()?.cloud
    }

    /// A field of its credential.
    pub(super) fn credit(&mut self, name: &str, text: Option<&str>) {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            self.credential.insert(name.to_owned(), json!(text));
        }
    }

    /// Takes Google's key file as its credential: its path, or a variable that has the path. A key itself is not copied.
    pub(super) fn account(&mut self, given: Option<&Node>) -> Option<&'static str> {
        let text =
            given.and_then(Node::text).filter(|text| !text.is_empty() && !text.trim_start().starts_with('{'));
        match text {
            Some(path) => {
                self.credential.insert("service_account".to_owned(), json!(format!("file:{path}")));
                (path.starts_with("${") && path != "${GOOGLE_APPLICATION_CREDENTIALS}").then_some(
                    "the variable is taken to have the path of the key file; if it has the key itself, leave `file:` out",
                )
            }
            None => given.filter(|node| node.kind != Kind::Code && node.text() != Some("")).map(|_| {
                "the key is not copied: put it into a file, and the file's path into GOOGLE_APPLICATION_CREDENTIALS"
            }),
        }
    }

    /// Fills in what is not said, as the other router does; tells of what cannot be seen from a vendor's name.
    pub(super) fn complete(&mut self, from: &Variables) -> Vec<String> {
        let mut told = Vec::new();
        match self.cloud() {
            Some(Cloud::Bedrock) => self.complete_bedrock(from, &mut told),
            Some(Cloud::Vertex) => self.complete_vertex(from, &mut told),
            Some(Cloud::Azure) => {
                if self.base_url.is_none() {
                    self.base_url = Some(variable(from.azure_base_url));
                    told.push(format!(
                        "it says no place: `base_url` is the variable {}",
                        from.azure_base_url
                    ));
                }
                if self.credential.is_empty() {
                    self.credit("key", Some(&variable(from.azure_key)));
                }
            }
            None => self.complete_usual(&mut told),
        }
        told
    }

    fn complete_bedrock(&mut self, from: &Variables, told: &mut Vec<String>) {
        if self.location.is_none() {
            self.location = Some(variable(from.aws_region));
            told.push(format!("it says no region: `location` is the variable {}", from.aws_region));
        }
        if self.credential.contains_key("key") {
            return;
        }
        let is_usual = self.credential.is_empty();
        for (name, usual) in
            [("access_key_id", "AWS_ACCESS_KEY_ID"), ("secret_access_key", "AWS_SECRET_ACCESS_KEY")]
        {
            self.credential.entry(name).or_insert_with(|| json!(variable(usual)));
        }
        if is_usual {
            // A key that is valid for ever has none.
            self.credit("session_token", Some("${AWS_SESSION_TOKEN:-}"));
        }
    }

    fn complete_vertex(&mut self, from: &Variables, told: &mut Vec<String>) {
        if self.location.is_none() {
            self.location = Some(VERTEX_LOCATION.to_owned());
            told.push(format!("it says no location: `location` is {VERTEX_LOCATION}"));
        }
        if self.project.is_none() {
            self.project = Some(variable(from.google_project));
            told.push(format!("it says no project: `project` is the variable {}", from.google_project));
        }
        if self.credential.is_empty() {
            self.credit("service_account", Some("file:${GOOGLE_APPLICATION_CREDENTIALS}"));
        }
    }

    fn complete_usual(&mut self, told: &mut Vec<String>) {
        let Some(vendor) = self.vendor() else { return };
        if self.base_url.is_some() {
            return;
        }
        if let Some(port) = vendor.port.filter(|_| LOCAL_ENGINES.contains(&self.kind)) {
            self.base_url = Some(format!("http://127.0.0.1:{port}"));
            told.push(format!("it says no place: `base_url` is port {port} of this machine"));
        }
        if self.credential.is_empty()
            && let Some(usual) = vendor.env.first()
        {
            self.credit("key", Some(&variable(usual)));
        }
    }

    /// Whether it lacks a base URL that nothing else gives.
    pub(super) fn is_nowhere(&self) -> bool {
        let by_location = self.cloud().is_some_and(Cloud::has_locations);
        self.base_url.is_none() && !by_location && self.vendor().is_none_or(Vendor::needs_base_url)
    }

    /// The provider.
    pub(super) fn value(self) -> Value {
        let mut value = Map::new();
        value.insert("kind".to_owned(), json!(self.kind));
        for (name, text) in [
            ("base_url", self.base_url),
            ("location", self.location),
            ("project", self.project),
            ("api_version", self.api_version),
            ("region", self.region),
        ] {
            if let Some(text) = text {
                value.insert(name.to_owned(), json!(text));
            }
        }
        if !self.headers.is_empty() {
            value.insert("headers".to_owned(), Value::Object(self.headers));
        }
        let credential = match (self.credential.len(), self.credential.get("key")) {
            (0, _) => None,
            (1, Some(key)) => Some(key.clone()),
            (_, _) => Some(Value::Object(self.credential)),
        };
        if let Some(credential) = credential {
            value.insert("keys".to_owned(), json!([credential]));
        }
        Value::Object(value)
    }
}

/// The kind that serves a model of Vertex AI: Google's models and Anthropic's have kinds of their own.
pub(super) fn kind_for(kind: &'static str, model: &str) -> &'static str {
    if kind == "vertex" && model.starts_with("claude") { "vertex_anthropic" } else { kind }
}

fn variable(name: &str) -> String {
    format!("${{{name}}}")
}
