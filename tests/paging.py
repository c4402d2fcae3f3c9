"""The page on a port of this machine, with a model that says what it is told to, a small shop, and a desk."""

import contextlib
import json
import threading
import time

import uvicorn
from assisting import Desk
from serving import Client, Letters

from tf_llm.apps.chatbot.chatbot import Chatbot
from tf_llm.apps.search import Entry, SearchIndex
from tf_llm.apps.server.listening import Server, bind
from tf_llm.apps.server.page import Applications, Assistance, build_page
from tf_llm.decoding.settings import GenerationConfig
from tf_llm.decoding.streams import Piece

SHOP = [
    Entry("https://tea.example/sencha", "Sencha", "Green tea from Shizuoka, steamed, then dried and rolled.", "en",
          "2026-03-01", {"colour": "green", "price": 8.5}),
    Entry("https://tea.example/matcha", "Matcha", "Green tea leaves, dried in the shade and ground to powder.", "en",
          "2026-02-10", {"colour": "green", "price": 24.0}),
    Entry("https://tea.example/assam", "Assam", "Black tea with a strong, malty taste; the leaves are oxidised.", "en",
          "2025-11-20", {"colour": "black", "price": 6.0}),
    Entry("https://tea.example/earl-grey", "Earl Grey", "Black tea leaves with the oil of bergamot, and its scent.",
          "en", "2025-06-02", {"colour": "black", "price": 7.2}),
    Entry("https://tee.example/pai-mu-tan", "Pai Mu Tan", "White tea: buds and leaves, withered and dried.", "de",
          "2026-01-15", {"colour": "white", "price": 12.0}),
    Entry("https://tee.example/rooibos", "Rooibos", "No tea, strictly speaking, but leaves of a bush in the Cape.",
          "de", "2024-09-09", {"colour": "red", "price": 5.0}),
]  # fmt: skip


def read_last(prompt):
    """The last thing that was said in a prompt."""
    return prompt.rpartition("user: ")[2].removesuffix("\nassistant:")


class Parrot:
    """In place of a `Generator`: says what `answer` makes of the prompt, some characters a step.

    Args:
        answer: prompt -> text; by default what was asked.
        seconds: that a step takes.
    """

    source_length, target_length = 400, 200
    tokenizer = Letters()
    config = GenerationConfig(max_new_tokens=200)

    def __init__(self, answer=read_last, seconds=0.0):
        self.answer, self.seconds, self.configs, self.prompts = answer, seconds, [], []
        self.gate = threading.Event()  # closed, nothing is begun
        self.gate.set()

    def stream_batch(self, prompts, configs):
        self.prompts.append(prompts[0])
        self.configs.append(configs[0])
        assert self.gate.wait(20)
        return Speech(self.answer(prompts[0]), self.seconds)


class Speech:
    def __init__(self, text, seconds):
        self.text, self.seconds, self.is_cancelled = text, seconds, False

    def cancel(self, row):
        self.is_cancelled = True

    def __iter__(self):
        for begin in range(0, len(self.text), 5):
            if self.is_cancelled:
                yield [Piece("", "cancelled")]
                return
            time.sleep(self.seconds)
            yield [Piece(self.text[begin : begin + 5], None)]
        yield [Piece("", "stop")]


def open_shop(folder, entries=()):
    index = SearchIndex.open(folder)
    index.update([*SHOP, *entries])
    return index


class Visitor(Client):
    """Asks as the page does."""

    def __init__(self, address):
        super().__init__(address)
        self.headers = {"Origin": address}

    def begin(self):
        """Begins a session."""
        _, _, body = self.ask("POST", "/apps/session", {}, self.headers)
        self.headers["X-Session"] = body["id"]
        return self

    def send(self, path, **body):
        """(status, body) of what the page asks."""
        status, _, content = self.ask("POST", f"/apps/{path}", body, self.headers)
        return status, content

    def listen(self, path, **body):
        """The events of an answer, as (kind, text)."""
        status, content = self.send(path, **body)
        assert status == 200, content
        return read_events(content)


def read_events(content):
    events = [event.removeprefix("data: ") for event in content.decode("ascii").split("\n\n")]
    assert events[-2:] == ["[DONE]", ""]
    return [(event["kind"], event["text"]) for event in map(json.loads, events[:-2])]


def list_due(desk):
    """What the desk has to tell now."""
    return [entry.text for entries in desk.store.take_due(desk.now) for entry in entries]


def build_applications(folder, generate=None, entries=(), find=None, **settings):
    """All three, and the `Desk` behind the assistant."""
    desk = Desk(folder, search=find)
    assistance = Assistance(
        understand=desk.understand,
        toolbox=desk.toolbox,
        search=find,
        now=desk.tell_time,
        list_due=lambda: list_due(desk),
    )
    bot = lambda: Chatbot(generate or Parrot(), **settings)  # noqa: E731
    return Applications(begin_chat=bot, index=open_shop(folder / "index", entries), assistance=assistance), desk


@contextlib.contextmanager
def serve_page(applications, **settings):
    """A `Visitor` of the page in a thread; behind the block it has stopped, as it would on SIGTERM."""
    app = build_page(applications, **settings)
    listener, ready = bind("127.0.0.1", 0), threading.Event()
    server = Server(uvicorn.Config(app, log_level="warning", ws="none"), app.state.door, ready.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        assert ready.wait(20)
        visitor = Visitor(f"http://127.0.0.1:{listener.getsockname()[1]}")
        visitor.page = app.state.page
        yield visitor
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
