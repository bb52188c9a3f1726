//! Where a provider is, and what every request to it says in its head.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderValue;
use pointsman_settings::egress::{EgressConfig, Guard};
use pointsman_settings::providers::ProviderConfig;
use pointsman_wire::azure;
use pointsman_wire::dialect::OPENAI;
use pointsman_wire::openai::request::Operation;
use pointsman_wire::vendor::{self, Vendor};

use super::kserve;

/// What we call ourselves.
pub const USER_AGENT: &str = concat!("pointsman/", env!("CARGO_PKG_VERSION"));

/// The media type of every request that is written here, but for those that come in parts.
pub const CONTENT_TYPE: &str = "application/json";
/// The line that says so.
const JSON_LINE: &[u8] = b"content-type: application/json\r\n";

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
    /// Which of its addresses may be dialled.
    pub guard: Guard,
    /// What connections may be shared by: the provider and all that identifies its host. A connection is never used
    /// for another provider, even on the same host.
    pub pool_key: Arc<str>,
    /// Idle connections that one worker keeps.
    pub idle_max: usize,
    /// How long an idle connection is kept; shorter than engines keep theirs, so that it is us who closes.
    pub idle_time: Duration,
    /// What precedes the path of every operation, such as `/v1`.
    prefix: String,
    /// The version of the API that is asked for, if another than the dialect's.
    api_version: Option<String>,
    heads: [Bytes; 4],
    /// What stands in every head behind its request line.
    lines: Bytes,
    /// What precedes `/v2`.
    tensors_prefix: String,
}

/// The endpoint of a provider.
///
/// The settings have checked the kind and the URL; what they would not let through ends up at a host that does not
/// resolve, and is reported as a failed connection.
pub fn endpoint(name: &str, config: &ProviderConfig, egress: &EgressConfig) -> Endpoint {
    let vendor = vendor::vendor(&config.kind).unwrap_or(&vendor::vendors()[0]);
    endpoint_of(vendor, name, config, egress)
}

