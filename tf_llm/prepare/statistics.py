"""What a run of `prepare` counts, page by page in its workers, and how the counts of its parts become one.

    >>> first, second = Statistics(), Statistics()
    >>> first.see(html_bytes=90)
    >>> first.keep(Document("http://a.example/", "Green tea.", ("en",)))
    >>> second.see(html_bytes=10)
    >>> second.reject(Rejected("http://b.example/", "no text"))
    >>> whole = merge_statistics([first.to_json(), second.to_json()])
    >>> whole["pages"], whole["documents"], whole["html_bytes"], whole["rejected"], whole["languages"]
    (2, 1, 100, {'no text': 1}, {'en': 1})

Everything here is plain data that JSON and UTF-8 can hold, and of a size that does not grow with the corpus: counts by
reason, by language and by power of two, and a few examples of each outcome, cut short. The parts are merged in their
order, so the whole is the same whoever counted which part, and in which order they were done. report.py shows it.
"""

from __future__ import annotations

import dataclasses
import heapq
import numbers
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tf_llm.contracts import Document, Rejected

EXAMPLES = 5  # of each outcome
EXAMPLE_LENGTH = 300  # characters of a text, an address or a detail
KEY_LENGTH = 100  # some reasons quote what a page says of itself, such as its media type
SURROGATE = re.compile("[\ud800-\udfff]")
LANGUAGE = re.compile(r"[A-Za-z]{2,8}(?:[-_][A-Za-z0-9]{1,8}){0,3}")
KEPT, UNKNOWN_LANGUAGE = "kept", "unknown"


