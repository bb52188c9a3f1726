"""The official openai client and the Responses API: on a provider that has it, and on one that speaks another dialect."""

import os
import subprocess

import openai
import pytest

from conftest import free_port, is_up, until

TOOL = {"type": "function", "name": "weather", "description": "The weather in a city", "strict": True,
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"],
                       "additionalProperties": False}}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("responses")
    port, admin, mock = free_port(), free_port(), free_port()
    config = folder / "responses.yaml"
    config.write_text(f"""
listen: 127.0.0.1:{port}
admin: 127.0.0.1:{admin}
providers:
  kept: {{ kind: mock, base_url: "http://127.0.0.1:{mock}", keys: [ key-one, key-two ] }}
  claude: {{ kind: anthropic, base_url: "http://127.0.0.1:{mock}", keys: [ key-of-provider ] }}
models:
  kept: {{ deployments: [ {{ name: kept, provider: kept }} ] }}
  claude: {{ deployments: [ {{ name: claude, provider: claude }} ] }}
""")
    pointsman = os.environ["POINTSMAN_BIN"]
    running = [subprocess.Popen([pointsman, "mock", "--listen", f"127.0.0.1:{mock}"], stdout=subprocess.DEVNULL)]
    until("the mock is up", lambda: is_up(f"http://127.0.0.1:{mock}/health"))
    running.append(subprocess.Popen([pointsman, "serve", "--config", str(config)], stdout=subprocess.DEVNULL))
    until("the gateway is up", lambda: is_up(f"http://127.0.0.1:{admin}/readyz"))
    yield openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="any", max_retries=0, timeout=30)
    for process in running:
        process.kill()
        process.wait()


@pytest.mark.parametrize("model", ["kept", "claude"])
def test_create_and_stream(place, model):
    answer = place.responses.create(model=model, input="hello", max_output_tokens=8, instructions="Be brief.")
    assert answer.status == "completed" and "mock" in answer.output_text
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    events = list(place.responses.create(model=model, input="hello", max_output_tokens=8, stream=True))
    kinds = [event.type for event in events]
    assert kinds[0] == "response.created" and kinds[-1] == "response.completed"
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == events[-1].response.output_text and text


def test_the_helper_that_checks_every_event(place):
    with place.responses.stream(model="claude", input="hello", max_output_tokens=8) as stream:
        for _ in stream:
            pass
        final = stream.get_final_response()
    assert final.status == "completed" and "mock" in final.output_text
    with place.responses.stream(model="claude", input="use the tool", tools=[TOOL]) as stream:
        for _ in stream:
            pass
        call = stream.get_final_response().output[-1]
    assert (call.type, call.name) == ("function_call", "weather")


def test_tools_and_their_results_on_another_dialect(place):
    first = place.responses.create(model="claude", input="use the tool", tools=[TOOL], max_output_tokens=8)
    call = first.output[-1]
    assert (call.type, call.name) == ("function_call", "weather")
    said = [{"role": "user", "content": "use the tool"}, *first.output,
            {"type": "function_call_output", "call_id": call.call_id, "output": "21 °C"}]
    second = place.responses.create(model="claude", input=said, tools=[TOOL], tool_choice="auto", max_output_tokens=8)
    assert second.status == "completed"


def test_what_is_kept_is_asked_of_its_account(place):
    first = place.responses.create(model="kept", input="hello", max_output_tokens=8)
    for _ in range(4):
        again = place.responses.create(model="kept", input="and?", previous_response_id=first.id, max_output_tokens=8)
        assert again.previous_response_id == first.id
    assert place.responses.retrieve(first.id).id == first.id
    assert [item.type for item in place.responses.input_items.list(first.id)] == ["message"]
    place.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        place.responses.retrieve(first.id)


def test_what_nobody_keeps_is_refused_by_its_field(place):
    with pytest.raises(openai.BadRequestError) as refused:
        place.responses.create(model="claude", input="and?", previous_response_id="resp_nowhere")
    assert refused.value.body["param"] == "previous_response_id"
