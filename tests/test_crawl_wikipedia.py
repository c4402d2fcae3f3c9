"""Wikipedia's dumps, whole and damaged, from a folder and from a server on this machine."""

import bz2
import doctest
import gzip
import http.server
import random
import re
import threading
import tracemalloc
from collections import Counter

import pytest

pytest.importorskip("mwparserfromhell", reason="needs tf_llm[wikipedia]")

from wiki_dumps import GERMAN, make_pages, write_head, write_page, write_status, write_streams, write_xml

from tf_llm.contracts import Page, UserError
from tf_llm.crawl import dumps, wikipedia
from tf_llm.crawl.download import DownloadConfig
from tf_llm.crawl.wikipedia import Wikipedia, WikipediaDump

OTHERS = [
    write_page(101, "Mot", text="#REDIRECT [[Word 1]]", redirect="Word 1"),
    write_page(102, "Wikipedia:Words", namespace=4),
    write_page(103, "Template:Word", namespace=10),
    write_page(104, "Template:Wort", text="#REDIRECT [[Template:Word]]", namespace=10, redirect="Template:Word"),
    write_page(105, "Gone", text=""),
    write_page(106, "Box", text="{{Infobox}}"),
    write_page(107, "Data", text="{}", model="json"),
    write_page(108, "Tangle", text='<ref name="' * 2_000),
]
REASONS = {
    "redirect": 1,
    "namespace 4": 1,
    "namespace 10": 2,
    "empty": 2,
    "not wikitext": 1,
    "wikitext too complex": 1,
}


def titles(source):
    return [page.url.rpartition("/")[2] for page in source]


def words(*numbers):
    return [f"Word_{number}" for number in numbers]


@pytest.mark.parametrize("module", [dumps, wikipedia])
def test_docstring_examples(module):
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("form", [".xml", ".xml.gz", ".xml.bz2", "-multistream.xml.bz2", "-multistream1.xml-p1p9.bz2"])
def test_articles_come_out_and_the_rest_is_counted(tmp_path, form):
    pages = [*OTHERS[:4], *make_pages(5), *OTHERS[4:]]
    content = b"".join(write_streams(pages)) if "multistream" in form else write_xml(pages)
    compress = {".xml.gz": gzip.compress, ".xml.bz2": bz2.compress}.get(form, bytes)
    (tmp_path / f"enwiki-20261101-pages-articles{form}").write_bytes(compress(content))
    source = WikipediaDump(tmp_path)
    assert titles(source) == words(1, 2, 3, 4, 5) and source.rejections == REASONS
    assert next(iter(source)) == Page(
        "https://en.wikipedia.org/wiki/Word_1",
        b"Word 1 is a word.\n\nUse\nIt stands for Word 1.",
        content_type="text/plain",
        charset="utf-8",
        languages=("en",),
        date="2026-10-31T12:00:00Z",
    )


def test_other_languages_have_other_names(tmp_path):
    text = "[[Datei:Tee.jpg|mini|Eine [[Tasse]]]]Straße, 茶 & 👩.[[Kategorie:Tee]][[Medium:a.ogg]]"
    pages = [write_page(1, 'Grüner Tee/C#? & "so" (it\'s)', text=text)]
    (tmp_path / "dewiki.xml").write_bytes(
        write_xml(pages, language="de", namespaces=GERMAN, main_page="Wikipedia:Hauptseite")
    )
    (page,) = WikipediaDump(tmp_path / "dewiki.xml")
    assert page.url == "https://de.wikipedia.org/wiki/Gr%C3%BCner_Tee/C%23%3F_%26_%22so%22_(it%27s)"
    assert (page.content.decode(), page.languages) == ("Straße, 茶 & 👩.", ("de",))


def test_pages_of_a_dump_without_a_head_have_the_address_of_the_file(tmp_path):
    (tmp_path / "some.xml").write_text("<x>" + write_page(1, "A b") + "</x>")
    source = WikipediaDump(tmp_path / "some.xml")
    assert [page.url for page in source] == ["some.xml#A_b"] and source.rejections == {"XML cut short": 1}


STREAMS = write_streams(make_pages(8))  # head, 1 2, 3 4, 5 6, 7 8, tail


def damage(number, place=0.5):
    """The dump with a wrong byte in one of its streams."""
    stream = bytearray(STREAMS[number])
    stream[int(len(stream) * place)] ^= 0x55
    return b"".join([*STREAMS[:number], bytes(stream), *STREAMS[number + 1 :]])


@pytest.mark.parametrize("place", [0, 0.02, 0.3, 0.5, 0.9, 0.99])
def test_a_damaged_stream_costs_its_own_pages(tmp_path, place):
    (tmp_path / "a.xml.bz2").write_bytes(damage(2, place))
    source = WikipediaDump(tmp_path / "a.xml.bz2")
    assert titles(source) == words(1, 2, 5, 6, 7, 8) and source.rejections == {"bzip2 damaged": 1}


