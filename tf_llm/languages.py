"""Codes of languages: ISO 639-1 has two letters, "en"; ISO 639-3, which Common Crawl uses, has three, "eng".

    >>> name_language("eng"), name_language("zh-TW"), name_language("ger"), name_language("Spanish")
    ('en', 'zh', 'de', 'es')
    >>> find_long_code("en"), find_long_code("deu")
    ('eng', 'deu')

Archives name languages in different ways: Common Crawl writes `eng`, Wikipedia `en`, browsers `en-GB`. In documents all
are brought to ISO 639-1; a language that has no such code keeps its three letters. The table is languages.txt.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path

from tf_llm.contracts import UserError

LONG_CODE = re.compile(r"[a-z]{3}")
# Two more of ISO 639-1, which no document is labelled with: the table has the first with Norwegian, of which it is a
# written form; the second, Serbo-Croatian, is withdrawn.
OTHER_LONG_CODES = {"nb": "nob", "sh": "hbs"}


def read_table() -> Iterator[tuple[list[str], str]]:
    """(codes, English name) of each language in languages.txt; the first code has two letters, the second three."""
    for line in Path(__file__).with_name("languages.txt").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            codes, _, english = line.partition(", ")
            yield codes.split(), english


@functools.cache
def load_codes() -> dict[str, str]:
    """Every code and English name (in small letters) of the table -> the code of two letters."""
    return {name: codes[0] for codes, english in read_table() for name in (*codes, english.lower())}


@functools.cache
def load_long_codes() -> dict[str, str]:
    """The codes of two letters -> those of three."""
    return {codes[0]: codes[1] for codes, _ in read_table()} | OTHER_LONG_CODES


def name_language(label: str) -> str | None:
    """The code of a language that somebody called by another code or by its name; None where it is none.

    >>> name_language("yue"), name_language("perhaps English")
    ('yue', None)
    """
    label = label.strip().lower()
    code = re.split("[-_]", label, maxsplit=1)[0]
    known = load_codes()
    return known.get(label) or known.get(code) or (code if LONG_CODE.fullmatch(code) else None)


def find_long_code(code: str) -> str:
    """The code of three letters for a code of two or three.

    Raises:
        UserError: it is neither.
    """
    language = load_long_codes().get(code.lower(), code.lower())
    if not (len(language) == 3 and language.isascii() and language.isalpha()):
        raise UserError(
            f"expected the code of a language, such as eng or en. Received: {code!r}. Use one of ISO 639-3 or ISO 639-1"
        )
    return language
