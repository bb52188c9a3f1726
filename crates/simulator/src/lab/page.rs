//! The results as a page to decide by.

use std::fmt::Write;

use super::compare::mean;
use super::results::{Remap, Results, Run, Series as OverTime, Strategy};
use crate::page::{Axis, Bars, Block, Cell, Lines, Page, Section, Series, Table};

/// Tenants and engines that a chart shows at most.
const SHOWN_MAX: usize = 24;
/// Below so many times the spread over seeds two means are the same.
const SPREADS_APART: f64 = 2.0;

impl Results {
    /// The results as one HTML page that needs nothing else.
    pub fn to_html(&self) -> String {
        let title = if self.about.is_empty() { "Strategies side by side" } else { &self.about };
        Page { title: title.to_owned(), lead: self.lead(), sections: self.sections() }.to_html()
    }

    /// What the page shows.
    pub(crate) fn sections(&self) -> Vec<Section> {
        let sections = [
            Some(self.figures()),
            self.capacity(),
            Some(self.times()),
            Some(self.over_time()),
            self.balance(),
            self.tenants(),
            Some(self.steadiness()),
            Some(self.method()),
        ];
        sections.into_iter().flatten().collect()
    }

    /// Who is best at what, and whether that is more than chance.
    fn lead(&self) -> String {
        let traffic = &self.traffic;
        let mut text = format!(
            "{} requests in {:.0} s ({}, at {} times its own rate). ",
            traffic.requests, traffic.span_s, traffic.source, traffic.rate
        );
        let Some(first) = self.strategies.first().filter(|_| self.strategies.len() > 1) else { return text };
        let mut told = |what: &str, of: fn(&Run) -> f64| {
            let mut by: Vec<&Strategy> = self.strategies.iter().collect();
            by.sort_by(|a, b| mean(&a.runs, of).total_cmp(&mean(&b.runs, of)));
            let (best, second) = (by[0], by[1]);
            let (value, next) = (mean(&best.runs, of), mean(&second.runs, of));
            let noise = spread(&best.runs, of).max(spread(&second.runs, of));
            let close = next - value <= SPREADS_APART * noise || value >= next * 0.99;
            let _ = write!(text, "The {what} is lowest with {} ({value:.0} ms", best.name);
            if best.name != first.name {
                let of_first = value / mean(&first.runs, of);
                let _ = write!(text, ", {of_first:.2} times that of {}", first.name);
            }
            let hint = if close { "no more than chance apart from" } else { "ahead of" };
            let _ = write!(text, "), {hint} {} ({next:.0} ms). ", second.name);
        };
        told("mean time to first token", |run| run.first_token_ms.mean);
        told("99th percentile", |run| run.first_token_ms.p99);
        let broken: usize = self.runs().map(|run| run.broken.len()).sum();
        if broken > 0 {
            let _ = write!(text, "{broken} invariants did not hold: do not rely on these figures.");
        }
        text
    }

    fn runs(&self) -> impl Iterator<Item = &Run> {
        self.strategies.iter().flat_map(|strategy| &strategy.runs)
    }

    /// A table with a row for each strategy.
    fn table(&self, caption: &str, columns: &[Column]) -> Block {
        let mut rows: Vec<Vec<Cell>> =
            self.strategies.iter().map(|strategy| vec![strategy.name.as_str().into()]).collect();
        for column in columns {
            let values: Vec<f64> = self.strategies.iter().map(|one| mean(&one.runs, column.of)).collect();
            let mut cells = Table::marked(&values, column.lower_is_better, |value| (column.text)(value));
            for (cell, strategy) in cells.iter_mut().zip(&self.strategies) {
                if strategy.runs.len() > 1 && column.shows_spread {
                    let _ = write!(cell.text, " ± {}", (column.text)(spread(&strategy.runs, column.of)));
                }
            }
            rows.iter_mut().zip(cells).for_each(|(row, cell)| row.push(cell));
        }
        let heads = columns.iter().map(|column| column.name.to_owned());
        let columns = std::iter::once("strategy".to_owned()).chain(heads).collect();
        Block::Table(Table { caption: caption.to_owned(), columns, rows })
    }

