//! A mirror's other side exists, and no copy is copied again.

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
        found.push(Problem::new(path, text).help(format!("remove `mirror` from model `{to}`")));
    }
}
