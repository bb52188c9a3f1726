//! `pointsman upgrade`

use std::time::Duration;

use super::admin::AdminArgs;
use super::out;

/// Arguments of `upgrade`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    admin: AdminArgs,
}

/// More than the running process gives the new one.
const PATIENCE: Duration = Duration::from_secs(45);

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let body = args.admin.api(PATIENCE)?.ask("POST", "/admin/v1/upgrade")?;
    out(&format!(
        "process {} serves now; process {} finishes what is under way and ends\n",
        body["new_pid"], body["old_pid"]
    ))
}
