//! Tokens of Google's service accounts: fetched when one is needed, kept, and fetched anew beside the requests before they
//! end. Whoever has no token waits for it without holding its thread; after a failure nobody waits until the next try.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use http::HeaderValue;
use pointsman_routing::Now;
use pointsman_settings::Secret;
use pointsman_settings::egress::EgressConfig;
use pointsman_settings::providers::ProviderConfig;
use pointsman_wire::vertex::account::{ServiceAccount, Token, TokenError};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use smallvec::smallvec;
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::connection::Call;
use super::stream::Stream;
use super::target::{self, Endpoint};
use crate::clock;
use crate::telemetry::metrics::TokenMetrics;

/// Time for one fetch.
const FETCH_MAX: Duration = Duration::from_secs(10);
/// Bytes of an answer that are read; tokens have a few hundred.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// A token is not used for its last seconds: requests take time to arrive, and clocks differ.
const USED_BEFORE_END_S: u64 = 10;
/// Time after a failure before the next try, and after many in a row.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(60);

/// Why there is no token.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Trouble {
    /// The account's key cannot sign.
    #[error("the service account's key cannot be used: {0}")]
    Key(String),
    /// What came is no token.
    #[error(transparent)]
    Answer(#[from] TokenError),
    /// Nothing came.
    #[error("no access token could be fetched: {0}")]
    Network(String),
}

impl Trouble {
    /// Whether the account itself is refused, so that another try would end alike.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Key(_) => true,
            Self::Answer(TokenError::Refused { status, .. }) => matches!(status, 400 | 401 | 403),
            Self::Answer(TokenError::Missing(_)) | Self::Network(_) => false,
        }
    }
}

/// The tokens of one account.
pub struct Tokens {
    provider: String,
    credential: String,
    account: ServiceAccount,
    /// Where tokens are fetched, and at which path.
    endpoint: Endpoint,
    path: String,
    known: watch::Sender<Known>,
    metrics: TokenMetrics,
}

/// What is known of an account's tokens.
#[derive(Default)]
struct Known {
    token: Option<Held>,
    trouble: Option<Trouble>,
    /// Fetches in a row that failed.
    failures: u32,
    /// No fetch begins before.
    again_at: Now,
    fetching: bool,
}

struct Held {
    value: HeaderValue,
    token: Token,
}

impl Known {
    fn usable(&self, now_unix_s: u64) -> Option<&HeaderValue> {
        let held = self.token.as_ref()?;
        (now_unix_s + USED_BEFORE_END_S < held.token.expires_unix_s).then_some(&held.value)
    }

    /// What may be used now, and whether whoever asks has to fetch the next.
    fn look(&mut self, now_unix_s: u64, now: Now) -> (Option<HeaderValue>, bool) {
        let due = self.token.as_ref().is_none_or(|held| held.token.is_due(now_unix_s));
        let begins = due && !self.fetching && now >= self.again_at;
        self.fetching |= begins;
        (self.usable(now_unix_s).cloned(), begins)
    }

    /// Takes in what came of a fetch. A failure leaves the last token in force for as long as it is good.
    fn learn(&mut self, fetched: Result<Held, Trouble>, now: Now) {
        self.fetching = false;
        match fetched {
            Ok(held) => *self = Self { token: Some(held), ..Self::default() },
            Err(trouble) => {
                let after = AGAIN_AFTER * 2_u32.saturating_pow(self.failures);
                self.failures = self.failures.saturating_add(1);
                self.again_at = now + after.min(AGAIN_AFTER_MAX);
                self.trouble = Some(trouble);
            }
        }
    }
}

/// A fetch under way. One that is given up with its thread leaves the way free for another.
struct Fetching {
    tokens: Arc<Tokens>,
    done: bool,
}

impl Fetching {
    async fn run(mut self) {
        self.tokens.fetch().await;
        self.done = true;
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        if !self.done {
            let given_up = Trouble::Network("the fetch was given up".to_owned());
            self.tokens.known.send_modify(|known| known.learn(Err(given_up), clock::now()));
        }
    }
}

