"""What a request may ask for, for how long; clients that leave; a server that stops. The model is a script."""

import asyncio
import http.client
import importlib
import itertools
import json
import socket
import sys
from types import SimpleNamespace

import pytest

pytest.importorskip("fastapi", reason="needs the extra: pip install 'tf_llm[serve]'")
pytest.importorskip("prometheus_client", reason="needs the extra: pip install 'tf_llm[serve]'")

from serving import Shouting, serve, wait_until

import tf_llm.apps.server
from tf_llm.apps.server import events
from tf_llm.apps.server.limits import Limits, find_key
from tf_llm.apps.server.listening import bind
from tf_llm.contracts import UserError

COMPLETIONS, CHAT, EMBEDDINGS = "/v1/completions", "/v1/chat/completions", "/v1/embeddings"
KEY = "a-key-of-this-test-alone"
ASKED = {"model": "m", "prompt": "ab"}


def refusal(client, body, path=COMPLETIONS, status=400):
    """The error that a request gets."""
    received, headers, answer = client.ask("POST", path, {"model": "m", **body})
    assert received == status and set(answer) == {"error"}, answer
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    return answer["error"] | {"retry": headers["retry-after"]}


# === How much ===


def test_a_request_has_limits():
    limits = Limits(prompt_tokens=5, new_tokens=20, rows=4, inputs=3)
    with serve(limits=limits) as client:
        error = refusal(client, {"prompt": ["a", "abcdef"]})
        assert error["code"] == "context_length_exceeded" and error["param"] == "prompt"
        assert "expected at most 5 tokens, which is what this model reads. Received: 6" in error["message"]
        error = refusal(client, {"messages": [{"role": "user", "content": "abcdef"}]}, CHAT)
        assert error["code"] == "context_length_exceeded" and error["param"] == "messages"
        error = refusal(client, {"prompt": "a", "max_tokens": 21})
        assert error["message"] == "max_tokens is expected to be at most 20. Received: 21"
        error = refusal(client, {"prompt": ["a", "b", "c"], "n": 2})
        assert error["message"].startswith("expected at most 4 texts (prompts × n) in a request. Received: 6")
        error = refusal(client, {"input": list("abcd")}, EMBEDDINGS)
        assert error["message"].startswith("expected at most 3 texts to embed in a request. Received: 4")
        assert not client.generate.batches


