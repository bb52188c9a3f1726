//! Engines asked of their load over sockets: every spelling, everything that can be wrong with an answer, and what
//! traffic notices of it, which is nothing.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;

use pointsman::app::App;
use pointsman::clock;
use pointsman::mock::{Metrics, MockArgs, MockServer, Spelling};
use pointsman_routing::fleet::DeploymentView;
use serde_json::json;
use support::{World, config, fast, hello, request};
use tokio::sync::oneshot;

/// A gateway whose engines are asked, until it is dropped.
struct Polled {
    world: World,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Polled {
    /// In front of one mock that speaks so, with this of its engine in the configuration.
    fn new(spelling: Spelling, engine: &str) -> Self {
        let world = World::with(1, &format!(", engine: {{ idle_ms: 100, busy_ms: 10, {engine} }}"), "", "");
        world.mocks[0].control().set(|settings| settings.engine = spelling);
        Self::of(world)
    }

    fn of(world: World) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let app = Arc::clone(world.app());
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                tokio::select! {
                    () = pointsman::engines::run(app) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { world, stop: Some(stop), thread: Some(thread) }
    }

    fn view(&self) -> DeploymentView {
        let view = self.world.app().live.lock().fleet.view(clock::now());
        view.models[0].deployments[0].clone()
    }

    /// Waits until what is shown of the engine fits.
    fn until(&self, what: &str, fits: impl Fn(&DeploymentView) -> bool) {
        self.world.until(what, || fits(&self.view()));
    }

    fn load(&self) -> (Option<u32>, Option<u32>, Option<u32>) {
        let engine = self.view().engine.and_then(|engine| engine.load);
        engine.map_or((None, None, None), |load| (load.running, load.waiting, load.foreign))
    }

    fn set(&self, metrics: Metrics) {
        self.world.mocks[0].control().set(|settings| settings.metrics = metrics);
    }

    /// Lines of the metrics with all of these words in them.
    fn counted(&self, words: &[&str]) -> Vec<String> {
        let text = metrics(self.world.app());
        text.lines().filter(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned).collect()
    }
}

impl Drop for Polled {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn metrics(app: &App) -> String {
    let fleet = app.live.lock().fleet.view(clock::now());
    let around = pointsman::telemetry::metrics::Surroundings {
        fleet,
        generation: 1,
        permits: 0,
        attempts: 0,
        connections: 0,
    };
    app.metrics.encode(&around)
}

/// A request that nobody waits for; it is cancelled when this is dropped.
fn begun(at: SocketAddr) -> TcpStream {
    let mut connection = TcpStream::connect(at).expect("it listens");
    connection
        .write_all(&request("/v1/chat/completions", "", hello().to_string().as_bytes()))
        .expect("written");
    connection
}

#[test]
fn f8_load_is_seen_in_every_spelling_and_others_are_told_from_ours() {
    let all = [
        (Spelling::Vllm, "vllm", true),
        (Spelling::VllmV0, "vllm", true),
        (Spelling::Sglang, "sglang", true),
        (Spelling::SglangUnderscore, "sglang", true),
        (Spelling::Tgi, "tgi", true),
        (Spelling::LlamaCpp, "llama_cpp", true),
        (Spelling::LlamaCppOld, "llama_cpp", true),
        (Spelling::TensorrtLlm, "tensorrt_llm", true),
        (Spelling::Triton, "triton", true),
        (Spelling::Ollama, "ollama", false),
    ];
    for (spelling, family, tells) in all {
        let polled = Polled::new(spelling, &format!("family: {family}"));
        let (world, mock) = (&polled.world, &polled.world.mocks[0]);
        mock.control().set(|settings| {
            settings.slots = 2;
            settings.first_token_ms = 600_000;
        });
        let _ours: Vec<TcpStream> = (0..2).map(|_| begun(world.address())).collect();
        world.until("ours are there", || world.stats(0).slots_busy == 2);
        let others = begun(mock.address());
        world.until("others are there", || world.stats(0).inflight == 3);
        if !tells {
            polled.until("it is heard", |view| view.engine.is_some());
            assert_eq!((polled.load(), polled.view().engine_signals.state), ((None, None, None), "ok"));
            continue;
        }
        world.until(&format!("{spelling:?} is understood"), || polled.load() == (Some(2), Some(1), Some(1)));
        let engine = polled.view().engine.expect("just seen");
        assert_eq!(engine.kv_used, Some(1.0), "{spelling:?}");
        drop(others);
        world.until("others are gone", || polled.load() == (Some(2), Some(0), Some(0)));
        assert_eq!(polled.view().engine_signals.state, "ok", "{spelling:?}");
    }
}

#[test]
fn f8_a_metric_that_is_renamed_raises_an_alarm_and_does_not_read_as_nought() {
    for (spelling, family) in [
        (Spelling::Vllm, "vllm"),
        (Spelling::Sglang, "sglang"),
        (Spelling::Tgi, "tgi"),
        (Spelling::LlamaCpp, "llama_cpp"),
    ] {
        let polled = Polled::new(spelling, &format!("family: {family}"));
        polled.until("all is there", |view| {
            view.engine.as_ref().is_some_and(|engine| engine.waiting == Some(0))
                && view.engine_signals.state == "ok"
        });
        polled.set(Metrics::Renamed);
        polled.until("it is missed", |view| view.engine_signals.state == "missing");
        let view = polled.view();
        let missing: Vec<&str> = view.engine_signals.missing.iter().map(|missing| missing.signal).collect();
        assert_eq!(missing, ["waiting"], "{spelling:?}");
        assert_eq!(view.engine.and_then(|engine| engine.waiting), None, "{spelling:?}");
        let alarm =
            polled.counted(&["pointsman_engine_signal_missing{", "deployment=\"d0\"", "signal=\"waiting\""]);
        assert!(alarm.len() == 1 && alarm[0].ends_with(" 1"), "{alarm:?}");
        assert_eq!(polled.world.chat(&hello()).status, 200, "traffic goes on");
        polled.set(Metrics::Good);
        polled.until("it is back", |view| view.engine_signals.state == "ok");
        assert!(polled.counted(&["pointsman_engine_signal_missing{"]).is_empty());
    }
}

#[test]
fn f8_an_engine_that_hangs_lies_or_never_ends_takes_nothing_down() {
    for (metrics, result) in [
        (Metrics::Hang, "failed"),
        (Metrics::Endless, "failed"),
        (Metrics::Off, "absent"),
        (Metrics::Garbage, "ok"),
        (Metrics::Lies, "ok"),
    ] {
        let world = World::with(1, ", engine: { idle_ms: 100, busy_ms: 10, timeout_ms: 2000 }", "", "");
        world.mocks[0].control().set(|settings| settings.metrics = metrics);
        let polled = Polled::of(world);
        let result = format!("result=\"{result}\"");
        polled.world.until("it was asked", || {
            !polled.counted(&["pointsman_engine_polls_total{provider=\"m0\"", &result]).is_empty()
        });
        let answer = polled.world.chat(&hello());
        assert_eq!(answer.status, 200, "{metrics:?}");
        let load = polled.load();
        assert!(load.0.is_none_or(|running| running <= 1) && load.1.is_none(), "{metrics:?}: {load:?}");
        let record = polled.world.record(&answer);
        let age = &record["decisions"][0]["candidates"][0]["engine_age_ms"];
        let heard = matches!(metrics, Metrics::Garbage | Metrics::Lies);
        assert_eq!(age.is_u64(), heard, "the record shows how old the engine's word was: {record}");
    }
}

#[test]
fn a_restart_is_seen_and_load_is_that_of_the_new_process() {
    let polled = Polled::new(Spelling::Vllm, "");
    let first = &polled.world.mocks[0];
    let args = MockArgs { listen: first.address(), settings: fast(), ..MockArgs::on_any_port() };
    for _ in 0..3 {
        assert_eq!(polled.world.chat(&hello()).status, 200);
    }
    polled.until("it was heard after them", |view| {
        view.engine.as_ref().is_some_and(|engine| engine.prefix_hit_ratio == Some(0.0))
    });
    let mut polled = polled;
    polled.world.mocks.clear();
    polled
        .world
        .mocks
        .push((0..1000).find_map(|_| MockServer::spawn(args.clone()).ok()).expect("the port is free again"));
    polled
        .until("the restart is seen", |view| view.engine.as_ref().is_some_and(|engine| engine.restarts == 1));
    assert_eq!(polled.load(), (Some(0), Some(0), Some(0)));
}

#[test]
fn slots_are_learnt_where_that_is_asked_for_and_shown_everywhere() {
    let learns = Polled::new(Spelling::LlamaCpp, "family: llama_cpp, slots: auto");
    let shows = Polled::new(Spelling::LlamaCpp, "family: llama_cpp");
    for polled in [&learns, &shows] {
        polled.world.mocks[0].control().set(|settings| {
            settings.slots = 2;
            settings.first_token_ms = 600_000;
        });
        polled.until("it is told", |view| view.engine.as_ref().is_some_and(|engine| engine.slots == Some(2)));
    }
    assert_eq!((learns.view().slots, shows.view().slots), (Some(2), None));
    let _three: Vec<TcpStream> = (0..3).map(|_| begun(learns.world.address())).collect();
    learns.world.until("the third waits here", || {
        learns.world.app().live.lock().fleet.view(clock::now()).models[0].queue_depth == 1
    });
    learns.world.until("two are there", || learns.world.stats(0).inflight == 2);
    learns.world.mocks[0].control().set(|settings| settings.slots = 3);
    learns.world.until("more slots let it in", || learns.world.stats(0).inflight == 3);
}

/// Serves one page of metrics and gives the head of the request for it.
fn page_once() -> (SocketAddr, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("bound");
    let served = std::thread::spawn(move || {
        let (mut connection, _) = listener.accept().expect("it is asked");
        let mut head = Vec::new();
        let mut byte = [0; 1];
        while !head.ends_with(b"\r\n\r\n") && connection.read(&mut byte).is_ok_and(|read| read > 0) {
            head.extend_from_slice(&byte);
        }
        let page = "vllm:num_requests_running 7\n";
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{page}", page.len());
        let _ = connection.write_all(answer.as_bytes());
        String::from_utf8(head).expect("a head is text")
    });
    (address, served)
}

#[test]
fn keys_go_to_the_port_they_were_configured_for_and_no_other() {
    for elsewhere in [false, true] {
        let (asked, served) = page_once();
        let at = if elsewhere { SocketAddr::from(([127, 0, 0, 1], 9)) } else { asked };
        let text = format!(
            "listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\nworkers: 1\nproviders:\n  m0: {{ kind: vllm, base_url: 'http://{at}', \
             health: off, keys: [sk-secret-of-mine], headers: {{ x-team: red }}, engine: {{ port: {}, metrics: /m }} }}\n\
             models: {{ m: {{ deployments: [ {{ provider: m0, name: d0, model: up }} ] }} }}\n",
            asked.port()
        );
        let gateway =
            pointsman::serve::Gateway::start(None, config(&text), Default::default()).expect("it starts");
        let polled = Polled::of(World { mocks: Vec::new(), gateway });
        polled.until("it is heard", |view| {
            view.engine.as_ref().is_some_and(|engine| engine.running == Some(7))
        });
        let head = served.join().expect("it was asked");
        assert!(head.starts_with("GET /m HTTP/1.1\r\n"), "{head}");
        assert!(head.contains(&format!("\r\nhost: {asked}\r\n")), "{head}");
        assert_eq!(head.contains("sk-secret-of-mine"), !elsewhere, "{head}");
        assert_eq!(head.contains("x-team: red"), !elsewhere, "{head}");
    }
}

#[test]
fn who_is_taken_away_or_turned_off_is_asked_no_more() {
    let polled = Polled::new(Spelling::Vllm, "");
    polled.until("it is heard", |view| view.engine.is_some());
    let at = polled.world.mocks[0].address();
    let text = |engine: &str| {
        format!(
            "providers: {{ m0: {{ kind: openai_compatible, base_url: 'http://{at}', health: off{engine} }} }}\n\
             models: {{ m: {{ deployments: [ {{ provider: m0, name: d0, model: up }} ] }} }}\n"
        )
    };
    polled.world.app().install(config(&text("")));
    polled.world.until("its connection is closed", || polled.world.stats(0).connections == 0);
    let asked = polled.world.stats(0).paths["/metrics"];
    assert_eq!(polled.world.chat(&json!({"model": "m", "messages": hello()["messages"]})).status, 200);
    assert_eq!(polled.world.stats(0).paths["/metrics"], asked, "nobody asks a vendor that is not known");
    polled.world.app().install(config(&text(", engine: { family: vllm }")));
    polled.world.until("it is asked again", || polled.world.stats(0).paths["/metrics"] > asked);
}

/// Publishes to whoever comes next, until this is dropped.
struct Publisher {
    listener: TcpListener,
    subscriber: Option<TcpStream>,
}

impl Publisher {
    fn new() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").expect("a port is free"), subscriber: None }
    }

