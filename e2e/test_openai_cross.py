"""OpenAI's own client on providers that speak other dialects."""

import openai
import pydantic
import pytest

from crossing import KEY, MOCKED, PNG

HELLO = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
TOOL = {"type": "function", "function": {
    "name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}
OTHERS = pytest.mark.parametrize("model", [model for model in MOCKED if model != "plain"])


@pytest.fixture
def client(crossing):
    return openai.OpenAI(base_url=f"{crossing.url}/v1", api_key=KEY, max_retries=0, timeout=60)


@OTHERS
def test_chat(client, crossing, model):
    raw = client.chat.completions.with_raw_response.create(model=model, messages=HELLO, max_tokens=8)
    answer = raw.parse()
    [choice] = answer.choices
    assert choice.message.content and choice.finish_reason == "stop" and answer.model == model
    assert answer.usage.completion_tokens == 8 and answer.object == "chat.completion"
    record = crossing.decision(raw.headers["x-pointsman-request-id"])
    assert record["conversion"] == {"to": MOCKED[model], "losses": [], "losses_count": 0}


@OTHERS
@pytest.mark.parametrize("asked", [False, True])
def test_stream(client, model, asked):
    more = {"stream_options": {"include_usage": True}} if asked else {}
    chunks = list(client.chat.completions.create(model=model, messages=HELLO, max_tokens=8, stream=True, **more))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["stop"]
    assert [chunk.usage.completion_tokens for chunk in chunks if chunk.usage] == ([8] if asked else [])


@OTHERS
def test_tools(client, model):
    ask = {"model": model, "tools": [TOOL], "messages": [{"role": "user", "content": "Call the tool."}]}
    answer = client.chat.completions.create(**ask).choices[0]
    [call] = answer.message.tool_calls
    assert answer.finish_reason == "tool_calls" and call.id
    assert (call.function.name, call.function.arguments.replace(" ", "")) == ("weather", '{"city":"mock"}')
    with client.chat.completions.stream(**ask) as stream:
        streamed = stream.get_final_completion().choices[0]
    assert streamed.finish_reason == "tool_calls"
    assert streamed.message.tool_calls[0].function.arguments == call.function.arguments
    told = {"role": "tool", "tool_call_id": call.id, "content": "21 degrees"}
    later = client.chat.completions.create(**{**ask, "messages": [*ask["messages"], answer.message, told]})
    assert later.choices[0].message.content


class City(pydantic.BaseModel):
    name: str
    people: int


@OTHERS
def test_structured_output(client, model):
    answer = client.chat.completions.parse(model=model, messages=HELLO, response_format=City)
    assert answer.choices[0].message.parsed == City(name="mock", people=1)


@OTHERS
def test_images(client, crossing, model):
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
    ask = [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, image]}]
    assert client.chat.completions.create(model=model, messages=ask, max_tokens=8).choices[0].message.content
    assert PNG in str(crossing.sent())


@OTHERS
def test_errors(client, crossing, model):
    crossing.script({"status": 400})
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model=model, messages=HELLO)
    assert refused.value.body["message"] == "as scripted"
    with pytest.raises(openai.BadRequestError) as own:
        client.completions.create(model=model, prompt="once")
    assert own.value.body["code"] == "unsupported_capability"
