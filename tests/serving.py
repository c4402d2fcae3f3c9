"""A server on a port of this machine, in a thread, and a model that says what it is told to, without TensorFlow."""

import contextlib
import http.client
import json
import threading
import time
from types import SimpleNamespace

import numpy as np
import uvicorn

from tf_llm.apps.server.app import build_app
from tf_llm.apps.server.listening import Server, bind
from tf_llm.contracts import END_ID
from tf_llm.decoding.settings import GenerationConfig
from tf_llm.decoding.streams import Piece


class Letters:
    """A tokenizer: one token a character."""

    vocabulary_size = 3 + 0x110000

    def encode(self, text):
        return [3 + ord(letter) for letter in text]

    def decode(self, ids):
        return "".join(chr(id - 3) for id in ids if id >= 3)


class Shouting:
    """In place of a `Generator`: says the prompt in capitals, a character a step, then ends. "∞" never ends, and
    the model fails at "☠" and at the prompt "fail".

    Args:
        seconds: that a step takes.
    """

    source_length, target_length = 100, 50
    tokenizer = Letters()
    config = GenerationConfig(max_new_tokens=40)

    def __init__(self, seconds=0.0):
        self.seconds, self.batches, self.configs, self.steps = seconds, [], [], 0
        self.gate = threading.Event()  # closed, nothing is begun
        self.gate.set()

    def stream_batch(self, prompts, configs, tokens=1):
        self.batches.append(list(prompts))
        self.configs.append(list(configs))
        assert self.gate.wait(20)
        return Shouts(self, prompts, configs)

    def embed(self, texts):
        self.batches.append(list(texts))
        assert self.gate.wait(20)
        if "fail" in texts:
            raise RuntimeError("the model was told to fail")
        return np.array([[len(text), 1.0, 0.5] for text in texts], "float32")


class Shouts:
    def __init__(self, generate, prompts, configs):
        self.generate, self.cancelled = generate, set()
        self.prompts, self.configs = prompts, configs
        self.texts = [SimpleNamespace(ids=[], finish_reason=None) for _ in prompts]

    def cancel(self, row):
        self.cancelled.add(row)

    def score(self, row):
        return [-0.5 * place for place, _ in enumerate(self.texts[row].ids)]

    def __iter__(self):
        rows = list(zip(self.prompts, self.texts, strict=True))
        while not all(text.finish_reason for text in self.texts):
            time.sleep(self.generate.seconds)
            self.generate.steps += 1
            if "fail" in self.prompts or any(prompt[len(text.ids) :][:1] == "☠" for prompt, text in rows):
                raise RuntimeError("the model was told to fail")
            yield [self._say(row, text) for row, text in enumerate(self.texts)]

    def _say(self, row, text):
        if text.finish_reason:
            return Piece("", None)
        prompt, config, said = self.prompts[row], self.configs[row], len(text.ids)
        if row in self.cancelled:
            text.finish_reason, piece = "cancelled", ""
        elif "∞" not in prompt and said == len(prompt):
            text.finish_reason, piece = "stop", ""
            text.ids.append(END_ID)
        else:
            piece = "∞" if "∞" in prompt else prompt[said].upper()
            text.ids.append(self.generate.tokenizer.encode(piece)[0])
            if piece in config.stop_strings:
                text.finish_reason, piece = "stop", ""
            elif len(text.ids) == config.max_new_tokens:
                text.finish_reason = "length"
        return Piece(piece, text.finish_reason)


class Client:
    """What is at an address, asked with the standard library alone."""

    def __init__(self, address, app=None, generate=None):
        self.address, self.app, self.generate = address, app, generate
        self.host, _, port = address.removeprefix("http://").rpartition(":")
        self.port = int(port)

    @property
    def service(self):
        return self.app.state.service

    def open(self, method, path, body=None, headers=None, timeout=20):
        """A connection that has sent a request. A body that is no bytes becomes JSON."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        connection.request(method, path, body, {"Content-Type": "application/json", **(headers or {})})
        return connection

    def ask(self, method, path, body=None, headers=None, timeout=20):
        """(status, headers, body), the body read as JSON where it is some."""
        connection = self.open(method, path, body, headers, timeout)
        with contextlib.closing(connection):
            response = connection.getresponse()
            content = response.read()
            if response.headers.get_content_type() == "application/json":
                content = json.loads(content)
            return response.status, response.headers, content

    def post(self, path, **body):
        """(status, body) of a request to the model "m"."""
        status, _, content = self.ask("POST", path, {"model": "m", **body})
        return status, content

    def stream(self, path, **body):
        """The events of a stream, without the last one, which has to be [DONE]."""
        status, headers, content = self.ask("POST", path, {"model": "m", "stream": True, **body})
        assert status == 200 and headers["content-type"] == "text/event-stream; charset=utf-8", content
        events = [event.removeprefix("data: ") for event in content.decode("ascii").split("\n\n")]
        assert events[-2:] == ["[DONE]", ""]
        return [json.loads(event) for event in events[:-2]]

    def read_metric(self, name):
        _, _, content = self.ask("GET", "/metrics")
        return sum(
            float(line.rpartition(" ")[2])
            for line in content.decode().splitlines()
            if line.partition(" ")[0].partition("{")[0] == name
        )


def wait_until(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)


@contextlib.contextmanager
def serve(generate=None, **settings):
    """A `Client` of a server in a thread; behind the block it has stopped, as it would on SIGTERM."""
    generate = generate or Shouting()
    app = build_app(generate, "m", **{"warm": False, "max_wait": 0.0, **settings})
    listener, ready = bind("127.0.0.1", 0), threading.Event()
    server = Server(uvicorn.Config(app, log_level="warning", ws="none"), app.state.service.batcher, ready.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        assert ready.wait(20)
        client = Client(f"http://127.0.0.1:{listener.getsockname()[1]}", app, generate)
        client.server = server
        yield client
    finally:
        generate.gate.set()
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
