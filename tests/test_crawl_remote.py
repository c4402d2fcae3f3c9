"""Files at addresses: copied once, whole, known by name and version, and a one-line error where they cannot be."""

import doctest
import gzip
import hashlib
import json
import pickle
import sys
import types

import pytest
from crawl_server import start, stop

from tf_llm.contracts import UserError
from tf_llm.crawl import JsonLines, Warc, remote
from tf_llm.crawl.manners import DownloadConfig

LINES = "".join(json.dumps({"text": f"tea {number}"}) + "\n" for number in range(20)).encode()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "cache"


@pytest.fixture
def server():
    server = start()
    yield server
    stop(server)


@pytest.fixture
def bucket(monkeypatch):
    """fsspec's file system in memory, in place of a bucket."""
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    monkeypatch.setattr(remote, "BUCKETS", ("s3", "gs", "memory"))
    yield memory
    memory.store.clear()


def read(source):
    return [page.content.decode() for page in source]


def test_docstring_examples():
    assert doctest.testmod(remote).failed == 0


def test_a_file_of_the_web_is_fetched_once(server, tmp_path):
    server.files["texts/a b.jsonl.gz"] = gzip.compress(LINES)
    (tmp_path / "c.jsonl").write_bytes(LINES[:18])
    source = JsonLines([f"{server.address}/texts/a%20b.jsonl.gz?download=1", tmp_path / "c.jsonl"])
    assert (source.parts, [path.name for path in source.paths]) == (2, ["c.jsonl", "a_b.jsonl.gz"])
    copy = pickle.loads(pickle.dumps(source.shard(1, 2)))
    copy.fetch()
    assert read(copy) == [f"tea {number}" for number in range(20)]
    assert read(source) == ["tea 0", *read(copy)]
    assert next(iter(copy)).url == f"{server.address}/texts/a%20b.jsonl.gz#1"
    assert [path for path, _ in server.requests] == ["texts/a%20b.jsonl.gz?download=1"]
    assert len({repr(source), repr(copy), repr(JsonLines(tmp_path / "c.jsonl"))}) == 3


def test_archives_of_the_web_are_read_as_any_other(server):
    path = next(path for path in server.files if "segments" in path)
    assert len(list(Warc(f"{server.address}/{path}"))) == 30


def test_a_name_does_not_depend_on_what_was_fetched(server, cache):
    server.files["a.jsonl"] = server.files["b.jsonl"] = LINES
    source = JsonLines([f"{server.address}/{name}.jsonl" for name in "ab"])
    before = repr(source)
    assert len(list(cache.rglob("remote/*/*.jsonl"))) == 1  # the first, which was looked into
    source.fetch()
    assert repr(source) == before


def test_what_is_not_there_is_a_one_line_error(server):
    with pytest.raises(UserError, match=r"expected a file at http://127.*/a.jsonl. Received: 404 Not Found"):
        JsonLines(f"{server.address}/a.jsonl")
    with pytest.raises(
        UserError, match=r"expected a path, or an address of http://, https://, s3://, gs://. Received: 'ft"
    ):
        JsonLines("ftp://example.org/a.jsonl")


def test_a_pattern_in_a_bucket(bucket):
    for name in ("b", "a"):
        bucket.pipe(f"memory://texts/{name}.jsonl", LINES.replace(b"tea", name.encode()))
    source = JsonLines("memory://texts/*.jsonl")
    assert [path.name for path in source.paths] == ["a.jsonl", "b.jsonl"]
    part = pickle.loads(pickle.dumps(source.shard(1, 2)))
    part.fetch()
    copies = {path: path.stat().st_mtime_ns for path in part.paths}
    assert read(part) == [f"b {number}" for number in range(20)]
    assert {path: path.stat().st_mtime_ns for path in part.paths} == copies
    with pytest.raises(
        UserError, match=r"expected a JSON Lines file. Received: 'memory://texts/\*.csv', where there is"
    ):
        JsonLines("memory://texts/*.csv")
    with pytest.raises(
        UserError, match=r"expected memory://texts/c.jsonl. Received: FileNotFoundError.* Check the addr"
    ):
        JsonLines("memory://texts/c.jsonl")


