"""Clouds behind Pointsman: a Bedrock of our own that holds every request to botocore's signer and its model of the service,
and whose answers boto3 reads as AWS's."""

import os
import subprocess

import anthropic
import boto3
import botocore.config
import botocore.exceptions
import openai
import pytest

import bedrock
from conftest import free_port, http, is_up, until

ARN = "arn:aws:bedrock:eu-west-1:123456789012:inference-profile/eu.anthropic.claude-sonnet-4-5-20250929-v1:0"
MODEL = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
HELLO = [{"role": "user", "content": "hello"}]


class Place:
    def __init__(self, folder):
        self.bedrock = bedrock.Bedrock()
        self.port, self.admin_port = free_port(), free_port()
        self.url, self.admin = f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{self.admin_port}"
        config = folder / "clouds.yaml"
        config.write_text(f"""
listen: 127.0.0.1:{self.port}
admin: 127.0.0.1:{self.admin_port}
providers:
  aws:
    kind: bedrock
    base_url: {self.bedrock.url}
    location: {bedrock.REGION}
    keys:
      - access_key_id: ${{AWS_ACCESS_KEY_ID}}
        secret_access_key: ${{AWS_SECRET_ACCESS_KEY}}
        session_token: ${{AWS_SESSION_TOKEN}}
  limited:
    kind: bedrock
    base_url: {self.bedrock.url}
    location: {bedrock.REGION}
    keys: [ {{ access_key_id: {bedrock.ACCESS_KEY}, secret_access_key: "${{AWS_SECRET_ACCESS_KEY}}", session_token: "${{AWS_SESSION_TOKEN}}" }} ]
  forged:
    kind: bedrock
    base_url: {self.bedrock.url}
    location: {bedrock.REGION}
    keys: [ {{ access_key_id: {bedrock.ACCESS_KEY}, secret_access_key: not-the-secret, session_token: {bedrock.SESSION_TOKEN} }} ]
models:
  claude: {{ attempts_max: 1, deployments: [ {{ name: claude, provider: aws, model: "{MODEL}" }} ] }}
  nova: {{ attempts_max: 1, deployments: [ {{ name: nova, provider: aws, model: amazon.nova-pro-v1:0 }} ] }}
  profile: {{ attempts_max: 1, deployments: [ {{ name: profile, provider: aws, model: "{ARN}" }} ] }}
  long: {{ attempts_max: 1, deployments: [ {{ name: long, provider: aws, model: x.y }} ] }}
  gone: {{ attempts_max: 1, deployments: [ {{ name: gone, provider: aws, model: x.y }} ] }}
  limited: {{ attempts_max: 1, deployments: [ {{ name: limited, provider: limited, model: x.y }} ] }}
  forged: {{ attempts_max: 1, deployments: [ {{ name: forged, provider: forged, model: x.y }} ] }}
""")
        secrets = {"AWS_ACCESS_KEY_ID": bedrock.ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": bedrock.SECRET_KEY,
                   "AWS_SESSION_TOKEN": bedrock.SESSION_TOKEN}
        self.log = folder / "log"
        self.process = subprocess.Popen(
            [os.environ["POINTSMAN_BIN"], "serve", "--config", str(config)], env={**os.environ, **secrets},
            stdout=subprocess.DEVNULL, stderr=self.log.open("w"))
        until("the gateway is up", lambda: is_up(f"{self.admin}/readyz"))

    def openai(self):
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="any", max_retries=0, timeout=60)

    def anthropic(self):
        return anthropic.Anthropic(base_url=self.url, api_key="any", max_retries=0, timeout=60)

    def boto3(self):
        return boto3.client(
            "bedrock-runtime", endpoint_url=self.bedrock.url, region_name=bedrock.REGION,
            aws_access_key_id=bedrock.ACCESS_KEY, aws_secret_access_key=bedrock.SECRET_KEY,
            aws_session_token=bedrock.SESSION_TOKEN, config=botocore.config.Config(retries={"max_attempts": 0}))

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.bedrock.stop()


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    place = Place(tmp_path_factory.mktemp("clouds"))
    yield place
    place.stop()


