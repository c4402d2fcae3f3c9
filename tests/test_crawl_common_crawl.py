"""Common Crawl from a server on this machine as bad as a real one: the bytes must be right all the same."""

import email.message
import email.utils
import gzip
import itertools
import pickle
import random
import re
import socket
import threading
import time
import types
from collections import Counter

import pytest
from crawl_server import ALL, CRAWL, FILES, PATHS, list_members, make_archive, start, stop

from tf_llm.contracts import UserError
from tf_llm.crawl import cache
from tf_llm.crawl.common_crawl import CommonCrawl
from tf_llm.crawl.download import Host, answers, read_digest
from tf_llm.crawl.manners import DownloadConfig, read_retry_after

TIMEOUT = 0.3  # seconds


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = start()
    yield server
    stop(server)


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


def list_ends(content):
    """Offsets at which the members of a record-gzipped file end."""
    return [offset + len(member) for offset, member in list_members(content)]


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
    ends = list_ends(whole)
    assert len(ends) == 31
    for amount in (ends[4], ends[4] + 1, ends[5] - 1, ends[5], ends[1]):
        source = connect(megabytes=amount / 1e6)
        pages = list(source)
        [part] = fetch(source)
        assert part == whole[: max(end for end in ends if end <= amount)]
        assert [page.url for page in pages] == [f"https://0.example/{n}" for n in range(len(list_ends(part)) - 1)]
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
    "more than there is": [("cut", 20_000), ("extra", 500)],
    "more than there is, from the beginning": [("extra", 500)],
    "less than was announced, of all": [("short", 15_000), ("short", 25_000)],
    "less than was announced, then no ranges": [("short", 15_000), ("no ranges", ALL)],
    "shorter than what is here": [("cut", 20_000), ("status", 416)],
    "wrong ranges": [("cut", 20_000), ("wrong range", 100), ("cut", 20_000), ("wrong range", -100)],
    "another file before": [("older", 20_000), ("older", 5000)],
    "a bit of everything": [("cut", 9000), ("status", 503), ("reset", 9000), ("status", 429), ("stall", 9000)],
}


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("megabytes", [None, 0.03])
def test_faults_do_not_change_a_byte(server, connect, name, megabytes):
    server.faults = list(FAULTS[name])
    [content] = fetch(connect(megabytes=megabytes))
    assert not server.faults
    whole = server.files[FILES[0]]
    assert content == whole[: max(end for end in list_ends(whole) if megabytes is None or end <= 30_000)]


@pytest.mark.parametrize("seed", range(20))
def test_any_sequence_of_faults_gives_the_same_bytes(server, connect, seed):
    draw = random.Random(seed)
    kinds = ("cut", "reset", "no ranges", "lie", "short", "wrong range", "older", "no version", "status")
    server.faults = [
        (kind, draw.choice((503, 500)) if kind == "status" else draw.randrange(1, 30_000))
        for kind in draw.choices(kinds, k=12)
    ]
    settings = {"lost_attempts": 20, "busy_attempts": 20}
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
    headers = ({"Retry-After": "soon"}, {"Retry-After": "7"}, {"Retry-After": in_a_minute}, {"Retry-After": "100000"})
    server.faults = [("status", (503, header)) for header in headers]
    assert fetch(connect(config={"longest_retry_after": 900.0})) == [server.files[FILES[0]]]
    unreadable, seven, minute, capped = waits
    assert 0.5 <= unreadable <= 1.0  # its own first wait, less jitter
    assert 5 < seven <= 7
    assert 50 < minute <= 60
    assert 895 < capped <= 900


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


def test_a_file_that_really_ends_within_a_member_is_taken_after_one_more_question(server, connect):
    server.files[FILES[0]] = cut = server.files[FILES[0]][:-100]
    source = connect()
    assert len(list(source)) == 29
    assert source.rejections == {"gzip member cut short": 1}
    assert fetch(source) == [cut]
    assert [headers.get("Range") for headers in list_data_requests(server)] == [None, f"bytes={len(cut)}-"]
    server.ranges = False
    server.files[FILES[1]] = server.files[FILES[1]][:-100]
    assert fetch(connect(files=2)) == [cut, server.files[FILES[1]]]
    assert len(list_data_requests(server)) == 4


