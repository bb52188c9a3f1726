//! Providers in clouds: where they are by their location and project, and credentials that are more than one key.

use std::borrow::Cow;

use pointsman_wire::cloud::Cloud;
use pointsman_wire::sigv4;
use pointsman_wire::vendor::{self, Vendor};
use pointsman_wire::vertex;
use xxhash_rust::xxh3::xxh3_64;

use crate::providers::{CredentialConfig, ProviderConfig};
use crate::secret::Secret;

/// What a credential is made of.
#[derive(Debug, Clone)]
pub enum CredentialForm<'c> {
    /// One key, for a header.
    Key(&'c Secret),
    /// What signs requests to AWS.
    Aws(sigv4::Credentials),
    /// Google's key file of a service account, which tokens are given for.
    ServiceAccount(&'c Secret),
}

impl CredentialConfig {
    /// What it is made of; an error says what is missing or too much.
    pub fn form(&self) -> Result<CredentialForm<'_>, &'static str> {
        let aws = (self.access_key_id.as_ref(), self.secret_access_key.as_ref());
        match (self.key.as_ref(), aws, self.service_account.as_ref()) {
            (Some(key), (None, None), None) if self.session_token.is_none() => Ok(CredentialForm::Key(key)),
            (None, (Some(id), Some(secret)), None) => Ok(CredentialForm::Aws(sigv4::Credentials {
                access_key_id: id.expose().to_owned(),
                secret_access_key: secret.expose().to_owned(),
                session_token: self.session_token().map(str::to_owned),
            })),
            (None, (None, None), Some(account)) if self.session_token.is_none() => {
                Ok(CredentialForm::ServiceAccount(account))
            }
            (None, (None, None), None) => Err("`key` is missing"),
            (None, (None, Some(_)), None) => Err("`access_key_id` is missing"),
            (None, (Some(_), None), None) => Err("`secret_access_key` is missing"),
            (_, _, _) => Err(
                "is several credentials at once: give `key`, or `access_key_id` and `secret_access_key` with or without \
                 `session_token`, or `service_account`",
            ),
        }
    }

    /// The session's token; an empty one is none, so that a variable may be unset.
    fn session_token(&self) -> Option<&str> {
        self.session_token.as_ref().map(Secret::expose).filter(|token| !token.is_empty())
    }

    /// All that must not be shown, with the keys that it stands at.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let parts = [
            ("key", &self.key),
            ("access_key_id", &self.access_key_id),
            ("secret_access_key", &self.secret_access_key),
            ("session_token", &self.session_token),
            ("service_account", &self.service_account),
        ];
        parts.into_iter().filter_map(|(name, secret)| Some((name, secret.as_ref()?.expose())))
    }

    /// A number that differs from that of every other secret.
    pub(crate) fn revision(&self) -> u64 {
        let all: Vec<u8> =
            self.secrets().flat_map(|(_, secret)| [secret.as_bytes(), b"\0"].concat()).collect();
        xxh3_64(&all)
    }
}

impl ProviderConfig {
    fn vendor(&self) -> Option<&'static Vendor> {
        vendor::vendor(&self.kind).ok()
    }

    /// The cloud it is part of.
    pub fn cloud(&self) -> Option<Cloud> {
        self.vendor()?.cloud
    }

    /// Where it is: what is configured, or else what its location or its kind says.
    pub fn base_url_in_use(&self) -> Option<Cow<'_, str>> {
        let by_location = || self.cloud()?.base_url(self.location.as_deref()?).map(Cow::Owned);
        let by_kind = || self.vendor()?.base_url.as_deref().map(Cow::Borrowed);
        self.base_url.as_deref().map(Cow::Borrowed).or_else(by_location).or_else(by_kind)
    }

    /// What precedes the paths of its operations.
    pub fn path_prefix(&self) -> Cow<'static, str> {
        match (self.cloud(), &self.project, &self.location) {
            (Some(Cloud::Vertex), Some(project), Some(location)) => {
                Cow::Owned(vertex::path_prefix(project, location))
            }
            (Some(Cloud::Vertex | Cloud::Bedrock | Cloud::Azure) | None, _, _) => {
                self.vendor().map_or(Cow::Borrowed("/v1"), |vendor| Cow::Borrowed(&*vendor.path_prefix))
            }
        }
    }
}
