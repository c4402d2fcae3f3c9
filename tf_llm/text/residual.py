"""What a recipe throws away, and what it would cost to say it: the second part of "bits per byte of the original text".

Removing stop words, rare words and capitals makes a text cheaper to predict because there is less of it. To compare
recipes, everything in the text has to be paid for: the model pays for the ids that are kept, and a simple coder, the
same for every recipe, pays for the rest. `UnigramCoder.residual` takes a text apart so that the ids and the residual
together give back every character (`restore` does it), and `nats` prices the residual: every stream of symbols by how
often its symbols occurred in training texts, whatever stood before them.

The streams for words:

    slots      for each word KEPT, or the word itself if it was dropped (stop words, rare words); then STOP
    unknown    for each UNKNOWN_ID among the kept ids, the word behind it
    case       for each word with small letters: were they "lower", "Title", "UPPER" or "mixed" in the text
    mixed      the spelling of each mixed word
    word gaps  the white space before each word that starts with a letter or digit
    sign gaps  the white space before each other word, and after the last

For characters there is "unknown" only, and for pieces nothing, since they leave nothing out. A symbol that the training
texts did not have is announced by an escape and spelled out in bytes (the escape probability is method C of Moffat,
"Implementing the PPM data compression scheme", 1990, plus one, so that a stream that was never seen has one too).

    >>> from tf_llm.text.tokenizers import WordTokenizer
    >>> from tf_llm.text.words import WordsConfig
    >>> coder = UnigramCoder(WordTokenizer(["cat", "mat"], WordsConfig(), {"the", "on"}))
    >>> coder.update("The cat on the mat. The dog on the mat.")
    >>> ids, residual = coder.tokenizer.encode("The cat"), coder.residual("The cat")
    >>> residual["slots"], residual["case"], residual["word gaps"]
    (['the', 'kept word', ' '], ['Title', 'lower'], ['', ' '])
    >>> coder.restore(ids, residual)
    'The cat'
    >>> coder.nats("The cat") < coder.nats("The yak")  # no training text had a yak: it has to be spelled
    True
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from tf_llm.contracts import SPECIAL_TOKENS, UNKNOWN_ID
from tf_llm.text.sentence_pieces import SentencePieceTokenizer
from tf_llm.text.tokenizers import DROPPED, CharTokenizer, WordTokenizer
from tf_llm.text.word_pattern import WORD_PATTERN, Pattern
from tf_llm.text.words import lower_case

Residual = dict[str, list[str]]  # stream -> its symbols in the order of the text
Counts = dict[str, Mapping[str, int]]  # stream -> symbol -> occurrences; plain data, ready for JSON and other processes

WORD_STREAMS = ("slots", "unknown", "case", "mixed", "word gaps", "sign gaps")
SIGMA = "Σ"  # the one letter whose small form depends on what stands around it, beyond the word even
KEPT, STOP = "kept word", " "  # white space is in no word, so neither can be mistaken for one
CASES = {"lower": str, "Title": lambda word: word[:1].upper() + word[1:], "UPPER": str.upper}
_words_and_gaps = Pattern(f"({WORD_PATTERN})")


class UnigramCoder:
    """Prices the residual of texts under one tokenizer. Begins with no counts; `update` it with training texts.

    Raises ValueError for a tokenizer of pieces that changes texts before it cuts them (`is_lossless`): what it changed
    has no price here.
    """

    def __init__(self, tokenizer: WordTokenizer | CharTokenizer | SentencePieceTokenizer):
        if isinstance(tokenizer, SentencePieceTokenizer) and not tokenizer.is_lossless:
            raise ValueError(
                "tokenizer expected to be of words, of characters, or lossless. Received: pieces of a model from "
                "elsewhere, which normalises texts at no price. Train pieces with piece_training.py"
            )
        self.tokenizer = tokenizer
        self.counts: dict[str, Counter[str]] = {}  # stream -> symbol -> how often the training texts had it
        self.totals: Counter[str] = Counter()  # stream -> symbols counted
        self.bytes: Counter[int] = Counter()  # byte -> occurrences in the spellings of different symbols
        self.spelled_bytes = 0  # their sum
        self.spellings = 0  # different symbols, each counted once a stream

    def update(self, text: str) -> None:
        """Counts the residual of a training text."""
        self.merge(self.count(text))

    def count(self, text: str) -> Counts:
        """How often each symbol of each stream stands in the residual of a text; adds nothing to the coder."""
        tally = Tally(self)
        tally.add(text)
        return tally.counts()

    def merge(self, counts: Counts) -> None:
        """Adds what `count` found, here or in another process, in training texts."""
        for stream, symbols in counts.items():
            known = self.counts.setdefault(stream, Counter())
            new = [symbol for symbol in symbols if symbol not in known]
            spelled = b"".join(map(_spell, new))
            self.bytes.update(spelled)
            self.spelled_bytes += len(spelled)
            self.spellings += len(new)
            known.update(symbols)
            self.totals[stream] += sum(symbols.values())

    def nats(self, text: str) -> float:
        """The cost of the residual of a text: the sum of -ln p over the symbols of all streams."""
        return sum(self.price(self.count(text)).values())

    def price(self, counts: Counts) -> dict[str, float]:
        """The cost in nats, stream by stream, of what `count` found in one text or, added up, in many."""
        return {
            stream: -sum(count * self.log_probability(stream, symbol) for symbol, count in symbols.items())
            for stream, symbols in counts.items()
        }

    def log_probability(self, stream: str, symbol: str) -> float:
        """ln p of one symbol. Over all strings there are, the p of a stream sum to at most one."""
        known = self.counts.get(stream, {})
        everything = self.totals[stream] + len(known) + 1
        if count := known.get(symbol):
            return math.log(count / everything)
        return math.log((len(known) + 1) / everything) + self._spelling_log_probability(symbol)

    def _spelling_log_probability(self, symbol: str) -> float:
        """ln p of the bytes of a symbol and of the end after them, with one added to each of the 257 counts."""
        everything = math.log(self.spelled_bytes + self.spellings + 257)
        bytes_ = sum(math.log(self.bytes[byte] + 1) - everything for byte in _spell(symbol))
        return bytes_ + math.log(self.spellings + 1) - everything

    def residual(self, text: str) -> Residual:
        """All there is in a text beside the ids that the tokenizer keeps of it."""
        if isinstance(self.tokenizer, SentencePieceTokenizer):
            return {}
        if isinstance(self.tokenizer, CharTokenizer):
            return {"unknown": [character for character in text if character not in self.tokenizer.ids]}
        gaps, originals, last_gap = self.cut(text)
        streams: Residual = {name: [] for name in WORD_STREAMS}
        # Lower-casing moves no bounds of words, so the words of the text and of the lowered text come in pairs.
        for gap, original, word in zip(gaps, originals, self.tokenizer.words(text), strict=True):
            streams[_gap_stream(word)].append(gap)
            for stream, symbol in self.describe(original, word):
                streams[stream].append(symbol)
        streams["slots"].append(STOP)
        streams["sign gaps"].append(last_gap)
        return streams

    def cut(self, text: str) -> tuple[list[str], list[str], str]:
        """The white space before each word, each word as it is written, and the space behind the last."""
        *parts, last_gap = _words_and_gaps.split(text)  # gap, word, gap, word, …, gap
        return parts[0::2], parts[1::2], last_gap

    def see(self, word: str) -> str:
        """A word as the tokenizer sees it in a text, whatever stands around it: not for words with SIGMA."""
        return lower_case(word) if self.tokenizer.config.lower_case else word

    def describe(self, original: str, word: str) -> list[tuple[str, str]]:
        """What has to be said of a word, as (stream, symbol), beside its gap."""
        id = self.tokenizer.ids.get(word, self.tokenizer.rare_id)
        said = [("slots", word if id == DROPPED else KEPT)]
        if id == UNKNOWN_ID:
            said.append(("unknown", word))
        if self._has_case(word):
            is_lower = original == word  # of nine words in ten: look no further
            case = "lower" if is_lower else next((c for c, apply in CASES.items() if apply(word) == original), "mixed")
            said.append(("case", case))
            if case == "mixed":
                said.append(("mixed", original))
        return said

    def restore(self, ids: Sequence[int], residual: Residual) -> str:
        """The text again, from the ids that were kept and the residual: the proof that nothing goes unpaid."""
        if isinstance(self.tokenizer, SentencePieceTokenizer):
            return self.tokenizer.decode(ids)
        streams = {name: iter(symbols) for name, symbols in residual.items()}
        vocabulary = [*SPECIAL_TOKENS, *self.tokenizer.vocabulary]
        kept = (next(streams["unknown"]) if id == UNKNOWN_ID else vocabulary[id] for id in ids)
        if isinstance(self.tokenizer, CharTokenizer):
            return "".join(kept)
        text = []
        for slot in itertools.takewhile(lambda slot: slot != STOP, streams["slots"]):
            word = next(kept) if slot == KEPT else slot
            text.append(next(streams[_gap_stream(word)]))
            if self._has_case(word):
                case = next(streams["case"])
                word = next(streams["mixed"]) if case == "mixed" else CASES[case](word)
            text.append(word)
        return "".join(text) + next(streams["sign gaps"])

    def _has_case(self, word: str) -> bool:
        """Whether lower-casing may have changed a word; both sides can tell from what is left of it."""
        return self.tokenizer.config.lower_case and word != word.upper()


class Tally:
    """Counts the symbols in the residuals of many texts: what adding up `UnigramCoder.count` gives, in less time.

    What is said of a word depends on how it is written and on nothing else, so words are counted first, and each kind
    is described once at the end.

    >>> from tf_llm.text.tokenizers import CharTokenizer
    >>> tally = Tally(UnigramCoder(CharTokenizer(["e", "t"])))
    >>> tally.add("tea")
    >>> tally.add("eat it")
    >>> tally.counts()
    {'unknown': Counter({'a': 2, ' ': 1, 'i': 1})}
    """

    def __init__(self, coder: UnigramCoder):
        self.coder = coder
        self._streams: dict[str, Counter[str]] = defaultdict(Counter)
        self._words: Counter[str] = Counter()  # as they are written
        self._pairs: Counter[tuple[str, str]] = Counter()  # (as it is written, as the tokenizer sees it)
        self._gaps: Counter[tuple[str, str]] = Counter()  # (white space, first character of the word behind it)

    def add(self, text: str) -> None:
        """Counts a text."""
        if not isinstance(self.coder.tokenizer, WordTokenizer):
            for stream, symbols in self.coder.residual(text).items():
                self._streams[stream].update(symbols)
            return
        gaps, originals, last_gap = self.coder.cut(text)
        if SIGMA in text:
            self._pairs.update(zip(originals, self.coder.tokenizer.words(text), strict=True))
        else:
            self._words.update(originals)
        self._gaps.update(zip(gaps, [word[0] for word in originals], strict=True))
        for stream, symbol in (("slots", STOP), ("sign gaps", last_gap)):
            self._streams[stream][symbol] += 1

    def counts(self) -> Counts:
        """Stream -> symbol -> occurrences in all texts."""
        streams = defaultdict(Counter, {name: Counter(symbols) for name, symbols in self._streams.items()})
        for (gap, first), count in self._gaps.items():
            streams[_gap_stream(first)][gap] += count
        alone = (((word, self.coder.see(word)), count) for word, count in self._words.items())
        for (original, word), count in itertools.chain(alone, self._pairs.items()):
            for stream, symbol in self.coder.describe(original, word):
                streams[stream][symbol] += count
        return dict(streams)


def _gap_stream(word: str) -> str:
    return "word gaps" if word[0].isalnum() else "sign gaps"


def _spell(symbol: str) -> bytes:
    return symbol.encode("utf-8", errors="surrogatepass")
