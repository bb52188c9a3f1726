//! Service accounts of Google: how a key becomes a token. The signature and the sending are passed in or left to others.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use crate::json::tree::Tree;
use crate::json::write::object;

/// Where tokens are given, unless the account says otherwise.
pub const TOKEN_URI: &str = "https://oauth2.googleapis.com/token";
/// What a token is to be good for: all of Google Cloud that the account may use.
pub const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
/// How long an assertion is valid: as long as Google allows.
const VALID_S: u64 = 3_600;
/// A token is replaced this long before it ends.
pub const REFRESH_BEFORE_S: u64 = 300;

const ACCOUNT_BYTES_MAX: usize = 64 << 10;
const DEPTH_MAX: usize = 16;

/// Why a text is no service account.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    /// It is no JSON object.
    #[error("the service account is no JSON object; use the key file as Google Cloud gives it")]
    NotJson,
    /// A field is absent or empty.
    #[error("the service account has no `{0}`; use the key file as Google Cloud gives it")]
    Missing(&'static str),
    /// A field has a value that cannot be used.
    #[error("the service account's `{field}` cannot be used: {why}")]
    Unusable {
        /// The field.
        field: &'static str,
        /// Why, without its value.
        why: &'static str,
    },
}

/// A service account with its key.
#[derive(Clone, PartialEq, Eq)]
pub struct ServiceAccount {
    /// Who it is.
    pub client_email: String,
    /// The project that it belongs to.
    pub project_id: Option<String>,
    /// The key's id.
    pub key_id: Option<String>,
    /// Where it gets its tokens.
    pub token_uri: String,
    /// The key: PKCS #8, DER.
    key: Vec<u8>,
}

impl fmt::Debug for ServiceAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceAccount").field("client_email", &self.client_email).finish_non_exhaustive()
    }
}

impl ServiceAccount {
    /// Reads a key file.
    pub fn parse(text: &str) -> Result<Self, AccountError> {
        if text.len() > ACCOUNT_BYTES_MAX {
            return Err(AccountError::NotJson);
        }
        let tree = Tree::parse(text, DEPTH_MAX).map_err(|_| AccountError::NotJson)?;
        if tree.kind() != crate::json::Kind::Object {
            return Err(AccountError::NotJson);
        }
        let optional = |name: &str| {
            tree.get(name).and_then(Tree::text).filter(|text| !text.is_empty()).map(str::to_owned)
        };
        let wanted = |name: &'static str| optional(name).ok_or(AccountError::Missing(name));
        if wanted("type")? != "service_account" {
            let why = "it is not `service_account`; other kinds of credentials have no key";
            return Err(AccountError::Unusable { field: "type", why });
        }
        let token_uri = optional("token_uri").unwrap_or_else(|| TOKEN_URI.to_owned());
        if !is_googles(&token_uri) {
            let why = "it is not `https` at a host of googleapis.com";
            return Err(AccountError::Unusable { field: "token_uri", why });
        }
        Ok(Self {
            client_email: wanted("client_email")?,
            project_id: optional("project_id"),
            key_id: optional("private_key_id"),
            token_uri,
            key: der(&wanted("private_key")?)?,
        })
    }

    /// The key as PKCS #8 in DER, for whoever signs.
    pub fn key_pkcs8(&self) -> &[u8] {
        &self.key
    }

    /// What is signed: the header and the claims of the assertion.
    pub fn signing_input(&self, now_unix_s: u64) -> String {
        let header = object(|it| {
            it.text("alg", "RS256").text("typ", "JWT").text_if("kid", self.key_id.as_deref());
        });
        let claims = object(|it| {
            it.text("iss", &self.client_email).text("scope", SCOPE).text("aud", &self.token_uri);
            it.count("iat", now_unix_s).count("exp", now_unix_s.saturating_add(VALID_S));
        });
        format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims))
    }

    /// The body of the request for a token (`application/x-www-form-urlencoded`). `sign` gives the RSA signature of what it
    /// is given, PKCS #1 v1.5 over SHA-256.
    pub fn token_request<E>(
        &self,
        now_unix_s: u64,
        sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>,
    ) -> Result<String, E> {
        let input = self.signing_input(now_unix_s);
        let signature = URL_SAFE_NO_PAD.encode(sign(input.as_bytes())?);
        let grant = "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer";
        Ok(format!("grant_type={grant}&assertion={input}.{signature}"))
    }
}

