"""Pointsman in front of llama.cpp, through the official client."""

import concurrent.futures
import json
import os
import signal
import subprocess
import time

import openai
import pytest

from conftest import Gateway, free_port, http, is_up, until

HELLO = [{"role": "user", "content": "hello"}]


def chat(client, **more):
    return client.chat.completions.create(**{"model": "tiny", "messages": HELLO, "max_tokens": 8, **more})


def test_chat(client, gateway):
    raw = client.chat.completions.with_raw_response.create(model="tiny", messages=HELLO, max_tokens=8)
    answer = raw.parse()
    assert answer.choices[0].message.role == "assistant"
    assert answer.usage.completion_tokens == 8
    assert raw.headers["x-pointsman-served-by"] in ("tiny-a", "tiny-b")
    record = gateway.decision(raw.headers["x-pointsman-request-id"])
    assert record["usage"]["tokens_out"] == 8 and not record["usage"]["estimated"]
    assert {one["deployment"] for one in record["decisions"][0]["candidates"]} == {"tiny-a", "tiny-b"}
    assert record["decisions"][0]["outcome"]["why"]["rule"] == "fewest_in_flight"


@pytest.mark.parametrize("asked", [False, True])
def test_stream_shows_usage_only_when_asked(client, gateway, asked):
    more = {"stream_options": {"include_usage": True}} if asked else {}
    raw = client.chat.completions.with_raw_response.create(
        model="tiny", messages=HELLO, max_tokens=8, stream=True, **more)
    chunks = list(raw.parse())
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert any(c.usage for c in chunks) == asked
    record = gateway.decision(raw.headers["x-pointsman-request-id"])
    assert record["usage"]["tokens_out"] == 8 and not record["usage"]["estimated"]


def test_completions(client):
    assert client.completions.create(model="tiny", prompt="once", max_tokens=5).usage.completion_tokens == 5


def test_embeddings(client):
    answer = client.embeddings.create(model="tiny-embed", input=["one", "two"])
    assert len(answer.data) == 2 and len(answer.data[0].embedding) == 64


def test_responses(client):
    answer = client.responses.create(model="tiny", input="hello", max_output_tokens=16)
    assert answer.output
    events = [event.type for event in client.responses.create(model="tiny", input="hello", max_output_tokens=16, stream=True)]
    assert events[0] == "response.created" and events[-1] in ("response.completed", "response.incomplete")


def test_tools_are_passed_on(client):
    tool = {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}}
    assert chat(client, tools=[tool], tool_choice="none").choices


def test_versions(client):
    for version, served in (("1", "tiny-a"), ("2", "tiny-b")):
        raw = client.chat.completions.with_raw_response.create(model=f"tiny@{version}", messages=HELLO, max_tokens=2)
        assert raw.headers["x-pointsman-served-by"] == served
    with pytest.raises(openai.NotFoundError):
        chat(client, model="tiny@3")


def test_models_are_those_the_key_may_use(gateway):
    assert {m.id for m in gateway.client().models.list()} == {"tiny", "tiny-ruled", "tiny-embed", "smollm2"}
    small = gateway.client("key-of-small")
    assert [m.id for m in small.models.list()] == ["tiny"]
    with pytest.raises(openai.PermissionDeniedError):
        chat(small, model="smollm2")


def test_errors_are_the_clients_own(client, gateway):
    with pytest.raises(openai.AuthenticationError):
        chat(gateway.client("wrong"))
    with pytest.raises(openai.NotFoundError) as unknown:
        chat(client, model="nope")
    assert unknown.value.code == "model_not_found"
    for more, param in (({"temperature": -3}, "temperature"), ({"messages": []}, "messages")):
        with pytest.raises(openai.BadRequestError) as bad:
            chat(client, **more)
        assert bad.value.param == param


