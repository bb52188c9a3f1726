//! `pointsman check`

use std::path::PathBuf;

use serde_json::{Value, json};

use super::out;
use crate::reload::{LoadError, combine, load, load_overlay};

/// Arguments of `check`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The config file
    file: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let loaded = load(&args.file);
    let (config, warnings) = match loaded {
        Ok(config) => {
            let overlay = load_overlay(&config)?;
            let stale = combine(&config, &config, overlay)?.stale;
            (config, stale)
        }
        Err(error) => {
            if args.json {
                print_json(&found(&error), &[])?;
            }
            return Err(error.into());
        }
    };
    if args.json {
        return print_json(&json!([]), &warnings);
    }
    let deployments: usize = config.models.values().map(|model| model.deployments.len()).sum();
    let (file, models, providers) = (args.file.display(), config.models.len(), config.providers.len());
    out(&format!("{file}: fine: {models} models, {deployments} deployments, {providers} providers\n"))?;
    let changes = config.admin_changes.file.unwrap_or_default();
    let lines: Vec<String> =
        warnings.iter().map(|line| format!("{}: warning: {line}\n", changes.display())).collect();
    out(&lines.concat())
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
