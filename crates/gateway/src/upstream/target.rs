//! Where a provider is, and what every request to it says in its head.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderValue;
use pointsman_settings::providers::ProviderConfig;
use pointsman_wire::openai::request::Operation;
use pointsman_wire::vendor::{self, Vendor};

use super::kserve;

const USER_AGENT: &str = concat!("pointsman/", env!("CARGO_PKG_VERSION"));

/// How a provider is connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https,
    /// gRPC over plain HTTP/2.
    Grpc,
    /// gRPC over HTTP/2 over TLS.
    Grpcs,
}

impl Scheme {
    /// The scheme of a URL, and the port it has where none is named.
    fn of(url: &http::Uri) -> (Self, u16) {
        match url.scheme_str() {
            Some("https") => (Self::Https, 443),
            Some("grpc") => (Self::Grpc, 80),
            Some("grpcs") => (Self::Grpcs, 443),
            Some(_) | None => (Self::Http, 80),
        }
    }

    /// Its name.
    const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Grpc => "grpc",
            Self::Grpcs => "grpcs",
        }
    }
}

/// Where a provider is, and what every request to it says in its head.
#[derive(Debug)]
pub struct Endpoint {
    /// The provider's name.
    pub provider: String,
    /// The kind of provider.
    pub vendor: &'static Vendor,
    /// How it is connected to.
    pub scheme: Scheme,
    /// The host to connect to, and to verify.
    pub host: String,
    /// The port to connect to.
    pub port: u16,
    /// Host and port as the `host` header has them.
    pub authority: String,
    /// What connections may be shared by: the provider and all that identifies its host. A connection is never used
    /// for another provider, even on the same host.
    pub pool_key: Arc<str>,
    /// Idle connections that one worker keeps.
    pub idle_max: usize,
    /// How long an idle connection is kept; shorter than engines keep theirs, so that it is us who closes.
    pub idle_time: Duration,
    /// What precedes the path of every operation, such as `/v1`.
    prefix: String,
    heads: [Bytes; 4],
    /// What stands in every head behind its request line.
    lines: Bytes,
    /// The same without the type of the body.
    tensors_lines: Bytes,
    /// What precedes `/v2`.
    tensors_prefix: String,
}

/// The endpoint of a provider.
///
/// The settings have checked the kind and the URL; what they would not let through ends up at a host that does not
/// resolve, and is reported as a failed connection.
pub fn endpoint(name: &str, config: &ProviderConfig) -> Endpoint {
    let vendor = vendor::vendor(&config.kind).unwrap_or(&vendor::vendors()[0]);
    let base = config.base_url.as_deref().or(vendor.base_url.as_deref()).unwrap_or_default();
    let url: http::Uri = base.parse().unwrap_or_default();
    let (scheme, default_port) = Scheme::of(&url);
    let host = url.host().unwrap_or("invalid").trim_matches(['[', ']']).to_owned();
    let port = url.port_u16().unwrap_or(default_port);
    let authority = url.authority().map_or_else(|| host.clone(), ToString::to_string);
    let prefix = prefix(url.path(), &vendor.path_prefix);
    let mut fixed = BytesMut::new();
    for (header, value) in &vendor.headers {
        fixed.put_slice(format!("{header}: {value}\r\n").as_bytes());
    }
    for (header, value) in &config.headers {
        fixed.put_slice(format!("{}: {}\r\n", header.to_ascii_lowercase(), value.expose()).as_bytes());
    }
    let tensors_lines = lines(&authority, b"", &fixed);
    let lines = lines(&authority, b"content-type: application/json\r\n", &fixed);
    let head = |operation: Operation| head(operation, &prefix, &lines);
    let heads = [Operation::Chat, Operation::Completion, Operation::Embedding, Operation::Response].map(head);
    let tensors_prefix = kserve::prefix(url.path(), &vendor.path_prefix);
    let at = scheme.name();
    Endpoint {
        provider: name.to_owned(),
        vendor,
        scheme,
        pool_key: format!("{name}|{at}://{host}:{port}").into(),
        host,
        port,
        authority,
        idle_max: config.pool.idle_max_per_worker,
        idle_time: Duration::from_millis(config.pool.idle_ms),
        tensors_prefix,
        prefix,
        heads,
        tensors_lines,
        lines,
    }
}

