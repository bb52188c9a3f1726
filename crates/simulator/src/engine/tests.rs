//! The engine against steps worked out by hand.

use super::*;

fn kind() -> Kind {
    Kind {
        name: "by hand".to_owned(),
        about: String::new(),
        source: String::new(),
        a0: 10.0,
        a1: 0.01,
        a2: 1e-6,
        d1: 1.0,
        d2: 0.001,
        host: 0.0,
        kv_tokens: 100_000,
        host_tokens: 0,
        chunk_tokens: 2_000,
        sequences_max: 256,
        slow: 1.0,
    }
}

fn engine(kind: Kind) -> Engine {
    Engine::new(Arc::new(kind))
}

fn job(id: u64, tokens_in: u32, tokens_out: u32, hashes: &[u64]) -> Job {
    let block = |(place, hash): (usize, &u64)| PrefixBlock { tokens: 500 * (place as u32 + 1), hash: *hash };
    Job { id, tokens_in, tokens_out, prefix: hashes.iter().enumerate().map(block).collect() }
}

/// Lets it run to its end and gives what it said when, in microseconds.
fn run(engine: &mut Engine, mut jobs: Vec<(u64, Job)>) -> Vec<(u64, Said)> {
    jobs.reverse();
    let mut all = Vec::new();
    loop {
        let due = engine.due_ns().unwrap_or(u64::MAX);
        if let Some((at_us, job)) = jobs.pop_if(|(at_us, _)| *at_us * 1_000 < due) {
            engine.push(at_us * 1_000, job);
        } else if due == u64::MAX {
            return all;
        } else {
            let mut said = Vec::new();
            engine.advance(due, &mut said);
            all.extend(said.into_iter().map(|said| (due / 1_000, said)));
        }
    }
}

const fn first(id: u64, tokens_cached: u32) -> Said {
    Said::First { id, tokens_cached }
}

const fn done(id: u64, tokens_cached: u32) -> Said {
    Said::Done { id, tokens_cached }
}

#[test]
fn one_request_alone() {
    // A chunk of 2,000 after nothing: 10 + 20 + 1e-6 x 2000 x 1000 = 32 ms. One of 1,000 after 2,000: 10 + 10 + 2.5.
    // Then two tokens: 10 + 1 + 0.001 x 3001, and x 3002.
    let mut engine = engine(kind());
    let said = run(&mut engine, vec![(0, job(1, 3_000, 3, &[]))]);
    assert_eq!(said, [(54_500, first(1, 0)), (54_500 + 14_001 + 14_002, done(1, 0))]);
    assert_eq!((engine.requests(), engine.tokens_used(), engine.own, engine.context), (0, 0, 0, 0));
    assert!((kind().alone_ms(3_000) - 54.5).abs() < 1e-9);
}

#[test]
fn who_comes_within_a_run_begins_with_the_next_step() {
    // The first: 100 tokens, 10 + 1 + 0.005 = 11.005 ms; then 11.101, 11.102 ... The second comes at 15 ms, within the
    // step that ends at 22.106, and takes the next: 10 + 1 x 1 + 0.001 x 102 + 1 + 0.005 = 12.107.
    let said = run(&mut engine(kind()), vec![(0, job(1, 100, 4, &[])), (15_000, job(2, 100, 2, &[]))]);
    let (second, third) = (11_005 + 11_101, 11_005 + 11_101 + 12_107);
    // Both go on: 10 + 2 + 0.001 x (103 + 101).
    let all = [
        (11_005, first(1, 0)),
        (third, first(2, 0)),
        (third + 12_204, done(1, 0)),
        (third + 12_204, done(2, 0)),
    ];
    assert_eq!(second, 22_106);
    assert_eq!(said, all);
}

