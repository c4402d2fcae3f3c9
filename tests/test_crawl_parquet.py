"""Parquet: sound rows come out, broken groups of rows are counted, and a cell of any size takes no memory."""

import doctest
import random
import tracemalloc

import pytest

pyarrow = pytest.importorskip("pyarrow", reason="needs tf_llm[parquet]")
import pyarrow.parquet as pq  # noqa: E402

from tf_llm.contracts import Page, UserError  # noqa: E402
from tf_llm.crawl import parquet  # noqa: E402
from tf_llm.crawl.parquet import Parquet, find_column, find_largest_page  # noqa: E402

TEXTS = ["One line.", 'Two\nlines, "quoted"', "naïve 日本 👩", *(f"text {number}" for number in range(9))]
URLS = [f"http://a.example/{number}" for number in range(len(TEXTS))]


def write(path, texts=TEXTS, urls=URLS, **options):
    columns = {"url": urls, "number": [{"n": 1}] * len(texts), "text": texts}
    pq.write_table(pyarrow.table(columns), path, **options)
    return path


def read(source):
    return [page.content.decode() for page in source]


def test_docstring_examples():
    result = doctest.testmod(parquet)
    assert result.attempted and result.failed == 0


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"row_group_size": 5, "compression": "zstd"},
        {"use_dictionary": False, "compression": "none", "data_page_size": 10, "write_batch_size": 2},
        {"data_page_version": "2.0", "write_statistics": True, "write_page_index": True, "write_page_checksum": True},
        {"use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY"}},
    ],
    ids=["default", "row groups", "many pages", "second version", "delta"],
)
def test_documents_come_out_as_they_were(tmp_path, options):
    source = Parquet(write(tmp_path / "a.parquet", **options))
    assert read(source) == TEXTS and not source.rejections
    page = next(iter(source))
    assert page == Page("http://a.example/0", b"One line.", content_type="text/plain", charset="utf-8")


@pytest.mark.parametrize("kind", ["large_string", "binary", "large_binary", "string_view", "dictionary"])
def test_kinds_of_columns(tmp_path, kind):
    texts = pyarrow.array([*TEXTS, None, " "])
    texts = texts.dictionary_encode() if kind == "dictionary" else texts.cast(getattr(pyarrow, kind)())
    source = Parquet(
        write(tmp_path / "a.parquet", texts=texts, urls=[*[None] * len(TEXTS), "x", "y"], row_group_size=7)
    )
    assert read(source) == TEXTS and source.rejections == {"no text": 2}
    assert [page.url for page in source] == [f"a.parquet#{number}" for number in range(1, len(TEXTS) + 1)]


def test_bytes_that_are_no_text_pass(tmp_path):
    """text/ finds out what they are."""
    texts = pyarrow.array([b"caf\xe9", b"tea"]).view(pyarrow.string())
    assert [page.content for page in Parquet(write(tmp_path / "a.parquet", texts, URLS[:2]))] == [b"caf\xe9", b"tea"]


def test_the_sizes_of_pages_are_read(tmp_path):
    texts = [random.Random(number).randbytes(2_000).hex() for number in range(200)]
    options = {"use_dictionary": False, "compression": "none", "data_page_size": 9_000, "write_batch_size": 1}
    path = write(tmp_path / "a.parquet", [*texts, "b" * 50_000], ["u"] * 201, **options)
    with path.open("rb") as file, pq.ParquetFile(path) as table:
        assert 50_000 < find_largest_page(file, find_column(table, 0, "text")) < 60_000
        assert find_largest_page(file, find_column(table, 0, "url")) < 2_000


@pytest.mark.parametrize("options", [{}, {"use_dictionary": False}, {"data_page_version": "2.0"}], ids=str)
def test_a_huge_cell_is_never_in_memory(tmp_path, options):
    size = 100 << 20
    texts = [*TEXTS, "a" * size, "tea"]
    path = write(tmp_path / "a.parquet", texts, [*URLS, "x", "y"], row_group_size=12, write_statistics=False, **options)
    assert path.stat().st_size < 20 << 20
    texts.clear()
    pool = pyarrow.default_memory_pool()
    before = pool.bytes_allocated()
    proxy = pyarrow.proxy_memory_pool(pool)
    pyarrow.set_memory_pool(proxy)
    tracemalloc.start()
    try:
        source = Parquet(path, max_bytes=1 << 20)
        assert read(source) == TEXTS and source.rejections == {"row group too large": 1}
        _, peak = tracemalloc.get_traced_memory()
        assert peak < 10 << 20 and proxy.max_memory() < 10 << 20
    finally:
        tracemalloc.stop()
        pyarrow.set_memory_pool(pool)
    assert pool.bytes_allocated() - before < 10 << 20


def test_a_text_that_is_too_large_costs_itself(tmp_path):
    texts = ["a" * 2_000, *TEXTS]
    source = Parquet(write(tmp_path / "a.parquet", texts, ["x", *URLS]), max_bytes=1_000)
    assert read(source) == TEXTS and source.rejections == {"too large": 1}


def test_damage_costs_its_row_group(tmp_path):
    texts = [random.Random(number).randbytes(500).hex() for number in range(40)]
    options = {"row_group_size": 10, "use_dictionary": False, "write_page_checksum": True, "compression": "gzip"}
    path = write(tmp_path / "a.parquet", texts, ["u"] * 40, **options)
    column = pq.ParquetFile(path).metadata.row_group(2).column(2)
    content = bytearray(path.read_bytes())
    source = Parquet(path)
    middle = column.data_page_offset + column.total_compressed_size // 2
    content[middle : middle + 40] = b"\xff" * 40
    path.write_bytes(content)
    assert read(source) == texts[:20] + texts[30:] and source.rejections == {"parquet damaged": 1}


def test_a_file_without_its_end_is_damaged(tmp_path):
    write(tmp_path / "b.parquet")
    path = write(tmp_path / "a.parquet")
    source = Parquet(tmp_path)
    path.write_bytes(path.read_bytes()[:-20])
    assert read(source) == TEXTS and source.rejections == {"parquet damaged": 1}
    path.unlink()
    assert read(source) == TEXTS and source.rejections == {"unreadable file": 1}


def test_no_bytes_crash_it(tmp_path):
    path = write(tmp_path / "a.parquet", row_group_size=4, use_dictionary=False)
    content, source, draw = path.read_bytes(), Parquet(path), random.Random(3)
    outcomes = set()
    for _ in range(150):
        damaged = bytearray(content)
        for _ in range(draw.randint(1, 3)):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        path.write_bytes(damaged)
        list(source)
        outcomes |= set(source.rejections)
    assert "parquet damaged" in outcomes


def test_user_errors(tmp_path):
    path = write(tmp_path / "a.parquet")
    with pytest.raises(
        UserError, match=r"Received: 1 × no column \(its columns are 'url: string', 'number: struct<n: int"
    ):
        Parquet(path, "body")
    with pytest.raises(
        UserError, match=r"rows with a text in the column 'number' in .*a\.parquet\. Received: 1 × no col"
    ):
        Parquet(path, "number")
    (tmp_path / "b.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"Received: 1 × parquet damaged \("):
        Parquet(tmp_path / "b.parquet")
