//! `pointsman simulate`

use std::fmt::Write;
use std::path::PathBuf;

use pointsman_simulator::{Rate, Report, Spec, run as simulate};

use super::{BadUsage, lab, out, scenarios};
use crate::reload::load;

/// Arguments of `simulate`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The config file. Default: ./pointsman.yaml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A scenario file, or a folder of them: config, traffic, faults, and what must hold
    #[arg(long, value_name = "PATH", conflicts_with_all = ["config", "model", "requests", "rate", "error_rate", "leave_rate"])]
    scenario: Option<PathBuf>,
    /// Run with the seeds from 1 to N: of a scenario the worst of every figure is printed, of a trace the mean
    #[arg(long, value_name = "N", conflicts_with_all = ["seed", "random"])]
    seeds: Option<u64>,
    /// Run a small world that draws from everything there is: all of it follows from --seed
    #[arg(long, conflicts_with_all = ["scenario", "config", "model", "requests", "rate", "error_rate", "leave_rate"])]
    random: bool,
    /// Print that world as a scenario file instead
    #[arg(long, requires = "random", conflicts_with = "json")]
    print_scenario: bool,
    /// The model that is asked for. Default: the first of the config
    #[arg(long)]
    model: Option<String>,
    /// What all chance follows from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Requests in all
    #[arg(long, default_value_t = 10_000)]
    requests: u64,
    /// Requests a second (default: 50); with --trace, how many times as fast it is played, such as x2 (default: 1)
    #[arg(long)]
    rate: Option<String>,
    #[command(flatten)]
    lab: lab::Args,
    /// Share of attempts that fail with 500
    #[arg(long, default_value_t = 0.0)]
    error_rate: f64,
    /// Share of clients that leave
    #[arg(long, default_value_t = 0.0)]
    leave_rate: f64,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

impl Args {
    /// The number behind `--rate`.
    fn rate(&self) -> anyhow::Result<Option<f64>> {
        let Some(text) = &self.rate else { return Ok(None) };
        let number = text.trim_start_matches(['x', '×']).parse().ok();
        let number = number.filter(|rate: &f64| *rate > 0.0 && rate.is_finite());
        number
            .map(Some)
            .ok_or_else(|| BadUsage(format!("--rate must be a number above 0, not `{text}`")).into())
    }
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    if args.lab.is_asked() {
        let (rate, seeds) = (args.rate()?, args.seeds);
        let common = lab::Common {
            config: args.config.as_deref(),
            model: args.model.as_deref(),
            rate,
            seeds: seeds.map_or(args.seed..=args.seed, |count| 1..=count.max(1)),
            json: args.json,
        };
        return lab::run(&args.lab, &common);
    }
    let stray = args.lab.stray().or((args.seeds.is_some() && args.scenario.is_none()).then_some("--seeds"));
    if let Some(flag) = stray {
        return Err(BadUsage(format!("{flag} goes with --trace or --lab")).into());
    }
    if let Some(path) = &args.scenario {
        return scenarios::run(path, args.seed, args.seeds, args.json);
    }
    if args.print_scenario {
        return scenarios::print_random(args.seed);
    }
    if args.random {
        return scenarios::run_random(args.seed, args.json);
    }
    let path = args.config.clone().or_else(super::serve::usual_config);
    let path = path.ok_or_else(|| BadUsage("say which config to simulate: --config FILE".to_owned()))?;
    let config = load(&path)?;
    let model = args.model.clone().or_else(|| config.models.keys().next().cloned());
    let model = model.filter(|model| config.models.contains_key(model));
    let model = model.ok_or_else(|| BadUsage("the config has no such model; see --model".to_owned()))?;
    let rate = args.rate()?.unwrap_or(50.0);
    let spec = Spec {
        model: model.clone(),
        requests: args.requests,
        rates: vec![Rate { from_s: 0.0, per_s: rate }],
        error_rate: args.error_rate,
        leave_rate: args.leave_rate,
        ..Spec::default()
    };
    let report = simulate(&config.catalog(), &spec, args.seed);
    if args.json {
        return out(&format!("{}\n", serde_json::to_string_pretty(&report)?));
    }
    let mut text = table(&model, &report);
    let (file, seed, requests) = (path.display(), args.seed, args.requests);
    let _ = writeln!(
        text,
        "again: pointsman simulate --config {file} --model {model} --seed {seed} --requests {requests} --rate {rate} \
         --error-rate {} --leave-rate {}",
        args.error_rate, args.leave_rate
    );
    out(&text)
}

/// The report for people.
pub(super) fn table(model: &str, report: &Report) -> String {
    let mut text = String::new();
    let outcomes =
        report.outcomes.iter().map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", ");
    let _ =
        writeln!(text, "model {model}: {} requests in {:.0} s: {outcomes}", report.requests, report.span_s);
    let _ = writeln!(
        text,
        "first content p50 {:.0} ms, p99 {:.0} ms; queue wait p99 {:.0} ms; {} attempts",
        report.first_content_ms_p50, report.first_content_ms_p99, report.queue_wait_ms_p99, report.attempts
    );
    for (name, one) in &report.deployments {
        let (share, inflight) = (one.share * 100.0, one.inflight_mean);
        let _ = writeln!(
            text,
            "  {name:<40} {:>7} attempts ({share:>5.1} %), {:>5} failed, {inflight:>6.1} in flight on average",
            one.attempts, one.failures
        );
    }
    text
}
