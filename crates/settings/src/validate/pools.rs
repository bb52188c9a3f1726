//! What pools promise can be kept, and whatever names a pool or is named by one is there.

use crate::Config;
use crate::diagnostic::{Problem, did_you_mean};
use crate::models::ModelConfig;
use crate::pools::{SlotPoolConfig, SlotShareConfig};
use crate::tree::join;

pub(super) fn check(config: &Config, found: &mut Vec<Problem>) {
    for (name, pool) in &config.pools {
        let path = join("pools", name);
        super::check_text(&path, Some(name), found);
        if pool.slots.is_none() && pool.tokens.is_none() {
            let text = "a pool without a size shares nothing";
            found.push(Problem::new(&path, text).help("give `slots`, `tokens` or both"));
        }
        check_sums(&path, pool, found);
        check_rest(config, name, pool, found);
        for (model, share) in &pool.models {
            let path = join(&join(&path, "models"), model);
            check_share(&path, pool, share, found);
            check_member(config, &path, name, model, found);
        }
    }
    for (name, provider) in &config.providers {
        let path = join(&join("providers", name), "slot_pool");
        check_named(config, path, provider.slot_pool.as_deref(), found);
    }
    for (name, model) in &config.models {
        for (at, deployment) in model.deployments.iter().enumerate() {
            let path = format!("{}.deployments[{at}].pool", join("models", name));
            check_named(config, path, deployment.pool.as_deref(), found);
        }
    }
}

/// All guarantees can be kept at the same time.
fn check_sums(path: &str, pool: &SlotPoolConfig, found: &mut Vec<Problem>) {
    let shares = || pool.models.values();
    let sums = [
        ("slots", pool.slots.map(u64::from), shares().map(|one| u64::from(one.guarantee)).sum::<u64>()),
        ("tokens", pool.tokens, shares().fold(0, |sum: u64, one| sum.saturating_add(one.guarantee_tokens))),
    ];
    for (what, size, sum) in sums {
        if let Some(size) = size.filter(|size| sum > *size) {
            let text = format!("{sum} {what} are guaranteed in all, and there are {size}");
            found.push(
                Problem::new(join(path, "models"), text).help("lower a guarantee, or enlarge the pool"),
            );
        }
    }
}

/// Whoever is guaranteed nothing can run when nobody else does.
fn check_rest(config: &Config, name: &str, pool: &SlotPoolConfig, found: &mut Vec<Problem>) {
    let shares = || pool.models.values();
    let kept: u64 = shares().filter(|one| !one.lend).map(|one| u64::from(one.guarantee)).sum();
    if pool.slots.is_none_or(|slots| kept < u64::from(slots)) {
        return;
    }
    let uses = |model: &ModelConfig| model.deployments.iter().any(|one| config.pool_of(one) == Some(name));
    let bare = |model: &String| pool.models.get(model).is_none_or(|share| share.guarantee == 0);
    if let Some((model, _)) = config.models.iter().find(|(model, spec)| bare(model) && uses(spec)) {
        let text = format!("all {kept} slots are kept for other models, so model `{model}` could never run");
        let help = format!("give `{model}` a guarantee, or let another lend its own");
        found.push(Problem::new(join(&join("pools", name), "models"), text).help(help));
    }
}

fn check_share(path: &str, pool: &SlotPoolConfig, share: &SlotShareConfig, found: &mut Vec<Problem>) {
    let pairs = [
        (
            "guarantee",
            "cap",
            "slots",
            pool.slots.map(u64::from),
            u64::from(share.guarantee),
            share.cap.map(u64::from),
        ),
        ("guarantee_tokens", "cap_tokens", "tokens", pool.tokens, share.guarantee_tokens, share.cap_tokens),
    ];
    for (guarantee, cap, size, has_size, guaranteed, capped) in pairs {
        if let Some(capped) = capped.filter(|capped| *capped < guaranteed) {
            let text = format!("`{cap}` is {capped}, less than `{guarantee}`, which is {guaranteed}");
            found.push(Problem::new(join(path, cap), text));
        }
        if guaranteed > 0 && has_size.is_none() {
            let text = format!("`{guarantee}` promises a part of the pool's `{size}`, and it has none");
            found.push(Problem::new(join(path, guarantee), text).help(format!("give the pool `{size}`")));
        }
    }
}

/// A model that gets a share has a deployment to use it with.
fn check_member(config: &Config, path: &str, pool: &str, name: &str, found: &mut Vec<Problem>) {
    let Some(model) = config.models.get(name) else {
        let of_alias =
            config.models.iter().find(|(_, model)| model.aliases.iter().any(|alias| alias == name));
        found.push(match of_alias {
            Some((of, _)) => Problem::new(path, format!("`{name}` is an alias; name the model `{of}`")),
            None => {
                let help = did_you_mean(name, config.models.keys().map(String::as_str));
                Problem { help, ..Problem::new(path, format!("there is no model `{name}`")) }
            }
        });
        return;
    };
    if !model.deployments.iter().any(|deployment| config.pool_of(deployment) == Some(pool)) {
        let text = format!("model `{name}` has no deployment in pool `{pool}`");
        let help = format!("give one of its deployments `pool: {pool}`, or remove it here");
        found.push(Problem::new(path, text).help(help));
    }
}

fn check_named(config: &Config, path: String, named: Option<&str>, found: &mut Vec<Problem>) {
    let Some(named) = named.filter(|named| !config.pools.contains_key(*named)) else { return };
    let help = did_you_mean(named, config.pools.keys().map(String::as_str));
    found.push(Problem { help, ..Problem::new(path, format!("there is no pool `{named}`")) });
}
