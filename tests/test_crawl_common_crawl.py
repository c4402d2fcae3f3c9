"""Common Crawl from a server on this machine as bad as a real one: the bytes must be right all the same."""

import email.utils
import gzip
import http.server
import json
import pickle
import random
import re
import socket
import struct
import threading
import time
from collections import Counter

import pytest

from tf_llm.contracts import UserError
from tf_llm.crawl import cache
from tf_llm.crawl.common_crawl import CommonCrawl
from tf_llm.crawl.download import DownloadConfig, Host, answers, read_retry_after
from tf_llm.crawl.self_crawl import format_warc

CRAWL = "CC-MAIN-2026-39"
FILES = [f"crawl-data/{CRAWL}/segments/1/warc/CC-MAIN-20260901-0000{number}.warc.gz" for number in range(3)]
PATHS = f"crawl-data/{CRAWL}/warc.paths.gz"
TIMEOUT = 0.3  # seconds
ALL = 10**9  # more bytes than any file has


def make_archive(seed, pages=30):
    """A WARC file of some 60 kB in 31 gzip members."""
    draw = random.Random(seed)
    return format_warc([(f"https://{seed}.example/{n}", draw.randbytes(1500).hex().encode()) for n in range(pages)])


class Server(http.server.ThreadingHTTPServer):
    """Serves `files`; of `faults`, each request for a file below segments/ takes the first one."""

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
        self.faults, self.requests, self.ranges, self.chunked = [], [], True, False
        self.release = threading.Event()

    def handle_error(self, *_):
        pass  # clients that hang up are what this is about


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        server, path = self.server, self.path.lstrip("/")
        server.requests.append((path, dict(self.headers)))
        self.close_connection = True
        fault, amount = server.faults.pop(0) if server.faults and "segments" in path else (None, 0)
        if fault == "status":
            return self.send_error(amount) if isinstance(amount, int) else self.send_error_after(*amount)
        if fault == "redirect":
            return self.send_error_after(302, {"Location": amount})
        if path not in server.files:
            return self.send_error(404)
        content = server.files[path]
        tag = f'"{hash(content)}"'
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not server.ranges or fault == "no ranges" or self.headers.get("If-Range", tag) != tag:
            asked = None
        start, end = 0, len(content)
        if asked:
            start, end = int(asked[1]), min(int(asked[2] or len(content)) + 1, len(content))
            if start >= len(content):
                return self.send_error_after(416, {"Content-Range": f"bytes */{len(content)}"})
        self.send_response(206 if asked else 200)
        if fault != "no version":
            self.send_header("ETag", tag)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
        if server.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif fault != "no length":
            self.send_header("Content-Length", str(end - start + (amount if fault in ("lie", "extra") else 0)))
        self.end_headers()
        body = content[start:end]
        if fault in ("cut", "reset", "stall", "no version", "no ranges", "no length"):
            body = body[:amount]
        if fault == "extra":
            body += bytes(amount)
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

    def send_error_after(self, status, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.release.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def waits():
    """Seconds that the client would have waited, one entry a wait."""
    return []


@pytest.fixture
def connect(server, waits, tmp_path):
    """Makes a CommonCrawl that talks to the server and waits for nothing."""

    def connect(crawl=CRAWL, **settings):
        config = DownloadConfig(**{"timeout": TIMEOUT, **settings.pop("config", {})})
        settings = {"cache_dir": tmp_path / "cache", "index_interval": 0, "data_interval": 0, **settings}
        return CommonCrawl(
            crawl,
            index_address=server.address,
            data_address=server.address,
            config=config,
            sleep=waits.append,
            **settings,
        )

    return connect


def fetch(source):
    return [path.read_bytes() for path in source.download()]


def list_data_requests(server):
    return [headers for path, headers in server.requests if "segments" in path]


def list_members(content):
    """Offsets at which the members of a record-gzipped file end, found the plain way."""
    starts = [match.start() for match in re.finditer(rb"\x1f\x8b\x08\x00\x00\x00\x00\x00", content)]
    return [*starts[1:], len(content)]


def test_whole_files_are_the_servers_and_a_second_run_asks_nobody(server, connect):
    assert fetch(connect(files=2)) == [server.files[path] for path in FILES[:2]]
    before = len(server.requests)
    assert before == 3
    source = connect(files=2)
    urls = [page.url for page in source]
    assert urls == [f"https://{seed}.example/{n}" for seed in range(2) for n in range(30)]
    assert [page.url for page in source] == urls
    assert len(server.requests) == before
    assert not source.rejections


def test_first_megabytes_are_whole_records_and_no_damage(server, connect):
    whole = server.files[FILES[0]]
    ends = list_members(whole)
    assert len(ends) == 31
    for amount in (ends[4], ends[4] + 1, ends[5] - 1, ends[5], ends[1]):
        source = connect(megabytes=amount / 1e6)
        pages = list(source)
        [part] = fetch(source)
        assert part == whole[: max(end for end in ends if end <= amount)]
        assert [page.url for page in pages] == [f"https://0.example/{n}" for n in range(len(list_members(part)) - 1)]
        assert not source.rejections
        assert list_data_requests(server)[-1]["Range"] == f"bytes=0-{amount - 1}"
    assert fetch(connect(megabytes=1)) == [whole]


def test_too_few_megabytes_for_one_record(connect, tmp_path):
    with pytest.raises(UserError, match=r"expected a whole gzip member .* Received: 100 bytes. Ask for more megabytes"):
        fetch(connect(megabytes=0.0001))
    assert not list(tmp_path.rglob("*segments*")) and not list(tmp_path.rglob("*.part*"))


FAULTS = {
    "resets": [("reset", 1000), ("reset", 0), ("reset", 20_000)],
    "clean cuts": [("cut", 10), ("cut", 20_000), ("cut", 5)],
    "stalls": [("stall", 1000), ("stall", 0)],
    "busy": [("status", code) for code in (500, 502, 503, 504, 503, 503, 503, 503, 503, 503, 503, 503)],
    "refused": [("status", 429), ("status", 403)],
    "no ranges": [("no ranges", 25_000), ("no ranges", 20_000), ("no ranges", ALL)],
    "ranges no more": [("cut", 20_000), ("no ranges", ALL)],
    "no version": [("no version", 20_000), ("cut", 10_000)],
    "one lie": [("lie", 5000)],
    "no length": [("no length", 20_000)],
    "more than was announced": [("cut", 20_000), ("extra", 500)],
    "shorter than what is here": [("cut", 20_000), ("status", 416)],
    "a bit of everything": [("cut", 9000), ("status", 503), ("reset", 9000), ("status", 429), ("stall", 9000)],
}


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("megabytes", [None, 0.03])
def test_faults_do_not_change_a_byte(server, connect, name, megabytes):
    server.faults = list(FAULTS[name])
    [content] = fetch(connect(megabytes=megabytes))
    assert not server.faults
    whole = server.files[FILES[0]]
    assert content == whole[: max(end for end in list_members(whole) if megabytes is None or end <= 30_000)]


@pytest.mark.parametrize("seed", range(20))
def test_any_sequence_of_faults_gives_the_same_bytes(server, connect, seed):
    draw = random.Random(seed)
    kinds = ("cut", "reset", "no ranges", "lie", "no version", "status")
    server.faults = [
        (kind, draw.choice((503, 500)) if kind == "status" else draw.randrange(1, 30_000))
        for kind in draw.choices(kinds, k=12)
    ]
    settings = {"lost_attempts": 20}
    assert fetch(connect(config=settings)) == [server.files[FILES[0]]]


def test_resume_asks_only_for_what_is_missing_of_the_same_version(server, connect):
    server.faults = [("cut", 1000), ("cut", 2000)]
    fetch(connect())
    first, second, third = list_data_requests(server)
    assert "Range" not in first and "If-Range" not in first
    assert second["Range"] == "bytes=1000-"
    assert third["Range"] == "bytes=3000-"
    assert second["If-Range"] == third["If-Range"] == f'"{hash(server.files[FILES[0]])}"'


def test_a_later_run_goes_on_where_this_one_failed(server, connect, tmp_path):
    server.faults = [("cut", 12_345), ("status", 503), ("status", 503)]
    with pytest.raises(UserError, match=r"Received: 503 .*\(2 times in a row\). Try again later: .* where it stopped"):
        fetch(connect(config={"busy_attempts": 2}))
    assert not list(tmp_path.rglob("*00000.warc.gz"))
    assert fetch(connect()) == [server.files[FILES[0]]]
    assert list_data_requests(server)[-1]["Range"] == "bytes=12345-"
    assert not list(tmp_path.rglob("*.part*"))


@pytest.mark.parametrize("known", [None, b"{", b"[]", b'{"total": 3}'])
def test_a_part_of_unknown_origin_is_not_used(server, connect, tmp_path, known):
    for megabytes, prefix in ((None, ""), (0.03, "first-30000-bytes-of-")):
        part = tmp_path / "cache" / "common_crawl" / CRAWL / "warc" / f"{prefix}{FILES[0].rsplit('/')[-1]}.part"
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(b"something else" * 5000)
        if known is not None:
            part.with_name(part.name + ".json").write_bytes(known)
        [content] = fetch(connect(megabytes=megabytes))
        assert len(content) > 25_000
        assert server.files[FILES[0]].startswith(content)


def test_a_file_that_changes_on_the_server_is_never_mixed(server, connect):
    old, new = server.files[FILES[0]], make_archive(99, pages=25)
    server.faults = [("cut", 20_000)]
    source = connect(config={"lost_attempts": 4})
    sleep = source.data.sleep

    def change(seconds):
        server.files[FILES[0]] = new
        sleep(seconds)

    source.data.sleep = change
    assert fetch(source) == [new] != [old]


def test_retry_after_is_honoured(server, connect, waits):
    in_a_minute = email.utils.formatdate(time.time() + 60, usegmt=True)
    headers = ({"Retry-After": "7"}, {"Retry-After": in_a_minute}, {"Retry-After": "100000"}, {"Retry-After": "soon"})
    server.faults = [("status", (503, header)) for header in headers]
    assert fetch(connect(config={"longest_retry_after": 900.0})) == [server.files[FILES[0]]]
    seven, minute, capped, unreadable = waits
    assert seven == 7.0
    assert 50 < minute <= 60
    assert capped == 900.0
    assert 4.0 <= unreadable <= 8.0  # the fourth wait of its own: 1, 2, 4, 8 seconds, less jitter


def test_retry_after_in_the_past_or_unreadable_asks_for_nothing():
    for value in (None, "", "-5", "soon", "Mon, 01 Jan 2001 00:00:00 GMT", "Mon, 99 Foo 9999 00:00:00 GMT", "1" * 50):
        assert read_retry_after(value) == 0.0


def test_waits_grow_with_jitter_and_progress_resets_them(server, connect, waits):
    server.faults = [("status", 503)] * 8 + [("cut", 1000), ("status", 503)]
    fetch(connect(config={"longest_wait": 30.0}))
    for wait, longest in zip(waits, [1, 2, 4, 8, 16, 30, 30, 30, 1, 1], strict=True):
        assert longest / 2 <= wait <= longest


def test_a_server_that_refuses_is_left_alone(server, connect, waits):
    server.faults = [("status", 429), ("status", 403), ("status", 429), ("status", 429)]
    with pytest.raises(UserError, match=r"Received: 429 Too Many Requests \(3 times in a row\)"):
        fetch(connect(config={"cool_down": 90.0}))
    assert len(list_data_requests(server)) == 3
    assert len(waits) == 2 and min(waits) >= 90


def test_missing_file_is_asked_for_once(server, connect, waits, tmp_path):
    del server.files[FILES[0]]
    with pytest.raises(UserError, match=r"expected a file at http://127.*00000.warc.gz. Received: 404 Not Found"):
        fetch(connect())
    assert len(list_data_requests(server)) == 1
    assert waits == []
    assert not list(tmp_path.rglob("*.part*"))


def test_a_length_that_is_never_kept_is_no_file(server, connect, tmp_path):
    server.faults = [("lie", 5000)] * 50
    server.ranges = False
    with pytest.raises(UserError, match=r"the connection ended after [\d,]+ of [\d,]+ bytes \(3 times in a row\)"):
        fetch(connect(config={"lost_attempts": 3}))
    assert not list(tmp_path.rglob("*00000.warc.gz"))


def test_stall_is_noticed_in_time(server, connect):
    server.faults = [("stall", 1000)]
    start = time.monotonic()
    assert fetch(connect()) == [server.files[FILES[0]]]
    assert TIMEOUT <= time.monotonic() - start < 10 * TIMEOUT


def test_bodies_in_chunks(server, connect):
    server.chunked = True
    server.faults = [("cut", 1000), ("cut", 20_000)]
    assert fetch(connect()) == [server.files[FILES[0]]]


def test_requests_say_who_asks(server, connect):
    fetch(connect(crawl=None, config={"contact": "https://example.org/me"}))
    agents = {headers["User-Agent"] for _, headers in server.requests}
    assert len(agents) == 1
    assert re.fullmatch(r"tf_llm/[\d.]+ \(\+https://example.org/me\)", agents.pop())


def test_contact_cannot_add_headers():
    with pytest.raises(ValueError, match="contact is expected to be one line"):
        DownloadConfig(contact="me\r\nX-Evil: 1")


def test_no_name_is_the_newest_crawl(connect):
    source = connect(crawl=None)
    assert source.list_crawls() == [CRAWL, "CC-MAIN-2026-30", "CC-MAIN-2012"]
    assert len(list(source)) == 30
    assert source.crawl == CRAWL


def test_unknown_crawl_names_the_newest(connect):
    with pytest.raises(UserError, match=r"'CC-MAIN-2031-01'.* the newest are CC-MAIN-2026-39, CC-MAIN-2026-30"):
        list(connect(crawl="CC-MAIN-2031-01"))
    with pytest.raises(UserError, match=r"expected a crawl that has wet files"):
        list(connect(kind="wet"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crawl": "../../etc"}, "expected the name of a crawl, such as CC-MAIN-2026-39. Received: '../../etc'"),
        ({"kind": "wat"}, "expected kind as one of warc, wet. Received: 'wat'"),
        ({"files": 0}, "expected at least 1 file. Received: files=0"),
        ({"megabytes": 0}, "expected megabytes above 0. Received: 0"),
        ({"megabytes": float("nan")}, "expected megabytes above 0. Received: nan"),
        ({"data_address": "file:///etc"}, "expected an address like https://.* Received: 'file:///etc'"),
        ({"index_address": "ftp://example.org"}, "Received: 'ftp://example.org'"),
        ({"data_address": "http://[broken"}, "Received: 'http://.broken'"),
        ({"data_address": "data.commoncrawl.org"}, "Received: 'data.commoncrawl.org'"),
    ],
)
def test_wrong_arguments_are_one_line_errors(settings, message):
    with pytest.raises(UserError, match=message):
        CommonCrawl(**settings)


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x"])
def test_redirection_leaves_http_never(server, connect, target):
    server.faults = [("redirect", target)] * 3
    with pytest.raises(UserError):
        fetch(connect(config={"lost_attempts": 2}))


def test_redirection_within_http_is_followed(server, connect):
    server.faults = [("redirect", f"{server.address}/moved")]
    server.files["moved"] = server.files[FILES[0]]
    assert fetch(connect()) == [server.files[FILES[0]]]


@pytest.mark.parametrize("path", ["segments/..", "segments/.hidden", "segments/a b\\c", "segments/ü"])
def test_a_path_from_outside_does_not_leave_the_cache(server, connect, path):
    server.files[PATHS] = gzip.compress(path.replace(" ", "%20").encode("utf-8"))
    with pytest.raises(UserError, match=r"expected a"):
        fetch(connect())


@pytest.mark.parametrize(
    "content",
    [b"no gzip", gzip.compress(b"x" * 99)[:-9], gzip.compress("ü".encode())],
    ids=["no gzip", "cut short", "no ASCII"],
)
def test_damaged_list_of_paths_is_fetched_anew(server, connect, content):
    sound, server.files[PATHS] = server.files[PATHS], content
    with pytest.raises(UserError, match=r"expected a list from Common Crawl. Received: warc.paths.gz"):
        fetch(connect())
    server.files[PATHS] = sound
    assert fetch(connect()) == [server.files[FILES[0]]]


@pytest.mark.parametrize("content", [b"<html>", b"{}", b"[]", b"[1]", b'[{"id": 3}]', b'[{"id": "../x"}]', b"\xff"])
def test_damaged_list_of_crawls_is_a_one_line_error(server, connect, content):
    server.files["collinfo.json"] = content
    with pytest.raises(UserError, match=r"expected a list from Common Crawl. Received: collinfo.json"):
        connect(crawl=None).list_paths()


def test_shards_partition_the_pages(connect):
    source = connect(files=3)
    whole = Counter(page.url for page in source)
    parts = [[page.url for page in source.shard(index, 2)] for index in range(2)]
    assert all(parts)
    assert Counter(url for part in parts for url in part) == whole
    assert len(whole) == 90


def test_a_part_downloads_its_own_files_and_no_others(server, connect):
    source = connect(crawl=None, files=3)
    assert source.parts == 3
    parts = [pickle.loads(pickle.dumps(source.shard(index, 2))) for index in range(2)]
    assert [part.parts for part in parts] == [2, 1]
    assert [part.crawl for part in parts] == [CRAWL] * 2
    assert not list_data_requests(server)
    parts[1].fetch()
    assert [path for path, _ in server.requests if "segments" in path] == FILES[1:2]
    before = len(server.requests)
    assert [page.url for page in parts[1]] == [f"https://1.example/{n}" for n in range(30)]
    assert len(server.requests) == before


def test_more_parts_than_files_share_the_pages_of_each(connect):
    source = connect(files=2)
    whole = [page.url for page in source]
    parts = [source.shard(index, 5) for index in range(5)]
    urls = [[page.url for page in part] for part in parts]
    assert min(map(len, urls)) == 12
    assert sorted(url for part in urls for url in part) == sorted(whole)
    halves = [[page.url for page in part.shard(side, 2)] for part in parts for side in (0, 1)]
    assert sorted(url for half in halves for url in half) == sorted(whole)
    assert len({repr(part) for part in [source, *parts]}) == 6
    assert repr(parts[1]) == f"CommonCrawl({CRAWL}, 2 warc files, whole, of 0::1 items 1::5)"
    with pytest.raises(ValueError, match="shard expected 0 <= index < count. Received: index=5, count=5"):
        source.shard(5, 5)


def test_two_that_want_the_same_file_fetch_it_once(server, connect):
    fetch(connect())  # the list of paths is there
    source = connect(files=2)
    server.requests.clear()
    server.faults = [("stall", 1000)]  # the first holds the lock for a while
    contents = []
    threads = [threading.Thread(target=lambda: contents.append(fetch(source))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert contents == [[server.files[path] for path in FILES[:2]]] * 4
    assert len(list_data_requests(server)) == 2  # the stall, and the rest


def test_lock_is_for_one_even_while_others_remove_the_file(tmp_path):
    pytest.importorskip("fcntl", reason="needs the locks of POSIX")
    path, errors, together, holders = tmp_path / "a.part", [], [], []

    def take_and_remove():
        try:
            for _ in range(500):
                with cache.open_locked(path):
                    holders.append(1)
                    together.append(len(holders))
                    holders.pop()
                    path.unlink()
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=take_and_remove) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == [] and together == [1] * 2000


def test_full_disk_is_a_one_line_error(connect, tmp_path, monkeypatch):
    class Full:
        def __init__(self, file):
            self.file = file

        def __getattr__(self, name):
            return getattr(self.file, name)

        def write(self, content):
            raise OSError(28, "No space left on device")

    source = connect()
    source.list_paths()
    monkeypatch.setattr(cache, "open_locked", lambda path: Full(path.open("ab", buffering=0)))
    with pytest.raises(UserError, match=r"expected room for a file in .*No space left on device.*Make room"):
        fetch(source)
    assert not list(tmp_path.rglob("*00000.warc.gz"))


def test_one_pace_for_the_whole_process(server, waits, tmp_path):
    hosts = [Host(server.address, interval=10.0, sleep=waits.append) for _ in range(2)]
    for number, host in enumerate(hosts * 2):
        host.download("collinfo.json", tmp_path / str(number))
    assert waits == pytest.approx([10, 20, 30], abs=5)  # none of them was really waited for


def test_answers(server):
    assert answers(f"{server.address}/collinfo.json")
    assert not answers(f"{server.address}/missing")
    with pytest.raises(UserError, match="expected an address like"):
        answers("file:///etc/passwd")


def test_answers_never_takes_longer_than_it_may(monkeypatch):
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        assert not answers(address, seconds=1.0)  # nobody listens
        deaf.listen()
        start = time.monotonic()
        assert not answers(address, seconds=0.3)  # listens, says nothing
        assert time.monotonic() - start < 1.0
    release = threading.Event()

    def hang(*_, **__):
        release.wait(10)
        raise OSError("the name server is gone")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    start = time.monotonic()
    assert not answers("http://name.invalid", seconds=0.3)  # the name server hangs
    assert time.monotonic() - start < 1.0
    release.set()
