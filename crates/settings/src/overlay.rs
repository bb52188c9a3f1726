//! Deployments that were changed through the admin API, laid over the configuration of the file at every reload.
//!
//! A change holds no more than what it is about: of a deployment that stands in the file, only the fields that differ
//! from it are kept, so that every other field goes on following the file.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Config;
use crate::diagnostic::Problem;
use crate::models::DeploymentConfig;
use crate::validate::validate;

/// Changes by model and deployment.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Overlay {
    /// The changes.
    pub changes: BTreeMap<String, BTreeMap<String, Change>>,
}

/// What became of a deployment.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It was added; the file does not have it.
    Put(Box<DeploymentConfig>),
    /// These fields are not as the file has them; `null` is one that was taken away.
    Patch(Map<String, Value>),
    /// It was removed.
    Remove,
}

/// A change that is ignored, because the file does not have what it is about or does not go together with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resting {
    /// The model.
    pub model: String,
    /// The deployment.
    pub deployment: String,
    /// Why.
    pub why: Vec<Problem>,
}

impl fmt::Display for Resting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { model, deployment, why } = self;
        write!(f, "the admin change of deployment `{deployment}` of model `{model}` is ignored: ")?;
        f.write_str(&why.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
    }
}

impl Overlay {
    /// Whether nothing was changed.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The change of a deployment, if there is one.
    pub fn get(&self, model: &str, name: &str) -> Option<&Change> {
        self.changes.get(model)?.get(name)
    }

    /// Has a deployment be like this, whether or not `file`, the configuration without changes, has it.
    pub fn put(&mut self, file: &Config, model: &str, name: &str, deployment: DeploymentConfig) {
        // The name is what the change is known by, whatever the deployment would be called by default.
        let deployment = named(deployment, model, name);
        match find(file, model, name) {
            Some(in_file) => {
                let (old, new) = (fields(in_file), fields(&deployment));
                let keys = old.keys().chain(new.keys()).filter(|key| *key != "name");
                let patch = keys.map(|key| (key.clone(), field(&new, key))).collect();
                self.set_patch(&old, model, name, patch);
            }
            None => self.set(model, name, Change::Put(Box::new(deployment))),
        }
    }

    /// Changes the fields of a deployment that is `now` in force (RFC 7396: `null` takes one away).
    ///
    /// # Errors
    /// When the result is no deployment.
    pub fn patch(
        &mut self,
        file: &Config,
        now: &DeploymentConfig,
        (model, name): (&str, &str),
        changed: Map<String, Value>,
    ) -> Result<(), serde_json::Error> {
        let keys: Vec<String> = changed.keys().cloned().collect();
        let patched = named(merged(now, changed)?, model, name);
        let Some(in_file) = find(file, model, name) else {
            self.set(model, name, Change::Put(Box::new(patched)));
            return Ok(());
        };
        let new = fields(&patched);
        let mut patch = match self.get(model, name) {
            Some(Change::Patch(patch)) => patch.clone(),
            Some(Change::Put(_) | Change::Remove) | None => Map::new(),
        };
        patch.extend(keys.into_iter().filter(|key| key != "name").map(|key| {
            let value = field(&new, &key);
            (key, value)
        }));
        self.set_patch(&fields(in_file), model, name, patch);
        Ok(())
    }

    /// Removes a deployment.
    pub fn remove(&mut self, file: &Config, model: &str, name: &str) {
        if find(file, model, name).is_some() {
            self.set(model, name, Change::Remove);
        } else {
            self.take_back(model, name);
        }
    }

    /// Takes a change back, so that the file holds again. Gives the change.
    pub fn take_back(&mut self, model: &str, name: &str) -> Option<Change> {
        let changes = self.changes.get_mut(model)?;
        let change = changes.remove(name);
        if changes.is_empty() {
            self.changes.remove(model);
        }
        change
    }

    fn set(&mut self, model: &str, name: &str, change: Change) {
        self.changes.entry(model.to_owned()).or_default().insert(name.to_owned(), change);
    }

    /// Keeps what differs from the file; a change that changes nothing is none.
    fn set_patch(
        &mut self,
        in_file: &Map<String, Value>,
        model: &str,
        name: &str,
        patch: Map<String, Value>,
    ) {
        let patch: Map<_, _> =
            patch.into_iter().filter(|(key, value)| field(in_file, key) != *value).collect();
        if patch.is_empty() {
            self.take_back(model, name);
        } else {
            self.set(model, name, Change::Patch(patch));
        }
    }

