//! The fuzz corpora of the config parser and the importers, replayed: every seed and every input that once broke something.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![expect(clippy::disallowed_methods, reason = "the corpus is files; the crate itself reads none")]

mod invariants;

use std::path::Path;

#[test]
fn l2_configs_of_the_corpus_are_refused_or_make_a_fleet() {
    replay("config", invariants::config, 5);
}

#[test]
fn configs_of_other_routers_in_the_corpus_are_refused_or_pass_check() {
    replay("import", invariants::import, 29);
}

/// Each seed, and cut short at places so many bytes apart.
fn replay(target: &str, run: fn(&[u8]), step: usize) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let mut inputs: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "{} is empty", folder.display());
    for path in inputs {
        let input = std::fs::read(&path).unwrap();
        run(&input);
        for end in (0..input.len().min(2048)).step_by(step) {
            run(&input[..end]);
        }
    }
}
