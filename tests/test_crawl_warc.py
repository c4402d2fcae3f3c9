"""Archives whole and damaged: what is sound comes out byte for byte, and what is lost is counted."""

import base64
import gzip
import hashlib
import io
import logging
import random
import time
import tracemalloc
import zlib
from collections import Counter

import pytest

from tf_llm.contracts import Page, UserError
from tf_llm.crawl.bodies import TooLargeError, decode_body
from tf_llm.crawl.records import matches_digest
from tf_llm.crawl.warc import Warc, read_pages

RNG = random.Random(7)
WORDS = ["tea", "leaf", "cup", "steam", "harbour", "\r\n\r\n", "WARC", "é", "<p>", "</p>"]
BODIES = [" ".join(RNG.choices(WORDS, k=size)).encode() for size in (30, 5, 80, 1, 50)]
URLS = [f"http://a.example/{number}" for number in range(len(BODIES))]


def write_record(kind, block, digest=True, **fields):
    head = {"WARC-Type": kind, "WARC-Record-ID": f"<urn:x:{zlib.crc32(block)}>", "WARC-Date": "2026-11-01T00:00:00Z"}
    head |= {name.replace("_", "-"): value for name, value in fields.items()}
    if digest:
        head["WARC-Block-Digest"] = "sha1:" + base64.b32encode(hashlib.sha1(block).digest()).decode()
    head = {"Content-Length": len(block)} | head
    lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
    return f"WARC/1.1\r\n{lines}\r\n".encode() + block + b"\r\n\r\n"


def write_response(url, body, http="Content-Type: text/html; charset=UTF-8\r\n", status="200 OK", **options):
    block = f"HTTP/1.1 {status}\r\n{http}\r\n".encode() + body
    fields = {"WARC_Target_URI": url, "Content_Type": "application/http; msgtype=response"}
    return write_record("response", block, **(fields | options))


def write_archive(digest=True, count=5):
    """The records of an archive of so many pages, with the request in front of each."""
    records = [write_record("warcinfo", b"software: test\r\n", digest)]
    for url, body in zip(URLS[:count], BODIES, strict=False):
        request = {"WARC_Target_URI": url, "Content_Type": "application/http; msgtype=request"}
        records += [
            write_record("request", f"GET {url} HTTP/1.1\r\n\r\n".encode(), digest, **request),
            write_response(url, body, digest=digest),
        ]
    return records


def compress(content):
    return gzip.compress(content, mtime=0)


CONTAINERS = {
    "plain": lambda records: records,
    "member per record": lambda records: [compress(record) for record in records],
    "single member": lambda records: [compress(b"".join(records))],
}


@pytest.fixture(autouse=True)
def quiet(caplog):
    """Thousands of damaged archives would fill the report of a test that fails."""
    caplog.set_level(logging.ERROR, "tf_llm.crawl.files")


class Pipe(io.RawIOBase):
    """Bytes that can be read once, from the front, a few at a time."""

    def __init__(self, content):
        self.content = io.BytesIO(content)

    def readable(self):
        return True

    def read(self, size=-1):
        return self.content.read(min(size, 1000))


def read(content, pipe=False):
    rejections = Counter()
    return list(read_pages(Pipe(content) if pipe else io.BytesIO(content), rejections, "test")), rejections


@pytest.mark.parametrize("pipe", [False, True], ids=["seekable", "pipe"])
@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("newline", [b"\r\n", b"\n"], ids=["CRLF", "LF"])
def test_every_container_gives_the_same_pages(container, newline, pipe):
    bodies = [body.replace(b"\r\n", b"\n") for body in BODIES]
    records = [
        write_response(url, body, digest=False, http="Content-Type: text/html; charset=UTF-8\r\n")
        for url, body in zip(URLS, bodies, strict=True)
    ]
    if newline == b"\n":  # the HTTP head loses three bytes, the block must say so
        records = [
            record.replace(b"\r\n", b"\n").replace(
                b"Content-Length: %d" % (len(body) + 59), b"Content-Length: %d" % (len(body) + 56)
            )
            for record, body in zip(records, bodies, strict=True)
        ]
    pages, rejections = read(b"".join(CONTAINERS[container](records)), pipe)
    assert pages == [
        Page(url, body, "text/html", "utf-8", (), "2026-11-01T00:00:00Z")
        for url, body in zip(URLS, bodies, strict=True)
    ]
    assert not rejections