    fn figures(&self) -> Section {
        let objective = self.objective;
        let caption = format!(
            "Means over {} seeds (± standard deviation). Good: first token within {} ms and {} ms per token.",
            self.strategies.first().map_or(0, |one| one.runs.len()),
            objective.first_token_ms,
            objective.per_token_ms
        );
        let columns = [
            Column::millis("first token, mean ms", |run| run.first_token_ms.mean).with_spread(),
            Column::millis("p50", |run| run.first_token_ms.p50),
            Column::millis("p90", |run| run.first_token_ms.p90),
            Column::millis("p99", |run| run.first_token_ms.p99).with_spread(),
            Column::millis("per token, mean ms", |run| run.per_token_ms.mean).tenths(),
            Column::millis("p99", |run| run.per_token_ms.p99).tenths(),
            Column::share("good", |run| run.goodput.share),
            Column::share("prompt tokens cached", |run| run.tokens_cached_share),
        ];
        let unfinished = |strategy: &Strategy| -> u64 {
            let outcomes = strategy.runs.iter().flat_map(|run| &run.outcomes);
            outcomes.filter(|(name, _)| *name != "completed").map(|(_, count)| count).sum()
        };
        let mut blocks = vec![self.table(&caption, &columns)];
        for strategy in self.strategies.iter().filter(|strategy| unfinished(strategy) > 0) {
            let count = unfinished(strategy);
            blocks.push(Block::Text(format!("{count} requests with {} were not completed.", strategy.name)));
        }
        Section { heading: "Figures".to_owned(), blocks }
    }

    fn capacity(&self) -> Option<Section> {
        let groups: Vec<String> = self.strategies.first()?.capacity.keys().cloned().collect();
        if groups.is_empty() {
            return None;
        }
        let series = self.strategies.iter().map(|strategy| {
            let rates = groups.iter().map(|share| strategy.capacity.get(share).copied().unwrap_or(f64::NAN));
            (strategy.name.clone(), rates.collect())
        });
        let bars = Bars {
            caption:
                "The largest rate, in multiples of the recorded one, at which this share of requests is good."
                    .to_owned(),
            y: axis("times the recorded rate", false),
            groups: groups.iter().map(|share| format!("{share} % good")).collect(),
            series: series.collect(),
        };
        Some(Section { heading: "Capacity".to_owned(), blocks: vec![Block::Bars(bars)] })
    }

    /// Bars with a group for each figure and a bar for each strategy.
    fn bars(&self, caption: &str, label: &str, logarithmic: bool, groups: &[Named]) -> Block {
        let of = |strategy: &Strategy| groups.iter().map(|(_, of)| mean(&strategy.runs, of)).collect();
        Block::Bars(Bars {
            caption: caption.to_owned(),
            y: axis(label, logarithmic),
            groups: groups.iter().map(|(name, _)| (*name).to_owned()).collect(),
            series: self.strategies.iter().map(|one| (one.name.clone(), of(one))).collect(),
        })
    }

    fn times(&self) -> Section {
        let first: [Named; 4] = [
            ("mean", |run| run.first_token_ms.mean),
            ("p50", |run| run.first_token_ms.p50),
            ("p90", |run| run.first_token_ms.p90),
            ("p99", |run| run.first_token_ms.p99),
        ];
        let each: [Named; 4] = [
            ("mean", |run| run.per_token_ms.mean),
            ("p50", |run| run.per_token_ms.p50),
            ("p90", |run| run.per_token_ms.p90),
            ("p99", |run| run.per_token_ms.p99),
        ];
        let slow: [Named; 4] = [
            ("mean", |run| run.slowdown.mean),
            ("p50", |run| run.slowdown.p50),
            ("p90", |run| run.slowdown.p90),
            ("p99", |run| run.slowdown.p99),
        ];
        let blocks = vec![
            self.bars("Time to first token.", "ms (each step ten times)", true, &first),
            self.bars("Time per token after the first.", "ms", false, &each),
            self.bars(
                "Time to first token, as many times what the same prompt takes alone on an idle engine.",
                "times (each step ten times)",
                true,
                &slow,
            ),
        ];
        Section { heading: "Times".to_owned(), blocks }
    }

