"""The passage of a text that shows why it was found, and where in it the query's words stand.

    >>> from tf_llm.apps.search.analysis import Analyser
    >>> text = "Tea is a drink. It was first dried in Yunnan. Dried leaves keep. Many people drink it."
    >>> snippet = find_snippet(text, {"dri", "leav"}, Analyser(), width=40)
    >>> snippet.text, [snippet.text[begin:end] for begin, end in snippet.highlights]
    ('first dried in Yunnan. Dried leaves', ['dried', 'Dried', 'leaves'])

A snippet is text with ranges, never mark-up: whoever shows it decides how, and nothing in a page can become mark-up.
What is highlighted went through the same analysis as what was matched.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Collection, Iterator

from tf_llm.apps.search.analysis import MAX_TERM, Analyser

WIDTH = 240  # characters
TRIED = 300  # places in a text that are looked at for each term
COVERED = 0.8  # of a passage that matches may fill: the rest is for the beginning of the sentence
MATCHES = 1_000  # that are weighed against each other
SCANNED = 20_000  # characters of a text that are looked through where it is not in ASCII alone
SPACE = re.compile(r"\s")
SENTENCE_END = re.compile(r"[.!?…:;]\s+|[。！？]|\n")


@dataclasses.dataclass(frozen=True, slots=True)
class Snippet:
    """A passage, and the ranges (begin, end) of characters in it that the query asked for."""

    text: str
    highlights: tuple[tuple[int, int], ...] = ()


def find_snippet(text: str, terms: Collection[str], analyser: Analyser, width: int = WIDTH) -> Snippet:
    """The passage of at most `width` characters with the most of the terms; the beginning where there is none."""
    find = find_in_ascii if text.isascii() else find_in_any
    matches = sorted(set(itertools.islice(find(text, terms, analyser), MATCHES)))
    begin, end = place(text, matches, width)
    inside = [(max(b, begin) - begin, min(e, end) - begin) for b, e, _ in matches if b < end and e > begin]
    return Snippet(SPACE.sub(" ", text[begin:end]), tuple(join(inside)))


def find_in_ascii(text: str, terms: Collection[str], analyser: Analyser) -> Iterator[tuple[int, int, str]]:
    """(begin, end, term) of words that have one of the terms: looks for what the words begin with, which is fast."""
    lower = text.lower()
    for term in terms:
        stem = term[:-1] if len(term) > 2 else term  # endings change their last letter: hope, hoping; sky, skies
        position = lower.find(stem)
        for _ in range(TRIED):
            if position < 0:
                break
            begin = position
            while begin > position - MAX_TERM and begin and (lower[begin - 1].isalnum() or lower[begin - 1] in "_'"):
                begin -= 1
            found = next(analyser.spans(text[begin : position + MAX_TERM]), None)
            end = begin + found[1] if found else position + 1
            if found and term in found[2]:
                yield begin + found[0], end, term
            position = lower.find(stem, max(end, position + 1))


def find_in_any(text: str, terms: Collection[str], analyser: Analyser) -> Iterator[tuple[int, int, str]]:
    """The same in writing of any kind: analyses all of the text's beginning."""
    for begin, end, found in analyser.spans(text[:SCANNED]):
        for term in dict.fromkeys(found):
            if term in terms:
                yield from narrow(text, begin, end, term)
                if term == found[0] and len(term) > 2:
                    break  # the word as a whole: its parts need not be looked for


def narrow(text: str, begin: int, end: int, term: str) -> list[tuple[int, int, str]]:
    """Where a term stands in its word: everywhere for a whole word; in writing without spaces, just the characters."""
    word = text[begin:end]
    places = [place.start() for place in re.finditer(f"(?={re.escape(term)})", word)] if not term.isascii() else []
    return [(begin + place, begin + place + len(term), term) for place in places] or [(begin, end, term)]


def place(text: str, matches: list[tuple[int, int, str]], width: int) -> tuple[int, int]:
    """Begin and end of the window with the most distinct terms, and of those, with the most."""
    best, first = (0, 0), None
    for number, (begin, _, _) in enumerate(matches):
        inside = []
        for _, end, term in matches[number : number + width]:
            if end > begin + width * COVERED:
                break
            inside.append(term)
        if (found := (len(set(inside)), len(inside))) > best:
            best, first = found, (begin, matches[number + len(inside) - 1][1])
    begin, last = first or (0, 0)
    room = max(width - (last - begin), 0)
    # Begin with the sentence where it is near, else with a word; fill up behind.
    near = [found.end() for found in SENTENCE_END.finditer(text, max(0, begin - room), begin)]
    if near or begin <= room:
        begin = near[-1] if near else 0
    else:
        space = SPACE.search(text, begin - min(room, width // 4), begin)
        begin = space.end() if space else begin
    end = begin + width
    if end < len(text):
        space = max(text.rfind(sign, begin, end) for sign in " \n")
        end = space if space >= max(last, begin + width // 2) else end  # not within the last match
    end = min(end, len(text))
    while begin < end and text[begin].isspace():
        begin += 1
    return begin, end


def join(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges without those that touch each other.

    >>> join([(0, 2), (1, 3), (3, 4), (6, 7)])
    [(0, 4), (6, 7)]
    """
    joined: list[tuple[int, int]] = []
    for begin, end in sorted(ranges):
        if joined and begin <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((begin, end))
    return joined
