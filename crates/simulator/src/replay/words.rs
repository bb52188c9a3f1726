//! Decisions in a few words: those of the decision record, which live traffic writes and a replay writes again.

use std::fmt::Write;

use serde_json::Value;

/// Who decided, and why, such as `adaptive/predicted_latency: soonest_first_token (predicted_first_token_ms 84.2,
/// tokens_cached 512)`; of one that was refused the reason.
pub(super) fn words(decision: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    let mut told = text(&decision["strategy"]);
    if let Some(used) = decision["used"].as_str() {
        let _ = write!(told, "/{used}");
    }
    let outcome = &decision["outcome"];
    match outcome["why"].as_str() {
        Some(why) => {
            let _ = write!(told, ": {why}");
        }
        None => {
            let _ = write!(told, ": {}{}", text(&outcome["why"]["rule"]), figures(&outcome["why"]));
        }
    }
    if decision["panic"] == true {
        told.push_str(", for want of others that work");
    }
    told
}

/// The rule alone, such as `adaptive/predicted_latency: soonest_first_token`.
pub(super) fn rule(decision: &Value) -> String {
    let told = words(decision);
    told.split([' ', ',']).take(2).collect::<Vec<_>>().join(" ")
}

/// How a deployment stood in a decision: why it could not be picked, or what it was picked by.
pub(super) fn standing(decision: &Value, deployment: &str) -> Option<String> {
    let candidates = decision["candidates"].as_array()?;
    let own = candidates.iter().find(|one| one["deployment"] == deployment)?;
    if let Some(rule) = own["why_not"]["rule"].as_str() {
        return Some(format!("{rule}{}", figures(&own["why_not"])));
    }
    let known = ["score", "predicted_first_token_ms", "tokens_cached", "inflight", "limit"];
    let parts = known.into_iter().filter(|name| !own[*name].is_null());
    let parts: Vec<String> = parts.map(|name| format!("{name} {}", number(&own[name]))).collect();
    let hot = if own["hot"] == true { ", hot" } else { "" };
    Some(format!("eligible ({}{hot})", parts.join(", ")))
}

/// The figures of a reason, in brackets; nothing if it has none.
fn figures(why: &Value) -> String {
    let fields = why.as_object().into_iter().flatten();
    let told = fields.filter(|(name, value)| name.as_str() != "rule" && !value.is_null());
    let told: Vec<String> = told.map(|(name, value)| format!("{name} {}", number(value))).collect();
    if told.is_empty() { String::new() } else { format!(" ({})", told.join(", ")) }
}

fn number(value: &Value) -> String {
    match value {
        Value::Number(number) if number.is_f64() => format!("{:.1}", number.as_f64().unwrap_or(f64::NAN)),
        Value::String(text) => text.clone(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            value.to_string()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn decisions_are_told_in_the_words_of_their_record() {
        let decision = json!({
            "strategy": "adaptive", "used": "predicted_latency", "panic": false,
            "outcome": {"kind": "chosen", "deployment": "a", "why":
                {"rule": "soonest_first_token", "predicted_first_token_ms": 84.23, "tokens_cached": 512, "objective_kept": null}},
            "candidates": [
                {"deployment": "a", "why_not": null, "score": 84.23, "inflight": 1, "hot": false},
                {"deployment": "b", "why_not": null, "score": 130.0, "inflight": 4, "limit": 8, "hot": true},
                {"deployment": "c", "why_not": {"rule": "pool_full", "limit": "cap"}}],
        });
        assert_eq!(
            words(&decision),
            "adaptive/predicted_latency: soonest_first_token (predicted_first_token_ms 84.2, tokens_cached 512)"
        );
        assert_eq!(rule(&decision), "adaptive/predicted_latency: soonest_first_token");
        assert_eq!(
            standing(&decision, "b").as_deref(),
            Some("eligible (score 130.0, inflight 4, limit 8, hot)")
        );
        assert_eq!(standing(&decision, "c").as_deref(), Some("pool_full (limit cap)"));
        assert_eq!(standing(&decision, "d"), None);
        let refused = json!({"strategy": "random", "outcome": {"kind": "rejected", "why": "queue_full"}});
        assert_eq!(
            (words(&refused).as_str(), rule(&refused).as_str()),
            ("random: queue_full", "random: queue_full")
        );
    }
}