@pytest.mark.parametrize("pipe", [False, True], ids=["seekable", "pipe"])
def test_damaged_member_costs_its_record_only(pipe):
    """Every place, one changed byte and one cut, in a file with a gzip member per record."""
    members = CONTAINERS["member per record"](write_archive(count=3))
    whole = b"".join(members)
    pages, rejections = read(whole)
    assert len(pages) == 3 and not rejections
    ends = [sum(map(len, members[: count + 1])) for count in range(len(members))]
    page_of = {2 + 2 * number: page for number, page in enumerate(pages)}  # by member
    for place in range(pipe, len(whole), 1 + 2 * pipe):
        hit = sum(end <= place for end in ends)
        damaged = bytearray(whole)
        damaged[place] ^= RNG.randrange(1, 256)
        found, rejections = read(damaged, pipe)
        expected = [page for member, page in page_of.items() if member != hit]
        assert found in (pages, expected), f"byte {place}"
        assert found == pages or rejections, f"byte {place}"

        found, rejections = read(whole[:place], pipe)
        assert found == [page for member, page in page_of.items() if ends[member] <= place], f"cut at {place}"
        assert rejections or place in ends, f"cut at {place}"


def test_damaged_plain_archive_loses_the_damaged_record_only():
    """Every place, one changed byte and one cut. A changed byte in the head may change what the page is called."""
    records = write_archive(count=3)
    whole = b"".join(records)
    pages, _ = read(whole)
    ends = [sum(map(len, records[: count + 1])) for count in range(len(records))]
    page_of = {2 + 2 * number: page for number, page in enumerate(pages)}
    for place in range(len(whole)):
        hit = sum(end <= place for end in ends)
        damaged = bytearray(whole)
        damaged[place] ^= RNG.choice([1, 4, 32, RNG.randrange(1, 256)])
        found, rejections = read(damaged)
        others = [page for member, page in page_of.items() if member != hit]
        changed = [page for page in found if page not in others]
        assert [page for page in found if page in others] == others, f"byte {place}"
        assert [page.content for page in changed] in ([], [page_of[hit].content] if hit in page_of else []), place
        assert changed or rejections or hit not in page_of, f"byte {place}"

        found, rejections = read(whole[:place])
        whole_ones = sum(end - 4 <= place for member, end in enumerate(ends) if member in page_of)  # 4: the line ends
        assert found == pages[:whole_ones], f"cut at {place}"
        begin, end = ends[hit] - len(records[hit]), ends[hit]
        assert rejections or not begin < place < end - 4, f"cut at {place}"


def test_damaged_single_member_is_read_up_to_the_damage():
    """Behind the damage nothing can be recovered; what precedes it is, but for the record that touches it."""
    whole = b"".join(CONTAINERS["single member"](write_archive(count=3)))
    pages, _ = read(whole)
    assert len(pages) == 3
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= RNG.randrange(1, 256)
        sound = read(zlib.decompressobj(31).decompress(whole[:place]))[0]
        for content in (damaged, whole[:place]):
            found, rejections = read(content, pipe=place % 2)
            assert found == pages or rejections, f"byte {place}"
            assert found[: max(0, len(sound) - 1)] == sound[:-1], f"byte {place}"


@pytest.mark.parametrize(
    "file", ["whirlwind.warc.gz", "whirlwind.warc.wet.gz", "edge/example.warc.gz", "edge/example.warc"]
)
def test_damaged_genuine_archive_loses_its_own_records_only(shared_data, file):
    whole = (shared_data / "warc" / file).read_bytes()
    (page,), _ = read(whole)
    recovered = 0
    for _ in range(150):
        place = RNG.randrange(len(whole))
        damaged = bytearray(whole)
        damaged[place] ^= 1 << RNG.randrange(8)
        for content in (damaged, whole[:place]):
            found, rejections = read(content)
            assert [other.content for other in found] in ([page.content], [])
            assert found or rejections
            recovered += len(found)
    assert recovered > 5