def test_more_than_the_queue_ever_holds_is_no_matter_of_waiting():
    with serve(max_queue=2) as client:
        assert "expected at most 2 texts" in refusal(client, {"prompt": ["a", "b", "c"]})["message"]


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "chunked"])
def test_a_large_body_is_refused(announced):
    with serve(limits=Limits(body_bytes=1000)) as client:
        body = json.dumps({**ASKED, "prompt": "a" * 3000}).encode()
        if announced:
            status, _, answer = client.ask("POST", COMPLETIONS, body)
        else:
            connection = http.client.HTTPConnection(client.host, client.port, timeout=10)
            connection.request(
                "POST", COMPLETIONS, iter([body[:1500], body[1500:]]), {"Content-Type": "application/json"}
            )
            response = connection.getresponse()
            status, answer = response.status, json.load(response)
            connection.close()
        assert status == 413
        assert (
            answer["error"]["message"]
            == "the body is expected to have at most 1,000 bytes. Received: more. Ask for less"
        )
        # One of a size that nobody would wait for is refused before it is sent.
        with socket.create_connection((client.host, client.port), timeout=10) as connection:
            connection.sendall(
                f"POST {COMPLETIONS} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {10**12}\r\n\r\n".encode()
            )
            assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_a_body_that_does_not_come_is_not_waited_for():
    with (
        serve(limits=Limits(body_seconds=0.1)) as client,
        socket.create_connection((client.host, client.port), timeout=10) as connection,
    ):
        connection.sendall(f"POST {COMPLETIONS} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{{".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 408 ")


def test_a_full_queue_says_when_to_come_back():
    generate = Shouting()
    generate.gate.clear()
    with serve(generate, max_queue=2, max_batch=1) as client:
        waiting = [client.open("POST", COMPLETIONS, ASKED)]
        wait_until(lambda: client.service.batcher.running == 1)
        waiting.append(client.open("POST", COMPLETIONS, {**ASKED, "n": 2}))
        wait_until(lambda: client.service.batcher.waiting == 2)
        for body in (ASKED, {**ASKED, "stream": True}):
            error = refusal(client, body, status=429)
            assert error["type"] == "rate_limit_error" and error["code"] == "queue_full" and int(error["retry"]) >= 1
        generate.gate.set()
        assert [connection.getresponse().status for connection in waiting] == [200, 200]
        for connection in waiting:
            connection.close()
        assert client.post(COMPLETIONS, prompt="ab")[0] == 200


# === How long ===


def test_when_the_time_is_up_what_was_said_is_the_answer():
    with serve(Shouting(seconds=0.01), limits=Limits(seconds=0.3)) as client:
        for stream in (False, True):
            body = {"prompt": "∞", "max_tokens": 256}
            if stream:
                chunks = client.stream(COMPLETIONS, **body)
                choices = [choice for chunk in chunks for choice in chunk["choices"]]
                text, reason = "".join(choice["text"] for choice in choices), choices[-1]["finish_reason"]
            else:
                _, answer = client.post(COMPLETIONS, **body)
                text, reason = answer["choices"][0]["text"], answer["choices"][0]["finish_reason"]
            assert 1 < len(text) < 100 and set(text) == {"∞"} and reason == "length"


def test_when_the_time_is_up_before_anything_was_said_there_is_no_answer():
    generate = Shouting()
    generate.gate.clear()
    with serve(generate, limits=Limits(seconds=0.2), max_batch=1) as client:
        first = client.open("POST", COMPLETIONS, ASKED)
        wait_until(lambda: client.service.batcher.running == 1)
        for body in (ASKED, {**ASKED, "stream": True}):
            assert "too busy" in refusal(client, body, status=503)["message"]
        assert client.service.batcher.waiting == 0  # they made room
        generate.gate.set()
        assert first.getresponse().status == 200  # late, but it was begun
        first.close()


def test_texts_that_were_not_begun_in_time_are_left_out():
    with serve(Shouting(seconds=0.01), limits=Limits(seconds=0.3), max_batch=1) as client:
        status, answer = client.post(COMPLETIONS, prompt=["∞", "ab"], max_tokens=256)
        one, two = answer["choices"]
        assert status == 200 and one["text"].startswith("∞∞") and one["finish_reason"] == "length"
        assert two["text"] == "" and two["finish_reason"] == "length"


# === A model that fails, clients that leave ===


def test_a_model_that_fails_is_a_500_and_the_next_request_is_answered(caplog):
    with serve() as client:
        assert refusal(client, {"prompt": "fail"}, status=500)["type"] == "server_error"
        assert refusal(client, {"prompt": "fail", "stream": True}, status=500)["type"] == "server_error"
        assert refusal(client, {"input": "fail"}, EMBEDDINGS, status=500)["type"] == "server_error"
        status, _, content = client.ask("POST", COMPLETIONS, {"model": "m", "prompt": "ab☠", "stream": True})
        *pieces, last, end = content.decode().split("\n\n")  # it had begun, so that its status was told
        assert status == 200 and len(pieces) == 2 and end == ""
        assert json.loads(last.removeprefix("data: "))["error"]["type"] == "server_error"
        assert client.post(COMPLETIONS, prompt="ab")[0] == 200
    assert "the model was told to fail" in caplog.text


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "in pieces"])
def test_a_client_that_leaves_stops_its_rows(stream):
    """Alone, it ends the batch; in company, the others go on."""
    generate = Shouting(seconds=0.005)
    with serve(generate, limits=Limits(new_tokens=10**6)) as client:
        endless = {"model": "m", "prompt": "∞", "max_tokens": 10**6, "stream": stream}
        connection = client.open("POST", COMPLETIONS, endless)
        wait_until(lambda: generate.steps > 3)
        connection.sock.shutdown(socket.SHUT_RDWR)
        connection.close()
        wait_until(lambda: client.service.batcher.running == 0)
        generate.gate.clear()
        first = client.open("POST", COMPLETIONS, ASKED)
        wait_until(lambda: client.service.batcher.running == 1)
        connection = client.open("POST", COMPLETIONS, endless)
        company = client.open("POST", COMPLETIONS, {"model": "m", "prompt": "a" * 90, "max_tokens": 100})
        wait_until(lambda: client.service.batcher.waiting == 2)
        generate.gate.set()
        wait_until(lambda: client.service.batcher.running == 2)
        assert first.getresponse().status == 200
        first.close()
        connection.sock.shutdown(socket.SHUT_RDWR)
        connection.close()
        assert json.load(company.getresponse())["choices"][0]["text"] == "A" * 90
        company.close()
        wait_until(lambda: client.service.batcher.running == 0)
        assert client.read_metric("tf_llm_clients_left_total") == 2


