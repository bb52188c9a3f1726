//! Fields that are the operator's to say: where an upstream goes and with what key, and how it builds its prompt.
//!
//! The providers themselves know hardly any of them. Routers and engines behind this one do, LiteLLM above all, whose
//! requests may carry whole configurations.

use std::borrow::Cow;

use crate::json::Text;

use super::fields::folded;

/// Fields that would tell an upstream where to go, with what key, whom to ask in place of the model that was authorised, or
/// how to build its prompt. They are dropped before forwarding unless the client may set them; where nothing is rewritten
/// the request is refused.
pub const FORBIDDEN: [&str; 39] = [
    "allowed_model_region",
    "api_base",
    "api_key",
    "api_version",
    "base_url",
    "chat_template",
    "chat_template_kwargs",
    "client_id",
    "client_secret",
    "configurable_clientside_auth_params",
    "content_policy_fallbacks",
    "context_window_fallback_dict",
    "context_window_fallbacks",
    "credentials",
    "custom_llm_provider",
    "default_fallbacks",
    "endpoint",
    "extra_body",
    "extra_headers",
    "force_timeout",
    "gcs_path_service_account",
    "headers",
    "mock_response",
    "model_config",
    "model_info",
    "model_list",
    "models",
    "organization",
    "provider_specific_header",
    "proxy",
    "proxy_server_request",
    "region_name",
    "request_timeout",
    "router_settings_override",
    "ssl_verify",
    "tenant_id",
    "timeout",
    "use_litellm_proxy",
    "user_config",
];

/// Beginnings of such fields: a cloud's account, key and address each have many.
pub const FORBIDDEN_BEGINNINGS: [&str; 6] = ["aws_", "azure_", "litellm_", "oci_", "vertex_", "watsonx_"];

/// Ends of such fields: the addresses and keys of an upstream's own helpers (`langsmith_base_url`).
pub const FORBIDDEN_ENDS: [&str; 3] = ["_api_base", "_api_key", "_base_url"];

/// The field, or the beginning or end of one, that a name stands for in any capitals, if it is not for clients to say.
pub fn forbidden(name: &str) -> Option<&'static str> {
    let bytes = name.as_bytes();
    let is = |part: Option<&[u8]>, known: &str| {
        part.is_some_and(|part| part.eq_ignore_ascii_case(known.as_bytes()))
    };
    let begins = |known: &&&str| is(bytes.get(..known.len()), known);
    let ends = |known: &&&str| is(bytes.len().checked_sub(known.len()).map(|at| &bytes[at..]), known);
    let exactly = || FORBIDDEN.iter().find(|known| known.eq_ignore_ascii_case(name));
    let found = exactly().or_else(|| FORBIDDEN_BEGINNINGS.iter().find(begins));
    found.or_else(|| FORBIDDEN_ENDS.iter().find(ends)).copied()
}

/// The same of a member's name as it stands in a body, however it is written.
pub(crate) fn forbidden_key(key: &Text<'_>) -> Option<&'static str> {
    let meant = if !key.escaped() && key.raw().is_ascii() {
        Cow::Borrowed(key.raw())
    } else {
        // Half a surrogate pair is part of no name that any parser folds into one of these.
        Cow::Owned(folded(&key.decode()?))
    };
    forbidden(&meant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c11_names_that_steer_an_upstream_are_known_in_every_spelling() {
        for name in [
            "api_base",
            "API_Base",
            "user_config",
            "aws_sts_endpoint",
            "aws_bedrock_runtime_endpoint",
            "AWS_role_name",
            "vertex_credentials",
            "vertex_ai_project",
            "azure_ad_token",
            "litellm_credential_name",
            "langsmith_base_url",
            "presidio_analyzer_api_base",
            "zen_api_key",
            "router_settings_override",
        ] {
            assert!(forbidden(name).is_some(), "{name}");
        }
        for name in [
            "",
            "aws",
            "a",
            "_",
            "model",
            "metadata",
            "image_url",
            "file_url",
            "safety_identifier",
            "prompt_cache_key",
            "base",
            "service_tier",
            "time",
            "user",
            "é",
            "éaws_x",
        ] {
            assert_eq!(forbidden(name), None, "{name}");
        }
        let literal = r#""aws\u005fſts_endpoint""#;
        assert_eq!(forbidden_key(&crate::json::Scanner::new(literal, 1).string().unwrap()), Some("aws_"));
        assert!(FORBIDDEN.is_sorted());
    }
}
