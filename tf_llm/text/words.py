r"""Steps 2 to 5 of the article: text in, words out.

The article names five steps: (1) strip HTML, (2) remove stop words, (3) remove low-frequency words, (4) lower-case,
(5) split into words. They keep its numbers here and run in the order in which they work:

    1. strip HTML      text/html.py
    4. lower-case      `lower_case`           a stop word at the head of a sentence is a stop word too
    5. words           `split_words`          NLTK
    2. stop words      `remove_stop_words`    NLTK's list, or our own
    3. rare words      `choose_vocabulary` counts over the corpus, `remove_rare_words` goes by the result

What a word is. Words are what NLTK's RegexpTokenizer finds with the pattern in word_pattern.py, which uses nothing that
RE2, the engine inside TensorFlow, does not have: a served model finds the same words in its graph. Against
`nltk.word_tokenize`, whose patterns need look-around and so cannot enter a graph, these things differ:

    text          word_tokenize        split_words
    don't we      do n't we            don't we            whole, as in NLTK's list of stop words
    dog's tail    dog 's tail          dog's tail
    cannot        can not              cannot              so with gonna, gimme, …
    it’s late     it ’ s late          it’s late           the typographic apostrophe joins as well
    "so" what     `` so '' what        " so " what         the signs of the text, as they are
    well ... -    well ... -           well . . . -        one sign, one token
    U.S. law      U.S. law             U . S . law         no list of abbreviations
    and/or a.b    and/or a.b           and / or a . b      only apostrophes and hyphens join
    12:30 C++     12:30 C++            12 : 30 C + +
    1,000-year    1,000-year           1,000 - year

Writing without spaces between words (Chinese, Japanese, Thai) comes out as whole clauses from both.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import logging
import os
import threading
import zipfile
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from tf_llm.text.word_pattern import WORD_PATTERN, Pattern

logger = logging.getLogger(__name__)

STOP_WORDS = ("nltk", "own", "none")
RARE_WORDS = ("remove", "unknown")
DOWNLOAD_SECONDS = 3.0
_words = Pattern(WORD_PATTERN)


@dataclasses.dataclass(frozen=True, kw_only=True)
class WordsConfig:
    """The switches of steps 2 to 5."""

    lower_case: bool = True  # step 4
    stop_words: str = "nltk"  # step 2: "nltk" (our own where NLTK's cannot be had), "own", or "none": nothing removed
    minimum_count: int = 2  # step 3: a word seen less often in the corpus is rare; 1 keeps all
    vocabulary_size: int = 8_000  # step 3: at most so many words are kept, the most frequent ones
    rare_words: str = "remove"  # step 3: "remove" them, or keep their place as "unknown"

    def __post_init__(self):
        for name, known in (("stop_words", STOP_WORDS), ("rare_words", RARE_WORDS)):
            if getattr(self, name) not in known:
                raise ValueError(f"words.{name} expected one of {sorted(known)}. Received: {getattr(self, name)!r}")
        for name in ("minimum_count", "vocabulary_size"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"words.{name} expected a whole number of at least 1. Received: {value!r}")


def lower_case(text: str) -> str:
    """Step 4. Small letters in place of capitals.

    >>> lower_case("The Transformer, ΟΔΟΣ")
    'the transformer, οδος'
    """
    return text.lower()


def split_words(text: str) -> list[str]:
    """Step 5. Words, numbers and single signs; white space separates and is dropped.

    >>> split_words("In 2017, well-known models weren't 3.5 times better (yet)!")
    ['In', '2017', ',', 'well-known', 'models', "weren't", '3.5', 'times', 'better', '(', 'yet', ')', '!']
    """
    return _words.findall(text)


def remove_stop_words(words: Sequence[str], stop_words: Collection[str]) -> list[str]:
    """Step 2. Drops the words of the list, which are in small letters: run step 4 first.

    >>> remove_stop_words(["the", "cat", "isn't", "on", "the", "mat"], {"the", "on", "isn't"})
    ['cat', 'mat']
    """
    return [word for word in words if word not in stop_words]


def choose_vocabulary(counts: Counter[str], config: WordsConfig) -> list[str]:
    """Step 3, the choice: the words that are not rare in the corpus, most frequent first, ties by alphabet.

    >>> counts = Counter(["cat", "mat", "cat", "dog", "ant", "dog", "owl"])
    >>> choose_vocabulary(counts, WordsConfig(minimum_count=2))
    ['cat', 'dog']
    >>> choose_vocabulary(counts, WordsConfig(minimum_count=1, vocabulary_size=3))
    ['cat', 'dog', 'ant']
    """
    frequent = [word for word, count in counts.items() if count >= config.minimum_count]
    return sorted(frequent, key=lambda word: (-counts[word], word))[: config.vocabulary_size]


def remove_rare_words(words: Sequence[str], vocabulary: Collection[str]) -> list[str]:
    """Step 3, the deed: keeps what is in the vocabulary, which should be a set or a dictionary.

    >>> remove_rare_words(["cat", "yak", "dog"], {"cat", "dog"})
    ['cat', 'dog']
    """
    return [word for word in words if word in vocabulary]


def find_words(
    text: str, config: WordsConfig, stop_words: Collection[str], removed: Counter[str] | None = None
) -> list[str]:
    """Steps 4, 5 and 2 as the config has them: what one text gives to the counts of the corpus.

    `removed`, if given, is added to: "capital letters", "stop words". What step 3 removes follows from the counts of
    the corpus, see `count_rare_words`.

    >>> removed = Counter()
    >>> find_words("The cat is on THE mat.", WordsConfig(), {"the", "is", "on"}, removed)
    ['cat', 'mat', '.']
    >>> removed
    Counter({'capital letters': 4, 'stop words': 4})
    """
    lowered = lower_case(text) if config.lower_case else text
    words = split_words(lowered)
    kept = remove_stop_words(words, stop_words) if config.stop_words != "none" else words
    if removed is not None:
        removed["capital letters"] += count_differences(text, lowered)
        removed["stop words"] += len(words) - len(kept)
    return kept


def count_differences(text: str, lowered: str) -> int:
    """How many characters of a text lower-casing changed.

    >>> count_differences("The Cat", "the cat"), count_differences("İzmir", "İzmir".lower())  # i and a dot for İ
    (2, 1)
    """
    if len(text) != len(lowered):
        return sum(character != character.lower() for character in text)
    before, after = (np.frombuffer(side.encode("utf-32-le", "surrogatepass"), "<u4") for side in (text, lowered))
    return int(np.count_nonzero(before != after))


def count_rare_words(counts: Counter[str], vocabulary: Collection[str]) -> int:
    """How many words of the corpus, repetitions included, step 3 removes.

    >>> count_rare_words(Counter(cat=5, yak=1, owl=2), ["cat"])
    3
    """
    return counts.total() - sum(counts[word] for word in vocabulary)


def load_stop_words(choice: str = "nltk") -> tuple[frozenset[str], str]:
    """The stop words for `WordsConfig.stop_words` and where they come from, which is logged.

    "nltk" looks in NLTK's data folders, then tries for 3 seconds to download the list into the user's cache (unless the
    environment variable TF_LLM_OFFLINE is set), then falls back on our own. Words with an apostrophe stand in the set
    in both spellings, don't and don’t. Call it once and hand the set to worker processes.
    """
    if choice == "none":
        words, origin = [], "no stop words"
    elif choice == "nltk" and (words := _read_nltk_list() or _download_nltk_list()):
        origin = f"NLTK's English list, {len(words)} words"
    else:
        words = _read_own_list()
        missed = " (NLTK's is neither installed nor to be downloaded)" if choice == "nltk" else ""
        origin = f"tf_llm's own English list, {len(words)} words{missed}"
    logger.info("stop words: %s", origin)
    return frozenset(words) | {word.replace("'", "’") for word in words}, origin


def _read_own_list() -> list[str]:
    lines = Path(__file__).with_name("stop_words.txt").read_text(encoding="utf-8").splitlines()
    return [word for line in lines if not line.startswith("#") for word in line.split()]


def _read_nltk_list() -> list[str]:
    import nltk  # takes two seconds where SciPy is installed, and worker processes need none of it

    cache = str(_cache_folder())
    if cache not in nltk.data.path:
        nltk.data.path.append(cache)
    with contextlib.suppress(LookupError, OSError, ValueError, zipfile.BadZipFile):  # absent or damaged
        return nltk.data.load("corpora/stopwords/english", format="text", cache=False).split()
    return []


@functools.cache  # one attempt per process
def _download_nltk_list() -> list[str]:
    if os.environ.get("TF_LLM_OFFLINE"):
        return []
    import nltk

    def download():
        with contextlib.suppress(Exception):  # whatever goes wrong out there, our own list stands in
            nltk.download("stopwords", download_dir=str(_cache_folder()), quiet=True, print_error_to=io.StringIO())

    # A name server that does not answer can block for a minute and knows no time limit: wait in a thread instead.
    attempt = threading.Thread(target=download, daemon=True)
    attempt.start()
    attempt.join(DOWNLOAD_SECONDS)
    return _read_nltk_list() if not attempt.is_alive() else []


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tf_llm" / "nltk_data"
