"""What the page asks, checked, and what it is answered: plain data, in which every text is a text.

Offsets do not travel: Python counts characters, a browser counts halves of some. A snippet goes out as pieces, of which
each is highlighted or is not.
"""

from typing import Annotated

from pydantic import Field

from tf_llm.apps.search.filters import Between
from tf_llm.apps.server.shapes import Name, Shape, expect

# === What is asked ===


class Draw(Shape):
    """How an answer of the chatbot is drawn. What is not said stays as the bot has it."""

    temperature: float | None = Field(None, ge=0, le=2)
    seed: int | None = Field(None, ge=0, lt=2**63)
    looks_up: bool | None = None


class Question(Draw):
    """What the chatbot is asked."""

    text: str = Field(min_length=1, max_length=8_000)


class Said(Shape):
    """What is said to the assistant."""

    text: str = Field(min_length=1, max_length=8_000)


class Pending(Shape):
    """A yes or a no to a question of the assistant."""

    pending: str = Field(max_length=100)  # the id of the question that is answered


class Nothing(Shape):
    """A request that says nothing but which it is."""


class Range(Shape):
    """From what to what a field may be; None is no bound."""

    least: float | Name | None = None
    most: float | Name | None = None


Wanted = Annotated[
    Annotated[list[Name | float], Field(min_length=1, max_length=100)] | Range,
    expect("a list of texts and numbers, or an object with least and most"),
]


class SearchRequest(Shape):
    """What is searched, and which page of the hits is wanted."""

    query: str = Field("", max_length=1_000)
    filters: dict[Name, Wanted] = Field({}, max_length=8)
    count: int = Field(10, ge=1, le=50)
    begin: int = Field(0, ge=0, le=1_000)

    def list_filters(self):
        """The filters as `SearchIndex.search` takes them."""
        return {
            name: Between(wanted.least, wanted.most) if isinstance(wanted, Range) else wanted
            for name, wanted in self.filters.items()
        }


# === What is answered ===


def cut_snippet(text, highlights=()):
    """A passage as pieces: [text, whether it is highlighted] each.

    >>> cut_snippet("Green tea leaves", [(0, 5), (10, 16)])
    [['Green', True], [' tea ', False], ['leaves', True]]
    """
    pieces, place = [], 0
    for begin, end in highlights:
        pieces += [[text[place:begin], False], [text[begin:end], True]]
        place = end
    return [piece for piece in [*pieces, [text[place:], False]] if piece[0]]


def describe_hit(hit):
    """A hit of `SearchIndex.search`, or of an assistant's search, whose snippets may be plain texts."""
    snippet = hit.snippet
    return {
        "address": hit.address,
        "title": hit.title,
        "snippet": cut_snippet(getattr(snippet, "text", snippet), getattr(snippet, "highlights", ())),
        "language": getattr(hit, "language", ""),
        "date": getattr(hit, "date", ""),
        "fields": {name: list(values) for name, values in getattr(hit, "fields", {}).items()},
    }


def describe_facet(name, facet):
    """A `Facet`."""
    return {
        "name": name,
        "values": [[value, count] for value, count in facet.values],
        "others": facet.others,
        "least": facet.least,
        "most": facet.most,
    }


def describe_reply(reply, is_confirmable):
    """A `Reply` of an assistant. Where it is found on pages, the hits stand for the text.

    Args:
        reply: the `Reply`.
        is_confirmable: whether its question can be answered by yes or no, and not by words.
    """
    return {
        "text": "" if reply.hits else reply.text,
        "call": reply.call and str(reply.call),
        "pending": reply.pending,
        "is_confirmable": is_confirmable,
        "hits": [describe_hit(hit) for hit in reply.hits],
    }