/// A key only ever goes to Google.
fn is_googles(uri: &str) -> bool {
    let Some(rest) = uri.strip_prefix("https://") else { return false };
    let host = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
    let sound = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'));
    sound && (host == "accounts.google.com" || host.ends_with(".googleapis.com"))
}

/// What stands between the lines of a PEM text.
fn der(pem: &str) -> Result<Vec<u8>, AccountError> {
    let unusable = |why| AccountError::Unusable { field: "private_key", why };
    let body = pem
        .split_once("-----BEGIN PRIVATE KEY-----")
        .and_then(|(_, rest)| rest.split_once("-----END PRIVATE KEY-----"))
        .map(|(body, _)| body)
        .ok_or_else(|| unusable("it is no PEM text of a PKCS #8 key (`BEGIN PRIVATE KEY`)"))?;
    let base64: String = body.chars().filter(|character| !character.is_ascii_whitespace()).collect();
    let der = STANDARD.decode(base64).map_err(|_| unusable("its Base64 is broken"))?;
    if der.is_empty() { Err(unusable("it is empty")) } else { Ok(der) }
}

/// A token.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// What goes behind `Bearer`.
    pub access_token: String,
    /// When it ends, in seconds since 1970.
    pub expires_unix_s: u64,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("expires_unix_s", &self.expires_unix_s).finish_non_exhaustive()
    }
}

/// Why there is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Google refused.
    #[error("google gave no token ({status}): {message}")]
    Refused {
        /// The status.
        status: u16,
        /// Its words.
        message: String,
    },
    /// The answer lacks something.
    #[error("google's answer has no usable `{0}`")]
    Missing(&'static str),
}

