//! `pointsman serve`

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use pointsman_settings::Config;

use super::out;
use crate::discovery;
use crate::reload::{Overrides, load, load_overlay};
use crate::serve::{Gateway, free_address};
use crate::telemetry::log;
use crate::upgrade::Inheritance;

/// Arguments of `serve`.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Args {
    /// The config file. Default: ./pointsman.yaml if it is there; else model servers and keys are looked for
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where clients are listened to, instead of where the config says
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Where the admin API is, instead of where the config says
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
    /// Look for model servers and keys, print a config file that serves them, and do not serve
    #[arg(long)]
    print_config: bool,
}

/// Ports for clients when the usual one is taken and no config names one; after these, any.
const LISTEN_PORTS: [u16; 2] = [8088, 8090];
/// The same for the admin API.
const ADMIN_PORTS: [u16; 2] = [8089, 8091];

/// The config file that is used when none is named.
pub(super) fn usual_config() -> Option<PathBuf> {
    let usual = Path::new("pointsman.yaml");
    usual.exists().then(|| usual.to_owned())
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    if args.print_config {
        return print_config(args);
    }
    let inherited = Inheritance::receive()?;
    let before = inherited.as_ref().map(Inheritance::line).transpose()?;
    let done = run_from(args, inherited);
    if let (Some(mut before), Err(error)) = (before, &done) {
        before.tell_failure(error);
    }
    done
}

fn run_from(args: &Args, inherited: Option<Inheritance>) -> anyhow::Result<()> {
    match args.config.clone().or_else(usual_config) {
        Some(path) => {
            let config = load(&path)?;
            let title = format!("pointsman serves {}\n", path.display());
            let overrides = Overrides { listen: args.listen, admin: args.admin };
            serve(Some(path), config, overrides, &title, inherited)
        }
        None => first_run(args, inherited),
    }
}

/// Serves what is found. Nobody chose the addresses, so taken ones are no reason to give up: llama.cpp's server has the
/// same usual port.
fn first_run(args: &Args, inherited: Option<Inheritance>) -> anyhow::Result<()> {
    let found = discovery::discover()?;
    let mut config = found.config.clone();
    let mut title = found.told(&program());
    let usual = (config.listen, config.admin);
    let known = |key| inherited.as_ref().and_then(|inherited| inherited.address(key));
    let (flag_listen, flag_admin) = (args.listen.or(known("listen")), args.admin.or(known("admin")));
    config.listen = flag_listen.unwrap_or_else(|| free_address(usual.0, &LISTEN_PORTS, flag_admin));
    config.admin = flag_admin.unwrap_or_else(|| free_address(usual.1, &ADMIN_PORTS, Some(config.listen)));
    for (who, key, usual, chosen, flag) in [
        ("clients have", "listen", usual.0, config.listen, flag_listen),
        ("the admin API has", "admin", usual.1, config.admin, flag_admin),
    ] {
        if flag.is_none() && chosen != usual {
            let _ =
                writeln!(title, "{usual} is in use, so {who} another port below; --{key} IP:PORT sets it");
        }
    }
    let done = serve(None, config, Overrides::default(), &title, inherited);
    // The built-in mocks live as long as they are served.
    drop(found);
    done
}

fn serve(
    path: Option<PathBuf>,
    config: Config,
    overrides: Overrides,
    title: &str,
    inherited: Option<Inheritance>,
) -> anyhow::Result<()> {
    log::init(&config.log);
    if let Some(warning) = super::check::warning(&config) {
        tracing::warn!("{warning}");
    }
    let mut overlay = load_overlay(&config)?;
    if let Some(inherited) = inherited.as_ref().filter(|_| config.admin_changes.file.is_none()) {
        // They are in no file, and would be lost with the process before this one.
        overlay = inherited.admin_changes.clone();
    }
    let gateway = Gateway::start_from(path, config, overlay, overrides, inherited)?;
    out(&format!("{title}{}", greeting(&gateway)))?;
    gateway.run()
}

/// Writes down what is found. A shell has emptied the usual file before this begins (`> pointsman.yaml`), so only a file
/// that is named and says something is in the way.
fn print_config(args: &Args) -> anyhow::Result<()> {
    if let Some(path) = &args.config
        && std::fs::read_to_string(path).is_ok_and(|text| !text.trim().is_empty())
    {
        let text =
            format!("{} is a config file already; leave `--config` out to look around", path.display());
        return Err(super::BadUsage(text).into());
    }
    let mut found = discovery::discover()?;
    let listen = found.config.listen;
    // Whoever has the port now is still there when this file is served.
    let port = [listen.port()].into_iter().chain(LISTEN_PORTS).find(|port| !found.ports().contains(port));
    let free = SocketAddr::new(listen.ip(), port.unwrap_or(listen.port()));
    found.config.listen = args.listen.unwrap_or(free);
    found.config.admin = args.admin.unwrap_or(found.config.admin);
    out(&found.yaml(&program()))
}

/// How this program was called, to be called so again.
fn program() -> String {
    let name = std::env::args().next().unwrap_or_default();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if !name.is_empty() && name.chars().all(plain) {
        name
    } else {
        format!("'{}'", name.replace('\'', "'\\''"))
    }
}

/// What is served, where, and a first request that works.
fn greeting(gateway: &Gateway) -> String {
    let snapshot = gateway.app.snapshot.load();
    let config: &Config = &snapshot.config;
    let mut text = String::new();
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
            "try:  curl -N http://{client}/v1/chat/completions{key} -H 'content-type: application/json' -d \
             '{{\"model\":\"{model}\",\"stream\":true,\"messages\":[{{\"role\":\"user\",\"content\":\"hello\"}}]}}'"
        );
        let key =
            if config.auth.admin_keys.is_empty() { "" } else { " -H \"authorization: Bearer $ADMIN_KEY\"" };
        let _ = writeln!(text, "why:  curl -s{key} 'http://{admin}/admin/v1/decisions?limit=1'");
    }
    text
}
