"""Ollama's own client, in front of a real engine and of providers that speak every dialect."""

import ollama
import pydantic
import pytest

from crossing import KEY, MOCKED, PNG

ASK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "The capital of France is"}]
EIGHT = {"num_predict": 8, "temperature": 0}
EVERYWHERE = pytest.mark.parametrize("model", ["smollm2", *MOCKED])
MOCKS = pytest.mark.parametrize("model", MOCKED)


@pytest.fixture
def client(crossing):
    return ollama.Client(host=crossing.url, headers={"authorization": f"Bearer {KEY}"}, timeout=60)


@EVERYWHERE
def test_chat(client, crossing, model):
    answer = client.chat(model=model, messages=ASK, options=EIGHT)
    assert answer.message.role == "assistant" and answer.message.content
    assert answer.done and answer.done_reason in ("stop", "length")
    assert 0 < answer.eval_count <= 8 and answer.prompt_eval_count > 0
    record = crossing.last()
    assert record["dialect"] == "ollama" and record["usage"]["tokens_out"] == answer.eval_count
    if model != "llama":
        assert answer.model == model and record["conversion"]["to"] == MOCKED.get(model, "openai")
        assert record["conversion"]["losses"] == []


@EVERYWHERE
def test_streams(client, model):
    pieces = list(client.chat(model=model, messages=ASK, options=EIGHT, stream=True))
    assert "".join(piece.message.content for piece in pieces) and len(pieces) > 2
    assert [piece.done for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert 0 < pieces[-1].eval_count <= 8 and pieces[-1].created_at


@EVERYWHERE
def test_generate(client, crossing, model):
    answer = client.generate(model=model, prompt="The capital of France is", system="Be brief.", options=EIGHT)
    assert answer.response and answer.done and 0 < answer.eval_count <= 8
    assert crossing.last()["dialect"] == "ollama-generate"
    pieces = list(client.generate(model=model, prompt="The capital of France is", options=EIGHT, stream=True))
    assert "".join(piece.response for piece in pieces) and pieces[-1].done


@MOCKS
def test_tools(client, crossing, model):
    def weather(city: str) -> str:
        """The weather in a city.

        Args:
            city: which one
        """
        return f"21 degrees in {city}"

    ask = [{"role": "user", "content": "Call the tool."}]
    answer = client.chat(model=model, messages=ask, tools=[weather])
    [call] = answer.message.tool_calls
    assert (call.function.name, call.function.arguments) == ("weather", {"city": "mock"})
    streamed = list(client.chat(model=model, messages=ask, tools=[weather], stream=True))
    [again] = [call for piece in streamed for call in piece.message.tool_calls or []]
    assert again.function == call.function
    told = {"role": "tool", "tool_name": "weather", "content": weather(**call.function.arguments)}
    assert client.chat(model=model, messages=[*ask, answer.message, told], tools=[weather]).message.content
    if model == "claude":
        [_, called, result] = crossing.sent()["messages"]
        [use] = [block for block in called["content"] if block["type"] == "tool_use"]
        assert result["content"][0]["tool_use_id"] == use["id"]


@MOCKS
def test_images(client, crossing, model):
    ask = [{"role": "user", "content": "What is this?", "images": [PNG]}]
    assert client.chat(model=model, messages=ask, options=EIGHT).message.content
    assert PNG in str(crossing.sent())


class City(pydantic.BaseModel):
    name: str
    people: int


@MOCKS
def test_structured_output(client, model):
    answer = client.chat(model=model, messages=[{"role": "user", "content": "Which city?"}], format=City.model_json_schema())
    assert City.model_validate_json(answer.message.content) == City(name="mock", people=1)


def test_list_and_show(client):
    listed = {model.model: model for model in client.list().models}
    assert {"smollm2", "claude", "tiny-embed"} <= set(listed)
    assert listed["smollm2"].digest and listed["smollm2"].modified_at
    shown = client.show("smollm2")
    assert "completion" in shown.capabilities and shown.modelinfo["remote.context_length"] == 2048
    assert client.ps().models == []


def test_names_may_end_with_latest(client):
    assert client.show("claude:latest").capabilities
    assert client.chat(model="claude:latest", messages=ASK, options=EIGHT).model == "claude:latest"


def test_errors(client, crossing):
    for call in (lambda: client.show("nobody"), lambda: client.chat(model="nobody", messages=ASK)):
        with pytest.raises(ollama.ResponseError) as unknown:
            call()
        assert unknown.value.status_code == 404 and "nobody" in unknown.value.error
    crossing.script({"status": 400})
    with pytest.raises(ollama.ResponseError) as refused:
        client.chat(model="plain", messages=ASK)
    assert (refused.value.status_code, refused.value.error) == (400, "as scripted")
    stranger = ollama.Client(host=crossing.url, headers={"authorization": "Bearer key-of-nobody"})
    with pytest.raises(ollama.ResponseError) as refused:
        stranger.chat(model="plain", messages=ASK)
    assert refused.value.status_code == 401
