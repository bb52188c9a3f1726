//! A replay as a page to decide by.

use std::fmt::Write;

use super::report::{Difference, Effect, Moved, Replay, Share, Side};
use crate::page::{Axis, Bars, Block, Cell, Page, Section, Table};

/// Deployments that a matrix or a chart shows, at most.
const SHOWN_MAX: usize = 24;
/// Requests that a page shows, at most.
const DIFFERENCES_SHOWN_MAX: usize = 100;

impl Replay {
    /// The replay as one HTML page that needs nothing else.
    pub fn to_html(&self) -> String {
        let mut sections = vec![self.decisions_section(), self.effect_section()];
        sections.extend(self.deployments_section());
        sections.push(self.differences_section());
        let notes = self.notes.iter().cloned().map(Block::Text).collect();
        sections.push(Section { heading: "What to know when reading this".to_owned(), blocks: notes });
        sections.extend(
            self.results
                .sections()
                .into_iter()
                .map(|section| Section { heading: format!("{} (simulated)", section.heading), ..section }),
        );
        let title = format!("What would have happened under {}", self.told.new);
        Page { title, lead: self.lead(), sections }.to_html()
    }

    /// What it comes to, in a few sentences.
    pub fn lead(&self) -> String {
        let decisions = self.decisions;
        let mut text = format!(
            "Of {} requests of {}, {} can be compared: {} decisions agree ({:.1} %), {} differ. ",
            self.log.requests,
            self.log.name,
            decisions.compared,
            decisions.agree,
            decisions.agree_share * 100.0,
            decisions.differ
        );
        if let Some(share) = self.chance.new_and_itself {
            let _ = write!(
                text,
                "Two runs of the new config with different seeds agree in {:.1} %; what is below that is change, not chance. ",
                share * 100.0
            );
        }
        if let [.., was, new] = &self.effect[..] {
            let _ = write!(
                text,
                "The mean time to first token is {:.0} ms simulated, {:.0} ms {}.",
                new.first_token_ms.mean,
                was.first_token_ms.mean,
                if was.simulated { "under the config before, simulated as well" } else { "recorded" }
            );
        }
        text
    }

    fn decisions_section(&self) -> Section {
        let percent = |share: f64| format!("{:.1} %", share * 100.0);
        let mean = |shares: &[f64]| shares.iter().sum::<f64>() / shares.len().max(1) as f64;
        let mut rows: Vec<Vec<Cell>> =
            vec![vec!["the log and the new config".into(), percent(mean(&self.chance.log_and_new)).into()]];
        let mut row = |name: &str, share: Option<f64>| {
            rows.extend(share.map(|share| vec![name.into(), percent(share).into()]));
        };
        let known = |shares: &[f64]| (!shares.is_empty()).then(|| mean(shares));
        row("the log and the config before", known(&self.chance.log_and_was));
        row("the config before and the new one, same seed", known(&self.chance.was_and_new));
        row("the new config and itself, another seed (chance alone)", self.chance.new_and_itself);
        row("the config before and itself, another seed (chance alone)", self.chance.was_and_itself);
        let mut blocks = vec![Block::Table(Table {
            caption: "Share of requests that go to the same deployment first; means over seeds.".to_owned(),
            columns: vec!["between".to_owned(), "agree".to_owned()],
            rows,
        })];
        if self.not_compared.count > 0 {
            let why = self
                .not_compared
                .why
                .iter()
                .map(|(why, count)| vec![why.as_str().into(), count.to_string().into()]);
            blocks.push(Block::Table(Table {
                caption: "Requests that were not compared.".to_owned(),
                columns: vec!["why".to_owned(), "requests".to_owned()],
                rows: why.collect(),
            }));
        }
        blocks.extend(self.models().iter().map(|model| Block::Table(self.matrix(model))));
        let rules = self.rules.iter().take(SHOWN_MAX).map(|one| {
            vec![one.recorded.as_str().into(), one.new.as_str().into(), one.count.to_string().into()]
        });
        blocks.push(Block::Table(Table {
            caption: "By which rule: as recorded, and now.".to_owned(),
            columns: vec!["recorded".to_owned(), "new".to_owned(), "requests".to_owned()],
            rows: rules.collect(),
        }));
        Section { heading: "Decisions".to_owned(), blocks }
    }

    /// The models that anything was sent for.
    pub fn models(&self) -> Vec<String> {
        let mut models: Vec<String> = self.moved.iter().map(|one| one.model.clone()).collect();
        models.dedup();
        models
    }

