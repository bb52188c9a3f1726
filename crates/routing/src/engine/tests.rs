use proptest::prelude::*;

use super::*;

const fn at(millis: u64) -> Now {
    Now::from_millis(millis)
}

fn report(running: u32, waiting: u32) -> Report {
    Report { running: Some(running), waiting: Some(waiting), ..Report::default() }
}

/// Plays a history, a word each: `+` sends, `-` ends, `?` asks, `r/w` is an answer, `@ms` goes on to a moment. Gives
/// running, waiting and foreign.
fn after(slots: Option<u32>, history: &str) -> (Option<u32>, Option<u32>, Option<u32>) {
    let (mut state, mut now) = (EngineState::default(), 0);
    for word in history.split_whitespace() {
        match word {
            "+" => state.note_sent(100),
            "-" => state.note_ended(100),
            "?" => state.note_asked(),
            _ if word.starts_with('@') => now = word[1..].parse().expect("a moment"),
            _ => {
                let (running, waiting) = word.split_once('/').expect("an answer");
                let number = |text: &str| text.parse().ok();
                let said =
                    Report { running: number(running), waiting: number(waiting), slots, ..Report::default() };
                state.note_report(said, at(now));
            }
        }
    }
    let load = state.load(at(now));
    (load.running, load.waiting, load.foreign)
}

#[track_caller]
fn check(what: &str, history: &str, expected: (u32, u32, u32)) {
    let (running, waiting, foreign) = expected;
    assert_eq!(after(None, history), (Some(running), Some(waiting), Some(foreign)), "{what}");
}

#[test]
fn load_is_the_last_report_and_own_dispatch_since() {
    check("as it was told", "? 8/2", (8, 2, 10));
    check("what is sent since waits", "? 8/2 + +", (8, 4, 10));
    check("ours is in the report", "+ + ? 2/0", (2, 0, 0));
    check("ours and others'", "+ + ? 5/1", (5, 1, 4));
    check("what ended since is not there any more", "+ + + ? 3/0 - -", (1, 0, 0));
    check("who waited moves up when one ends", "+ + + ? 2/1 -", (2, 0, 0));
    check("ended and sent", "+ + ? 2/0 - +", (2, 0, 0));
    check("sent but not there yet when it answered", "+ + ? 0/0", (0, 2, 0));
}

#[test]
fn what_is_sent_or_ends_while_it_is_asked_may_be_in_the_answer_or_not() {
    check("sent, and in it", "? + 1/0", (1, 0, 0));
    check("sent, and not in it", "? + 0/0", (0, 1, 0));
    check("ended, and still in it: nobody else was there before", "+ ? - 1/0", (0, 0, 0));
    check("ended, and not in it", "+ ? - 0/0", (0, 0, 0));
    check("the next answer tells", "+ ? - 1/0 @50 ? 1/0", (1, 0, 1));
    check("others stay believed as far as can be", "? 4/0 @50 ? + + 5/0", (5, 1, 4));
    check("and no further", "? 4/0 @50 ? + + 2/0", (2, 2, 2));
    check("several routers: theirs goes, ours comes", "? 4/0 @50 + + ? 3/0", (3, 0, 1));
}

#[test]
fn f8_belief_fades_and_ends() {
    check("fresh", "+ ? 9/0 @1500", (9, 0, 8));
    check("half gone", "+ ? 9/0 @3250", (5, 0, 4));
    check("all but gone", "+ ? 9/0 @5000", (1, 0, 0));
    assert_eq!(after(None, "+ ? 9/0 @5001"), (None, None, None), "only what is ours counts, elsewhere");
    assert_eq!(EngineState::default().load(at(0)), EngineLoad::default());
}

#[test]
fn f8_what_is_not_said_is_not_nought() {
    assert_eq!(after(None, "+ ? 3/none"), (Some(3), None, Some(2)));
    assert_eq!(after(None, "+ ? none/3 + +"), (None, Some(5), None));
    assert_eq!(after(None, "+ ? none/none"), (None, None, None));
    let mut state = EngineState::default();
    let lies = Report { kv_used: Some(f32::NAN), slots: Some(0), ..report(u32::MAX, u32::MAX) };
    state.note_report(lies, at(0));
    let load = state.load(at(0));
    assert_eq!((load.running, load.waiting), (Some(REQUESTS_MAX), Some(REQUESTS_MAX)));
    assert_eq!((load.kv_used, state.slots()), (None, None));
}

#[test]
fn who_is_new_runs_where_slots_are_free() {
    let check = |what: &str, history: &str, expected: (u32, u32)| {
        let (running, waiting, _) = after(Some(4), history);
        assert_eq!((running, waiting), (Some(expected.0), Some(expected.1)), "{what}");
    };
    check("into free slots", "? 1/0 + +", (3, 0));
    check("and then into the queue", "? 3/0 + + +", (4, 2));
    check("behind those who wait already", "? 2/1 + +", (2, 3));
    check("more than it says it has", "? 6/0 +", (6, 1));
}

