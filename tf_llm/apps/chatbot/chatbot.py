"""A conversation, without a terminal or a browser in it: what was said, what comes next, and where it comes from.

Who answers:

    faq        where there is one: its answer, word for word, or a person. A model is not asked, so nothing is made up.
    retrieve   where there is one, and it finds something: the passage is quoted, and its address named. With
               `reads_passages` the model answers instead, with the passage in front of the question.
    generate   else: the model answers from what it has learned, with as much of the conversation as it can read.

`ask` yields events, each as soon as there is one; whoever shows them decides how they look:

    >>> bot = Chatbot(faq=Faq([("How do I pay?", "By card.")]))
    >>> [(event.kind, event.text) for event in bot.ask("How can I pay?")]
    [('piece', 'By card.')]
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from tf_llm.apps.chatbot.faq import Faq
from tf_llm.apps.chatbot.packing import pack_messages
from tf_llm.apps.chatbot.prompts import build_prompt

# What there is to an event besides its text.
PIECE = "piece"  # a part of the answer; joined, the pieces are all of it
SOURCE = "source"  # the address of the page that is quoted
NOTICE = "notice"  # what the reader should know: that old turns fell out, that the answer was stopped
PERSON = "person"  # the question goes to a person, who is to read it and to answer

HAND_OVER = "I am not sure. I hand your question over to a person."
NOTHING_FOUND = "No page was found; this is from memory, and may be wrong."
STOPPED = "Stopped."
RETRY_TEMPERATURE = 0.7  # of a second try where the first one said the likeliest, which would be said again


class Event(NamedTuple):
    """Something to be shown."""

    kind: str  # PIECE, SOURCE, NOTICE or PERSON
    text: str


class Passage(NamedTuple):
    """What was found to a question."""

    text: str  # to be quoted
    address: str  # of the page


@dataclasses.dataclass
class Turn:
    """A question and what came of it."""

    question: str
    answer: str = ""
    address: str = ""  # of the page that was quoted
    attempts: int = 1


class Chatbot:
    """Answers a person, turn by turn. One object is one conversation, and one thread asks at a time.

    Args:
        generate: a `decoding.generator.Generator`, or None where there is a faq.
        retrieve: question -> `Passage`s, best first, none where nothing fits; or None.
        faq: a `Faq`, or None.
        system: what the model is told before the conversation.
        config: a `GenerationConfig` that differs from the generator's own.
        seed, temperature: of what is drawn; at 0 the likeliest is said. Both may be changed between turns.
        looks_up: whether `retrieve` is asked; may be changed between turns.
        reads_passages: whether the model reads what was found, and it is not quoted.
        learn: what is told (prompt, text) of each passage that was quoted, such as `OnlineLearner.read_pair`; or None.
        build_prompt: see `prompts.build_prompt`, in whose place another may stand.
    """

    def __init__(
        self,
        generate=None,
        retrieve: Callable[[str], Sequence[Passage]] | None = None,
        faq: Faq | None = None,
        *,
        system: str = "",
        config=None,
        seed: int = 0,
        temperature: float = 0.0,
        looks_up: bool = True,
        reads_passages: bool = False,
        learn: Callable[[str, str], object] | None = None,
        build_prompt: Callable = build_prompt,
    ):
        if generate is None and faq is None:
            raise ValueError("generate is expected to be a Generator where there is no faq. Received: None for both")
        self.generate, self.retrieve, self.faq = generate, retrieve, faq
        self.system, self.seed, self.temperature = system, seed, temperature
        self.config = config or (generate and generate.config)
        self.looks_up, self.reads_passages, self.learn, self.build_prompt = (
            looks_up,
            reads_passages,
            learn,
            build_prompt,
        )
        self.turns: list[Turn] = []
        self._dropped, self._stream, self._is_stopped = 0, None, False

    # === What a person can do ===

    def ask(self, question: str) -> Iterator[Event]:
        """Answers a question. A blank one has no answer, and is no turn."""
        if question := question.strip():
            self.turns.append(Turn(question))
            yield from self._answer(self.turns[-1])

    def retry(self) -> Iterator[Event]:
        """Answers the last question anew: with another seed, from the next passage, or, of a FAQ, by a person."""
        if self.turns:
            turn = self.turns[-1]
            turn.answer, turn.address, turn.attempts = "", "", turn.attempts + 1
            yield from self._answer(turn)

    def stop(self) -> None:
        """Ends the answer that is being given, from any thread; what was said of it stays."""
        self._is_stopped = True
        if self._stream is not None:
            self._stream.cancel(0)

    def clear(self) -> None:
        """Forgets the conversation."""
        self.turns.clear()
        self._dropped = 0

    # === Who answers ===

    def _answer(self, turn):
        self._is_stopped = False
        if self.faq is not None:
            yield from self._answer_from_faq(turn)
            return
        asks_pages = self.looks_up and self.retrieve is not None
        passage = self._look_up(turn) if asks_pages else None
        if asks_pages and passage is None:
            yield Event(NOTICE, NOTHING_FOUND)
        if passage is None or self.reads_passages:
            yield from self._answer_by_model(turn, passage)
        else:
            turn.answer = passage.text
            yield Event(PIECE, passage.text)
            if self.learn is not None:
                self.learn(turn.question, passage.text)
        if passage is not None and not self._is_stopped:
            turn.address = passage.address
            yield Event(SOURCE, passage.address)

    def _answer_from_faq(self, turn):
        match = self.faq.find(turn.question) if turn.attempts == 1 else None
        if match is not None and match.is_sure:
            turn.answer = match.answer
            yield Event(PIECE, match.answer)
        else:
            turn.answer = HAND_OVER
            yield Event(PERSON, HAND_OVER)

    def _look_up(self, turn):
        passages = self.retrieve(turn.question)
        return passages[(turn.attempts - 1) % len(passages)] if passages else None

    def _answer_by_model(self, turn, passage):
        packed = self.pack(passage)
        if packed.dropped > self._dropped:
            yield Event(NOTICE, f"The model no longer sees the first {packed.dropped} messages: there is no room.")
        self._dropped = packed.dropped
        if packed.excess:
            yield Event(NOTICE, f"This is longer than the model can read, by {packed.excess} tokens.")
        config = self._configure(turn, packed.stops)
        stream = self.generate.stream_batch([packed.prompt], [config])
        self._stream = stream
        try:
            for (piece,) in stream:
                if self._is_stopped:
                    stream.cancel(0)
                if piece.text:
                    turn.answer += piece.text
                    yield Event(PIECE, piece.text)
                if piece.finish_reason == "cancelled":
                    yield Event(NOTICE, STOPPED)
        finally:  # also where the reader leaves, or Ctrl-C interrupts a step
            self._stream = None
            turn.answer = turn.answer.strip()

    def pack(self, passage: Passage | None = None):
        """What the model would be given for the last turn: a `Packed`."""
        messages = [("system", self.system)] if self.system else []
        for turn in self.turns[:-1]:
            messages += [("user", turn.question), ("assistant", turn.answer)]
        question = self.turns[-1].question
        messages.append(("user", question if passage is None else f"{passage.text}\n{question}"))
        encode, limit = self.generate.tokenizer.encode, self.generate.source_length - 1  # one is for the end
        return pack_messages(messages, lambda text: len(encode(text)), limit, self.build_prompt)

    def _configure(self, turn, stops):
        settings = {"seed": (self.seed + turn.attempts - 1) % 2**63}
        temperature = self.temperature or (RETRY_TEMPERATURE if turn.attempts > 1 else 0.0)
        settings |= {"temperature": temperature, "do_sample": True} if temperature else {"do_sample": False}
        return self.config.with_settings(**settings, stop_strings=(*self.config.stop_strings, *stops))
