"""Small archives for tests, written as a crawler writes them."""

import gzip
import random

NOUNS = [
    "kettle",
    "harbour",
    "lantern",
    "orchard",
    "violin",
    "glacier",
    "teapot",
    "compass",
    "meadow",
    "falcon",
    "anchor",
    "pebble",
]
VERBS = ["finds", "follows", "admires", "paints", "forgets", "answers", "carries", "repairs", "watches", "borrows"]


def write_prose(seed, sentences):
    """Text with a grammar that a small model can learn, the same for the same seed."""
    rng = random.Random(seed)
    lines = []
    for _ in range(sentences):
        first, second = rng.sample(NOUNS, 2)
        lines.append(f"The {first} {rng.choice(VERBS)} the old {second}.")
    return " ".join(lines)


def write_html(seed, sentences=40):
    body = "".join(f"<p>{write_prose(seed * 1000 + part, sentences // 4)}</p>" for part in range(4))
    return f"<html><head><title>Page {seed}</title></head><body><main><h1>Page {seed}</h1>{body}</main></body></html>"


def write_record(url, html):
    body = html.encode()
    block = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n" + body
    head = (
        f"WARC/1.1\r\nWARC-Type: response\r\nWARC-Target-URI: {url}\r\nWARC-Date: 2026-11-01T00:00:00Z\r\n"
        f"WARC-Record-ID: <urn:x:{url}>\r\nContent-Type: application/http; msgtype=response\r\n"
        f"Content-Length: {len(block)}\r\n\r\n"
    )
    return gzip.compress(head.encode() + block + b"\r\n\r\n", mtime=0)


def write_warc(path, pages=60, sentences=40):
    """A record-gzipped WARC of so many pages; returns its path."""
    path.write_bytes(b"".join(write_record(f"https://example.org/{n}", write_html(n, sentences)) for n in range(pages)))
    return path
