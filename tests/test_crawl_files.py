"""What all sources of files have in common: their log, and the names by which shards on disk know them."""

import doctest
import logging
import pickle
from collections import Counter

import pytest

from tf_llm.contracts import Page, Rejected
from tf_llm.crawl import Csv, HtmlFiles, JsonLines, TextFiles, Warc, downloads, files

RECORD = (
    b"WARC/1.1\r\nWARC-Type: resource\r\nWARC-Record-ID: <urn:x:1>\r\nWARC-Date: 2026-11-01T00:00:00Z\r\n"
    b"WARC-Target-URI: http://a.example/\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\ntea\r\n\r\n"
)


@pytest.mark.parametrize("module", [files, downloads])
def test_docstring_examples(module):
    result = doctest.testmod(module)
    assert result.attempted and result.failed == 0


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (lambda folder: Warc(folder / "?.warc"), "Warc(2 files from a.warc to b.warc, 3e8a4cb3fa406d94)"),
        (
            lambda folder: Warc(folder / "a.warc", max_bytes=999),
            "Warc(1 files from a.warc to a.warc, 6d822d72a5f59b5e)",
        ),
        (lambda folder: Warc(folder / "a.warc").shard(1, 2), "Warc(1 files from a.warc to a.warc, 3020ae12341d3b8b)"),
        (
            lambda folder: JsonLines(folder / "a.jsonl"),
            "JsonLines(1 files from a.jsonl to a.jsonl, db50bb49fa60e488)",
        ),
        (
            lambda folder: JsonLines(folder / "a.jsonl", url_field="id", max_bytes=99).shard(0, 3),
            "JsonLines(1 files from a.jsonl to a.jsonl, 9ad2e3c7a0950f06)",
        ),
        (lambda folder: Csv(folder / "a.csv"), "Csv(1 files from a.csv to a.csv, 7c0580a710a7319f)"),
        (lambda folder: TextFiles(folder / "a.txt"), "TextFiles(1 files from a.txt to a.txt, 5699e09cd8896032)"),
        (
            lambda folder: HtmlFiles(folder / "a.html", max_bytes=99).shard(0, 2),
            "HtmlFiles(1 files from a.html to a.html, 6c2a0b864e8729f3)",
        ),
    ],
    ids=["archives", "archive", "part of an archive", "lines", "part of lines", "table", "text", "part of HTML"],
)
def test_names_never_change(tmp_path, build, name):
    """Another name, and the shards that people have prepared would not be used again."""
    (tmp_path / "a.warc").write_bytes(RECORD)
    (tmp_path / "b.warc").write_bytes(RECORD * 2)
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "tea"}\n')
    (tmp_path / "a.csv").write_bytes(b"text\ntea\n")
    (tmp_path / "a.txt").write_bytes(b"tea")
    (tmp_path / "a.html").write_bytes(b"tea")
    assert repr(build(tmp_path)) == name


def test_what_is_lost_is_counted_and_logged(caplog):
    items = [
        Page("a", b""),
        Rejected("a", "too large", "9 bytes"),
        Rejected("x.warc", "gzip cut short"),
        Page("b", b""),
    ]
    rejections = Counter({"too large": 1})
    with caplog.at_level(logging.DEBUG, "tf_llm.crawl.files"):
        assert list(files.count_rejections(items, rejections, "x.warc")) == [items[0], items[3]]
    assert rejections == {"too large": 2, "gzip cut short": 1}
    assert [(record.levelname, record.getMessage().strip()) for record in caplog.records] == [
        ("DEBUG", "a: too large 9 bytes"),
        ("WARNING", "x.warc: gzip cut short"),  # a whole file, or what is left of it
    ]


@pytest.mark.parametrize("kind", [Warc, JsonLines])
def test_a_source_of_files_and_its_parts_pass_to_another_process(tmp_path, kind):
    for number in range(3):
        (tmp_path / f"{number}.warc").write_bytes(RECORD)
        (tmp_path / f"{number}.jsonl").write_text(f'{{"text": "tea {number}"}}\n')
    source = kind(tmp_path / ("*.warc" if kind is Warc else "*.jsonl"))
    assert source.parts == 3
    for part in (source, source.shard(0, 2), source.shard(1, 4)):
        copy = pickle.loads(pickle.dumps(part))
        copy.fetch()
        assert (repr(copy), copy.parts, list(copy)) == (repr(part), part.parts, list(part))
    assert [source.shard(0, 2).parts, source.shard(1, 4).parts] == [2, 3]
