//! Much of the same: clients that leave, reloads under streams, and everything down. The short forms run with all other
//! tests, the long ones by `cargo nextest run -p pointsman --test soak --run-ignored only --no-capture`.

mod support;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use pointsman::mock::{Scripted, Settings};
use support::binary::{Binary, one};
use support::load::{Load, long};
use support::{World, hello, request, stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PATH: &str = "/v1/chat/completions";

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("readable").count()
}

/// A client goes through all phases and leaves in each.
#[expect(clippy::print_stdout, reason = "the figures are what the long form is run for")]
fn clients_leave(rounds: usize) {
    const PHASES: usize = 7;
    let world = World::with(1, ", slots: 1", "", "");
    world.mocks[0].control().set(|settings| settings.slots = 0);
    assert_eq!(world.chat(&hello()).status, 200);
    let before = descriptors();
    let depth = || world.app().live.lock().fleet.view(pointsman::clock::now()).models[0].queue_depth;
    let (asked, streamed) = (hello().to_string(), stream().to_string());
    let (asked, streamed) = (request(PATH, "", asked.as_bytes()), request(PATH, "", streamed.as_bytes()));
    let mut closed_ms = Vec::with_capacity(rounds);
    for round in 0..rounds {
        let mut client = world.connect();
        let cancelled = world.stats(0).cancelled;
        let called = match round % PHASES {
            0 => client.write_all(&asked[..20]).map(|()| false),
            1 => client.write_all(&asked[..asked.len() - 5]).map(|()| false),
            phase => {
                let hang_after = match phase {
                    2 | 3 => None,
                    4 => Some(0),
                    _ => Some(2),
                };
                let hang = Scripted { hang: hang_after.is_none(), hang_after, ..Default::default() };
                world.script(0, [hang]);
                client.write_all(if phase == 3 { &asked } else { &streamed }).map(|()| true)
            }
        };
        let called = called.expect("written");
        if called {
            world.until("the call is under way", || world.stats(0).inflight == 1);
        }
        if round % PHASES >= 5 {
            assert!(client.read(&mut [0; 64]).expect("content") > 0);
        }
        if round % PHASES == 6 {
            // The only slot is taken: this one waits for it, and leaves while it waits.
            let mut waiting = world.connect();
            waiting.write_all(&asked).expect("written");
            world.until("it waits", || depth() == 1);
            drop(waiting);
            world.until("it left the queue", || depth() == 0);
        }
        let left = Instant::now();
        drop(client);
        if called {
            world.until("its call is cancelled", || world.stats(0).cancelled > cancelled);
            closed_ms.push(left.elapsed().as_secs_f64() * 1e3);
        }
        world.until("its slot is free", || world.permits() == 0);
    }
    let app = world.app();
    let load = |count: &std::sync::atomic::AtomicU64| count.load(std::sync::atomic::Ordering::Relaxed);
    world.until("nothing is left", || {
        load(&app.connections) == 0 && load(&app.requests) == 0 && load(&app.attempts) == 0 && depth() == 0
    });
    world.until("no socket is left", || world.stats(0).connections == 0 && descriptors() <= before + 2);
    let view = app.live.lock().fleet.view(pointsman::clock::now());
    let deployment = &view.models[0].deployments[0];
    assert_eq!((deployment.inflight, deployment.tokens_inflight, deployment.failures), (0, 0, 0));
    closed_ms.sort_by(f64::total_cmp);
    let at = |share: f64| closed_ms[((closed_ms.len() - 1) as f64 * share) as usize];
    println!(
        "{rounds} clients left; upstream closed: p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms",
        at(0.5),
        at(0.99),
        at(1.0)
    );
    assert!(at(0.99) <= 100.0, "p99 {} ms", at(0.99));
    assert_eq!(world.chat(&hello()).status, 200);
}

#[test]
fn d7_d8_d9_d10_nothing_is_left_of_clients_that_left() {
    clients_leave(210);
}

#[test]
#[ignore = "half a minute: 10,000 clients"]
fn d7_d8_d9_d10_nothing_is_left_of_10_000_clients_that_left() {
    clients_leave(10_000);
}

