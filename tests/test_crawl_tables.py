"""CSV and Parquet: what is sound comes out as it was, what is broken costs itself, and nothing fills the memory."""

import bz2
import doctest
import gzip
import io
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_llm.contracts import Page, UserError
from tf_llm.crawl import tables
from tf_llm.crawl.tables import Csv, read_rows

GOOD = [("http://a.example/1", "Tea, green."), ("http://a.example/2", 'She said "tea".\nTwice.'), ("", "naïve 日本 👩")]


def quote(cell):
    return '"' + cell.replace('"', '""') + '"'


def write(path, rows=GOOD, before="", after="", compress=bytes):
    lines = [f"{quote(url)},{quote(text)}\n" for url, text in rows]
    path.write_bytes(compress(("url,text\n" + before + "".join(lines) + after).encode()))
    return path


def read(source):
    return [page.content.decode() for page in source]


TEXTS = [text for _, text in GOOD]


def test_docstring_examples():
    result = doctest.testmod(tables)
    assert result.attempted >= 3 and result.failed == 0


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress], ids=["plain", "gzip", "bzip2"])
def test_documents_come_out_as_they_were(tmp_path, compress):
    source = Csv(write(tmp_path / "a.csv", compress=compress))
    assert read(source) == TEXTS and not source.rejections
    assert next(iter(source)) == Page("http://a.example/1", b"Tea, green.", content_type="text/plain")
    assert [page.url for page in source] == ["http://a.example/1", "http://a.example/2", "a.csv#5"]


def test_other_columns_delimiters_and_encodings(tmp_path):
    (tmp_path / "a.tsv").write_bytes("\ufeffid\tкниги, все\n7\tчай\n".encode())
    (tmp_path / "b.csv").write_bytes("n;body\r\n7;caf\xe9, noir\r\n".encode("latin-1"))
    assert [(p.url, p.content.decode()) for p in Csv(tmp_path / "a.tsv", "книги, все", "id")] == [("7", "чай")]
    (page,) = Csv(tmp_path / "b.csv", "body", delimiter=";")
    assert (page.url, page.content, page.charset) == ("b.csv#2", b"caf\xe9, noir", None)


BAD = {
    "a,b,c\n": {"ragged row": 1},
    "a\n": {"ragged row": 1},
    "a,\n": {"no text": 1},
    'a," \x00"\n': {"no text": 1},
    'a,b"c"\n': {},  # a quote within a cell that has none around it
    'a,"b"c\n': {"bad quoting": 1},
    'a,"b\nc,d\ne,f\n': {"bad quoting": 1},  # what follows is not lost
    'a,"' + "b" * 5_000 + '"\n': {"too large": 1},
    'a,"' + "b\n" * 5_000 + '""c",d\n': {"too large": 1},
    "a," + "b" * 5_000 + "\n": {"too large": 1},
    "\n\r\n": {},
}


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize(("row", "rejections"), BAD.items(), ids=range(len(BAD)))
def test_a_bad_row_costs_itself(tmp_path, row, rejections, place):
    source = Csv(write(tmp_path / "a.csv", **{place: row}), max_bytes=1_000)
    kept = read(source)
    assert [text for text in kept if text in TEXTS] == TEXTS and source.rejections == rejections
    assert [text for text in kept if text not in TEXTS] == {4: ['b"c"'], 6: ["d", "f"]}.get(list(BAD).index(row), [])


def test_nul_bytes_are_no_end(tmp_path):
    source = Csv(write(tmp_path / "a.csv", [("u", "a\0b"), ("v", "c")]))
    assert read(source) == ["a\0b", "c"]


@pytest.mark.parametrize(
    "line", [b'x","\n', b'"\n', b'""\n', b'"""\n', b'",""\n', b'"a""b\n', b'a,"b\n', b'x\n"y\n'], ids=repr
)
def test_quotes_that_nothing_closes_take_no_time(line):
    """Every line but the last ones opens a cell that goes on to the end: each is read at most twice."""

    class Counted(io.BytesIO):
        lines = 0

        def readline(self, *limit):
            self.lines += 1
            return super().readline(*limit)

    file = Counted(b"a,b\n" + line * 20_000)
    results = sum(1 for _ in read_rows(file, ",", max_bytes=1 << 20))
    assert 0 < results <= 40_001 and file.lines <= 40_010


@pytest.mark.parametrize("newline", ["", "\n"], ids=["one line", "many lines"])
def test_a_huge_cell_is_never_in_memory(tmp_path, newline):
    path = tmp_path / "a.csv.gz"
    cell = quote(("a" * 1_023 + (newline or "a")) * (20 << 10))  # 20 MB
    path.write_bytes(gzip.compress(f"url,text\nx,{cell}\ny,b\n".encode(), 1))
    source = Csv(path, max_bytes=1 << 20)
    tracemalloc.start()
    texts = read(source)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert texts == ["b"] and source.rejections == {"too large": 1} and peak < 10 << 20


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda content: content[: len(content) // 2], "gzip cut short"),
        (lambda content: content[:-8] + b"\0" * 8, "gzip damaged"),
    ],
    ids=["cut", "checksum"],
)
def test_damage_to_a_file_keeps_the_rows_before_and_the_files_behind(tmp_path, damage, reason):
    write(tmp_path / "a.csv.gz", GOOD * 500, compress=lambda content: damage(gzip.compress(content)))
    write(tmp_path / "b.csv")
    source = Csv(tmp_path)
    texts = read(source)
    assert len(texts) > 200 and texts[-3:] == TEXTS
    assert source.rejections.pop(reason) == 1 and sum(source.rejections.values()) <= 1  # the row that was cut


@settings(deadline=None, max_examples=60)
@given(content=st.one_of(st.binary(max_size=300), st.text('a,"\n\r\0', max_size=200).map(str.encode)))
def test_no_bytes_crash_it(tmp_path_factory, content):
    path = write(tmp_path_factory.mktemp("any") / "a.csv")
    source = Csv(path)
    path.write_bytes(content)
    assert all(isinstance(page, Page) for page in source)
    path.write_bytes(b"url,text\n" + content)
    assert all(isinstance(page, Page) for page in source)


def test_user_errors(tmp_path):
    path = write(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text("url,text\na,\nb,\n")
    (tmp_path / "c.csv").write_text("")
    for arguments, message in (
        (
            (path, "body"),
            r"'body' in .*a\.csv\. Received: 1 × no column \(its columns are 'url', 'text'\)\. Name other",
        ),
        (
            (tmp_path / "b.csv",),
            r"rows with a text in the column 'text' in .*b\.csv\. Received: 2 × no text\. Name other",
        ),
        ((tmp_path / "c.csv",), r"Received: 1 × no column \(it has no row of names\)\."),
        (
            (tmp_path / "*.tsv",),
            r"expected a CSV file, or a pattern such as tables/\*\.csv\. Received: .*Check the path",
        ),
    ):
        with pytest.raises(UserError, match=message):
            Csv(*arguments)
    with pytest.raises(UserError, match=r"expected delimiter as one character of ASCII\. Received: '::'\. Choose"):
        Csv(path, delimiter="::")
