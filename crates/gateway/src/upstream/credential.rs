//! What lets requests in at a provider: a key in a header, a signature of each request, or a token that is fetched.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderValue;
use pointsman_settings::clouds::CredentialForm;
use pointsman_settings::egress::EgressConfig;
use pointsman_settings::providers::{CredentialConfig, ProviderConfig};
use pointsman_wire::sigv4::{self, PathStyle, PayloadHash, Scope};

use super::target::{CONTENT_TYPE, Endpoint};
use super::token::Tokens;
use crate::telemetry::metrics::Metrics;

/// What lets requests in.
pub enum Credential {
    /// The value of the header that the vendor wants.
    Header(HeaderValue),
    /// A key of AWS, which signs each request.
    Aws(AwsKey),
    /// An account of Google's, which is given tokens.
    Google(Arc<Tokens>),
}

/// A key of AWS and what it signs for.
pub struct AwsKey {
    key: sigv4::Credentials,
    region: String,
    service: &'static str,
}

/// What is sent, as far as it is signed.
pub struct Sent<'a> {
    /// The path below the provider's prefix, query included.
    pub path: &'a str,
    /// The body.
    pub body: &'a [Bytes],
    /// The time, in seconds since the Unix epoch.
    pub now_unix_s: u64,
}

impl Credential {
    /// A credential made ready for requests to `endpoint`; `None` for what the settings would not have let through.
    pub fn of(
        endpoint: &Endpoint,
        provider: &ProviderConfig,
        (name, config): (&str, &CredentialConfig),
        egress: &EgressConfig,
        metrics: &Metrics,
    ) -> Option<Self> {
        Some(match config.form().ok()? {
            CredentialForm::Key(key) => Self::Header(endpoint.auth_value(key.expose())?),
            CredentialForm::Aws(key) => {
                let service = provider.cloud()?.signing_service()?;
                Self::Aws(AwsKey { key, region: provider.location.clone()?, service })
            }
            CredentialForm::ServiceAccount(account) => {
                let handles = metrics.tokens(&endpoint.provider, name);
                Self::Google(Arc::new(Tokens::new(
                    &endpoint.provider,
                    provider,
                    name,
                    account,
                    egress,
                    handles,
                )?))
            }
        })
    }

    /// The tokens, where it is those.
    pub fn tokens(&self) -> Option<&Arc<Tokens>> {
        match self {
            Self::Google(tokens) => Some(tokens),
            Self::Header(_) | Self::Aws(_) => None,
        }
    }

    /// Writes the signature of a request, if it signs. Nothing that is signed may be changed any more.
    pub fn sign(&self, head: &mut BytesMut, endpoint: &Endpoint, sent: &Sent<'_>) {
        match self {
            Self::Aws(key) => key.sign(head, endpoint, sent),
            Self::Header(_) | Self::Google(_) => {}
        }
    }
}

impl AwsKey {
    fn sign(&self, head: &mut BytesMut, endpoint: &Endpoint, sent: &Sent<'_>) {
        let path = endpoint.path_of(sent.path);
        let (path, query) = path.split_once('?').unwrap_or((&path, ""));
        let mut payload = PayloadHash::default();
        sent.body.iter().for_each(|part| payload.update(part));
        let request = sigv4::Request {
            method: "POST",
            path,
            query,
            headers: &[("host", &endpoint.authority), ("content-type", CONTENT_TYPE)],
            payload: payload.finish(),
            path_style: PathStyle::EncodedAgain,
        };
        let scope = Scope { region: &self.region, service: self.service };
        for (name, value) in sigv4::sign(&self.key, scope, sent.now_unix_s, &request).headers() {
            head.put_slice(name.as_bytes());
            head.put_slice(b": ");
            head.put_slice(value.as_bytes());
            head.put_slice(b"\r\n");
        }
    }
}
