//! Second attempts beside late ones, over sockets.

mod support;

use pointsman::mock::{MockArgs, MockServer, Scripted};
use pointsman::serve::Gateway;
use pointsman_settings::overlay::Overlay;
use support::{World, config, fast, stream};

/// Two mocks behind a model that hedges, known to be fast, with tokens saved up for hedges.
fn world() -> World {
    let mocks: Vec<MockServer> = (0..2)
        .map(|_| MockServer::spawn(MockArgs { settings: fast(), ..MockArgs::on_any_port() }).expect("a mock"))
        .collect();
    let text = format!(
        "listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\nworkers: 1\nproviders:\n  \
         m0: {{ kind: mock, base_url: 'http://{}', health: off, free: false }}\n  \
         m1: {{ kind: mock, base_url: 'http://{}', health: off, free: false }}\n\
         models:\n  m:\n    hedge: {{ after: 3 }}\n    deployments:\n      \
         - {{ name: d0, provider: m0, tier: 0, price: {{ input: 1000, output: 1 }} }}\n      \
         - {{ name: d1, provider: m1, tier: 1, price: {{ input: 1000, output: 1 }} }}\n",
        mocks[0].address(),
        mocks[1].address()
    );
    let gateway = Gateway::start(None, config(&text), Overlay::default()).expect("the gateway starts");
    let world = World { mocks, gateway };
    // Long prompts bring the tokens that a few short ones may be hedged with.
    let mut long = stream();
    long["messages"][0]["content"] = "word ".repeat(4000).into();
    for _ in 0..25 {
        assert_eq!(world.chat(&long).status, 200);
    }
    world
}

#[test]
fn e9_the_loser_is_cancelled_and_its_cost_recorded() {
    let world = world();
    world.script(0, [Scripted { hang_after: Some(0), ..Default::default() }]);
    let answer = world.chat(&stream());
    assert_eq!((answer.status, answer.header("x-pointsman-served-by")), (200, Some("d1")), "{answer:?}");
    assert!(answer.body.ends_with("data: [DONE]\n\n"), "{}", answer.body);
    world.until("the loser is cancelled", || world.stats(0).cancelled == 1);
    let record = world.record(&answer);
    let attempts = &record["attempts"];
    assert_eq!(attempts[0]["outrun"], true, "{record}");
    assert_eq!((&attempts[1]["kind"], &attempts[1]["outrun"]), (&"hedge".into(), &false.into()), "{record}");
    assert!(record["hedge_cost_usd"].as_f64().is_some_and(|cost| cost > 0.0), "{record}");
    assert!(record["cost_usd"].as_f64().is_some_and(|cost| cost > 0.0), "{record}");
    assert_eq!(world.permits(), 0);
}

#[test]
fn e9_the_first_may_still_win_and_either_may_fail() {
    // The first answers after all, while the hedge hangs.
    let world = world();
    world.script(0, [Scripted { delay_ms: 300, ..Default::default() }]);
    world.script(1, [Scripted { hang_after: Some(0), ..Default::default() }]);
    let answer = world.chat(&stream());
    assert_eq!((answer.status, answer.header("x-pointsman-served-by")), (200, Some("d0")), "{answer:?}");
    world.until("the hedge is cancelled", || world.stats(1).cancelled == 1);
    let decision = answer.header("x-pointsman-decision").expect("every answer has one");
    assert!(!decision.contains("d0:tried"), "the decision that led to who served: {decision}");

    // The first hangs and dies; the hedge goes on.
    world.script(0, [Scripted { delay_ms: 200, close: true, ..Default::default() }]);
    world.script(1, [Scripted { delay_ms: 400, ..Default::default() }]);
    let answer = world.chat(&stream());
    assert_eq!((answer.status, answer.header("x-pointsman-served-by")), (200, Some("d1")), "{answer:?}");

    // The first is refused, and the hedge is lost: nobody hears the words of the one as the other's.
    world.script(0, [Scripted { delay_ms: 200, status: Some(500), ..Default::default() }]);
    world.script(1, [Scripted { delay_ms: 400, close: true, ..Default::default() }]);
    let answer = world.chat(&stream());
    assert_eq!((answer.status, answer.error("who")), (502, "provider:m1".into()), "{answer:?}");
    assert!(!answer.body.contains("as scripted"), "{answer:?}");

    // The hedge is refused; the first goes on.
    world.script(0, [Scripted { delay_ms: 300, ..Default::default() }]);
    world.script(1, [Scripted { status: Some(503), ..Default::default() }]);
    let answer = world.chat(&stream());
    assert_eq!((answer.status, answer.header("x-pointsman-served-by")), (200, Some("d0")), "{answer:?}");
    assert_eq!(world.permits(), 0);
}

#[test]
fn d8_a_client_that_leaves_cancels_both() {
    let world = world();
    let hang = || Scripted { hang_after: Some(0), ..Default::default() };
    world.script(0, [hang()]);
    world.script(1, [hang()]);
    let client = {
        use std::io::Write;
        let mut client = world.connect();
        let body = stream().to_string();
        client.write_all(&support::request("/v1/chat/completions", "", body.as_bytes())).expect("sent");
        client
    };
    world.until("both are asked", || world.stats(0).inflight + world.stats(1).inflight == 2);
    drop(client);
    world.until("both are cancelled", || world.stats(0).cancelled + world.stats(1).cancelled == 2);
    world.until("all permits are back", || world.permits() == 0);
}