    /// Drops what the file has caught up with, for good: otherwise it would come back to life with a later edit. Gives
    /// what was dropped, in words.
    pub fn settle(&mut self, file: &Config) -> Vec<String> {
        let mut dropped = Vec::new();
        for (model, name, change) in self.clone().entries() {
            let whose = format!("the admin change of deployment `{name}` of model `{model}` is dropped");
            match (change, find(file, model, name)) {
                (Change::Put(_), Some(_)) => {
                    self.take_back(model, name);
                    dropped.push(format!("{whose}: the file has the deployment now"));
                }
                (Change::Remove, None) if file.models.contains_key(model) => {
                    self.take_back(model, name);
                    dropped.push(format!("{whose}: the file does not have the deployment any more"));
                }
                (Change::Patch(patch), Some(in_file)) => {
                    self.set_patch(&fields(in_file), model, name, patch.clone());
                    if self.get(model, name).is_none() {
                        dropped.push(format!("{whose}: the file says the same now"));
                    }
                }
                (Change::Put(_) | Change::Patch(_) | Change::Remove, None) | (Change::Remove, Some(_)) => {}
            }
        }
        dropped
    }

    /// What the file says new since `old` and a change overrides, in words.
    pub fn overridden(&self, old: &Config, new: &Config) -> Vec<String> {
        let mut overridden = Vec::new();
        for (model, name, change) in self.entries() {
            let Some(in_file) = find(new, model, name) else { continue };
            let after = fields(in_file);
            let before = find(old, model, name).map(fields).unwrap_or_default();
            let whose = format!("deployment `{name}` of model `{model}`");
            match change {
                Change::Patch(patch) => {
                    for (key, value) in patch {
                        let said = field(&after, key);
                        if field(&before, key) != said {
                            overridden.push(format!(
                                "{whose}: the file says {key}: {said}, but {value}, set through the admin API, holds"
                            ));
                        }
                    }
                }
                Change::Remove if before != after => {
                    overridden.push(format!("{whose} is in the file, but was removed through the admin API"));
                }
                Change::Remove | Change::Put(_) => {}
            }
        }
        overridden
    }

    /// The configuration of the file with the changes on top, and those changes that are ignored because they have no
    /// place in it: the file may have moved on.
    ///
    /// # Errors
    /// What is wrong with `file` itself.
    pub fn over(&self, file: &Config) -> Result<(Config, Vec<Resting>), Vec<Problem>> {
        let (mut config, mut resting) = (file.clone(), Vec::new());
        for (model, name, change) in self.entries() {
            if let Err(why) = apply(&mut config, model, name, change) {
                resting.push(rest(model, name, vec![why]));
            }
        }
        let found = validate(&config);
        if found.is_empty() {
            return Ok((config, resting));
        }
        let wrong = if self.is_empty() { found } else { validate(file) };
        if !wrong.is_empty() {
            return Err(wrong);
        }
        // Together they do not fit: one by one, to find those that do not.
        (config, resting) = (file.clone(), Vec::new());
        for (model, name, change) in self.entries() {
            let mut tried = config.clone();
            let why = match apply(&mut tried, model, name, change) {
                Ok(()) => validate(&tried),
                Err(why) => vec![why],
            };
            if why.is_empty() {
                config = tried;
            } else {
                resting.push(rest(model, name, why));
            }
        }
        Ok((config, resting))
    }

    fn entries(&self) -> impl Iterator<Item = (&str, &str, &Change)> {
        self.changes.iter().flat_map(|(model, changes)| {
            changes.iter().map(move |(name, change)| (model.as_str(), name.as_str(), change))
        })
    }
}

fn apply(config: &mut Config, model_name: &str, name: &str, change: &Change) -> Result<(), Problem> {
    let Some(model) = config.models.get_mut(model_name) else {
        return Err(Problem::new("", format!("there is no model `{model_name}`")));
    };
    let at = model.deployments.iter().position(|one| one.name_in(model_name) == name);
    match (change, at) {
        (Change::Put(deployment), None) => model.deployments.push((**deployment).clone()),
        (Change::Put(deployment), Some(at)) => model.deployments[at] = (**deployment).clone(),
        (Change::Patch(patch), Some(at)) => {
            let patched = merged(&model.deployments[at], patch.clone())
                .map_err(|error| Problem::new("", error.to_string()))?;
            model.deployments[at] = named(patched, model_name, name);
        }
        (Change::Remove, Some(at)) => drop(model.deployments.remove(at)),
        (Change::Patch(_) | Change::Remove, None) => {
            return Err(Problem::new("", "the file does not have the deployment any more"));
        }
    }
    Ok(())
}

