//! `pointsman upgrade`

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

use super::out;
use crate::reload::load;

/// Arguments of `upgrade`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The config file of the running process, for the address of its admin API. Default: ./pointsman.yaml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The address of its admin API, instead of what the config says
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
    /// A key of the admin API, if it wants one
    #[arg(long, env = "POINTSMAN_ADMIN_KEY", hide_env_values = true, value_name = "KEY")]
    admin_key: Option<String>,
}

/// More than the running process gives the new one.
const PATIENCE: Duration = Duration::from_secs(45);

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let address = match (args.admin, args.config.clone().or_else(super::serve::usual_config)) {
        (Some(address), _) => address,
        (None, Some(path)) => load(&path)?.admin,
        (None, None) => pointsman_settings::Config::default().admin,
    };
    let answer = ask(address, args.admin_key.as_deref()).with_context(|| {
        format!("cannot ask the admin API at {address}; `--admin ADDRESS` says where it is")
    })?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).unwrap_or_default();
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    if status != "200" {
        bail!("{}", body["detail"].as_str().unwrap_or("the admin API gave no answer that is understood"));
    }
    out(&format!(
        "process {} serves now; process {} finishes what is under way and ends\n",
        body["new_pid"], body["old_pid"]
    ))
}

fn ask(address: SocketAddr, key: Option<&str>) -> std::io::Result<String> {
    let mut connection = TcpStream::connect(address)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    let key = key.map(|key| format!("authorization: Bearer {key}\r\n")).unwrap_or_default();
    write!(
        connection,
        "POST /admin/v1/upgrade HTTP/1.1\r\nhost: {address}\r\ncontent-length: 0\r\nconnection: close\r\n{key}\r\n"
    )?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    Ok(answer)
}
