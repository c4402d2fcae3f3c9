"""Token ids of what is said to an assistant, and of the call that it means.

A call takes its words from what was said, so the model never spells them: it points at them. For each slot it says the
place of the first word and that of the last one ("pointers": Rongali et al. 2020, https://arxiv.org/abs/2001.11458).
What stands between is copied as it was written, words among them that the vocabulary has never seen.

    said    remind me to water the ferns at six
    place        0  1  2     3   4     5  6   7
    call    set_reminder text 3 5 time 7 7

The ids: special tokens, words, names of tools, slots, places.

Glossary: S source length.
"""

import json
import re
from collections import Counter
from pathlib import Path

from tf_llm.apps.assistant.calls import OUT_OF_SCOPE, Call
from tf_llm.contracts import END_ID, PAD_ID, SPECIAL_TOKENS, UNKNOWN_ID, UserError
from tf_llm.files import write_atomically

# A word: letters and digits with single joints between, such as 7:30, don't and 5.5; of scripts that put no spaces
# between words, one character. Any other sign stands for itself.
UNSPACED = "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
WORD = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+(?:[.:,'’/-][^\W{UNSPACED}]+)*|[^\w\s]")
DIGIT = re.compile(r"\d")


def find_words(text):
    """The words of a text as (begin, end) of each.

    >>> text = "Wake me at 7:30 a.m., don't forget!"
    >>> [text[begin:end] for begin, end in find_words(text)]
    ['Wake', 'me', 'at', '7:30', 'a.m', '.', ',', "don't", 'forget', '!']
    """
    return [match.span() for match in WORD.finditer(text)]


def shape_word(word):
    """What the vocabulary knows a word by: in small letters, each digit a 0, so that 7:30 and 8:15 are one word.

    >>> shape_word("7:30"), shape_word("Ferns")
    ('0:00', 'ferns')
    """
    return DIGIT.sub("0", word.lower())


class CallTokenizer:
    """What `Generator` asks of a tokenizer, and targets for training. Text and call share one table of ids.

    Args:
        words: the vocabulary, words by their shape; one that is not in it is UNKNOWN_ID.
        tools: {name: its slots}.
        places: words that a text may have; what follows is not read.

    Raises:
        ValueError: there are no tools.
    """

    num_sentinels = 0

    def __init__(self, words, tools, places):
        if not tools:
            raise ValueError("tools are expected to be at least one. Received: none")
        self.words, self.places = list(words), places
        self.tools = {name: tuple(slots) for name, slots in sorted(tools.items())}
        self.slots = sorted({slot for slots in self.tools.values() for slot in slots})
        self.word_ids = {word: id for id, word in enumerate(self.words, len(SPECIAL_TOKENS))}
        first_name = len(SPECIAL_TOKENS) + len(self.words)
        self.name_ids = {name: id for id, name in enumerate(self.tools, first_name)}
        self.slot_ids = {slot: id for id, slot in enumerate(self.slots, first_name + len(self.tools))}
        self.first_place = first_name + len(self.tools) + len(self.slots)
        self.vocabulary_size = self.first_place + places
        self._labels = [*SPECIAL_TOKENS, *self.words, *self.tools, *self.slots, *map(str, range(places))]

    @classmethod
    def from_utterances(cls, utterances, places=63, least_count=2):
        """The tokenizer of training utterances: their tools, and the words that occur at least `least_count` times."""
        counts, tools = Counter(), {}
        for utterance in utterances:
            text = utterance.text
            counts.update(shape_word(text[begin:end]) for begin, end in find_words(text))
            tools.setdefault(utterance.name, set()).update(slot for _, slot in utterance.chunks if slot)
        words = [word for word, count in counts.most_common() if count >= least_count]
        return cls(words, {name: sorted(slots) for name, slots in tools.items()}, places)

    # === Texts ===

    def encode(self, text):
        """The ids of a text's words, one each."""
        spans = find_words(text)[: self.places]
        return [self.word_ids.get(shape_word(text[begin:end]), UNKNOWN_ID) for begin, end in spans]

    def decode(self, ids):
        """What ids stand for, one space apart: a text in its shape, or a call with places for words."""
        return " ".join(self._labels[id] for id in ids if id not in (PAD_ID, END_ID))

    # === Calls ===

    def encode_call(self, utterance):
        """The ids of the call that an utterance means, without END_ID, or None where a slot is not made of whole words.

        >>> tokenizer = CallTokenizer(["play"], {"play": ("artist",)}, places=8)
        >>> said = Utterance("play", (("play ", None), ("New Order", "artist")))  # doctest: +SKIP
        >>> tokenizer.decode(tokenizer.encode_call(said))                         # doctest: +SKIP
        'play artist 1 2'
        """
        spans, end, ids = find_words(utterance.text), 0, [self.name_ids[utterance.name]]
        begins, ends = ({span[side]: place for place, span in enumerate(spans)} for side in (0, 1))
        for text, slot in utterance.chunks:
            begin, end = end, end + len(text)
            if slot is None:
                continue
            first, last = begins.get(begin), ends.get(end)
            if first is None or last is None or last >= self.places:
                return None
            ids += [self.slot_ids[slot], self.first_place + first, self.first_place + last]
        return ids

    def decode_call(self, ids, text):
        """The call that ids denote of a text, None for OUT_OF_SCOPE. They obey the grammar (call_grammar.py).

        A last slot that was cut off is left out.
        """
        spans, ids = find_words(text), [int(id) for id in ids if id not in (PAD_ID, END_ID)]
        name = self._labels[ids[0]]
        if name == OUT_OF_SCOPE:
            return None
        arguments = []
        for slot, first, last in zip(*[iter(ids[1:])] * 3, strict=False):
            begin, end = spans[first - self.first_place][0], spans[last - self.first_place][1]
            arguments.append((self._labels[slot], text[begin:end]))
        return Call(name, tuple(arguments))

    # === The file ===

    def save(self, path):
        """Writes the tokenizer as JSON, whole or not at all."""
        parts = {"words": self.words, "tools": self.tools, "places": self.places}
        write_atomically(Path(path), json.dumps(parts, ensure_ascii=False, indent=0).encode())

    @classmethod
    def load(cls, path):
        """Reads what `save` wrote. Raises UserError where the file is missing or damaged."""
        try:
            return cls(**json.loads(Path(path).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise UserError(
                f"expected the words and tools of an assistant in {path}. Received: {error}. Train it again"
            ) from error
