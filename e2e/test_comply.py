"""The conformance suite `llm-comply`, case by case, through Pointsman on a mock that emits tools, images, thoughts and usage."""

import pathlib

import llm_comply
import pytest
from llm_comply.config import ComplianceConfig
from llm_comply.result import TestStatus as Status
from llm_comply.runner import TestRunner as Runner
from llm_comply.schema import SpecLoader
from llm_comply.tests import get_tests

from crossing import KEY

SPECS = pathlib.Path(llm_comply.__file__).parent / "specs"
# By format: the description that answers are held to, where there is one, what stands before the paths, and the head.
FORMATS = {
    "openai-chat": ("openai_chat.json", "/v1", {}),
    "anthropic": ("anthropic.json", "/v1", {
        "auth_header": "x-api-key", "use_bearer_prefix": False, "extra_headers": {"anthropic-version": "2023-06-01"}}),
    "google-genai": (None, "", {"auth_header": "x-goog-api-key", "use_bearer_prefix": False}),
    "open-responses": ("openresponses.json", "/v1", {}),
}
# The suite lets models think only whose names it knows; all of these are in front of the mock.
MODELS = {
    "openai-chat": ["o3-plain", "claude", "gemini", "llama"],
    "anthropic": ["plain", "claude-sonnet-4", "gemini", "llama"],
    "google-genai": ["plain", "claude", "gemini", "llama"],
    "open-responses": ["o3-plain", "plain", "claude", "gemini", "llama"],
}
# Thoughts are shown, and counted, but by Ollama.
THINKS = {"chat-reasoning-summary", "anth-thinking-display", "google-thinking"}
CALLS = {"chat-tool-calling", "anth-tool-calling", "google-tool-calling", "tool-calling"}


def config_of(form, model, url=""):
    _, prefix, head = FORMATS[form]
    return ComplianceConfig(base_url=f"{url}{prefix}", api_key=KEY, model=model, timeout=30.0, verbose=True, **head)


def cases():
    for form, models in MODELS.items():
        for model in models:
            for case in get_tests(form):
                # The suite asks to think only whom it knows by name.
                if not (case.skip_reason and case.skip_reason(config_of(form, model))):
                    yield form, model, case.id


def not_demanded(model, case):
    """Why a case cannot be demanded."""
    if model == "llama" and case in CALLS:
        return "the case forces a call; Ollama's API has no word for that, and the mock calls when it is asked to in words"
    return None


@pytest.mark.parametrize(("form", "model", "case_id"), list(cases()))
def test_case(crossing, form, model, case_id):
    reason = not_demanded(model, case_id)
    if reason:
        pytest.skip(reason)
    spec = FORMATS[form][0]
    [case] = [case for case in get_tests(form) if case.id == case_id]
    runner = Runner(config_of(form, model, crossing.url), [case], SpecLoader(str(SPECS / spec) if spec else None))
    result = runner.run_one(case)
    assert result.status == Status.PASSED, (result.errors, result.response or result.stream_events)
    if case_id in THINKS:
        assert all("llama" == model and "TokenCount" in told for told in result.warnings), result.warnings


def test_every_case_of_the_suite_is_known():
    """A new version of the suite is looked at before it is believed."""
    known = {"openai-chat": 9, "anthropic": 9, "google-genai": 9, "open-responses": 13}
    assert {form: len(get_tests(form)) for form in FORMATS} == known
    assert {case for _, _, case in cases()} == {
        case.id for form in FORMATS if MODELS[form] for case in get_tests(form)}, "each case runs with some model"
