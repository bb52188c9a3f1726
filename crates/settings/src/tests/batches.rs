//! The section for batches, and what belongs to a lane.

use pointsman_routing::facts::Lane;

use super::{Config, GOOD, check, diff, read, restart_needed};

fn with(section: &str) -> Config {
    read(&GOOD.replacen("models:", &format!("{section}\nmodels:"), 1)).unwrap()
}

#[test]
fn batches_have_a_folder_and_bounds() {
    assert_eq!(read(GOOD).unwrap().batches, None);
    let batches = with("batches: { directory: /var/lib/p, keep_hours: 24 }").batches.unwrap();
    assert_eq!((batches.keep_hours, batches.lines_max, batches.concurrency_max), (24, 50_000, 64));
    check(
        ("models:", "batches: { lines_max: 5 }\nmodels:"),
        "8:1: batches: `directory` is missing; name a folder on a local disk that is this gateway's own",
    );
    for (field, range) in [
        ("concurrency_max: 0", "0 is not from 1 to 10000"),
        ("lease_ms: 10", "10 is not from 1000 to 600000"),
        ("keep_hours: 0", "0 is not from 1 to 87600"),
        ("file_bytes_max: 1", "1 is not from 1024 to 1073741824"),
    ] {
        let section = format!("batches: {{ directory: /d, {field} }}\nmodels:");
        let (key, column) = (field.split(':').next().unwrap(), 27);
        check(("models:", &section), &format!("8:{column}: batches.{key}: {range}"));
    }
}

#[test]
fn another_folder_holds_from_the_next_start_and_all_else_at_once() {
    let (here, there) = (with("batches: { directory: /a }"), with("batches: { directory: /b }"));
    assert_eq!(restart_needed(&here, &there), ["batches.directory"]);
    assert_eq!(restart_needed(&with(""), &there), ["batches.directory"]);
    let more = with("batches: { directory: /a, concurrency_max: 8 }");
    assert_eq!(diff(&here, &more), ["batches.concurrency_max: 64 -> 8"]);
    assert!(restart_needed(&here, &more).is_empty());
}

#[test]
fn keys_of_providers_and_models_may_belong_to_a_lane() {
    let text = GOOD
        .replace("rpm: 500", "rpm: 500, lane: batch")
        .replace("  llama:\n", "  llama:\n    lane: batch\n");
    let config = read(&text).unwrap();
    let lanes = |name: &str| -> Vec<Option<Lane>> {
        config.catalog().providers[name].credentials.iter().map(|key| key.lane).collect()
    };
    assert_eq!(lanes("openai"), [None, Some(Lane::Batch)]);
    assert_eq!(config.models["llama"].lane.map(crate::auth::LaneName::lane), Some(Lane::Batch));
    check(
        ("rpm: 500", "rpm: 500, lane: night"),
        "7:38: providers.openai.keys[1].lane: unknown value `night`; known here: live, batch",
    );
}
