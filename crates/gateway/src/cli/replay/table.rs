//! A replay for people.

use std::fmt::Write as _;

use pointsman_simulator::page::Table;
use pointsman_simulator::replay::{Difference, Replay, Side};

/// Requests, rules, and deployments that are told, at most; the JSON has more.
const REQUESTS_MAX: usize = 10;
const RULES_MAX: usize = 8;
const DEPLOYMENTS_MAX: usize = 16;

/// The replay for people.
pub(super) fn told(replay: &Replay) -> String {
    let mut text = String::new();
    head(replay, &mut text);
    decisions(replay, &mut text);
    for model in replay.models() {
        columns(&replay.matrix(&model), &mut text);
    }
    rules(replay, &mut text);
    columns(&replay.effect_table(), &mut text);
    deployments(replay, &mut text);
    differences(replay, &mut text);
    text.push_str("\nto know\n");
    for note in &replay.notes {
        let _ = writeln!(text, "  - {note}");
    }
    let _ = writeln!(text, "again: {}", replay.command);
    text
}

fn head(replay: &Replay, text: &mut String) {
    let (log, told) = (&replay.log, &replay.told);
    let _ = write!(
        text,
        "{}: {} requests in {:.0} s, played under {}",
        log.name, log.requests, log.span_s, told.new
    );
    if let Some(was) = &told.was {
        let _ = write!(text, " and under {was}, which was before");
    }
    let seeds = told.seeds.len();
    let _ = writeln!(text, ", {seeds} {} each", if seeds == 1 { "time" } else { "times" });
    if !log.left_out.is_empty() {
        let _ = writeln!(text, "not played: {}", counts(&log.left_out));
    }
    if let Some(first) = log.bad_lines.first.first() {
        let _ = writeln!(
            text,
            "{} lines were left out, the first of them: line {} {}",
            log.bad_lines.count, first.line, first.what
        );
    }
    if let Some(fitted) = &told.fitted {
        let each = fitted.providers.iter().map(|(name, slow)| format!("{name} {slow:.2}"));
        let each = each.collect::<Vec<_>>().join(", ");
        let _ = writeln!(
            text,
            "engines, in times of {} by the log: {each}; others {:.2}",
            fitted.engine, fitted.others
        );
    }
}

fn counts(counts: &std::collections::BTreeMap<String, u64>) -> String {
    counts.iter().map(|(what, count)| format!("{count} {what}")).collect::<Vec<_>>().join(", ")
}

fn decisions(replay: &Replay, text: &mut String) {
    let (decisions, not, chance) = (replay.decisions, &replay.not_compared, &replay.chance);
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    let _ = writeln!(text, "\ndecisions, the log's and the new config's");
    let mut row = |name: &str, count: u64, beside: &str| {
        let _ = writeln!(text, "  {name:<16}{count:>10}  {beside}");
    };
    row("agree", decisions.agree, &percent(decisions.agree_share));
    row("differ", decisions.differ, &percent(1.0 - decisions.agree_share));
    row("not compared", not.count, &counts(&not.why));
    let mut line = |what: &str, told: &str| {
        if !told.is_empty() {
            let _ = writeln!(text, "  {what:<28}{told}");
        }
    };
    line("models not known:", &counts(&not.models_unknown));
    line("deployments not known:", &counts(&not.deployments_unknown));
    if not.refused_then_sent_now > 0 {
        line("refused then, sent now:", &not.refused_then_sent_now.to_string());
    }
    let list = |shares: &[f64]| shares.iter().map(|share| percent(*share)).collect::<Vec<_>>().join(", ");
    line("agree, by seed:", &list(&chance.log_and_new));
    line("the config before did so:", &list(&chance.log_and_was));
    line("before and new agree:", &list(&chance.was_and_new));
    match chance.new_and_itself {
        Some(share) => line(
            "chance alone:",
            &format!("two runs of the new config with different seeds agree in {}", percent(share)),
        ),
        None => line("chance alone:", "not known; --seeds 3 would tell"),
    }
}

/// A table as columns: the first to the left, the others to the right.
fn columns(table: &Table, text: &mut String) {
    let cell = |row: &[String], at: usize| row.get(at).cloned().unwrap_or_default();
    let rows: Vec<Vec<String>> = std::iter::once(table.columns.clone())
        .chain(table.rows.iter().map(|row| row.iter().map(|cell| cell.text.clone()).collect()))
        .collect();
    let width = |at: usize| rows.iter().map(|row| cell(row, at).chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..table.columns.len()).map(width).collect();
    let _ = writeln!(text, "\n{}", table.caption);
    for row in &rows {
        let _ = write!(text, "  {:<1$}", cell(row, 0), widths[0]);
        for (at, width) in widths.iter().enumerate().skip(1) {
            let _ = write!(text, "   {:>width$}", cell(row, at));
        }
        text.push('\n');
    }
}

fn rules(replay: &Replay, text: &mut String) {
    text.push_str("\nby which rule, recorded and now\n");
    for one in replay.rules.iter().take(RULES_MAX) {
        let same = if one.recorded == one.new { "as before" } else { &one.new };
        let _ = writeln!(text, "  {:>8}  {}  ->  {same}", one.count, one.recorded);
    }
}

fn deployments(replay: &Replay, text: &mut String) {
    let Some(table) = replay.deployments_table() else { return };
    let more = table.rows.len().saturating_sub(DEPLOYMENTS_MAX);
    let rows = table.rows.into_iter().take(DEPLOYMENTS_MAX).collect();
    columns(&Table { rows, ..table }, text);
    if more > 0 {
        let _ = writeln!(text, "  and {more} more; the JSON has them");
    }
}

fn differences(replay: &Replay, text: &mut String) {
    let shown = replay.differences.len().min(REQUESTS_MAX);
    if shown == 0 {
        return;
    }
    let _ = writeln!(
        text,
        "\n{shown} of {} requests that go elsewhere, the largest change of the time to first token first",
        replay.decisions.differ
    );
    for one in replay.differences.iter().take(shown) {
        difference(one, text);
    }
}

fn difference(one: &Difference, text: &mut String) {
    let ms = |side: &Side| {
        side.first_token_ms.map_or_else(|| "no first token".to_owned(), |ms| format!("{ms:.0} ms"))
    };
    let change = one.change_ms.map(|change| format!(", {change:+.0} ms")).unwrap_or_default();
    let _ = writeln!(
        text,
        "  {}  {}, {} tokens in, {} out{change}",
        one.request_id, one.model, one.tokens_in, one.tokens_out
    );
    let mut line = |what: &str, side: &Side, how: &str| {
        let why = if side.why.is_empty() { String::new() } else { format!(" by {}", side.why) };
        let _ = writeln!(text, "      {what:<9} {} ({} {how}){why}", side.name(), ms(side));
    };
    line("recorded", &one.recorded, "recorded");
    if let Some(was) = &one.was {
        line("before", was, "simulated");
    }
    line("now", &one.new, "simulated");
    if let (Some(instead), Some(name)) = (&one.instead, &one.recorded.deployment) {
        let _ = writeln!(text, "      while     {name}: {instead}");
    }
}
