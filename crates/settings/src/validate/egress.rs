//! Where connections may go: entries that can be read, and providers that can be reached at all.

use crate::Config;
use crate::diagnostic::Problem;
use crate::egress::{Entry, Guard};
use crate::limits::EGRESS_ENTRIES_MAX;
use crate::tree::join;

pub(super) fn check(config: &Config, found: &mut Vec<Problem>) {
    let allow = &config.egress.allow;
    if allow.len() > EGRESS_ENTRIES_MAX {
        found.push(Problem::new("egress.allow", format!("has more than {EGRESS_ENTRIES_MAX} entries")));
    }
    for (at, text) in allow.iter().enumerate() {
        if let Err(why) = Entry::parse(text) {
            found.push(Problem::new(format!("egress.allow[{at}]"), why));
        }
    }
    for (name, provider) in &config.providers {
        let known = provider.base_url.is_some() || pointsman_wire::vendor::vendor(&provider.kind).is_ok();
        if let Some(why) = Guard::new(&config.egress, provider).problem().filter(|_| known) {
            let path = join("providers", name);
            let path = if provider.base_url.is_some() { join(&path, "base_url") } else { path };
            found.push(Problem::new(path, why));
        }
    }
}