    fn over_time(&self) -> Section {
        let lines = |caption: &str, label: &str, of: fn(&OverTime) -> &Vec<f64>| {
            let series = self.strategies.iter().filter_map(|strategy| {
                let over = &strategy.runs.first()?.series;
                let at = |(step, value): (usize, &f64)| ((step as f64 + 0.5) * over.step_s, *value);
                Some(Series {
                    name: strategy.name.clone(),
                    points: of(over).iter().enumerate().map(at).collect(),
                })
            });
            Block::Lines(Lines {
                caption: caption.to_owned(),
                x: axis("seconds", false),
                y: axis(label, false),
                series: series.collect(),
            })
        };
        let blocks = vec![
            lines("Time to first token of those whose first token came then.", "ms", |over| {
                &over.first_token_ms
            }),
            lines("Share of time in which engines worked.", "share", |over| &over.utilisation),
            lines("Requests that wait in routers.", "requests", |over| &over.queued),
            lines("Requests that wait in engines.", "requests", |over| &over.engine_queued),
            lines("How even the tokens in flight are (Jain index; 1 is even).", "index", |over| &over.jain),
            lines("Tokens in flight on the most loaded engine, to the average.", "times", |over| {
                &over.max_to_mean
            }),
        ];
        Section { heading: "Over time".to_owned(), blocks }
    }

    fn balance(&self) -> Option<Section> {
        let columns = [
            Column::share("engines at work", |run| run.balance.utilisation_mean),
            Column::share("the busiest", |run| run.balance.utilisation_max),
            Column::plain("Jain index", false, |run| run.balance.jain),
            Column::plain("most to mean, in flight", true, |run| run.balance.max_to_mean),
            Column::plain("most to mean, work done", true, |run| run.balance.work_max_to_mean),
            Column::plain("idle while others waited, s", true, |run| run.idle_while_queued_s),
            Column::millis("put back by engines", |run| run.preempted as f64),
        ];
        let mut blocks = vec![self.table("How evenly the work was shared out.", &columns)];
        let engines = &self.strategies.first()?.runs.first()?.balance.engines;
        if (2..=SHOWN_MAX).contains(&engines.len()) {
            let of = |strategy: &Strategy| {
                let engines = strategy.runs.first().map(|run| &run.balance.engines);
                engines.into_iter().flatten().map(|engine| engine.utilisation).collect()
            };
            blocks.push(Block::Bars(Bars {
                caption: "Share of time in which each engine worked.".to_owned(),
                y: axis("share", false),
                groups: engines.iter().map(|engine| engine.name.clone()).collect(),
                series: self.strategies.iter().map(|one| (one.name.clone(), of(one))).collect(),
            }));
        }
        Some(Section { heading: "Balance".to_owned(), blocks })
    }