@pytest.fixture
def place(running):
    running.bedrock.reset()
    yield running


def sent(place):
    """What reached Bedrock, all of which botocore had nothing against."""
    assert place.bedrock.faults == []
    return place.bedrock.seen


def test_boto3_takes_the_fake_for_bedrock(place):
    client, ask = place.boto3(), {"modelId": MODEL, "messages": [{"role": "user", "content": [{"text": "hello"}]}]}
    answer = client.converse(**ask)
    assert answer["output"]["message"]["content"] == [{"text": "Hello from Bedrock"}] and answer["usage"] == bedrock.USAGE
    events = list(client.converse_stream(**ask)["stream"])
    text = "".join(event["contentBlockDelta"]["delta"]["text"] for event in events if "contentBlockDelta" in event)
    assert text == "Hello from Bedrock" and events[-1]["metadata"]["usage"] == bedrock.USAGE
    place.bedrock.fails = "modelStreamErrorException"
    with pytest.raises(botocore.exceptions.EventStreamError):
        list(client.converse_stream(**ask)["stream"])
    place.bedrock.refuse = (429, "ThrottlingException", "slow down")
    with pytest.raises(client.exceptions.ThrottlingException):
        client.converse(**ask)
    assert len(sent(place)) == 4


def test_what_boto3_and_clients_of_others_read_is_the_same(place):
    said = place.boto3().converse(modelId=MODEL, messages=[{"role": "user", "content": [{"text": "hello"}]}])
    for model in ("claude", "nova", "profile"):
        raw = place.openai().chat.completions.with_raw_response.create(
            model=model, messages=[{"role": "system", "content": "Be brief."}, *HELLO], max_tokens=20, temperature=0.5, stop=["END"])
        answer = raw.parse()
        assert answer.choices[0].message.content == said["output"]["message"]["content"][0]["text"]
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (11, 5)
        record = until("the record is there", lambda: found(place, raw.headers["x-pointsman-request-id"]))
        assert record["conversion"]["to"] == "bedrock" and record["usage"]["tokens_out"] == 5
    boto, claude, nova, profile = sent(place)
    assert boto["messages"] == claude["messages"] == nova["messages"] == profile["messages"]
    assert (nova["modelId"], profile["modelId"]) == ("amazon.nova-pro-v1:0", ARN)
    assert claude["system"] == [{"text": "Be brief."}] and claude["modelId"] == MODEL
    assert claude["inferenceConfig"] == {"maxTokens": 20, "temperature": 0.5, "stopSequences": ["END"]}


def found(place, request_id):
    status, record = http("GET", f"{place.admin}/admin/v1/decisions/{request_id}")
    return record if status == 200 else None


