"""The few numbers that are kept of a page, to tell later which others it repeats (duplicates.py tells it).

    >>> writer = KeyWriter(DuplicatesConfig(names="pages,lines"))
    >>> writer.add("http://a.example/", "Tea\\n\\nis hot.")
    >>> writer.add("http://b.example/", "TEA is\\nhot. ")
    >>> keys = Keys(**writer.close())
    >>> bool(keys.pages[0] == keys.pages[1]), keys.line_starts.tolist(), keys.lines.tolist()[1], keys.bands.shape
    (True, [0, 3, 5], 0, (2, 0))

Texts and addresses are known by 64 bits of a hash: among a billion different ones, two collide in one corpus of forty.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import re
from array import array

import numpy as np

from tf_llm.text.minhash import choose_bands, make_bands, make_signature, normalize, sketch_text

NAMES = ("addresses", "pages", "near", "lines")

WEB_ADDRESS = re.compile(r"(https?)://(?:www\.)?([^/?#]+)([^?#]*)(\?[^#]*)?(#!.*)?", re.IGNORECASE | re.DOTALL)
DEFAULT_PORTS = {"http": ":80", "https": ":443"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DuplicatesConfig:
    """What counts as a repetition and is removed."""

    names: str = "pages"  # comma list of addresses, pages, near (near duplicates) and lines; empty removes nothing
    jaccard: float = 0.8  # pages that share this part of their shingles, or more, are near duplicates
    shingle: int = 5  # words in a row that make one shingle
    sketch: int = 256  # hashes kept of each page to estimate that; the standard error at .8 is .4 / sqrt(sketch)

    def __post_init__(self):
        if unknown := sorted(self.kinds - set(NAMES)):
            raise ValueError(f"duplicates.names expected a comma list of {', '.join(NAMES)}. Received: {unknown[0]!r}")
        if not 0 < self.jaccard <= 1:
            raise ValueError(f"duplicates.jaccard expected a number above 0, at most 1. Received: {self.jaccard!r}")
        if self.shingle < 1:
            raise ValueError(f"duplicates.shingle expected at least 1. Received: {self.shingle!r}")
        if not 1 <= self.sketch <= 1 << 16:
            raise ValueError(f"duplicates.sketch expected 1 to 65536. Received: {self.sketch!r}")

    @functools.cached_property
    def kinds(self) -> frozenset[str]:
        return frozenset(name.strip() for name in self.names.split(",") if name.strip())

    @functools.cached_property
    def bands(self) -> tuple[int, int]:
        """Number of bands, and rows of each."""
        return choose_bands(self.jaccard, self.sketch)


@dataclasses.dataclass(frozen=True, eq=False)
class Keys:
    """What is kept of the pages of one part; D pages, L lines. Key 0 stands for nothing, which repeats nothing.

    Arrays of kinds that are not asked for are empty: [0] or [D, 0].
    """

    addresses: np.ndarray  # uint64 [D]
    pages: np.ndarray  # uint64 [D]
    bands: np.ndarray  # uint64 [D, bands], in Fortran order: one band of all pages is read at a time
    signatures: np.ndarray  # uint8 [D, sketch]
    lines: np.ndarray  # uint64 [L]
    line_starts: np.ndarray  # int64 [D + 1]: where in `lines` the lines of each page begin

    def __len__(self) -> int:
        return len(self.signatures)


class KeyWriter:
    """Collects the keys of one part, page by page.

    A page takes about 16 bytes for "addresses" and "pages", 512 for "near" and 8 a line for "lines", in memory as in
    the arrays.
    """

    def __init__(self, config: DuplicatesConfig):
        self.config = config
        self.count = 0
        self.addresses, self.pages, self.lines, self.line_starts = array("Q"), array("Q"), array("Q"), array("q", [0])
        self.bands, self.signatures = bytearray(), bytearray()

    def add(self, url: str, text: str) -> None:
        kinds = self.config.kinds
        self.count += 1
        if "addresses" in kinds:
            self.addresses.append(hash_text(normalize_url(url)))
        if "lines" in kinds:
            self.lines.extend(hash_text(line.strip()) for line in text.lower().split("\n"))
        self.line_starts.append(len(self.lines))
        if "pages" in kinds or "near" in kinds:
            text = normalize(text)
        if "pages" in kinds:
            self.pages.append(hash_text(text))
        if "near" in kinds:
            minima = sketch_text(text, self.config.sketch, self.config.shingle)
            self.bands += make_bands(minima, *self.config.bands).tobytes()
            self.signatures += make_signature(minima).tobytes()

    def close(self) -> dict[str, np.ndarray]:
        """The fields of `Keys`."""
        bands, size = (self.config.bands[0], self.config.sketch) if "near" in self.config.kinds else (0, 0)
        return {
            "addresses": np.array(self.addresses, np.uint64),
            "pages": np.array(self.pages, np.uint64),
            "bands": np.asfortranarray(np.frombuffer(self.bands, np.uint64).reshape(self.count, bands)),
            "signatures": np.frombuffer(self.signatures, np.uint8).reshape(self.count, size),
            "lines": np.array(self.lines, np.uint64),
            "line_starts": np.array(self.line_starts, np.int64),
        }


def hash_text(text: str) -> int:
    """64 bits of BLAKE2b, never 0; 0 for no text."""
    if not text:
        return 0
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") or 1


def normalize_url(url: str) -> str:
    """What addresses of the same page have in common, as a rule.

    Of a web address these go: http or https, "www.", the case of the host, the default port, slashes at the end of the
    path, "utm_" parameters, which say where a reader came from, an empty query, and the fragment, but for one that
    begins with "#!", by which some sites tell their pages apart. Anything else is no address on the web and stays.

    >>> normalize_url("HTTPS://www.Example.com:443/Tea/?utm_source=mail#top"), normalize_url("texts.jsonl#3")
    ('example.com/Tea', 'texts.jsonl#3')
    """
    url = url.strip()
    match = WEB_ADDRESS.match(url)
    if not match:
        return url
    scheme, host, path, query, page = match.groups("")
    if "utm_" in query:
        query = "?" + "&".join(part for part in query[1:].split("&") if not part.startswith("utm_"))
    host = host.lower().removesuffix(DEFAULT_PORTS[scheme.lower()])
    return host + path.rstrip("/") + (query if query != "?" else "") + page
