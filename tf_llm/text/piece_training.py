"""Which pieces a corpus is made of: training the model of a `SentencePieceTokenizer`.

"unigram" starts with many pieces and drops those whose loss the likelihood of the corpus minds least (Kudo, "Subword
regularization", 2018); "bpe" starts with characters and joins the pair that is seen most (Sennrich, Haddow and Birch,
"Neural machine translation of rare words with subword units", 2016).

    >>> tokenizer = build_sentence_piece_tokenizer(["low lower lowest"] * 9, vocabulary_size=275, kind="bpe")
    >>> tokenizer.vocabulary[258:266]  # after the line ends and the bytes
    ['lo', 'low', '▁low', '▁lowe', 'st', '▁lower', '▁lowest', 'er']
"""

from __future__ import annotations

import io
import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import sentencepiece

from tf_llm.contracts import END_ID, PAD_ID, SPECIAL_TOKENS, UNKNOWN_ID, UserError
from tf_llm.text.sentence_pieces import LINE_ENDS, SURROGATES, SentencePieceTokenizer

logger = logging.getLogger(__name__)

KINDS = ("unigram", "bpe")
# Training takes time in proportion to the text, and learns little from more than this.
MAX_CHARACTERS = 8_000_000
MAX_LINE = 4_000  # characters; longer lines are cut, since one of a megabyte would be one word of a megabyte
COVERAGE = 0.9995  # of the characters of the corpus have pieces of their own, if there is room; the others are spelled
UNTRAINABLE = frozenset("\t\n\u2581\u2585")  # the trainer uses them as marks of its own, and skips lines that have them
FIXED = 256 + len(LINE_ENDS) + 1  # pieces that every vocabulary has: the bytes, the line ends, the space
SMALLEST = FIXED + 2  # characters are at most half of the rest


def build_sentence_piece_tokenizer(
    texts: Iterable[str], vocabulary_size: int, kind: str = "unigram", num_sentinels: int = 0
) -> SentencePieceTokenizer:
    """Trains the tokenizer of a corpus. The same texts give the same model, byte for byte.

    Args:
        texts: read once; of a long corpus, texts spread evenly over it are kept (`MAX_CHARACTERS`).
        vocabulary_size: pieces, of which 256 are the bytes; special tokens and sentinels come on top. A small corpus
            gives fewer, which is logged.
        kind: "unigram" or "bpe".
        num_sentinels: how many ids follow the pieces.

    Raises:
        UserError: the corpus has no text, or the vocabulary has no room beside the bytes.
    """
    if kind not in KINDS:
        raise ValueError(f"kind expected one of {sorted(KINDS)}. Received: {kind!r}")
    require_room(vocabulary_size)
    lines = list(cut_lines(sample_texts(texts), (vocabulary_size - FIXED) // 2))
    if not lines:
        raise UserError("expected texts to find pieces in. Received: none but empty ones. Take more pages, or others")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type=kind,
        vocab_size=vocabulary_size + len(SPECIAL_TOKENS),
        hard_vocab_limit=False,
        pad_id=PAD_ID,
        eos_id=END_ID,
        unk_id=UNKNOWN_ID,
        bos_id=-1,  # there is none
        pad_piece=SPECIAL_TOKENS[PAD_ID],
        eos_piece=SPECIAL_TOKENS[END_ID],
        unk_piece=SPECIAL_TOKENS[UNKNOWN_ID],
        byte_fallback=True,
        character_coverage=1.0,  # `cut_lines` has chosen the characters
        user_defined_symbols=list(LINE_ENDS),
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=True,
        max_sentence_length=4 * MAX_LINE,  # in bytes
        num_threads=2,  # fixed: sums of rounded numbers differ with the number of threads
        minloglevel=2,  # errors only, and those are raised
    )
    tokenizer = SentencePieceTokenizer(model.getvalue(), num_sentinels)
    if (size := len(tokenizer.vocabulary)) < vocabulary_size:
        logger.info("the corpus has no more than %s pieces, of %s asked for", f"{size:,}", f"{vocabulary_size:,}")
    return tokenizer


def require_room(vocabulary_size: int) -> None:
    """Raises UserError where a vocabulary is too small for pieces."""
    if vocabulary_size < SMALLEST:
        raise UserError(
            f"expected words.vocabulary_size of at least {SMALLEST} for pieces, since 256 of them are the bytes. "
            f"Received: {vocabulary_size}. Take more, or other tokens"
        )


def sample_texts(texts: Iterable[str], max_characters: int = MAX_CHARACTERS) -> list[str]:
    """Every text, or every second, fourth, … of them, such that all fit. Holds at most one text more at a time.

    >>> sample_texts(["aa", "bb", "cc", "dd", "ee"], max_characters=6)
    ['aa', 'cc', 'ee']
    """
    kept, size, step = [], 0, 1
    for number, text in enumerate(texts):
        if number % step:
            continue
        kept.append(text[:max_characters])
        size += len(kept[-1])
        while size > max_characters:
            kept, step = kept[::2], 2 * step
            size = sum(map(len, kept))
    return kept


def cut_lines(texts: Sequence[str], max_characters: int) -> Iterator[str]:
    """The lines of texts, cut wherever there is a character that gets no piece of its own.

    Pieces of their own get the most frequent characters, at most so many, that make up `COVERAGE` of the texts.

    >>> list(cut_lines(["abc\\nab", "", "a b"], max_characters=2))
    ['ab', 'ab', 'a b']
    """
    counts = Counter()
    for text in texts:
        counts.update(text)
    for character in UNTRAINABLE | {" "} | set(filter(SURROGATES.match, counts)):
        del counts[character]
    alphabet, left = [], counts.total() * (1 - COVERAGE)
    rest = counts.total()
    for character in sorted(counts, key=lambda character: (-counts[character], character))[:max_characters]:
        if rest <= left:
            break
        alphabet.append(character)
        rest -= counts[character]
    if not alphabet:
        return
    line = re.compile(f"[ {re.escape(''.join(alphabet))}]{{1,{MAX_LINE}}}")
    for text in texts:
        yield from (found for found in line.findall(text) if not found.isspace())
