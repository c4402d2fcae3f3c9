"""Dumps of MediaWiki's pages as XML, whole or damaged, into their pages.

    <mediawiki xml:lang="en"> <siteinfo> names and numbers of namespaces, the address of the main page </siteinfo>
      <page> <title> <ns> <redirect title="…"/> <revision> <timestamp> <text>the wikitext</text> </revision> </page>
      …
    </mediawiki>

Each page is cut out of the stream of bytes and parsed on its own. So memory is that of a page, damage to the XML costs
the page it hits, and no document type, which could define entities that grow when they are read, is ever parsed. A cut
at the bytes `<page>` is safe, since text between tags has no `<`.

Wikipedia's files are many bzip2 streams, one behind the other, of a hundred pages each. Where one is damaged, reading
goes on at the next; "bzip2 damaged" counts it.

    reason                    what it counts
    "redirect"                pages that only point to another one
    "namespace 4" and so on   pages that are no articles, by the number of their kind
    "not wikitext"            articles in another language of description
    "empty"                   articles without text, such as deleted ones
    "too large"               pages of more than `max_bytes` of XML
    "bad XML"                 pages that are damaged
    "XML cut short"           files that end within a page, or behind one without the end of the document
    "no pages"                files that hold none

The format is https://www.mediawiki.org/xml/export-0.11.xsd, the files are described at
https://meta.wikimedia.org/wiki/Data_dumps/Dump_format
"""

from __future__ import annotations

import bz2
import dataclasses
import re
import urllib.parse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO
from xml.etree import ElementTree

from tf_llm.contracts import Rejected
from tf_llm.crawl.files import BZIP2_MARK, UnreadableError, open_file

CHUNK = 1 << 18
STREAM_MARK = re.compile(rb"BZh[1-9]1AY&SY")
# bzip2 gives out a block of up to 900,000 bytes before it has compared its checksum: so much waits until it has.
HELD = 1 << 20
RECENT = 4 << 20  # of the compressed bytes: a damage may show only where the next stream has begun

OPEN_PAGE, CLOSE_PAGE, CLOSE_DUMP = b"<page>", b"</page>", b"</mediawiki>"
MAX_HEAD = 1 << 20
MAX_TAGS = 5_000  # in the XML of a page; one of a single revision has about forty
LANGUAGE = re.compile(rb'<mediawiki\s[^<>]*\bxml:lang="([\w-]{1,40})"')
SITE = re.compile(rb"<siteinfo>.*?</siteinfo>", re.DOTALL)
NAMESPACE = re.compile(r"-?\d{1,5}", re.ASCII)
HIDDEN_NAMESPACES = ("-2", "6", "14")  # media, files, categories: what links to them show is no prose
DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Site:
    """What the beginning of a dump says of the wiki."""

    base: str  # the address of a page but for its title
    languages: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()  # the wiki's own names of HIDDEN_NAMESPACES


@dataclasses.dataclass(frozen=True)
class Article:
    """A page of namespace 0 that is no redirect, in wikitext."""

    url: str
    text: str
    date: str | None
    site: Site


def read_articles(path: Path, address: str, max_bytes: int) -> Iterator[Article | Rejected]:
    """The articles of one file, and a Rejected for each other page and each damage. Raises nothing.

    Args:
        path: the file: XML, as it is or in gzip or bzip2.
        address: the file's, for pages of a dump that does not name its wiki.
        max_bytes: a page whose XML is longer is never in memory as a whole.
    """
    site = Site(f"{address}#")
    for piece in cut_pages(read_chunks(path), str(path), max_bytes):
        if isinstance(piece, Rejected):
            yield piece
        elif piece.startswith(OPEN_PAGE):
            yield parse_page(piece, str(path), site)
        else:
            site = parse_site(piece, site)


def read_chunks(path: Path) -> Iterator[bytes | Rejected]:
    """The bytes of a file, inflated; a Rejected where some are lost."""
    try:
        with path.open("rb") as plain:
            if BZIP2_MARK.match(plain.peek(16)):
                yield from inflate_streams(plain, str(path))
                return
        with open_file(path) as file:
            while chunk := file.read(CHUNK):
                yield chunk
    except UnreadableError as error:
        yield Rejected(str(path), *error.args)
    except OSError as error:
        yield Rejected(str(path), "unreadable file", str(error))


def inflate_streams(file: BinaryIO, name: str) -> Iterator[bytes | Rejected]:
    """The content of bzip2 streams that stand one behind the other; a Rejected in the place of what is damaged.

    After a damage it goes on where the next stream begins: the ten bytes that mark it occur by chance once in 10²³.
    """
    stream, recent, held, chunk = bz2.BZ2Decompressor(), b"", b"", b""
    while chunk := chunk or file.read(CHUNK):
        recent = (recent + chunk)[-RECENT:]
        try:
            while not stream.eof and (chunk or not stream.needs_input):
                held += stream.decompress(chunk, max_length=CHUNK)
                chunk = b""
                if len(held) > 2 * HELD:
                    yield held[:-HELD]
                    held = held[-HELD:]
        except OSError as error:
            yield Rejected(name, "bzip2 damaged", str(error))
            chunk = find_stream(recent[1:], file)
            stream, recent, held = bz2.BZ2Decompressor(), b"", b""
        if stream.eof:
            yield held
            chunk = stream.unused_data
            stream, recent, held = bz2.BZ2Decompressor(), b"", b""
    if recent:
        yield held
        yield Rejected(name, "bzip2 cut short")


