use super::*;
use crate::rng::{Rng, mix};
use crate::strategy::testing::views;

/// Neither configured nor reported.
const UNSAID: (Option<u64>, Option<u64>) = (None, None);

/// The beginnings of a prompt made of words, a block of 100 tokens each.
fn prompt(words: &[u64]) -> Vec<PrefixBlock> {
    let mut hash = 0_u64;
    let mut block = |(nth, word): (usize, &u64)| {
        hash = mix(hash.wrapping_add(mix(*word + 1)));
        PrefixBlock { tokens: 100 * (nth as u32 + 1), hash }
    };
    words.iter().enumerate().map(&mut block).collect()
}

fn id(index: u32) -> DeploymentId {
    DeploymentId { index, generation: 0 }
}

fn cached(index: &mut PrefixIndex, prefix: &[PrefixBlock], now: Now) -> Vec<u32> {
    let mut eligible = views(&["", "", ""]);
    index.look_up(prefix, &mut eligible, now);
    eligible.iter().map(|view| view.tokens_cached).collect()
}

#[test]
fn the_longest_common_beginning_is_found_for_all_at_once() {
    let (mut index, now) = (PrefixIndex::default(), Now::from_millis(1));
    assert_eq!(index.note_sent(id(0), &prompt(&[1, 2, 3, 4]), UNSAID, now), Match::default());
    index.note_sent(id(2), &prompt(&[1, 2, 9]), UNSAID, now);
    assert_eq!(cached(&mut index, &prompt(&[1, 2, 3, 4, 5]), now), [400, 0, 200]);
    assert_eq!(cached(&mut index, &prompt(&[1, 2, 9, 9]), now), [200, 0, 300]);
    assert_eq!(cached(&mut index, &prompt(&[2, 1]), now), [0, 0, 0]);
    let matched = index.note_sent(id(0), &prompt(&[1, 2, 9]), UNSAID, now);
    assert_eq!(matched.tokens, 200, "what it had before");
    assert_eq!(index.tokens_held(id(0)), 500, "what both begin with is held once");
}

#[test]
fn what_was_not_used_for_half_an_hour_is_forgotten() {
    let mut index = PrefixIndex::default();
    let (first, second) = (prompt(&[1, 2]), prompt(&[1, 3]));
    index.note_sent(id(1), &first, UNSAID, Now::ZERO);
    let later = Now::ZERO + PREFIX_BELIEVED;
    index.note_sent(id(1), &second, UNSAID, later);
    assert_eq!(cached(&mut index, &first, later), [0, 200, 0]);
    let after = later + Duration::from_secs(1);
    assert_eq!(cached(&mut index, &first, after), [0, 100, 0], "its beginning was used since");
    index.note_sent(id(1), &second, UNSAID, after);
    assert_eq!(index.tokens_held(id(1)), 200);
}

#[test]
fn a_cache_is_believed_to_hold_no_more_than_it_can() {
    let (mut index, now) = (PrefixIndex::default(), Now::ZERO);
    let words: Vec<u64> = (0..100).collect();
    let long = prompt(&words);
    index.note_sent(id(0), &long, (Some(CACHE_TOKENS_MIN), None), now);
    let (other, third): (Vec<u64>, Vec<u64>) = ((1_000..1_100).collect(), (2_000..2_100).collect());
    index.note_sent(id(0), &prompt(&other), (Some(CACHE_TOKENS_MIN), None), now);
    assert_eq!(cached(&mut index, &long, now)[0], 10_000);
    index.note_sent(id(0), &prompt(&third), (Some(CACHE_TOKENS_MIN), None), now);
    assert_eq!(cached(&mut index, &long, now)[0], 0, "20,000 tokens came since");
    assert_eq!(cached(&mut index, &prompt(&other), now)[0], 10_000);
    for more in 3..20 {
        let more: Vec<u64> = (more * 1_000..more * 1_000 + 100).collect();
        index.note_sent(id(0), &prompt(&more), (Some(CACHE_TOKENS_MIN), None), now);
    }
    assert!(index.tokens_held(id(0)) <= REMEMBERED * CACHE_TOKENS_ASSUMED);
}

#[test]
fn beginnings_are_bounded_whatever_the_cache_holds() {
    let (mut index, mut rng) = (PrefixIndex::default(), Rng::seeded(1));
    for nth in 0..3 * PREFIX_NODES_MAX {
        let block = PrefixBlock { tokens: 1, hash: rng.next_u64() };
        index.note_sent(id(0), &[block], (Some(u64::MAX), None), Now::from_millis(nth as u64 / 100));
    }
    assert_eq!(index.caches[0].recent.len(), PREFIX_NODES_MAX);
    assert!(index.nodes.len() <= PREFIX_NODES_MAX + 1, "places are used again");
}

#[test]
fn one_that_was_started_anew_has_nothing() {
    let (mut index, now) = (PrefixIndex::default(), Now::ZERO);
    for deployment in 0..3 {
        index.note_sent(id(deployment), &prompt(&[1, 2]), UNSAID, now);
    }
    index.forget(id(1), false);
    assert_eq!(cached(&mut index, &prompt(&[1, 2]), now), [200, 0, 200]);
    index.forget(id(0), true);
    index.note_sent(id(7), &prompt(&[1]), UNSAID, now);
    assert_eq!(index.caches.len(), 3, "the place of one that is gone is used again");
}

#[test]
fn answers_tell_how_much_a_cache_holds() {
    for (truth, reported) in [(50_000, None), (400_000, Some(100_000)), (3_000_000, None)] {
        let (mut index, mut now, mut rng) = (PrefixIndex::default(), Now::ZERO, Rng::seeded(2));
        let mut wrong = [0, 0];
        for nth in 0..8_000_u64 {
            now = now + Duration::from_millis(100);
            // Some come again soon, some late.
            let about = (4_000.0 * rng.unit().powi(3)) as u64;
            let words: Vec<u64> = (0..20).map(|word| about * 1_000 + word).collect();
            let matched = index.note_sent(id(0), &prompt(&words), (None, reported), now);
            let there = if matched.distance < truth { matched.remembered } else { 0 };
            wrong[usize::from(nth > 2_000)] += usize::from(there != matched.tokens);
            index.note_answer(id(0), matched, u64::from(there));
        }
        let learnt = index.caches[0].capacity;
        assert!((truth / 4..4 * truth).contains(&learnt), "{truth}: {learnt}, {wrong:?}");
    }
}

#[test]
fn it_agrees_with_a_slow_one_on_random_histories() {
    let (mut index, mut rng) = (PrefixIndex::default(), Rng::seeded(3));
    let mut sent: Vec<(u32, Vec<u64>)> = Vec::new();
    for step in 0..2_000 {
        let words: Vec<u64> = (0..=rng.below(6)).map(|_| rng.below(3) as u64).collect();
        let now = Now::from_millis(step);
        let common = |a: &[u64], b: &[u64]| 100 * a.iter().zip(b).take_while(|(a, b)| a == b).count() as u32;
        let slow = |to: u32| {
            let sent = sent.iter().filter(|(deployment, _)| *deployment == to);
            sent.map(|(_, sent)| common(sent, &words)).max().unwrap_or(0)
        };
        assert_eq!(cached(&mut index, &prompt(&words), now), [slow(0), slow(1), slow(2)]);
        let to = rng.below(3) as u32;
        assert_eq!(index.note_sent(id(to), &prompt(&words), UNSAID, now).tokens, slow(to));
        sent.push((to, words));
    }
}
