r"""Text to token ids by pieces of words: SentencePiece (Kudo and Richardson, 2018), trained here or taken from T5.

Every text can be spelled, since a character without a piece is spelled in bytes; piece_training.py finds the pieces.

SentencePiece marks words by a space in front, shown as ▁ (U+2581), and puts one in front of the text. Four rewritings
(`ESCAPE`, undone by `UNESCAPE`) make `decode(encode(text)) == text` hold for every text, and a word the same piece
wherever it stands; E is U+E000, a character for private use:

    text      rewritten   why
    E         Ee          makes room for the next two
    ▁         Eu          SentencePiece would give it back as a space
    \n word   En word     the line end in front of a space; \n and En are one piece each
    \nword    \n word     the head of a line is spelled as a word within it

Lone surrogates are the exception: they are no Unicode text, and become U+FFFD. The rewritings are done by the same
patterns in Python (`re`) and in the graph (RE2). `graph_encode` needs tensorflow-text, `graph_decode` core ops only.

    >>> from tf_llm.text.piece_training import build_sentence_piece_tokenizer
    >>> tokenizer = build_sentence_piece_tokenizer(["the cat sat on the mat\n"] * 9, vocabulary_size=290, kind="bpe")
    >>> ids = tokenizer.encode("the cat\nthe yak")
    >>> [tokenizer.spellings[id] for id in ids]
    [b' the', b' cat', b'\n', b' the', b' ', b'y', b'a', b'k']
    >>> tokenizer.decode(ids)
    'the cat\nthe yak'
"""

from __future__ import annotations

import base64
import functools
import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sentencepiece

from tf_llm.contracts import END_ID, PAD_ID, SPECIAL_TOKENS, UNKNOWN_ID, UserError
from tf_llm.text.tokens import name_sentinels, write_tokenizer

if TYPE_CHECKING:
    import tensorflow as tf
    import tensorflow_text

SPACE, ESCAPE_SIGN = "\u2581", "\ue000"
# Patterns and replacements that mean the same to `re` and to RE2, in the order in which they are applied.
ESCAPE = (
    (ESCAPE_SIGN, f"{ESCAPE_SIGN}e"),
    (SPACE, f"{ESCAPE_SIGN}u"),
    ("\n ", f"{ESCAPE_SIGN}n "),
    (f"\n([^\n{ESCAPE_SIGN}])", "\n \\1"),
)
UNESCAPE = (
    ("^ ", ""),  # the one that SentencePiece puts in front
    (f"\n ([^\n{ESCAPE_SIGN}])", "\n\\1"),
    (f"{ESCAPE_SIGN}n", "\n"),
    (f"{ESCAPE_SIGN}u", SPACE),
    (f"{ESCAPE_SIGN}e", ESCAPE_SIGN),
)
STRIP = (("^ +", ""),)  # all there is to undo for foreign models
SURROGATES = re.compile("[\ud800-\udfff]")
LINE_ENDS = ("\n", f"{ESCAPE_SIGN}n")  # the pieces of a line end


