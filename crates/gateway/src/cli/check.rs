//! `pointsman check`

use std::path::PathBuf;

use pointsman_settings::Config;
use serde_json::json;

use super::{Reported, out};
use crate::reload::{LoadError, load};

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
    let loaded = load(&args.file);
    let warnings: Vec<&str> = loaded.iter().filter_map(warning).collect();
    if args.json {
        let found = match &loaded {
            Err(LoadError::Invalid { found, .. }) => json!(found),
            Err(error @ (LoadError::Read { .. } | LoadError::Overlay(_))) => {
                json!([{"message": error.to_string()}])
            }
            Ok(_) => json!([]),
        };
        out(&format!("{}\n", json!({"ok": loaded.is_ok(), "found": found, "warnings": warnings})))?;
        return loaded.map(drop).map_err(|error| anyhow::Error::new(error).context(Reported));
    }
    let config = loaded?;
    let deployments: usize = config.models.values().map(|model| model.deployments.len()).sum();
    let (file, models, providers) = (args.file.display(), config.models.len(), config.providers.len());
    for warning in warnings {
        out(&format!("{file}: warning: {warning}\n"))?;
    }
    out(&format!("{file}: fine: {models} models, {deployments} deployments, {providers} providers\n"))
}

/// What is no mistake but surely not meant.
pub(super) fn warning(config: &Config) -> Option<&'static str> {
    config.models.is_empty().then_some(
        "no models are configured, so every request gets 404; add `models:`, or let \
         `pointsman serve --print-config` write down what is found on this machine",
    )
}
