//! What must come out of an experiment: figures by their path in a run.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::results::{Results, Run};

/// What must come out.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Must {
    /// The figure, by its path in a run, such as `first_token_ms.p99` or `tenants.light-*.first_token_ms.p99`. Of several
    /// the worst counts.
    pub figure: String,
    /// Whose: a strategy's name, with its variant. Not given: the first.
    #[serde(default)]
    pub of: Option<String>,
    /// As a share of the same figure of this one.
    #[serde(default)]
    pub over: Option<String>,
    /// The most it may be.
    #[serde(default)]
    pub at_most: Option<f64>,
    /// The least it may be.
    #[serde(default)]
    pub at_least: Option<f64>,
}

/// A figure that must hold, as it came out: the mean over the seeds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// What it is of.
    pub what: String,
    /// Its bound.
    pub bound: f64,
    /// Whether the bound is the most it may be; else it is the least.
    pub at_most: bool,
    /// What came out.
    pub value: f64,
    /// Whether it holds.
    pub held: bool,
}

impl Must {
    /// What came out, for each bound.
    ///
    /// # Errors
    ///
    /// When there is no such figure or strategy.
    pub fn figures(&self, results: &Results) -> Result<Vec<Figure>, String> {
        let bounds = [self.at_most.map(|most| (most, true)), self.at_least.map(|least| (least, false))];
        let figure = |(bound, at_most): (f64, bool)| {
            let of = self.value(results, self.of.as_deref(), at_most)?;
            let over =
                self.over.as_deref().map(|over| self.value(results, Some(over), at_most)).transpose()?;
            let value = over.map_or(of, |over| of / over);
            let held = if at_most { value <= bound } else { value >= bound };
            let of = self.of.as_ref().map(|of| format!(" of {of}")).unwrap_or_default();
            let over = self.over.as_ref().map(|over| format!(" over that of {over}")).unwrap_or_default();
            Ok(Figure { what: format!("{}{of}{over}", self.figure), bound, at_most, value, held })
        };
        bounds.into_iter().flatten().map(figure).collect()
    }

    fn value(&self, results: &Results, of: Option<&str>, most: bool) -> Result<f64, String> {
        let found = match of {
            Some(name) => results.strategies.iter().find(|one| one.name == name),
            None => results.strategies.first(),
        };
        let strategy = found.ok_or_else(|| {
            let known: Vec<&str> = results.strategies.iter().map(|one| one.name.as_str()).collect();
            format!("must: there is no `{}`; there are: {}", of.unwrap_or(""), known.join("; "))
        })?;
        let values =
            strategy.runs.iter().map(|run| self.of_run(run, most)).collect::<Result<Vec<f64>, String>>()?;
        Ok(values.iter().sum::<f64>() / values.len().max(1) as f64)
    }

    fn of_run(&self, run: &Run, most: bool) -> Result<f64, String> {
        let value = serde_json::to_value(run).map_err(|error| error.to_string())?;
        let mut found = vec![&value];
        for part in self.figure.split('.') {
            found = found.into_iter().flat_map(|value| step(value, part)).collect();
        }
        let numbers = found.into_iter().filter_map(Value::as_f64);
        let worst = if most { numbers.reduce(f64::max) } else { numbers.reduce(f64::min) };
        worst.ok_or_else(|| format!("must: a run has no figure `{}`", self.figure))
    }
}

/// What a part of a path leads to: a field, or those of a list with such a name.
fn step<'v>(value: &'v Value, part: &str) -> Vec<&'v Value> {
    let Value::Array(list) = value else { return value.get(part).into_iter().collect() };
    let named = |one: &&Value| {
        let name = one.get("name").and_then(Value::as_str).unwrap_or("");
        part.strip_suffix('*').map_or(name == part, |begin| name.starts_with(begin))
    };
    list.iter().filter(named).collect()
}
