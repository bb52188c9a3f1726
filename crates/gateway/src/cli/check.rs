//! `pointsman check`

use std::path::PathBuf;

use serde_json::json;

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
    if args.json {
        let found = match &loaded {
            Err(LoadError::Invalid { found, .. }) => json!(found),
            Err(error @ (LoadError::Read { .. } | LoadError::Unfit(_) | LoadError::Overlay(_))) => {
                json!([{"message": error.to_string()}])
            }
            Ok(_) => json!([]),
        };
        out(&format!("{}\n", json!({"ok": loaded.is_ok(), "found": found})))?;
    }
    let config = loaded?;
    let overlay = load_overlay(&config)?;
    let combined = combine(&config, &config, overlay)?;
    if !args.json {
        let deployments: usize = config.models.values().map(|model| model.deployments.len()).sum();
        let (file, models, providers) = (args.file.display(), config.models.len(), config.providers.len());
        out(&format!("{file}: fine: {models} models, {deployments} deployments, {providers} providers\n"))?;
        if let Some(changes) = &config.admin_changes.file {
            let lines = combined.stale.iter().map(|line| format!("{}: warning: {line}\n", changes.display()));
            out(&lines.collect::<String>())?;
        }
    }
    Ok(())
}
