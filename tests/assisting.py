"""An assistant for tests: a scripted understanding, a folder of its own, a Monday afternoon in Berlin."""

import datetime
from types import SimpleNamespace
from zoneinfo import ZoneInfo

from tf_llm.apps.assistant.assistant import Assistant
from tf_llm.apps.assistant.calendar import Calendar
from tf_llm.apps.assistant.calls import Understood, parse_call
from tf_llm.apps.assistant.home import SimulatedHome
from tf_llm.apps.assistant.standard import build_toolbox
from tf_llm.apps.assistant.store import Store

MONDAY = datetime.datetime(2026, 11, 30, 16, 20, tzinfo=ZoneInfo("Europe/Berlin"))


class Obedient:
    """Understands a text that has a call's notation in it anywhere, and whatever else it is told; notes what it saw."""

    def __init__(self, confidence=1.0):
        self.confidence, self.seen = confidence, []

    def __call__(self, text):
        self.seen.append(text)
        begin, end = text.find("call "), text.rfind(")")
        if begin < 0 or end < 0:
            return Understood(None, 1.0)
        return Understood(parse_call(text[begin + len("call ") : end + 1]), self.confidence)


class Desk:
    """An assistant and what it keeps; `now` may be moved."""

    def __init__(self, folder, confidence=1.0, search=None, others=()):
        self.now, self.home = MONDAY, SimulatedHome()
        self.store = Store(folder / "assistant.sqlite")
        self.calendar = Calendar(folder / "calendar.ics", MONDAY.tzinfo)
        self.understand = Obedient(confidence)
        self.toolbox = build_toolbox(self.store, self.calendar, self.home, self.tell_time, others)
        self.assistant = Assistant(self.understand, self.toolbox, search, self.tell_time)
        self.ask, self.confirm, self.cancel = self.assistant.ask, self.assistant.confirm, self.assistant.cancel

    def tell_time(self):
        return self.now

    def do(self, call):
        """What is said when a call is asked for and, where need be, confirmed."""
        reply = self.ask(f"call {call}")
        return (self.confirm(reply.pending) if reply.pending else reply).text


def find_documents(texts):
    """A search that finds these texts, whatever it is asked."""
    return lambda query: [
        SimpleNamespace(title=text, address=f"https://a.example/{text}", snippet=text) for text in texts
    ]
