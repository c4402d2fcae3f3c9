"""The names of files say how they are read."""

import bz2
import doctest
import gzip

import pytest
from archives import write_warc
from wiki_dumps import make_pages, write_streams

from tf_llm.contracts import UserError
from tf_llm.crawl import Csv, HtmlFiles, JsonLines, Parquet, TextFiles, Warc, WikipediaDump, formats, read_files


def test_docstring_examples():
    assert doctest.testmod(formats).failed == 0


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.jsonl", b'{"text": "tea"}', JsonLines),
        ("a.JSON.gz", gzip.compress(b'{"text": "tea"}', mtime=0), JsonLines),
        ("a.ndjson.bz2", bz2.compress(b'{"text": "tea"}'), JsonLines),
        ("a.csv", b"text\ntea\n", Csv),
        ("a.tsv.gz", gzip.compress(b"id\ttext\n1\ttea\n", mtime=0), Csv),
        ("a.txt", b"tea", TextFiles),
        ("a.htm", b"tea", HtmlFiles),
    ],
)
def test_a_file_of_each_kind(tmp_path, name, content, kind):
    (tmp_path / name).write_bytes(content)
    for paths in (tmp_path / name, str(tmp_path / "a.*"), tmp_path, [tmp_path / name]):
        source = read_files(paths)
        assert type(source) is kind and [page.content for page in source] == [b"tea"]


def test_archives(tmp_path):
    write_warc(tmp_path / "a.warc.gz", pages=2)
    assert type(read_files(tmp_path)) is Warc and len(list(read_files(tmp_path / "*.gz"))) == 2


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="needs tf_llm[parquet]")
    pytest.importorskip("pyarrow.parquet").write_table(pyarrow.table({"body": ["tea"]}), tmp_path / "a.parquet")
    source = read_files(tmp_path, text_column="body")
    assert type(source) is Parquet and [page.content for page in source] == [b"tea"]


@pytest.mark.parametrize("name", ["a.xml.bz2", "enwiki-20261101-pages-articles-multistream1.xml-p1p41242.bz2"])
def test_dumps(tmp_path, name):
    pytest.importorskip("mwparserfromhell", reason="needs tf_llm[wikipedia]")
    (tmp_path / name).write_bytes(b"".join(write_streams(make_pages(3))))
    source = read_files(tmp_path / "*.bz2")
    assert type(source) is WikipediaDump and len(list(source)) == 3


def test_columns(tmp_path):
    (tmp_path / "a.csv").write_text("id,body\n7,tea\n")
    (tmp_path / "b.jsonl").write_text('{"id": "7", "body": "tea"}')
    for name in ("a.csv", "b.jsonl"):
        (page,) = read_files(tmp_path / name, text_column="body", url_column="id")
        assert (page.url, page.content) == ("7", b"tea")


def test_user_errors(tmp_path):
    for name in ("a.txt", "b.csv", "c.pdf", "d.txt.xz"):
        (tmp_path / name).write_text("text\ntea\n")
    with pytest.raises(
        UserError, match=r"files of one kind\. Received: a\.txt \(text file\) and b\.csv \(CSV file\)\."
    ):
        read_files(tmp_path)
    for name in ("c.pdf", "d.txt.xz"):
        with pytest.raises(UserError, match=rf"files named \.warc, \.wet, \.jsonl, .* Received: .*{name}\. Rename it"):
            read_files(tmp_path / name)
    with pytest.raises(UserError, match=r"expected a file of pages, or a pattern .* where there is no file"):
        read_files(tmp_path / "missing.csv")