    /// From which deployment to which the requests of a model went: a row for each of the log, a column for each now.
    pub fn matrix(&self, model: &str) -> Table {
        let of_model: Vec<&Moved> = self.moved.iter().filter(|one| one.model == model).collect();
        let mut to: Vec<Option<&str>> = of_model.iter().map(|one| one.new.as_deref()).collect();
        to.sort_by_key(|name| (name.is_none(), *name));
        to.dedup();
        let mut from: Vec<&str> = of_model.iter().map(|one| one.recorded.as_str()).collect();
        from.dedup();
        let cut = to.len().max(from.len()) > SHOWN_MAX;
        to.truncate(SHOWN_MAX);
        from.truncate(SHOWN_MAX);
        let count = |from: &str, to: Option<&str>| -> u64 {
            let pair = of_model.iter().filter(|one| one.recorded == from && one.new.as_deref() == to);
            pair.map(|one| one.count).sum()
        };
        let row = |from: &&str| {
            let cells = to.iter().map(|to| Cell::from(count(from, *to).to_string()));
            std::iter::once(Cell::from(*from)).chain(cells).collect()
        };
        let names = to.iter().map(|name| name.unwrap_or("(refused)").to_owned());
        let more = if cut { " Not all are shown; the JSON has them." } else { "" };
        Table {
            caption: format!("Requests for {model}: recorded at (rows), sent to now (columns).{more}"),
            columns: std::iter::once("recorded".to_owned()).chain(names).collect(),
            rows: from.iter().map(row).collect(),
        }
    }

    fn effect_section(&self) -> Section {
        let table = self.effect_table();
        let bars = |caption: &str, groups: [Named; 3]| {
            Block::Bars(Bars {
                caption: caption.to_owned(),
                y: Axis { label: "ms".to_owned(), logarithmic: false },
                groups: groups.iter().map(|(name, _)| (*name).to_owned()).collect(),
                series: self
                    .effect
                    .iter()
                    .map(|one| (one.label(), groups.iter().map(|(_, of)| of(one)).collect()))
                    .collect(),
            })
        };
        let first = bars(
            "Time to first token.",
            [
                ("mean", |one| one.first_token_ms.mean),
                ("p50", |one| one.first_token_ms.p50),
                ("p99", |one| one.first_token_ms.p99),
            ],
        );
        Section { heading: "Effect".to_owned(), blocks: vec![Block::Table(table), first] }
    }

    /// What came of it: a row for each figure, a column for the log and each config, and the change.
    pub fn effect_table(&self) -> Table {
        let mut columns = vec!["figure".to_owned()];
        columns.extend(self.effect.iter().map(Effect::label));
        let before = self.effect.len().saturating_sub(2);
        columns.push(format!("new over {}", self.effect.get(before).map_or("", |one| one.name.as_str())));
        let row = |figure: &Figure| {
            let value = |one: &Effect| (figure.of)(one).filter(|value| value.is_finite());
            let text = |value: Option<f64>| {
                value.map_or_else(
                    || "–".to_owned(),
                    |value| format!("{value:.*}{}", figure.digits, figure.unit),
                )
            };
            let values: Vec<Option<f64>> = self.effect.iter().map(value).collect();
            let change = match (values.get(before).copied().flatten(), values.last().copied().flatten()) {
                (Some(was), Some(new)) if was > 0.0 => format!("{:.2}×", new / was),
                (Some(_) | None, Some(_) | None) => "–".to_owned(),
            };
            let cells = values.into_iter().map(|value| Cell::from(text(value)));
            std::iter::once(Cell::from(figure.name)).chain(cells).chain([Cell::from(change)]).collect()
        };
        Table {
            caption: "What came of the same requests. Only what is called simulated is; the rest is as the log has it."
                .to_owned(),
            columns,
            rows: FIGURES.iter().map(row).collect(),
        }
    }

