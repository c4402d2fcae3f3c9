"""Sound WARC records out of an archive that may not be sound.

A record (WARC 1.0 and 1.1, ISO 28500) is a head of `Name: value` lines, a blank line, a block of Content-Length bytes
and two line ends. Readers believe the Content-Length. Here it must be borne out: the two line ends or the next head
follow the block, and the block has the digest that the head names, where it names one. What fails is rejected, and
reading goes on at the next `WARC/1.x` line behind the start of the record that failed.

What nobody can notice: a file cut exactly between two records (two gzip members); a changed byte in the head of an
uncompressed record, which no digest covers (its address or date, say); a changed byte in the block of an uncompressed
record without a digest. In a file that is a single gzip member the CRC comes last: a changed byte is counted, but the
record that held it may have been given out by then, if no digest spoke against it.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from tf_llm.contracts import Rejected
from tf_llm.crawl.members import MAGIC, Buffer, inflate_members, inflate_whole, read_chunks

START = re.compile(rb"WARC/[01]\.\d+[ \t]*+\r?\n")
HEAD = re.compile(START.pattern + rb"(?:(?!\r?\n)[^\n]*+\n)*+\r?\n")
MAX_HEAD = 1 << 16  # bytes; a target address may be long
LENGTH = re.compile(rb"^Content-Length:[ \t]*(\d{1,18})[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
BLOCK_DIGEST = re.compile(rb"^WARC-Block-Digest:[ \t]*(\S+)", re.IGNORECASE | re.MULTILINE)
NEWLINES = re.compile(rb"[\r\n]*+")

# What may follow a block: its two line ends, the next head (some writers leave out the line ends), the end of the file.
FOLLOWED = re.compile(rb"\r?\n\r?\n|.{0,4}WARC/|.{0,4}\Z", re.DOTALL)
FOLLOWED_SIZE = len(b"\r\n\r\nWARC/")

URL_SAFE = str.maketrans("-_", "+/")  # the two alphabets of base 64
START_SIZE = 16  # bytes of a `WARC/1.x` line at most
MANY_STARTS = 100  # a block that fails its digest is searched for neighbours that it swallowed if it has no more starts


def read_records(file: BinaryIO, name: str, max_bytes: int) -> Iterator[bytes | Rejected]:
    """The sound records of an archive, each as its bytes, head and block, and a `Rejected` wherever some are missing.

    `file` may be uncompressed, one gzip member, or a member per record, and need not be seekable. Records whose block
    is larger than `max_bytes` are rejected. Nothing is raised, whatever the bytes are.

    A sound gzip file goes through FastWARC's decoder in one go. At the first oddity the reading begins again with
    zlib, member by member, and passes over the records that were given out already.
    """
    begin = file.tell() if file.seekable() else None
    chunks = read_chunks(file, name)
    first = next(chunks, b"")
    if isinstance(first, Rejected) or not first:
        yield first or Rejected(name, "empty file")
        return
    chunks = itertools.chain([first], chunks)
    if not looks_gzipped(first):
        yield from split_records(chunks, name, max_bytes)
        return
    given = 0
    if begin is not None:
        file.seek(begin)
        for record in split_records(inflate_whole(file, name), name, max_bytes):
            if isinstance(record, Rejected):
                break
            yield record
            given += 1
        else:
            return
        file.seek(begin)
        chunks = read_chunks(file, name)
    for record in split_records(inflate_members(chunks, name), name, max_bytes):
        if isinstance(record, Rejected) or not given:
            yield record
        else:
            given -= 1


def looks_gzipped(first: bytes) -> bool:
    """Whether a file that begins so holds gzip members: one of its first bytes may be wrong, or its start be lost."""
    matching = sum(one == other for one, other in zip(first, MAGIC, strict=False))
    return matching >= 2 or not START.search(first)


def split_records(chunks: Iterable[bytes | Rejected], name: str, max_bytes: int) -> Iterator[bytes | Rejected]:
    """Cut inflated bytes into records. A `Rejected` among the chunks is a gap: nothing is joined across it."""
    buffer = Buffer(chunks)
    given = 0
    counted = False  # whether it was already said that the bytes in front of the next record are lost
    while buffer.fill(1) or buffer.gap:
        if not buffer.data:
            yield buffer.gap
            buffer.gap, counted = None, True
            continue
        if newlines := NEWLINES.match(buffer.data).end():
            buffer.skip(newlines)
            continue
        if buffer.offset == 0 and buffer.data.startswith(b"filedesc:"):
            yield Rejected(name, "ARC, not WARC", "the format of before 2009")
            return
        size, problem = measure_record(buffer, max_bytes)
        record = bytes(memoryview(buffer.data)[:size])
        if not problem and not has_its_digest(record):
            problem = "digest mismatch"
        if not problem:
            buffer.skip(size)
            yield record
            given, counted = given + 1, False
            continue
        begin, headed = buffer.offset, START.match(buffer.data)
        if problem == "too large":  # said before its gigabytes are passed over: who breaks off here need not read them
            yield Rejected(name, problem, f"at byte {begin}")
            headed, counted = None, True
        if record.count(b"WARC/") > MANY_STARTS:
            buffer.skip(size)
        else:
            seek_start(buffer)
        in_gap = buffer.gap and not buffer.data  # which will be yielded next
        if not in_gap and (headed or (not counted and (given or buffer.data))):
            yield Rejected(name, problem, f"at byte {begin}")
        counted = True
    if not given:
        yield Rejected(name, "no whole WARC record")


def measure_record(buffer: Buffer, max_bytes: int) -> tuple[int, str]:
    """The size of the record at the front of the buffer and "", or 0 and what is wrong with it."""
    buffer.fill(MAX_HEAD)
    head = HEAD.match(buffer.data, 0, MAX_HEAD)
    length = head and LENGTH.search(head[0])
    if not length:
        return 0, "record damaged"
    length = int(length[1])
    if length > max_bytes:
        return 0, "too large"
    size = head.end() + length
    # Reading on into the next head also makes sure that the CRC of this record's gzip member was right.
    buffer.fill(size + FOLLOWED_SIZE)
    unchecked = buffer.gap and len(buffer.data) < size + FOLLOWED_SIZE and buffer.checked < buffer.offset + size
    if unchecked or len(buffer.data) < size:
        return 0, "record cut short"
    if not FOLLOWED.match(bytes(buffer.data[size : size + FOLLOWED_SIZE])):
        return 0, "record damaged"
    return size, ""


def has_its_digest(record: bytes) -> bool:
    """Whether the block has the digest that the head names, if it names one."""
    end = HEAD.match(record).end()
    named = BLOCK_DIGEST.search(record, 0, end)
    return not named or matches_digest(named[1].decode("latin-1"), memoryview(record)[end:])


def matches_digest(digest: str, content: bytes | memoryview) -> bool:
    """Whether `content` has the digest `algorithm:value`, its value in base 16, 32 or 64. An unknown algorithm passes.

    >>> matches_digest("sha1:VL2MMHO4YXUKFWV63YHTWSBM3GXKSQ2N", b"abc")
    False
    >>> matches_digest("sha1:VGMT4NSHA2AWVOR6EVYXQUGCNSONBWE5", b"abc")
    True
    """
    algorithm, _, value = digest.partition(":")
    algorithm, value = algorithm.lower().replace("-", ""), value.rstrip("=")
    if algorithm not in ("md5", "sha1", "sha224", "sha256", "sha384", "sha512"):
        return True
    actual = hashlib.new(algorithm, content, usedforsecurity=False).digest()
    return (
        value.lower() == actual.hex()
        or value.upper() == base64.b32encode(actual).decode().rstrip("=")
        or value.translate(URL_SAFE) == base64.b64encode(actual).decode().rstrip("=")
    )


def seek_start(buffer: Buffer) -> None:
    """Drop the first byte and all up to the next line that may start a record; everything where there is none."""
    if START.match(buffer.data) and not HEAD.match(buffer.data, 0, MAX_HEAD):
        # There is no blank line in reach of this start, so none in the reach of any start before the last one.
        buffer.skip(max(1, buffer.data.rfind(b"WARC/", 1, MAX_HEAD)))
    else:
        buffer.skip(1)
    # `in` passes over a gigabyte without a start several times faster than the pattern does.
    while not (start := START.search(buffer.data) if b"WARC/" in buffer.data else None):
        buffer.skip(max(0, len(buffer.data) - START_SIZE))
        if not buffer.fill(START_SIZE + 1):
            buffer.skip(START_SIZE)
            return
    buffer.skip(start.start())
