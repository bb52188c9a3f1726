//! Who asks: client keys, looked up by digest and compared in constant time.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderMap, Uri, header};
use pointsman_routing::catalog::Name;
use pointsman_routing::facts::{Class, Lane};
use pointsman_settings::auth::{AuthConfig, ClassName, Hint, KeyConfig, LaneName};
use pointsman_wire::openai::error::ErrorBody;
use ring::digest;
use rustc_hash::FxHashMap;
use subtle::ConstantTimeEq;
use xxhash_rust::xxh3::xxh3_64;

use super::route::query_has_key;

/// Bytes a key may have; longer ones are not even hashed.
const KEY_BYTES_MAX: usize = 4096;
/// The headers that carry a key, whatever dialect the client speaks.
const CARRIERS: [&str; 3] = ["x-api-key", "api-key", "x-goog-api-key"];

/// A SHA-256 digest.
pub type Digest = [u8; 32];

/// A client that may ask.
#[derive(Debug, Clone)]
pub struct ClientKey {
    /// The key's name; `None` for the anonymous client of a gateway without keys.
    pub name: Option<Name>,
    /// Who it belongs to.
    pub tenant: Name,
    /// Hash of the tenant's name; salts every hash of the tenant's sessions and prompts.
    pub tenant_hash: u64,
    /// Patterns of the models it may use; `None`: all.
    models: Option<Vec<String>>,
    /// The hints it may set.
    hints: Vec<Hint>,
    /// Whether its requests may name other models to try.
    pub may_fallback: bool,
    /// The lane of its traffic where a request does not say, if it has one.
    pub lane: Option<Lane>,
    /// The class of its requests where they do not say, if it has one.
    pub class: Option<Class>,
    /// The highest class that its requests may have.
    pub class_max: Class,
}

impl ClientKey {
    /// Whether the key may use the model.
    pub fn may_use(&self, model: &str) -> bool {
        self.models.as_ref().is_none_or(|patterns| patterns.iter().any(|pattern| matches(pattern, model)))
    }

    /// Whether the key's tenant may set the hint.
    pub fn may_hint(&self, hint: Hint) -> bool {
        self.hints.contains(&hint)
    }

    /// A client of `tenant` that may use everything, for "what if" questions of an operator.
    pub fn operator(tenant: &str) -> Self {
        Self {
            name: None,
            tenant: tenant.into(),
            tenant_hash: xxh3_64(tenant.as_bytes()),
            models: None,
            hints: Hint::ALL.to_vec(),
            may_fallback: true,
            lane: None,
            class: None,
            class_max: Class::System,
        }
    }

    /// The same client, whose requests are in that lane.
    #[must_use]
    pub fn in_lane(&self, lane: Lane) -> Self {
        Self { lane: Some(lane), ..self.clone() }
    }

    fn new(config: &KeyConfig) -> Self {
        let tenant = config.tenant();
        Self {
            name: Some(config.name.as_str().into()),
            tenant: tenant.into(),
            tenant_hash: xxh3_64(tenant.as_bytes()),
            models: config.models.clone(),
            hints: config.hints(),
            may_fallback: config.may_fallback,
            lane: config.lane.map(LaneName::lane),
            class: config.priority.map(ClassName::class),
            class_max: config.class_max(),
        }
    }
}

/// The key that was accepted last on a connection. Nearly every client sends the same one again, which then takes one
/// comparison in constant time instead of a digest.
#[derive(Default)]
pub struct Recognised(RefCell<Option<Known>>);

struct Known {
    /// Of the [`Keys`] that knew it.
    keys_id: u64,
    key: Vec<u8>,
    client: Arc<ClientKey>,
}

impl Recognised {
    fn client_of(&self, keys_id: u64, key: &[u8]) -> Option<Arc<ClientKey>> {
        let known = self.0.borrow();
        let known = known.as_ref().filter(|known| known.keys_id == keys_id)?;
        bool::from(known.key.ct_eq(key)).then(|| Arc::clone(&known.client))
    }

    fn note(&self, keys_id: u64, key: &[u8], client: &Arc<ClientKey>) {
        *self.0.borrow_mut() = Some(Known { keys_id, key: key.to_vec(), client: Arc::clone(client) });
    }
}

