use super::*;
use crate::rng::Rng;
use crate::strategy::testing::views;

const SPEC: StickySpec = StickySpec { ttl: Duration::from_mins(30), lead: 0.15 };

/// Where a session goes that was at the first deployment, when the strategy picks another.
fn held(scores: &[f64], one_more: f64, picked: usize) -> (usize, Sessions) {
    let all = views(&vec![""; scores.len()]);
    let mut sessions = Sessions::default();
    sessions.note(7, all[0].id, Now::ZERO);
    let (mut rng, mut scores) = (Rng::seeded(1), scores.to_vec());
    let mut cx = Cx::new(Now::ZERO, &mut rng, &mut scores, 0.0);
    cx.one_more = one_more;
    let pick = sessions.hold(&SPEC, 7, &cx, &all, Pick { position: picked, why: Why::NextInTurn });
    (pick.position, sessions)
}

#[test]
fn a_session_moves_for_a_lead_and_for_nothing_less() {
    for (name, scores, one_more, expected) in [
        ("a lead of 10 %", [100.0, 90.0], 1.0, 0),
        ("a lead of 20 %", [100.0, 80.0], 1.0, 1),
        ("no more than one request makes", [2.0, 1.0], 1.0, 0),
        ("two requests", [3.0, 1.0], 1.0, 1),
        ("nobody was compared", [f64::NAN, f64::NAN], 0.0, 0),
        ("scores that say who is preferred", [3.0, 1.0], f64::INFINITY, 0),
    ] {
        let (position, sessions) = held(&scores, one_more, 1);
        assert_eq!(position, expected, "{name}");
        let counts = (sessions.kept, sessions.broken_by_lead, sessions.broken_by_health);
        assert_eq!(counts, if expected == 0 { (1, 0, 0) } else { (0, 1, 0) }, "{name}");
    }
}

#[test]
fn a_session_moves_when_its_deployment_cannot_be_picked() {
    let all = views(&["", "", ""]);
    let mut sessions = Sessions::default();
    sessions.note(7, all[0].id, Now::ZERO);
    let (mut rng, mut scores) = (Rng::seeded(1), vec![f64::NAN; 2]);
    let cx = Cx::new(Now::ZERO, &mut rng, &mut scores, 0.0);
    let picked = Pick { position: 1, why: Why::NextInTurn };
    assert_eq!(sessions.hold(&SPEC, 7, &cx, &all[1..], picked), picked);
    assert_eq!(sessions.broken_by_health, 1);
    assert_eq!(sessions.hold(&SPEC, 8, &cx, &all[1..], picked), picked, "another session");
    assert_eq!(sessions.broken_by_health, 1);
}

#[test]
fn sessions_are_forgotten_in_time_and_bounded() {
    let all = views(&["", ""]);
    let mut sessions = Sessions::default();
    sessions.note(0, all[0].id, Now::ZERO);
    assert_eq!(sessions.place(0, SPEC.ttl, Now::ZERO + SPEC.ttl), Some(all[0].id));
    assert_eq!(sessions.place(0, SPEC.ttl, Now::ZERO + SPEC.ttl + Duration::from_secs(1)), None);
    for key in 1..=SESSIONS_MAX as u64 + 10 {
        sessions.note(key, all[1].id, Now::ZERO);
    }
    assert_eq!(sessions.len(), SESSIONS_MAX);
    assert_eq!(sessions.place(0, SPEC.ttl, Now::ZERO), None, "the oldest made room");
}
