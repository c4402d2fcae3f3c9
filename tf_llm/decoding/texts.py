"""Tokens become text while they come: what of it is settled, and where it stops.

The text of some tokens need not be the beginning of the text of these and more: half a character becomes a whole one,
and white space is kept or not by what follows it. `Text` lets go of nothing that may still change, nor of what may
become a stop string, so that its pieces, joined, are the text that all tokens have together.
"""

import dataclasses
import unicodedata

from tf_llm.contracts import END_ID


@dataclasses.dataclass(frozen=True)
class Completion:
    """What was said to a prompt.

    `ids` are the tokens, END_ID among them where the text ended by itself. `log_probabilities` has the model's own
    log-probability of each, whatever rules or cuts it was chosen under, or is None where they were not asked for.
    `finish_reason` is "stop" where the text ended by itself or at a stop string, "length" where it was cut at
    max_new_tokens (or at the end of the only window), "cancelled" where nobody wanted it any more.
    """

    text: str
    ids: list[int]
    log_probabilities: list[float] | None
    finish_reason: str


class Text:
    """One text as it grows.

    Args:
        decode: ids -> text.
        limit: tokens at most.
        stop_strings: the text ends in front of the first of them that is complete.
        marks: ids from here on are sentinels, which say nothing.
    """

    def __init__(self, decode, limit, stop_strings=(), marks=2**31):
        self.decode, self.limit, self.stop_strings, self.marks = decode, limit, stop_strings, marks
        self.ids, self.sent, self.finish_reason = [], 0, None
        self.text = ""  # what the ids say so far, cut at a stop string

    def say(self, ids):
        """Takes the next tokens, as far as the text goes on, and returns what is settled by them: "" or a piece."""
        for i, token_id in enumerate(ids):
            if self.finish_reason:
                break
            self.ids.append(int(token_id))
            if token_id == END_ID:
                self.finish_reason = "stop"
            elif len(self.ids) == self.limit:
                self.finish_reason = "length"
            if self.stop_strings or self.finish_reason or i == len(ids) - 1:
                self._read()
        return self._settle()

    def finish(self, reason):
        """Ends the text for a reason from outside, and returns the rest of it."""
        if self.finish_reason:
            return ""
        self.finish_reason = reason
        return self._settle()

    @property
    def shown_ids(self):
        """The ids but for sentinels."""
        return [token_id for token_id in self.ids if token_id < self.marks]

    def complete(self):
        """The `Completion` of a text that has ended."""
        return Completion(self.text, list(self.ids), None, self.finish_reason)

    def _read(self):
        self.text = self.decode(self.shown_ids)
        place = find_stop(self.text, self.stop_strings)
        if place is not None:
            self.text, self.finish_reason = self.text[:place], "stop"

    def _settle(self):
        until = len(self.text)
        if not self.finish_reason:
            until = find_settled(self.text)
            until -= count_held(self.text[:until], self.stop_strings)
        begin, self.sent = self.sent, max(self.sent, until)
        return self.text[begin:until]


def find_settled(text):
    """How much of a text stays, whatever is said next: all but white space, broken characters and signs of private use
    (with which the tokenizers escape) at its end.

    >>> find_settled("so long \ufffd")
    7
    """
    until = len(text)
    while until and may_change(text[until - 1]):
        until -= 1
    return until


def may_change(character):
    """Whether a later token may make another character of the last one, or take it back."""
    return character.isspace() or character == "\ufffd" or unicodedata.category(character) == "Co"


def find_stop(text, stop_strings):
    """Where the stop string begins that is complete first (of several, the longest), or None.

    >>> find_stop("one two three", ("three", "o t", "two"))
    4
    """
    found = [(text.find(stop) + len(stop), text.find(stop)) for stop in stop_strings if stop in text]
    return min(found)[1] if found else None


def count_held(text, stop_strings):
    r"""How many characters at the end of a text may be the beginning of a stop string.

    >>> count_held("Yes.\n", ("\n\n", "###"))
    1
    """
    most = min(len(text), max(map(len, stop_strings), default=1) - 1)
    return next((n for n in range(most, 0, -1) if any(s.startswith(text[-n:]) and len(s) > n for s in stop_strings)), 0)