/// Streams and requests go on while the configuration is reloaded, every time to another one.
#[expect(clippy::print_stdout, reason = "the same")]
fn reload_under(streams: usize, pieces: usize, piece_delay_ms: u64, reloads: usize, every: Duration) {
    let binary = Binary::start(&one());
    binary.mock.control().set(|settings: &mut Settings| settings.slots = 0);
    binary.mock.control().script((0..streams).map(|_| long(pieces, piece_delay_ms)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let address = binary.client.clone();
    let opened = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = std::sync::Arc::clone(&opened);
    let reading = std::thread::spawn(move || {
        runtime.block_on(async move {
            let body = stream().to_string();
            let sent = request(PATH, "connection: close\r\n", body.as_bytes());
            let readers: Vec<_> = (0..streams)
                .map(|_| {
                    let (address, sent, count) =
                        (address.clone(), sent.clone(), std::sync::Arc::clone(&count));
                    tokio::spawn(async move {
                        let mut client = tokio::net::TcpStream::connect(address).await.expect("it listens");
                        client.write_all(&sent).await.expect("written");
                        let mut text = vec![0; 16];
                        client.read_exact(&mut text).await.expect("the head comes");
                        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        client.read_to_end(&mut text).await.expect("no reset");
                        let text = String::from_utf8_lossy(&text);
                        text.ends_with("data: [DONE]\n\n\r\n0\r\n\r\n")
                            && text.matches("\"content\":\"x\"").count() == pieces
                    })
                })
                .collect();
            let mut whole = 0;
            for reader in readers {
                whole += usize::from(reader.await.expect("no panic"));
            }
            whole
        })
    });
    let began = Instant::now();
    while opened.load(std::sync::atomic::Ordering::Relaxed) < streams {
        assert!(began.elapsed() < Duration::from_secs(60), "all streams begin");
    }
    let load = Load::start(&binary.client, 1, 1);
    for reload in 1..=reloads {
        let next = Instant::now() + every;
        binary
            .rewrite(&one().replace("provider: p }", &format!("provider: p, weight: {} }}", 1 + reload % 7)));
        let answer = binary.admin("POST", "/admin/v1/reload", "", "");
        assert_eq!(answer.status, 200, "{answer:?}");
        std::thread::park_timeout(next.saturating_duration_since(Instant::now()));
    }
    let generation =
        binary.admin("GET", "/admin/v1/overview", "", "").json()["config"]["generation"].as_u64();
    assert!(generation.is_some_and(|generation| generation > reloads as u64), "{generation:?}");
    let whole = reading.join().expect("no panic");
    let (failures, asked) = load.end();
    println!(
        "{reloads} reloads: {whole} of {streams} streams whole, {} of {asked} requests failed",
        failures.len()
    );
    assert_eq!((whole, failures), (streams, Vec::new()));
}

#[test]
fn l3_reloads_cut_no_stream() {
    reload_under(100, 40, 50, 10, Duration::ZERO);
}

#[test]
#[ignore = "more than a minute: 1,000 streams for 60 s, a reload every second"]
fn l3_reloads_every_second_cut_none_of_1_000_streams() {
    reload_under(1_000, 70, 1_000, 60, Duration::from_secs(1));
}

#[test]
fn e6_e11_everything_down_is_told_at_once_and_makes_no_storm() {
    let world = World::new(3, "");
    for mock in &world.mocks {
        mock.control().set(|settings| (settings.error_rate, settings.error_status) = (1.0, 503));
    }
    let all = 1_000;
    let mut took_ms = Vec::new();
    for _ in 0..all {
        let began = Instant::now();
        let answer = world.chat_quickly(&hello());
        let took = began.elapsed();
        assert_eq!(answer.status, 503, "{answer:?}");
        if answer.header("x-pointsman-attempts") != Some("0") {
            continue;
        }
        took_ms.push(took.as_secs_f64() * 1e3);
        let view = world.app().live.lock().fleet.view(pointsman::clock::now());
        let soonest = view.models[0].deployments.iter().filter_map(|one| one.returns_in_ms).min();
        let soonest_s = soonest.expect("each says when it returns").div_ceil(1000).max(1);
        let told: u64 = answer.header("retry-after").expect("told").parse().expect("seconds");
        assert!(
            (soonest_s..=soonest_s + 1).contains(&told),
            "{told} s, and the soonest returns in {soonest_s} s"
        );
    }
    took_ms.sort_by(f64::total_cmp);
    let at = |share: f64| took_ms[((took_ms.len() - 1) as f64 * share) as usize];
    println!(
        "{all} requests, {} attempts; 503 after p50 {:.2} ms, p99 {:.2} ms",
        world.reached(),
        at(0.5),
        at(0.99)
    );
    assert!(took_ms.len() > all * 9 / 10, "most are told without an attempt: {}", took_ms.len());
    assert!(world.reached() < all as u64 / 10, "{} attempts", world.reached());
    assert!(at(0.5) < 5.0, "{} ms", at(0.5));
}
