//! Errors of a quota that is used up, in the provider's words as far as they do not name the operator's account.

use super::{ErrorBody, Fault};

/// Codes and types that say that money is spent, not that requests come too fast.
const SPENT: [&str; 6] = [
    "insufficient_quota",
    "billing_error",
    "billing_hard_limit_reached",
    "billing_not_active",
    "insufficient_balance",
    "insufficient_credits",
];
/// The status that says the same.
const PAYMENT_REQUIRED: u16 = 402;

impl ErrorBody {
    /// 429: the provider's quota is used up. `keeps_code` where the provider speaks the client's dialect, so that its word for
    /// it is one that the client knows.
    pub fn upstream_quota(
        provider: &str,
        status: Option<u16>,
        fault: Option<&Fault>,
        keeps_code: bool,
    ) -> Self {
        let words = fault.and_then(|fault| without_account(fault.message.as_deref()?));
        let words = words.map(|words| format!(". It says: {words}")).unwrap_or_default();
        let message =
            format!("the quota at provider `{provider}` is used up; ask again after `retry-after`{words}");
        let is_spent = status == Some(PAYMENT_REQUIRED)
            || fault.is_some_and(|fault| {
                let names = [fault.code.as_deref(), fault.kind_named.as_deref()];
                names.into_iter().flatten().any(|name| SPENT.contains(&name))
            });
        if is_spent {
            return Self::budget_exhausted(message).by_provider(provider);
        }
        let counts_tokens = fault.is_some_and(|fault| fault.kind_named.as_deref() == Some("tokens"));
        let error = Self::rate_limited(if counts_tokens { "tokens" } else { "requests" }, message);
        match fault.and_then(Fault::own_code).filter(|_| keeps_code) {
            Some(code) => error.with_code(Some(code.to_owned())).by_provider(provider),
            None => error.by_provider(provider),
        }
    }
}

/// Words behind which an account is named.
const NOUNS: [&str; 17] = [
    "organization",
    "organisation",
    "org",
    "project",
    "account",
    "workspace",
    "team",
    "subscription",
    "tenant",
    "consumer",
    "customer",
    "user",
    "key",
    "token",
    "email",
    "id",
    "resource",
];
/// Words behind those that name nothing.
const HARMLESS: [&str; 24] = [
    "has",
    "is",
    "was",
    "and",
    "or",
    "to",
    "for",
    "on",
    "in",
    "of",
    "with",
    "per",
    "reached",
    "exceeded",
    "limit",
    "limits",
    "quota",
    "usage",
    "plan",
    "tier",
    "level",
    "administrator",
    "settings",
    "balance",
];
/// Beginnings of names of accounts and their secrets.
const PREFIXES: [&str; 16] = [
    "org-",
    "org_",
    "organizations/",
    "proj-",
    "proj_",
    "projects/",
    "project_number",
    "sk-",
    "sk_",
    "key-",
    "acct",
    "user-",
    "user_",
    "ak-",
    "akia",
    "arn:",
];
/// Letters and digits in a row that are an identifier, and digits alone.
const RUN_MIN: usize = 16;
const DIGITS_MIN: usize = 9;

/// The sentences of an error that name nothing of an account; `None` if there are none.
fn without_account(message: &str) -> Option<String> {
    let sentences = message.split_inclusive(['\n', '.']);
    // A full stop within a word, such as an address, ends no sentence.
    let mut whole: Vec<String> = Vec::new();
    for piece in sentences {
        match whole.last_mut() {
            Some(last) if !last.ends_with('\n') && !piece.starts_with([' ', '\n']) => last.push_str(piece),
            Some(_) | None => whole.push(piece.to_owned()),
        }
    }
    let kept: Vec<&str> =
        whole.iter().map(|one| one.trim()).filter(|one| !one.is_empty() && names_nobody(one)).collect();
    (!kept.is_empty()).then(|| kept.join(" "))
}