def find_stream(recent: bytes, file: BinaryIO) -> bytes:
    """The bytes from the next beginning of a stream on, in those that were read last or in the rest of the file."""
    while not (mark := STREAM_MARK.search(recent)):
        chunk = file.read(CHUNK)
        if not chunk:
            return b""
        recent = recent[-16:] + chunk
    return recent[mark.start() :]


def cut_pages(chunks: Iterable[bytes | Rejected], name: str, max_bytes: int) -> Iterator[bytes | Rejected]:
    """What stands before the first page, then page by page; what the chunks have lost, and what is cut or too large.

    >>> list(cut_pages([b"<mediawiki><page>a</pa", b"ge><page>b</page></mediawiki>"], "a.xml", max_bytes=99))
    [b'<mediawiki>', b'<page>a</page>', b'<page>b</page>']
    """
    buffer, searched, in_page, in_head, is_whole = bytearray(), 0, False, True, True
    for chunk in chunks:
        if isinstance(chunk, Rejected):
            yield chunk
            buffer, searched, in_page, is_whole = bytearray(), 0, False, False
            continue
        buffer += chunk
        is_whole = True
        while True:
            place = buffer.find(CLOSE_PAGE if in_page else OPEN_PAGE, searched)
            if place < 0:
                searched = max(0, len(buffer) - len(CLOSE_PAGE))
                if len(buffer) > (max_bytes if in_page else MAX_HEAD):
                    if in_page:
                        yield Rejected(name, "too large", f"more than {max_bytes} bytes of XML")
                    buffer, searched, in_page = buffer[-len(CLOSE_DUMP) - 8 :], 0, False
                break
            if in_page:
                place += len(CLOSE_PAGE)
                begin = buffer.rfind(OPEN_PAGE, 0, place)
                if begin:
                    yield Rejected(name, "bad XML", "a page has no end")
                if place - begin <= max_bytes:
                    yield bytes(buffer[begin:place])
                else:
                    yield Rejected(name, "too large", f"{place - begin} bytes of XML")
            elif in_head:
                yield bytes(buffer[:place])
                in_head = False
            del buffer[:place]
            searched, in_page = 0, not in_page
    if in_head:
        yield Rejected(name, "no pages")
    elif is_whole and (in_page or CLOSE_DUMP not in buffer):
        yield Rejected(name, "XML cut short")


def parse_site(head: bytes, site: Site) -> Site:
    """What stands before the first page; where there is nothing of use, `site`."""
    language, element = LANGUAGE.search(head), SITE.search(head)
    if language:
        site = dataclasses.replace(site, languages=(language[1].decode("ascii"),))
    if element is None or element[0].count(b"<") > MAX_TAGS:
        return site
    try:
        tree = ElementTree.fromstring(element[0])
    except ElementTree.ParseError:
        return site
    names = {space.get("key"): space.text or "" for space in tree.iterfind("namespaces/namespace")}
    hidden = tuple(names[key] for key in HIDDEN_NAMESPACES if names.get(key))
    base, slash, _ = (tree.findtext("base") or "").rpartition("/")
    return dataclasses.replace(site, base=base + slash or site.base, hidden=hidden)


def parse_page(piece: bytes, name: str, site: Site) -> Article | Rejected:
    """The article in the XML of a page, or why there is none."""
    if piece.count(b"<") > MAX_TAGS:
        return Rejected(name, "bad XML", f"more than {MAX_TAGS} tags in a page")
    try:
        page = ElementTree.fromstring(piece)
    except ElementTree.ParseError as error:
        return Rejected(name, "bad XML", str(error))
    title, namespace = page.findtext("title") or "", page.findtext("ns") or ""
    revisions = page.findall("revision")
    if not title or not NAMESPACE.fullmatch(namespace) or not revisions:
        return Rejected(name, "bad XML", "a page without title, namespace or revision")
    url = site.base + urllib.parse.quote(title.replace(" ", "_"), safe="/:;@$!*(),~")  # as MediaWiki writes it
    if namespace != "0":
        return Rejected(url, f"namespace {namespace}")
    if page.find("redirect") is not None:
        return Rejected(url, "redirect")
    revision = revisions[-1]
    if revision.findtext("model", "wikitext") != "wikitext":
        return Rejected(url, "not wikitext", revision.findtext("model", ""))
    text, date = revision.findtext("text") or "", revision.findtext("timestamp") or ""
    if not text.strip():
        return Rejected(url, "empty")
    return Article(url, text, date if DATE.fullmatch(date) else None, site)
