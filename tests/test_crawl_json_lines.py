"""JSON Lines: what is sound comes out as it was, and what is lost is counted."""

import doctest
import gzip
import json
import tracemalloc
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_llm.contracts import Document, Page, Rejected, UserError
from tf_llm.crawl import json_lines
from tf_llm.crawl.json_lines import JsonLines
from tf_llm.text.html import strip_html

TEXTS = ["One line.", "Two\nlines <b>&amp;</b>\n\n\tand a table", "naïve 日本 👩", *(f"text {n}" for n in range(9))]
GOOD = [json.dumps({"url": f"http://a.example/{number}", "text": text}) for number, text in enumerate(TEXTS)]


def write(path, lines, compress=False):
    content = "\n".join(lines).encode() + b"\n"
    path.write_bytes(gzip.compress(content, mtime=0) if compress else content)
    return path


def read(source):
    return [page.content.decode() for page in source]


def test_docstring_examples():
    result = doctest.testmod(json_lines)
    assert result.attempted and result.failed == 0


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "gzip"])
def test_documents_come_out_as_they_were(tmp_path, compress):
    source = JsonLines(write(tmp_path / "texts", GOOD, compress))
    assert read(source) == TEXTS and not source.rejections
    page = next(iter(source))
    assert page == Page("http://a.example/0", b"One line.", content_type="text/plain", charset="utf-8")
    assert [strip_html(page).text for page in source] == TEXTS  # mark-up, line ends and tabs are text here


def test_fields_can_be_named_and_addresses_left_out(tmp_path):
    lines = [
        json.dumps({"body": "a", "id": "first"}),
        "",
        json.dumps({"body": "b"}),
        json.dumps({"body": "c", "id": 7}),
    ]
    source = JsonLines(write(tmp_path / "some.jsonl", lines), text_field="body", url_field="id")
    assert [page.url for page in source] == ["first", "some.jsonl#3", "some.jsonl#4"]


BAD = {
    '{"text": "cut sho': "bad JSON",
    "plain words": "bad JSON",
    "[" * 100_000: "bad JSON",
    '["text"]': "no object",
    '"text"': "no object",
    "null": "no object",
    "{}": "no text",
    '{"text": null}': "no text",
    '{"text": ["a"]}': "no text",
    '{"text": " \\n"}': "no text",
    '{"text": "\\ud800"}': "no text",
    json.dumps({"text": "a" * 200_000}): "too large",
}


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize(
    ("line", "reason"), BAD.items(), ids=[f"{n} {reason}" for n, reason in enumerate(BAD.values())]
)
def test_a_bad_line_costs_itself(tmp_path, line, reason, compress):
    path = write(tmp_path / "texts", [line, *GOOD[:4], line, *GOOD[4:], line], compress)
    source = JsonLines(path, max_bytes=150_000)
    assert read(source) == TEXTS
    assert source.rejections == {reason: 3}


def test_bytes_that_are_no_text_cost_their_line(tmp_path):
    path = tmp_path / "texts"
    path.write_bytes(b"\n".join([GOOD[0].encode(), b'{"text": "\xff"}', b"\x00\x01", b"", GOOD[1].encode() + b"\r"]))
    source = JsonLines(path)
    assert read(source) == TEXTS[:2] and source.rejections == {"bad JSON": 2}


def test_lone_surrogates_are_left_out(tmp_path):
    source = JsonLines(write(tmp_path / "texts", ['{"url": "x\\udfff", "text": "a\\ud800b"}']))
    assert [(page.url, page.content) for page in source] == [("x", b"ab")]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda content: content[: len(content) // 2], "gzip cut short"),
        (lambda content: content[:-8] + b"\0" * 8, "gzip damaged"),  # the checksum
        (lambda content: content + b"something else", "gzip damaged"),
        (lambda content: content[:2] + b"\0" + content[3:], "gzip damaged"),  # the method of compression
    ],
    ids=["cut", "checksum", "tail", "head"],
)
def test_damage_to_a_file_keeps_the_lines_before_and_the_files_behind(tmp_path, damage, reason):
    content = gzip.compress("\n".join(GOOD * 500).encode(), mtime=0)
    (tmp_path / "a.jsonl.gz").write_bytes(damage(content))
    write(tmp_path / "b.jsonl", GOOD)
    source = JsonLines(tmp_path / "*.jsonl*")
    texts = read(source)
    kept = len(texts) - len(TEXTS)
    assert texts == (TEXTS * 500)[:kept] + TEXTS
    assert kept > 2_500 or damage(content)[2] == 0
    assert source.rejections == {reason: 1}