/// All client keys, and the keys of the admin API.
#[derive(Debug)]
pub struct Keys {
    /// Tells these keys from those before a reload.
    id: u64,
    clients: FxHashMap<Digest, Arc<ClientKey>>,
    admins: FxHashMap<Digest, Name>,
    /// Who everybody is when no keys are configured (loopback only; the settings see to that).
    anonymous: Option<Arc<ClientKey>>,
}

impl Keys {
    /// The keys of a configuration.
    pub fn new(config: &AuthConfig) -> Self {
        static BUILT: AtomicU64 = AtomicU64::new(0);
        let clients: FxHashMap<_, _> = config
            .keys
            .iter()
            .filter_map(|key| Some((key_digest(key.secret(), key.sha256())?, Arc::new(ClientKey::new(key)))))
            .collect();
        let admins = config
            .admin_keys
            .iter()
            .filter_map(|key| Some((key_digest(key.secret(), key.sha256())?, key.name.as_str().into())))
            .collect();
        // Without keys there is nobody who was allowed to be before everybody.
        let anyone = || ClientKey { class_max: Class::Interactive, ..ClientKey::operator("anonymous") };
        let anonymous = config.keys.is_empty().then(|| Arc::new(anyone()));
        Self { id: BUILT.fetch_add(1, Ordering::Relaxed), clients, admins, anonymous }
    }

    /// The client that a request comes from; `recognised` is what is kept of its connection's last request.
    pub fn authenticate(
        &self,
        headers: &HeaderMap,
        uri: &Uri,
        recognised: &Recognised,
    ) -> Result<Arc<ClientKey>, ErrorBody> {
        if query_has_key(uri) {
            let text = "keys in the query end up in logs; send yours as `authorization: Bearer KEY`";
            return Err(ErrorBody::malformed(text));
        }
        let presented = presented(headers)?;
        if let Some(anonymous) = &self.anonymous {
            return Ok(Arc::clone(anonymous));
        }
        let Some(key) = presented else {
            return Err(ErrorBody::bad_key("no key was sent; send yours as `authorization: Bearer KEY`"));
        };
        if let Some(client) = recognised.client_of(self.id, key) {
            return Ok(client);
        }
        let digest = sha256(key);
        // Unknown and wrong keys take the same path: one hash, one lookup by digest, one comparison.
        let found = self.clients.get_key_value(&digest);
        let (known, client) = found.map_or((&[0; 32], None), |(known, client)| (known, Some(client)));
        match (bool::from(known.ct_eq(&digest)), client) {
            (true, Some(client)) => {
                recognised.note(self.id, key, client);
                Ok(Arc::clone(client))
            }
            (true | false, _) => Err(ErrorBody::bad_key("the key is not known to this gateway")),
        }
    }

    /// The client that asked before under the key of that name, if there still is one and it belongs to that tenant.
    pub fn client(&self, name: Option<&str>, tenant: &str) -> Option<&Arc<ClientKey>> {
        let mut known = self.clients.values().chain(&self.anonymous);
        known.find(|client| client.name.as_deref() == name && &*client.tenant == tenant)
    }

    /// Whether admin keys are configured.
    pub fn has_admins(&self) -> bool {
        !self.admins.is_empty()
    }

    /// The name of the admin key that a request carries.
    pub fn authenticate_admin(&self, headers: &HeaderMap) -> Option<Name> {
        let digest = sha256(presented(headers).ok()??);
        let (known, name) = self.admins.get_key_value(&digest)?;
        bool::from(known.ct_eq(&digest)).then(|| Name::clone(name))
    }

    /// Whether a request carries a key of a client, which opens nothing on the admin API.
    pub fn is_client(&self, headers: &HeaderMap) -> bool {
        presented(headers).ok().flatten().is_some_and(|key| self.clients.contains_key(&sha256(key)))
    }
}

/// The SHA-256 digest of a key.
pub fn sha256(key: &[u8]) -> Digest {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest::digest(&digest::SHA256, key).as_ref());
    bytes
}

fn key_digest(secret: Option<&str>, hash: Option<Digest>) -> Option<Digest> {
    hash.or_else(|| secret.map(|secret| sha256(secret.as_bytes())))
}

