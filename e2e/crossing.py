"""A gateway in front of real engines and of mocks that speak every dialect: what official clients of all dialects meet."""

import json
import os
import subprocess

from conftest import free_port, http, is_up, until

KEY = "key-of-acme"
# Models of the mock, and the dialects that their providers speak. Some clients know by a model's name what it can do.
MOCKED = {"plain": "openai", "claude": "anthropic", "gemini": "gemini", "llama": "ollama"}
# Fast, and always the same: a mock that takes no time.
AT_ONCE = ["--decode-tokens-per-s", "0", "--first-token-ms", "0", "--prefill-tokens-per-s", "0", "--slots", "0"]
# One red pixel.
PNG = ("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg==")


class Crossing:
    def __init__(self, folder, engines):
        self.port, self.admin_port, mock_port = free_port(), free_port(), free_port()
        self.url, self.admin = f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{self.admin_port}"
        self.mock = mock = f"http://127.0.0.1:{mock_port}"
        config = folder / "crossing.yaml"
        config.write_text(f"""
listen: 127.0.0.1:{self.port}
admin: 127.0.0.1:{self.admin_port}
auth: {{ keys: [ {{ name: acme, key: {KEY} }} ] }}
providers:
  smol: {{ kind: llama_cpp, base_url: "{engines[3].url}" }}
  embed: {{ kind: llama_cpp, base_url: "{engines[2].url}" }}
  openai: {{ kind: openai_compatible, base_url: "{mock}" }}
  anthropic: {{ kind: anthropic, base_url: "{mock}", keys: [ key-of-provider ] }}
  gemini: {{ kind: gemini, base_url: "{mock}", keys: [ key-of-provider ] }}
  ollama: {{ kind: ollama_native, base_url: "{mock}" }}
  gone: {{ kind: openai_compatible, base_url: "http://127.0.0.1:{free_port()}" }}
models:
  smollm2: {{ context_tokens_max: 2048, deployments: [ {{ provider: smol, model: engine-model }} ] }}
  tiny-embed: {{ capabilities: [embeddings], deployments: [ {{ provider: embed, model: engine-model }} ] }}
  plain: {{ deployments: [ {{ provider: openai }} ] }}
  o3-plain: {{ deployments: [ {{ provider: openai }} ] }}
  claude: {{ deployments: [ {{ provider: anthropic, model: claude-mock }} ] }}
  claude-sonnet-4: {{ deployments: [ {{ provider: anthropic, model: claude-mock }} ] }}
  gemini: {{ deployments: [ {{ provider: gemini, model: gemini-2.5-flash }} ] }}
  gemini-embedding-001: {{ capabilities: [embeddings], deployments: [ {{ provider: gemini, model: gemini-embedding-001 }} ] }}
  llama: {{ deployments: [ {{ provider: ollama, model: "llama3.2:1b" }} ] }}
  gone: {{ deployments: [ {{ provider: gone }} ] }}
""")
        pointsman = os.environ["POINTSMAN_BIN"]
        quiet = {"stdout": subprocess.DEVNULL}
        self.running = [subprocess.Popen([pointsman, "mock", "--listen", f"127.0.0.1:{mock_port}", *AT_ONCE], **quiet)]
        until("the mock is up", lambda: is_up(f"{mock}/health"))
        self.running.append(subprocess.Popen([pointsman, "serve", "--config", str(config)], **quiet))
        until("the gateway is up", lambda: is_up(f"{self.admin}/readyz"))

    def decision(self, request_id):
        return until("the record is there", lambda: self.found(request_id))

    def found(self, request_id):
        status, record = http("GET", f"{self.admin}/admin/v1/decisions/{request_id}")
        return record if status == 200 else None

    def last(self):
        """What was recorded last."""
        return http("GET", f"{self.admin}/admin/v1/decisions?limit=1")[1]["decisions"][0]

    def sent(self):
        """The body of the last request that the mock was sent."""
        return json.loads(http("GET", f"{self.mock}/_stats")[1]["last_body"])

    def script(self, *entries):
        """What the mock answers next."""
        assert http("POST", f"{self.mock}/_ctl", {"script": list(entries)})[0] == 200

    def stop(self):
        for process in self.running:
            process.kill()
            process.wait()