    fn tenants(&self) -> Option<Section> {
        let tenants = &self.strategies.first()?.runs.first()?.tenants;
        if tenants.len() < 2 {
            return None;
        }
        let names: Vec<&str> = tenants.iter().take(SHOWN_MAX).map(|tenant| tenant.name.as_str()).collect();
        let bars = |caption: &str, label: &str, of: fn(&super::results::Tenant) -> f64| {
            let values = |strategy: &Strategy| {
                let known = strategy.runs.first().map_or(&[][..], |run| &run.tenants);
                let find = |name: &&str| known.iter().find(|tenant| tenant.name == **name);
                names.iter().map(|name| find(name).map_or(f64::NAN, of)).collect()
            };
            Block::Bars(Bars {
                caption: caption.to_owned(),
                y: axis(label, false),
                groups: names.iter().map(|name| (*name).to_owned()).collect(),
                series: self.strategies.iter().map(|one| (one.name.clone(), values(one))).collect(),
            })
        };
        let blocks = vec![
            bars("Time to first token of each tenant, p99.", "ms", |tenant| tenant.first_token_ms.p99),
            bars(
                "What each was given: its share of uncached prompt tokens and twice the output.",
                "share",
                |tenant| tenant.share,
            ),
        ];
        Some(Section { heading: "Tenants".to_owned(), blocks })
    }

    fn steadiness(&self) -> Section {
        let columns = [
            Column::plain("swings (below 0.2 is steady)", true, |run| run.jitter.oscillation),
            Column::plain("changes of health an hour", true, |run| run.jitter.flaps_per_hour),
            Column::plain("sessions moved, of 1,000 turns", true, |run| run.jitter.affinity_breaks_per_1000),
            Column::share("prefixes moved", |run| run.jitter.remap_share).lower(),
        ];
        let mut blocks = vec![self.table("What moved that had better stayed.", &columns)];
        let changes = self.strategies.first().and_then(|one| one.runs.first());
        if let Some(changes) = changes.map(|run| &run.remaps).filter(|changes| !changes.is_empty()) {
            let of = |remap: &Remap| {
                let (before, after) = remap.engines;
                format!("{before} to {after}: {:.1} % have to", remap.share_least * 1e2)
            };
            blocks.push(Block::Text(format!(
                "Deployments left or came {} times ({}). Keys that moved, of those that came again, and of these such that \
                 need not have: the change at which it was most.",
                changes.len(),
                changes.iter().map(of).collect::<Vec<_>>().join("; ")
            )));
            let columns = [
                Column::share("keys moved", |run| run.jitter.remap_on_reload).lower(),
                Column::share("needlessly", |run| run.jitter.remap_needless).lower(),
            ];
            blocks.push(self.table("Keys that moved when deployments left or came.", &columns));
        }
        Section { heading: "Steadiness".to_owned(), blocks }
    }

    fn method(&self) -> Section {
        let traffic = &self.traffic;
        let blocks = vec![
            Block::Text(format!(
                "Every strategy was run by the code that serves live traffic, on the same arrivals, in virtual time. {} \
                 router(s); engines' reports are {:.0} ms old. Prompts have {:.0} tokens on average, answers {:.0}. A \
                 cache without bounds would have {:.1} % of prompt tokens, one cache as large as those of all engines \
                 together {:.1} %.",
                self.routers,
                self.staleness_ms,
                traffic.tokens_in_mean,
                traffic.tokens_out_mean,
                traffic.cacheable_share * 100.0,
                traffic.cacheable_share_bounded * 100.0
            )),
            Block::Text(
                "The engine is a model: steps of chunked prefill and batched decode with published coefficients. Compare \
                 strategies by it; do not take its milliseconds for those of your machines. One trace is one day of one \
                 service."
                    .to_owned(),
            ),
            Block::Code(self.command.clone()),
        ];
        Section { heading: "How this was found".to_owned(), blocks }
    }
}