def test_context_overflow_by_our_rule_and_by_the_engines(client):
    long = [{"role": "user", "content": "word " * 4000}]
    with pytest.raises(openai.BadRequestError) as ours:
        chat(client, model="tiny-ruled", messages=long)
    assert ours.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as engines:
        chat(client, messages=long)
    assert engines.value.body["n_ctx"] == 2048 and engines.value.body["who"].startswith("provider:")


def idle(gateway, within_s):
    began = time.monotonic()
    until("the slots are free", lambda: all(e.busy_slots() == 0 for e in gateway.engines[:2]), within_s)
    until("the permits are back", lambda: gateway.inflight() == 0, 5)
    return time.monotonic() - began


def test_a_client_that_leaves_a_stream_frees_the_slot(client, gateway):
    # Without max_tokens this model runs to the end of its context.
    stream = client.chat.completions.create(model="tiny", messages=HELLO, stream=True)
    next(iter(stream))
    assert sum(e.busy_slots() for e in gateway.engines[:2]) == 1
    stream.close()
    idle(gateway, 1.0)


def test_a_client_that_leaves_an_unstreamed_call_is_let_go(gateway):
    hasty = gateway.client().with_options(timeout=0.3)
    with pytest.raises(openai.APITimeoutError):
        hasty.chat.completions.create(model="tiny", messages=HELLO, max_tokens=1900)
    # The gateway closes its connection at once. This engine looks for a closed connection only while it streams, also
    # without anybody in between, so its slot is free when the answer that nobody reads is done.
    until("the permit is back", lambda: gateway.inflight() == 0, 1.0)
    newest = http("GET", f"{gateway.admin}/admin/v1/decisions?limit=1")[1]["decisions"][0]
    assert (newest["outcome"], newest["status"]) == ("client_gone", 499)
    idle(gateway, 15.0)


def test_load_is_spread_and_waits_for_slots(client, gateway):
    def one(_):
        raw = client.chat.completions.with_raw_response.create(model="tiny", messages=HELLO, max_tokens=24)
        return raw.headers["x-pointsman-served-by"], raw.parse().usage.completion_tokens

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        served = list(pool.map(one, range(36)))
    counts = {name: sum(s == name for s, _ in served) for name in ("tiny-a", "tiny-b")}
    assert all(tokens == 24 for _, tokens in served)
    # How many each serves depends on how fast the engines are; that both do, all the time, does not.
    assert min(counts.values()) >= 6, counts
    idle(gateway, 1.0)


def test_a_deployment_comes_drains_and_goes_live(client, gateway):
    path = f"{gateway.admin}/admin/v1/models/tiny/deployments"
    new = {"name": "tiny-c", "provider": "embed", "model": "engine-model", "version": "c"}
    assert http("POST", path, new)[0] == 201
    raw = client.chat.completions.with_raw_response.create(model="tiny@c", messages=HELLO, max_tokens=2)
    assert raw.headers["x-pointsman-served-by"] == "tiny-c"
    assert http("POST", f"{path}/tiny-c/drain", {})[1]["live"]["state"] == "draining"
    with pytest.raises(openai.InternalServerError) as drained:
        chat(client, model="tiny@c")
    assert drained.value.status_code == 503
    assert http("DELETE", f"{path}/tiny-c")[0] == 204


def test_the_strategy_changes_with_the_file(client, gateway):
    def strategy():
        return http("GET", f"{gateway.admin}/admin/v1/models/tiny")[1]["strategy"]["name"]

    gateway.write("round_robin")
    until("the file is read again", lambda: strategy() == "round_robin")
    served = []
    for _ in range(4):
        raw = client.chat.completions.with_raw_response.create(model="tiny", messages=HELLO, max_tokens=2)
        served.append(raw.headers["x-pointsman-served-by"])
    assert served[0] == served[2] != served[1] == served[3]
    gateway.write("least_busy")
    until("the file is read again", lambda: strategy() == "least_busy")


