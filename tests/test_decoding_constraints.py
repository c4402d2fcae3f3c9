"""What an automaton allows is said, and nothing else: drawn, searched for, in several windows."""

import doctest

import numpy as np
import pytest
from scripted import build_scripted

from tf_llm.contracts import END_ID
from tf_llm.decoding import constraints
from tf_llm.decoding.constraints import Automaton
from tf_llm.decoding.settings import GenerationConfig

TEXTS = ["a", "abc", "abd", "ffffffffff", "fab"]  # one of them is the beginning of others, one takes two windows


@pytest.fixture(scope="module")
def generate():
    return build_scripted(5)


@pytest.fixture(scope="module")
def trie(generate):
    return Automaton.from_sequences([generate.tokenizer.encode(text) for text in TEXTS])


def test_docstring_examples():
    result = doctest.testmod(constraints)
    assert result.attempted and not result.failed


def test_a_trie_by_hand():
    trie = Automaton.from_sequences([[5], [5, 6], [7, 8]])
    assert trie.edges == {
        0: {5: 1, 7: 5},
        1: {END_ID: 2, 6: 3},
        2: {},
        3: {END_ID: 4},
        4: {},
        5: {8: 6},
        6: {END_ID: 7},
        7: {},
    }
    assert [trie.walk(ids) for ids in ([], [5], [5, 6], [7, 8, 9], [9, 5])] == [0, 1, 3, None, None]
    table, widest = trie.table()
    assert widest == 2 and table["starts"].tolist() == [0, 2, 2 + 2, 4, 5, 5, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7][:16]
    assert table["tokens"].tolist() == [5, 7, END_ID, 6, END_ID, 8, END_ID, -1]
    assert table["nowhere"] == 8 == trie.place([9])


def test_draws_say_each_text_and_nothing_else(generate, trie):
    config = GenerationConfig(do_sample=True, temperature=3.0, max_new_tokens=15, constraint=trie)
    said = {generate("abc", config, seed=seed) for seed in range(40)}
    assert said == set(TEXTS)
    assert "".join(generate.stream("abc", config, seed=7)) == generate("abc", config, seed=7)


def test_a_row_says_the_same_in_company(generate, trie):
    prompts = ["abc", "f", "ba", "abcdef"]
    together = generate(prompts, constraint=trie, do_sample=False, max_new_tokens=15)
    assert together == [generate(prompt, constraint=trie, do_sample=False, max_new_tokens=15) for prompt in prompts]


def test_grammars_of_other_sizes_take_turns(generate):
    """Both have two edges in a state at most; their tables have other sizes."""
    encode = generate.tokenizer.encode
    small, large = (["a", "b"], ["abcdef" * 2, "bcdefa" * 2])
    for texts in (small, large, small):
        trie = Automaton.from_sequences([encode(text) for text in texts])
        for settings in ({"do_sample": False}, {"num_beams": 2}):
            assert generate("abc", constraint=trie, max_new_tokens=15, **settings) in texts


def test_beams_find_the_likeliest_that_is_allowed():
    answer = build_scripted(5, frame="request")
    texts = ["abc", "abd", "cab", "dd"]
    trie = Automaton.from_sequences([answer.tokenizer.encode(text) for text in texts])
    found = answer("abc", constraint=trie, num_beams=4, num_return_sequences=4, length_penalty=0.0)
    model, source = answer.model, [*answer.tokenizer.encode("abc"), END_ID]

    def score(text):
        """The probability among the tokens that are allowed, which are what a search compares."""
        ids, total = [*answer.tokenizer.encode(text), END_ID], 0.0
        for i, token_id in enumerate(ids):
            logs = model.log_probabilities(source, ids[:i])
            total += logs[token_id] - np.logaddexp.reduce([logs[edge] for edge in trie.edges[trie.walk(ids[:i])]])
        return total

    assert found == sorted(texts, key=score, reverse=True)


def test_a_grammar_with_circles(generate):
    """As many a as there may be, then as many b, at least one."""
    a, b = generate.tokenizer.encode("ab")
    grammar = Automaton([(0, a, 0), (0, b, "tail"), ("tail", b, "tail"), ("tail", END_ID, "over")])
    completions = generate.complete(
        ["abc", "f", "ba"], constraint=grammar, temperature=2.0, top_k=0, max_new_tokens=13, num_return_sequences=4
    )
    for one in (one for row in completions for one in row):
        assert one.text == one.text.count("a") * "a" + one.text.count("b") * "b"
        assert one.finish_reason == "length" or one.text.endswith("b")


def test_where_nothing_is_allowed_a_text_ends(generate):
    (a,) = generate.tokenizer.encode("a")
    dead_end = Automaton([(0, a, 1)])
    assert generate("abc", constraint=dead_end, do_sample=False, max_new_tokens=15) == "a"
    assert generate("abc", constraint=dead_end, num_beams=2, max_new_tokens=5) == ""  # nothing that could end


def test_wrong_edges_are_named():
    with pytest.raises(ValueError, match=r"edges are expected to lead to one state .* Received: 0 -5-> 1 and 2"):
        Automaton([(0, 5, 1), (0, 5, 2)])
    with pytest.raises(ValueError, match=r"sequences are expected to be at least one\. Received: none"):
        Automaton.from_sequences([])
