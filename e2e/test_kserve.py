"""The official client of Triton against Pointsman, with the mock's tensors behind it."""

import json
import os
import subprocess

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from conftest import free_port, is_up, until

def key():
    """Anew each time, for the client puts headers of its own into what it is given."""
    return {"authorization": "Bearer key-of-acme"}


@pytest.fixture(scope="module")
def router(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tensors")
    mock, client, admin = free_port(), free_port(), free_port()
    (folder / "pointsman.yaml").write_text(f"""
listen: 127.0.0.1:{client}
admin: 127.0.0.1:{admin}
auth:
  keys: [ {{ name: acme, key: key-of-acme }} ]
providers:
  gpu: {{ kind: kserve, base_url: "http://127.0.0.1:{mock}" }}
models:
  echo:
    inputs:
      - {{ name: x, datatype: FP32, shape: [-1, 3] }}
      - {{ name: words, datatype: BYTES, shape: [-1], optional: true }}
    outputs:
      - {{ name: y, datatype: FP32, shape: [-1, 3] }}
      - {{ name: said, datatype: BYTES, shape: [-1] }}
    deployments: [ {{ provider: gpu, model: identity, version: "7", upstream_version: "1" }} ]
  free:
    deployments: [ {{ provider: gpu, model: identity }} ]
""")
    binary = os.environ["POINTSMAN_BIN"]
    quiet = {"stdout": subprocess.DEVNULL}
    running = [
        subprocess.Popen([binary, "mock", "--listen", f"127.0.0.1:{mock}"], **quiet),
        subprocess.Popen([binary, "serve", "--config", str(folder / "pointsman.yaml")], **quiet),
    ]
    try:
        until("the mock is up", lambda: is_up(f"http://127.0.0.1:{mock}/v2/health/ready"))
        until("the gateway is up", lambda: is_up(f"http://127.0.0.1:{admin}/readyz"))
        yield f"127.0.0.1:{client}"
    finally:
        for process in running:
            process.kill()
            process.wait()


@pytest.fixture
def client(router):
    with triton.InferenceServerClient(router) as client:
        yield client


def given(name, array, datatype, binary):
    tensor = triton.InferInput(name, array.shape, datatype)
    tensor.set_data_from_numpy(array, binary_data=binary)
    return tensor


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("version", ["", "7"])
def test_tensors_come_back_as_they_went(client, binary, version):
    x = np.array([[1, 2.5, -3e10], [0.1, 0, 7]], dtype=np.float32)
    words = np.array(["a", "é\n", ""], dtype=np.object_)
    answer = client.infer(
        "echo",
        [given("x", x, "FP32", binary), given("words", words, "BYTES", binary)],
        outputs=[triton.InferRequestedOutput("y", binary_data=binary), triton.InferRequestedOutput("said", binary_data=binary)],
        model_version=version, headers=key(), request_id="42")
    np.testing.assert_array_equal(answer.as_numpy("y"), x)
    said = [one.decode() if isinstance(one, bytes) else one for one in answer.as_numpy("said")]
    assert said == ["a", "é\n", ""]
    assert answer.get_response()["id"] == "42"


@pytest.mark.parametrize("dtype,datatype", [
    (np.bool_, "BOOL"), (np.uint8, "UINT8"), (np.uint16, "UINT16"), (np.uint32, "UINT32"), (np.uint64, "UINT64"),
    (np.int8, "INT8"), (np.int16, "INT16"), (np.int32, "INT32"), (np.int64, "INT64"), (np.float16, "FP16"),
    (np.float32, "FP32"), (np.float64, "FP64")])
def test_every_datatype_in_binary_and_in_json(client, dtype, datatype):
    if dtype == np.bool_:
        array = np.array([True, False])
    else:
        info = np.iinfo(dtype) if np.issubdtype(dtype, np.integer) else np.finfo(dtype)
        array = np.array([info.min, info.max], dtype=dtype)
    for binary in [True] if datatype == "FP16" else [True, False]:
        outputs = [triton.InferRequestedOutput("x", binary_data=binary)]
        answer = client.infer("free", [given("x", array, datatype, binary)], outputs=outputs, headers=key())
        np.testing.assert_array_equal(answer.as_numpy("x"), array)


def test_metadata_and_health(client):
    assert client.is_server_live(headers=key()) and client.is_server_ready(headers=key())
    assert client.get_server_metadata(headers=key())["name"] == "pointsman"
    metadata = client.get_model_metadata("echo", headers=key())
    assert metadata["versions"] == ["7"]
    assert metadata["inputs"][0] == {"name": "x", "datatype": "FP32", "shape": [-1, 3]}
    assert client.is_model_ready("echo", headers=key()) and client.is_model_ready("echo", "7", headers=key())
    assert not client.is_model_ready("echo", "8", headers=key())
    assert not client.is_model_ready("nope", headers=key())
    index = client.get_model_repository_index(headers=key())
    assert [(one["name"], one.get("version"), one["state"]) for one in index] == [("echo", "7", "READY"), ("free", None, "READY")]


@pytest.mark.parametrize("binary", [False, True])
def test_what_does_not_fit_is_named(client, binary):
    def refused(name, array, datatype, *words):
        with pytest.raises(InferenceServerException) as told:
            client.infer("echo", [given(name, array, datatype, binary)], headers=key())
        assert told.value.status() == "400"
        for word in words:
            assert word in told.value.message(), told.value.message()

    refused("x", np.zeros((2, 4), np.float32), "FP32", "`x`", "[2, 4]", "[-1, 3]")
    refused("x", np.zeros((1, 3), np.int64), "INT64", "`x`", "INT64", "FP32")
    refused("z", np.zeros((1, 3), np.float32), "FP32", '"z"', "`x`")
    refused("words", np.array(["a"], np.object_), "BYTES", "`x` is missing")
    with pytest.raises(InferenceServerException, match="key"):
        client.infer("echo", [given("x", np.zeros((1, 3), np.float32), "FP32", binary)])


def test_errors_are_only_words(router):
    import urllib.error
    import urllib.request

    request = urllib.request.Request(f"http://{router}/v2/models/nope/infer", data=b"{}", headers={**key(), "content-type": "application/json"})
    with pytest.raises(urllib.error.HTTPError) as told:
        urllib.request.urlopen(request, timeout=10)
    assert told.value.code == 404
    assert list(json.loads(told.value.read())) == ["error"]