impl Token {
    /// Reads the answer to [`ServiceAccount::token_request`].
    pub fn parse(status: u16, body: &str, now_unix_s: u64) -> Result<Self, TokenError> {
        let tree = Tree::parse(body, DEPTH_MAX).ok();
        let text = |name: &str| tree.as_ref().and_then(|tree| tree.get(name)?.text());
        if status != 200 {
            let message = text("error_description").or_else(|| text("error")).unwrap_or("no reason is given");
            let message = message[..message.floor_char_boundary(256)].to_owned();
            return Err(TokenError::Refused { status, message });
        }
        // It goes into a header, where nothing else may stand.
        let token = text("access_token")
            .filter(|token| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()));
        let access_token = token.ok_or(TokenError::Missing("access_token"))?.to_owned();
        let bearer = text("token_type").is_none_or(|kind| kind.eq_ignore_ascii_case("bearer"));
        if !bearer {
            return Err(TokenError::Missing("token_type"));
        }
        let seconds = tree.as_ref().and_then(|tree| tree.get("expires_in")?.count());
        let seconds = seconds.filter(|seconds| *seconds > 0).ok_or(TokenError::Missing("expires_in"))?;
        Ok(Self { access_token, expires_unix_s: now_unix_s.saturating_add(seconds.min(VALID_S * 24)) })
    }

    /// Whether it is time for the next one.
    pub const fn is_due(&self, now_unix_s: u64) -> bool {
        now_unix_s.saturating_add(REFRESH_BEFORE_S) >= self.expires_unix_s
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEM: &str = r"-----BEGIN PRIVATE KEY-----\nc2Vj\ncmV0\n-----END PRIVATE KEY-----\n";

    fn file(change: impl Fn(&str) -> String) -> String {
        change(&format!(
            r#"{{"type":"service_account","project_id":"p","private_key_id":"k1","private_key":"{PEM}",
               "client_email":"a@p.iam.gserviceaccount.com","client_id":"1","token_uri":"{TOKEN_URI}"}}"#
        ))
    }

    #[test]
    fn a_key_file_is_read_and_errors_name_the_field() {
        let account = ServiceAccount::parse(&file(str::to_owned)).unwrap();
        assert_eq!((account.project_id.as_deref(), account.key_pkcs8()), (Some("p"), &b"secret"[..]));
        let check = |from: &str, to: &str, expected: &str| {
            let error = ServiceAccount::parse(&file(|text| text.replace(from, to))).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains("c2Vj"), "{error}");
        };
        check("\"client_email\"", "\"x\"", "no `client_email`");
        check("\"private_key\"", "\"x\"", "no `private_key`");
        check("\"type\"", "\"x\"", "no `type`");
        check("service_account\"", "authorized_user\"", "`type` cannot be used");
        check("BEGIN PRIVATE", "BEGIN RSA PRIVATE", "`private_key` cannot be used: it is no PEM");
        check("c2Vj", "c2V", "`private_key` cannot be used: its Base64");
        assert_eq!(ServiceAccount::parse("[]"), Err(AccountError::NotJson));
        assert_eq!(ServiceAccount::parse("{"), Err(AccountError::NotJson));
    }

    #[test]
    fn i6_a_key_is_never_sent_to_others_than_google() {
        for uri in [
            "http://oauth2.googleapis.com/token",
            "https://evil.test/token",
            "https://googleapis.com.evil.test/",
            "https://evil.test#.googleapis.com",
            "https://evil.test\\\\.googleapis.com",
            "https://a@evil.test/.googleapis.com",
            "https://xgoogleapis.com/",
        ] {
            let error = ServiceAccount::parse(&file(|text| text.replace(TOKEN_URI, uri))).unwrap_err();
            assert!(error.to_string().contains("`token_uri`"), "{uri}: {error}");
        }
        let other = file(|text| text.replace(TOKEN_URI, "https://sts.googleapis.com/v1/token"));
        assert!(ServiceAccount::parse(&other).is_ok());
    }

    #[test]
    fn the_assertion_says_who_for_what_and_how_long() {
        let account = ServiceAccount::parse(&file(str::to_owned)).unwrap();
        let sign = |input: &[u8]| Ok::<_, ()>(input[..3].to_vec());
        let body = account.token_request(1_700_000_000, sign).unwrap();
        let assertion = body
            .strip_prefix("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=")
            .unwrap();
        let parts: Vec<String> = assertion
            .split('.')
            .map(|part| String::from_utf8(URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap())
            .collect();
        assert_eq!(parts[0], r#"{"alg":"RS256","typ":"JWT","kid":"k1"}"#);
        assert_eq!(
            parts[1],
            concat!(
                r#"{"iss":"a@p.iam.gserviceaccount.com","scope":"https://www.googleapis.com/auth/cloud-platform","#,
                r#""aud":"https://oauth2.googleapis.com/token","iat":1700000000,"exp":1700003600}"#
            )
        );
        assert_eq!(parts[2], "eyJ");
        assert_eq!(account.token_request(0, |_| Err::<Vec<u8>, _>("no key")), Err("no key"));
    }

    #[test]
    fn tokens_end_and_refusals_say_why() {
        let now = 1_000;
        let token =
            Token::parse(200, r#"{"access_token":"ya29.x","expires_in":3599,"token_type":"Bearer"}"#, now);
        let token = token.unwrap();
        assert_eq!(token.expires_unix_s, 4_599);
        assert!(!token.is_due(4_298) && token.is_due(4_299) && token.is_due(u64::MAX));
        let check = |status, body: &str, expected: &str| {
            let error = Token::parse(status, body, now).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(400, r#"{"error":"invalid_grant","error_description":"Invalid JWT"}"#, "(400): Invalid JWT");
        check(503, "<html>", "no reason is given");
        check(200, r#"{"expires_in":3599}"#, "`access_token`");
        check(200, r#"{"access_token":"a\r\nb","expires_in":3599}"#, "`access_token`");
        check(200, r#"{"access_token":"a","expires_in":"soon"}"#, "`expires_in`");
        check(200, r#"{"access_token":"a","expires_in":9,"token_type":"mac"}"#, "`token_type`");
    }

    #[test]
    fn secrets_do_not_show() {
        let account = ServiceAccount::parse(&file(str::to_owned)).unwrap();
        let token = Token { access_token: "ya29".to_owned(), expires_unix_s: 1 };
        let shown = format!("{account:?} {token:?}");
        assert!(!shown.contains("ya29") && !shown.contains("115, 101"), "{shown}");
    }
}
