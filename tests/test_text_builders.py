"""Builders: what each kind of tokens counts in a text, and which text steps it knows."""

import doctest
import pickle
from collections import Counter

import pytest

from tf_llm.config import TOKENS
from tf_llm.text import builders
from tf_llm.text.builders import BUILDERS, make_builder
from tf_llm.text.words import WordsConfig

CONFIG = WordsConfig(stop_words="own", minimum_count=1, vocabulary_size=300)
TEXTS = ["The Kettle sings.", "The kettle is on the stove.", "Tea!"]


def test_docstring_examples():
    result = doctest.testmod(builders)
    assert result.attempted and result.failed == 0


def test_the_settings_know_the_same_tokens():
    assert tuple(BUILDERS) == TOKENS
    with pytest.raises(ValueError, match=r"one of \['bpe', 'characters', 'unigram', 'words'\]\. Received: 'sounds'"):
        make_builder("sounds", CONFIG)


@pytest.mark.parametrize("tokens", TOKENS)
def test_counted_texts_become_a_tokenizer_with_sentinels(tokens):
    builder = pickle.loads(pickle.dumps(make_builder(tokens, CONFIG, 4)))
    counts, removed, stopped = Counter(), Counter(), Counter()
    for text in TEXTS:
        counts.update(builder.cut(text, removed, stopped))
    tokenizer = builder.build(counts, TEXTS)
    assert tokenizer.vocabulary_size == len(tokenizer.vocabulary) + 3 + tokenizer.num_sentinels
    assert tokenizer.num_sentinels == 4
    said = "kettle sings." if tokens == "words" else TEXTS[0]  # no text step applies to the others
    assert tokenizer.decode(tokenizer.encode(TEXTS[0])) == said
    assert (not removed) == (tokens != "words") == (not builder.stop_words)
    assert (not stopped) == (not removed) and sum(stopped.values()) == removed["stop words"]


def test_a_text_of_which_nothing_is_left_has_no_counts():
    assert make_builder("words", CONFIG).cut("The is on", Counter(), Counter()) is None
    assert all(make_builder(tokens, CONFIG).cut("", Counter(), Counter()) is None for tokens in TOKENS)
    for tokens in TOKENS[1:]:
        assert make_builder(tokens, CONFIG).cut("The is on", Counter(), Counter()) is not None
