"""Files and batches through the official client, in front of llama.cpp."""

import json

import openai
import pytest

from conftest import Gateway, until

MESSAGES = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def gateway(engines, tmp_path_factory):
    """One of its own: what a flood teaches it of its engines is not for the other tests."""
    running = Gateway(tmp_path_factory.mktemp("batches"), engines)
    try:
        yield running
    finally:
        running.stop()


def line(number, url="/v1/chat/completions", **body):
    body = {"model": "tiny", "messages": MESSAGES, "max_tokens": 4, **body}
    return json.dumps({"custom_id": f"request-{number}", "method": "POST", "url": url, "body": body})


def upload(client, lines):
    return client.files.create(file=("in.jsonl", "\n".join(lines).encode()), purpose="batch")


def create(client, file, endpoint="/v1/chat/completions", **more):
    return client.batches.create(
        input_file_id=file.id, endpoint=endpoint, completion_window="24h", **more)


def finished(client, batch):
    def over():
        now = client.batches.retrieve(batch.id)
        return now if now.status in ("completed", "failed", "expired", "cancelled") else None

    return until("the batch is over", over, 60)


def results(client, file_id):
    lines = client.files.content(file_id).text.splitlines()
    return {one["custom_id"]: one for one in map(json.loads, lines)}


def test_upload_create_poll_download(client, gateway):
    file = upload(client, [line(number) for number in range(8)])
    assert file.object == "file" and file.purpose == "batch" and file.filename == "in.jsonl"
    assert client.files.retrieve(file.id).bytes == file.bytes
    batch = create(client, file, metadata={"night": "1"})
    assert batch.status == "validating" and batch.metadata == {"night": "1"}
    # Somebody chats meanwhile.
    assert client.chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=4).choices
    done = finished(client, batch)
    assert done.status == "completed" and done.error_file_id is None
    assert (done.request_counts.total, done.request_counts.completed, done.request_counts.failed) == (8, 8, 0)
    found = results(client, done.output_file_id)
    assert set(found) == {f"request-{number}" for number in range(8)}
    response = found["request-3"]["response"]
    assert response["status_code"] == 200 and response["body"]["usage"]["completion_tokens"] == 4
    record = gateway.decision(response["request_id"])
    assert record["facts"]["lane"] == "batch" and record["batch"] == {"id": batch.id, "line": 4}
    assert done.usage.output_tokens == 32
    assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)


def test_embeddings(client):
    lines = [json.dumps({"custom_id": f"e{number}", "method": "POST", "url": "/v1/embeddings",
                         "body": {"model": "tiny-embed", "input": f"text {number}"}}) for number in range(3)]
    done = finished(client, create(client, upload(client, lines), "/v1/embeddings"))
    found = results(client, done.output_file_id)
    assert len(found["e2"]["response"]["body"]["data"][0]["embedding"]) == 64


def test_an_input_with_mistakes_fails(client):
    failed = finished(client, create(client, upload(client, [line(1), line(1), line(2, model="nobody")])))
    assert failed.status == "failed" and failed.failed_at
    assert [(error.line, error.code) for error in failed.errors.data] == [
        (2, "duplicate_custom_id"), (3, "model_not_found")]


def test_cancel(client):
    batch = create(client, upload(client, [line(number, max_tokens=200) for number in range(200)]))
    until("it runs", lambda: client.batches.retrieve(batch.id).status == "in_progress")
    assert client.batches.cancel(batch.id).status == "cancelling"
    done = finished(client, batch)
    assert done.status == "cancelled" and done.cancelled_at
    assert done.request_counts.completed < 200
    errors = results(client, done.error_file_id)
    assert {one["error"]["code"] for one in errors.values()} == {"batch_cancelled"}


def test_lists_and_other_tenants(client, gateway):
    files = [upload(client, [line(1)]) for _ in range(3)]
    batches = [create(client, file) for file in files]
    listed = [batch.id for batch in client.batches.list(limit=2)]
    assert [id for id in listed if id in {batch.id for batch in batches}] == [batch.id for batch in reversed(batches)]
    assert {file.id for file in files} <= {file.id for file in client.files.list(purpose="batch")}
    other = gateway.client("key-of-small")
    for asked in (lambda: other.batches.retrieve(batches[0].id), lambda: other.files.content(files[0].id),
                  lambda: create(other, files[0])):
        with pytest.raises(openai.NotFoundError):
            asked()
    with pytest.raises(openai.BadRequestError) as error:
        client.batches.create(input_file_id=files[0].id, endpoint="/v1/moderations", completion_window="24h")
    assert error.value.param == "endpoint"
    for batch in batches:
        assert finished(client, batch).status == "completed"