class SentencePieceTokenizer:
    """The pieces of a SentencePiece model, under the ids that the model gives them, and sentinels behind them.

    Args:
        model: the serialised model. Its padding, end and unknown are 0, 1 and 2, as in contracts.py and in T5.
        num_sentinels: how many ids follow the pieces.
        is_lossless: whether the model was trained here, so that every text comes back as it was, and `encode` never
            yields a sentinel, whatever stands in a text. Models from elsewhere (`from_model`) normalise the text first,
            and find their sentinels in it: `<extra_id_0>`.

    Raises:
        ValueError: the bytes are no such model.
    """

    def __init__(self, model: bytes, num_sentinels: int = 0, is_lossless: bool = True):
        self.model, self.num_sentinels, self.is_lossless = model, num_sentinels, is_lossless
        self.processor = _load_processor(model)
        ids = range(self.processor.get_piece_size())
        self.vocabulary = [self.processor.id_to_piece(id) for id in ids[len(SPECIAL_TOKENS) :]]
        self.sentinel_ids = {name: id for id, name in enumerate(name_sentinels(num_sentinels), start=len(ids))}
        self.vocabulary_size = len(ids) + num_sentinels
        # What each id adds to a text, in UTF-8 [V].
        self.spellings = [_spell(self.processor, id) for id in ids] + [name.encode() for name in self.sentinel_ids]
        numbers = "|".join(map(str, range(num_sentinels)))
        self.sentinel_pattern = f"(<extra_id_(?:{numbers})>)" if numbers and not is_lossless else ""

    @classmethod
    def from_model(cls, model: str | os.PathLike | bytes, num_sentinels: int = 100) -> SentencePieceTokenizer:
        """The tokenizer of a model from elsewhere, such as T5's `spiece.model`: a path, or the bytes.

        The ids are those of Hugging Face's T5Tokenizer (release 5): white space around a sentinel is dropped, and text
        behind it begins with a space. Three things differ: there `</s>`, `<pad>` and `<unk>` in a text become their
        ids, here no text can forge an end; the next-line character U+0085 is unknown here and a space there, alone of
        all; and special ids say nothing in `decode`.

        Raises UserError where the file cannot be read or is no such model.

        >>> tokenizer = SentencePieceTokenizer.from_model("t5-small/spiece.model")  # doctest: +SKIP
        >>> tokenizer.encode("The <extra_id_0> walks")                              # doctest: +SKIP
        [37, 32099, 10681]
        """
        name, remedy = "the bytes" if isinstance(model, bytes) else model, "Name a file such as T5's spiece.model"
        try:
            content = model if isinstance(model, bytes) else Path(model).read_bytes()
            return cls(content, num_sentinels, is_lossless=False)
        except OSError as error:
            raise UserError(
                f"expected a SentencePiece model at {name}. Received: {error.strerror}. {remedy}"
            ) from error
        except ValueError as error:
            raise UserError(f"expected a SentencePiece model in {name}. Received: {error}. {remedy}") from error

    def encode(self, text: str) -> list[int]:
        text = SURROGATES.sub("\ufffd", text)
        if self.is_lossless:
            return self.processor.encode(_rewrite(text, ESCAPE))
        ids: list[int] = []
        for part in re.split(self.sentinel_pattern, text) if self.sentinel_pattern else [text]:
            ids += [self.sentinel_ids[part]] if part in self.sentinel_ids else self.processor.encode(part)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text. Special ids say nothing, nor do ids past the vocabulary, which T5's tables have room for."""
        spelled = b"".join([self.spellings[id] for id in ids if 0 <= id < self.vocabulary_size])
        return _rewrite(spelled.decode("utf-8", "replace"), UNESCAPE if self.is_lossless else STRIP)

    def graph_encode(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """`encode` as TensorFlow ops: string [B] -> int32 [B, None]. See `graph_table` for export.

        Raises UserError where tensorflow-text is not installed.
        """
        import tensorflow as tf

        texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8")  # what is no UTF-8 becomes U+FFFD
        if self.is_lossless:
            return self.graph_table.tokenize(_graph_rewrite(texts, ESCAPE))
        if not self.sentinel_pattern:
            return self.graph_table.tokenize(texts)
        # A byte that is in no text stands around sentinels, so that cutting there gives texts and sentinels in turn.
        parts = tf.strings.split(tf.strings.regex_replace(texts, self.sentinel_pattern, b"\xff\\1\xff"), b"\xff")
        flat = parts.values  # [P]
        is_sentinel = tf.strings.regex_full_match(flat, self.sentinel_pattern)
        numbers = tf.strings.regex_replace(tf.where(is_sentinel, flat, "0"), r"\D", "")
        sentinels = self.vocabulary_size - 1 - tf.strings.to_number(numbers, tf.int32)
        sentinels = tf.ragged.boolean_mask(sentinels[:, None], is_sentinel[:, None])  # [P, 0 or 1]
        ids = tf.concat([self.graph_table.tokenize(tf.where(is_sentinel, "", flat)), sentinels], axis=1)
        return parts.with_values(ids).merge_dims(1, 2)  # [B, None]

    def graph_decode(self, ids: tf.Tensor) -> tf.Tensor:
        """`decode` as TensorFlow ops: int32 [B, T] -> string [B]."""
        import tensorflow as tf

        ids = tf.where((ids >= 0) & (ids < self.vocabulary_size), ids, PAD_ID)
        spelled = tf.strings.reduce_join(tf.gather(tf.constant(self.spellings, tf.string), ids), axis=-1)
        text = tf.strings.unicode_transcode(spelled, "UTF-8", "UTF-8")
        return _graph_rewrite(text, UNESCAPE if self.is_lossless else STRIP)

    @functools.cached_property
    def graph_table(self) -> tensorflow_text.SentencepieceTokenizer:
        """What `graph_encode` looks up in. Whoever exports it keeps this as an attribute of the tf.Module, and imports
        tensorflow_text before the export is loaded."""
        import tensorflow as tf

        try:
            import tensorflow_text
        except (ImportError, tf.errors.NotFoundError) as error:  # absent, or made for another TensorFlow
            raise UserError(
                f"expected tensorflow-text of the same minor version as TensorFlow {tf.__version__}. Received: "
                f"{' '.join(str(error).split())}. Without it pieces cannot be found inside a graph, so the tokenizer "
                "cannot be exported or served there; encode and decode work. Install tensorflow-text (there is none "
                "for Windows), or encode outside of the graph"
            ) from error
        with tf.init_scope():  # made once, outside of whatever graph is being traced
            return tensorflow_text.SentencepieceTokenizer(self.model)

    def save(self, path: str) -> None:
        """Writes the tokenizer as JSON; `load_tokenizer` reads it."""
        write_tokenizer(
            path,
            kind="pieces",
            num_sentinels=self.num_sentinels,
            is_lossless=self.is_lossless,
            sha256=hashlib.sha256(self.model).hexdigest(),
            model=base64.b64encode(self.model).decode(),
        )

    @classmethod
    def from_parts(cls, saved: Mapping[str, Any]) -> SentencePieceTokenizer:
        """What `save` wrote, read as JSON. Raises KeyError, TypeError or ValueError where it is damaged."""
        model = base64.b64decode(saved["model"], validate=True)
        if hashlib.sha256(model).hexdigest() != saved["sha256"]:
            raise ValueError("its model does not match its checksum")
        return cls(model, saved["num_sentinels"], bool(saved["is_lossless"]))

    def __reduce__(self):  # neither SentencePiece's processor nor TensorFlow's travels between processes
        return SentencePieceTokenizer, (self.model, self.num_sentinels, self.is_lossless)


def _load_processor(model: bytes) -> sentencepiece.SentencePieceProcessor:
    try:
        processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        size, ids = processor.get_piece_size(), (processor.pad_id(), processor.eos_id(), processor.unk_id())
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"no SentencePiece model ({' '.join(str(error).split())})") from error
    if ids != (PAD_ID, END_ID, UNKNOWN_ID) or size <= len(SPECIAL_TOKENS):
        raise ValueError(f"{size} pieces with padding, end and unknown at {ids}, not at 0, 1 and 2")
    return processor


def _spell(processor: sentencepiece.SentencePieceProcessor, id: int) -> bytes:
    if processor.is_control(id) or processor.is_unknown(id):
        return b""
    piece = processor.id_to_piece(id)
    return bytes([int(piece[3:5], 16)]) if processor.is_byte(id) else piece.replace(SPACE, " ").encode()


def _rewrite(text: str, rules: Iterable[tuple[str, str]]) -> str:
    for pattern, replacement in rules:
        text = re.sub(pattern, replacement, text)
    return text


def _graph_rewrite(texts: tf.Tensor, rules: Iterable[tuple[str, str]]) -> tf.Tensor:
    import tensorflow as tf

    for pattern, replacement in rules:
        texts = tf.strings.regex_replace(texts, pattern, replacement)
    return texts
