"""What people say to an assistant: utterances made by the grammar in grammar/*.txt, to learn from and to test on.

    [set_timer]                              phrasings of a tool, one a line
    <ask> set a timer for {duration}         <ask>: one of that list; {duration}: a slot, of the list of its name
    (start|begin) a {name:dish} timer        (a|b): one of these; {name:dish}: the slot `name`, of the list `dish`
    * {duration} on the clock                *: held out, never in what is learnt from

    <ask>:                                   a list; its alternatives stand in lines or between bars
    | please | could you                     the first of these is empty
    * be so kind and                         *: these are held out, too

Three lists are made, not written: <number 1 60> in digits or in words, <digits 1 60> in digits alone, and <invented>
(or <Invented>): a word that nobody has ever seen. From it a model learns to copy words, not to know them.

Held-out utterances have held-out phrasings only; where a list has held-out alternatives, half of their words come from
those. What is made is written as people do: with a capital and a full stop, or as speech recognition has it, without.
"""

import dataclasses
import functools
import random
import re
from pathlib import Path

from tf_llm.apps.assistant.calls import OUT_OF_SCOPE, Utterance
from tf_llm.apps.assistant.spoken_numbers import spell_number

GRAMMAR = Path(__file__).with_name("grammar")
HEADING = re.compile(r"\[(?P<tool>\w+)\]|<(?P<list>\w+)>:")
PART = re.compile(r"<(?P<list>[^<>]+)>|\{(?P<slot>\w+)(?::(?P<of>\w+))?\}|(?P<sign>[(|)])|(?P<text>[^<{(|)]+)")
MADE = re.compile(r"(number|digits) (\d+) (\d+)|[iI]nvented")
SPARE = 4  # utterances out of scope are as many as those of so many tools


@dataclasses.dataclass(frozen=True)
class Reference:
    """A list that is named in a phrasing, and the slot that it fills there, if any."""

    name: str
    slot: str | None = None


@dataclasses.dataclass
class Alternatives:
    """The phrasings of a tool, or the alternatives of a list: each is a sequence of texts, References and choices."""

    learnt: list = dataclasses.field(default_factory=list)
    held_out: list = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Grammar:
    """The phrasings of every tool and the lists that they name."""

    tools: dict[str, Alternatives]
    lists: dict[str, Alternatives]

    def list_slots(self, tool):
        """The slots that occur in the phrasings of a tool."""
        phrasings = self.tools[tool]
        return {part.slot for part in walk([*phrasings.learnt, *phrasings.held_out]) if part.slot}


def walk(alternatives):
    """Every Reference within alternatives."""
    for sequence in alternatives:
        for part in sequence:
            if isinstance(part, Reference):
                yield part
            elif isinstance(part, list):
                yield from walk(part)


def parse_alternatives(text):
    """What stands between bars: a list of sequences.

    Raises:
        ValueError: brackets that do not match.

    >>> parse_alternatives("a (b|) {c}|d")
    [['a ', [['b'], []], ' ', Reference(name='c', slot='c')], ['d']]
    """
    stack, place = [[[]]], 0
    while place < len(text):
        part = PART.match(text, place)
        if part is None:
            raise ValueError(f"a phrasing is expected to have pairs of brackets. Received: {text!r}")
        place = part.end()
        sign, here = part["sign"], stack[-1]
        if sign == "(":
            stack.append([[]])
        elif sign == "|":
            here.append([])
        elif sign == ")" and len(stack) > 1:
            stack[-2][-1].append(stack.pop())
        elif sign:
            raise ValueError(f"a phrasing is expected to have pairs of brackets. Received: {text!r}")
        elif part["text"]:
            here[-1].append(part["text"])
        else:
            here[-1].append(Reference(part["list"] or part["of"] or part["slot"], part["slot"]))
    if len(stack) > 1:
        raise ValueError(f"a phrasing is expected to have pairs of brackets. Received: {text!r}")
    return stack[0]


def parse_grammar(text):
    """A `Grammar`.

    Raises:
        ValueError: a line before the first heading, brackets that do not match, a list that there is not.
    """
    tools, lists, current, is_tool = {}, {}, None, False
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        heading = HEADING.fullmatch(line)
        if heading:
            is_tool = heading["tool"] is not None
            current = (tools if is_tool else lists).setdefault(heading["tool"] or heading["list"], Alternatives())
            continue
        if current is None:
            raise ValueError(f"a grammar is expected to begin with a heading. Received: {line!r}")
        held_out = line.startswith("* ")
        sequences = parse_alternatives(re.sub(r" *\| *", "|", line.removeprefix("* ").strip()))
        if is_tool and len(sequences) > 1:
            raise ValueError(f"a phrasing is expected to have its bars in brackets. Received: {line!r}")
        (current.held_out if held_out else current.learnt).extend(sequences)
    for each in (*tools.values(), *lists.values()):
        for reference in walk([*each.learnt, *each.held_out]):
            if reference.name not in lists and not MADE.fullmatch(reference.name):
                raise ValueError(
                    f"a list is expected to be one of {', '.join(sorted(lists))}. Received: {reference.name!r}"
                )
    return Grammar(tools, lists)


