//! The fuzz corpus of the lifecycle, replayed: every seed and every input that once broke something.
#![expect(clippy::disallowed_methods, reason = "the corpus is files; the crate itself reads none")]

mod invariants;

use std::path::Path;

use pointsman_routing::Rng;

#[test]
fn lifecycles_of_the_corpus_keep_the_invariants() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/lifecycle");
    let mut inputs: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "{} is empty", folder.display());
    for path in inputs {
        let input = std::fs::read(&path).unwrap();
        // Cut short after every event, each seed is many more.
        for end in (0..=input.len()).step_by(3) {
            invariants::lifecycle(&input[..end]);
        }
    }
}

#[test]
fn random_lifecycles_keep_the_invariants() {
    let mut rng = Rng::seeded(5);
    for _ in 0..1_500 {
        let bytes: Vec<u8> = (0..rng.below(400)).map(|_| rng.below(256) as u8).collect();
        invariants::lifecycle(&bytes);
    }
}
