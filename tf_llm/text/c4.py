r"""C4's rules for lines and pages, as its published code has them.

Source: clean_page and is_valid_length in https://github.com/tensorflow/datasets, tensorflow_datasets/text/c4_utils.py,
2020; the article, https://jmlr.org/papers/v21/20-074.html, has other numbers (3 words, 5 sentences). A page is looked
at line by line, in this order:

    "c4: too long"              page    of more than 190,000 characters
    "c4: long word"             line    with a word of more than 1,000 characters: no prose
    "c4: citation mark"         edit    [12], [edit] and [citation needed] are taken out
    "c4: no end mark"           line    that does not end in . ? ! or ", or that ends in ...
    "c4: short line"            line    of fewer than 5 words
    "c4: lorem ipsum"           page
    "c4: javascript"            line    with that word
    "c4: curly bracket"         page    {: a program, no prose
    "c4: policy"                line    about cookies, privacy, terms of use
    "c4: few sentences"         page    with fewer than 3 in all the lines that are left

A page is rejected for what stands in a line that would have been kept up to there: {} in a short line does no harm.
C4's words that reject a page are the rule "word_list" (block_lists.py), its language is the rule "language".

    >>> page = "Home | Menu\nTea is hot.[1] Cats are not hot. Both are warm.\nThe cat wrote this page with JavaScript."
    >>> edits = Counter()
    >>> C4()(Document("http://a.example/", page), edits).text
    'Tea is hot. Cats are not hot. Both are warm.'
    >>> sorted(edits.items())
    [('c4: citation mark', 1), ('c4: javascript', 1), ('c4: no end mark', 1)]
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter

from tf_llm.contracts import Document, Rejected
from tf_llm.text.scripts import ALL_ENDS, ENGLISH_ENDS, OTHER_MARKS, WIDE_MARKS, count_words, ends_sentence

SCRIPTS = ("all", "english")
MAX_CHARACTERS = 190_000
MAX_WORD = 1_000
CITATION = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]")
ELLIPSIS = "..."
POLICY = re.compile("terms of use|privacy policy|cookie policy|uses cookies|use of cookies|use cookies")

# C4 counts sentences with NLTK's Punkt, whose English model is a download. It breaks behind . ? ! and blank, but for a
# period that belongs to the word: an abbreviation, an initial, an ellipsis. These are the abbreviations that prose has
# in front of names and numbers, where they rarely end a sentence.
ABBREVIATIONS = (
    "mr mrs ms mx dr prof rev fr hon st sr jr gen col maj capt lt cmdr sgt cpl gov sen rep pres supt messrs mt ft "
    "no nos vol vols fig figs eq sec ch pp ed eds cf ca al vs v etc e.g i.e a.m p.m u.s u.k u.n d.c ph.d b.a m.a "
    "jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thur thurs fri sat sun "
    "inc ltd co corp bros dept univ assn ave blvd rd approx est min max"
)
# Behind an abbreviation or an ellipsis these begin a sentence, for within one they would be in small letters.
STARTERS = (
    "a after all although an and as at because before both but by during each even every few for from he her here his "
    "how however i if in it its just many more most my no not now of on one only or other our she since so some such "
    "than that the their then there these they this those to under until was we what when where which while who why "
    "with you your"
)
ABBREVIATIONS, STARTERS = frozenset(ABBREVIATIONS.split()), frozenset(STARTERS.split())
OPENERS, CLOSERS = "\"'([{“‘«", "\"')]}”’»*"
# A wide mark inside what has no blanks, and more behind it.
INNER_BREAK = re.compile(f'[{WIDE_MARKS}]+["”’」』）)]*(?=[^{WIDE_MARKS}"”’」』）)\\s])')
# Thai and Lao put a blank between sentences, as between parts of one.
UNMARKED_BREAK = re.compile("(?<=[\u0e01-\u0eff]) (?=[\u0e01-\u0eff])")


@dataclasses.dataclass(frozen=True)
class C4:
    """The rule "c4".

    scripts: "all" knows the sentence ends and words of all scripts; "english" is the published code to the letter.
    line_words: shorter lines are dropped.
    sentences: pages of fewer are rejected.
    """

    scripts: str = "all"
    line_words: int = 5
    sentences: int = 3

    def __call__(self, document: Document, edits: Counter[str]) -> Document | Rejected:
        """The document with the lines that are kept. Adds to `edits` how many lines each rule dropped or edited."""
        if len(document.text) > MAX_CHARACTERS:
            return Rejected(document.url, "c4: too long", f"{len(document.text)} characters")
        ends, count = (
            (ALL_ENDS, count_words) if self.scripts == "all" else (ENGLISH_ENDS, lambda line: len(line.split()))
        )
        kept, sentences = [], 0
        for whole_line in document.text.splitlines():
            line = whole_line.strip()
            if not line:
                continue
            if len(line) > MAX_WORD and any(len(word) > MAX_WORD for word in line.split()):
                edits["c4: long word"] += 1
                continue
            line, marks = CITATION.subn("", line)
            if not ends_sentence(line, ends) or line.endswith(ELLIPSIS):
                edits["c4: no end mark"] += 1
                continue
            if count(line) < self.line_words:
                edits["c4: short line"] += 1
                continue
            lowered = line.lower()
            if "lorem ipsum" in lowered:
                return Rejected(document.url, "c4: lorem ipsum")
            if "javascript" in lowered:
                edits["c4: javascript"] += 1
                continue
            if "{" in line:
                return Rejected(document.url, "c4: curly bracket")
            if POLICY.search(lowered):
                edits["c4: policy"] += 1
                continue
            if marks:
                edits["c4: citation mark"] += marks
            sentences += count_sentences(line, self.scripts)
            kept.append(line)
        if sentences < self.sentences:
            return self._reject_short(document, sentences)
        return dataclasses.replace(document, text="\n".join(kept).strip())

    def recheck(self, document: Document) -> Document | Rejected:
        """The document, if it still has enough sentences now that lines known from other pages were removed."""
        sentences = count_sentences(document.text, self.scripts)
        return document if sentences >= self.sentences else self._reject_short(document, sentences)

    def _reject_short(self, document: Document, sentences: int) -> Rejected:
        return Rejected(document.url, "c4: few sentences", f"{sentences} of at least {self.sentences}")


def count_sentences(text: str, scripts: str = "all") -> int:
    """How many sentences a text has, as Punkt counts them; with "all", in every script.

    >>> count_sentences('Dr. Cat met J. S. Bach at 5 p.m. in the U.S. "Miau!" he said. Then... tea.')
    3
    >>> count_sentences("猫来了。狗走了！为什么？"), count_sentences("猫来了。狗走了！", "english")
    (3, 1)
    """
    words = text.split()
    if not words:
        return 0
    marks = f".?!{OTHER_MARKS}{WIDE_MARKS}" if scripts == "all" else ".?!"
    count = 1 + sum(map(_breaks, words, words[1:], [marks] * len(words)))
    if scripts == "all" and not text.isascii():
        count += len(INNER_BREAK.findall(text)) + len(UNMARKED_BREAK.findall(text))
    return count


def _breaks(word: str, following: str, marks: str) -> bool:
    """Whether a sentence ends behind the word."""
    core = word.rstrip(CLOSERS)
    if not core or core[-1] not in marks:
        return False
    if core[-1] != ".":
        return True
    following = following.lstrip(OPENERS)
    core = core.lstrip(OPENERS).lower()
    if len(core) == 2 and core[0].isalpha():  # an initial; "I" and "a" end sentences too rarely to matter
        return False
    if core.endswith("..") or core[:-1] in ABBREVIATIONS:
        return following[:1].isupper() and following.rstrip(",.;:!?’'").lower() in STARTERS
    return True
