//! Counters of the access tokens that are fetched for service accounts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::Metrics;
use super::labels::{Kind, Labels, Series};

/// Labels: a credential and what came of a fetch for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FetchLabels {
    provider: String,
    credential: String,
    result: &'static str,
}

/// Labels: a credential.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TokenLabels {
    provider: String,
    credential: String,
}

/// The counters.
#[derive(Default)]
pub(super) struct TokenCounters {
    fetched: Series<FetchLabels, Counter>,
    expires: Series<TokenLabels, Gauge>,
}

/// Handles of one credential.
pub struct TokenMetrics {
    /// Tokens that came.
    pub fetched: Counter,
    /// Fetches at which the account was refused.
    pub refused: Counter,
    /// Fetches that failed otherwise.
    pub failed: Counter,
    /// When the last token ends.
    pub expires_unix_s: Gauge,
}

impl TokenCounters {
    pub(super) fn register(&self, r: &mut Registry) {
        r.register(
            "pointsman_access_tokens",
            "Fetches of access tokens for service accounts, by what came of them: fetched, refused or failed",
            self.fetched.family.clone(),
        );
        r.register(
            "pointsman_access_token_expires_unix_seconds",
            "When the newest access token ends; 0 before the first",
            self.expires.family.clone(),
        );
    }

    /// Forgets the series of credentials that are gone.
    pub(super) fn retain(&self, labels: &Labels) {
        let keeps = |provider: &str, credential: &str| {
            labels.keeps(Kind::Provider, provider) && labels.keeps(Kind::Credential, credential)
        };
        self.fetched.retain(|series| keeps(&series.provider, &series.credential));
        self.expires.retain(|series| keeps(&series.provider, &series.credential));
    }
}

impl Metrics {
    /// The handles of a credential that tokens are fetched for.
    pub fn tokens(&self, provider: &str, credential: &str) -> TokenMetrics {
        let provider = self.labels.value(Kind::Provider, provider);
        let credential = self.labels.value(Kind::Credential, credential);
        let fetch = |result| {
            let labels = FetchLabels { provider: provider.clone(), credential: credential.clone(), result };
            self.tokens_fetched.fetched.get(&labels)
        };
        TokenMetrics {
            fetched: fetch("fetched"),
            refused: fetch("refused"),
            failed: fetch("failed"),
            expires_unix_s: self
                .tokens_fetched
                .expires
                .get(&TokenLabels { provider: provider.clone(), credential: credential.clone() }),
        }
    }
}