fn endpoint_of(
    vendor: &'static Vendor,
    name: &str,
    config: &ProviderConfig,
    egress: &EgressConfig,
) -> Endpoint {
    let base = config.base_url_in_use().unwrap_or_default();
    let url: http::Uri = base.parse().unwrap_or_default();
    let (scheme, default_port) = Scheme::of(&url);
    let host = url.host().unwrap_or("invalid").trim_matches(['[', ']']).to_owned();
    let port = url.port_u16().unwrap_or(default_port);
    let authority = url.authority().map_or_else(|| host.clone(), ToString::to_string);
    let usual = config.cloud().map_or(Cow::Borrowed(&*vendor.path_prefix), |_| config.path_prefix());
    let prefix = prefix(url.path(), &usual);
    let mut fixed = BytesMut::new();
    for (header, value) in &config.headers {
        fixed.put_slice(format!("{}: {}\r\n", header.to_ascii_lowercase(), value.expose()).as_bytes());
    }
    let lines = lines(&authority, &fixed);
    let head = |operation: Operation| head(operation, &prefix, &lines);
    let heads = Operation::TEXT.map(head);
    let tensors_prefix = kserve::prefix(url.path(), &vendor.path_prefix);
    let at = scheme.name();
    Endpoint {
        provider: name.to_owned(),
        vendor,
        scheme,
        guard: Guard::new(egress, config),
        pool_key: format!("{name}|{at}://{host}:{port}").into(),
        host,
        port,
        authority,
        idle_max: config.pool.idle_max_per_worker,
        idle_time: Duration::from_millis(config.pool.idle_ms),
        tensors_prefix,
        prefix,
        api_version: config.api_version.clone(),
        heads,
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
    head.put_slice(JSON_LINE);
    head.freeze()
}

fn lines(authority: &str, fixed: &[u8]) -> Bytes {
    let mut lines = BytesMut::new();
    lines.put_slice(format!("host: {authority}\r\n").as_bytes());
    lines.put_slice(format!("user-agent: {USER_AGENT}\r\naccept-encoding: identity\r\n").as_bytes());
    lines.put_slice(fixed);
    lines.freeze()
}

impl Endpoint {
    /// The beginning of the head of a request for tensors, of a path below `/v2`.
    pub(super) fn tensors_head(&self, path: &str) -> Bytes {
        let mut head = BytesMut::new();
        head.put_slice(format!("POST {}/v2{path} HTTP/1.1\r\n", self.tensors_prefix).as_bytes());
        head.put_slice(&self.lines);
        head.freeze()
    }

    /// The beginning of the head of every request for an operation, where it is kept ready.
    pub fn head(&self, operation: Operation) -> Option<&[u8]> {
        match operation {
            Operation::Chat => Some(&self.heads[0]),
            Operation::Completion => Some(&self.heads[1]),
            // Those of `kserve` have the path of their model.
            Operation::Infer | Operation::Task(_) => None,
            Operation::Embedding => Some(&self.heads[2]),
            Operation::Response => Some(&self.heads[3]),
        }
    }

    /// Whether it speaks the dialect whose requests need no more than another model's name.
    pub fn speaks_plainly(&self) -> bool {
        self.vendor.dialect.name == OPENAI.name
    }

    /// Writes the beginning of the head of a request to a path below its prefix.
    pub fn write_head(&self, path: &str, head: &mut BytesMut) {
        self.write_head_of("POST", path, head);
        head.put_slice(JSON_LINE);
    }

    /// The same without a content type.
    pub fn write_bare_head(&self, path: &str, head: &mut BytesMut) {
        self.write_head_of("POST", path, head);
    }

    /// The same with another method.
    pub fn write_head_of(&self, method: &str, path: &str, head: &mut BytesMut) {
        head.put_slice(method.as_bytes());
        head.put_slice(b" ");
        head.put_slice(self.prefix.as_bytes());
        head.put_slice(self.versioned(path).as_bytes());
        head.put_slice(b" HTTP/1.1\r\n");
        head.put_slice(&self.lines);
    }

    /// The whole path of a request to a path below its prefix, as [`Self::write_head`] writes it.
    pub fn path_of(&self, path: &str) -> String {
        format!("{}{}", self.prefix, self.versioned(path))
    }

    fn versioned<'p>(&self, path: &'p str) -> Cow<'p, str> {
        let Some(api_version) = &self.api_version else { return Cow::Borrowed(path) };
        azure::with_version(path, api_version)
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::upstream::stream::Stream;

    /// All that there is of this vendor.
    const RECORD: &str = "[[vendor]]\nkind = 'acme'\nbase_url = 'https://llm.acme.example'\n\
                          path_prefix = '/serve/v2'\nauth = 'api_key'\n";

    #[tokio::test]
    async fn a_vendor_that_is_one_record_is_served() {
        let acme: &'static Vendor = Box::leak(Box::new(vendor::read(RECORD).expect("a table").remove(0)));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let port = listener.local_addr().expect("bound").port();
        let config = ProviderConfig {
            base_url: Some(format!("http://127.0.0.1:{port}")),
            ..ProviderConfig::default()
        };
        let endpoint = endpoint_of(acme, "acme", &config, &EgressConfig::default());
        assert_eq!(endpoint.models_path(), "/serve/v2/models");
        let ask = async {
            let (mut stream, _) = Stream::connect(&endpoint).await.expect("it listens");
            let mut head = BytesMut::from(endpoint.head(Operation::Chat).expect("it is kept ready"));
            endpoint.write_auth(&mut head, &endpoint.auth_value("the-key").expect("a header"));
            head.put_slice(b"content-length: 2\r\n\r\n{}");
            stream.write_all(&head).await.expect("sent");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.expect("read");
            answer
        };
        let serve = async {
            let (mut tcp, _) = listener.accept().await.expect("it connects");
            let mut asked = Vec::new();
            while !asked.ends_with(b"{}") {
                tcp.read_buf(&mut asked).await.expect("read");
            }
            tcp.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{}").await.expect("sent");
            String::from_utf8(asked).expect("text")
        };
        let (answer, asked) = tokio::join!(ask, serve);
        assert!(asked.starts_with("POST /serve/v2/chat/completions HTTP/1.1\r\n"), "{asked}");
        assert!(asked.contains("\r\napi-key: the-key\r\n"), "{asked}");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

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
