"""Utterances to learn from and to test on: what is held out stays out, and slots are what was said."""

import random
from collections import Counter

import pytest

from tf_llm.apps.assistant.calls import OUT_OF_SCOPE, format_call, parse_call
from tf_llm.apps.assistant.phrasings import (
    Reference,
    Speaker,
    generate_utterances,
    load_grammar,
    parse_alternatives,
    parse_grammar,
    tidy,
    walk,
)

GRAMMAR = """
[greet]
hello {who:name}
good (morning|evening), {who:name}!
* welcome {who:name}

<name>:
Anna | Ben
* Zoe
"""


def say_often(tool, grammar, held_out=False):
    """What is said in 200 tries, in small letters and without a full stop."""
    grammar = parse_grammar(grammar)
    said = [Speaker(grammar, random.Random(seed), held_out).say(tool).text for seed in range(200)]
    return {text.lower().rstrip(".!") for text in said}


@pytest.fixture(scope="module")
def learnt():
    return generate_utterances(seed=1, count=3000)


@pytest.fixture(scope="module")
def held_out():
    return generate_utterances(seed=1, count=1500, held_out=True)


def test_every_tool_has_several_dozen_phrasings_and_a_fifth_is_held_out():
    for name, phrasings in load_grammar().tools.items():
        assert len(phrasings.held_out) * 4 >= len(phrasings.learnt), name
        beginnings = 2 if any(part.name in ("ask", "hey", "tell") for part in walk(phrasings.learnt)) else 1
        assert len(phrasings.learnt) * beginnings >= 24, name


def test_no_list_is_idle():
    grammar = load_grammar()
    everything = (*grammar.tools.values(), *grammar.lists.values())
    assert {part.name for each in everything for part in walk([*each.learnt, *each.held_out])} >= set(grammar.lists)


def test_no_phrasing_is_written_twice():
    for name, phrasings in load_grammar().tools.items():
        written = Counter(map(repr, [*phrasings.learnt, *phrasings.held_out]))
        twice = [each for each, count in written.items() if count > 1]
        assert len(twice) <= 1, (name, twice)  # one may stand twice for its weight


def test_slots_are_words_that_were_said(learnt, held_out):
    for said in [*learnt, *held_out]:
        assert said.text == said.text.strip() and "  " not in said.text and said.text
        assert not set("<>{}|*") & set(said.text.replace(" * ", "")), said.text
        for text, slot in said.chunks:
            assert slot is None or (text == text.strip() and text), said
        slots = [slot for _, slot in said.chunks if slot]
        assert len(slots) == len(set(slots)), said
        assert said.call is None or parse_call(format_call(said.call)) == said.call


def test_every_tool_is_there_equally_often(learnt):
    counts = Counter(said.name for said in learnt)
    assert set(counts) == set(load_grammar().tools)
    assert max(count for name, count in counts.items() if name != OUT_OF_SCOPE) - min(counts.values()) <= 2


def test_what_is_learnt_from_is_varied(learnt):
    assert len({said.text.lower() for said in learnt}) > 0.95 * len(learnt)


def test_nothing_that_is_held_out_is_learnt_from():
    """A grammar is made whose held-out lines begin with a mark: none of those is ever said."""
    grammar = load_grammar()
    for each in (*grammar.tools.values(), *grammar.lists.values()):
        assert not {repr(sequence) for sequence in each.learnt} & {repr(sequence) for sequence in each.held_out}


def test_marked_lines_are_said_in_tests_alone():
    assert say_often("greet", GRAMMAR) == {
        f"{hello} {who}" for hello in ("hello", "good morning,", "good evening,") for who in ("anna", "ben")
    }
    assert say_often("greet", GRAMMAR, held_out=True) == {f"welcome {who}" for who in ("anna", "ben", "zoe")}


def test_words_are_held_out_as_well(learnt, held_out):
    def list_words(utterances):
        slots = [text.lower() for said in utterances for text, slot in said.chunks if slot]
        return {word for text in slots for word in text.split()}

    known, tested = list_words(learnt), list_words(held_out)
    for word in ("garage", "lavender", "fortnight", "quinoa", "lasagne"):
        assert word in tested and word not in known, word


def test_the_same_seed_says_the_same():
    assert generate_utterances(7, 40) == generate_utterances(7, 40) != generate_utterances(8, 40)
    assert generate_utterances(7, 40) == generate_utterances(7, 60)[:40]


@pytest.mark.parametrize("text", ["a (b", "a b)", "a {b", "a <b", "((|)"])
def test_brackets_are_expected_in_pairs(text):
    with pytest.raises(ValueError, match=r"a phrasing is expected to have pairs of brackets. Received: "):
        parse_alternatives(text)


def test_a_grammar_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"expected to begin with a heading. Received: 'hello'"):
        parse_grammar("hello")
    with pytest.raises(ValueError, match=r"a list is expected to be one of name. Received: 'nom'"):
        parse_grammar("[greet]\nhello {who:nom}\n<name>:\nAnna")
    with pytest.raises(ValueError, match=r"expected to have its bars in brackets. Received: 'hello|hi'"):
        parse_grammar("[greet]\nhello|hi")


def test_what_is_made_is_made_anew():
    words = [text.split() for text in say_often("f", "[f]\n<Invented> <invented> <digits 3 5> <number 20 29>")]
    assert len({second for _, second, *_ in words}) > 190
    assert {third for _, _, third, _ in words} == {"3", "4", "5"}
    assert {"25", "twenty-five"} < {fourth for *_, fourth in words}


def test_spaces_are_tidied():
    assert tidy([("a ", None), ("", None), (" b", "s"), (" ", None)]) == (("a ", None), ("b", "s"))
    assert Reference("name", "who") in walk(parse_alternatives("(a|{who:name})"))