@dataclasses.dataclass
class Statistics:
    """The counts of one part of a corpus; a worker fills it page by page."""

    pages: int = 0  # everything that was offered: documents kept and pages rejected
    html_bytes: int = 0  # of those pages, as they came
    text_bytes: int = 0  # of the documents kept, as UTF-8
    documents: int = 0  # kept
    training: int = 0  # of those, the ones of the training split
    kept: int = 0  # words of documents, or characters, that the article's steps leave; pieces are not counted
    rejected: Counter[str] = dataclasses.field(default_factory=Counter)  # reason -> pages
    edited: Counter[str] = dataclasses.field(default_factory=Counter)  # what a rule of cleaning changed -> times
    removed: Counter[str] = dataclasses.field(default_factory=Counter)  # by the article's steps -> occurrences
    stop_words: Counter[str] = dataclasses.field(default_factory=Counter)  # each -> occurrences in training documents
    duplicates: Counter[str] = dataclasses.field(default_factory=Counter)  # kind -> pages or lines
    lengths: Counter[str] = dataclasses.field(default_factory=Counter)  # `bin_length` of a document -> documents
    languages: Counter[str] = dataclasses.field(default_factory=Counter)  # of documents
    examples: dict[str, list[dict[str, str]]] = dataclasses.field(default_factory=dict)  # "kept" or a reason -> pages

    def see(self, html_bytes: int) -> None:
        """Counts a page of so many bytes, whatever will become of it."""
        self.pages += 1
        self.html_bytes += html_bytes

    def keep(self, document: Document, words: int | None = None) -> None:
        """Counts a page that became a document.

        Args:
            document: its text, and its languages, of which the first one counts.
            words: how many there are in the text; without it, what white space parts, so that writing without spaces
                counts as few.
        """
        self.documents += 1
        self.text_bytes += len(document.text.encode("utf-8", "surrogatepass"))
        self.lengths[str(bin_length(len(document.text.split()) if words is None else words))] += 1
        language = document.languages[0] if document.languages else UNKNOWN_LANGUAGE
        self.languages[language if LANGUAGE.fullmatch(language) else UNKNOWN_LANGUAGE] += 1
        self._show(KEPT, document.url, "text", document.text)

    def reject(self, rejected: Rejected) -> None:
        """Counts a page that goes no further."""
        reason = cut(rejected.reason, KEY_LENGTH)
        self.rejected[reason] += 1
        self._show(reason, rejected.url, "detail", rejected.detail)

    def reject_records(self, rejections: Mapping[str, int]) -> None:
        """Counts what a source could not turn into pages at all: its `rejections`, of which nothing else is known."""
        for reason, count in rejections.items():
            self.pages += count
            self.rejected[cut(reason, KEY_LENGTH)] += count

    def edit(self, edits: Mapping[str, int]) -> None:
        """Counts what cleaning changed in a page, whether the page is kept in the end or not."""
        self.edited.update(edits)

    def to_json(self) -> dict[str, Any]:
        """Plain data, which `merge_statistics` and `from_json` take."""
        return {
            field.name: dict(value) if isinstance(value := getattr(self, field.name), dict) else value
            for field in dataclasses.fields(self)
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Statistics:
        """What `to_json` made, or a merge of it. Other keys are left aside, missing ones count nothing.

        >>> Statistics.from_json(Statistics(pages=3, rejected=Counter(binary=3)).to_json()).rejected
        Counter({'binary': 3})
        """
        statistics = cls()
        for field in dataclasses.fields(cls):
            if field.name in data:
                value, empty = data[field.name], getattr(statistics, field.name)
                setattr(statistics, field.name, type(empty)(value))
        return statistics

    def _show(self, outcome: str, url: str, name: str, text: str) -> None:
        examples = self.examples.setdefault(outcome, [])
        if len(examples) < EXAMPLES:
            examples.append({"url": cut(url), name: cut(text)})


def merge_statistics(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The statistics of a whole from those of its parts, in the order of the parts.

    Numbers are added up, at whatever depth; of the examples of each outcome, the first ones stay. Keys come in the
    order in which they were first seen: the result is, to the byte of its JSON, what one `Statistics` that saw every
    page would have given. Only what is counted belongs in a part; settings and the like do not add up.

    Raises:
        ValueError: something else than numbers, or dictionaries of numbers, stands in a part.

    >>> merge_statistics([{"pages": 1, "rejected": {"binary": 1}}, {"pages": 2, "rejected": {"no text": 2}}])
    {'pages': 3, 'rejected': {'binary': 1, 'no text': 2}}
    """
    whole: dict[str, Any] = {}
    for part in parts:
        _add(whole, part)
    return whole


def _add(whole: dict[str, Any], part: Mapping[str, Any]) -> None:
    for key, value in part.items():
        if key == "examples":
            shown = whole.setdefault(key, {})
            for outcome, examples in value.items():
                shown[outcome] = (shown.get(outcome, []) + examples)[:EXAMPLES]
        elif isinstance(value, Mapping):
            _add(whole.setdefault(key, {}), value)
        elif isinstance(value, numbers.Real):
            whole[key] = whole.get(key, 0) + value
        else:
            raise ValueError(f"expected counts in the statistics of a part. Received: {key!r}: {value!r}")


def cut(text: str, length: int = EXAMPLE_LENGTH) -> str:
    """The head of a text from outside, safe to write as UTF-8.

    >>> cut("green tea and black tea", 10), cut("half a pair: \\ud83d")
    ('green tea…', 'half a pair: �')
    """
    return SURROGATE.sub("\ufffd", text if len(text) <= length else f"{text[: length - 1]}…")


def bin_length(number_of_words: int) -> int:
    """The bin k of a document in the histogram of lengths: at least 2^k words, fewer than 2^(k+1). No word is in bin 0.

    >>> [bin_length(words) for words in (0, 1, 2, 3, 4, 1023, 1024)]
    [0, 0, 1, 1, 2, 9, 10]
    """
    if number_of_words < 0:
        raise ValueError(f"expected a number of words. Received: {number_of_words}")
    return max(number_of_words.bit_length() - 1, 0)


def list_top(counts: Mapping[str, int], size: int = 50) -> list[list]:
    """The most frequent of what was counted with their counts, ties by alphabet.

    >>> list_top(Counter("tea tree"), size=2)
    [['e', 3], ['t', 2]]
    """
    top = heapq.nsmallest(size, counts.items(), key=lambda item: (-item[1], item[0]))
    return [[word, count] for word, count in top]


def coverage_curve(counts: Mapping[str, int], points: int = 60, include: Iterable[int] = ()) -> list[list]:
    """Which share of all occurrences the most frequent words cover, for vocabularies of growing size.

    Exact, at sizes that are spread evenly on a logarithmic axis from 1 to all kinds of words.

    Args:
        counts: word -> occurrences.
        points: how many sizes at most; small vocabularies have fewer.
        include: sizes that are wanted in any case, as far as there are so many kinds.

    >>> coverage_curve(Counter(the=6, tea=3, yak=1))
    [[1, 0.6], [2, 0.9], [3, 1.0]]
    """
    if points < 2:
        raise ValueError(f"expected at least 2 points of a curve. Received: {points}")
    ordered = np.fromiter(counts.values(), np.int64, len(counts))
    ordered = np.sort(ordered[ordered > 0])[::-1]
    if not len(ordered):
        return []
    covered = np.cumsum(ordered)
    sizes = set(np.geomspace(1, len(ordered), points).round().astype(np.int64).tolist())
    sizes |= {size for size in include if 1 <= size <= len(ordered)}
    total = int(covered[-1])
    return [[size, int(covered[size - 1]) / total] for size in sorted(sizes)]


def describe_vocabulary(noun: str, counts: Mapping[str, int], chosen: int, minimum_count: int) -> dict[str, Any]:
    """What the report says of a vocabulary: its size, what it covers, and what other sizes would cover.

    Args:
        noun: what was counted: "words", "characters".
        counts: over the training pages.
        chosen: how many of the most frequent ones are kept.
        minimum_count: the setting that cut off the rest, or one of those that did.

    >>> vocabulary = describe_vocabulary("words", Counter(the=6, tea=3, yak=1), chosen=2, minimum_count=2)
    >>> vocabulary["kinds"], vocabulary["occurrences"], vocabulary["coverage"]
    (3, 10, 0.9)
    """
    curve = coverage_curve(counts, include=(chosen // 2, chosen, 2 * chosen, 4 * chosen))
    return {
        "noun": noun,
        "kinds": sum(count > 0 for count in counts.values()),
        "occurrences": sum(counts.values()),
        "chosen": chosen,
        "coverage": dict(curve).get(chosen, 0.0),
        "minimum_count": minimum_count,
        "curve": curve,
    }
