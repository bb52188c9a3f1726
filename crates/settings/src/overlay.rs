//! Deployments that were changed through the admin API, laid over the configuration of the file at every reload.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Config;
use crate::models::DeploymentConfig;

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
    /// It was added, or is to be like this.
    Put(Box<DeploymentConfig>),
    /// It was removed.
    Remove,
}

impl Overlay {
    /// Notes a change; a later one for the same deployment replaces it.
    pub fn set(&mut self, model: &str, deployment: &str, change: Change) {
        self.changes.entry(model.to_owned()).or_default().insert(deployment.to_owned(), change);
    }

    /// Lays the changes over `config`. Gives what found no place any more, in words; that is not an error, for the file
    /// may have moved on.
    pub fn apply(&self, config: &mut Config) -> Vec<String> {
        let mut stale = Vec::new();
        for (model_name, changes) in &self.changes {
            let Some(model) = config.models.get_mut(model_name) else {
                stale.push(format!("model `{model_name}` is no longer configured; its admin changes rest"));
                continue;
            };
            for (name, change) in changes {
                let at = model.deployments.iter().position(|one| one.name_in(model_name) == *name);
                match (change, at) {
                    (Change::Put(deployment), at) => {
                        // The name is what the change is known by, whatever the deployment would be called by default.
                        let deployment =
                            DeploymentConfig { name: Some(name.clone()), ..(**deployment).clone() };
                        match at {
                            Some(at) => model.deployments[at] = deployment,
                            None => model.deployments.push(deployment),
                        }
                    }
                    (Change::Remove, Some(at)) => {
                        model.deployments.remove(at);
                    }
                    (Change::Remove, None) => {
                        stale.push(format!(
                            "deployment `{name}` of model `{model_name}` is gone from the file too"
                        ));
                    }
                }
            }
        }
        stale
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::ModelConfig;

    fn deployment(name: &str, weight: u32) -> DeploymentConfig {
        DeploymentConfig {
            name: Some(name.into()),
            provider: "p".into(),
            weight,
            tier: 1,
            ..Default::default()
        }
    }

    #[test]
    fn changes_survive_a_reload_and_the_stale_are_told() {
        let mut config = Config::default();
        let model =
            ModelConfig { deployments: vec![deployment("a", 1), deployment("b", 1)], ..Default::default() };
        config.models.insert("m".into(), model);
        let mut overlay = Overlay::default();
        overlay.set("m", "a", Change::Put(Box::new(deployment("a", 7))));
        overlay.set("m", "b", Change::Remove);
        overlay.set("m", "c", Change::Put(Box::new(deployment("c", 2))));
        overlay.set("gone", "x", Change::Remove);
        let stale = overlay.apply(&mut config);
        let left: Vec<_> =
            config.models["m"].deployments.iter().map(|d| (d.name_in("m"), d.weight)).collect();
        assert_eq!(left, [("a".to_owned(), 7), ("c".to_owned(), 2)]);
        assert_eq!(stale.len(), 1, "{stale:?}");
        let text = serde_json::to_string(&overlay).unwrap();
        assert_eq!(serde_json::from_str::<Overlay>(&text).unwrap(), overlay);
    }
}
