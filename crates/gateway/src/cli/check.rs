//! `pointsman check`

use std::path::PathBuf;

use pointsman_settings::Config;
use serde_json::{Value, json};

use super::{Reported, out};
use crate::reload::{LoadError, combine, load, load_overlay};

/// Arguments of `check`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The config file
    file: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let config = match load(&args.file) {
        Ok(config) => config,
        Err(error) if args.json => {
            print_json(&found(&error), &[])?;
            return Err(anyhow::Error::new(error).context(Reported));
        }
        Err(error) => return Err(error.into()),
    };
    let stale = combine(&config, &config, load_overlay(&config)?)?.stale;
    let changes = config.admin_changes.file.clone().unwrap_or_default();
    let stale = stale.iter().map(|line| format!("{}: {line}", changes.display()));
    let own = warning(&config).map(|text| format!("{}: {text}", args.file.display()));
    let warnings: Vec<String> = own.into_iter().chain(stale).collect();
    if args.json {
        return print_json(&json!([]), &warnings);
    }
    for warning in warnings {
        out(&format!("warning: {warning}\n"))?;
    }
    let deployments: usize = config.models.values().map(|model| model.deployments.len()).sum();
    let (file, models, providers) = (args.file.display(), config.models.len(), config.providers.len());
    out(&format!("{file}: fine: {models} models, {deployments} deployments, {providers} providers\n"))
}

fn found(error: &LoadError) -> Value {
    match error {
        LoadError::Invalid { found, .. } => json!(found),
        LoadError::Read { .. } | LoadError::Unfit(_) | LoadError::Overlay(_) => {
            json!([{"message": error.to_string()}])
        }
    }
}

fn print_json(found: &Value, warnings: &[String]) -> anyhow::Result<()> {
    let ok = found.as_array().is_some_and(Vec::is_empty);
    out(&format!("{}\n", json!({"ok": ok, "found": found, "warnings": warnings})))
}

/// What is no mistake but surely not meant.
pub(super) fn warning(config: &Config) -> Option<&'static str> {
    config.models.is_empty().then_some(
        "no models are configured, so every request gets 404; add `models:`, or let \
         `pointsman serve --print-config` write down what is found on this machine",
    )
}