@settings(deadline=None, max_examples=60)
@given(content=st.binary(max_size=300), compress=st.booleans(), flip=st.integers(0, 400))
def test_no_bytes_crash_it(tmp_path_factory, content, compress, flip):
    path = tmp_path_factory.mktemp("any") / "texts"
    content = gzip.compress(content) if compress else content
    content = content[:flip] + b"\x7f" + content[flip + 1 :]
    write(path, GOOD)
    source = JsonLines(path)
    path.write_bytes(content)
    assert all(isinstance(page, Page) for page in source)


def test_a_long_line_is_never_in_memory(tmp_path):
    path = tmp_path / "texts.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": "' + b"a" * (40 << 20) + b'"}\n' + GOOD[0].encode(), compresslevel=1))
    source = JsonLines(path, max_bytes=1 << 20)
    tracemalloc.start()
    texts = read(source)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert texts == TEXTS[:1] and source.rejections == {"too large": 1}
    assert peak < 8 << 20


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_shards_partition_the_whole(tmp_path, count):
    for name in "abc":
        write(tmp_path / f"{name}.jsonl", [*GOOD[:5], "bad", *GOOD[5:]])
    whole = JsonLines(tmp_path / "*.jsonl")
    everything = Counter((page.url, page.content) for page in whole)
    shards = [whole.shard(index, count) for index in range(count)]
    parts = [Counter((page.url, page.content) for page in shard) for shard in shards]
    assert sum(parts, Counter()) == everything and all(parts)
    assert sum((shard.rejections for shard in shards), Counter()) == whole.rejections == {"bad JSON": 3}
    halves = [shard.shard(side, 2) for shard in shards for side in (0, 1)]
    assert sum((Counter((page.url, page.content) for page in half) for half in halves), Counter()) == everything
    assert len({repr(source) for source in [whole, *shards, *halves]}) == 3 * count + (count > 1)
    with pytest.raises(ValueError, match="expected 0 <= index < count"):
        whole.shard(count, count)


def test_iterating_again_counts_afresh(tmp_path):
    source = JsonLines(write(tmp_path / "texts", [*GOOD, "bad"]))
    assert list(source) == list(source) and source.rejections == {"bad JSON": 1}


def test_the_name_is_that_of_the_content_wherever_it_lies(tmp_path):
    names = set()
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        names.add(repr(JsonLines(write(tmp_path / folder / "texts.jsonl", GOOD))))
    assert len(names) == 1 and "JsonLines(1 files from texts.jsonl to texts.jsonl, " in names.pop()
    other = write(tmp_path / "texts.jsonl", GOOD[:-1])
    assert repr(JsonLines(other)) != repr(JsonLines(tmp_path / "one" / "texts.jsonl"))
    assert repr(JsonLines(other)) != repr(JsonLines(other, url_field="id"))


def test_user_errors_are_one_line_with_the_remedy(tmp_path):
    empty, other = write(tmp_path / "empty.jsonl", []), write(tmp_path / "other.jsonl", ["bad", *GOOD])
    for arguments, text in (
        (
            ("nowhere/*.jsonl",),
            r"expected a JSON Lines file, or a pattern .* 'nowhere/\*.jsonl', where .* Check the path",
        ),
        (([],), "expected at least one JSON Lines file. Received: no path. Name a file or a pattern"),
        ((empty,), "with a text in the field 'text' in .*empty.jsonl. Received: no line. Name other files"),
        ((other, "body"), "in the field 'body' in .*other.jsonl. Received: 12 × no text, 1 × bad JSON. Name other"),
    ):
        with pytest.raises(UserError, match=text) as error:
            JsonLines(*arguments)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"max_bytes expected at least 1\. Received: 0"):
        JsonLines(other, max_bytes=0)


def test_real_documents(shared_data):
    source = JsonLines(shared_data / "lm" / "web-en.jsonl.gz")
    results = [strip_html(page) for page in source]
    documents = [result for result in results if isinstance(result, Document)]
    assert len(results) == len({result.url for result in results}) == 2_300 and not source.rejections
    assert {result.reason for result in results if isinstance(result, Rejected)} == {"binary"}
    assert len(documents) == 2_297 and documents[0].text.count("\n") > 1
