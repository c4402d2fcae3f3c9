"""A conversation: what is said becomes a call, and a call is done, asked about, or refused.

    text ─ understand ─ Call ─ Toolbox.prepare ─ Task ─┬─ changes nothing, and is sure: done
                                                       └─ else: a question, done after a yes

What is understood is the person's own words and nothing else. What a search finds, or a file holds, is shown; it goes
back into none of this, so that it can call no tool, whatever it says.
"""

import datetime
import logging
import unicodedata
import uuid
from typing import NamedTuple

from tf_llm.apps.assistant.calls import Call
from tf_llm.apps.assistant.tools import MissingSlotError, ToolError
from tf_llm.contracts import UserError

SEARCH = "search"  # the call that is handed to the search; its slot is "query"
LONGEST = 500  # characters of a request
OPEN = 20  # questions at most that wait for an answer, and for how long
PATIENCE = datetime.timedelta(minutes=10)
HITS, SNIPPET = 5, 300  # results that are shown, and characters of each
YES = "yes|y|yeah|yep|yup|yes please|please|please do|sure|ok|okay|do it|go ahead|right|correct|confirm|of course"
NO = "no|n|nope|no thanks|no thank you|cancel|stop|don't|never mind|nevermind|forget it|not now|wrong"


class Reply(NamedTuple):
    """What is answered."""

    text: str  # plain text; lines end with \n, no other control characters
    call: Call | None = None  # what was understood
    pending: str | None = None  # the id of the question that this is, for `confirm` and `cancel`
    hits: tuple = ()  # what the search found


class Question(NamedTuple):
    """What waits for an answer."""

    call: Call
    task: object  # the `Task` that a yes lets run, or None
    slot: str | None  # what is asked for, if there is no task
    time: datetime.datetime


class Assistant:
    """One conversation with one person.

    Args:
        understand: text -> `Understood`.
        toolbox: a `Toolbox`, whose tools may be called.
        search: query -> a list of hits with `title`, `address` and `snippet`; None: there is nothing to search.
        now: () -> an aware datetime, in the zone of the person.
        sure: with less confidence than this, it asks whether that is what was meant.
    """

    def __init__(self, understand, toolbox, search=None, now=lambda: datetime.datetime.now().astimezone(), sure=0.6):
        self._understand, self._toolbox, self._search = understand, toolbox, search
        self._now, self._sure = now, sure
        self._questions, self._last = {}, None  # id -> Question; the id of what was asked just now

    def ask(self, text):
        """Answers what was said: a request, or a yes, a no or some words to the question before.

        Returns:
            A `Reply`. It says what was expected and received where something is wrong: only `understand` raises.
        """
        text, last = text.strip(), self._last
        self._last = None
        if not 0 < len(text) <= LONGEST:
            return self._say(f"A request is expected to have 1 to {LONGEST} characters. Received: {len(text)}")
        words = " ".join(text.lower().replace("’", "'").strip(" .!?").replace(",", " ").split())
        if last in self._questions:
            if words in YES.split("|") and self._questions[last].task is not None:
                return self.confirm(last)
            if words in NO.split("|"):
                return self.cancel(last)
            reply = self._fill(last, text)
            if reply is not None:
                return reply
        understood = self._understand(text)
        if understood.call is None:
            return self._say(f"I am afraid I can't do that. What I can do: {', '.join(self._list_abilities())}.")
        return self._handle(understood.call, understood.confidence >= self._sure)

    def confirm(self, pending):
        """Does what was asked about."""
        question = self._take(pending)
        if question is None or question.task is None:
            return self._say("There is no such question any more. Please ask again.")
        if question.call.name == SEARCH:
            return self._find(question.call)
        return self._run(question.call, question.task)

    def cancel(self, pending):
        """Does not do what was asked about."""
        question = self._take(pending)
        return self._say("All right, I won't." if question else "There is no such question any more.")

    def _list_abilities(self):
        return [*(tool.name.replace("_", " ") for tool in self._toolbox), *([SEARCH] if self._search else [])]

    def _take(self, pending):
        """The open question of that id, which is no longer open then; None where there is none."""
        self._last = None if self._last == pending else self._last
        question = self._questions.pop(pending, None)
        return question if question and self._now() - question.time < PATIENCE else None

    def _fill(self, pending, words):
        """The reply to words that fill the slot that was asked for; None where they are no answer to that."""
        question = self._questions[pending]
        if question.task is not None or self._now() - question.time >= PATIENCE:
            return None
        others = tuple((slot, text) for slot, text in question.call.arguments if slot != question.slot)
        call = Call(question.call.name, (*others, (question.slot, words)))
        try:
            self._toolbox.prepare(call, self._now())
        except MissingSlotError as error:
            if error.slot == question.slot:
                return None  # a new request, then
        self._take(pending)
        return self._handle(call, True)

    def _handle(self, call, is_sure):
        """The reply to a call."""
        if call.name == SEARCH:
            task = self._find
            ask = f"Shall I search for “{call.get('query')}”?"
        else:
            try:
                task = self._toolbox.prepare(call, self._now())
            except MissingSlotError as error:
                slot = error.slot.replace("_", " ")
                said = f" I can't make it out: {error}" if call.get(error.slot) is not None else ""
                return self._question(call, None, error.slot, f"What is the {slot}?{said}")
            except ToolError as error:
                return self._say(str(error), call)
            ask = task.describe()
            if task.tool.changes:
                return self._question(call, task, None, ask)
        if not is_sure:
            return self._question(call, task, None, f"Did I get you right? {ask}")
        return self._find(call) if call.name == SEARCH else self._run(call, task)

    def _question(self, call, task, slot, text):
        while len(self._questions) >= OPEN:
            del self._questions[next(iter(self._questions))]
        self._last = uuid.uuid4().hex
        self._questions[self._last] = Question(call, task, slot, self._now())
        return self._say(text, call, self._last)

    def _run(self, call, task):
        return self._say(attempt(task.run, call.name), call)

    def _find(self, call):
        """The reply to a question: what the search finds, as text that is shown."""
        query = call.get("query")
        if self._search is None or not query:
            return self._say("There is nothing that I could search.", call)
        hits = attempt(lambda: tuple(self._search(query))[:HITS], SEARCH)
        if isinstance(hits, str):
            return self._say(hits, call)
        lines = []
        for number, hit in enumerate(hits, 1):
            lines.append(f"{number}. {clean(hit.title)} ({clean(hit.address)})")
            lines.append(f"   {clean(getattr(hit.snippet, 'text', hit.snippet))}")
        return self._say("\n".join(lines) or f"I found nothing about “{query}”.", call, hits=hits)

    def _say(self, text, call=None, pending=None, hits=()):
        return Reply("\n".join(clean(line, None) for line in text.split("\n")), call, pending, hits)


def attempt(act, name):
    """What `act` returns, or what is to be said about why it did not."""
    try:
        return act()
    except (ToolError, UserError) as error:
        return str(error)
    except Exception:
        logging.getLogger(__name__).exception("%s failed", name)
        return f"{name.replace('_', ' ').capitalize()} failed; the log says why."


def clean(text, length=SNIPPET):
    """Text in one line, without characters that would move the cursor or turn the writing around.

    >>> clean("safe\\x1b[2J\\u202eand sound")
    'safe [2J and sound'
    """
    text = "".join(" " if unicodedata.category(each) in ("Cc", "Zl", "Zp") else each for each in str(text))
    for turning in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069":
        text = text.replace(turning, " ")
    return text if length is None or len(text) <= length else text[:length] + "…"
