"""The body of an HTTP answer, its transfer encoding (RFC 9112, 7) and content encoding (RFC 9110, 8.4) removed.

Crawlers store answers as they came, or decode them and keep the old head: a head that promises an encoding which the
body does not begin with is not believed. What begins with an encoding and breaks off is an error, never a short body.
"""

from __future__ import annotations

import io
import re
import zlib

from fastwarc.stream_io import BrotliReader, ZstdReader

CHUNK_HEAD = re.compile(rb"(?:\r?\n)?([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r?\n")
GZIP_OR_ZLIB, RAW_DEFLATE = 47, -15  # zlib's names
GZIP_MAGIC, ZSTD_MAGIC = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


class TooLargeError(ValueError):
    """The decoded body is over the limit."""


def decode_body(body: bytes, transfer: str, content: str, max_bytes: int) -> bytes:
    """Remove the encodings named by the headers Transfer-Encoding and Content-Encoding (comma lists, or "").

    Knows chunked, gzip, deflate (zlib or raw), br and zstd; an unknown name counts as no encoding, as in browsers.

    Raises:
        TooLargeError: the result would be over `max_bytes`; no more than that was inflated.
        ValueError, OSError, zlib.error: the body is not what its head says, or breaks off.

    >>> decode_body(b"3;x=y\\r\\ntea\\r\\n0\\r\\n\\r\\n", "chunked", "", 100)
    b'tea'
    """
    if "chunked" in transfer.lower():
        body = remove_chunks(body)
    encodings = [name.strip().lower() for name in f"{content},{transfer}".split(",")]
    for name in reversed(encodings):
        body = remove_encoding(body, name, max_bytes)
        if len(body) > max_bytes:
            raise TooLargeError(f"more than {max_bytes} bytes")
    return body


def remove_chunks(body: bytes) -> bytes:
    """Join the chunks; a body that does not begin with one is returned as it is.

    FastWARC's reader refuses chunk extensions; resiliparse's takes a body that breaks off for a whole one.
    """
    chunks, at = [], 0
    while head := CHUNK_HEAD.match(body, at):
        size, at = int(head[1], 16), head.end() + int(head[1], 16)
        if not size:
            return b"".join(chunks)
        if at > len(body):
            break
        chunks.append(body[head.end() : at])
    if chunks:
        raise ValueError(f"chunked body breaks off after {at} of {len(body)} bytes")
    return body


def remove_encoding(body: bytes, name: str, max_bytes: int) -> bytes:
    """Undo one content encoding, reading at most one byte over `max_bytes`."""
    if name in ("gzip", "x-gzip"):
        return inflate(body, GZIP_OR_ZLIB, max_bytes) if body.startswith(GZIP_MAGIC) else body
    if name == "deflate" and body:
        is_zlib = body[0] & 15 == 8 and int.from_bytes(body[:2], "big") % 31 == 0
        return inflate(body, GZIP_OR_ZLIB if is_zlib else RAW_DEFLATE, max_bytes)
    if name == "br" and body:
        return BrotliReader(io.BytesIO(body)).read(max_bytes + 1)
    if name == "zstd" and body.startswith(ZSTD_MAGIC):
        return ZstdReader(io.BytesIO(body)).read(max_bytes + 1)
    return body


def inflate(body: bytes, window_bits: int, max_bytes: int) -> bytes:
    """One gzip, zlib or deflate stream after another, up to one byte over `max_bytes`."""
    inflated = b""
    while True:
        inflater = zlib.decompressobj(window_bits)
        inflated += inflater.decompress(body, max_bytes + 1 - len(inflated))
        if len(inflated) > max_bytes:
            return inflated
        if not inflater.eof:
            raise ValueError("compressed body breaks off")
        body = inflater.unused_data
        if not body.startswith(GZIP_MAGIC):
            return inflated