def test_a_client_that_does_not_read_is_left(monkeypatch):
    monkeypatch.setattr(events, "SLOW", 0.05)
    forgotten, sent = [], []
    answers = SimpleNamespace(leave=lambda: None, forget=lambda: forgotten.append(True))

    async def write_chunks():
        while True:
            yield {"a": 1}

    async def receive():
        await asyncio.Event().wait()

    async def send(message):
        sent.append(message)
        if len(sent) == 3:
            await asyncio.Event().wait()  # its buffers are full

    with pytest.raises(TimeoutError):
        asyncio.run(events.EventStream(answers, write_chunks(), 0.05)({"type": "http"}, receive, send))
    assert [message.get("body") for message in sent] == [None, b'data: {"a":1}\n\n', b'data: {"a":1}\n\n']
    assert forgotten == [True]


def test_a_client_that_leaves_the_queue_makes_room():
    generate = Shouting()
    generate.gate.clear()
    with serve(generate, max_batch=1) as client:
        first = client.open("POST", COMPLETIONS, ASKED)
        wait_until(lambda: client.service.batcher.running == 1)
        second = client.open("POST", COMPLETIONS, ASKED)
        wait_until(lambda: client.service.batcher.waiting == 1)
        second.sock.shutdown(socket.SHUT_RDWR)
        second.close()
        wait_until(lambda: client.service.batcher.waiting == 0)
        generate.gate.set()
        assert first.getresponse().status == 200
        first.close()
    assert len(generate.batches) == 1


# === Stopping ===


def test_a_server_that_stops_answers_what_it_has_accepted():
    generate = Shouting()
    generate.gate.clear()
    with serve(generate, max_batch=2) as client:
        body = {"model": "m", "prompt": "a" * 30, "max_tokens": 30}
        idle = client.open("GET", "/health")
        assert idle.getresponse().read() == b'{"status":"ok"}'
        accepted = [client.open("POST", COMPLETIONS, {**body, "stream": stream}) for stream in (False, True, False)]
        wait_until(lambda: client.service.batcher.waiting + client.service.batcher.running == 3)
        client.server.handle_exit(15, None)
        wait_until(lambda: client.service.batcher.closing)
        generate.gate.set()
        whole, stream, late = [connection.getresponse().read() for connection in accepted]
        for content in (whole, late):
            assert json.loads(content)["choices"][0]["text"] == "A" * 30
        assert stream.count(b'"text":"A"') == 30 and stream.endswith(b"data: [DONE]\n\n")
        with pytest.raises(OSError):
            client.open("GET", "/health")
        for connection in (idle, *accepted):
            connection.close()


def test_requests_that_come_while_it_stops_are_refused():
    with serve() as client:
        client.service.batcher.close()
        for body in (ASKED, {**ASKED, "stream": True}):
            error = refusal(client, body, status=503)
            assert error["code"] == "stopping" and error["retry"]
        assert client.ask("GET", "/health")[::2] == (503, {"status": "stopping"})
        assert client.ask("GET", "/metrics")[0] == 200


# === Who ===


