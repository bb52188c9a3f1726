"""Official clients of other dialects, in front of real engines and of providers that speak other dialects."""

import os
import subprocess
from http.client import HTTPConnection

import anthropic
import openai
import pytest

from conftest import free_port, http, is_up, until

WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


class Place:
    """A gateway in front of a real engine and of mocks that speak every dialect."""

    def __init__(self, folder, engines):
        self.port, self.admin_port, mock_port = free_port(), free_port(), free_port()
        self.url, self.admin = f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{self.admin_port}"
        mock = f"http://127.0.0.1:{mock_port}"
        config = folder / "dialects.yaml"
        config.write_text(f"""
listen: 127.0.0.1:{self.port}
admin: 127.0.0.1:{self.admin_port}
auth: {{ keys: [ {{ name: acme, key: key-of-acme }} ] }}
providers:
  smol: {{ kind: llama_cpp, base_url: "{engines[3].url}" }}
  plain: {{ kind: openai_compatible, base_url: "{mock}" }}
  claude: {{ kind: anthropic, base_url: "{mock}", keys: [ key-of-provider ] }}
models:
  smollm2: {{ deployments: [ {{ name: smol, provider: smol, model: engine-model }} ] }}
  plain: {{ deployments: [ {{ name: plain, provider: plain }} ] }}
  claude: {{ deployments: [ {{ name: claude, provider: claude }} ] }}
  strict:
    conversion: {{ losses: refuse }}
    deployments: [ {{ name: strict, provider: plain }} ]
""")
        pointsman = os.environ["POINTSMAN_BIN"]
        quiet = {"stdout": subprocess.DEVNULL}
        self.running = [subprocess.Popen([pointsman, "mock", "--listen", f"127.0.0.1:{mock_port}"], **quiet)]
        until("the mock is up", lambda: is_up(f"{mock}/health"))
        self.running.append(subprocess.Popen([pointsman, "serve", "--config", str(config)], **quiet))
        until("the gateway is up", lambda: is_up(f"{self.admin}/readyz"))

    def decision(self, request_id):
        return until("the record is there", lambda: self.found(request_id))

    def found(self, request_id):
        status, record = http("GET", f"{self.admin}/admin/v1/decisions/{request_id}")
        return record if status == 200 else None

    def openai(self):
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="key-of-acme", max_retries=0, timeout=60)

    def anthropic(self, key="key-of-acme"):
        return anthropic.Anthropic(base_url=self.url, api_key=key, max_retries=0, timeout=60)

    def stop(self):
        for process in self.running:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def place(engines, tmp_path_factory):
    place = Place(tmp_path_factory.mktemp("dialects"), engines)
    yield place
    place.stop()


def text_of(message):
    return "".join(part.text for part in message.content if part.type == "text")


def test_anthropic_on_a_real_engine(place):
    raw = place.anthropic().messages.with_raw_response.create(
        model="smollm2", max_tokens=12, system="Be brief.",
        messages=[{"role": "user", "content": "The capital of France is"}])
    message = raw.parse()
    assert message.role == "assistant" and text_of(message)
    assert message.stop_reason in ("max_tokens", "end_turn")
    assert message.usage.output_tokens <= 12 and message.usage.input_tokens > 0
    record = place.decision(raw.headers["x-pointsman-request-id"])
    assert record["dialect"] == "anthropic" and record["conversion"] == {"to": "openai", "losses": [], "losses_count": 0}
    assert record["usage"]["tokens_out"] == message.usage.output_tokens


def test_anthropic_streams_from_a_real_engine(place):
    with place.anthropic().messages.stream(
            model="smollm2", max_tokens=12, messages=[{"role": "user", "content": "The capital of France is"}]) as stream:
        text = "".join(stream.text_stream)
        message = stream.get_final_message()
    assert text and text == text_of(message)
    assert message.usage.output_tokens > 0 and message.stop_reason in ("max_tokens", "end_turn")


