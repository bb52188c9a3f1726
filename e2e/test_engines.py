"""What Pointsman believes of llama.cpp's slots, beside what llama.cpp says of them."""

import concurrent.futures
import threading
import time

import pytest

from conftest import Gateway, http, until

HELLO = [{"role": "user", "content": "hello"}]
# A busy engine is asked every 50 to 200 ms, plus a tenth; an answer and a slow machine take the rest.
POLL_S = 0.5


@pytest.fixture(scope="module")
def watched(engines, tmp_path_factory):
    """A gateway of its own, so that nobody else sends anything."""
    running = Gateway(tmp_path_factory.mktemp("watched"), engines)
    try:
        yield running
    finally:
        running.stop()


def view(gateway, name):
    status, answer = http("GET", f"{gateway.admin}/admin/v1/deployments")
    assert status == 200
    return next(one for one in answer["deployments"] if one["name"] == name)


def begin(client, tokens=1500):
    return client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=tokens, stream=True)


def test_slots_are_those_of_the_engine(watched, engines):
    engine = until("it is heard", lambda: view(watched, "tiny-a")["engine"])
    assert engine["slots"] == 4 and engine["kv_capacity_tokens"] == 4 * 2048
    other = until("so is the other", lambda: view(watched, "tiny-b")["engine"])
    assert other["slots"] == 2
    assert view(watched, "tiny-a")["engine_signals"]["state"] == "ok"
    assert view(watched, "tiny-a")["slots"] == 4


def test_the_view_agrees_with_slots_within_one_poll(watched, engines):
    client = watched.client()
    names = {"tiny-a": engines[0], "tiny-b": engines[1]}
    streams = []
    for wanted in (1, 3, 6):
        while len(streams) < wanted:
            stream = begin(client)
            next(iter(stream))
            streams.append(stream)
        busy = {name: engine.busy_slots() for name, engine in names.items()}
        assert sum(busy.values()) == wanted
        for name, slots in busy.items():
            until(f"{name} has {slots} of {wanted}", lambda name=name, slots=slots: agrees(watched, name, slots), 2.0)
    for stream in streams:
        stream.close()
    for name, engine in names.items():
        until(f"{name} is idle", lambda engine=engine: engine.busy_slots() == 0)
        until(f"{name} is seen to be idle", lambda name=name: agrees(watched, name, 0), 2.0)


def agrees(gateway, name, busy):
    seen = view(gateway, name)
    load = seen["engine"]["load"]
    return seen["inflight"] == busy and load and load["running"] == busy and load["foreign"] == 0


def test_requests_of_others_are_told_from_ours(watched, engines):
    engine = engines[0]
    body = {"messages": HELLO, "max_tokens": 1500, "stream": False}
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for _ in range(2):
            pool.submit(http, "POST", f"{engine.url}/v1/chat/completions", body, 60)
        until("others are seen", lambda: view(watched, "tiny-a")["engine"]["load"]["foreign"] == 2, 5.0)
        assert view(watched, "tiny-a")["inflight"] == 0
    until("they are gone", lambda: view(watched, "tiny-a")["engine"]["load"]["foreign"] == 0, 5.0)


def test_what_is_shown_was_true_a_moment_ago(watched, engines):
    """Under changing load, every report that is shown is what `/slots` said around the time it was made."""
    engine, seen, over = engines[0], [], threading.Event()

    def watch():
        while not over.is_set():
            began = time.monotonic()
            seen.append((began, engine.busy_slots(), time.monotonic()))

    def chat(number):
        client = watched.client()
        for round in range(6):
            tokens = 20 + 37 * ((number * 5 + round * 3) % 7)
            client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=tokens)

    watcher = threading.Thread(target=watch)
    watcher.start()
    reports = []
    try:
        with concurrent.futures.ThreadPoolExecutor(5) as pool:
            chats = [pool.submit(chat, number) for number in range(5)]
            while not all(one.done() for one in chats):
                before = time.monotonic()
                report = view(watched, "tiny-a")["engine"]
                made = before - report["report_age_ms"] / 1e3
                reports.append((made - POLL_S, time.monotonic(), report["running"]))
                time.sleep(0.02)
            for one in chats:
                one.result()
    finally:
        over.set()
        watcher.join()
    wrong = []
    for since, until_then, running in reports:
        # The engine answers between two of its decoding steps, so what is shown is as old as a step or two; and what was
        # true only between two answers lies between them.
        first = max((at for at, (_, _, ended) in enumerate(seen) if ended <= since), default=0)
        last = min((at for at, (began, _, _) in enumerate(seen) if began >= until_then), default=len(seen) - 1)
        around = [busy for _, busy, _ in seen[first:last + 1]]
        if not min(around) <= running <= max(around):
            wrong.append((running, around))
    checked = len(reports)
    assert checked > 10
    assert not wrong, f"{len(wrong)} of {checked}: {wrong[:3]}"