GENUINE = {
    "whirlwind.warc.gz": (1, {}),
    "whirlwind.warc.wet.gz": (1, {}),
    "whirlwind.warc.wat.gz": (0, {"no pages, only metadata and warcinfo": 1}),
    "real-pages.warc.gz": (882, {}),
    "edge/example-bad-non-chunked.warc.gz": (1, {"digest mismatch": 1}),  # of its revisit record
    "edge/example-bad.warc.gz.bad": (1, {"http status 302": 1}),
    "edge/example-digest.warc": (0, {"no pages, only request": 1}),
    "edge/example-iana.org-chunked.warc": (1, {}),
    "edge/example-resource.warc.gz": (1, {}),
    "edge/example-space-in-target-uri.warc.gz": (0, {"media type image/png": 1}),
    "edge/example-wget-bad-target-uri.warc.gz": (1, {}),
    "edge/example.arc.gz": (0, {"ARC, not WARC": 1}),
    "edge/example.warc": (1, {}),
    "edge/example.warc.gz": (1, {}),
}


def test_every_genuine_file_is_read_or_refused_with_a_reason(shared_data):
    folder = shared_data / "warc"
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if ".arc" in path.name or ".warc" in path.name}
    assert files == set(GENUINE)
    for file, (page_count, reasons) in GENUINE.items():
        rejections = Counter()
        pages = list(read_pages(folder / file, rejections))
        assert (len(pages), dict(rejections)) == (page_count, reasons), file
        assert all(page.url.startswith("http") and page.content.lstrip()[:1] for page in pages), file


def test_common_crawl_tells_charset_and_languages(shared_data):
    (page,) = Warc(shared_data / "warc" / "whirlwind.warc.gz")
    assert (page.charset, page.languages, page.content_type) == ("utf-8", ("spa",), "text/html")
    (text,) = Warc(shared_data / "warc" / "whirlwind.warc.wet.gz")
    assert (text.charset, text.languages, text.content_type) == ("utf-8", ("spa",), "text/plain")
    assert text.url == page.url and text.content.decode("utf-8").startswith("Escopete")


def test_metadata_belongs_to_the_response_that_it_names():
    responses = [
        write_response(url, body, http="Content-Type: text/html\r\n") for url, body in zip(URLS, BODIES, strict=True)
    ]
    fields = b'charset-detected: windows-1252\r\nlanguages-cld2: {"languages": [{"code-iso-639-3": "an"}]}\r\n\r\n'
    subject = responses[0].split(b"WARC-Record-ID: ")[1].split(b"\r\n")[0].decode()
    metadata = write_record("metadata", fields, WARC_Concurrent_To=subject)
    broken = write_record("metadata", b"languages-cld2: " + b"[" * 100_000, WARC_Concurrent_To=subject)
    pages, rejections = read(b"".join([responses[0], broken, metadata, responses[1], metadata]))
    assert [(page.charset, page.languages) for page in pages] == [("windows-1252", ("an",)), (None, ())]
    assert not rejections


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (write_response("http://a.example/", b"gone", status="404 Not Found"), "http status 404"),
        (write_response("http://a.example/", b"x", http="Content-Type: image/png\r\n"), "media type image/png"),
        (write_response("http://a.example/", b"x", http="Content-Type: \x01\r\n"), "media type unknown"),
        (write_response("http://a.example/", b"x", WARC_Identified_Payload_Type="a/b"), "media type a/b"),
        (write_response("http://a.example/", b"x", Content_Type="text/dns"), "media type text/dns"),
        (write_response("", b"x"), "no target address"),
        (write_record("response", b"no HTTP", WARC_Target_URI="a:b", Content_Type="application/http"), "bad HTTP head"),
        (write_record("respgnse", b"x", WARC_Target_URI="a:b"), "unknown record type"),
        (write_record("continuation", b"x", WARC_Target_URI="a:b"), "segmented record"),
        (write_record("resource", bytes(70_000_000), False, WARC_Target_URI="a:b"), "too large"),
        (write_response("a:b", b"x", digest=False, WARC_Payload_Digest="sha1:AAAA"), "digest mismatch"),
        (write_response("a:b", b"x", digest=False, WARC_Block_Digest="sha256:00"), "digest mismatch"),
        (write_response("a:b", b"4\r\nab", http="Transfer-Encoding: chunked\r\n"), None),  # never was chunked
        (write_response("a:b", b"2\r\nab\r\n9\r\nc", http="Transfer-Encoding: chunked\r\n"), "bad content encoding"),
        (write_response("a:b", compress(b"abc")[:-9], http="Content-Encoding: gzip\r\n"), "bad content encoding"),
        (write_response("a:b", b"<p>plain", http="Content-Encoding: gzip\r\n"), None),  # decoded by the crawler
        (write_response("a:b", b"x", http=""), None),
    ],
)
def test_reason_of_a_rejection(record, reason):
    neighbour = write_response(URLS[0], BODIES[0])
    pages, rejections = read(neighbour + record + neighbour)
    assert dict(rejections) == ({reason: 1} if reason else {})
    assert len(pages) == (2 if reason else 3)
    assert [page.content for page in (pages[0], pages[-1])] == [BODIES[0]] * 2


