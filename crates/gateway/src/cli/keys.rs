//! `pointsman keys`

use std::fmt::Write;

use ring::rand::{SecureRandom, SystemRandom};
use serde_json::json;

use super::out;
use crate::http::auth::sha256;

/// Arguments of `keys`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Hash the key on standard input instead of making one
    #[arg(long)]
    hash: bool,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let key = if args.hash { from_stdin()? } else { make()? };
    let hash = hex(&sha256(key.as_bytes()));
    if args.json {
        let key = (!args.hash).then_some(key);
        return out(&format!("{}\n", json!({"key": key, "key_sha256": hash})));
    }
    let mut text = String::new();
    if !args.hash {
        let _ = writeln!(text, "key (give it to the client; it is shown this once): {key}");
    }
    let _ = write!(
        text,
        "key_sha256 (put it into the config):\n\nauth:\n  keys:\n    - {{ name: web, tenant: acme, key_sha256: {hash} }}\n"
    );
    out(&text)
}

fn make() -> anyhow::Result<String> {
    let mut bytes = [0; 24];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| anyhow::anyhow!("the system gives no random numbers"))?;
    Ok(format!("pk-{}", hex(&bytes)))
}

fn from_stdin() -> anyhow::Result<String> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let key = line.trim();
    anyhow::ensure!(!key.is_empty(), "no key on standard input; try `printf %s KEY | pointsman keys --hash`");
    Ok(key.to_owned())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
