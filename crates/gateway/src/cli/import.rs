//! `pointsman import`

use std::io::{self, Write};
use std::path::PathBuf;

use pointsman_settings::import;

use super::{BadUsage, out};

/// Arguments of `import`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    from: From,
}

#[derive(Debug, clap::Subcommand)]
enum From {
    /// A config of LiteLLM's proxy (YAML)
    Litellm {
        /// The file
        file: PathBuf,
    },
    /// The object that NeuroLink is made with: JSON, or a file of JavaScript or TypeScript that has it
    Neurolink {
        /// The file
        file: PathBuf,
    },
}

/// Prints the configuration on standard output, and what was not taken over on standard error.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let (From::Litellm { file } | From::Neurolink { file }) = &args.from;
    let name = file.display();
    let text =
        std::fs::read_to_string(file).map_err(|error| BadUsage(format!("cannot read {name}: {error}")))?;
    let imported = match &args.from {
        From::Litellm { .. } => import::litellm(&text),
        From::Neurolink { .. } => import::neurolink(&text),
    };
    let imported = imported.map_err(|error| BadUsage(format!("{name}: {error}")))?;
    let mut report = io::stderr();
    for note in &imported.notes {
        let _ = writeln!(report, "{name}:{}: {}: {}", note.line, note.path, note.text);
    }
    out(&imported.yaml)
}