def test_a_gzip_file_ends_with_a_member_or_not(server, tmp_path):
    whole, path = server.files[FILES[0]], tmp_path / "a.gz"
    ends = list_ends(whole)
    for end in (*ends[:3], ends[-1]):
        path.write_bytes(whole[:end])
        assert cache.ends_with_member(path)
        for other in (end - 1, end - 100, end + 1, end + 3):
            path.write_bytes((whole + whole)[:other])
            assert not cache.ends_with_member(path)
    with gzip.open(path, "wb", compresslevel=0) as file:  # one member larger than what is looked at of the end
        file.write(bytes(2 * cache.TAIL))
    assert cache.ends_with_member(path)
    path.write_bytes(path.read_bytes()[:-1])
    assert not cache.ends_with_member(path)


@pytest.mark.parametrize("kind", ["md5", "s3"])
def test_a_digest_finds_the_wrong_byte(server, connect, kind, caplog):
    server.digests = kind
    server.faults = [("wrong byte", 30_000), ("wrong byte", 9)]
    assert fetch(connect()) == [server.files[FILES[0]]]
    assert caplog.text.count("digest mismatch") == 2
    server.faults = [("wrong byte", 30_000)] * 9
    with pytest.raises(UserError, match=r"Received: digest mismatch \(8 times in a row\)"):
        fetch(connect(files=2))


def test_a_later_run_knows_the_digest_of_what_was_begun(server, connect):
    server.digests, server.faults = "s3", [("wrong byte", 10), ("cut", 12_345), *[("status", 503)] * 2]
    with pytest.raises(UserError, match=r"Received: 503"):
        fetch(connect(config={"busy_attempts": 2}))
    server.faults = [("wrong byte", 10)]
    assert fetch(connect()) == [server.files[FILES[0]]]


@pytest.mark.parametrize(
    ("headers", "digest"),
    [
        ({"ETag": '"0123456789abcdef0123456789abcdef"', "Server": "AmazonS3"}, "0123456789abcdef0123456789abcdef"),
        ({"ETag": '"0123456789abcdef0123456789abcdef"', "X-Amz-Request-Id": "1"}, "0123456789abcdef0123456789abcdef"),
        ({"ETag": '"0123456789abcdef0123456789abcdef"'}, None),  # of another server it may be anything
        ({"ETag": '"0123456789abcdef0123456789abcdef-64"', "Server": "AmazonS3"}, None),  # uploaded in 64 parts
        ({"ETag": '"0123456789abcdef0123456789abcdef"', "x-amz-server-side-encryption": "aws:kms"}, None),
        ({"Content-MD5": "AAECAwQFBgcICQoLDA0ODw=="}, "000102030405060708090a0b0c0d0e0f"),
        ({"Content-MD5": "no base 64"}, None),
        ({}, None),
    ],
)
def test_what_counts_as_a_digest(headers, digest):
    message = email.message.Message()
    for name, value in headers.items():
        message[name] = value
    assert read_digest(types.SimpleNamespace(status=200, headers=message)) == digest


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
    [b"no gzip", gzip.compress(b"x" * 99, mtime=0)[:-9], gzip.compress("ü".encode(), mtime=0)],
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
    with pytest.raises(ValueError, match=r"shard expected 0 <= index < count. Received: index=5, count=5"):
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


def test_a_refusal_stops_the_whole_process_for_that_host(server, tmp_path):
    """Six threads that take turns; one is refused; those that already wait for their turn wait longer, too."""
    config = DownloadConfig(cool_down=1.0, first_wait=0.0)
    server.faults = [("status", 429)]

    def download(number):
        Host(server.address, interval=0.1, config=config).download(FILES[number % 3], tmp_path / str(number))

    threads = [threading.Thread(target=download, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.times) == 7
    gaps = [later - earlier for earlier, later in itertools.pairwise(server.times)]
    [rest] = [gap for gap in gaps if gap > 0.9]
    assert gaps.index(rest) < 5  # before those came to their turn who waited already
    other = Host("http://localhost:1", interval=0.0, config=DownloadConfig(lost_attempts=1))
    begin = time.monotonic()
    with pytest.raises(UserError):
        other.download("x", tmp_path / "x")  # another host
    assert time.monotonic() - begin < 0.9


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