/// A figure of a run and what it is called.
type Named = (&'static str, fn(&Run) -> f64);

/// A column of a table with a row for each strategy.
struct Column {
    name: &'static str,
    lower_is_better: bool,
    shows_spread: bool,
    of: fn(&Run) -> f64,
    text: fn(f64) -> String,
}

impl Column {
    fn millis(name: &'static str, of: fn(&Run) -> f64) -> Self {
        Self { name, lower_is_better: true, shows_spread: false, of, text: |value| format!("{value:.0}") }
    }

    fn share(name: &'static str, of: fn(&Run) -> f64) -> Self {
        let text = |value: f64| format!("{:.1} %", value * 100.0);
        Self { name, lower_is_better: false, shows_spread: false, of, text }
    }

    fn plain(name: &'static str, lower_is_better: bool, of: fn(&Run) -> f64) -> Self {
        Self { name, lower_is_better, shows_spread: false, of, text: |value| format!("{value:.2}") }
    }

    fn with_spread(self) -> Self {
        Self { shows_spread: true, ..self }
    }

    fn tenths(self) -> Self {
        Self { text: |value| format!("{value:.1}"), ..self }
    }

    fn lower(self) -> Self {
        Self { lower_is_better: true, ..self }
    }
}

fn axis(label: &str, logarithmic: bool) -> Axis {
    Axis { label: label.to_owned(), logarithmic }
}

/// The standard deviation of a figure over seeds; 0 of one.
fn spread(runs: &[Run], of: impl Fn(&Run) -> f64 + Copy) -> f64 {
    if runs.len() < 2 {
        return 0.0;
    }
    let middle = mean(runs, of);
    let squares: f64 = runs.iter().map(|run| (of(run) - middle).powi(2)).sum();
    (squares / (runs.len() - 1) as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::{Objective, Spread, Tenant, Traffic};

    fn strategy(name: &str, first_token_ms: f64) -> Strategy {
        let tenant =
            |name: &str| Tenant { name: name.to_owned(), requests: 5, share: 0.5, ..Tenant::default() };
        let run = |seed: u64| {
            let mean = first_token_ms + seed as f64;
            Run {
                seed,
                first_token_ms: Spread { mean, p50: mean, p90: mean, p99: mean * 9.0, max: mean * 10.0 },
                series: OverTime { step_s: 1.0, utilisation: vec![0.5; 10], ..OverTime::default() },
                tenants: vec![tenant("a"), tenant("<b>")],
                ..Run::default()
            }
        };
        Strategy {
            name: name.to_owned(),
            runs: (1..=3).map(run).collect(),
            ratios: crate::lab::Ratios::default(),
            capacity: [("90".to_owned(), 2.0)].into(),
        }
    }

    fn results(strategies: Vec<Strategy>) -> Results {
        let traffic = Traffic {
            source: "a trace (x.csv)".to_owned(),
            requests: 100,
            span_s: 60.0,
            rate: 1.0,
            tokens_in_mean: 100.0,
            tokens_out_mean: 10.0,
            cacheable_share: 0.4,
            cacheable_share_bounded: 0.3,
        };
        Results {
            about: String::new(),
            command: "pointsman simulate --trace x.csv".to_owned(),
            traffic,
            objective: Objective::default(),
            routers: 1,
            staleness_ms: 0.0,
            strategies,
            figures: Default::default(),
        }
    }

    #[test]
    fn a_page_says_who_is_best_and_how_sure_that_is() {
        let page = results(vec![strategy("round_robin", 1_000.0), strategy("adaptive", 500.0)]).to_html();
        assert!(
            page.contains("lowest with adaptive (502 ms, 0.50 times that of round_robin), ahead of"),
            "{page}"
        );
        let close = results(vec![strategy("a", 500.0), strategy("b", 501.0)]).to_html();
        assert!(close.contains("no more than chance apart from"));
    }

    #[test]
    fn a_page_has_every_part_and_names_are_text() {
        let page = results(vec![strategy("round_robin", 1_000.0), strategy("adaptive", 500.0)]).to_html();
        for part in [
            "Figures",
            "Capacity",
            "Times",
            "Over time",
            "Balance",
            "Tenants",
            "Steadiness",
            "How this was found",
        ] {
            assert!(page.contains(&format!("<h2>{part}</h2>")), "{part}");
        }
        assert!(page.contains("pointsman simulate --trace x.csv") && !page.contains("<b>"));
        assert!(results(Vec::new()).to_html().contains("</html>"), "nothing is no trouble");
    }
}
