"""Folders of texts and of HTML, a page per file."""

import doctest
import gzip
import os
import sys

import pytest

from tf_llm.contracts import Page, UserError
from tf_llm.crawl import texts
from tf_llm.crawl.texts import HtmlFiles, TextFiles


def write(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def test_docstring_examples():
    result = doctest.testmod(texts)
    assert result.attempted and result.failed == 0


def test_a_folder_of_texts(tmp_path):
    files = {"b.txt": b"caf\xe9", "a/tea.TXT": b"tea", "a/x.txt.gz": gzip.compress(b"inflated"), "a/page.html": b"<p>"}
    source = TextFiles(write(tmp_path, files))
    assert [(page.url, page.content, page.content_type, page.charset) for page in source] == [
        ("a/tea.TXT", b"tea", "text/plain", None),
        ("a/x.txt.gz", b"inflated", "text/plain", None),
        ("b.txt", b"caf\xe9", "text/plain", None),
    ]


def test_a_folder_of_html(tmp_path):
    files = {"index.html": b"<p>1", "a b/ü.htm": b"<p>2", "c.xhtml": b"<p>3", "d.css": b"p {}", "e.txt": b"text"}
    source = HtmlFiles(write(tmp_path, files))
    assert list(source)[:2] == [
        Page("a%20b/%C3%BC.htm", b"<p>2", content_type="text/html"),
        Page("c.xhtml", b"<p>3", content_type="text/html"),
    ]
    assert [page.url for page in HtmlFiles(tmp_path / "**" / "*.htm*")] == ["a%20b/%C3%BC.htm", "index.html"]
    assert [page.url for page in HtmlFiles(tmp_path / "a b" / "ü.htm")] == ["%C3%BC.htm"]


def test_files_of_the_same_name_have_different_addresses(tmp_path):
    write(tmp_path, {"one/index.html": b"1", "two/index.html": b"2"})
    source = HtmlFiles([tmp_path / "one", tmp_path / "two"])
    assert [page.url for page in source] == ["one/index.html", "two/index.html"]
    assert [page.url for part in (1, 0) for page in source.shard(part, 2)] == ["two/index.html", "one/index.html"]


def test_addresses_do_not_depend_on_where_the_folder_lies(tmp_path, monkeypatch):
    write(tmp_path, {"here/a/x.txt": b"1", "there/a/x.txt": b"1"})
    monkeypatch.chdir(tmp_path / "here")
    relative, absolute = TextFiles("a/*.txt"), TextFiles(tmp_path / "there" / "a")
    assert list(relative) == list(absolute) and repr(relative) == repr(absolute)


def test_what_costs_a_file(tmp_path):
    files = {
        "a.txt": b"a" * 100,
        "b.txt": b" \n",
        "c.txt": b"c" * 101,
        "d.txt.gz": gzip.compress(b"d" * 10_000_000),
        "e.txt.gz": gzip.compress(b"e" * 50)[:-9],
        "f.txt": b"f",
        "g.txt": b"g",
    }
    source = TextFiles(write(tmp_path, files), max_bytes=100)
    (tmp_path / "f.txt").unlink()
    assert [page.url for page in source] == ["a.txt", "g.txt"]
    assert source.rejections == {"empty": 1, "too large": 2, "gzip cut short": 1, "unreadable file": 1}


@pytest.mark.skipif(sys.platform != "linux", reason="names of files that are no UTF-8 are a matter of Linux")
def test_names_that_are_no_text(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9#1.txt")).write_bytes(b"tea")
    assert [page.url for page in TextFiles(tmp_path)] == ["caf%E9%231.txt"]


def test_user_errors(tmp_path):
    write(tmp_path, {"a.txt": b"", "folder/b.css": b"p {}"})
    with pytest.raises(UserError, match=r"expected a text file in .*a\.txt\. Received: 1 × empty\. Name other files"):
        TextFiles(tmp_path)
    with pytest.raises(
        UserError, match=r"expected a HTML file, .* '.*folder', where there is no file\. Check the path"
    ):
        HtmlFiles(tmp_path / "folder")