@pytest.mark.parametrize(
    ("content", "kept", "rejections"),
    [
        (damage(0), range(1, 9), {"bzip2 damaged": 1}),
        (damage(4), range(1, 7), {"bzip2 damaged": 1}),
        (b"".join([*STREAMS[:4], STREAMS[4][:-9]]), range(1, 9), {"bzip2 cut short": 1}),
        (b"".join([*STREAMS[:3], STREAMS[3][:99]]), range(1, 5), {"bzip2 cut short": 1}),
        (b"".join(STREAMS[:4]), range(1, 7), {"XML cut short": 1}),
        (b"".join([*STREAMS, b"something else"]), range(1, 9), {"bzip2 damaged": 1}),
        (b"".join([*STREAMS[:2], b"\0" * 600_000, *STREAMS[2:]]), range(1, 9), {"bzip2 damaged": 1}),
    ],
    ids=["head", "end", "cut near an end", "cut", "cut between", "behind", "between"],
)
def test_damage_to_streams(tmp_path, content, kept, rejections):
    (tmp_path / "a.xml.bz2").write_bytes(content)
    source = WikipediaDump(tmp_path / "a.xml.bz2")
    assert [title.rpartition("Word_")[2] for title in titles(source)] == list(map(str, kept))
    assert source.rejections == rejections


def test_damage_far_back_is_noticed_before_its_block_is_given_out(tmp_path):
    """Also where pages are cut in the middle by the streams, as pbzip2 writes them."""
    draw = random.Random(1)
    pages = [write_page(number, f"Word {number}", text=draw.randbytes(7_000).hex()) for number in range(90)]
    content = write_xml(pages)  # 1.3 MB
    parts = [bz2.compress(content[start : start + 300_000], 1) for start in range(0, len(content), 300_000)]
    parts[2] = parts[2][:-4] + b"\0\0\0\0"  # the checksum of the stream
    (tmp_path / "a.xml.bz2").write_bytes(b"".join(parts))
    source = WikipediaDump(tmp_path / "a.xml.bz2")
    places = [content.index(f"<title>Word {number}<".encode()) for number in range(90)]
    lost = range(600_000 - len(pages[0]), 900_000)
    expected = [f"Word_{number}" for number, place in enumerate(places) if place not in lost]
    assert titles(source) == expected and source.rejections == {"bzip2 damaged": 1}


@pytest.mark.parametrize(
    ("change", "rejections", "lost"),
    [
        (lambda page: page.replace("</title>", "</titel>"), {"bad XML": 1}, 1),
        (lambda page: page.replace("</page>", ""), {"bad XML": 1}, 1),
        (lambda page: page.replace("<page>", ""), {}, 1),
        (lambda page: page.replace("is a", "is &bomb; a"), {"bad XML": 1}, 1),
        (lambda page: page.replace("  <page>", '<!DOCTYPE x [<!ENTITY bomb "x">]>\n<page>'), {}, 0),
        (lambda page: page.replace("<ns>0", "<ns>zero"), {"bad XML": 1}, 1),
        (lambda page: page.replace("is a", "is a\x00"), {"bad XML": 1}, 1),
        (lambda page: page.replace("is a", "<b/>" * 6_000), {"bad XML": 1}, 1),
        (lambda page: page.replace("is a", "word " * 30_000), {"too large": 1}, 1),
        (lambda page: page.replace("2026-10-31T12:00:00Z", "yesterday"), {}, 0),
    ],
    ids=["tag", "no end", "no begin", "entity", "doctype", "namespace", "NUL", "many tags", "large", "date"],
)
def test_damage_to_xml_costs_its_page(tmp_path, change, rejections, lost):
    pages = make_pages(5)
    pages[2] = change(pages[2])
    (tmp_path / "a.xml").write_bytes(write_xml(pages))
    source = WikipediaDump(tmp_path / "a.xml", max_bytes=100_000)
    assert titles(source) == [word for word in words(1, 2, 3, 4, 5) if not lost or word != "Word_3"]
    assert source.rejections == rejections


def test_a_huge_page_is_never_in_memory(tmp_path):
    huge = write_page(3, "Huge", text="a" * (15 << 20))
    (tmp_path / "a.xml.bz2").write_bytes(bz2.compress(write_xml([huge, *make_pages(2)]), 1))
    source = WikipediaDump(tmp_path / "a.xml.bz2", max_bytes=1 << 20)
    tracemalloc.start()
    kept = titles(source)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept == words(1, 2) and source.rejections == {"too large": 1} and peak < 12 << 20


def test_user_errors(tmp_path):
    (tmp_path / "a.xml").write_bytes(write_xml(OTHERS[:2]))
    (tmp_path / "b.xml").write_bytes(b"<a/>")
    with pytest.raises(
        UserError, match=r"articles of a Wikipedia in .*a\.xml and 1 more\. Received: 1 × redirect, 1 × n"
    ):
        WikipediaDump(tmp_path)
    with pytest.raises(UserError, match=r"Received: 1 × no pages\. Name files such as enwiki-"):
        WikipediaDump(tmp_path / "b.xml")


NAMES = [
    f"enwiki-20261101-pages-articles-multistream{part}.bz2" for part in ("1.xml-p1p8", "2.xml-p9p16", "10.xml-p17p24")
]


