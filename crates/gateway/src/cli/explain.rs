//! `pointsman explain`

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use http::{HeaderMap, HeaderName, HeaderValue};
use pointsman_wire::openai::error::ErrorBody;
use serde_json::Value;

use super::{BadUsage, Reported, out};
use crate::app::{App, Source};
use crate::explain::{Options, explain};
use crate::reload::load;
use crate::telemetry::metrics::Metrics;

/// Arguments of `explain`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The config file. Default: ./pointsman.yaml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The request's body, as a client would send it; `-` is standard input
    #[arg(long, value_name = "FILE")]
    request: PathBuf,
    /// A header of the request, such as `x-pointsman-session=abc`; may be given several times
    #[arg(long = "header", value_name = "NAME=VALUE")]
    headers: Vec<String>,
    /// The path it would be sent to
    #[arg(long, default_value = "/v1/chat/completions")]
    path: String,
    /// Who would ask
    #[arg(long)]
    tenant: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// The request would not get as far as a decision.
#[derive(Debug, thiserror::Error)]
#[error("the request would be refused with {}: {}", .0.status, .0.message)]
pub(super) struct Refused(ErrorBody);

impl Refused {
    /// What the client would be told, with its status.
    pub(super) fn to_json(&self) -> Value {
        let body: Value = serde_json::from_slice(&self.0.to_json()).unwrap_or_default();
        let mut error = body["error"].clone();
        error["status"] = self.0.status.into();
        error
    }
}

/// Fails when the request would not be served, whether it is refused before the decision or by it.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let config = args.config.clone().or_else(super::serve::usual_config);
    let config =
        config.ok_or_else(|| BadUsage("say which config to explain with: --config FILE".to_owned()))?;
    let app = App::new(Source::default(), load(&config)?, None, Metrics::new());
    let body = read(&args.request).with_context(|| format!("cannot read {}", args.request.display()))?;
    let options = Options { path: Some(args.path.clone()), tenant: args.tenant.clone() };
    let (mut fleet, mut rng) = app.live.lock().sandbox();
    let headers = headers(&args.headers)?;
    let answer = explain(&app.snapshot.load(), &mut fleet, &mut rng, &options, &headers, &body);
    let answer = answer.map_err(Refused)?;
    out(&if args.json { format!("{answer:#}\n") } else { told(&answer) })?;
    let outcome = &answer["decision"]["outcome"];
    if outcome["kind"] == "rejected" {
        anyhow::ensure!(args.json, "the request would not be served: {}", text(&outcome["why"]));
        return Err(Reported.into());
    }
    Ok(())
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    if path == Path::new("-") {
        let mut body = Vec::new();
        std::io::Read::read_to_end(&mut std::io::stdin(), &mut body)?;
        return Ok(body);
    }
    std::fs::read(path)
}

fn headers(pairs: &[String]) -> anyhow::Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for pair in pairs {
        let bad = || BadUsage(format!("`{pair}` is no header; write NAME=VALUE"));
        let (name, value) = pair.split_once('=').or_else(|| pair.split_once(": ")).ok_or_else(bad)?;
        let name: HeaderName = name.trim().parse().map_err(|_| bad())?;
        headers.insert(name, HeaderValue::from_str(value.trim()).map_err(|_| bad())?);
    }
    Ok(headers)
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The explanation as a table for people.
fn told(answer: &Value) -> String {
    let decision = &answer["decision"];
    let outcome = &decision["outcome"];
    let mut lines = vec![match outcome["kind"].as_str() {
        Some("chosen") => format!(
            "model {} -> {} (provider {}{}), because {}",
            text(&answer["model"]),
            text(&outcome["deployment"]),
            text(&outcome["provider"]),
            outcome["credential"].as_str().map(|name| format!(", credential {name}")).unwrap_or_default(),
            text(&outcome["why"]["rule"]),
        ),
        _ => {
            format!("model {}: {} {}", text(&answer["model"]), text(&outcome["kind"]), text(&outcome["why"]))
        }
    }];
    let arm = decision["arm"].as_str().map(|arm| format!(", arm {arm}")).unwrap_or_default();
    let used = decision["used"].as_str().map(|used| format!(" ({used})")).unwrap_or_default();
    lines.push(format!("strategy {}{used}, tier {}{arm}", text(&decision["strategy"]), decision["tier"]));
    if let Some(on_mismatch) = answer["answer_checked"].as_str() {
        lines.push(format!("the answer is held to the request's JSON schema; on a mismatch: {on_mismatch}"));
    }
    for candidate in decision["candidates"].as_array().into_iter().flatten() {
        let verdict = match candidate["why_not"]["rule"].as_str() {
            Some(rule) => rule.to_owned(),
            None => candidate["score"]
                .as_f64()
                .map_or_else(|| "eligible".to_owned(), |score| format!("eligible, score {score:.3}")),
        };
        let mut beside = String::new();
        if let Some(ms) = candidate["predicted_first_token_ms"].as_f64() {
            let _ = write!(beside, ", first token in {ms:.0} ms");
        }
        if let Some(tokens) = candidate["tokens_cached"].as_u64().filter(|tokens| *tokens > 0) {
            let _ = write!(beside, ", {tokens} tokens cached");
        }
        if candidate["hot"] == true {
            beside += ", hot";
        }
        lines.push(format!(
            "  {:<32} tier {}  in flight {:<4} {verdict}{beside}",
            text(&candidate["deployment"]),
            candidate["tier"],
            candidate["inflight"]
        ));
    }
    lines.join("\n") + "\n"
}