impl Tokens {
    /// The tokens of an account; `None` for what the settings would not have let through.
    pub fn new(
        provider: &str,
        config: &ProviderConfig,
        credential: &str,
        account: &Secret,
        egress: &EgressConfig,
        metrics: TokenMetrics,
    ) -> Option<Self> {
        let account = ServiceAccount::parse(account.expose()).ok()?;
        let uri = config.token_uri.as_deref().unwrap_or(&account.token_uri);
        let parsed: http::Uri = uri.parse().ok()?;
        let path = parsed.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let origin = format!("{}://{}", parsed.scheme_str()?, parsed.authority()?);
        // Neither keys nor headers: these are for the provider's own host.
        let there = ProviderConfig {
            base_url: Some(origin),
            keys: Vec::new(),
            headers: Default::default(),
            ..config.clone()
        };
        Some(Self {
            provider: provider.to_owned(),
            credential: credential.to_owned(),
            account,
            endpoint: target::endpoint(provider, &there, egress),
            path,
            known: watch::Sender::default(),
            metrics,
        })
    }

    /// Whether these are the tokens of the same account from the same place.
    pub fn is_same(&self, other: &Self) -> bool {
        self.account == other.account
            && self.endpoint.pool_key == other.endpoint.pool_key
            && self.path == other.path
            && self.credential == other.credential
    }

    /// The header's value of the moment, if there is one; begins to fetch the next where it is time for that.
    pub fn current(self: &Arc<Self>) -> Option<HeaderValue> {
        let (now_unix_s, now) = (clock::unix_ms() / 1000, clock::now());
        let mut looked = (None, false);
        self.known.send_if_modified(|known| {
            looked = known.look(now_unix_s, now);
            false
        });
        let (value, begins) = looked;
        if begins {
            tokio::spawn(Fetching { tokens: Arc::clone(self), done: false }.run());
        }
        value
    }

    /// Waits for a token that is being fetched; says at once why none is to come.
    ///
    /// # Errors
    /// When the last fetch failed, and the next one is not due.
    pub async fn ready(&self) -> Result<(), Trouble> {
        let mut known = self.known.subscribe();
        loop {
            {
                let known = known.borrow_and_update();
                if known.usable(clock::unix_ms() / 1000).is_some() {
                    return Ok(());
                }
                if !known.fetching {
                    let nothing = || Trouble::Network("the last one was refused".to_owned());
                    return Err(known.trouble.clone().unwrap_or_else(nothing));
                }
            }
            if known.changed().await.is_err() {
                return Err(Trouble::Network("the process stops".to_owned()));
            }
        }
    }

    /// The provider refused a token before its time: it is not used again.
    pub fn refuse(&self, value: &HeaderValue) {
        self.known.send_if_modified(|known| {
            let refused = known.token.as_ref().is_some_and(|held| held.value == *value);
            if refused {
                known.token = None;
            }
            refused
        });
    }

    async fn fetch(self: &Arc<Self>) {
        let asked = timeout(FETCH_MAX, self.ask()).await;
        let late = || Err(Trouble::Network(format!("no answer within {} s", FETCH_MAX.as_secs())));
        let fetched = asked.unwrap_or_else(|_| late()).and_then(|token| {
            if token.expires_unix_s <= clock::unix_ms() / 1000 + USED_BEFORE_END_S {
                return Err(Trouble::Network("it ends as soon as it came".to_owned()));
            }
            let value = self.endpoint.auth_value(&token.access_token);
            Ok(Held { value: value.ok_or(TokenError::Missing("access_token"))?, token })
        });
        let (provider, credential) = (&self.provider, &self.credential);
        match &fetched {
            Ok(held) => {
                self.metrics.fetched.inc();
                self.metrics.expires_unix_s.set(held.token.expires_unix_s as i64);
                tracing::debug!(provider, credential, "a new access token");
            }
            Err(trouble) => {
                let refused = trouble.is_final();
                if refused { &self.metrics.refused } else { &self.metrics.failed }.inc();
                tracing::warn!(provider, credential, error = %trouble, "no new access token; the last one is used while it is good");
            }
        }
        self.known.send_modify(|known| known.learn(fetched, clock::now()));
    }