def test_anthropic_calls_tools_of_an_openai_provider(place):
    tools = [{"name": "weather", "description": "The weather in a city", "input_schema": WEATHER}]
    ask = {"model": "plain", "max_tokens": 50, "tools": tools, "tool_choice": {"type": "tool", "name": "weather"},
           "messages": [{"role": "user", "content": "Weather?"}]}
    message = place.anthropic().messages.create(**ask)
    [call] = [part for part in message.content if part.type == "tool_use"]
    assert (call.name, call.input, message.stop_reason) == ("weather", {"city": "mock"}, "tool_use")
    with place.anthropic().messages.stream(**ask) as stream:
        streamed = stream.get_final_message()
    assert [part.name for part in streamed.content if part.type == "tool_use"] == ["weather"]
    later = [*ask["messages"], {"role": "assistant", "content": [{"type": "tool_use", "id": call.id, "name": "weather", "input": {}}]},
             {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "21 degrees"}]}]
    answer = place.anthropic().messages.create(**{**ask, "messages": later, "tool_choice": {"type": "auto"}})
    assert text_of(answer)


def test_errors_are_told_in_the_dialect_of_the_caller(place):
    with pytest.raises(anthropic.NotFoundError) as unknown:
        place.anthropic().messages.create(model="nobody", max_tokens=5, messages=[{"role": "user", "content": "hi"}])
    assert unknown.value.body["type"] == "error" and unknown.value.body["error"]["type"] == "not_found_error"
    with pytest.raises(anthropic.AuthenticationError):
        place.anthropic("key-of-nobody").messages.create(
            model="plain", max_tokens=5, messages=[{"role": "user", "content": "hi"}])
    with pytest.raises(anthropic.BadRequestError) as refused:
        place.anthropic().messages.create(model="strict", max_tokens=5, extra_body={"top_k": 3}, messages=[{"role": "user", "content": "hi"}])
    assert "top_k" in refused.value.body["error"]["message"]


def test_what_is_lost_is_named(place):
    raw = place.anthropic().messages.with_raw_response.create(
        model="plain", max_tokens=5, extra_body={"top_k": 3}, messages=[{"role": "user", "content": "hi"}])
    record = place.decision(raw.headers["x-pointsman-request-id"])
    assert [loss["field"] for loss in record["conversion"]["losses"]] == ["top_k"]


def test_openai_on_an_anthropic_provider(place):
    client = place.openai()
    hello = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
    raw = client.chat.completions.with_raw_response.create(model="claude", messages=hello, max_tokens=8)
    answer = raw.parse()
    assert answer.choices[0].message.content and answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens == 8 and answer.model == "claude"
    record = place.decision(raw.headers["x-pointsman-request-id"])
    assert record["conversion"]["to"] == "anthropic"
    chunks = list(client.chat.completions.create(
        model="claude", messages=hello, max_tokens=8, stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == answer.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == 8
    tools = [{"type": "function", "function": {"name": "weather", "parameters": WEATHER}}]
    called = client.chat.completions.create(model="claude", messages=hello, tools=tools, tool_choice="required", max_tokens=8)
    assert called.choices[0].message.tool_calls[0].function.name == "weather"
    assert called.choices[0].finish_reason == "tool_calls"


def test_the_same_dialect_passes_as_it_is(place):
    message = place.anthropic().messages.create(model="claude", max_tokens=8, messages=[{"role": "user", "content": "hi"}])
    assert message.id == "chatcmpl-mock" and message.usage.output_tokens == 8
    with place.anthropic().messages.stream(model="claude", max_tokens=8, messages=[{"role": "user", "content": "hi"}]) as stream:
        assert "".join(stream.text_stream) == text_of(message)


def test_who_is_refused_unread_is_told_that_the_connection_ends(place):
    for path, key, status in [("/v1/responses/compact", "key-of-acme", 404), ("/v1/chat/completions", "key-of-nobody", 401)]:
        connection = HTTPConnection("127.0.0.1", place.port, timeout=10)
        connection.putrequest("POST", path)
        for name, value in [("authorization", f"Bearer {key}"), ("content-type", "application/json"), ("content-length", "2")]:
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        assert (answer.status, answer.getheader("connection")) == (status, "close")
        connection.close()
