"""Which tokens a call may have, as an automaton: whatever a model says under it is a call.

    call = name {tag}         a tag for each word, of the slots that the tool has; I behind B or I of its slot alone
         | name END_ID        of a tool without slots

There is no end to the tags: who asks for a call knows how many words there are, and asks for as many tokens.
"""

from tf_llm.apps.assistant.call_tokens import BEGIN, INSIDE, OUTSIDE
from tf_llm.contracts import END_ID
from tf_llm.decoding.constraints import Automaton


def build_call_automaton(tokenizer):
    """The automaton of all calls of a `CallTokenizer`.

    >>> from tf_llm.apps.assistant.call_tokens import CallTokenizer
    >>> tokenizer = CallTokenizer([], {"play": ("artist",), "stop": ()}, places=8)
    >>> automaton, play, tags = build_call_automaton(tokenizer), tokenizer.name_ids["play"], tokenizer.tag_ids
    >>> automaton.walk([play, tags["O",], tags["B", "artist"], tags["I", "artist"]])
    ('play', 'artist')
    >>> automaton.walk([play, tags["O",], tags["I", "artist"]]) is None  # inside of nothing
    True
    """
    edges, tags = [], tokenizer.tag_ids
    for name, slots in tokenizer.tools.items():
        edges.append((0, tokenizer.name_ids[name], (name, None)))
        if not slots:
            edges.append(((name, None), END_ID, "end"))
            continue
        for slot in (None, *slots):  # to which the word before belongs
            edges.append(((name, slot), tags[OUTSIDE], (name, None)))
            edges += [((name, slot), tags[BEGIN, other], (name, other)) for other in slots]
            if slot is not None:
                edges.append(((name, slot), tags[INSIDE, slot], (name, slot)))
    return Automaton(edges)