def test_payload_digest_is_checked_with_or_without_chunks():
    body, chunked = b"tea", b"3\r\ntea\r\n0\r\n\r\n"
    for digested in (body, chunked):
        record = write_response(
            URLS[0],
            chunked,
            http="Content-Type: text/html\r\nTransfer-Encoding: chunked\r\n",
            digest=False,
            WARC_Payload_Digest="sha256:" + hashlib.sha256(digested).hexdigest(),
        )
        (page,), rejections = read(record)
        assert page.content == body and not rejections


def test_digest_in_three_alphabets():
    sha1 = hashlib.sha1(b"tea").digest()
    for value in (sha1.hex(), sha1.hex().upper(), base64.b32encode(sha1).decode(), base64.b64encode(sha1).decode()):
        assert matches_digest(f"sha1:{value}", b"tea") and not matches_digest(f"SHA-1:{value}", b"teas")
    assert matches_digest("unknown:value", b"tea")


@pytest.mark.parametrize("change", [-40, -1, 1, 7, 400, 100_000, 10**12])
@pytest.mark.parametrize("container", CONTAINERS)
def test_wrong_content_length_costs_one_record(container, change):
    records = write_archive()
    length = int(records[4].split(b"Content-Length: ")[1].split(b"\r\n")[0])
    records[4] = records[4].replace(b"Content-Length: %d" % length, b"Content-Length: %d" % max(0, length + change))
    pages, rejections = read(b"".join(CONTAINERS[container](records)))
    assert [page.content for page in pages] == BODIES[:1] + BODIES[2:]
    assert rejections.total() >= 1


def test_line_ends_may_be_missing_or_too_many():
    records = [write_response(url, body) for url, body in zip(URLS, BODIES, strict=True)]
    pages, rejections = read(b"".join(record[:-4] + b"\r\n" * (number % 4) for number, record in enumerate(records)))
    assert [page.content for page in pages] == BODIES and not rejections


def test_bytes_lost_at_the_front_or_put_in_between():
    members = CONTAINERS["member per record"](write_archive())
    pages, rejections = read(b"".join(members)[len(members[0]) + 30 :])
    assert [page.content for page in pages] == BODIES and rejections
    members.insert(5, bytes(5_000) + random.Random(1).randbytes(5_000))
    pages, rejections = read(b"".join(members))
    assert [page.content for page in pages] == BODIES and dict(rejections) == {"gzip member damaged": 1}
    pages, rejections = read(b"".join([*write_archive()[:3], b"noise\r\n\r\n" * 9, *write_archive()[3:]]))
    assert [page.content for page in pages] == BODIES and dict(rejections) == {"record damaged": 1}


