"""Requests that are malformed in every way: none may bring the server down, or be answered by a 5xx.

    python examples/benchmarks/hostile_requests.py             1,000 requests and all of schemathesis, about 3 minutes
    python examples/benchmarks/hostile_requests.py --quick     300 requests and a little of it, about 40 seconds

`examples/serve.py` serves a small model of random weights in a process of its own. A thousand requests are drawn from a
seed: good ones of all routes in which a value is replaced by one of another kind, size or sign, a field added or left
out, bytes flipped, cut off or added, the length misstated, or the head of the request itself. Behind every hundredth a
good one has to be answered. Then schemathesis (pip install "tf_llm[peers]") makes its own from /openapi.json, and
checks the answers against what is said there. Goal: 0 answers that are neither a 4xx nor a good 2xx, the process alive.
"""

import copy
import http.client
import json
import random
import re
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_bool("quick", False, "300 requests in place of 1,000")
flags.DEFINE_integer("seed", 1, "Of what is drawn.")
flags.DEFINE_string("data", None, "Not needed: the requests are made.")

GOOD = {
    "/v1/completions": {
        "model": "made", "prompt": ["a cat", "a dog"], "max_tokens": 3, "temperature": 0.7, "top_p": 0.9, "n": 2,
        "seed": 5, "stop": ["x", "y"], "logprobs": 0, "echo": True, "stream": False, "user": "me",
    },
    "/v1/chat/completions": {
        "model": "made", "max_tokens": 3, "stream": True, "stream_options": {"include_usage": True}, "n": 1,
        "messages": [{"role": "user", "content": "a cat"}, {"role": "assistant", "content": "no."},
                     {"role": "user", "content": [{"type": "text", "text": "a dog"}]}],
    },
    "/v1/embeddings": {"model": "made", "input": ["a cat", "a dog"], "encoding_format": "float"},
    "/v1/models/made:predict": {"instances": ["a cat", {"b64": "YSBkb2c="}], "signature_name": "generate"},
}  # fmt: skip
ODD = [
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63) - 1, 10**400, 0.5, -0.5, 1e308, float("nan"), float("inf"), "",
    "a", "5", "\x00", "\ud800", "\U0010ffff", "é" * 5000, "a" * 100_000, [], [[]], [None], ["a"] * 1000, [5],
    [[5], "a"], {}, {"": ""}, {"b64": "!"}, {"type": "image_url", "image_url": {"url": "x"}}, [[[[[[]]]]]],
]  # fmt: skip
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


def list_places(value, path=()):
    """Paths to everything in a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield from list_places(part, (*path, key))


def spoil_value(draw, body):
    """A JSON object in which something is another thing."""
    body = copy.deepcopy(body)
    *way, last = draw.choice([path for path in list_places(body) if path])
    part = body
    for key in way:
        part = part[key]
    kind = draw.randrange(4)
    if kind == 0 and isinstance(part, dict):
        del part[last]
    elif kind == 1 and isinstance(part, dict):
        part[draw.choice(["tools", "", "\ud800", "a" * 5000, "top_k", "__class__"])] = draw.choice(ODD)
    else:
        part[last] = draw.choice(ODD)
    return json.dumps(body).encode()


def spoil_bytes(draw, body):
    """The bytes of a JSON object, some of them others."""
    content = bytearray(json.dumps(body).encode())
    for _ in range(draw.randrange(1, 6)):
        place = draw.randrange(len(content) + 1)
        kind = draw.randrange(4)
        if kind == 0:
            content[place : place + 1] = bytes([draw.randrange(256)])
        elif kind == 1:
            del content[place : place + draw.randrange(1, 9)]
        elif kind == 2:
            content[place:place] = draw.choice(
                [b"[" * 9999, b'{"a":' * 999, b"\xff\xfe", b"\x00", b"NaN", b"1e999", b'"']
            )
        else:
            del content[place:]
    return bytes(content)


def spoil_head(draw, path, body):
    """A whole request of which one or two parts of the head are wrong."""
    content = json.dumps(body).encode()
    parts = {
        "method": ("POST", ["PUT", "GET", "post", "", "POST POST", "DELETE", "é"]),
        "path": (
            path,
            [path + "/", "//", "/%00", "/../..", path + "?a=%ff", "*", "http://elsewhere/", "/" + "a" * 70_000],
        ),
        "version": ("HTTP/1.1", ["HTTP/1.0", "HTTP/3", ""]),
        "host": ("Host: localhost", ["Host: elsewhere", "Host: a b", "Host:", "X: \x01"]),
        "length": (str(len(content)), ["-1", "5", "999999999999", "a", "", "0x10", f"{len(content)}, 3"]),
        "type": ("application/json", ["text/plain", "multipart/form-data", "", "a" * 9000, "application/json; a=\xff"]),
        "more": ("A: b", ["Transfer-Encoding: chunked", "Transfer-Encoding: gzip", "Expect: 5", "Upgrade: h2c", ": b"]),
    }
    spoilt = draw.sample(list(parts), draw.randrange(1, 3))
    said = {name: draw.choice(bad) if name in spoilt else good for name, (good, bad) in parts.items()}
    head = "{method} {path} {version}\r\n{host}\r\nContent-Length: {length}\r\nContent-Type: {type}\r\n{more}\r\n\r\n"
    return head.format(**said).encode("latin-1") + content


def ask(port, path, content):
    """Status of a POST with such a body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", path, content, {"Content-Type": "application/json"})
        response = connection.getresponse()
        body = response.read()
        if response.status >= 400:
            assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}, body
        return response.status
    finally:
        connection.close()


