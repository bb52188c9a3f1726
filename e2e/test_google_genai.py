"""Google's own client, in front of a real engine and of providers that speak every dialect."""

import base64

import pydantic
import pytest
from google import genai
from google.genai import errors, types

from crossing import KEY, MOCKED, PNG

WEATHER = types.FunctionDeclaration(
    name="weather", description="The weather in a city",
    parameters=types.Schema(type="OBJECT", properties={"city": types.Schema(type="STRING")}, required=["city"]))
FORCED = types.GenerateContentConfig(
    tools=[types.Tool(function_declarations=[WEATHER])],
    tool_config=types.ToolConfig(function_calling_config=types.FunctionCallingConfig(mode="ANY")),
    automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True))
EVERYWHERE = pytest.mark.parametrize("model", ["smollm2", *MOCKED])
MOCKS = pytest.mark.parametrize("model", MOCKED)


@pytest.fixture
def google(crossing):
    return client_of(crossing)


def client_of(crossing, key=KEY):
    return genai.Client(api_key=key, http_options=types.HttpOptions(base_url=crossing.url, timeout=60_000))


def short(tokens=8, **more):
    return types.GenerateContentConfig(max_output_tokens=tokens, **more)


@EVERYWHERE
def test_generate_content(google, crossing, model):
    answer = google.models.generate_content(
        model=model, contents="The capital of France is", config=short(system_instruction="Be brief.", temperature=0))
    [candidate] = answer.candidates
    assert answer.text and candidate.content.role == "model"
    assert candidate.finish_reason in (types.FinishReason.STOP, types.FinishReason.MAX_TOKENS)
    used = answer.usage_metadata
    assert 0 < used.candidates_token_count <= 8 and used.prompt_token_count > 0
    assert used.total_token_count == used.prompt_token_count + used.candidates_token_count
    assert answer.response_id and answer.model_version
    record = crossing.decision(answer.sdk_http_response.headers["x-pointsman-request-id"])
    assert record["dialect"] == "gemini" and record["usage"]["tokens_out"] == used.candidates_token_count
    if model != "gemini":
        assert answer.model_version == model
        assert record["conversion"] == {"to": MOCKED.get(model, "openai"), "losses": [], "losses_count": 0}


@EVERYWHERE
def test_stream(google, model):
    chunks = list(google.models.generate_content_stream(model=model, contents="The capital of France is", config=short()))
    assert "".join(chunk.text or "" for chunk in chunks)
    assert len(chunks) > 2, "it comes in pieces"
    reasons = [chunk.candidates[0].finish_reason for chunk in chunks if chunk.candidates and chunk.candidates[0].finish_reason]
    assert len(reasons) == 1 and 0 < chunks[-1].usage_metadata.candidates_token_count <= 8


@MOCKS
def test_function_calls_and_responses(google, crossing, model):
    ask = [types.Content(role="user", parts=[types.Part(text="Call the tool.")])]
    answer = google.models.generate_content(model=model, contents=ask, config=FORCED)
    [call] = answer.function_calls
    assert (call.name, call.args) == ("weather", {"city": "mock"})
    streamed = list(google.models.generate_content_stream(model=model, contents=ask, config=FORCED))
    [again] = [call for chunk in streamed for call in chunk.function_calls or []]
    assert (again.name, again.args) == (call.name, call.args)
    result = types.FunctionResponse(id=call.id, name="weather", response={"output": "21 degrees"})
    later = [*ask, answer.candidates[0].content, types.Content(role="user", parts=[types.Part(function_response=result)])]
    tools = types.GenerateContentConfig(tools=FORCED.tools)
    assert google.models.generate_content(model=model, contents=later, config=tools).text
    if model == "plain":
        [_, called, told] = crossing.sent()["messages"]
        assert called["tool_calls"][0]["id"] == told["tool_call_id"] and told["content"] == "21 degrees"


def test_functions_of_python_are_called(google):
    asked = []

    def weather(city: str) -> str:
        """The weather in a city."""
        asked.append(city)
        return "21 degrees"

    answer = google.models.generate_content(
        model="plain", contents="Call the tool.", config=types.GenerateContentConfig(tools=[weather]))
    assert asked == ["mock"] and answer.text


@MOCKS
def test_images(google, crossing, model):
    image = types.Part.from_bytes(data=base64.b64decode(PNG), mime_type="image/png")
    answer = google.models.generate_content(model=model, contents=["What is this?", image], config=short())
    assert answer.text
    assert PNG in str(crossing.sent()), "the provider gets the image"


class City(pydantic.BaseModel):
    name: str
    people: int


@MOCKS
def test_structured_output(google, model):
    config = types.GenerateContentConfig(response_mime_type="application/json", response_schema=City)
    answer = google.models.generate_content(model=model, contents="Which city?", config=config)
    assert answer.parsed == City(name="mock", people=1)


@pytest.mark.parametrize("model", ["smollm2", "plain", "gemini"])
def test_count_tokens(google, model):
    few = google.models.count_tokens(model=model, contents="one two three").total_tokens
    many = google.models.count_tokens(model=model, contents="one two three " * 50).total_tokens
    assert 0 < few < many


def test_models(google):
    names = {model.name for model in google.models.list()}
    assert {"models/smollm2", "models/gemini", "models/gemini-embedding-001"} <= names
    model = google.models.get(model="smollm2")
    assert model.input_token_limit == 2048 and "generateContent" in model.supported_actions


def test_embed_content(google, crossing):
    answer = google.models.embed_content(model="gemini-embedding-001", contents=["one", "two"])
    assert [len(one.values) for one in answer.embeddings] == [3, 3]
    assert crossing.last()["dialect"] == "gemini"
    with pytest.raises(errors.ClientError) as refused:
        google.models.embed_content(model="tiny-embed", contents="one")
    assert (refused.value.code, refused.value.status) == (400, "INVALID_ARGUMENT")


def test_errors_have_googles_form(google, crossing):
    with pytest.raises(errors.ClientError) as unknown:
        google.models.generate_content(model="nobody", contents="hi")
    assert (unknown.value.code, unknown.value.status) == (404, "NOT_FOUND") and "nobody" in unknown.value.message
    other = client_of(crossing, "key-of-nobody")
    with pytest.raises(errors.ClientError) as stranger:
        other.models.generate_content(model="plain", contents="hi")
    assert (stranger.value.code, stranger.value.status) == (401, "UNAUTHENTICATED")
    crossing.script({"status": 400})
    with pytest.raises(errors.ClientError) as refused:
        google.models.generate_content(model="plain", contents="hi")
    assert (refused.value.code, refused.value.status, refused.value.message) == (400, "INVALID_ARGUMENT", "as scripted")
    with pytest.raises(errors.ServerError) as broken:
        list(google.models.generate_content_stream(model="gone", contents="hi"))
    assert broken.value.code in (502, 503) and broken.value.status == "UNAVAILABLE"