def test_a_key_is_asked_for():
    with serve(key=KEY) as client:
        for given in (None, "Bearer", "Bearer ", f"Basic {KEY}", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", "Bearer é"):
            headers = {} if given is None else {"Authorization": given}
            for method, path in (
                ("POST", COMPLETIONS),
                ("GET", "/v1/models"),
                ("GET", "/metrics"),
                ("GET", "/nothing"),
            ):
                status, received, answer = client.ask(method, path, ASKED if method == "POST" else None, headers)
                assert status == 401 and received["www-authenticate"] == "Bearer", given
                assert answer["error"]["code"] == "invalid_api_key" and KEY not in str(answer)
        for given in (f"Bearer {KEY}", f"bearer  {KEY}"):
            assert client.ask("POST", COMPLETIONS, ASKED, {"Authorization": given})[0] == 200
        assert client.ask("GET", "/health")[0] == 200  # for what watches over it


def test_a_page_of_the_web_whose_name_leads_here_is_refused():
    with serve(hosts=("127.0.0.1", "::1", "Model.example")) as client:
        for host, status in (
            ("127.0.0.1:1", 200), ("[::1]:80", 200), ("model.EXAMPLE", 200), ("evil.example", 403), ("127.0.0.1.x", 403)
        ):  # fmt: skip
            assert client.ask("GET", "/health", headers={"Host": host})[0] == status, host
        # What a page may send without asking first is no JSON.
        status, _, answer = client.ask("POST", COMPLETIONS, ASKED, {"Content-Type": "text/plain"})
        assert status == 400 and "Content-Type: application/json" in answer["error"]["message"]


def test_where_a_key_comes_from(tmp_path):
    path = tmp_path / "key"
    path.write_text(f"{KEY}\nand a remark\n")
    assert find_key() is None and find_key(path) == KEY and find_key(path, KEY[::-1]) == KEY[::-1]
    for bad in ("short", "with spaces in between", "ääääääääääääääää", ""):
        path.write_text(bad)
        with pytest.raises(
            UserError, match=r"at least 16 printable ASCII characters\. Received: \d+ characters\. Make"
        ):
            find_key(path)
    with pytest.raises(UserError, match=r"cannot read the API key in .*nothing"):
        find_key(tmp_path / "nothing")
    path.write_bytes(b"\xff" * 20)
    with pytest.raises(UserError, match="cannot read the API key in"):
        find_key(path)


def test_an_address_that_is_taken_is_a_one_line_error():
    with bind("127.0.0.1", 0) as listener:
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(UserError, match=rf"cannot listen at 127\.0\.0\.1, port {port}: .*in use.* Choose others"):
            bind("127.0.0.1", port)
    with pytest.raises(UserError, match="cannot listen at no such host"):
        bind("no such host", 0)


def test_what_to_install_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(UserError, match=r'a server needs fastapi, uvicorn and .* pip install "tf_llm\[serve\]"'):
        importlib.reload(tf_llm.apps.server)


def test_limits_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match=r"seconds is expected to be above 0\. Received: 0"):
        Limits(seconds=0)
    with pytest.raises(ValueError, match=r"max_batch is expected to be at most 64\. Received: 65"), serve(max_batch=65):
        pass


# === Malformed requests ===

