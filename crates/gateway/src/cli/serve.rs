//! `pointsman serve`

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use pointsman_settings::Config;

use super::out;
use crate::discovery;
use crate::reload::{Overrides, load, load_overlay};
use crate::serve::Gateway;
use crate::telemetry::log;

/// Arguments of `serve`.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Args {
    /// Where clients are listened to, instead of where the config says
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Where the admin API is, instead of where the config says
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
    /// Print what was found as a config file, and do not serve
    #[arg(long)]
    print_config: bool,
}

/// The config file that is used when none is named.
pub(super) fn usual_config() -> Option<PathBuf> {
    let usual = Path::new("pointsman.yaml");
    usual.exists().then(|| usual.to_owned())
}

pub(super) fn run(args: &Args, path: Option<PathBuf>) -> anyhow::Result<()> {
    let path = path.or_else(usual_config);
    let (config, found) = match &path {
        Some(path) => (load(path)?, None),
        None => {
            let found = discovery::discover()?;
            (found.config.clone(), Some(found))
        }
    };
    if args.print_config {
        let found = found.ok_or_else(|| super::BadUsage("there is a config file already".to_owned()))?;
        return out(&found.yaml());
    }
    log::init(&config.log);
    let overlay = load_overlay(&config)?;
    let overrides = Overrides { listen: args.listen, admin: args.admin };
    let gateway = Gateway::start_with(path.clone(), config, overlay, overrides)?;
    out(&greeting(&gateway, path.as_deref(), found.as_ref()))?;
    let done = gateway.run();
    drop(found);
    done
}

/// What is served, where, and a first request that works.
fn greeting(gateway: &Gateway, path: Option<&Path>, found: Option<&discovery::Found>) -> String {
    let snapshot = gateway.app.snapshot.load();
    let config: &Config = &snapshot.config;
    let mut text = match (path, found) {
        (Some(path), _) => format!("pointsman serves {}\n", path.display()),
        (None, Some(found)) => found.told(),
        (None, None) => String::new(),
    };
    for (name, model) in &config.models {
        let deployments: Vec<String> = model.deployments.iter().map(|one| one.name_in(name)).collect();
        let _ = writeln!(text, "  {name}: {} ({})", deployments.join(", "), model.strategy.name());
    }
    let (client, admin) = (gateway.address, gateway.admin_address);
    let _ = writeln!(
        text,
        "clients: http://{client}/v1   admin: http://{admin} (/metrics, /readyz, /admin/v1/...)"
    );
    if let Some(model) = config.models.keys().next() {
        let key = if config.auth.keys.is_empty() { "" } else { " -H \"authorization: Bearer $KEY\"" };
        let _ = writeln!(
            text,
            "try: curl -N http://{client}/v1/chat/completions{key} -H 'content-type: application/json' -d \
             '{{\"model\":\"{model}\",\"stream\":true,\"messages\":[{{\"role\":\"user\",\"content\":\"hello\"}}]}}'"
        );
    }
    text
}
