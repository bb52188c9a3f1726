//! An engine is asked for what it has, and paid vendors for nothing.

use pointsman_wire::vendor;

use crate::diagnostic::Problem;
use crate::engine::{EngineChoice, FamilyName, METRICS_OFF};
use crate::providers::ProviderConfig;
use crate::tree::join;

pub(super) fn check(path: &str, provider: &ProviderConfig, found: &mut Vec<Problem>) {
    let Some(EngineChoice::On(engine)) = &provider.engine else { return };
    let Ok(vendor) = vendor::vendor(&provider.kind) else { return };
    if !provider.may_be_polled() {
        let text = format!("`{}` is a paid API and is not asked of its load", vendor.kind);
        let help = "take `engine` away; for an engine of your own use its `kind`, or `openai_compatible`";
        found.push(Problem::new(path, text).help(help));
        return;
    }
    let Some(family) = engine.family.and_then(FamilyName::family).or(vendor.signals) else {
        let text = format!("nothing is known of the metrics of `{}`", vendor.kind);
        found.push(Problem::new(path, text).help("name the engine as `family`, or take `engine` away"));
        return;
    };
    if let Some(metrics) = &engine.metrics {
        let path = join(path, "metrics");
        let is_path = metrics.starts_with('/') && metrics.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_path && metrics != METRICS_OFF {
            let text = "must be `off`, or begin with `/` and have neither spaces nor characters beyond ASCII";
            found.push(Problem::new(&path, text));
        }
        if !family.asks.iter().any(|ask| ask.metrics) {
            let text = format!("`{}` has no page of metrics", family.name);
            found.push(Problem::new(path, text).help("take `metrics` away; `engine: off` turns all off"));
        }
    }
    if engine.kv_events_port.is_some() && !family.publishes {
        let text = format!("`{}` publishes no events of its KV cache that are understood", family.name);
        found.push(Problem::new(join(path, "kv_events_port"), text).help("take it away"));
    }
    if engine.slots.is_some() && !family.tells_slots {
        let text = format!("`{}` does not say how many requests it works on at most", family.name);
        found.push(Problem::new(join(path, "slots"), text).help("give the provider's `slots` as a number"));
    }
}