def send(port, request):
    """Status of a request as it stands; 0 where the connection was closed without one."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        answer = connection.recv(1000)
        return int(answer.split()[1]) if answer.startswith(b"HTTP/") else 0


def attack(port, count, seed):
    """Counts of statuses, by what was spoilt."""
    draw, statuses = (
        random.Random(seed),
        {"values": Counter(), "bytes": Counter(), "head": Counter(), "none": Counter()},
    )
    for number in range(count):
        path, body = draw.choice(list(GOOD.items()))
        kind = draw.choice(["values", "values", "bytes", "head"])
        if kind == "head":
            statuses[kind][send(port, spoil_head(draw, path, body))] += 1
        else:
            content = spoil_value(draw, body) if kind == "values" else spoil_bytes(draw, body)
            statuses[kind][ask(port, path, content)] += 1
        if number % 100 == 99:
            statuses["none"][ask(port, path, json.dumps(body).encode())] += 1
    return statuses


def main(_):
    count = 300 if FLAGS.quick else 1000
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder) / "made"
        server_process.make_run(folder)
        server = server_process.ServerProcess(folder, "--warm_up=false", "--body_bytes=50000", "--new_tokens=8")
        try:
            statuses = attack(server.port, count, FLAGS.seed)
            faults, lives = 0, server.lives
            print("spoilt   requests  answers by status")
            for kind, found in statuses.items():
                said = ", ".join(f"{number} × {status or 'closed'}" for status, number in sorted(found.items()))
                print(f"{kind:<8} {found.total():>8}  {said}")
                good = range(200, 300) if kind == "none" else (0, *range(200, 300), *range(400, 500))
                faults += sum(number for status, number in found.items() if status not in good)
            tool = Path(sys.executable).with_name("schemathesis")
            phases = "fuzzing" if FLAGS.quick else "examples,coverage,fuzzing,stateful"
            command = [tool, "run", f"http://127.0.0.1:{server.port}/openapi.json", "--checks", CHECKS, "--no-color"]
            command += [
                "--phases",
                phases,
                f"--seed={FLAGS.seed}",
                "--generation-database=none",
                "--continue-on-failure",
            ]
            result = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
            cases = re.search(r"([\d,]+) generated.*", result.stdout)
            print(f"schemathesis: {cases[0] if cases else result.stdout[-2000:]}")
            faults += result.returncode != 0
            lives = lives and server.lives
            status, errors = server.stop()
        finally:
            server.kill()
    tracebacks, state = errors.count("Traceback"), "alive" if lives else "dead"
    print(f"\n{state} behind it, exit status {status} behind SIGTERM, {tracebacks} tracebacks logged")
    holds = faults == 0 and lives and status == 0 and tracebacks == 0
    figure = {"name": "hostile_requests", "value": faults, "goal": 0, "unit": "wrong answers", "holds": holds}
    print(json.dumps(figure))
    return 0 if holds else 1


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
    try:
        import fastapi  # noqa: F401
        import schemathesis  # noqa: F401
        import server_process
    except ImportError as error:
        print(f'needs the extras and the tests of the repository: pip install "tf_llm[serve,peers]". Received: {error}')
        sys.exit(2)
    app.run(main)
