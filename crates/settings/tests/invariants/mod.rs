//! What holds of the config parser for every text. The fuzz target and the replay of its corpus call this.

use pointsman_routing::{Fleet, Now};
use pointsman_settings::{Sources, import, parse};

/// Whatever the text, it is either refused with places that exist in it, or makes a fleet.
pub(crate) fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let env = |name: &str| (name != "UNSET").then(|| "from-the-environment".to_owned());
    let sources = Sources { env: &env, file: &|_| Err("there are no files".to_owned()) };
    match parse(text, &sources) {
        Ok(config) => {
            let catalog = config.catalog();
            let mut fleet = Fleet::new();
            fleet.apply(&catalog, Now::ZERO);
            fleet.apply(&catalog, Now::ZERO);
            assert_eq!(fleet.view(Now::ZERO).models.len(), catalog.models.len());
            let shown = config.redacted().to_string();
            assert!(!shown.contains("from-the-environment"), "a secret is shown: {shown}");
        }
        Err(found) => {
            assert!(!found.is_empty(), "a refusal says why");
            let lines = text.lines().count() + 1;
            for one in found {
                let line = usize::try_from(one.line).unwrap_or(usize::MAX);
                assert!(line <= lines, "line {line} of {lines}: {}", one.problem.message);
                assert!(!one.problem.message.is_empty());
            }
        }
    }
}

/// Whatever another router's configuration says, it is refused with a reason, or becomes a configuration that passes `check`,
/// and what was not taken over is told with a line that exists.
pub(crate) fn import(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let lines = text.lines().count() as u64 + 1;
    for read in [import::litellm, import::neurolink] {
        match read(text) {
            Err(why) => assert!(!why.is_empty(), "a refusal says why"),
            Ok(imported) => {
                for note in &imported.notes {
                    assert!(note.line <= lines && !note.text.is_empty(), "{note:?} of {lines} lines");
                }
                let sources = Sources {
                    env: &|_| Some("value-of-a-variable".to_owned()),
                    file: &|_| Err("none".to_owned()),
                };
                let checked = parse(&imported.yaml, &sources).err();
                assert!(checked.is_none(), "{checked:#?}\n{text}\n{}", imported.yaml);
            }
        }
    }
}