fn rest(model: &str, name: &str, why: Vec<Problem>) -> Resting {
    Resting { model: model.to_owned(), deployment: name.to_owned(), why }
}

fn find<'a>(config: &'a Config, model: &str, name: &str) -> Option<&'a DeploymentConfig> {
    config.models.get(model)?.deployments.iter().find(|one| one.name_in(model) == name)
}

/// The deployment under the name that it is known by, which may have been a default made of fields that changed.
fn named(deployment: DeploymentConfig, model: &str, name: &str) -> DeploymentConfig {
    if deployment.name_in(model) == name {
        return deployment;
    }
    DeploymentConfig { name: Some(name.to_owned()), ..deployment }
}

fn fields(deployment: &DeploymentConfig) -> Map<String, Value> {
    match serde_json::to_value(deployment) {
        Ok(Value::Object(fields)) => fields,
        Ok(_) | Err(_) => Map::new(),
    }
}

fn field(fields: &Map<String, Value>, key: &str) -> Value {
    fields.get(key).cloned().unwrap_or_default()
}

fn merged(
    deployment: &DeploymentConfig,
    patch: Map<String, Value>,
) -> Result<DeploymentConfig, serde_json::Error> {
    let mut value = Value::Object(fields(deployment));
    merge(&mut value, Value::Object(patch));
    serde_json::from_value(value)
}