def test_reading_error_is_counted():
    class Unplugged(Pipe):
        def read(self, size=-1):
            if self.content.tell() > 1000:
                raise OSError("disk gone")
            return super().read(size)

    rejections = Counter()
    content = b"".join(CONTAINERS["member per record"](write_archive()))
    assert len(content) > 2000
    pages = list(read_pages(Unplugged(content), rejections, "test"))
    assert [page.content for page in pages] == BODIES[: len(pages)] and 0 < len(pages) < len(BODIES)
    assert rejections["unreadable file"] == 1


@pytest.fixture(scope="module", params=CONTAINERS)
def large_archive(request, tmp_path_factory):
    """An archive of 60 pages, half a megabyte each, which no compression makes smaller; and the body of each."""
    body = random.Random(2).randbytes(1 << 19)
    path = tmp_path_factory.mktemp("large") / "large.warc"
    with path.open("wb") as file:
        zipper = zlib.compressobj(1, zlib.DEFLATED, 31)
        for number in range(60):
            record = write_response(f"http://a.example/{number}", body)
            if request.param == "single member":
                record = zipper.compress(record)
            elif request.param == "member per record":
                record = gzip.compress(record, 1)
            file.write(record)
        if request.param == "single member":
            file.write(zipper.flush())
    assert path.stat().st_size > 30_000_000
    yield path, body
    path.unlink()


@pytest.mark.parametrize("pipe", [False, True], ids=["seekable", "pipe"])
def test_memory_is_flat(large_archive, pipe):
    path, body = large_archive
    tracemalloc.start()
    try:
        with path.open("rb") as file:
            file.seekable = (lambda: False) if pipe else file.seekable
            count = sum(page.content == body for page in read_pages(file, Counter(), "test"))
        assert count == 60
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "block",
    [
        b"WARC/1.0\n" * 200_000,
        b"WARC/1.0\r\nContent-Length: 1000000\r\n\r\n" * 40_000,
        b"".join(
            b"WARC/1.0\r\nContent-Length: %07d\r\nWARC-Block-Digest: sha1:A\r\n\r\n" % (2_000_000 - 66 * (number + 1))
            for number in range(30_000)
        ).ljust(2_000_000, b"x"),
    ],
    ids=["heads without end", "lengths beyond the end", "blocks that end together"],
)
def test_hostile_block_costs_little_time(block):
    """A page may be full of what looks like records. It is searched where its own record is damaged."""
    begin = time.perf_counter()
    record = write_response(URLS[0], block).replace(b"WARC-Block-Digest: sha1:", b"WARC-Block-Digest: sha1:B")
    pages, rejections = read(record + write_response(URLS[1], BODIES[1]))
    assert [page.url for page in pages] == [URLS[1]]
    assert rejections
    assert time.perf_counter() - begin < 5


def test_decode_body():
    body = b"tea " * 100
    raw = zlib.compressobj(wbits=-15)
    deflated = raw.compress(body) + raw.flush()
    chunked = b"00a;name=value\r\n%s\r\n%X\r\n%s\r\n0\r\nTrailer: x\r\n\r\n" % (body[:10], len(body) - 10, body[10:])
    brotli = base64.b64decode("G48B+KVBwsroBGkBgNEJ")
    assert decode_body(body, "", "", 400) == body
    assert decode_body(body, "", "utf-8, identity", 400) == body
    assert decode_body(chunked, "Chunked", "", 400) == body
    assert decode_body(compress(body), "", "x-gzip", 400) == body
    assert decode_body(compress(body[:9]) + compress(body[9:]), "gzip", "", 400) == body
    assert decode_body(zlib.compress(body), "", "deflate", 400) == body
    assert decode_body(deflated, "", "deflate", 400) == body
    assert decode_body(compress(zlib.compress(body)), "", "deflate, gzip", 400) == body
    assert decode_body(brotli, "", "br", 400) == body
    for name, content in {"gzip": compress(body), "deflate": deflated, "br": brotli}.items():
        with pytest.raises(TooLargeError, match="more than 399 bytes"):
            decode_body(content, "", name, 399)
        with pytest.raises((ValueError, OSError)):
            decode_body(content[:-9], "", name, 400)


