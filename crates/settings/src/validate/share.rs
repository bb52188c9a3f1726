//! Tenants that are given a weight exist, and no key's usual class is above the highest that it may ask for.

use crate::Config;
use crate::auth::KeyConfig;
use crate::diagnostic::{Problem, did_you_mean};
use crate::tree::join;

pub(super) fn check(config: &Config, found: &mut Vec<Problem>) {
    let tenants = || config.auth.keys.iter().map(KeyConfig::tenant);
    for name in config.tenants.keys() {
        if !tenants().any(|tenant| tenant == name) {
            let help = did_you_mean(name, tenants());
            let text = format!("no key in `auth.keys` belongs to a tenant `{name}`");
            found.push(Problem { help, ..Problem::new(join("tenants", name), text) });
        }
    }
    for (at, key) in config.auth.keys.iter().enumerate() {
        if let Some(usual) = key.priority
            && usual.class() < key.class_max()
        {
            let text = format!(
                "`{}` is above the highest class that the key may ask for, `{}`",
                usual.class().name(),
                key.class_max().name()
            );
            let help = format!("set `priority_max: {}` or a lower `priority`", usual.class().name());
            found.push(Problem::new(format!("auth.keys[{at}].priority"), text).help(help));
        }
    }
}
