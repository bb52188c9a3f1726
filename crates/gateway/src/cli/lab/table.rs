//! Results for people.

use std::fmt::Write as _;

use pointsman_simulator::lab::{self, Results, Run, Strategy};

/// The results for people.
pub(super) fn table(results: &Results) -> String {
    let mut text = String::new();
    let traffic = &results.traffic;
    if !results.about.is_empty() {
        let _ = writeln!(text, "{}", results.about);
    }
    let _ = writeln!(
        text,
        "{}: {} requests in {:.0} s at rate x{}, {:.0} tokens in, {:.0} out on average",
        traffic.source,
        traffic.requests,
        traffic.span_s,
        traffic.rate,
        traffic.tokens_in_mean,
        traffic.tokens_out_mean
    );
    let _ = writeln!(
        text,
        "cacheable: {:.3} of prompt tokens without bounds, {:.3} by one cache of all engines' size",
        traffic.cacheable_share, traffic.cacheable_share_bounded
    );
    let _ = writeln!(
        text,
        "\n{:<28}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}{:>8}{:>8}{:>8}{:>7}{:>7}",
        "first token ms:",
        "mean",
        "p50",
        "p90",
        "p99",
        "token ms",
        "p99",
        "cached",
        "good",
        "util",
        "mean/",
        "p99/"
    );
    for one in &results.strategies {
        line(one, &mut text);
    }
    capacity_table(results, &mut text);
    for figure in &results.figures {
        let (mark, most) = (
            if figure.held { "held  " } else { "BROKEN" },
            if figure.at_most { "at most" } else { "at least" },
        );
        let _ = writeln!(text, "  {mark}  {}: {:.3} ({most} {})", figure.what, figure.value, figure.bound);
    }
    let _ = writeln!(text, "again: {}", results.command);
    text
}

/// One strategy in a line.
fn line(one: &Strategy, text: &mut String) {
    let mean = |of: fn(&Run) -> f64| lab::mean(&one.runs, of);
    let _ = writeln!(
        text,
        "{:<28}{:>9.0}{:>9.0}{:>9.0}{:>9.0}{:>9.1}{:>9.1}{:>8.3}{:>8.3}{:>8.2}{:>7.2}{:>7.2}",
        one.name,
        mean(|run| run.first_token_ms.mean),
        mean(|run| run.first_token_ms.p50),
        mean(|run| run.first_token_ms.p90),
        mean(|run| run.first_token_ms.p99),
        mean(|run| run.per_token_ms.mean),
        mean(|run| run.per_token_ms.p99),
        mean(|run| run.tokens_cached_share),
        mean(|run| run.goodput.share),
        mean(|run| run.balance.utilisation_mean),
        one.ratios.first_token_mean,
        one.ratios.first_token_p99,
    );
    let unfinished: u64 = one
        .runs
        .iter()
        .flat_map(|run| &run.outcomes)
        .filter(|(name, _)| *name != "completed")
        .map(|(_, count)| count)
        .sum();
    if unfinished > 0 {
        let _ = writeln!(text, "    {unfinished} requests of all seeds were not completed");
    }
}

fn capacity_table(results: &Results, text: &mut String) {
    let Some(first) = results.strategies.first().filter(|one| !one.capacity.is_empty()) else { return };
    let (good, first) = (results.objective, first.capacity.clone());
    let _ = writeln!(
        text,
        "\nlargest rate with such a share within {} ms to first token and {} ms per token (and over that of the first):",
        good.first_token_ms, good.per_token_ms
    );
    for one in &results.strategies {
        let _ = write!(text, "{:<28}", one.name);
        for (share, rate) in &one.capacity {
            let over = rate / first.get(share).copied().unwrap_or(f64::NAN);
            let over = if over.is_finite() { format!("{over:.2}x") } else { "-".to_owned() };
            let _ = write!(text, "  {share} %: {rate:.2} ({over})");
        }
        text.push('\n');
    }
}
