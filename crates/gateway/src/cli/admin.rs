//! Asking the admin API of the running process.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::reload::load;

/// Bytes of an answer, at most.
const ANSWER_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Where the admin API is, and the key to it.
#[derive(Debug, clap::Args)]
pub(super) struct AdminArgs {
    /// The config file of the running process, for the address of its admin API. Default: ./pointsman.yaml
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// The address of its admin API, instead of what the config says
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
    /// A key of the admin API, if it wants one
    #[arg(long, env = "POINTSMAN_ADMIN_KEY", hide_env_values = true, value_name = "KEY")]
    admin_key: Option<String>,
}

/// The admin API of the running process.
pub(super) struct Admin<'a> {
    address: SocketAddr,
    key: Option<&'a str>,
    patience: Duration,
}

impl AdminArgs {
    /// The admin API that is meant; it is given so much time for every answer.
    pub(super) fn api(&self, patience: Duration) -> anyhow::Result<Admin<'_>> {
        let address = match (self.admin, self.config.clone().or_else(super::serve::usual_config)) {
            (Some(address), _) => address,
            (None, Some(path)) => load(&path)?.admin,
            (None, None) => pointsman_settings::Config::default().admin,
        };
        Ok(Admin { address, key: self.admin_key.as_deref(), patience })
    }
}

impl Admin<'_> {
    /// What it answers to a request without a body.
    ///
    /// # Errors
    /// When it is not reached, or refuses; says in its words why.
    pub(super) fn ask(&self, method: &str, path: &str) -> anyhow::Result<Value> {
        let address = self.address;
        let answer = self.exchange(method, path).with_context(|| {
            format!("cannot ask the admin API at {address}; `--admin ADDRESS` says where it is")
        })?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split(' ').nth(1).unwrap_or_default();
        let body: Value = serde_json::from_str(body).unwrap_or_default();
        if status != "200" {
            bail!("{}", body["detail"].as_str().unwrap_or("the admin API gave no answer that is understood"));
        }
        Ok(body)
    }

    fn exchange(&self, method: &str, path: &str) -> std::io::Result<String> {
        let mut connection = TcpStream::connect_timeout(&self.address, self.patience)?;
        connection.set_read_timeout(Some(self.patience))?;
        let key = self.key.map(|key| format!("authorization: Bearer {key}\r\n")).unwrap_or_default();
        let host = self.address;
        write!(
            connection,
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: 0\r\nconnection: close\r\n{key}\r\n"
        )?;
        let mut answer = String::new();
        connection.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
        Ok(answer)
    }
}