TEXTS = {"prompt": ["a", 5, None, [], [[]], {}, [None], ["a", 5], [5.5], [-1], [2**40], [[5], "a"], True]}
NUMBERS = [-1, 0.5, 10**400, -(10**400), "1", [], {}, True, 1e308]
FIELDS = {
    **TEXTS,
    "max_tokens": [*NUMBERS, 0],
    "temperature": [*NUMBERS[:1], 2.01, *NUMBERS[2:]],
    "top_p": [-1, 1.01, *NUMBERS[2:]],
    "n": [*NUMBERS, 0, 129],
    "seed": [2**63, 0.5, "1", []],
    "stop": [5, [5], ["a"] * 5, {}],
    "stream": [1, "true", []],
    "stream_options": [{}, {"include_usage": "yes"}, {"x": 1}, [], 5],
    "logprobs": [1, -1, True, "0"],
    "echo": [1, "a"],
    "best_of": [0, 2],
    "suffix": ["a"],
    "presence_penalty": [0.1],
    "frequency_penalty": [-0.1],
    "logit_bias": [{"5": 1}, []],
    "model": [5, None, [], "n"],
    "tools": [[], None],
    "user": [5],
    "": [5],
    "\ud800": [5],
}
CONTENTS = [None, 5, [], [5], [{}], [{"type": "image_url", "image_url": {"url": "http://x"}}], [{"type": "text"}], {}]
MESSAGES = [
    None, 5, "a", [], [5], [{}], [{"role": "user"}], [{"content": "a"}], [{"role": "tool", "content": "a"}],
    *[[{"role": "user", "content": content}] for content in CONTENTS],
    [{"role": "assistant", "content": "a", "tool_calls": [{}]}], [{"role": "user", "content": "a", "x": 1}],
]  # fmt: skip
RAW = [
    b"", b" ", b"null", b"[]", b"5", b'"a"', b"{", b"}", b"{}", b"nonsense", b"\xff\xfe", b"\x00" * 9,
    b"\xef\xbb\xbf{}",
    b'{"model": "m", "prompt": NaN}', b'{"model": "m", "prompt": "a", "temperature": NaN}',
    b'{"model": "m", "prompt": "a", "temperature": Infinity}', b'{"model": "m", "prompt": "a", "temperature": 1e999}',
    b'{"model": "m", "prompt": "a", "max_tokens": 1e999}', b'{"model": "m", "prompt": "\\ud800"}',
    b'{"model": "m", "prompt": "\\udc00\\ud800"}', b'{"model": "m", "prompt": "\xff"}',
    b'{"model": "m", "prompt": "\xed\xa0\x80"}',
    b'{"model": "m", "prompt": "a", "max_tokens": 1' + b"0" * 5000 + b"}", b"[" * 100_000, b'{"a":' * 100_000,
    b'{"model": "m", "prompt": ' + b"[" * 5000 + b"]" * 5000 + b"}", b'{"model": "m" "prompt": "a"}', b"{'model': 'm'}",
    b'{"model": "m", "prompt": "a",}', b'{"model": "m", "prompt": "a"}}', b'{"model": "m", "prompt": "a\n"}',
]  # fmt: skip
HEADS = [
    b"GET / HTTP/9.9\r\n\r\n", b"nonsense\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00",
    b"POST /v1/completions HTTP/1.1\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nHost: a b\r\n\r\n",
    b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
    b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"GET /v1/models/%ff%00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n",
]  # fmt: skip


def test_malformed_requests_get_a_4xx_that_says_why():
    """Some 250 of them; schemathesis adds its own, see test_apps_server_openapi.py."""
    with serve() as client:
        good = {
            COMPLETIONS: {"prompt": "a"},
            CHAT: {"messages": [{"role": "user", "content": "a"}]},
            EMBEDDINGS: {"input": "a"},
        }
        asked = [(COMPLETIONS, {**ASKED, field: value}) for field in FIELDS for value in FIELDS[field] if value != "a"]
        asked += [(CHAT, {"model": "m", "messages": messages}) for messages in MESSAGES]
        asked += [(EMBEDDINGS, {"model": "m", "input": value}) for value in TEXTS["prompt"][1:]]
        asked += [(EMBEDDINGS, {"model": "m", "input": "a", "encoding_format": value}) for value in (5, "hex", [])]
        asked += [
            ("/v1/models/m:predict", {"instances": value}) for value in (5, [5], [None], [{"b64": 5}], [{"b64": "é"}])
        ]
        asked += [(path, {name: body[name]}) for path, body in good.items() for name in body]  # without a model
        asked += [(path, raw) for path, raw in itertools.product([*good, "/v1/models/m:predict"], RAW)]
        assert len(asked) > 250
        for path, body in asked:
            status, _, answer = client.ask("POST", path, body)
            expected = (404,) if isinstance(body, dict) and str(body.get("model")).startswith("n") else (400,)
            assert status in expected, (path, body, answer)
            assert answer["error"]["message"] and answer["error"]["type"] == "invalid_request_error", (path, body)
        for method, path, status in (("GET", COMPLETIONS, 405), ("DELETE", "/v1/models/m", 405), ("PUT", "/", 404)):
            received, headers, answer = client.ask(method, path)
            assert received == status and answer["error"]["message"] and bool(headers["allow"]) == (status == 405)
        for head in HEADS:
            with socket.create_connection((client.host, client.port), timeout=10) as connection:
                connection.sendall(head)
                connection.shutdown(socket.SHUT_WR)
                assert connection.recv(100).startswith(b"HTTP/1.1 4"), head
        assert not client.generate.batches and client.read_metric("tf_llm_batch_rows_count") == 0
        for path, body in good.items():
            assert client.post(path, **body)[0] == 200