def test_inflated_size_is_limited():
    bomb = compress(gzip.compress(bytes(300_000_000), 1))
    tracemalloc.start()
    try:
        pages, rejections = read(write_response(URLS[0], bomb, http="Content-Encoding: gzip, gzip\r\n"))
        assert tracemalloc.get_traced_memory()[1] < 3 * 64_000_000
    finally:
        tracemalloc.stop()
    assert not pages and dict(rejections) == {"too large": 1}


def write_files(folder, count=3):
    for number in range(count):
        (folder / f"{number}.warc.gz").write_bytes(
            b"".join(
                compress(write_response(f"http://{number}.example/{page}", b"x", status=status))
                for page, status in enumerate(["200 OK", "404 Not Found", "200 OK", "200 OK", "500 Error"])
            )
        )
    return folder / "*.warc.gz"


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_shards_partition_the_whole(tmp_path, count):
    whole = Warc(str(write_files(tmp_path)))
    pages = list(whole)
    assert len(pages) == 9 and dict(whole.rejections) == {"http status 404": 3, "http status 500": 3}
    shards = [whole.shard(index, count) for index in range(count)]
    parts = [list(shard) for shard in shards]
    assert sorted(page.url for part in parts for page in part) == sorted(page.url for page in pages)
    assert sum((shard.rejections for shard in shards), Counter()) == whole.rejections
    halves = [half for index in range(count) for half in (whole.shard(index, count).shard(side, 2) for side in (0, 1))]
    assert sorted(page.url for half in halves for page in half) == sorted(page.url for page in pages)
    with pytest.raises(ValueError, match=r"0 <= index < count\. Received: index=3, count=3"):
        whole.shard(3, 3)


def test_iterating_again_counts_afresh(tmp_path):
    source = Warc([write_files(tmp_path), tmp_path / "0.warc.gz"])  # a file named twice is read once
    first, rejections = list(source), source.rejections.copy()
    assert list(source) == first and source.rejections == rejections
    assert [page.url[7] for page in first] == ["0"] * 3 + ["1"] * 3 + ["2"] * 3
    assert list(source.shard(0, 1)) == first


def test_bad_file_among_good_ones_is_counted(tmp_path):
    pattern = write_files(tmp_path)
    (tmp_path / "4.warc.gz").write_bytes(b"")
    (tmp_path / "5.warc.gz").write_bytes(compress(b"some text"))
    (tmp_path / "6.warc.gz").write_bytes(compress(b"filedesc://a.arc.gz 127.0.0.1 20140216050221 text/plain 75\n"))
    source = Warc(pattern)
    (tmp_path / "2.warc.gz").unlink()
    assert len(list(source)) == 6
    reasons = ("empty file", "no whole WARC record", "ARC, not WARC", "unreadable file")
    assert [source.rejections[reason] for reason in reasons] == [1] * 4


def test_user_errors_are_one_line_with_the_remedy(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("no archive\n")
    (tmp_path / "empty.warc.gz").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    for paths in (tmp_path / "missing.warc.gz", str(tmp_path / "*.missing"), tmp_path / "folder"):
        with pytest.raises(UserError, match=r"^expected a WARC or WET file.*where there is no file\. Check the path$"):
            Warc(paths)
    with pytest.raises(UserError, match=r"Received: no path\. Name a file"):
        Warc([])
    with pytest.raises(
        UserError, match=r"empty.warc.gz \(empty file\), .*notes.txt \(no whole WARC record\)\. Download it again"
    ) as error:
        Warc([text, tmp_path / "empty.warc.gz"])
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"max_bytes expected at least 1\. Received: 0"):
        Warc(text, max_bytes=0)