#[test]
fn kv_use_goes_with_what_is_sent_and_ends() {
    let mut state = EngineState::default();
    let said = Report { kv_used: Some(0.5), kv_capacity_tokens: Some(10_000), ..report(8, 2) };
    state.note_sent(2_000);
    state.note_asked();
    state.note_report(said, at(1_000));
    let used = |state: &EngineState| state.load(at(1_100)).kv_used.expect("it was told");
    assert!((used(&state) - 0.5).abs() < 1e-6);
    state.note_sent(1_000);
    state.note_sent(1_000);
    assert!((used(&state) - 0.7).abs() < 1e-6);
    state.note_ended(2_000);
    assert!((used(&state) - 0.5).abs() < 1e-6);
    state.note_sent(u64::MAX);
    assert!((used(&state) - 1.0).abs() < 1e-6, "nobody uses more than there is");
    state.note_report(Report { kv_used: Some(7.0), ..said }, at(7_000));
    assert_eq!(state.load(at(7_000)).kv_used, Some(1.0));
}

#[test]
fn f8_a_signal_that_vanishes_is_missed_and_one_that_never_was_is_not() {
    let mut state = EngineState::default();
    let names = |state: &EngineState, now: u64| -> Vec<&str> {
        state.missing(at(now)).map(|missing| missing.signal.name()).collect()
    };
    let full = Report { kv_used: Some(0.1), ..report(1, 0) };
    state.note_report(full, at(0));
    assert!(names(&state, 0).is_empty(), "slots were never given");
    let without = Report { waiting: None, ..full };
    for (reports, millis) in [(1, 100), (2, 200)] {
        state.note_report(without, at(millis));
        assert!(names(&state, millis).is_empty(), "{reports} in a row may be chance");
    }
    state.note_report(without, at(300));
    assert_eq!(names(&state, 300), ["waiting"]);
    assert_eq!(state.missing(at(300)).next().map(|missing| missing.since), Some(at(100)));
    assert_eq!(state.load(at(300)).waiting, None, "it does not read as 0");
    state.note_report(full, at(400));
    assert!(names(&state, 400).is_empty(), "it is back");

    let mut renamed_before = EngineState::default();
    let expected = Signals::default().with(Signal::Waiting).with(Signal::Running);
    let said = Report { running: Some(1), expected, ..Report::default() };
    renamed_before.note_report(said, at(0));
    assert!(names(&renamed_before, 29_999).is_empty(), "some give it after their first request only");
    assert_eq!(names(&renamed_before, 30_000), ["waiting"]);
}

#[test]
fn a_restart_is_seen_and_counts_begin_anew() {
    let mut state = EngineState::default();
    let counted = |asked: u64, hit: u64, started: u64| Report {
        counts: Counts {
            started_s: Some(started),
            preemptions: Some(0),
            prefix_tokens: Some(asked),
            prefix_tokens_hit: Some(hit),
        },
        ..report(4, 0)
    };
    assert!(!state.note_report(counted(1_000_000, 0, 5), at(0)), "it ran before it was watched");
    assert_eq!(state.trend().prefix_hit_ratio, None);
    assert!(!state.note_report(counted(1_000_100, 75, 5), at(100)));
    assert_eq!(state.trend().prefix_hit_ratio, Some(0.75));
    assert!(state.note_report(counted(50, 0, 5), at(200)), "what only grows has shrunk");
    assert!(state.note_report(counted(60, 0, 9), at(300)), "it says so itself");
    assert_eq!(state.trend().restarts, 2);
    assert_eq!(state.load(at(300)).foreign, Some(4), "what the new one says counts");
}

fn step() -> impl Strategy<Value = (u8, u32, u32, u64)> {
    (0..5_u8, 0..2_000_000_u32, prop_oneof![Just(0), 0..50_u32, Just(u32::MAX)], 0..3_000_u64)
}

proptest! {
    #[test]
    fn load_is_possible_and_grows_with_own_dispatch(history in proptest::collection::vec(step(), 1..60), slots in proptest::option::of(1..64_u32)) {
        let (mut state, mut now, mut ours) = (EngineState::default(), 0, 0_u32);
        for (kind, running, waiting, millis) in history {
            now += millis;
            match kind {
                0 => { state.note_sent(u64::from(running)); ours += 1; }
                1 if ours > 0 => { state.note_ended(u64::from(waiting)); ours -= 1; }
                2 => state.note_asked(),
                3 => {
                    let used = if waiting == 0 { f32::NAN } else { running as f32 / 1e5 - 1.0 };
                    let said = Report { kv_used: Some(used), kv_capacity_tokens: Some(u64::from(waiting)), slots, ..report(running, waiting) };
                    state.note_report(said, at(now));
                }
                _ => {}
            }
            let load = state.load(at(now));
            let total = load.running.zip(load.waiting).map(|(running, waiting)| running + waiting);
            prop_assert!(total.is_none_or(|total| total >= ours), "what is ours is there: {load:?}, {ours}");
            prop_assert!(load.foreign.is_none_or(|foreign| Some(foreign + ours) == total), "{load:?}");
            prop_assert!(load.kv_used.is_none_or(|used| (0.0..=1.0).contains(&used)), "{load:?}");
            let mut more = state.clone();
            more.note_sent(10);
            let after = more.load(at(now));
            prop_assert!(after.running >= load.running && after.waiting >= load.waiting, "{load:?} {after:?}");
            prop_assert!(after.kv_used >= load.kv_used, "{load:?} {after:?}");
            let sum = |load: EngineLoad| load.running.zip(load.waiting).map(|(running, waiting)| running + waiting);
            prop_assert_eq!(sum(after), sum(load).map(|sum| sum + 1));
        }
    }
}
