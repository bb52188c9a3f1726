"""The official clients of Triton, over HTTP and gRPC, against Pointsman, with the mock's tensors behind it or a server made of
Triton's own gRPC stubs."""

import json
import os
import subprocess
import time
from concurrent import futures

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from conftest import free_port, is_up, until

def key():
    """Anew each time, for the client puts headers of its own into what it is given."""
    return {"authorization": "Bearer key-of-acme"}


class Engine(service_pb2_grpc.GRPCInferenceServiceServicer):
    """A server over gRPC that gives back the tensors it is given."""

    def __init__(self):
        self.asked = []
        self.slow_s = 0

    def ServerReady(self, request, context):
        return service_pb2.ServerReadyResponse(ready=True)

    def ModelInfer(self, request, context):
        self.asked.append((request, dict(context.invocation_metadata())))
        if request.model_name != "identity":
            context.abort(grpc.StatusCode.NOT_FOUND, f"unknown model é {request.model_name}")
        for _ in range(int(self.slow_s * 20)):
            if not context.is_active():
                self.asked.append("cancelled")
                return service_pb2.ModelInferResponse()
            time.sleep(0.05)
        answer = service_pb2.ModelInferResponse(model_name="identity", model_version="1", id=request.id)
        for at, one in enumerate(request.inputs):
            name = request.outputs[at].name if request.outputs else one.name
            answer.outputs.add(name=name, datatype=one.datatype, shape=one.shape)
        answer.raw_output_contents.extend(request.raw_input_contents)
        return answer


