"""Gzip members out of an archive that may be damaged: compressed chunks in, inflated bytes and gaps out.

A record-gzipped WARC is one gzip member (RFC 1952) after another, a record in each, so one bad member need not cost its
neighbours: the next one begins with the same three bytes. The usual readers stop there, and end a file that was cut
without a word. Here a stream of bytes that lost something holds a `Rejected` at the place where it was lost.

`inflate_whole` is FastWARC's decoder, as fast as they come, and good only while all is well; `inflate_members` is
zlib's, which says where a member ends, and goes on behind a damaged one.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from fastwarc.stream_io import GzipReader

from tf_llm.contracts import Rejected

MAGIC = b"\x1f\x8b\x08"
WITH_HEADER = 31  # zlib's name for a gzip member: header, deflate stream, CRC
CHUNK = 1 << 18  # bytes read at a time
PIECE = 1 << 14  # compressed bytes inflated at a time: they become 16 MiB at most
KEPT = 4 << 20  # compressed bytes of one member kept to be searched again where it turns out to be damaged
LOOK = 1 << 12  # compressed bytes that surely hold a member's header and its first letters

# A member of our own is put behind the file. Where the file was cut, it does not come out at the other end.
END = b"\n-- the end of the file, by tf_llm --\n"
END_MEMBER = gzip.compress(END, mtime=0)


class Buffer:
    """The next bytes of a stream of chunks, to be looked at before they are taken. It stops in front of a gap.

    Among the chunks a `Rejected` is a gap, and an empty one is a gzip member's end with the right CRC.
    """

    def __init__(self, chunks: Iterable[bytes | Rejected]):
        self.chunks = iter(chunks)
        self.data = bytearray()
        self.offset = 0  # of data[0] in the stream
        self.checked = 0  # offset in the stream up to which its gzip members are known to be sound
        self.gap: Rejected | None = None  # what is known to be missing behind `data`

    def fill(self, size: int) -> bool:
        """Whether `data` holds at least `size` bytes, after reading on for them."""
        while len(self.data) < size and self.gap is None:
            chunk = next(self.chunks, None)
            if chunk is None:
                return False
            if isinstance(chunk, Rejected):
                self.gap = chunk
            elif chunk:
                self.data += chunk
            else:
                self.checked = self.offset + len(self.data)
        return len(self.data) >= size

    def skip(self, size: int) -> None:
        self.offset += min(size, len(self.data))
        del self.data[:size]


def read_chunks(file: BinaryIO, name: str) -> Iterator[bytes | Rejected]:
    """The bytes of a file, or of anything with `read`, in chunks; an error of the disk or the network ends them."""
    try:
        while chunk := file.read(CHUNK):
            yield chunk
    except OSError as error:
        yield Rejected(name, "unreadable file", str(error))


def inflate_whole(file: BinaryIO, name: str) -> Iterator[bytes | Rejected]:
    """The inflated bytes of a gzip file, all members in one; the first oddity ends them with a `Rejected`.

    Bytes of a member whose CRC is wrong may have gone out before it is noticed, never bytes behind it.
    """
    reader, latest = None, b""
    try:
        reader = GzipReader(_Followed(file))
        while piece := reader.read(CHUNK):
            if len(piece) >= len(END):  # so the end mark is always in the latest piece
                yield latest
                latest = piece
            else:
                latest += piece
    except OSError as error:
        yield Rejected(name, "gzip member damaged", str(error))
        return
    if latest.endswith(END):
        yield latest[: -len(END)]
    else:
        yield Rejected(name, "gzip member cut short")


class _Followed:
    """A file with END_MEMBER behind it, in the shape that FastWARC reads from."""

    def __init__(self, file: BinaryIO):
        self.file, self.rest = file, END_MEMBER

    def read(self, size: int = -1) -> bytes:
        piece = self.file.read(size)
        if not piece:
            piece, self.rest = self.rest, b""
        return piece

    def tell(self) -> int:
        return self.file.tell()


def inflate_members(chunks: Iterable[bytes | Rejected], name: str) -> Iterator[bytes | Rejected]:
    """The inflated bytes of every gzip member that can be read, b"" behind each, and a `Rejected` where one could not.

    What could be inflated of a damaged member goes out before its `Rejected`. The search for the next member begins
    one byte behind the start of the damaged one and accepts only a member that begins with a WARC record. Memory is
    flat: one member of 1 GB is read like a thousand small ones.
    """
    buffer = Buffer(chunks)
    while buffer.fill(1):
        inflater, used, reason = zlib.decompressobj(WITH_HEADER), 0, ""
        start = buffer.offset
        while not inflater.eof and not reason:
            if not buffer.fill(used + 1):
                reason = "gzip member cut short"
                break
            piece, before = bytes(buffer.data[used : used + PIECE]), inflater.copy()
            try:
                inflated = inflater.decompress(piece)
            except zlib.error:
                reason = "gzip member damaged"
                inflated = _inflate_until_error(before, piece)
            yield inflated
            used += len(piece)
            if used > KEPT:
                buffer.skip(PIECE)
                used -= PIECE
        if reason:
            yield Rejected(name, reason, f"the member at byte {start}")
            _find_member(buffer)
        else:
            yield b""
            buffer.skip(used - len(inflater.unused_data))
    if buffer.gap:
        yield buffer.gap


def _inflate_until_error(inflater, piece: bytes) -> bytes:
    """zlib keeps what it had inflated before an error in the same call to itself, so it is called byte by byte."""
    inflated = bytearray()
    try:
        for byte in piece:
            inflated += inflater.decompress(bytes([byte]))
    except zlib.error:
        pass
    return bytes(inflated)


def _find_member(buffer: Buffer) -> None:
    """Drop the bytes up to the next member that begins with a record; all of them where there is none."""
    buffer.skip(1)
    while buffer.fill(len(MAGIC)):
        found = buffer.data.find(MAGIC)
        if found < 0:
            buffer.skip(len(buffer.data) - len(MAGIC) + 1)
            continue
        buffer.skip(found)
        buffer.fill(LOOK)
        try:
            if zlib.decompressobj(WITH_HEADER).decompress(bytes(buffer.data[:LOOK]), 5) == b"WARC/":
                return
        except zlib.error:
            pass  # three bytes that look like a member by chance: one in 16 MB
        buffer.skip(1)
    buffer.skip(len(buffer.data))
