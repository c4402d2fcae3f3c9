"""From a corpus to its tokenizer, one builder for each kind of tokens.

A builder has `cut`, which says what is to be counted in a text, and `build`, which makes the tokenizer of the counts.
The article's text steps (4, 5 and 2 in `cut`, 3 in `build`) are for words; characters know step 3 alone, and pieces
none: what words are is for SentencePiece to find out, in the texts themselves. Builders travel between processes.

    >>> builder = make_builder("characters", WordsConfig(minimum_count=1))
    >>> counts = Counter(builder.cut("tea tree", removed=Counter(), stopped=Counter()))
    >>> builder.build(counts, texts=[]).vocabulary
    ['e', 't', ' ', 'a', 'r']
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence

from tf_llm.contracts import Tokenizer
from tf_llm.text.piece_training import build_sentence_piece_tokenizer, require_room
from tf_llm.text.tokenizers import build_char_tokenizer, build_word_tokenizer
from tf_llm.text.words import WordsConfig, find_words, load_stop_words, remove_stop_words


class WordBuilder:
    """Words, after the text steps that the settings name."""

    noun = "words"  # what the tokens are called in figures

    def __init__(self, tokens: str, config: WordsConfig, num_sentinels: int):
        self.config, self.num_sentinels = config, num_sentinels
        self.stop_words, self.origin = load_stop_words(config.stop_words)
        self.all_words = dataclasses.replace(config, stop_words="none")

    def cut(self, text: str, removed: Counter[str], stopped: Counter[str]) -> Sequence[str] | None:
        """The tokens of a text, or None where none is left. Adds to `removed`, see `words.find_words`, and the stop
        words themselves to `stopped`."""
        words = find_words(text, self.all_words, (), removed)
        kept = remove_stop_words(words, self.stop_words)
        removed["stop words"] += len(words) - len(kept)
        stopped.update(filter(self.stop_words.__contains__, words))
        return kept or None

    def build(self, counts: Counter[str], texts: Iterable[str]) -> Tokenizer:
        """The tokenizer of the training texts, and of what `cut` found in them."""
        return build_word_tokenizer(counts, self.config, self.stop_words, self.num_sentinels)


class CharBuilder:
    """Characters. No text step applies but the third."""

    noun = "characters"

    def __init__(self, tokens: str, config: WordsConfig, num_sentinels: int):
        self.config, self.num_sentinels = config, num_sentinels
        self.stop_words, self.origin = load_stop_words("none")

    def cut(self, text: str, removed: Counter[str], stopped: Counter[str]) -> Sequence[str] | None:
        return text or None

    def build(self, counts: Counter[str], texts: Iterable[str]) -> Tokenizer:
        return build_char_tokenizer(counts, self.config, self.num_sentinels)


class PieceBuilder:
    """Pieces of words, as many as `words.vocabulary_size`. Nothing is counted beforehand, and no text step applies."""

    noun = "pieces"

    def __init__(self, tokens: str, config: WordsConfig, num_sentinels: int):
        require_room(config.vocabulary_size)  # better said before the pages are read
        self.kind, self.config, self.num_sentinels = tokens, config, num_sentinels
        self.stop_words, self.origin = load_stop_words("none")

    def cut(self, text: str, removed: Counter[str], stopped: Counter[str]) -> Sequence[str] | None:
        return () if text else None

    def build(self, counts: Counter[str], texts: Iterable[str]) -> Tokenizer:
        return build_sentence_piece_tokenizer(texts, self.config.vocabulary_size, self.kind, self.num_sentinels)


Builder = WordBuilder | CharBuilder | PieceBuilder
BUILDERS = {"words": WordBuilder, "characters": CharBuilder, "unigram": PieceBuilder, "bpe": PieceBuilder}


def make_builder(tokens: str, config: WordsConfig, num_sentinels: int = 0) -> Builder:
    """The builder of a kind of tokens.

    Raises:
        ValueError: there is no such kind.
        UserError: the vocabulary is too small for pieces.
    """
    if tokens not in BUILDERS:
        raise ValueError(f"tokens expected one of {sorted(BUILDERS)}. Received: {tokens!r}")
    return BUILDERS[tokens](tokens, config, num_sentinels)
