"""What every source of files promises (`contracts.Source`), whichever it is."""

import gzip
import json
import pickle
from collections import Counter

import pytest
from archives import write_record
from wiki_dumps import make_pages, write_page, write_streams

from tf_llm.contracts import Page
from tf_llm.crawl import Csv, HtmlFiles, JsonLines, Parquet, TextFiles, Warc, WikipediaDump

TEXTS = ["Tea is a drink.", "Coffee, too.", "naïve 日本 👩", "Water."]


def write_archives(folder):
    for name in "abc":
        records = [write_record(f"https://example.org/{name}/{n}", text) for n, text in enumerate(TEXTS)]
        records[2] = gzip.compress(gzip.decompress(records[2]).replace(b"200 OK", b"404 NO"))
        (folder / f"{name}.warc.gz").write_bytes(b"".join(records))
    return Warc(folder)


def write_lines(folder):
    for name in "abc":
        lines = [json.dumps({"text": text}) for text in TEXTS]
        (folder / f"{name}.jsonl").write_text("\n".join([*lines, "bad"]))
    return JsonLines(folder)


def write_tables(folder):
    for name in "abc":
        rows = "".join(f'"{text}","{name}"\n' for text in TEXTS)
        (folder / f"{name}.csv").write_text(f"text,x\nbad\n{rows}", encoding="utf-8")
    return Csv(folder)


def write_parquet(folder):
    pyarrow = pytest.importorskip("pyarrow", reason="needs tf_llm[parquet]")
    from pyarrow.parquet import write_table

    for name in "abc":
        write_table(pyarrow.table({"text": [*TEXTS, None]}), folder / f"{name}.parquet", row_group_size=3)
    return Parquet(folder)


def write_texts(folder, suffix="txt", kind=TextFiles):
    for number, text in enumerate([*TEXTS, *TEXTS]):
        (folder / f"{number}.{suffix}").write_text(text, encoding="utf-8")
    (folder / f"bad.{suffix}").write_text("")
    return kind(folder)


def write_html(folder):
    return write_texts(folder, "html", HtmlFiles)


def write_dumps(folder):
    pytest.importorskip("mwparserfromhell", reason="needs tf_llm[wikipedia]")
    for number, name in enumerate("abc"):
        pages = [*make_pages(4, 10 * number), write_page(99, f"To {name}", redirect="Word 1")]
        (folder / f"{name}.xml.bz2").write_bytes(b"".join(write_streams(pages)))
    return WikipediaDump(folder)


SOURCES = [write_archives, write_lines, write_tables, write_parquet, write_texts, write_html, write_dumps]
pytestmark = pytest.mark.parametrize("build", SOURCES, ids=[build.__name__.removeprefix("write_") for build in SOURCES])


def read(source):
    pages = list(source)
    assert pages and all(isinstance(page, Page) for page in pages)
    return pages


def test_iterating_again_is_the_same_and_counts_afresh(tmp_path, build):
    source = build(tmp_path)
    first, rejections = read(source), Counter(source.rejections)
    assert rejections and read(source) == first and source.rejections == rejections
    assert len({page.url for page in first}) == len(first), "an address is the key of a page"


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_parts_partition_the_whole(tmp_path, build, count):
    whole = build(tmp_path)
    everything = Counter(read(whole))
    parts = [whole.shard(index, count) for index in range(count)]
    assert sum((Counter(part) for part in parts), Counter()) == everything
    assert sum((part.rejections for part in parts), Counter()) == whole.rejections
    halves = [part.shard(side, 2) for part in parts for side in (1, 0)]
    assert sum((Counter(half) for half in halves), Counter()) == everything
    assert len({repr(part) for part in parts}) == count


def test_it_passes_to_another_process(tmp_path, build):
    source = build(tmp_path)
    for part in (source, source.shard(0, 2), source.shard(1, 20)):
        copy = pickle.loads(pickle.dumps(part))
        copy.fetch()
        assert (repr(copy), copy.parts, list(copy), copy.rejections) == (
            repr(part),
            part.parts,
            list(part),
            part.rejections,
        )


def test_the_same_pages_have_the_same_name_wherever_they_lie(tmp_path, build):
    (tmp_path / "one").mkdir()
    (tmp_path / "two" / "three").mkdir(parents=True)
    first, second = build(tmp_path / "one"), build(tmp_path / "two" / "three")
    assert repr(first) == repr(second) and list(first) == list(second)
    assert repr(first) != repr(first.shard(0, 2)) and str(tmp_path) not in repr(first)


def test_a_damaged_file_among_good_ones_is_counted(tmp_path, build):
    source = build(tmp_path)
    whole, before = read(source), Counter(source.rejections)
    source.paths[1].write_bytes(b"\x1f\x8b" + b"\0" * 50)
    kept = read(source)
    assert len(kept) < len(whole) and set(kept) < set(whole)
    assert source.rejections - before or source.rejections.total() > 0
    source.paths[1].unlink()
    assert read(source) == kept and source.rejections["unreadable file"] == 1


def test_it_says_of_what_it_is_made(build, tmp_path):
    source = build(tmp_path)
    assert source.noun != "file" and source.names and all(source.takes(path.name) for path in source.paths)
    with pytest.raises(ValueError, match="expected 0 <= index < count"):
        source.shard(2, 2)
