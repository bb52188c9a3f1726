//! The command line. Exit codes: 0 fine, 1 failed, 2 bad usage or bad config.

mod admin;
mod check;
mod doctor;
mod explain;
mod import;
mod keys;
mod lab;
mod records;
mod replay;
mod scenarios;
mod serve;
mod simulate;
mod upgrade;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use serde_json::json;

use crate::mock::MockArgs;
use crate::reload::LoadError;

/// A router in front of every model a team uses: it picks the deployment that serves a request, and can say why.
#[derive(Debug, Parser)]
#[command(name = "pointsman", version, about, long_about = None, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Without a command: serve
    #[command(flatten)]
    serve: serve::Args,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve (what happens without a command, too)
    Serve(serve::Args),
    /// Check a config file: every mistake with line, column and what was probably meant
    Check(check::Args),
    /// Say what would be decided for a request, without sending it
    Explain(explain::Args),
    /// Drive the config's rules through simulated traffic, in virtual time
    Simulate(Box<simulate::Args>),
    /// Say what would have happened to recorded traffic under another config: which decisions differ, and the effect
    Replay(Box<replay::Args>),
    /// Say what is wrong with the running process; with --baseline, what its traffic is like and what is at risk
    Doctor(doctor::Args),
    /// Make a config of that of another router; what has no place in it is told on standard error
    Import(import::Args),
    /// Run a fake inference server to try things on
    Mock(MockArgs),
    /// Have the running process start this program anew and hand its sockets over; no connection is refused. The
    /// signal SIGUSR2 does the same
    Upgrade(upgrade::Args),
    /// Make a client key, or hash one
    Keys(keys::Args),
    /// Print the JSON Schema of the config file
    Schema,
    /// Print a script that completes commands in a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Runs the command line.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let command = cli.command.unwrap_or(Command::Serve(cli.serve));
    let json = command.prints_json();
    let done = match command {
        Command::Serve(args) => serve::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Simulate(args) => simulate::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Mock(args) => mock(args),
        Command::Upgrade(args) => upgrade::run(&args),
        Command::Keys(args) => keys::run(&args),
        Command::Schema => out(&format!("{:#}\n", pointsman_settings::schema())),
        Command::Completions { shell } => completions(shell),
    };
    let Err(error) = done else { return ExitCode::SUCCESS };
    report(&error, json);
    let bad_config = error.chain().any(|cause| cause.is::<LoadError>() || cause.is::<BadUsage>());
    ExitCode::from(if bad_config { 2 } else { 1 })
}

impl Command {
    /// Whether what it prints, errors included, is to be JSON.
    fn prints_json(&self) -> bool {
        match self {
            Self::Check(args) => args.json,
            Self::Doctor(args) => args.json,
            Self::Explain(args) => args.json,
            Self::Simulate(args) => args.json,
            Self::Replay(args) => args.json,
            Self::Keys(args) => args.json,
            Self::Serve(_)
            | Self::Import(_)
            | Self::Mock(_)
            | Self::Upgrade(_)
            | Self::Schema
            | Self::Completions { .. } => false,
        }
    }
}

/// Says what went wrong: in words on standard error, or as JSON where the result would have been.
fn report(error: &anyhow::Error, json: bool) {
    if error.is::<Reported>() {
        return;
    }
    if !json {
        let _ = writeln!(io::stderr(), "error: {error:#}");
        return;
    }
    let told = error
        .downcast_ref::<explain::Refused>()
        .map_or_else(|| json!({"message": format!("{error:#}")}), explain::Refused::to_json);
    let _ = out(&format!("{}\n", json!({"error": told})));
}

/// A failure that is on standard output already; only the exit code is left to tell it.
#[derive(Debug, thiserror::Error)]
#[error("reported already")]
struct Reported;

/// What was asked for cannot be done as it was asked.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct BadUsage(String);

fn mock(args: MockArgs) -> anyhow::Result<()> {
    args.settings.check().map_err(BadUsage)?;
    crate::mock::run(args)
}

fn completions(shell: clap_complete::Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "pointsman", &mut script);
    out(&String::from_utf8_lossy(&script))
}

/// Says what was not quite right on standard error.
fn warn(lines: &[String]) {
    for line in lines {
        let _ = writeln!(io::stderr(), "warning: {line}");
    }
}

/// Prints to standard output. A reader that has gone is no error.
fn out(text: &str) -> anyhow::Result<()> {
    match io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
