"""Single pages of Common Crawl by way of its index: the right ones, each asked for once; what is lost is counted."""

import gzip
import itertools
import json
import pickle

import pytest
from crawl_server import CRAWL, FILES, start, stop

from tf_llm.contracts import UserError
from tf_llm.crawl import CommonCrawlPages
from tf_llm.crawl.manners import DownloadConfig


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = start()
    server.page_size = 6
    yield server
    stop(server)


@pytest.fixture
def connect(server, tmp_path):
    """Makes a source that talks to the server and waits for nothing."""

    def connect(url="1.example/*", crawl=CRAWL, **settings):
        return CommonCrawlPages(
            url,
            crawl,
            **settings,
            cache_dir=tmp_path / "cache",
            index_address=server.address,
            data_address=server.address,
            index_interval=0,
            data_interval=0,
            config=DownloadConfig(timeout=0.3),
            sleep=print,
        )

    return connect


def list_urls(source):
    return [page.url for page in source]


def list_ranges(server):
    return [headers["Range"] for path, headers in server.requests if "segments" in path]


@pytest.mark.parametrize(
    ("settings", "sites", "numbers"),
    [
        ({"url": "1.example/*"}, [1], range(30)),
        ({"url": "https://1.example/7"}, [1], [7]),
        ({"url": "2.example", "match": "host", "limit": 3}, [2], range(30)),
        ({"url": "example", "match": "domain", "languages": ["de"]}, [0, 1, 2], range(2, 30, 3)),
        ({"url": "1.example/*", "languages": ["spa", "de"]}, [1], [n for n in range(30) if n % 3]),
        ({"url": "1.example/*", "limit": 4}, [1], range(4)),
        ({"url": "*.example", "limit": 35}, [0, 1], range(30)),
        ({"url": "1.example/*", "media_types": [], "limit": 2}, [1], range(30)),
    ],
    ids=str,
)
def test_pages_that_match(server, connect, settings, sites, numbers):
    urls = [f"https://{site}.example/{number}" for site in sites for number in numbers][: settings.get("limit")]
    assert list_urls(connect(**settings)) == urls
    assert len(list_ranges(server)) == len(urls)


def test_a_page_is_one_request_for_one_gzip_member_and_the_index_adds_what_it_knows(server, connect):
    source = connect("https://1.example/7")
    [page] = source
    whole = server.files[FILES[1]]
    [bounds] = list_ranges(server)
    begin, end = map(int, bounds.removeprefix("bytes=").split("-"))
    assert page.content in gzip.decompress(whole[begin : end + 1])
    assert (page.languages, page.charset) == (("spa", "eng"), "utf-8")
    assert not source.rejections


def test_a_second_run_asks_nobody(server, connect):
    first = list(connect("*.example", languages=["deu"]))
    server.requests.clear()
    assert list(connect("*.example", languages=["deu"])) == first
    assert server.requests == []


def test_who_fetches_lets_the_others_ask_nobody(server, connect):
    source = connect(crawl=None)
    part = source.shard(1, 3)
    part.fetch()
    assert len(list_ranges(server)) == 10
    server.requests.clear()
    copy = pickle.loads(pickle.dumps(part))
    assert list_urls(copy) == [f"https://1.example/{n}" for n in range(1, 30, 3)]
    assert server.requests == []
    assert (source.parts, repr(copy), copy.crawl) == (1, repr(part), CRAWL)


def test_shards_are_disjoint_and_together_everything(connect):
    source = connect("*.example", limit=14)
    whole = list_urls(source)
    parts = [source.shard(index, 4) for index in range(4)]
    urls = [list_urls(part) for part in parts]
    assert sorted(map(len, urls)) == [3, 3, 4, 4]
    assert sorted(itertools.chain(*urls)) == sorted(whole)
    halves = [list_urls(part.shard(side, 2)) for part in parts for side in (0, 1)]
    assert sorted(itertools.chain(*halves)) == sorted(whole)
    assert len({repr(part) for part in [source, *parts]}) == 5