/// RFC 7396.
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(&key);
        } else {
            merge(target.entry(key).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::models::ModelConfig;
    use crate::providers::ProviderConfig;

    fn deployment(name: &str, weight: u32) -> DeploymentConfig {
        DeploymentConfig { name: Some(name.into()), provider: "p".into(), weight, ..Default::default() }
    }

    fn file(deployments: &[(&str, u32)]) -> Config {
        let deployments = deployments.iter().map(|(name, weight)| deployment(name, *weight)).collect();
        let provider = ProviderConfig {
            kind: "mock".into(),
            base_url: Some("http://h".into()),
            ..ProviderConfig::default()
        };
        Config {
            models: [("m".to_owned(), ModelConfig { deployments, ..Default::default() })].into(),
            providers: [("p".to_owned(), provider)].into(),
            ..Config::default()
        }
    }

    fn patch(overlay: &mut Overlay, file: &Config, name: &str, fields: Value) {
        let (config, _) = overlay.over(file).unwrap();
        let now = find(&config, "m", name).expect("it is in force").clone();
        let Value::Object(fields) = fields else { unreachable!("tests give objects") };
        overlay.patch(file, &now, ("m", name), fields).unwrap();
    }

    fn served(overlay: &Overlay, file: &Config) -> Vec<(String, u32, bool)> {
        let (config, _) = overlay.over(file).unwrap();
        config.models["m"].deployments.iter().map(|d| (d.name_in("m"), d.weight, d.draining)).collect()
    }

    #[test]
    fn a_change_holds_only_the_fields_it_is_about() {
        let mut overlay = Overlay::default();
        let old = file(&[("a", 1), ("b", 1)]);
        patch(&mut overlay, &old, "a", json!({"draining": true}));
        let new = file(&[("a", 9), ("b", 1)]);
        assert_eq!(served(&overlay, &new)[0], ("a".into(), 9, true), "the file's weight holds");
        assert_eq!(overlay.overridden(&old, &new), [""; 0]);
        patch(&mut overlay, &new, "a", json!({"weight": 5}));
        assert_eq!(served(&overlay, &new)[0], ("a".into(), 5, true));
        assert_eq!(
            overlay.overridden(&new, &file(&[("a", 7), ("b", 1)])),
            ["deployment `a` of model `m`: the file says weight: 7, but 5, set through the admin API, holds"]
        );
        let text = serde_json::to_string(&overlay).unwrap();
        assert_eq!(text, r#"{"changes":{"m":{"a":{"patch":{"draining":true,"weight":5}}}}}"#);
        assert_eq!(serde_json::from_str::<Overlay>(&text).unwrap(), overlay);
        patch(&mut overlay, &new, "a", json!({"draining": null, "weight": 9}));
        assert!(overlay.is_empty(), "a change that changes nothing is none: {overlay:?}");
    }

    #[test]
    fn what_is_gone_from_the_file_is_not_served() {
        let mut overlay = Overlay::default();
        patch(&mut overlay, &file(&[("a", 1), ("b", 1)]), "a", json!({"weight": 5}));
        let (config, resting) = overlay.over(&file(&[("b", 1)])).unwrap();
        assert_eq!(config.models["m"].deployments.len(), 1);
        assert_eq!(
            resting[0].to_string(),
            "the admin change of deployment `a` of model `m` is ignored: the file does not have the deployment any more"
        );
        let (_, resting) = overlay.over(&Config::default()).unwrap();
        assert!(resting[0].to_string().ends_with("there is no model `m`"), "{resting:?}");
    }

    #[test]
    fn what_was_added_stays_until_the_file_has_it() {
        let mut overlay = Overlay::default();
        let old = file(&[("a", 1)]);
        overlay.put(&old, "m", "b", deployment("b", 2));
        patch(&mut overlay, &old, "b", json!({"weight": 3}));
        assert_eq!(served(&overlay, &old)[1], ("b".into(), 3, false));
        assert!(overlay.clone().settle(&old).is_empty());
        let new = file(&[("a", 1), ("b", 8)]);
        assert_eq!(overlay.settle(&new).len(), 1);
        assert_eq!(served(&overlay, &new)[1], ("b".into(), 8, false));
        assert_eq!(served(&overlay, &old).len(), 1, "it does not come back when the file drops it");
    }

    #[test]
    fn what_was_removed_or_replaced_can_be_taken_back() {
        let mut overlay = Overlay::default();
        let both = file(&[("a", 1), ("b", 1)]);
        overlay.remove(&both, "m", "a");
        assert_eq!(served(&overlay, &both).len(), 1);
        overlay.put(&both, "m", "a", DeploymentConfig { tier: 2, ..deployment("a", 1) });
        assert_eq!(overlay.get("m", "a"), Some(&Change::Patch(Map::from_iter([("tier".into(), json!(2))]))));
        assert!(overlay.take_back("m", "a").is_some() && overlay.is_empty());
        overlay.put(&both, "m", "c", deployment("c", 1));
        overlay.remove(&both, "m", "c");
        assert!(overlay.is_empty(), "what was added and removed leaves nothing");
        overlay.remove(&both, "m", "a");
        assert_eq!(overlay.settle(&file(&[("b", 1)])).len(), 1);
        assert!(overlay.is_empty());
    }

    #[test]
    fn l9_a_change_that_does_not_fit_the_file_is_ignored_alone() {
        let mut overlay = Overlay::default();
        let good = file(&[("a", 1)]);
        overlay.put(&good, "m", "b", DeploymentConfig { provider: "gone".into(), ..deployment("b", 2) });
        patch(&mut overlay, &good, "a", json!({"weight": 4}));
        let (config, resting) = overlay.over(&good).unwrap();
        assert_eq!(config.models["m"].deployments[0].weight, 4);
        assert_eq!(
            resting.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [
                "the admin change of deployment `b` of model `m` is ignored: models.m.deployments[1].provider: there is no provider `gone`"
            ]
        );
        let bad = Config { listen: ([0, 0, 0, 0], 80).into(), ..good };
        assert_eq!(overlay.over(&bad).unwrap_err()[0].path, "listen", "the file's own mistakes stay errors");
    }

    #[test]
    fn a_patch_merges_and_keeps_the_name() {
        let mut file = file(&[("a", 1)]);
        file.models.get_mut("m").unwrap().deployments[0].name = None;
        let mut overlay = Overlay::default();
        patch(&mut overlay, &file, "p/m", json!({"model": "other", "price": {"input": 1, "output": 2}}));
        patch(&mut overlay, &file, "p/m", json!({"price": {"input": 3}}));
        let (config, _) = overlay.over(&file).unwrap();
        let one = find(&config, "m", "p/m").expect("under its old name");
        assert_eq!(
            (one.model.as_deref(), one.price.map(|p| (p.input, p.output))),
            (Some("other"), Some((3.0, 2.0)))
        );
        assert!(
            overlay.patch(&file, one, ("m", "p/m"), Map::from_iter([("wait".into(), json!(1))])).is_err()
        );
    }
}