def test_streams_are_read_however_they_are_cut(place):
    chunks = list(place.openai().chat.completions.create(
        model="claude", messages=HELLO, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "Hello from Bedrock"
    assert chunks[-1].usage.completion_tokens == 5
    with place.anthropic().messages.stream(model="nova", max_tokens=20, messages=HELLO) as stream:
        message = stream.get_final_message()
    assert message.content[0].text == "Hello from Bedrock" and message.stop_reason == "end_turn"
    assert len(sent(place)) == 2


def test_tools_are_called_and_answered(place):
    client = place.openai()
    tools = [{"type": "function", "function": {"name": "weather", "description": "The weather", "parameters": CITY}}]
    ask = {"model": "claude", "tools": tools, "tool_choice": "required"}
    answer = client.chat.completions.create(messages=HELLO, **ask)
    [call] = answer.choices[0].message.tool_calls
    assert (call.function.name, call.function.arguments) == ("weather", '{"city": "Paris"}')
    assert answer.choices[0].finish_reason == "tool_calls"
    chunks = [chunk for chunk in client.chat.completions.create(messages=HELLO, stream=True, **ask) if chunk.choices]
    calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    assert "".join(call.function.arguments or "" for call in calls) == '{"city": "Paris"}' and calls[0].id == call.id
    later = [*HELLO, answer.choices[0].message.model_dump(exclude_none=True),
             {"role": "tool", "tool_call_id": call.id, "content": "21 degrees"}]
    ask["tool_choice"] = "auto"
    assert client.chat.completions.create(messages=later, **ask).choices[0].message.content == "Hello from Bedrock"
    first, _, last = sent(place)
    assert first["toolConfig"]["toolChoice"] == {"any": {}}
    assert last["messages"][1]["content"][0]["toolUse"]["input"] == {"city": "Paris"}
    assert last["messages"][2]["content"][0]["toolResult"]["toolUseId"] == call.id


def test_images_documents_thoughts_and_schemas_are_what_the_service_takes(place):
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
    place.openai().chat.completions.create(model="claude", messages=[{"role": "user", "content": [{"type": "text", "text": "What?"}, image]}])
    schema = {"type": "json_schema", "json_schema": {"name": "place", "schema": {**CITY, "additionalProperties": False}, "strict": True}}
    place.openai().chat.completions.create(model="claude", messages=HELLO, response_format=schema)
    place.openai().chat.completions.create(model="claude", messages=HELLO, reasoning_effort="low", max_completion_tokens=4000)
    document = {"type": "document", "title": "Notes (1)", "source": {"type": "text", "media_type": "text/plain", "data": "some notes"}}
    message = place.anthropic().messages.create(
        model="claude", max_tokens=4000, thinking={"type": "enabled", "budget_tokens": 2000},
        system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        messages=[{"role": "user", "content": [document, {"type": "text", "text": "Sum up."}]}])
    thought, text = message.content
    assert (thought.thinking, thought.signature, text.text) == ("Let me think.", "c2lnbmVk", "I thought.")
    again = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": [thought.model_dump(), text.model_dump(exclude_none=True)]},
             {"role": "user", "content": "go on"}]
    with place.anthropic().messages.stream(
            model="claude", max_tokens=4000, thinking={"type": "enabled", "budget_tokens": 2000}, messages=again) as stream:
        assert stream.get_final_message().content[0].signature == "c2lnbmVk"
    pictured, structured, _, thinking, again = sent(place)
    assert pictured["messages"][0]["content"][1]["image"]["source"]["bytes"].startswith(b"\x89PNG")
    assert structured["outputConfig"]["textFormat"]["type"] == "json_schema"
    assert thinking["messages"][0]["content"][0]["document"]["source"]
    assert again["messages"][1]["content"][0]["reasoningContent"]["reasoningText"]["signature"] == "c2lnbmVk"


def test_errors_come_in_the_dialect_of_the_caller_with_awss_words(place):
    client = place.openai()
    for model, refusal, kind in [
        ("long", (400, "ValidationException", "Input is too long for requested model."), openai.BadRequestError),
        ("gone", (400, "ValidationException", "The provided model identifier is invalid."), openai.InternalServerError),
        ("limited", (429, "ThrottlingException", "Too many requests"), openai.RateLimitError),
    ]:
        place.bedrock.refuse = refusal
        with pytest.raises(kind) as refused:
            client.chat.completions.create(model=model, messages=HELLO)
        if kind is openai.BadRequestError:
            assert refused.value.code == "context_length_exceeded" and "too long" in refused.value.message
    place.bedrock.refuse = None
    assert place.bedrock.faults == []


def test_an_exception_within_a_stream_breaks_it_off(place):
    place.bedrock.fails = "modelStreamErrorException"
    text = ""
    with pytest.raises(openai.APIError) as broken:
        for chunk in place.openai().chat.completions.create(model="claude", messages=HELLO, stream=True):
            text += chunk.choices[0].delta.content or ""
    assert text == "Hello from Bedrock" and "it broke" in broken.value.message


def test_a_signature_by_another_secret_is_refused_and_no_secret_is_logged(place):
    with pytest.raises(openai.InternalServerError):
        place.openai().chat.completions.create(model="forged", messages=HELLO)
    assert any("signature" in fault for fault in place.bedrock.faults)
    log = place.log.read_text()
    assert "refuses the credential" in log
    assert not any(secret in log for secret in (bedrock.SECRET_KEY, bedrock.SESSION_TOKEN, "not-the-secret"))