    fn port(&self) -> u16 {
        self.listener.local_addr().expect("bound").port()
    }

    /// Waits for the subscriber, and greets it.
    fn accept(&mut self) {
        let (mut subscriber, _) = self.listener.accept().expect("it connects");
        let mut opening = [0; 64 + 27];
        subscriber.read_exact(&mut opening).expect("it greets");
        let greeting = &opening[..64];
        assert!(greeting.starts_with(&[0xff]) && greeting[9..12] == [0x7f, 3, 0]);
        assert!(&greeting[12..16] == b"NULL" && opening.ends_with(b"Socket-Type\0\0\0\x03SUB"));
        subscriber.write_all(greeting).expect("written");
        let ready = b"\x05READY\x0bSocket-Type\0\0\0\x03PUB";
        let command = [&[4, ready.len() as u8][..], ready].concat();
        subscriber.write_all(&command).expect("written");
        let mut subscription = [0; 3];
        subscriber.read_exact(&mut subscription).expect("it subscribes");
        assert_eq!(subscription, [0, 1, 1], "to all");
        self.subscriber = Some(subscriber);
    }

    /// A message with one event: `+` stores and `-` removes so many blocks of 16 tokens, `0` clears.
    fn publish(&mut self, number: u64, event: &str) {
        let text = |text: &str| [&[0xa0 | text.len() as u8][..], text.as_bytes()].concat();
        let blocks: u8 = event[1..].parse().unwrap_or(0);
        let hashes = [vec![0x90 | blocks], vec![7; usize::from(blocks)]].concat();
        let event = match &event[..1] {
            "+" => [vec![0x95], text("BlockStored"), hashes, vec![0xc0, 0x90, 16]].concat(),
            "-" => [vec![0x82], text("type"), text("BlockRemoved"), text("block_hashes"), hashes].concat(),
            _ => [vec![0x91], text("AllBlocksCleared")].concat(),
        };
        let batch = [&[0x92, 0xc0, 0x91][..], &event].concat();
        let number = number.to_be_bytes();
        let message = [&[1, 1, b't', 1, 8][..], &number, &[0, batch.len() as u8], &batch].concat();
        self.subscriber.as_mut().expect("accepted").write_all(&message).expect("written");
    }
}

#[test]
fn kv_events_count_what_is_cached_and_gaps_make_it_unsure() {
    let mut publisher = Publisher::new();
    let polled = Polled::new(Spelling::Vllm, &format!("kv_events_port: {}", publisher.port()));
    let until = |what: &str, expected: (u64, bool, u32)| {
        polled.until(what, |view| {
            view.engine_cache.is_some_and(|cache| (cache.tokens, cache.sure, cache.cleared) == expected)
        });
    };
    publisher.accept();
    publisher.publish(0, "+4");
    until("all since its beginning is known", (64, true, 1));
    publisher.publish(1, "-1");
    until("what is pushed out is gone", (48, true, 1));
    publisher.publish(3, "+1");
    until("a gap makes it unsure", (64, false, 1));
    publisher.publish(4, "0");
    until("what is empty is known", (0, true, 2));
    publisher.publish(0, "+2");
    until("a restart begins anew", (32, true, 3));
    publisher.subscriber = None;
    until("without events it is unsure", (32, false, 3));
    assert_eq!(polled.world.chat(&hello()).status, 200);
    publisher.accept();
    publisher.publish(1, "0");
    until("it is listened to again", (0, true, 4));
}