    /// Those that served, in the log or now.
    fn served(&self) -> Vec<(&str, &str)> {
        let mut names: Vec<(&str, &str)> =
            self.effect.iter().flat_map(|one| &one.deployments).map(Share::key).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// What each deployment served, a row for each; nothing if none did.
    pub fn deployments_table(&self) -> Option<Table> {
        let names = self.served();
        names.first()?;
        let mut columns = vec!["deployment".to_owned()];
        for one in &self.effect {
            columns.extend(["requests", "tokens", "USD"].map(|what| format!("{what} {}", one.name)));
        }
        let row = |key: &(&str, &str)| {
            let mut cells = vec![Cell::from(label(&names, key))];
            for effect in &self.effect {
                let share = share_of(effect, key);
                cells.push(format!("{:.1} %", share.requests_share * 100.0).into());
                cells.push(format!("{:.1} %", share.tokens_share * 100.0).into());
                cells.push(share.cost_usd.map_or_else(|| "–".to_owned(), |cost| format!("{cost:.4}")).into());
            }
            cells
        };
        let caption = "What each deployment served, as shares of all, and what that cost: recorded, and simulated under each config."
            .to_owned();
        Some(Table { caption, columns, rows: names.iter().map(row).collect() })
    }

    fn deployments_section(&self) -> Option<Section> {
        let names = self.served();
        let mut table = self.deployments_table()?;
        table.rows.truncate(SHOWN_MAX);
        let shown: Vec<&(&str, &str)> = names.iter().take(SHOWN_MAX).collect();
        let bars = Bars {
            caption: "Share of tokens that each deployment served.".to_owned(),
            y: Axis { label: "share".to_owned(), logarithmic: false },
            groups: shown.iter().map(|key| label(&names, key)).collect(),
            series: self
                .effect
                .iter()
                .map(|one| (one.label(), shown.iter().map(|key| share_of(one, key).tokens_share).collect()))
                .collect(),
        };
        Some(Section {
            heading: "Deployments".to_owned(),
            blocks: vec![Block::Table(table), Block::Bars(bars)],
        })
    }

    fn differences_section(&self) -> Section {
        let time = |side: &Side| side.first_token_ms.map_or_else(|| "–".to_owned(), |ms| format!("{ms:.0}"));
        let row = |one: &Difference| -> Vec<Cell> {
            let mut cells = vec![
                Cell::from(one.request_id.as_str()),
                format!("{}, {} in, {} out", one.model, one.tokens_in, one.tokens_out).into(),
                one.recorded.told().into(),
                time(&one.recorded).into(),
            ];
            if self.told.was.is_some() {
                let was = one.was.clone().unwrap_or_default();
                cells.push(format!("{}, {}", was.name(), time(&was)).into());
            }
            cells.push(one.new.told().into());
            cells.push(one.instead.clone().unwrap_or_else(|| "–".to_owned()).into());
            cells.push(time(&one.new).into());
            cells
        };
        let mut columns = vec!["request", "for", "recorded, and why", "ms recorded"];
        columns.extend(self.told.was.is_some().then_some("before, ms simulated"));
        columns.extend(["now, and why", "how the recorded one stood", "ms simulated"]);
        let shown = self.differences.len().min(DIFFERENCES_SHOWN_MAX);
        let table = Table {
            caption: format!(
                "{shown} of {} requests that go elsewhere, the largest change of the time to first token first. Reasons are \
                 those of the decision record.",
                self.decisions.differ
            ),
            columns: columns.into_iter().map(str::to_owned).collect(),
            rows: self.differences.iter().take(shown).map(row).collect(),
        };
        Section { heading: "Requests that differ".to_owned(), blocks: vec![Block::Table(table)] }
    }
}

/// A deployment's name, with its model where there are several.
fn label(all: &[(&str, &str)], (model, name): &(&str, &str)) -> String {
    let one_model = all.iter().all(|(other, _)| other == model);
    if one_model { (*name).to_owned() } else { format!("{name} of {model}") }
}

fn share_of(effect: &Effect, key: &(&str, &str)) -> Share {
    effect.deployments.iter().find(|share| share.key() == *key).cloned().unwrap_or_default()
}

impl Side {
    /// Where it went, or that it was refused.
    pub fn name(&self) -> &str {
        self.deployment.as_deref().unwrap_or("(refused)")
    }

    fn told(&self) -> String {
        if self.why.is_empty() { self.name().to_owned() } else { format!("{}: {}", self.name(), self.why) }
    }
}

impl Share {
    fn key(&self) -> (&str, &str) {
        (&self.model, &self.deployment)
    }
}

impl Effect {
    /// Its name, and that it is simulated if it is.
    pub fn label(&self) -> String {
        if self.simulated { format!("{} (simulated)", self.name) } else { self.name.clone() }
    }
}

/// A figure and what it is called.
type Named = (&'static str, fn(&Effect) -> f64);

/// A row of the table of effects.
struct Figure {
    name: &'static str,
    digits: usize,
    unit: &'static str,
    of: fn(&Effect) -> Option<f64>,
}

const fn figure(
    name: &'static str,
    digits: usize,
    unit: &'static str,
    of: fn(&Effect) -> Option<f64>,
) -> Figure {
    Figure { name, digits, unit, of }
}

const FIGURES: [Figure; 15] = [
    figure("first token, mean", 0, " ms", |one| Some(one.first_token_ms.mean)),
    figure("first token, p50", 0, " ms", |one| Some(one.first_token_ms.p50)),
    figure("first token, p99", 0, " ms", |one| Some(one.first_token_ms.p99)),
    figure("per token, mean", 1, " ms", |one| Some(one.per_token_ms.mean)),
    figure("whole answer, p99", 0, " ms", |one| Some(one.end_to_end_ms.p99)),
    figure("wait for a slot, p99", 0, " ms", |one| Some(one.queue_ms.p99)),
    figure("tokens", 0, " /s", |one| Some(one.tokens_per_s)),
    figure("good enough", 1, " %", |one| Some(one.goodput.share * 100.0)),
    figure("not completed", 1, "", |one| Some(one.failed)),
    figure("prompt tokens cached", 1, " %", |one| Some(one.tokens_cached_share * 100.0)),
    figure("engines at work, mean", 1, " %", |one| one.utilisation_mean.map(|share| share * 100.0)),
    figure("the busiest engine", 1, " %", |one| one.utilisation_max.map(|share| share * 100.0)),
    figure("evenness (Jain, 1 is even)", 3, "", |one| one.jain),
    figure("tokens, most to mean", 2, "×", |one| Some(one.tokens_max_to_mean)),
    figure("cost", 4, " USD", |one| one.cost_usd),
];
