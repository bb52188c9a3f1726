//! `pointsman explain`

use std::path::{Path, PathBuf};

use anyhow::Context;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use super::{BadUsage, out};
use crate::app::{App, Source};
use crate::explain::{Options, explain};
use crate::reload::load;

/// Arguments of `explain`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
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
    json: bool,
}

pub(super) fn run(args: &Args, config: Option<PathBuf>) -> anyhow::Result<()> {
    let config = config.or_else(super::serve::usual_config);
    let config =
        config.ok_or_else(|| BadUsage("say which config to explain with: --config FILE".to_owned()))?;
    let app = App::new(Source::default(), load(&config)?, None);
    let body = read(&args.request).with_context(|| format!("cannot read {}", args.request.display()))?;
    let options = Options { path: Some(args.path.clone()), tenant: args.tenant.clone() };
    let (mut fleet, mut rng) = app.live.lock().sandbox();
    let headers = headers(&args.headers)?;
    let answer = explain(&app.snapshot.load(), &mut fleet, &mut rng, &options, &headers, &body);
    match answer {
        Ok(answer) if args.json => out(&format!("{answer:#}\n")),
        Ok(answer) => out(&told(&answer)),
        Err(error) => anyhow::bail!("the request would be refused with {}: {}", error.status, error.message),
    }
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

/// The explanation as a table for people.
fn told(answer: &Value) -> String {
    let decision = &answer["decision"];
    let outcome = &decision["outcome"];
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
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
    lines.push(format!("strategy {}, tier {}{arm}", text(&decision["strategy"]), decision["tier"]));
    for candidate in decision["candidates"].as_array().into_iter().flatten() {
        let verdict = match candidate["why_not"]["rule"].as_str() {
            Some(rule) => rule.to_owned(),
            None => candidate["score"]
                .as_f64()
                .map_or_else(|| "eligible".to_owned(), |score| format!("eligible, score {score:.3}")),
        };
        lines.push(format!(
            "  {:<32} tier {}  in flight {:<4} {verdict}",
            text(&candidate["deployment"]),
            candidate["tier"],
            candidate["inflight"]
        ));
    }
    lines.join("\n") + "\n"
}
