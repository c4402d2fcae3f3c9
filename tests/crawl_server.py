"""A Common Crawl on this machine, in its real layout, that behaves as badly as it is told to.

    server = start()
    server.faults = [("status", 503), ("reset", 1000)]     # what the next two requests for a data file run into
    server.requests                                        # [(path with its query, headers)]
    stop(server)

The faults, each with an amount:

    status        code, or (code, {header: value}, or what makes one when it is sent)
    redirect      address
    cut           bytes, then the connection ends        reset         bytes, then it is reset
    stall         bytes, then silence                    no length     bytes, and nobody says how many
    lie           bytes announced that never come        extra         bytes too many, announced
    short         bytes of a file that is said to end there
    wrong range   bytes by which Content-Range is wrong
    wrong byte    offset in the body of a byte that is changed
    no ranges     bytes of the whole file, whatever part was asked for
    no version    bytes, of a file that nothing tells from a later one
    older         bytes of another file that was there before, another one for each amount
"""

import base64
import functools
import gzip
import hashlib
import http.server
import json
import random
import re
import socket
import struct
import threading
import time
import urllib.parse
import zlib

from tf_llm.crawl.manners import read_retry_after
from tf_llm.crawl.self_crawl import format_warc

CRAWL = "CC-MAIN-2026-39"
FILES = [f"crawl-data/{CRAWL}/segments/1/warc/CC-MAIN-20260901-0000{number}.warc.gz" for number in range(3)]
PATHS = f"crawl-data/{CRAWL}/warc.paths.gz"
WET_FILES = [path.replace("/warc/", "/wet/").replace(".warc.gz", ".warc.wet.gz") for path in FILES]
WET_PATHS = f"crawl-data/{CRAWL}/wet.paths.gz"
LANGUAGES = ("eng", "spa,eng", "deu")  # of pages 0, 1, 2, then again
ALL = 10**9  # more bytes than any file has


@functools.cache
def make_archive(seed, pages=30):
    """A WARC file of some 60 kB in 31 gzip members."""
    draw = random.Random(seed)
    return format_warc([(f"https://{seed}.example/{n}", draw.randbytes(1500).hex().encode()) for n in range(pages)])


def list_members(content):
    """[(offset, gzip member)] of a record-gzipped file."""
    members, offset = [], 0
    while offset < len(content):
        inflater = zlib.decompressobj(wbits=31)
        inflater.decompress(content[offset:])
        end = len(content) - len(inflater.unused_data)
        members.append((offset, content[offset:end]))
        offset = end
    return members


@functools.cache
def list_entries(path, content):
    """What Common Crawl's index says of the pages of a file, as its server writes it."""
    entries = []
    for offset, member in list_members(content):
        head, _, block = gzip.decompress(member).partition(b"\r\n\r\n")
        url = re.search(rb"WARC-Target-URI: (\S+)", head)
        if url:
            entries.append(
                {
                    "urlkey": url[1].decode(),
                    "timestamp": "20260901000000",
                    "url": url[1].decode(),
                    "mime": "text/html",
                    "mime-detected": "text/html",
                    "status": block[9:12].decode(),
                    "digest": re.search(rb"WARC-Payload-Digest: sha1:(\S+)", head)[1].decode(),
                    "length": str(len(member)),
                    "offset": str(offset),
                    "filename": path,
                    "languages": LANGUAGES[len(entries) % len(LANGUAGES)],
                    "encoding": "UTF-8",
                }
            )
    return entries


def matches(url, pattern, kind):
    """Whether an address matches as in pywb: a star in the pattern stands for a kind of match."""
    if pattern.startswith("*."):
        pattern, kind = pattern[2:], "domain"
    elif pattern.endswith("*"):
        pattern, kind = pattern[:-1], "prefix"
    url, pattern = (re.sub(r"^https?://", "", address) for address in (url, pattern))
    host = url.partition("/")[0]
    return {
        "exact": url == pattern,
        "prefix": url.startswith(pattern),
        "host": host == pattern,
        "domain": host == pattern or host.endswith(f".{pattern}"),
    }[kind]


def passes(entry, condition):
    """One filter of pywb: =field:value is exact, ~field:pattern a regular expression from the beginning on."""
    kind, (field, _, value) = condition[0], condition[1:].partition(":")
    return entry[field] == value if kind == "=" else bool(re.match(value, entry[field]))