class Server(http.server.ThreadingHTTPServer):
    """A dumps.wikimedia.org that serves `files`."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_address[1]}"
        dump = {name: b"".join(write_streams(make_pages(8, 8 * n + 1))) for n, name in enumerate(NAMES)}
        listed = {**dump, "enwiki-20261101-pages-articles-multistream-index1.txt-p1p8.bz2": b"", "../evil.bz2": b""}
        links = "".join(f'<a href="{date}/">{date}/</a>\n' for date in ("20261001", "20261101", "20261120", "latest"))
        self.files = {
            "enwiki/": f"<html><body><pre>{links}</pre></body></html>".encode(),
            "enwiki/20261120/dumpstatus.json": write_status({}, status="in-progress"),
            "enwiki/20261101/dumpstatus.json": write_status(dict(sorted(listed.items()))),
            **{f"enwiki/20261101/{name}": content for name, content in dump.items()},
        }
        self.requests = []


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        path = self.path.lstrip("/")
        self.server.requests.append(path)
        content = self.server.files.get(path)
        self.send_response(404 if content is None else 200)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        self.wfile.write(content or b"")

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def build(server, tmp_path):
    """Makes a `Wikipedia` of the server."""

    def build(language="en", **settings):
        config = DownloadConfig(first_wait=0, longest_wait=0, cool_down=0, lost_attempts=2)
        defaults = {"cache_dir": tmp_path, "address": server.address, "interval": 0, "config": config}
        return Wikipedia(language, **defaults | settings)

    return build


def test_the_latest_complete_dump_is_downloaded_once(server, build):
    source = build()
    assert not server.requests
    assert titles(source) == words(*range(1, 25)) and not source.rejections
    assert repr(source) == "Wikipedia(en, 20261101, all files)" and source.parts == 3
    assert Counter(server.requests).most_common(1)[0][1] == 1
    assert not [path for path in server.requests if "index1" in path or "evil" in path]
    before = len(server.requests)
    assert titles(build(date="20261101")) == titles(source) and len(server.requests) == before


def test_parts_download_their_own_files(server, build):
    source = build(files=2)
    parts = [source.shard(index, 2) for index in range(2)]
    assert not [path for path in server.requests if path.endswith(".bz2")]
    assert titles(parts[1]) == words(*range(9, 17))
    assert [path for path in server.requests if path.endswith(".bz2")] == [f"enwiki/20261101/{NAMES[1]}"]
    source.fetch()
    assert len(server.requests) == len(set(server.requests)) == 5
    small = [source.shard(index, 3) for index in range(3)]
    assert sorted(titles(source)) == sorted(title for part in small for title in titles(part))
    assert [repr(part) for part in (parts[1], small[2])] == [
        "Wikipedia(en, 20261101, 2 files, of 1::2 items 0::1)",
        "Wikipedia(en, 20261101, 2 files, of 0::1 items 2::3)",
    ]


def test_a_file_that_is_not_what_its_digest_says_is_not_used(server, build):
    server.files[f"enwiki/20261101/{NAMES[0]}"] = b"".join(STREAMS[1:])
    with pytest.raises(
        UserError, match=rf"expected {re.escape(NAMES[0])} with the SHA-1 \w+\. Received: \w+\. Download"
    ):
        list(build())
    server.files[f"enwiki/20261101/{NAMES[0]}"] = b"".join(STREAMS)
    assert titles(build(files=1)) == words(*range(1, 9))


def test_what_a_server_does_not_have(server, build):
    for settings, message in (
        ({"language": "xx"}, r"expected the language of a Wikipedia, as in its address\. Received: 'xx'\. Correct it"),
        ({"date": "20250101"}, r"expected a dump of enwiki\. Received: 20250101\. Choose another date"),
        ({"date": "20261120"}, r"expected a complete dump of enwiki\. Received: 20261120, which is on its way"),
    ):
        with pytest.raises(UserError, match=message):
            list(build(**settings))
    server.files["enwiki/20261101/dumpstatus.json"] = b'{"jobs": []}'
    with pytest.raises(UserError, match=r"expected Wikimedia's list of files\. Received: dumpstatus\.json: TypeError"):
        list(build(date="20261101"))
    with pytest.raises(
        UserError, match=r"expected a complete dump at http.*/enwiki/\. Received: 20261120, 20261101, 202610"
    ):
        list(build())


def test_arguments_are_checked(build):
    for settings, message in (
        ({"language": "../x"}, r"expected the language of a Wikipedia, such as 'en'\. Received: '\.\./x'\. Correct it"),
        (
            {"date": "yesterday"},
            r"expected a date such as '20261101', or 'latest'\. Received: 'yesterday'\. Correct it",
        ),
        ({"files": 0}, r"expected at least 1 file\. Received: files=0\. Ask for more"),
    ):
        with pytest.raises(UserError, match=message):
            build(**settings)
    assert build("zh-yue").wiki == "zh_yuewiki"


def test_a_head_alone_is_no_dump(tmp_path):
    (tmp_path / "a.xml").write_text(write_head())
    with pytest.raises(UserError, match="Received: 1 × no pages"):
        WikipediaDump(tmp_path / "a.xml")
