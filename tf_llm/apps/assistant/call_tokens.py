"""Token ids of what is said to an assistant, and of the call that it means.

A call takes its words from what was said, so the model never spells them. It says the name of the tool, and then what
each word is: the first of a slot, a further one of it, or none of a slot (tags B, I and O: Ramshaw and Marcus 1995,
https://aclanthology.org/W95-0107). What a slot covers is copied as it was written, words among it that the vocabulary
has never seen. A tool without slots has no tags.

    said                remind me to water  the    ferns  at six
    call  set_reminder  O      O  O  B-text I-text I-text O  B-time

Both sides have ids of their own behind the special tokens: words here, names of tools and tags there. So the decoder
chooses among a hundred ids and not among ten thousand.
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
BEGIN, INSIDE, OUTSIDE = "B", "I", ("O",)


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
    """What `Generator` asks of a tokenizer, and targets for training.

    `vocabulary_size` is how many ids a call may have, `source_vocabulary_size` how many a request may have.

    Args:
        words: the vocabulary, words by their shape; one that is not in it is UNKNOWN_ID.
        tools: {name: its slots}.
        places: words that a request may have.

    Raises:
        ValueError: there are no tools.
    """

    num_sentinels = 0

    def __init__(self, words, tools, places):
        if not tools:
            raise ValueError("tools are expected to be at least one. Received: none")
        self.words, self.places = list(words), places
        self.tools = {name: tuple(slots) for name, slots in sorted(tools.items())}
        slots = sorted({slot for slots in self.tools.values() for slot in slots})
        tags = [OUTSIDE, *((part, slot) for slot in slots for part in (BEGIN, INSIDE))]
        self.word_ids = {word: id for id, word in enumerate(self.words, len(SPECIAL_TOKENS))}
        self.source_vocabulary_size = len(SPECIAL_TOKENS) + len(self.words)
        self.name_ids = {name: id for id, name in enumerate(self.tools, len(SPECIAL_TOKENS))}
        self.tag_ids = {tag: id for id, tag in enumerate(tags, len(SPECIAL_TOKENS) + len(self.tools))}
        self.vocabulary_size = len(SPECIAL_TOKENS) + len(self.tools) + len(tags)
        self._names = {id: name for name, id in self.name_ids.items()}
        self._tags = {id: tag for tag, id in self.tag_ids.items()}
        self._labels = [*SPECIAL_TOKENS, *self.tools, *map("-".join, tags)]

    @classmethod
    def from_utterances(cls, utterances, places=39, least_count=1):
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
        """What the ids of a call stand for, one space apart."""
        return " ".join(self._labels[id] for id in ids if id not in (PAD_ID, END_ID))

    # === Calls ===

    def encode_call(self, utterance):
        """The ids of the call that an utterance means, without END_ID, or None where a slot is not made of whole words.

        >>> from tf_llm.apps.assistant.calls import Utterance
        >>> tokenizer = CallTokenizer(["play"], {"play": ("artist",)}, places=8)
        >>> said = Utterance("play", (("play ", None), ("New Order", "artist")))
        >>> tokenizer.decode(tokenizer.encode_call(said))
        'play O B-artist I-artist'
        """
        words, name = find_words(utterance.text), self.name_ids[utterance.name]
        if len(words) > self.places:
            return None
        if not self.tools[utterance.name]:
            return [name]
        tags, end = [OUTSIDE] * len(words), 0
        begins, ends = ({span[side]: place for place, span in enumerate(words)} for side in (0, 1))
        for text, slot in utterance.chunks:
            begin, end = end, end + len(text)
            if slot is None:
                continue
            if begin not in begins or end not in ends:
                return None
            first, last = begins[begin], ends[end]
            tags[first : last + 1] = [(BEGIN, slot), *[(INSIDE, slot)] * (last - first)]
        return [name, *(self.tag_ids[tag] for tag in tags)]

    def is_inside(self, tag):
        """Whether the id of a tag goes on with a slot that has begun."""
        return self._tags[tag][0] == INSIDE

    def decode_call(self, ids, text):
        """The call that ids denote of a text, None for OUT_OF_SCOPE. They obey the grammar (call_grammar.py)."""
        name, *tags = [id for id in ids if id not in (PAD_ID, END_ID)]
        if self._names[name] == OUT_OF_SCOPE:
            return None
        found = []  # [slot, begin, end] each, in characters
        for (begin, end), tag in zip(find_words(text), tags, strict=False):
            part, *slot = self._tags[tag]
            if part == BEGIN:
                found.append([*slot, begin, end])
            elif part == INSIDE:
                found[-1][2] = end
        return Call(self._names[name], tuple((slot, text[begin:end]) for slot, begin, end in found))

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
