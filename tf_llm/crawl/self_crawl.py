"""The embedded default: this Python's own documentation, as a web archive.

The installation that runs this has a small library on its disk: the docstrings of the standard library and of the
packages that came with tf_llm. They are read from the source files with `ast`, so that nothing is imported and nothing
is executed, laid out as one HTML page a module, and written as a record-gzipped WARC/1.1 file that the same reader
reads as any other archive. Whoever has no network has a corpus of a million words.

Three rules make it fit for learning. A paragraph that stands in many places (an inherited docstring, the same argument
of a hundred functions) is written once. No package may be more than a quarter of the whole. A page says at least a
few sentences.

The same sources give the same bytes: pages are in the order of a hash, and dates and record numbers come from the
content, not from the clock.
"""

import base64
import contextlib
import gzip
import hashlib
import html
import importlib.util
import json
import logging
import os
import platform
import re
import sysconfig
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote

from tqdm import tqdm

from tf_llm.contracts import Page, UserError
from tf_llm.crawl.cache import REMEDY, cache_folder
from tf_llm.crawl.docstrings import read_module, split_paragraphs
from tf_llm.crawl.warc import Warc
from tf_llm.files import write_atomically

logger = logging.getLogger(__name__)

RULES = 1  # part of the cache's key: raise it with every change to what the pages hold
STANDARD_LIBRARY = "python"
TOPICS = "pydoc_data"  # what `help("FLOAT")` prints: chapters of the language reference as a dictionary of texts
PACKAGES = (STANDARD_LIBRARY, TOPICS, "tensorflow", "keras", "numpy", "nltk")
PARTS = 4  # no package is more than one part in this many of the text, given more packages than that
# A shorter page says little, and an extractor takes the frame around it for its content.
LEAST_CHARACTERS = 300

# Tests, programs that come with Python, and packages made of nothing but the names of others.
SKIPPED_FOLDERS = {"test", "tests", "idlelib", "lib2to3", "turtledemo", "_api", "_tf_keras", "__pycache__"}
SKIPPED_FILES = re.compile(r"test_.*|.*_test|conftest")

# The reserved domain says that these pages were never on the web. No version stands in an address: which pages are
# held out for validation is decided by address, and should stay so when a package is upgraded.
ADDRESS = "https://documentation.invalid/{package}/{name}.html"
DATE = "2000-01-01T00:00:00Z"  # documentation has no date of its own, and the clock would change the bytes

PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>{title} - {package} documentation</title></head>
<body>
<nav><ul><li><a href="/">Packages</a></li><li><a href="/{package}/">All of {package}</a></li></ul></nav>
<main>
<h1>{title}</h1>
{body}
</main>
<footer>Documentation of {package}, read from its source files.</footer>
</body>
</html>
"""


class SelfCrawl:
    """Pages made of the documentation that is installed here; a `contracts.Source`.

    The archive is made when it is first asked for, in about ten seconds, and kept in the cache folder under the hash of
    the sources it was made from: an upgraded package gives another archive, and nothing else does.

    Args:
        packages: importable top-level names; "python" is the standard library, "pydoc_data" Python's help topics.
        cache_dir: the folder for the archive; None is `tf_llm` in the user's cache folder.

    >>> pages = SelfCrawl()
    >>> next(iter(pages)).url
    'https://documentation.invalid/tensorflow/tensorflow.python.autograph.pyct.error_utils.html'
    >>> pages.figures["pages"], pages.figures["words"]
    (1352, 1148261)
    """

    def __init__(self, packages: tuple[str, ...] = PACKAGES, cache_dir: str | os.PathLike | None = None):
        self.packages = tuple(dict.fromkeys(packages))
        self.cache_dir = cache_dir
        self.figures: dict = {}  # of the archive: pages, words, characters by package, unreadable modules
        self.rejections: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"SelfCrawl({', '.join(self.packages)})"

    def __iter__(self) -> Iterator[Page]:
        archive = Warc([self.build()])
        try:
            yield from archive
        finally:
            self.rejections = archive.rejections + Counter(self.figures["unreadable"])

    @property
    def parts(self) -> int:
        """One: there is a single archive."""
        return 1

    def shard(self, index: int, count: int) -> Warc:
        """The part `index` of `count` of the archive, which is made now."""
        return Warc([self.build()]).shard(index, count)

    def fetch(self) -> None:
        """Makes the archive, so that no other process needs to."""
        self.build()

    def build(self) -> Path:
        """The path of the archive, which is made where the cache does not hold it.

        Raises:
            UserError: a package is not installed, or the cache folder cannot be written.
        """
        unreadable = Counter()
        sources = {package: read_sources(package, unreadable) for package in self.packages}
        stem = cache_folder(self.cache_dir) / f"self-crawl-{hash_sources(sources)[:16]}"
        archive, record = stem.with_suffix(".warc.gz"), stem.with_suffix(".json")
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # not there, or not whole: it is made again
            self.figures = json.loads(record.read_bytes())
            if hashlib.sha256(archive.read_bytes()).hexdigest() == self.figures["sha256"]:
                return archive
        pages, self.figures = make_pages(sources, unreadable)
        content = format_warc(pages)
        self.figures["sha256"] = hashlib.sha256(content).hexdigest()
        write_atomically(archive, content, REMEDY)
        # Last: without it the archive does not count.
        write_atomically(record, json.dumps(self.figures, indent=1).encode(), REMEDY)
        logger.info("made %s: %s pages, %s words", archive, self.figures["pages"], self.figures["words"])
        return archive


def list_modules(package: str) -> Iterator[tuple[str, Path]]:
    """Yields (dotted name, source file) of a package's modules, found without importing any of them."""
    if package == STANDARD_LIBRARY:
        roots, prefix = [Path(sysconfig.get_paths()["stdlib"])], ""
    else:
        spec = importlib.util.find_spec(package) if package.isidentifier() else None
        if spec is None or not (spec.submodule_search_locations or spec.has_location):
            raise UserError(
                f"expected the name of an installed package with Python sources. Received: {package!r}. "
                f"Install it, or leave it out of packages"
            )
        if not spec.submodule_search_locations:
            yield package, Path(spec.origin)
            return
        roots, prefix = [Path(root) for root in spec.submodule_search_locations], package + "."
    for root in roots:
        for folder, folders, files in os.walk(root):
            # What is no identifier is no package: site-packages, lib-dynload, config-3.12-x86_64-linux-gnu.
            folders[:] = [name for name in folders if name.isidentifier() and name not in SKIPPED_FOLDERS]
            if package == STANDARD_LIBRARY and TOPICS in folders:
                folders.remove(TOPICS)
            for file in files:
                path = Path(folder, file)
                if path.suffix == ".py" and not SKIPPED_FILES.fullmatch(path.stem):
                    name = prefix + ".".join(path.relative_to(root).with_suffix("").parts)
                    yield name.removesuffix(".__init__"), path


def read_sources(package: str, unreadable: Counter[str]) -> dict[str, bytes]:
    """Dotted name -> source of each module of a package, in the order of a hash. Counts what cannot be read."""
    sources = {}
    for name, path in sorted(list_modules(package), key=lambda module: hash_name(module[0])):
        try:
            sources[name] = path.read_bytes()
        except OSError as error:
            logger.warning("module %s cannot be read: %s", name, error)
            unreadable["unreadable module"] += 1
    return sources


def hash_name(name: str) -> bytes:
    """Sorting by this mixes packages and letters, the same way everywhere."""
    return hashlib.sha256(name.encode()).digest()


def hash_sources(sources: dict[str, dict[str, bytes]]) -> str:
    """SHA-256 of all that decides what the archive holds: the rules, Python's grammar and every source."""
    digest = hashlib.sha256(json.dumps([RULES, PARTS, platform.python_version()]).encode())
    for package, modules in sources.items():
        for name, source in modules.items():
            digest.update(f"{package} {name} {len(source)}\n".encode() + source)
    return digest.hexdigest()


def make_pages(sources: dict[str, dict[str, bytes]], unreadable: Counter[str]) -> tuple[list[tuple[str, bytes]], dict]:
    """Lays out what modules say: ([(address, HTML)] in the order of a hash, the figures)."""
    seen, kept = set(), {}
    # A package has at most as many characters of documentation as bytes of source, which bounds what may be kept of
    # each before any is parsed. The largest comes last, when the bound is tight: most of it need not be parsed.
    sizes = {package: sum(map(len, modules.values())) for package, modules in sources.items()}
    for package in sorted(sizes, key=sizes.get):
        room = limit_size(sizes.values())
        kept[package], sizes[package] = [], 0
        for name, source in tqdm(sources[package].items(), desc=f"reading {package}", leave=False, disable=None):
            try:
                contents = list(read_module(name, source, topics=f"{TOPICS}.topics"))
            except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
                logger.warning("module %s cannot be read: %s", name, error)
                unreadable["unreadable module"] += 1
                continue
            for title, sections in contents:
                sections, size = keep_distinct(sections, seen)
                if size:
                    kept[package].append((title, sections, size))
                    sizes[package] += size
            if sizes[package] > room:
                break
        logger.info("read the documentation of %s: %d pages", package, len(kept[package]))

    while max(sizes.values(), default=0) > (limit := limit_size(sizes.values())):
        for package, contents in kept.items():
            while sizes[package] > limit:
                sizes[package] -= contents.pop()[-1]

    pages, words = {}, 0
    for package, contents in kept.items():
        for title, sections, _ in contents:
            words += sum(len(text.split()) for _, paragraphs in sections for _, text in paragraphs)
            pages[ADDRESS.format(package=package, name=quote(title))] = lay_out(package, title, sections)
    figures = {"pages": len(pages), "words": words, "characters": sizes, "unreadable": dict(unreadable)}
    return sorted(pages.items(), key=lambda page: hash_name(page[0])), figures


