"""Which documents are worth learning from? Rules that keep, edit or reject one, each with a reason that is counted.

    >>> filters = Filters(FilterConfig(names="c4,personal_data"))
    >>> edits = Counter()
    >>> page = "Menu\\nCats drink no tea. They drink coffee.\\nWrite to cat@mail.example for more of this."
    >>> filters(Document("http://a.example/", page), edits).text
    'Cats drink no tea. They drink coffee.\\nWrite to <email> for more of this.'
    >>> sorted(edits.items())
    [('c4: no end mark', 1), ('personal_data: email', 1)]
    >>> filters(Document("http://a.example/", "Cats drink tea."), edits)
    Rejected(url='http://a.example/', reason='c4: few sentences', detail='0 of at least 3')

The rules run in the order in which `names` has them, and the first rejection ends it:

    "url_list"            address on a list of the user's                         block_lists.py
    "language"            in a language that is not admitted                      languages.py
    "c4"                  lines that are no sentences, pages that are no prose     c4.py
    "gopher_quality"      lengths, symbols, letters, stop words                   gopher.py
    "gopher_repetition"   lines, paragraphs and phrases said again and again      gopher.py
    "word_list"           a word on a list of the user's                          block_lists.py
    "personal_data"       e-mail addresses, telephone numbers, IP addresses       personal_data.py

A new rule is a callable `(document, edits) -> Document | Rejected`, and a line in `FILTERS`. Whatever the text is, it
raises nothing; it can be pickled; its reasons and edits are fixed phrases that begin with its name: they are counted.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable

from tf_llm.contracts import Document, Rejected
from tf_llm.languages import name_language
from tf_llm.text.block_lists import UrlList, WordList, digest_list
from tf_llm.text.c4 import C4, SCRIPTS
from tf_llm.text.gopher import WHOSE_STOP_WORDS, GopherQuality, reject_repetition
from tf_llm.text.languages import DETECTORS, Language
from tf_llm.text.personal_data import PersonalData

Rule = Callable[[Document, Counter[str]], Document | Rejected]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FilterConfig:
    """Which rules a document has to pass, and their switches."""

    names: str = "personal_data"  # rules in the order in which they run, with commas between them; "" for none
    url_list: str = ""  # url_list: a file of domains and beginnings of addresses, one a line
    word_list: str = ""  # word_list: a file of words and phrases, one a line
    languages: str = ""  # language: codes or names of those admitted, such as "en,es,zh"; "" admits all
    detector: str = "py3langid"  # language: "py3langid" or "langdetect" (C4's), for pages without a label
    trust_labels: bool = True  # language: whether what the archive says of a page is believed
    language_probability: float = 0.5  # language: what a detector has to be sure of; C4 asks .99 of langdetect
    c4_scripts: str = "all"  # c4: sentence ends and words of "all" scripts; "english" is the published code
    c4_line_words: int = 5  # c4: shorter lines are dropped
    c4_sentences: int = 3  # c4: pages of fewer sentences are rejected
    gopher_stop_words: str = "by_language"  # gopher_quality: whose a page must have; "english" of every page, or "none"
    email: str = "<email>"  # personal_data: what stands in for an e-mail address; "" leaves them
    phone: str = "<phone>"  # personal_data: what stands in for a telephone number; "" leaves them
    ip: str = "<ip>"  # personal_data: what stands in for an IP address; "" leaves them

    def __post_init__(self):
        for name in split_names(self.names):
            if name not in FILTERS:
                raise ValueError(f"filters.names expected names among {sorted(FILTERS)}. Received: {name!r}")
        for name in ("url_list", "word_list"):
            if name in split_names(self.names) and not getattr(self, name):
                raise ValueError(f"filters.{name} expected a file, for filters.names has {name!r}. Received: none")
        for language in split_names(self.languages):
            if name_language(language) is None:
                raise ValueError(
                    f"filters.languages expected codes of ISO 639, such as en, or English names. Received: {language!r}"
                )
        for name, known in (("detector", DETECTORS), ("c4_scripts", SCRIPTS), ("gopher_stop_words", WHOSE_STOP_WORDS)):
            if getattr(self, name) not in known:
                raise ValueError(f"filters.{name} expected one of {sorted(known)}. Received: {getattr(self, name)!r}")
        if not 0 <= self.language_probability <= 1:
            raise ValueError(f"filters.language_probability expected 0 to 1. Received: {self.language_probability!r}")
        for name in ("c4_line_words", "c4_sentences"):
            if getattr(self, name) < 0:
                raise ValueError(f"filters.{name} expected at least 0. Received: {getattr(self, name)!r}")


# What makes a rule of the settings; files are read and packages looked for here.
FILTERS: dict[str, Callable[[FilterConfig], Rule]] = {
    "url_list": lambda config: UrlList(config.url_list),
    "language": lambda config: Language(
        tuple(name_language(language) for language in split_names(config.languages)),
        config.detector,
        config.trust_labels,
        config.language_probability,
    ),
    "c4": lambda config: C4(config.c4_scripts, config.c4_line_words, config.c4_sentences),
    "gopher_quality": lambda config: GopherQuality(config.gopher_stop_words),
    "gopher_repetition": lambda config: reject_repetition,
    "word_list": lambda config: WordList(config.word_list),
    "personal_data": lambda config: PersonalData(config.email, config.phone, config.ip),
}


def split_names(names: str) -> list[str]:
    """The names in a list with commas.

    >>> split_names("c4, personal_data,")
    ['c4', 'personal_data']
    """
    return [name for name in map(str.strip, names.split(",")) if name]


class Filters:
    """The rules of a `FilterConfig`, ready to run. Pickled, it is its settings; lists are read again where it arrives.

    Raises UserError where a list cannot be read, or a package is missing.
    """

    def __init__(self, config: FilterConfig):
        self.config = config
        self.rules = {name: FILTERS[name](config) for name in split_names(config.names)}

    def __reduce__(self):
        return Filters, (self.config,)

    def __call__(self, document: Document, edits: Counter[str]) -> Document | Rejected:
        """What the rules make of a document. `edits` is added to for documents that are kept. Raises nothing."""
        mine: Counter[str] = Counter()
        for rule in self.rules.values():
            document = rule(document, mine)
            if isinstance(document, Rejected):
                return document
        if not document.text:
            return Rejected(document.url, "no text")
        edits.update(mine)
        return document

    def recheck(self, document: Document) -> Document | Rejected:
        """What is left of a document from which lines were removed that other documents have, too.

        C4 counts its sentences once more; nothing left is "no text".
        """
        if not document.text.strip():
            return Rejected(document.url, "no text")
        return self.rules["c4"].recheck(document) if "c4" in self.rules else document

    def list_digests(self) -> dict[str, str]:
        """For each rule that has a list, what changes when the list does: a file keeps its name when it is edited."""
        return {
            name: digest_list(getattr(self.config, name)) for name in ("url_list", "word_list") if name in self.rules
        }
