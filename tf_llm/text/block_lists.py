"""Pages that somebody has put on a list: by their address, or by a word in them. The lists are files of the user's.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "addresses.txt")
    ...     _ = file.write_text("# no cats here\\ndogs.example\\nzoo.example/dogs/\\n")
    ...     addresses = UrlList(str(file))
    >>> [addresses.has(f"https://{rest}") for rest in ("www.dogs.example/a", "hotdogs.example", "zoo.example/dogs/rex")]
    [True, False, True]

A list is a text file in UTF-8, one entry a line; blank lines and lines that begin with # are none.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from tf_llm.contracts import Document, Rejected, UserError
from tf_llm.text.scripts import LETTERS, MARKS, UNSPACED

SCHEME = re.compile(r"^[a-z][a-z0-9+.-]*://", re.IGNORECASE)


class UrlList:
    """The rule "url_list": rejects pages whose address is on a list.

    An entry is a domain, which blocks what lies below it, too (`dogs.example` blocks `www.dogs.example`), or the
    beginning of an address (`zoo.example/dogs/`, of that very host). The scheme does not matter, nor do capitals in the
    domain; domains with letters outside ASCII may be written either way (`bücher.example`, `xn--bcher-kva.example`).

    Raises UserError where the file cannot be read.
    """

    def __init__(self, path: str):
        self.domains: set[str] = set()
        beginnings: dict[str, list[str]] = {}
        for entry in read_list(path, "addresses"):
            host, rest = split_address(entry)
            if rest in ("", "/"):
                self.domains.add(host)
            else:
                beginnings.setdefault(host, []).append(rest)
        self.beginnings = {host: tuple(rests) for host, rests in beginnings.items()}

    def has(self, url: str) -> bool:
        host, rest = split_address(url)
        labels = host.split(".")
        above = (".".join(labels[start:]) for start in range(len(labels)))
        return any(domain in self.domains for domain in above) or rest.startswith(self.beginnings.get(host, ()))

    def __call__(self, document: Document, edits: Counter[str]) -> Document | Rejected:
        del edits
        return Rejected(document.url, "url_list: blocked") if self.has(document.url) else document


class WordList:
    """The rule "word_list": rejects pages with a word or phrase of a list between what are no letters.

    As with C4's list of bad words, capitals do not matter, and "cat" is in "the cat-flap" but not in "category"; other
    than in C4, a word at either end of a line counts, too. In scripts without blanks between words an entry is found
    anywhere.

    Raises UserError where the file cannot be read.
    """

    def __init__(self, path: str):
        entries = {entry.lower() for entry in read_list(path, "words")}
        self.words = frozenset(entry for entry in entries if LETTERS.fullmatch(entry) and not UNSPACED.search(entry))
        self.phrases = tuple(sorted(entries - self.words))

    def find(self, text: str) -> str | None:
        """The first entry of the list that the text has, words before phrases, or None."""
        text = text.lower()
        if found := self.words.intersection(LETTERS.findall(text)):
            return min(found)
        return next((phrase for phrase in self.phrases if phrase in text and _stands_alone(phrase, text)), None)

    def __call__(self, document: Document, edits: Counter[str]) -> Document | Rejected:
        del edits
        entry = self.find(document.text)
        return Rejected(document.url, "word_list: blocked", entry) if entry else document


def _stands_alone(phrase: str, text: str) -> bool:
    if UNSPACED.search(phrase):
        return True
    return re.search(rf"(?<![^\W\d_]){re.escape(phrase)}(?![^\W\d_]|[{MARKS}])", text) is not None


def split_address(address: str) -> tuple[str, str]:
    """Host and the rest of an address with or without a scheme. Raises nothing.

    >>> split_address("https://user@WWW.a.example:8080/b?c#d"), split_address("bücher.example")
    (('www.a.example', '/b?c#d'), ('xn--bcher-kva.example', ''))
    """
    bare = SCHEME.sub("", address.strip())
    host, rest = re.match(r"([^/?#]*)(.*)", bare, re.DOTALL).groups()
    try:
        host = urlsplit(f"//{host}").hostname or ""
    except ValueError:  # [::1 and other wonders
        host = host.lower()
    host = host.rstrip(".")
    if not host.isascii():
        with contextlib.suppress(UnicodeError):  # too long, or no name at all
            host = host.encode("idna").decode("ascii")
    return host, rest


def read_list(path: str, noun: str) -> Iterable[str]:
    """The entries of a list. Raises UserError where it cannot be read, or has none."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"expected a text file with a list of {noun}, one a line, at {path}. Received: {error}. Name another file"
        ) from error
    entries = [entry for entry in map(str.strip, lines) if entry and not entry.startswith("#")]
    if not entries:
        raise UserError(f"expected a list of {noun}, one a line, in {path}. Received: no entry. Name another file")
    return entries


def digest_list(path: str) -> str:
    """What tells whether a list was changed: the head of the SHA-256 of its file.

    Raises UserError where it cannot be read.
    """
    return hashlib.sha256("\n".join(read_list(path, "entries")).encode("utf-8", "surrogatepass")).hexdigest()[:16]