def test_another_version_is_another_copy(bucket):
    bucket.pipe("memory://a.jsonl", LINES)
    first = JsonLines("memory://a.jsonl")
    bucket.rm("memory://a.jsonl")
    bucket.pipe("memory://a.jsonl", b'{"text": "coffee"}\n')
    assert read(JsonLines("memory://a.jsonl")) == ["coffee"]
    assert read(first) == [f"tea {number}" for number in range(20)]  # its copy is still there


def test_a_copy_goes_on_where_the_connection_was_lost(bucket, tmp_path, monkeypatch):
    bucket.pipe("memory://a.bin", content := bytes(range(256)) * 100)
    [file] = remote.find_remote("memory://a.bin", "file")
    opened, waits = [], []

    def open_file(_, mode):
        assert mode == "rb"
        stream = types.SimpleNamespace(place=0)
        opened.append(stream)

        def read(size):
            if stream.place >= 10_000 * len(opened) and len(opened) < 3:
                raise OSError("connection lost")
            piece = content[stream.place : stream.place + 5000]
            stream.place += len(piece)
            return piece

        return contextlib_closing(types.SimpleNamespace(read=read, seek=lambda place: setattr(stream, "place", place)))

    def contextlib_closing(stream):
        stream_class = type("Stream", (), {"__enter__": lambda self: stream, "__exit__": lambda self, *_: None})
        return stream_class()

    monkeypatch.setattr(type(bucket), "open", lambda self, *arguments: open_file(*arguments))
    remote.copy_from_bucket(file, tmp_path / "a.bin", sleep=waits.append)
    assert (tmp_path / "a.bin").read_bytes() == content
    assert len(opened) == 3 and len(waits) == 2
    opened.clear()
    config = DownloadConfig(lost_attempts=2)
    with pytest.raises(UserError, match=r"expected memory://.*a.bin. Received: connection lost \(2 times in a row\)"):
        remote.copy_from_bucket(file, tmp_path / "b.bin", config, waits.append)
    assert not (tmp_path / "b.bin").exists()


def test_a_file_that_has_another_length_now_is_not_taken(bucket, tmp_path):
    bucket.pipe("memory://a.bin", b"four")
    [file] = remote.find_remote("memory://a.bin", "file")
    bucket.pipe("memory://a.bin", b"seven77")
    with pytest.raises(UserError, match=r"another length or digest than the bucket names \(2 times in a row\)"):
        remote.copy_from_bucket(file, tmp_path / "a.bin", DownloadConfig(lost_attempts=2), lambda _: None)
    assert not (tmp_path / "a.bin").exists()


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(UserError, match=r'packages that read s3://.* Install them: pip install "tf_llm\[cloud\]"'):
        JsonLines("s3://bucket/a.jsonl")


@pytest.fixture(scope="module")
def s3():
    """A server on this machine that speaks S3; the address."""
    pytest.importorskip("s3fs", reason="needs tf_llm[cloud]")
    moto = pytest.importorskip("moto.server", reason="needs moto[server], of tf_llm[peers]")
    server = moto.ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def test_a_real_bucket(s3, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3)
    filesystem = remote.open_bucket("s3")
    filesystem.mkdir("bucket")
    for name in ("b", "a"):
        filesystem.pipe(f"s3://bucket/{name}.jsonl", LINES.replace(b"tea", name.encode()))
    source = JsonLines("s3://bucket/*.jsonl")
    assert read(source) == [f"{name} {number}" for name in "ab" for number in range(20)]
    filesystem.pipe("s3://bucket/a.jsonl", LINES)
    filesystem.invalidate_cache()
    assert read(JsonLines("s3://bucket/a.jsonl")) == [f"tea {number}" for number in range(20)]
    digest = remote.read_digest(filesystem, "s3://bucket/a.jsonl")
    assert digest == hashlib.md5(LINES).hexdigest()
    with pytest.raises(UserError, match=r"expected s3://bucket/c.jsonl. Received: FileNotFoundError"):
        JsonLines("s3://bucket/c.jsonl")
