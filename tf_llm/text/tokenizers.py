"""Text to token ids and back: by words (the article's steps 2 to 5) or by characters; sentence_pieces.py has pieces.

Both classes fulfil `tf_llm.contracts.Tokenizer`: the same ids from Python (`encode`, which needs no TensorFlow) and
from a TensorFlow graph (`graph_encode`, core ops only, so that a SavedModel with it loads in any TensorFlow). Ids 0, 1
and 2 are padding, end and unknown (contracts.py), the vocabulary follows from 3, and behind it sentinels, which
`encode` never yields, whatever stands in a text.

Python and graph agree on all characters up to Unicode 14, but for the small letters of 40 capitals that came with it;
for younger characters each goes by its own tables. Bytes that are no UTF-8 cost the graph themselves and the words they
touch.

    >>> tokenizer = WordTokenizer(["cat", "mat", "."], WordsConfig(), {"the", "is", "on"})
    >>> tokenizer.encode("The cat is on the yellow mat.")
    [3, 4, 5]
    >>> tokenizer.decode([3, 4, 5])
    'cat mat.'
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import re
from collections import Counter
from collections.abc import Collection, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from tf_llm.contracts import PAD_ID, SPECIAL_TOKENS, UNKNOWN_ID, Tokenizer, UserError
from tf_llm.text.sentence_pieces import SentencePieceTokenizer
from tf_llm.text.tokens import name_sentinels, write_tokenizer
from tf_llm.text.word_pattern import WORD_PATTERN
from tf_llm.text.words import WordsConfig, choose_vocabulary, lower_case, split_words

if TYPE_CHECKING:
    import tensorflow as tf

DROPPED = PAD_ID  # stands in tables for "has no id"; never comes out of `encode`

# How signs stand to words in written English, read by `re` and by RE2: spaces that `decode` takes back.
CLOSING_SIGN = r" ([.,;:!?%)\]}…’”»])"
OPENING_SIGN = r"([(\[{“‘«¿¡]) "


class WordTokenizer:
    """The words of the vocabulary, as steps 4, 5, 2 and 3 of text/words.py leave them.

    With `rare_words="remove"` an unseen word leaves no trace, with "unknown" it leaves UNKNOWN_ID; a stop word never
    leaves any. `build_word_tokenizer` makes one from the counts of a corpus.
    """

    def __init__(
        self, vocabulary: Sequence[str], config: WordsConfig, stop_words: Collection[str] = (), num_sentinels: int = 0
    ):
        self.vocabulary = list(vocabulary)
        self.num_sentinels = num_sentinels
        self.says = self.vocabulary + name_sentinels(num_sentinels)  # what `decode` writes for the ids from 3
        self.config = config
        self.stop_words = frozenset(stop_words if config.stop_words != "none" else ())
        self.vocabulary_size = len(SPECIAL_TOKENS) + len(self.says)
        self.rare_id = UNKNOWN_ID if config.rare_words == "unknown" else DROPPED
        self.ids = {word: id for id, word in enumerate(self.vocabulary, start=len(SPECIAL_TOKENS))}
        self.ids |= dict.fromkeys(sorted(self.stop_words), DROPPED)  # known, and without an id

    def words(self, text: str) -> list[str]:
        """Steps 4 and 5: every word of the text, before any is dropped."""
        return split_words(lower_case(text) if self.config.lower_case else text)

    def encode(self, text: str) -> list[int]:
        ids = map(self.ids.get, self.words(text), itertools.repeat(self.rare_id))
        return list(filter(None, ids))  # all but DROPPED, which is 0

    def decode(self, ids: Sequence[int]) -> str:
        """Words with a space between, but none before closing signs and after opening ones; special ids say nothing."""
        text = " ".join(_look_up(self.says, ids))
        return re.sub(OPENING_SIGN, r"\1", re.sub(CLOSING_SIGN, r"\1", text))

    def graph_encode(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """`encode` as TensorFlow ops: string [B] -> int32 [B, None]. See `graph_table` for export."""
        import tensorflow as tf

        # What is no word is white space; with a plain space after every word, cutting at spaces leaves the words.
        texts = tf.strings.regex_replace(texts, r"[\p{Z}\p{Cc}]+", " ")
        if self.config.lower_case:
            texts = tf.strings.lower(texts, encoding="utf-8")
        texts = tf.strings.regex_replace(texts, f"({WORD_PATTERN})", r"\1 ")
        ids = tf.ragged.map_flat_values(self.graph_table.lookup, tf.strings.split(texts))
        return tf.ragged.boolean_mask(ids, ids != DROPPED)

    def graph_decode(self, ids: tf.Tensor) -> tf.Tensor:
        """`decode` as TensorFlow ops: int32 [B, T] -> string [B]."""
        import tensorflow as tf

        words = _gather_words(self.says, ids)  # RaggedTensor [B, None]
        text = tf.strings.reduce_join(words, axis=-1, separator=" ")
        return tf.strings.regex_replace(tf.strings.regex_replace(text, CLOSING_SIGN, r"\1"), OPENING_SIGN, r"\1")

    @functools.cached_property
    def graph_table(self) -> tf.lookup.StaticHashTable:
        """The lookup table of `graph_encode`. Whoever exports it keeps this table as an attribute of the tf.Module."""
        return _build_table(self.ids, self.rare_id)

    def save(self, path: str) -> None:
        """Writes the tokenizer as JSON; `load_tokenizer` reads it."""
        write_tokenizer(
            path,
            kind="words",
            num_sentinels=self.num_sentinels,
            pattern=WORD_PATTERN,
            nltk=metadata.version("nltk"),
            config=dataclasses.asdict(self.config),
            stop_words=sorted(self.stop_words),
            vocabulary=self.vocabulary,
        )

    def __reduce__(self):  # TensorFlow's table does not travel between processes
        return WordTokenizer, (self.vocabulary, self.config, self.stop_words, self.num_sentinels)


class CharTokenizer:
    """One token per Unicode code point; what is not in the vocabulary becomes UNKNOWN_ID.

    >>> tokenizer = CharTokenizer(["e", "t", " ", "a"])
    >>> tokenizer.encode("eat tea!")
    [3, 6, 4, 5, 4, 3, 6, 2]
    >>> tokenizer.decode([3, 6, 4, 5, 4, 3, 6])
    'eat tea'
    """

    def __init__(self, vocabulary: Sequence[str], num_sentinels: int = 0):
        self.vocabulary = list(vocabulary)
        self.num_sentinels = num_sentinels
        self.says = self.vocabulary + name_sentinels(num_sentinels)  # what `decode` writes for the ids from 3
        self.vocabulary_size = len(SPECIAL_TOKENS) + len(self.says)
        self.rare_id = UNKNOWN_ID
        self.ids = {character: id for id, character in enumerate(self.vocabulary, start=len(SPECIAL_TOKENS))}

    def encode(self, text: str) -> list[int]:
        ids = self.ids
        return [ids.get(character, UNKNOWN_ID) for character in text]

    def decode(self, ids: Sequence[int]) -> str:
        """The characters; special ids say nothing."""
        return "".join(_look_up(self.says, ids))

    def graph_encode(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """`encode` as TensorFlow ops: string [B] -> int32 [B, None]. See `graph_table` for export."""
        import tensorflow as tf

        return tf.ragged.map_flat_values(self.graph_table.lookup, tf.strings.unicode_split(texts, "UTF-8"))

    def graph_decode(self, ids: tf.Tensor) -> tf.Tensor:
        """`decode` as TensorFlow ops: int32 [B, T] -> string [B]."""
        import tensorflow as tf

        return tf.strings.reduce_join(_gather_words(self.says, ids), axis=-1)

    @functools.cached_property
    def graph_table(self) -> tf.lookup.StaticHashTable:
        """The lookup table of `graph_encode`. Whoever exports it keeps this table as an attribute of the tf.Module."""
        return _build_table(self.ids, self.rare_id)

    def save(self, path: str) -> None:
        """Writes the tokenizer as JSON; `load_tokenizer` reads it."""
        write_tokenizer(path, kind="characters", num_sentinels=self.num_sentinels, vocabulary=self.vocabulary)

    def __reduce__(self):  # TensorFlow's table does not travel between processes
        return CharTokenizer, (self.vocabulary, self.num_sentinels)


def build_word_tokenizer(
    counts: Counter[str], config: WordsConfig, stop_words: Collection[str] = (), num_sentinels: int = 0
) -> WordTokenizer:
    """The tokenizer of a corpus whose words, after steps 4, 5 and 2, were counted (`words.find_words`)."""
    return WordTokenizer(choose_vocabulary(counts, config), config, stop_words, num_sentinels)


def build_char_tokenizer(counts: Counter[str], config: WordsConfig, num_sentinels: int = 0) -> CharTokenizer:
    """The tokenizer of a corpus whose characters were counted; step 3 alone applies to characters."""
    return CharTokenizer(choose_vocabulary(counts, config), num_sentinels)


def load_tokenizer(path: str) -> Tokenizer:
    """Reads what `save` wrote. Raises UserError for a file that is missing, damaged or of another version."""
    try:
        saved = json.loads(Path(path).read_text(encoding="utf-8"))
        if saved["kind"] == "pieces":
            return SentencePieceTokenizer.from_parts(saved)
        kind, vocabulary, stop_words = saved["kind"], saved["vocabulary"], saved.get("stop_words", [])
        num_sentinels = saved.get("num_sentinels", 0)  # files of the first version have none
        if not all(isinstance(word, str) for word in [*vocabulary, *stop_words]):
            raise ValueError("its words are not all strings")
        if len(set(vocabulary)) != len(vocabulary):
            raise ValueError("a word stands twice in its vocabulary")
        if kind == "characters":
            return CharTokenizer(vocabulary, num_sentinels)
        if kind != "words":
            raise ValueError(f"its kind is {kind!r}")
        pattern = saved["pattern"]
        tokenizer = WordTokenizer(vocabulary, WordsConfig(**saved["config"]), stop_words, num_sentinels)
    except OSError as error:
        raise UserError(
            f"expected a tokenizer at {path}. Received: {error.strerror}. Name the file that one was saved to"
        ) from error
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"expected a tokenizer saved by tf_llm at {path}. Received: a file that is damaged or of another kind "
            f"({error!r}). Run the preparation of the data again"
        ) from error
    if pattern != WORD_PATTERN:
        raise UserError(
            f"expected the word pattern of this version of tf_llm in {path}. Received: {pattern!r}, which cuts words "
            "differently. Use the version that saved the file, or run the preparation of the data again"
        )
    return tokenizer


def _look_up(says: list[str], ids: Sequence[int]) -> list[str]:
    first = len(SPECIAL_TOKENS)
    return [says[id - first] for id in ids if id >= first]


def _gather_words(says: list[str], ids: tf.Tensor) -> tf.RaggedTensor:
    """int32 [B, T] -> string [B, None], special ids left out."""
    import tensorflow as tf

    first = len(SPECIAL_TOKENS)
    ids = tf.ragged.boolean_mask(ids, ids >= first)
    return tf.ragged.map_flat_values(lambda flat: tf.gather(tf.constant(says, tf.string), flat - first), ids)


def _build_table(ids: dict[str, int], default: int) -> tf.lookup.StaticHashTable:
    import tensorflow as tf

    # A table must not be empty, so the special tokens, which no text can spell as one token, stand in it too.
    ids = dict.fromkeys(SPECIAL_TOKENS, DROPPED) | ids
    with tf.init_scope():  # made once, outside of whatever graph is being traced
        initializer = tf.lookup.KeyValueTensorInitializer(list(ids), list(ids.values()), tf.string, tf.int32)
        return tf.lookup.StaticHashTable(initializer, default)
