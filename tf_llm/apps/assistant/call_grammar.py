"""Which tokens a call may have, as an automaton: whatever a model says under it is a call.

    call = name {slot first last} END_ID

`first` and `last` are places of words in what was said (call_tokens.py). A slot's words stand behind those of the slot
before, so that none is taken twice, and a call ends at the latest when the words do. Which slots there are, the name
decides.
"""

from tf_llm.contracts import END_ID
from tf_llm.decoding.constraints import Automaton


def build_call_automaton(tokenizer, num_words, like=None):
    """The automaton of all calls that something with so many words can mean.

    Args:
        tokenizer: a `CallTokenizer`; its tools and ids.
        num_words: of what was said, at most `tokenizer.places`.
        like: see `Automaton`.

    >>> tokenizer = CallTokenizer(["play", "abba"], {"stop": (), "play": ("artist",)}, places=8)  # doctest: +SKIP
    >>> automaton = build_call_automaton(tokenizer, num_words=2)                                  # doctest: +SKIP
    >>> name, slot, place = tokenizer.name_ids["play"], tokenizer.slot_ids["artist"], tokenizer.first_place
    >>> automaton.walk([name, slot, place + 1, place + 1, END_ID])                                # doctest: +SKIP
    'the end'
    >>> automaton.walk([name, slot, place + 1, place]) is None  # its last word before its first  # doctest: +SKIP
    True
    """
    places = [tokenizer.first_place + place for place in range(num_words)]
    edges = []
    for name, slots in tokenizer.tools.items():
        edges.append((0, tokenizer.name_ids[name], (name, 0)))
        for free in range(num_words + 1):  # the first word that no slot has yet
            edges.append(((name, free), END_ID, "the end"))
            if free == num_words or not slots:
                break
            edges += [((name, free), tokenizer.slot_ids[slot], (name, free, "first")) for slot in slots]
            edges += [((name, free, "first"), places[first], (name, first, "last")) for first in range(free, num_words)]
            edges += [((name, free, "last"), places[last], (name, last + 1)) for last in range(free, num_words)]
    return Automaton(edges, like)
