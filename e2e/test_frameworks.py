"""LangChain and litellm as clients, on providers that speak other dialects than they do."""

import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import langchain_anthropic
import langchain_core.messages
import langchain_core.tools
import langchain_openai
import litellm
import pydantic
import pytest

from crossing import KEY, MOCKED


class City(pydantic.BaseModel):
    """A city."""

    name: str
    people: int


@langchain_core.tools.tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"21 degrees in {city}"


def of_openai(crossing, model):
    return langchain_openai.ChatOpenAI(
        model=model, base_url=f"{crossing.url}/v1", api_key=KEY, max_tokens=8, max_retries=0, stream_usage=True)


def of_anthropic(crossing, model):
    return langchain_anthropic.ChatAnthropic(model=model, base_url=crossing.url, api_key=KEY, max_tokens=8, max_retries=0)


PAIRS = [(of_openai, model) for model in ["smollm2", *MOCKED]] + [(of_anthropic, model) for model in ["smollm2", *MOCKED]]
MOCKS = [(of, model) for of, model in PAIRS if model != "smollm2"]


@pytest.mark.parametrize(("of", "model"), PAIRS)
def test_langchain_chats_and_streams(crossing, of, model):
    chat = of(crossing, model)
    ask = [("system", "Be brief."), ("user", "The capital of France is")]
    answer = chat.invoke(ask)
    assert answer.text and 0 < answer.usage_metadata["output_tokens"] <= 8
    streamed = list(chat.stream(ask))
    assert "".join(piece.text for piece in streamed) and len(streamed) > 2
    assert 0 < sum(piece.usage_metadata["output_tokens"] for piece in streamed if piece.usage_metadata) <= 8


@pytest.mark.parametrize(("of", "model"), MOCKS)
def test_langchain_calls_tools(crossing, of, model):
    chat = of(crossing, model).bind_tools([weather])
    ask = [langchain_core.messages.HumanMessage("Call the tool.")]
    answer = chat.invoke(ask)
    [call] = answer.tool_calls
    assert (call["name"], call["args"]) == ("weather", {"city": "mock"})
    whole = None
    for piece in chat.stream(ask):
        whole = piece if whole is None else whole + piece
    assert [(call["name"], call["args"]) for call in whole.tool_calls] == [("weather", {"city": "mock"})]
    told = weather.invoke(call)
    assert chat.invoke([*ask, answer, told]).text


@pytest.mark.parametrize(("of", "model"), MOCKS)
def test_langchain_structured_output(crossing, of, model):
    chat = of(crossing, model).with_structured_output(City)
    assert chat.invoke("Which city? Ask the tool.") == City(name="mock", people=1)


def completion(crossing, dialect, model, **more):
    base = {"openai": "/v1", "anthropic": "", "gemini": "/v1beta"}[dialect]
    return litellm.completion(
        model=f"{dialect}/{model}", api_base=crossing.url + base, api_key=KEY, max_tokens=8, num_retries=0,
        **{"messages": [{"role": "user", "content": "The capital of France is"}], **more})


LITELLM = [(dialect, model) for dialect in ["openai", "anthropic", "gemini"] for model in ["smollm2", *MOCKED]]


@pytest.mark.parametrize(("dialect", "model"), LITELLM)
def test_litellm_chats_and_streams(crossing, dialect, model):
    answer = completion(crossing, dialect, model)
    assert answer.choices[0].message.content and 0 < answer.usage.completion_tokens <= 8
    assert crossing.last()["dialect"] == dialect
    pieces = list(completion(crossing, dialect, model, stream=True))
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) and len(pieces) > 2
    assert pieces[-1].choices[0].finish_reason in ("stop", "length")


@pytest.mark.parametrize(("dialect", "model"), [(dialect, model) for dialect, model in LITELLM if model != "smollm2"])
def test_litellm_calls_tools(crossing, dialect, model):
    tool = {"type": "function", "function": {"name": "weather", "description": "The weather in a city", "parameters": {
        "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}
    ask = [{"role": "user", "content": "Call the tool."}]
    answer = completion(crossing, dialect, model, messages=ask, tools=[tool]).choices[0]
    [call] = answer.message.tool_calls
    assert call.function.name == "weather" and '"city"' in call.function.arguments and answer.finish_reason == "tool_calls"
    told = {"role": "tool", "tool_call_id": call.id, "content": "21 degrees"}
    later = completion(crossing, dialect, model, messages=[*ask, answer.message.model_dump(), told], tools=[tool])
    assert later.choices[0].message.content


def test_litellm_errors(crossing):
    for dialect in ["openai", "anthropic", "gemini"]:
        with pytest.raises(litellm.NotFoundError) as unknown:
            completion(crossing, dialect, "nobody")
        assert "nobody" in str(unknown.value)