#[test]
fn prompts_share_the_chunk_in_order() {
    // 1,500 of the first and 500 of the second; then the other 500 of the second beside the first answer.
    let said = run(
        &mut engine(kind()),
        vec![(0, job(1, 100, 1, &[])), (1, job(2, 1_500, 2, &[])), (2, job(3, 1_000, 1, &[]))],
    );
    let one = 11_005;
    let two = one + 10_000 + 20_000 + 1_125 + 125;
    let three = two + 10_000 + 1_000 + 1_501 + 5_000 + 375;
    assert_eq!(
        said,
        [
            (one, first(1, 0)),
            (one, done(1, 0)),
            (two, first(2, 0)),
            (three, first(3, 0)),
            (three, done(2, 0)),
            (three, done(3, 0))
        ]
    );
}

#[test]
fn what_is_cached_is_not_computed_again_but_for_the_last_token() {
    let mut engine = engine(kind());
    let jobs = vec![
        (0, job(1, 1_200, 1, &[7, 8])),
        (100_000, job(2, 1_200, 1, &[7, 8])),
        (200_000, job(3, 1_000, 1, &[7, 8])),
        (300_000, job(4, 1_200, 1, &[9, 8])),
    ];
    let said = run(&mut engine, jobs);
    let firsts: Vec<Said> =
        said.iter().map(|(_, said)| *said).filter(|said| matches!(said, Said::First { .. })).collect();
    assert_eq!(firsts, [first(1, 0), first(2, 1_000), first(3, 500), first(4, 0)]);
    // 200 tokens after 1,000: 10 + 2 + 1e-6 x 200 x 1100.
    assert_eq!(said[2].0, 100_000 + 12_220);
    assert_eq!(engine.tokens_prefilled, 1_200 + 200 + 500 + 1_200);
}

#[test]
fn the_host_tier_gives_back_at_its_price() {
    let small = Kind { kv_tokens: 1_500, host_tokens: 1_000, host: 0.004, ..kind() };
    let jobs = vec![
        (0, job(1, 1_000, 1, &[1, 2])),
        (100_000, job(2, 1_400, 1, &[3, 4])),
        (200_000, job(3, 1_000, 1, &[1, 2])),
    ];
    let said = run(&mut engine(small), jobs);
    // Of the third 500 come from the host at 0.004 ms, 500 are computed after them: 10 + 5 + 0.375 + 2.
    assert_eq!(said[4], (217_375, first(3, 500)));
}

#[test]
fn the_youngest_loses_its_place_when_the_cache_is_full() {
    let small = Kind { kv_tokens: 1_000, ..kind() };
    let mut engine = engine(small);
    let said = run(&mut engine, vec![(0, job(1, 400, 300, &[])), (1, job(2, 400, 300, &[]))]);
    assert_eq!(engine.preempted, 1);
    let order: Vec<u64> = said
        .iter()
        .map(|(_, said)| match said {
            Said::First { id, .. } | Said::Done { id, .. } => *id,
        })
        .collect();
    assert_eq!(order, [1, 2, 1, 2], "each has one first token and one end");
    assert_eq!((engine.tokens_used(), engine.context), (0, 0));
    assert!(!engine.fits(800, 201) && engine.fits(800, 200));
}

#[test]
fn no_more_run_than_may_and_who_leaves_makes_room() {
    let narrow = Kind { sequences_max: 1, ..kind() };
    let mut engine = engine(narrow);
    engine.push(0, job(1, 100, 1_000, &[]));
    engine.push(0, job(2, 100, 1, &[]));
    let mut said = Vec::new();
    engine.advance(11_005_000, &mut said);
    assert_eq!((engine.report().running, engine.report().waiting), (Some(1), Some(1)));
    // 50 ms later the first is gone in its fifth step; the second begins when that is over.
    engine.cancel(61_005_000, 1);
    let fifth = 11_005 + 11_101 + 11_102 + 11_103 + 11_104 + 11_105;
    assert_eq!(engine.due_ns(), Some(fifth * 1_000));
    let said = run(&mut engine, Vec::new());
    assert_eq!(said, [(fifth + 11_005, first(2, 0)), (fifth + 11_005, done(2, 0))]);
}

#[test]
fn half_the_speed_takes_twice_as_long() {
    let said = run(&mut engine(Kind { slow: 2.0, ..kind() }), vec![(0, job(1, 3_000, 3, &[]))]);
    assert_eq!(said.last(), Some(&(2 * 82_503, done(1, 0))));
}
