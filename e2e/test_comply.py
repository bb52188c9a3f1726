"""The conformance suite `llm-comply`, case by case, through Pointsman on a mock that emits tools, images, thoughts and usage."""

import pathlib

import llm_comply
import pytest
from llm_comply.config import ComplianceConfig
from llm_comply.result import TestStatus
from llm_comply.runner import TestRunner
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
    # Responses are relayed as they are, so far, and the mock's are not complete by their description.
    "open-responses": [],
}
CALLS = {"chat-tool-calling", "anth-tool-calling", "google-tool-calling", "tool-calling"}
CASES = [(form, model, case.id) for form, models in MODELS.items() for model in models for case in get_tests(form)]


def not_demanded(model, case):
    """Why a case cannot be demanded."""
    if model == "llama" and case in CALLS:
        return "the case forces a call; Ollama's API has no word for that, and the mock calls when it is asked to in words"
    return None


@pytest.mark.parametrize(("form", "model", "case_id"), CASES)
def test_case(crossing, form, model, case_id):
    reason = not_demanded(model, case_id)
    if reason:
        pytest.skip(reason)
    spec, prefix, head = FORMATS[form]
    config = ComplianceConfig(base_url=f"{crossing.url}{prefix}", api_key=KEY, model=model, timeout=30.0, verbose=True, **head)
    [case] = [case for case in get_tests(form) if case.id == case_id]
    result = TestRunner(config, [case], SpecLoader(str(SPECS / spec) if spec else None)).run_one(case)
    if result.status == TestStatus.SKIPPED:
        # The suite asks models to think only whose names it knows.
        pytest.skip(result.errors[0])
    assert result.status == TestStatus.PASSED, (result.errors, result.response or result.stream_events)