/// What precedes every operation's path: people give base URLs with and without it, and both mean the same.
fn prefix(path: &str, usual: &str) -> String {
    let path = path.trim_end_matches('/');
    if path.ends_with(usual) { path.to_owned() } else { format!("{path}{usual}") }
}

fn head(operation: Operation, prefix: &str, lines: &[u8]) -> Bytes {
    let path = operation.path();
    let path = path.strip_prefix("/v1").unwrap_or(path);
    let mut head = BytesMut::new();
    head.put_slice(format!("POST {prefix}{path} HTTP/1.1\r\n").as_bytes());
    head.put_slice(lines);
    head.freeze()
}

fn lines(authority: &str, kind: &[u8], fixed: &[u8]) -> Bytes {
    let mut lines = BytesMut::new();
    lines.put_slice(format!("host: {authority}\r\n").as_bytes());
    lines.put_slice(format!("user-agent: {USER_AGENT}\r\naccept-encoding: identity\r\n").as_bytes());
    lines.put_slice(kind);
    lines.put_slice(fixed);
    lines.freeze()
}

impl Endpoint {
    /// The beginning of the head of a request for tensors, of a path below `/v2`.
    pub(super) fn tensors_head(&self, path: &str) -> Bytes {
        let mut head = BytesMut::new();
        head.put_slice(format!("POST {}/v2{path} HTTP/1.1\r\n", self.tensors_prefix).as_bytes());
        head.put_slice(&self.tensors_lines);
        head.freeze()
    }

    /// The beginning of the head of every request for an operation.
    pub fn head(&self, operation: Operation) -> &[u8] {
        match operation {
            Operation::Chat => &self.heads[0],
            Operation::Completion => &self.heads[1],
            Operation::Embedding => &self.heads[2],
            // Written by `kserve`, for each has the path of its model.
            Operation::Infer => &[],
            Operation::Response => &self.heads[3],
        }
    }

    /// Whether it speaks the dialect whose requests need no more than another model's name.
    pub fn speaks_plainly(&self) -> bool {
        self.vendor.dialect.name == "openai"
    }

    /// Writes the beginning of the head of a generation in its own dialect.
    pub fn write_head(&self, model: &str, stream: bool, head: &mut BytesMut) {
        head.put_slice(b"POST ");
        head.put_slice(self.prefix.as_bytes());
        head.put_slice(self.vendor.dialect.dialect.path(model, stream).as_bytes());
        head.put_slice(b" HTTP/1.1\r\n");
        head.put_slice(&self.lines);
    }

    /// Goes to another port of the same host, as another place whose connections are not shared with those of requests.
    pub fn move_to(&mut self, port: u16) {
        let host = self.authority.strip_suffix(&format!(":{}", self.port)).unwrap_or(&self.authority);
        self.authority = format!("{host}:{port}");
        self.pool_key = format!("{}|{port}", self.pool_key).into();
        self.port = port;
        // What an engine says of its load it says over HTTP.
        self.scheme = match self.scheme {
            Scheme::Http | Scheme::Grpc => Scheme::Http,
            Scheme::Https | Scheme::Grpcs => Scheme::Https,
        };
    }

    /// What the provider's header of authentication says for a key; `None` if the key cannot stand in a header.
    pub fn auth_value(&self, key: &str) -> Option<HeaderValue> {
        let mut value = HeaderValue::try_from(self.vendor.auth.value(key)).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// Writes the line of authentication.
    pub fn write_auth(&self, head: &mut BytesMut, value: &HeaderValue) {
        head.put_slice(self.vendor.auth.header().as_bytes());
        head.put_slice(b": ");
        head.put_slice(value.as_bytes());
        head.put_slice(b"\r\n");
    }

    /// Where the provider lists its models.
    pub fn models_path(&self) -> String {
        format!("{}/models", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::prefix;

    #[test]
    fn base_urls_with_and_without_the_version_mean_the_same() {
        for (path, usual, expected) in [
            ("/", "/v1", "/v1"),
            ("", "/v1", "/v1"),
            ("/v1", "/v1", "/v1"),
            ("/v1/", "/v1", "/v1"),
            ("/team/a", "/v1", "/team/a/v1"),
            ("/openai/v1", "/openai/v1", "/openai/v1"),
        ] {
            assert_eq!(prefix(path, usual), expected, "{path}");
        }
    }
}