/// The one key a request carries, on whatever header. Two different ones are an error: nobody can say which counts.
fn presented(headers: &HeaderMap) -> Result<Option<&[u8]>, ErrorBody> {
    let mut found: Option<&[u8]> = None;
    // One pass over the few headers there are is faster than a lookup for each carrier.
    for (name, value) in headers {
        let value = value.as_bytes();
        let key = if *name == header::AUTHORIZATION {
            let scheme = value.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"bearer "));
            if scheme { value[7..].trim_ascii() } else { value }
        } else if CARRIERS.contains(&name.as_str()) {
            value
        } else {
            continue;
        };
        if key.len() > KEY_BYTES_MAX {
            return Err(ErrorBody::bad_key("the key is not known to this gateway"));
        }
        if !key.is_empty() && found.is_some_and(|other| other != key) {
            return Err(ErrorBody::malformed("the request carries two different keys; send one"));
        }
        found = found.or(Some(key).filter(|key| !key.is_empty()));
    }
    Ok(found)
}

/// Whether `name` fits `pattern`, in which `*` stands for anything.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(name) = name.strip_prefix(first) else { return false };
    if !rest.contains('*') {
        return name.ends_with(rest);
    }
    // Several stars: try every place where the next part can begin. Patterns are the operator's own and short.
    (0..=name.len()).filter(|at| name.is_char_boundary(*at)).any(|at| matches(rest, &name[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(*name, value.parse().expect("header value"));
        }
        map
    }

    #[test]
    fn h5_every_carrier_is_the_same_and_two_keys_are_none() {
        let one = |lines: &[(&'static str, &str)]| {
            presented(&headers(lines)).map(|key| key.map(<[u8]>::to_vec)).map_err(|e| e.status)
        };
        for carrier in CARRIERS {
            assert_eq!(one(&[(carrier, "abc")]), Ok(Some(b"abc".to_vec())), "{carrier}");
        }
        assert_eq!(one(&[("authorization", "bearer abc")]), Ok(Some(b"abc".to_vec())));
        assert_eq!(one(&[("authorization", "Bearer abc"), ("x-api-key", "abc")]), Ok(Some(b"abc".to_vec())));
        assert_eq!(one(&[("authorization", "Bearer abc"), ("x-api-key", "abd")]), Err(400));
        assert_eq!(one(&[("x-api-key", "abc"), ("x-api-key", "abd")]), Err(400));
        assert_eq!(one(&[]), Ok(None));
    }

    #[test]
    fn h5_what_a_connection_is_recognised_by_holds_for_its_key_and_configuration_alone() {
        let keys = |secret: &str| {
            let auth = serde_json::json!({"keys": [{"name": "one", "key": secret}]});
            Keys::new(&serde_json::from_value(auth).expect("a configuration"))
        };
        let (first, recognised) = (keys("a-key-that-is-long-enough"), Recognised::default());
        let ask = |keys: &Keys, secret: &str| {
            let sent = headers(&[("x-api-key", secret)]);
            keys.authenticate(&sent, &Uri::from_static("/"), &recognised).map_err(|error| error.status)
        };
        assert_eq!(ask(&first, "a-key-that-is-wrong-enough").err(), Some(401));
        for _ in 0..2 {
            let client = ask(&first, "a-key-that-is-long-enough").expect("known");
            assert_eq!(client.name.as_deref(), Some("one"));
        }
        assert_eq!(ask(&first, "a-key-that-is-long-enougi").err(), Some(401));
        assert_eq!(ask(&first, "a-key-that-is-long-enoug").err(), Some(401));
        let reloaded = keys("another-key-long-enough");
        assert_eq!(ask(&reloaded, "a-key-that-is-long-enough").err(), Some(401), "it was taken back");
        assert!(ask(&reloaded, "another-key-long-enough").is_ok());
    }

    #[test]
    fn patterns_match_as_people_expect() {
        for (pattern, name, expected) in [
            ("llama", "llama", true),
            ("llama", "llama-3", false),
            ("llama-*", "llama-3", true),
            ("*", "", true),
            ("*-mini", "gpt-4o-mini", true),
            ("gpt-*-mini", "gpt-4o-mini", true),
            ("gpt-*-mini", "gpt-mini", false),
            ("*o*", "gpt-4o-mini", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