    async fn ask(self: &Arc<Self>) -> Result<Token, Trouble> {
        let now_unix_s = clock::unix_ms() / 1000;
        let this = Arc::clone(self);
        // A signature takes a millisecond or more, which is long for a thread that serves others.
        let body =
            spawn_blocking(move || this.account.token_request(now_unix_s, |input| this.signature(input)));
        let body = body.await.map_err(|error| Trouble::Network(error.to_string()))??;
        let failed = |error: &dyn std::fmt::Display| Trouble::Network(error.to_string());
        let (stream, _) = Stream::connect(&self.endpoint).await.map_err(|error| failed(&error))?;
        let head = format!(
            "POST {} HTTP/1.1\r\nhost: {}\r\nuser-agent: {}\r\nconnection: close\r\naccept: application/json\r\n\
             content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n",
            self.path,
            self.endpoint.authority,
            target::USER_AGENT,
            body.len()
        );
        let mut call = Call::new(stream, smallvec![head.into(), body.into()]);
        let head = poll_fn(|cx| call.poll_head(cx)).await.map_err(|error| failed(&error))?;
        let mut answer = BytesMut::new();
        while answer.len() < ANSWER_BYTES_MAX
            && let Some(data) = poll_fn(|cx| call.poll_data(cx)).await
        {
            answer.extend_from_slice(&data.map_err(|error| failed(&error))?);
        }
        let answer = String::from_utf8_lossy(&answer);
        Ok(Token::parse(head.status.as_u16(), &answer, now_unix_s)?)
    }

    fn signature(&self, input: &[u8]) -> Result<Vec<u8>, Trouble> {
        let key = RsaKeyPair::from_pkcs8(self.account.key_pkcs8())
            .map_err(|error| Trouble::Key(format!("it is no RSA key of 2048 to 4096 bits ({error})")))?;
        let mut signature = vec![0; key.public().modulus_len()];
        let signed = key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), input, &mut signature);
        signed.map_err(|_| Trouble::Key("it does not sign".to_owned()))?;
        Ok(signature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(expires_unix_s: u64) -> Held {
        let token = Token { access_token: "t".to_owned(), expires_unix_s };
        Held { value: HeaderValue::from_static("Bearer t"), token }
    }

    fn at(s: u64) -> Now {
        Now::ZERO + Duration::from_secs(s)
    }

    #[test]
    fn one_fetches_the_others_use_what_there_is() {
        let mut known = Known::default();
        assert_eq!(known.look(1_000, at(0)), (None, true), "the first fetches");
        assert_eq!(known.look(1_000, at(0)), (None, false), "the next waits");
        known.learn(Ok(held(4_600)), at(0));
        let value = Some(HeaderValue::from_static("Bearer t"));
        assert_eq!(known.look(4_299, at(1)), (value.clone(), false));
        assert_eq!(known.look(4_300, at(2)), (value.clone(), true), "five minutes before its end");
        assert_eq!(known.look(4_300, at(2)), (value.clone(), false));
        known.learn(Err(Trouble::Network("gone".to_owned())), at(2));
        assert_eq!(
            known.look(4_580, at(2)),
            (value, false),
            "a failure leaves it in force, and is not repeated at once"
        );
        assert_eq!(known.look(4_590, at(2)), (None, false), "until it ends");
    }

    #[test]
    fn failures_are_repeated_ever_more_slowly() {
        let mut known = Known::default();
        let mut now = 0;
        for wait in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(known.look(0, at(now)), (None, true));
            known.learn(Err(Trouble::Network("gone".to_owned())), at(now));
            assert_eq!(known.look(0, at(now + wait - 1)), (None, false), "{wait}");
            now += wait;
        }
        assert!(known.look(0, at(now)).1);
        known.learn(Ok(held(9_000)), at(now));
        assert!(known.trouble.is_none() && known.failures == 0);
    }

    #[test]
    fn only_what_speaks_of_the_account_is_final() {
        let refused = |status| Trouble::Answer(TokenError::Refused { status, message: String::new() });
        assert!(refused(400).is_final() && refused(401).is_final());
        assert!(!refused(429).is_final() && !refused(503).is_final());
        assert!(!Trouble::Network("x".to_owned()).is_final() && Trouble::Key("x".to_owned()).is_final());
    }
}
