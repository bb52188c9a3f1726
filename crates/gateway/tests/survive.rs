//! One of six endpoints misbehaves, over sockets: the scenarios of `scenarios/` for a sample, in front of real mocks.

mod support;

use std::time::Duration;

use pointsman::mock::{MockArgs, MockServer, Settings};
use pointsman::serve::Gateway;
use pointsman_settings::overlay::Overlay;
use support::{World, config, fast, hello, stream};

const REQUESTS: usize = 240;

/// Six paid endpoints side by side; the first is as told.
fn six(first: Settings, strategy: &str) -> World {
    let settings = std::iter::once(first).chain(std::iter::repeat_with(fast).take(5));
    let mocks: Vec<MockServer> = settings
        .map(|settings| MockServer::spawn(MockArgs { settings, ..MockArgs::on_any_port() }).expect("a mock"))
        .collect();
    let addresses: Vec<String> = mocks.iter().map(|mock| mock.address().to_string()).collect();
    World { gateway: gateway(&addresses, strategy), mocks }
}

fn gateway(addresses: &[String], strategy: &str) -> Gateway {
    let providers = addresses.iter().enumerate().map(|(at, address)| {
        format!(
            "  p{at}: {{ kind: mock, free: false, health: off, keys: [key], base_url: 'http://{address}' }}\n"
        )
    });
    let deployments = (0..addresses.len()).map(|at| format!("      - {{ name: d{at}, provider: p{at} }}\n"));
    let text = format!(
        "listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\nworkers: 1\nproviders:\n{}models:\n  m:\n    strategy: {strategy}\n    deployments:\n{}",
        providers.collect::<String>(),
        deployments.collect::<String>()
    );
    Gateway::start(None, config(&text), Overlay::default()).expect("the gateway starts")
}

/// Asks many times, all of which must be served, and gives how many were by the first.
fn asked(world: &World) -> usize {
    let body = |number: usize| if number.is_multiple_of(2) { stream() } else { hello() };
    // Whoever asks for the end of the connection need not wait to see whether it stays open.
    let ask = |number| {
        world.post("/v1/chat/completions", "connection: close\r\n", body(number).to_string().as_bytes())
    };
    let answers = (0..REQUESTS).map(ask);
    let by_first = answers.filter(|answer| {
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.header("x-pointsman-served-by") == Some("d0")
    });
    by_first.count()
}

#[test]
fn e3_one_that_answers_429_or_503_or_500_is_not_seen_by_anybody() {
    for settings in [
        Settings { rate_429: 0.3, ..fast() },
        Settings { rate_503: 0.3, ..fast() },
        Settings { error_rate: 0.3, ..fast() },
    ] {
        let world = six(settings, "round_robin");
        let by_first = asked(&world);
        assert!(by_first < REQUESTS / 12, "it is left alone: {by_first}");
        let reached: u64 = (0..6).map(|mock| world.stats(mock).requests).sum();
        assert!(reached as f64 <= 1.1 * REQUESTS as f64, "no storm: {reached}");
        assert_eq!(world.permits(), 0);
    }
}

#[test]
fn e1_one_that_is_not_there_is_not_seen_by_anybody() {
    let world = six(fast(), "latency");
    let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    let mut addresses: Vec<String> = world.mocks.iter().map(|mock| mock.address().to_string()).collect();
    addresses[0] = gone.to_string();
    let world = World { gateway: gateway(&addresses, "latency"), mocks: world.mocks };
    assert_eq!(asked(&world), 0);
}

#[test]
fn one_that_is_slow_gets_little() {
    let world = six(Settings { first_token_ms: 60, ..fast() }, "latency");
    let by_first = asked(&world);
    assert!(by_first < REQUESTS / 12, "{by_first}");
}

#[test]
fn f9_a_health_check_never_generates_and_paid_ones_get_none() {
    let mock = MockServer::spawn(MockArgs { settings: fast(), ..MockArgs::on_any_port() }).expect("a mock");
    let text = format!(
        "listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\nworkers: 1\nhealth: {{ interval_ms: 100 }}\nproviders:\n  \
         own: {{ kind: mock, base_url: 'http://{address}' }}\n  \
         paid: {{ kind: openai, keys: [key], base_url: 'http://{address}' }}\n\
         models:\n  m:\n    deployments: [ {{ provider: own }}, {{ provider: paid }} ]\n",
        address = mock.address()
    );
    let gateway = Gateway::start(None, config(&text), Overlay::default()).expect("the gateway starts");
    let world = World { gateway, mocks: vec![mock] };
    let app = std::sync::Arc::clone(world.app());
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let _ = tokio::time::timeout(Duration::from_secs(10), pointsman::health::run(app)).await;
        });
    });
    world.until("it was checked", || world.stats(0).paths.get("/health").is_some_and(|count| *count >= 3));
    let stats = world.stats(0);
    assert_eq!(stats.requests, 0, "nothing is generated");
    assert_eq!(stats.paths.keys().collect::<Vec<_>>(), ["/health"], "and the paid one is not asked at all");
}