def limit_size(sizes: Iterable[int]) -> int:
    """The most that each may keep so that none is more than one part in PARTS of what all keep.

    >>> limit_size([60, 10, 10, 5, 5])  # 10 of 40 is a quarter
    10
    """
    sizes = sorted(filter(None, sizes), reverse=True)
    if len(sizes) <= PARTS:  # so few cannot each be so small
        return max(sizes, default=0)
    rest = sum(sizes)
    for larger, size in enumerate(sizes):
        # With the `larger` ones cut to the limit L: L = (larger * L + rest) / PARTS.
        limit = rest // (PARTS - larger)
        if size <= limit:
            return limit
        rest -= size


def keep_distinct(sections: list[tuple[str, str]], seen: set[str]) -> tuple[list[tuple[str, list]], int]:
    """([(heading, [(element, text)])], characters of text): the paragraphs that stand nowhere in `seen`, yet.

    What is left of a page is empty when it is too short; then its paragraphs do not count as seen.
    """
    kept, new, size = [], set(), 0
    for heading, docstring in sections:
        paragraphs, above = [], []
        for element, text in split_paragraphs(docstring):
            key = " ".join(text.split())
            if element == "h3":
                above = [(element, text)]  # written with the first paragraph that is left below it
            elif key not in seen and key not in new:
                new.add(key)
                paragraphs += [*above, (element, text)]
                above = []
                size += len(text)
        if paragraphs:
            kept.append((heading, paragraphs))
    if size < LEAST_CHARACTERS:
        return [], 0
    seen |= new
    return kept, size


def lay_out(package: str, title: str, sections: list[tuple[str, list[tuple[str, str]]]]) -> bytes:
    """One HTML page, its text escaped: what a docstring says about mark-up stays text."""
    lines = []
    for heading, paragraphs in sections:
        if heading:
            lines.append(f"<h2>{html.escape(heading)}</h2>")
        lines += (f"<{element}>{html.escape(text)}</{element}>" for element, text in paragraphs)
    page = PAGE.format(title=html.escape(title), package=html.escape(package), body="\n".join(lines))
    return page.encode("utf-8", errors="replace")  # a docstring may hold half a surrogate pair


def format_warc(pages: list[tuple[str, bytes]]) -> bytes:
    """A WARC/1.1 file: one gzip member a record, a warcinfo record first, then a response a page."""
    about = "software: tf_llm\r\nformat: WARC File Format 1.1\r\ndescription: documentation read from source files\r\n"
    records = [format_record("warcinfo", "application/warc-fields", about.encode(), {})]
    for address, content in pages:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {len(content)}\r\n\r\n"
        fields = {"WARC-Target-URI": address, "WARC-Payload-Digest": compute_digest(content)}
        records.append(format_record("response", "application/http; msgtype=response", head.encode() + content, fields))
    return b"".join(gzip.compress(record, mtime=0) for record in records)


def format_record(kind: str, media_type: str, block: bytes, fields: dict[str, str]) -> bytes:
    """One record, after https://iipc.github.io/warc-specifications/specifications/warc-format/warc-1.1/"""
    digest = compute_digest(block)
    fields = {
        "WARC-Type": kind,
        "WARC-Record-ID": f"<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'{fields} {digest}')}>",
        "WARC-Date": DATE,
        **fields,
        "WARC-Block-Digest": digest,
        "Content-Type": media_type,
        "Content-Length": str(len(block)),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"WARC/1.1\r\n{head}\r\n".encode() + block + b"\r\n\r\n"


def compute_digest(content: bytes) -> str:
    """SHA-1 in base 32, as archives write it: a check sum, no protection."""
    return "sha1:" + base64.b32encode(hashlib.sha1(content, usedforsecurity=False).digest()).decode()