@pytest.fixture(scope="module")
def engine():
    server = grpc.server(futures.ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", -1)])
    servicer = Engine()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    servicer.port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield servicer
    server.stop(None)


@pytest.fixture(scope="module")
def routers(tmp_path_factory, engine):
    folder = tmp_path_factory.mktemp("tensors")
    mock, client, admin, calls = free_port(), free_port(), free_port(), free_port()
    (folder / "pointsman.yaml").write_text(f"""
listen: 127.0.0.1:{client}
admin: 127.0.0.1:{admin}
grpc: 127.0.0.1:{calls}
auth:
  keys: [ {{ name: acme, key: key-of-acme }} ]
providers:
  gpu: {{ kind: kserve, base_url: "http://127.0.0.1:{mock}" }}
  box: {{ kind: triton, base_url: "grpc://127.0.0.1:{engine.port}", keys: [ key-of-box ] }}
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
  boxed:
    deployments: [ {{ provider: box, model: identity, version: "7", upstream_version: "1" }} ]
  gone:
    deployments: [ {{ provider: box, model: gone }} ]
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
        yield f"127.0.0.1:{client}", f"127.0.0.1:{calls}"
    finally:
        for process in running:
            process.kill()
            process.wait()


@pytest.fixture
def router(routers):
    return routers[0]


@pytest.fixture
def caller(routers):
    with triton_grpc.InferenceServerClient(routers[1]) as caller:
        yield caller


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
    assert [(one["name"], one.get("version"), one["state"]) for one in index] == [
        ("boxed", "7", "READY"), ("echo", "7", "READY"), ("free", None, "READY"), ("gone", None, "READY")]


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


def called(name, array, datatype):
    tensor = triton_grpc.InferInput(name, array.shape, datatype)
    tensor.set_data_from_numpy(array)
    return tensor


ALL = [
    (np.bool_, "BOOL"), (np.uint8, "UINT8"), (np.uint16, "UINT16"), (np.uint32, "UINT32"), (np.uint64, "UINT64"),
    (np.int8, "INT8"), (np.int16, "INT16"), (np.int32, "INT32"), (np.int64, "INT64"), (np.float16, "FP16"),
    (np.float32, "FP32"), (np.float64, "FP64")]


def extremes(dtype):
    if dtype == np.bool_:
        return np.array([True, False])
    info = np.iinfo(dtype) if np.issubdtype(dtype, np.integer) else np.finfo(dtype)
    return np.array([info.min, info.max], dtype=dtype)


@pytest.mark.parametrize("version", ["", "7"])
@pytest.mark.parametrize("model", ["echo", "boxed"])
def test_grpc_tensors_come_back_as_they_went(caller, model, version):
    x = np.array([[1, 2.5, -3e10], [0.1, 0, 7]], dtype=np.float32)
    words = np.array(["a", "é\n", ""], dtype=np.object_)
    answer = caller.infer(
        model, [called("x", x, "FP32"), called("words", words, "BYTES")],
        outputs=[triton_grpc.InferRequestedOutput("y"), triton_grpc.InferRequestedOutput("said")],
        model_version=version, headers=key(), request_id="42", client_timeout=20)
    np.testing.assert_array_equal(answer.as_numpy("y"), x)
    assert [one.decode() for one in answer.as_numpy("said")] == ["a", "é\n", ""]
    assert answer.get_response().id == "42"


@pytest.mark.parametrize("model", ["free", "boxed"])
@pytest.mark.parametrize("dtype,datatype", ALL)
def test_grpc_every_datatype(caller, dtype, datatype, model):
    array = extremes(dtype)
    answer = caller.infer(model, [called("x", array, datatype)], headers=key())
    np.testing.assert_array_equal(answer.as_numpy("x"), array)


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("dtype,datatype", ALL)
def test_http_every_datatype_at_a_server_over_grpc(client, engine, dtype, datatype, binary):
    array = extremes(dtype)
    if datatype == "FP16" and not binary:
        return
    outputs = [triton.InferRequestedOutput("x", binary_data=binary)]
    answer = client.infer("boxed", [given("x", array, datatype, binary)], outputs=outputs, headers=key())
    np.testing.assert_array_equal(answer.as_numpy("x"), array)
    request, metadata = engine.asked[-1]
    assert (request.model_name, request.model_version) == ("identity", "1")
    assert metadata["authorization"] == "Bearer key-of-box" and "x-request-id" in metadata


def test_grpc_typed_contents(routers):
    stub = service_pb2_grpc.GRPCInferenceServiceStub(grpc.insecure_channel(routers[1]))
    request = service_pb2.ModelInferRequest(model_name="echo")
    one = request.inputs.add(name="x", datatype="FP32", shape=[1, 3])
    one.contents.fp32_contents.extend([1, 2.5, -3])
    answer = stub.ModelInfer(request, metadata=list(key().items()))
    np.testing.assert_array_equal(np.frombuffer(answer.raw_output_contents[0], np.float32), [1, 2.5, -3])
    one.contents.fp32_contents.append(4)
    with pytest.raises(grpc.RpcError, match="4 elements"):
        stub.ModelInfer(request, metadata=list(key().items()))
    with pytest.raises(grpc.RpcError) as told:
        next(stub.ModelStreamInfer(iter([request]), metadata=list(key().items())))
    assert told.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_grpc_metadata_and_health(caller):
    assert caller.is_server_live(headers=key()) and caller.is_server_ready(headers=key())
    assert caller.get_server_metadata(headers=key()).name == "pointsman"
    metadata = caller.get_model_metadata("echo", headers=key())
    assert list(metadata.versions) == ["7"]
    assert (metadata.inputs[0].name, metadata.inputs[0].datatype, list(metadata.inputs[0].shape)) == ("x", "FP32", [-1, 3])
    assert caller.is_model_ready("echo", headers=key()) and caller.is_model_ready("echo", "7", headers=key())
    with pytest.raises(InferenceServerException, match="no version"):
        caller.is_model_ready("echo", "8", headers=key())
    assert [one.name for one in caller.get_model_repository_index(headers=key()).models] == ["boxed", "echo", "free", "gone"]


def test_grpc_what_does_not_fit_is_named(caller):
    def refused(status, tensors, *words, model="echo", headers=None):
        with pytest.raises(InferenceServerException) as told:
            caller.infer(model, tensors, headers=key() if headers is None else headers)
        assert told.value.status() == f"StatusCode.{status}", told.value
        for word in words:
            assert word in told.value.message(), told.value.message()

    fits = called("x", np.zeros((1, 3), np.float32), "FP32")
    refused("INVALID_ARGUMENT", [called("x", np.zeros((2, 4), np.float32), "FP32")], "`x`", "[2, 4]", "[-1, 3]")
    refused("INVALID_ARGUMENT", [called("x", np.zeros((1, 3), np.int64), "INT64")], "`x`", "INT64", "FP32")
    refused("INVALID_ARGUMENT", [called("z", np.zeros((1, 3), np.float32), "FP32")], '"z"', "`x`")
    refused("NOT_FOUND", [fits], "nope", model="nope")
    refused("UNAUTHENTICATED", [fits], "key", headers={})
    # That the server lacks the model is its operator's business.
    refused("UNAVAILABLE", [fits], "box", model="gone")
    # More than the limit of a body, 32 MiB.
    refused("RESOURCE_EXHAUSTED", [called("x", np.zeros((3_000_000, 3), np.float32), "FP32")], "33554432")


def test_grpc_large_tensors(caller):
    x = np.arange(6_000_000, dtype=np.float32).reshape(-1, 3)
    answer = caller.infer("boxed", [called("x", x, "FP32")], outputs=[triton_grpc.InferRequestedOutput("y")], headers=key())
    np.testing.assert_array_equal(answer.as_numpy("y"), x)


def test_grpc_a_call_that_is_given_up_ends_at_the_server(caller, engine):
    engine.slow_s = 20
    try:
        with pytest.raises(InferenceServerException, match="DEADLINE_EXCEEDED|Deadline"):
            caller.infer("boxed", [called("x", np.zeros((1, 3), np.float32), "FP32")], headers=key(), client_timeout=2)
        until("the server sees it", lambda: engine.asked[-1] == "cancelled")
    finally:
        engine.slow_s = 0