class Server(http.server.ThreadingHTTPServer):
    """Serves `files`, and an index of them; of `faults`, each request for a file below segments/ takes the first."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_address[1]}"
        self.files = {path: make_archive(number) for number, path in enumerate(FILES)}
        self.files[PATHS] = gzip.compress("\n".join(FILES).encode() + b"\n")
        self.files["collinfo.json"] = json.dumps(
            [
                {"id": "CC-MAIN-2026-30", "to": "2026-08-01T00:00:00"},
                {"id": CRAWL, "to": "2026-09-30T00:00:00"},
                {"id": "CC-MAIN-2012", "to": "2012-12-31T00:00:00"},
            ]
        ).encode()
        self.entries = [entry for path in FILES for entry in list_entries(path, self.files[path])]
        self.page_size = 40  # lines of the index a page
        self.faults, self.requests = [], []
        self.times = []  # of the requests
        self.refusals = []  # (when one was sent, seconds that its Retry-After asks for)
        self.ranges, self.chunked = True, False
        self.digests = None  # how the digest of a file is told: "md5", as in Content-MD5, or "s3"
        self.release = threading.Event()

    def handle_error(self, *_):
        pass  # clients that hang up are what this is about


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        server, path, query = self.server, *self.path.lstrip("/").partition("?")[::2]
        path = urllib.parse.unquote(path)
        server.requests.append((self.path.lstrip("/"), dict(self.headers)))
        server.times.append(time.monotonic())
        self.close_connection = True
        if path == f"{CRAWL}-index":
            return self.send_index(urllib.parse.parse_qs(query))
        fault, amount = server.faults.pop(0) if server.faults and "segments" in path else (None, 0)
        if fault == "status":
            status, headers = (amount, {}) if isinstance(amount, int) else amount
            headers = headers() if callable(headers) else headers
            if status in (403, 429):
                server.refusals.append((time.monotonic(), read_retry_after(headers.get("Retry-After"))))
            return self.send_empty(status, headers)
        if fault == "redirect":
            return self.send_empty(302, {"Location": amount})
        if path not in server.files:
            return self.send_empty(404, {})
        content = server.files[path]
        if fault == "older":
            content = make_archive(f"{path} {amount}")
        tag = f'"{hashlib.md5(content).hexdigest()}"' if server.digests == "s3" else f'"{hash(content)}"'
        whole = content[:amount] if fault == "short" else content
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not server.ranges or fault == "no ranges" or self.headers.get("If-Range", tag) != tag:
            asked = None
        start, end = 0, len(whole)
        if asked:
            start, end = int(asked[1]), min(int(asked[2] or len(whole)) + 1, len(whole))
            if start >= len(whole):
                return self.send_empty(416, {"Content-Range": f"bytes */{len(whole)}"})
        self.send_response(206 if asked else 200)
        if fault != "no version":
            self.send_header("ETag", tag)
        if server.digests == "s3":
            self.send_header("x-amz-server-side-encryption", "AES256")
        if server.digests == "md5":
            self.send_header("Content-MD5", base64.b64encode(hashlib.md5(content[start:end]).digest()).decode())
        if asked:
            shift = amount if fault == "wrong range" else 0
            self.send_header("Content-Range", f"bytes {start + shift}-{end - 1 + shift}/{len(whole)}")
        if server.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif fault != "no length":
            self.send_header("Content-Length", str(end - start + (amount if fault in ("lie", "extra") else 0)))
        self.end_headers()
        body = whole[start:end]
        if fault in ("cut", "reset", "stall", "no version", "no ranges", "no length", "older"):
            body = body[:amount]
        if fault == "extra":
            body += bytes(amount)
        if fault == "wrong byte" and amount < len(body):
            body = body[:amount] + bytes([body[amount] ^ 255]) + body[amount + 1 :]
        if server.chunked:
            for position in range(0, len(body), 50):
                piece = body[position : position + 50]
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            body = b"" if fault == "cut" else b"0\r\n\r\n"
        self.wfile.write(body)
        self.wfile.flush()
        if fault == "stall":
            server.release.wait(5)
        if fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def send_index(self, query):
        """Answers as pywb does: the number of pages, or one page of results, a JSON object a line, in chunks."""
        server, [url], [kind] = self.server, query["url"], query.get("matchType", ["exact"])
        assert query["output"] == ["json"]
        found = [entry for entry in server.entries if isinstance(entry, bytes) or matches(entry["url"], url, kind)]
        pages = [found[start : start + server.page_size] for start in range(0, len(found), server.page_size)]
        if "showNumPages" in query:
            lines = [json.dumps({"pages": len(pages), "pageSize": 5, "blocks": len(pages)}).encode()]
        else:
            page = pages[int(query["page"][0])]
            page = [
                entry
                for entry in page
                if isinstance(entry, bytes) or all(passes(entry, condition) for condition in query.get("filter", []))
            ][: int(query.get("limit", [ALL])[0])]
            fields = query["fl"][0].split(",")
            lines = [
                entry
                if isinstance(entry, bytes)
                else json.dumps({field: entry[field] for field in fields if field in entry}).encode()
                for entry in page
            ]
        body = b"".join(line + b"\n" for line in lines)
        self.send_response(200 if found and lines else 404)
        self.send_header("Content-Type", "text/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        body = body if found and lines else json.dumps({"message": f"No Captures found for: {url}"}).encode()
        self.wfile.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))

    def send_empty(self, status, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()


def start():
    """A server that runs in a thread of its own."""
    server = Server()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    return server


def stop(server):
    server.release.set()
    server.shutdown()
    server.server_close()