def test_metrics_and_explanations(client, gateway):
    chat(client)
    metrics = http("GET", f"{gateway.admin}/metrics")[1]
    assert 'pointsman_requests_total{model="tiny",outcome="completed"}' in metrics
    assert 'gen_ai_server_time_to_first_token_seconds_count{model="tiny"' in metrics
    assert "pointsman_permit_gap 0" in metrics
    body = {"model": "tiny", "messages": HELLO}
    status, explained = http("POST", f"{gateway.admin}/admin/v1/explain", body)
    assert status == 200 and explained["decision"]["outcome"]["deployment"] in ("tiny-a", "tiny-b")


def test_a_dead_engine_is_somebody_elses_turn(engines, tmp_path):
    from conftest import Engine, CACHE

    doomed = Engine(CACHE / "tiny-random.gguf", 2)
    until("the engine is up", lambda: http_up(doomed))
    gateway = Gateway(tmp_path, [doomed, *engines[1:]])
    try:
        doomed.stop()
        for _ in range(6):
            raw = gateway.client().chat.completions.with_raw_response.create(model="tiny", messages=HELLO, max_tokens=2)
            assert raw.headers["x-pointsman-served-by"] == "tiny-b"
    finally:
        gateway.stop()


def http_up(engine):
    try:
        return http("GET", f"{engine.url}/health", timeout=1)[0] == 200
    except OSError:
        return False


def test_sigterm_lets_a_stream_finish(engines, tmp_path):
    gateway = Gateway(tmp_path, engines)
    stream = gateway.client().chat.completions.create(model="tiny", messages=HELLO, max_tokens=200, stream=True)
    chunks = iter(stream)
    next(chunks)
    gateway.process.send_signal(signal.SIGTERM)
    assert len(list(chunks)) > 50
    assert gateway.process.wait(10) == 0


def test_real_text_from_a_real_model(client):
    answer = client.chat.completions.create(
        model="smollm2", messages=[{"role": "user", "content": "Say hello."}], max_tokens=12, temperature=0)
    assert any(letter.isalpha() for letter in answer.choices[0].message.content)


def test_a_broken_stream_is_continued_by_a_real_engine(engines, tmp_path):
    begun = "The capital of France is"
    port = free_port()
    mock = subprocess.Popen([os.environ["POINTSMAN_BIN"], "mock", "--listen", f"127.0.0.1:{port}"], stdout=subprocess.DEVNULL)

    class Continued(Gateway):
        def write(self, strategy):
            (self.folder / "pointsman.yaml").write_text(f"""
listen: 127.0.0.1:{self.client_port}
admin: 127.0.0.1:{self.admin_port}
providers:
  doomed: {{ kind: mock, base_url: "http://127.0.0.1:{port}" }}
  smol: {{ kind: llama_cpp, base_url: "{engines[3].url}" }}
models:
  smollm2:
    retry: {{ continuation: true }}
    deployments:
      - {{ name: doomed, provider: doomed, tier: 1 }}
      - {{ name: smol, provider: smol, model: engine-model, tier: 2 }}
""")

    try:
        until("the mock is up", lambda: is_up(f"http://127.0.0.1:{port}/health"))
        gateway = Continued(tmp_path, engines)
        chunk = {"id": "one", "object": "chat.completion.chunk", "created": 1, "model": "m",
                 "choices": [{"index": 0, "delta": {"content": begun}, "finish_reason": None}]}
        piece = f"data: {json.dumps(chunk)}\n\n"
        http("POST", f"http://127.0.0.1:{port}/_ctl", {"script": [{"pieces": [piece, piece], "cut_after": 1, "piece_delay_ms": 20}]})
        chunks = list(gateway.client().chat.completions.create(
            model="smollm2", messages=[{"role": "user", "content": "What is the capital of France?"}],
            max_tokens=12, temperature=0, stream=True))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text.startswith(begun) and text.count(begun) == 1, text
        assert "Paris" in text, text
        assert {chunk.id for chunk in chunks} == {"one"}
        assert chunks[-1].choices[0].finish_reason in ("stop", "length")
    finally:
        gateway.stop()
        mock.kill()
