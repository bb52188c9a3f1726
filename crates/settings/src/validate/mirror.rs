//! A mirror's other side exists, no copy is copied again, and none uses up the limits of the original.

use crate::Config;
use crate::diagnostic::{Problem, did_you_mean};
use crate::models::ModelConfig;
use crate::tree::join;

pub(super) fn check(config: &Config, path: &str, name: &str, model: &ModelConfig, found: &mut Vec<Problem>) {
    let Some(mirror) = &model.mirror else { return };
    let (to, path) = (&mirror.to, join(&join(path, "mirror"), "to"));
    if to == name {
        found.push(Problem::new(path, "a model cannot be its own shadow; name another"));
        return;
    }
    let Some(shadow) = config.models.get(to) else {
        let of_alias = config.models.iter().find(|(_, model)| model.aliases.contains(to));
        found.push(match of_alias {
            Some((of, _)) => Problem::new(path, format!("`{to}` is an alias; name the model `{of}`")),
            None => {
                let help = did_you_mean(to, config.models.keys().map(String::as_str));
                Problem { help, ..Problem::new(path, format!("there is no model `{to}`")) }
            }
        });
        return;
    };
    if shadow.mirror.is_some() {
        let text = format!("model `{to}` is mirrored itself; a copy is not copied again");
        found.push(Problem::new(path.clone(), text).help(format!("remove `mirror` from model `{to}`")));
    }
    let asks = |provider: &str| model.deployments.iter().any(|deployment| deployment.provider == provider);
    let has_keys = |name: &str| config.providers.get(name).is_some_and(|provider| !provider.keys.is_empty());
    let mut providers = shadow.deployments.iter().map(|deployment| deployment.provider.as_str());
    if let Some(shared) = providers.find(|provider| asks(provider) && has_keys(provider)) {
        let text = format!(
            "model `{to}` is served by provider `{shared}`, as `{name}` is: copies would use up its limits"
        );
        let help = format!(
            "give the shadow a provider of its own, with the same `base_url` and another key than `{shared}`"
        );
        found.push(Problem::new(path, text).help(help));
    }
}