@functools.cache
def load_grammar():
    """The grammar of this folder."""
    return parse_grammar("\n".join(path.read_text(encoding="utf-8") for path in sorted(GRAMMAR.glob("*.txt"))))


class Speaker:
    """Says things at random, by a grammar."""

    def __init__(self, grammar, draw, held_out):
        self._grammar, self._draw, self._held_out = grammar, draw, held_out

    def say(self, tool):
        """An `Utterance` of a tool."""
        phrasings = self._grammar.tools[tool]
        sequence = self._draw.choice(phrasings.held_out if self._held_out else phrasings.learnt)
        return Utterance(tool, write_down(tidy(self._speak(sequence)), self._draw))

    def _speak(self, sequence):
        """(text, slot) of each part of a sequence."""
        for part in sequence:
            if isinstance(part, str):
                yield part, None
            elif isinstance(part, list):
                yield from self._speak(self._draw.choice(part))
            elif part.slot is None:
                yield from self._draw_from(part.name)
            else:
                yield "".join(text for text, _ in tidy(self._draw_from(part.name))), part.slot

    def _draw_from(self, name):
        made = MADE.fullmatch(name)
        if made:
            return [(self._make(made), None)]
        alternatives = self._grammar.lists[name]
        hidden = self._held_out and alternatives.held_out and (not alternatives.learnt or self._draw.random() < 0.5)
        return self._speak(self._draw.choice(alternatives.held_out if hidden else alternatives.learnt))

    def _make(self, made):
        if made[1]:
            number = self._draw.randint(int(made[2]), int(made[3]))
            return spell_number(number) if made[1] == "number" and self._draw.random() < 0.4 else str(number)
        syllables = self._draw.randint(2, 3)
        word = "".join(self._draw.choice("bdfgklmnprstvz") + self._draw.choice("aeiou") for _ in range(syllables))
        word += self._draw.choice(["", "n", "r", "s", "x", "ck"])
        return word.capitalize() if made[0] == "Invented" else word


def tidy(parts):
    """Chunks with one space between words, none at either end, and no two without a slot in a row.

    >>> tidy([(" wake  me ", None), ("", None), (" ", None), ("at six", "time"), (" ", None)])
    (('wake me ', None), ('at six', 'time'))
    """
    chunks = []
    for text, slot in parts:
        text = re.sub(" +", " ", text)
        if not chunks or chunks[-1][0].endswith(" "):
            text = text.removeprefix(" ")
        if text and slot is None and chunks and chunks[-1][1] is None:
            text = re.sub(" +", " ", chunks.pop()[0] + text)
        if text:
            chunks.append((text, slot))
    if chunks and chunks[-1][0].endswith(" "):
        text, slot = chunks.pop()
        chunks += [(text.rstrip(" "), slot)] if text.strip(" ") else []
    return tuple(chunks)


def write_down(chunks, draw):
    """The chunks as one of the ways to write has them: capitals, full stops, question marks, apostrophes."""
    (first, slot), *rest = chunks
    (last, last_slot) = chunks[-1]
    question = last_slot is None and last.endswith("?")
    way = draw.random()
    if way < 0.2:  # as speech recognition writes
        chunks = [(text.lower(), slot) for text, slot in chunks]
    elif way < 0.55:
        chunks = [(first[0].upper() + first[1:], slot), *rest]
    else:
        chunks = list(chunks)
    if question and (way < 0.2 or draw.random() < 0.3):
        chunks[-1] = (chunks[-1][0].removesuffix("?"), None)
    elif not question and 0.2 <= way < 0.55:
        chunks.append((draw.choice([".", ".", ".", "!", "", ""]), None))
    apostrophe = draw.choice(["'"] * 8 + ["’"] * 2 + [""])
    return tidy((text.replace("'", apostrophe), slot) for text, slot in chunks)


def generate_utterances(seed, count, held_out=False):
    """Utterances of every tool in turn, and of what is out of scope.

    Args:
        seed: of chance; the same gives the same utterances.
        count: how many.
        held_out: whether they are to be tested on: of phrasings, and in part of words, that are never learnt from.

    Returns:
        A list of `Utterance`; their `name` is a tool's, or OUT_OF_SCOPE.

    >>> said = generate_utterances(seed=1, count=2)
    >>> said == generate_utterances(seed=1, count=2), said == generate_utterances(seed=1, count=2, held_out=True)
    (True, False)
    """
    grammar, draw = load_grammar(), random.Random(f"{seed} {held_out}")
    speaker = Speaker(grammar, draw, held_out)
    names = sorted(name for name in grammar.tools if name != OUT_OF_SCOPE) + [OUT_OF_SCOPE] * SPARE
    utterances = []
    while len(utterances) < count:
        draw.shuffle(names)
        utterances += [speaker.say(name) for name in names]
    return utterances[:count]