def change(entries, number, **fields):
    entries[number] = entries[number] | fields


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"digest": "A" * 32}, "digest mismatch"),
        ({"length": "900"}, "length mismatch"),
        ({"length": "4000"}, "length mismatch"),
        ({"length": "0"}, "bad index entry"),
        ({"length": "many"}, "bad index entry"),
        ({"length": str(10**9)}, "too large"),
        ({"offset": "-1"}, "bad index entry"),
        ({"offset": "3"}, "gzip member damaged"),
        ({"offset": str(10**7)}, "not found"),
        ({"filename": "../segments/secret"}, "bad index entry"),
        ({"filename": "crawl-data/segments/no-such-file.gz"}, "not found"),
        ({"filename": None}, "bad index entry"),
    ],
    ids=str,
)
def test_a_wrong_entry_costs_itself_alone(server, connect, fields, reason):
    change(server.entries, 34, **fields)
    source = connect(limit=8)
    for _ in range(2):  # whatever of it is in the cache the second time
        assert list_urls(source) == [f"https://1.example/{n}" for n in range(8) if n != 4]
        assert source.rejections == {reason: 1}


@pytest.mark.parametrize("line", [b"{", b"[]", b"3", b'{"url": "https://1.example/x"}', b"\xff", b"[" * 10**5])
def test_a_broken_line_of_the_index_costs_itself_alone(server, connect, line):
    server.entries.insert(34, line)
    source = connect(limit=8)
    assert len(list_urls(source)) == 7
    assert source.rejections == {"bad index entry": 1}


def test_a_changed_byte_costs_one_page(server, connect):
    entry = server.entries[34]
    place = int(entry["offset"]) + int(entry["length"]) // 2
    content = server.files[FILES[1]]
    server.files[FILES[1]] = content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :]
    source = connect(limit=8)
    assert list_urls(source) == [f"https://1.example/{n}" for n in range(8) if n != 4]
    assert source.rejections == {"gzip member damaged": 1}


def test_a_bomb_is_too_large(server, connect, monkeypatch):
    monkeypatch.setattr("tf_llm.crawl.cdx.MAX_BYTES", 50_000)
    bomb = gzip.compress(bytes(10**6))
    change(server.entries, 34, filename="segments/bomb.gz", offset="0", length=str(len(bomb)))
    server.files["segments/bomb.gz"] = bomb
    source = connect(limit=8)
    assert len(list_urls(source)) == 7
    assert source.rejections == {"too large": 1}


def test_a_page_that_was_no_page_is_counted(server, connect):
    change(server.entries, 34, offset="0", length=server.entries[0]["offset"])  # the warcinfo record of the file
    source = connect(limit=8)
    assert len(list_urls(source)) == 7
    assert source.rejections == {"no pages, only warcinfo": 1}


@pytest.mark.parametrize("fault", [("no ranges", 10**9), ("wrong range", 7), ("cut", 5), ("stall", 9)])
def test_faults_do_not_change_a_page(server, connect, fault):
    server.faults = [fault, ("status", 503), fault]
    source = connect("https://1.example/7")
    assert list_urls(source) == ["https://1.example/7"]
    assert not source.rejections and not server.faults


def test_nothing_found_says_where_to_look(server, connect):
    with pytest.raises(
        UserError,
        match=r"expected pages in the index of CC-MAIN-2026-39. Received: none for no.example/\*, text/html.* the "
        r"newest are CC-MAIN-2026-39, CC-MAIN-2026-30",
    ):
        list(connect("no.example/*"))
    with pytest.raises(UserError, match=r"Received: none for 1.example/\*, zul, text/html"):
        list(connect(languages=["zu"]))
    with pytest.raises(UserError, match=r"expected pages in the index of CC-MAIN-2031-01"):
        list(connect(crawl="CC-MAIN-2031-01"))


@pytest.mark.parametrize("answer", [b"<html>", b"[]", b'{"pages": "x"}'])
def test_an_index_that_is_none_is_a_one_line_error(server, connect, monkeypatch, answer):
    monkeypatch.setattr(json, "dumps", lambda *_: answer.decode())
    with pytest.raises(UserError, match=r"expected a list from Common Crawl. Received: \w+.jsonl"):
        list(connect())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": ""}, "expected the address of pages. Received: ''"),
        ({"match": "suffix"}, "expected match as one of exact, prefix, host, domain. Received: 'suffix'"),
        ({"limit": 0}, "expected a limit of at least 1. Received: 0"),
        ({"languages": ["english"]}, "expected the code of a language, such as eng or en. Received: 'english'"),
        ({"languages": ["e.*"]}, r"Received: 'e\.\*'"),
        ({"media_types": ["html"]}, "expected a media type such as text/html. Received: 'html'"),
        ({"crawl": "../etc"}, "expected the name of a crawl"),
    ],
    ids=str,
)
def test_wrong_arguments_are_one_line_errors(settings, message):
    with pytest.raises(UserError, match=message):
        CommonCrawlPages(**{"url": "1.example", **settings})