fn names_nobody(sentence: &str) -> bool {
    let bare = |word: &str| {
        word.trim_matches(|letter: char| !letter.is_ascii_alphanumeric() && letter != '@')
            .to_ascii_lowercase()
    };
    let words: Vec<String> = sentence.split_whitespace().map(bare).collect();
    words.iter().enumerate().all(|(at, word)| {
        let next = words.get(at + 1).map(String::as_str);
        let named = NOUNS.contains(&word.as_str()) && next.is_some_and(|next| !HARMLESS.contains(&next));
        !named && !is_identifier(word)
    })
}

fn is_identifier(word: &str) -> bool {
    if word.contains('@') || word.contains("***") || PREFIXES.iter().any(|prefix| word.starts_with(prefix)) {
        return true;
    }
    if word.contains("://") && NOUNS.iter().any(|noun| word.contains(&format!("/{noun}"))) {
        return true;
    }
    let is_uuid = word.len() == 36 && word.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    is_uuid
        || word.split(|letter: char| !letter.is_ascii_alphanumeric()).any(|run| {
            let digits = run.bytes().filter(u8::is_ascii_digit).count();
            (run.len() >= RUN_MIN && digits > 0) || (run.len() >= DIGITS_MIN && digits == run.len())
        })
}

#[cfg(test)]
mod tests {
    use super::super::classify;
    use super::*;

    #[test]
    fn words_pass_unless_they_name_the_account() {
        let check = |message: &str, expected: Option<&str>| {
            assert_eq!(without_account(message).as_deref(), expected, "{message}");
        };
        let openai = "Rate limit reached for gpt-4o-2024-08-06 in organization org-abc on tokens per min (TPM): Limit 30000, \
                      Used 29000, Requested 2000. Please try again in 2.5s. Visit \
                      https://platform.openai.com/account/rate-limits to learn more.";
        check(openai, Some("Please try again in 2.5s."));
        let spent = "You exceeded your current quota, please check your plan and billing details. For more information on \
                     this error, read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors.";
        check(spent, Some(spent));
        let anthropic =
            "This request would exceed your organization's rate limit of 50,000 input tokens per minute.";
        check(anthropic, Some(anthropic));
        check("slow down", Some("slow down"));
        check(
            "Quota exceeded for gemini-2.0-flash.\nPlease retry in 17.5s.",
            Some("Quota exceeded for gemini-2.0-flash. Please retry in 17.5s."),
        );
        for named in [
            "Incorrect API key provided: sk-operator for org-acme",
            "Quota exceeded for quota metric 'x' of service 'y' for consumer 'project_number:1234'.",
            "Limit of project 123456789012 reached",
            "the account acme-inc is out of credit",
            "ask jane@acme.test",
            "limit of 0b1c2d3e-0000-4000-8000-0123456789ab",
            "your organization: Acme",
            "Key abc…",
            "",
        ] {
            check(named, None);
        }
    }

    #[test]
    fn what_is_spent_is_told_from_what_comes_too_fast() {
        let check = |status: u16, body: &str, keeps_code: bool, kind: &str, code: &str| {
            let fault = classify(status, None, body.as_bytes());
            let error = ErrorBody::upstream_quota("p", Some(status), Some(&fault), keeps_code);
            assert_eq!((error.status, error.kind, error.code.as_deref()), (429, kind, Some(code)), "{body}");
        };
        let told = |kind: &str, code: &str| {
            format!(r#"{{"error":{{"message":"m","type":"{kind}","code":"{code}"}}}}"#)
        };
        let spent = "insufficient_quota";
        check(429, &told(spent, spent), true, spent, spent);
        check(429, &told("billing_error", ""), false, spent, spent);
        check(402, "", false, spent, spent);
        check(429, &told("tokens", "rate_limit_exceeded"), true, "tokens", "rate_limit_exceeded");
        check(429, &told("rate_limited", "1300"), true, "requests", "1300");
        check(429, &told("rate_limited", "1300"), false, "requests", "rate_limit_exceeded");
        check(429, &told("requests", ""), true, "requests", "rate_limit_exceeded");
        check(429, "", true, "requests", "rate_limit_exceeded");
        let error = ErrorBody::upstream_quota("p", None, None, true);
        assert!(error.message.ends_with("`retry-after`"), "{error:?}");
    }
}
