"""What a run counts: the parts give the whole, examples from strangers are harmless, the curve is exact."""

import doctest
import itertools
import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_llm.contracts import Document, Rejected
from tf_llm.prepare import statistics
from tf_llm.prepare.statistics import (
    EXAMPLE_LENGTH,
    EXAMPLES,
    Statistics,
    bin_length,
    coverage_curve,
    describe_vocabulary,
    list_top,
    merge_statistics,
)

ANY_TEXT = st.text(st.characters(), max_size=20)  # lone surrogates included
KEPT = st.builds(Document, ANY_TEXT, ANY_TEXT, st.lists(ANY_TEXT | st.sampled_from(["en", "zh-Hant"])).map(tuple))
REJECTED = st.builds(Rejected, ANY_TEXT, st.sampled_from(["no text", "binary", "c4: too few sentences"]), ANY_TEXT)
PAGES = st.lists(st.tuples(KEPT | REJECTED, st.integers(0, 10**9)), max_size=12)


def count_pages(pages):
    counted = Statistics()
    for page, html_bytes in pages:
        counted.see(html_bytes)
        if isinstance(page, Document):
            counted.keep(page)
            counted.edit({"e-mail address": len(page.text)})
        else:
            counted.reject(page)
    return counted


def test_docstring_examples():
    result = doctest.testmod(statistics)
    assert result.attempted and result.failed == 0


@settings(max_examples=40, deadline=None)
@given(st.lists(PAGES, max_size=4))
def test_parts_merge_into_the_whole_to_the_byte(parts):
    whole = count_pages([page for part in parts for page in part]).to_json()
    written = [json.dumps(count_pages(part).to_json(), ensure_ascii=False).encode() for part in parts]
    merged = merge_statistics([json.loads(text) for text in written])
    assert json.dumps(merged) == json.dumps(whole if parts else {})
    assert merge_statistics([merged]) == merged
    for part in range(len(parts)):  # in any grouping
        halves = [merge_statistics(map(json.loads, half)) for half in (written[:part], written[part:])]
        assert merge_statistics(halves) == merged
    read = Statistics.from_json(merged)
    assert read == Statistics.from_json(whole) and read.to_json() == whole
    read.reject(Rejected("", "no text"))
    assert read.rejected["no text"] == whole["rejected"].get("no text", 0) + 1


def test_the_parts_are_left_as_they_were():
    parts = [count_pages([(Document("a", "tea"), 1), (Rejected("b", "no text"), 2)]).to_json() for _ in range(9)]
    before = json.dumps(parts)
    merged = merge_statistics(iter(parts))
    assert json.dumps(parts) == before
    assert merged["pages"] == 18 and merged["html_bytes"] == 27 and merged["edited"] == {"e-mail address": 27}
    assert {outcome: len(examples) for outcome, examples in merged["examples"].items()} == {"kept": 5, "no text": 5}


def test_what_does_not_add_up_is_refused():
    assert merge_statistics([{"seconds": {"read": 1.5}}, {"seconds": {"read": 2, "count": 1}}]) == {
        "seconds": {"read": 3.5, "count": 1}
    }
    with pytest.raises(ValueError, match=r"expected counts in the statistics of a part\. Received: 'source': 'Warc'"):
        merge_statistics([{"source": "Warc"}])


def test_examples_are_few_short_and_utf8():
    counted = Statistics()
    for number in range(2 * EXAMPLES):
        counted.keep(Document(f"{number}" + "u" * 10**6, "\ud800" * 10**6))
        counted.reject(Rejected("\udfff", "binary\udfff" + "!" * 10**6, "é" * 10**6))
    assert all(len(examples) == EXAMPLES for examples in counted.examples.values())
    assert [example["url"][0] for example in counted.examples["kept"]] == ["0", "1", "2", "3", "4"]
    assert counted.examples["kept"][0]["text"] == "\ufffd" * (EXAMPLE_LENGTH - 1) + "…"
    (reason,) = counted.rejected
    assert len(reason) == 100 and reason in counted.examples
    assert len(json.dumps(counted.to_json(), ensure_ascii=False).encode()) < 15_000
    assert counted.text_bytes == 2 * EXAMPLES * 3 * 10**6


def test_what_is_counted_of_a_document():
    counted = Statistics()
    for html_bytes in (70, 30, 0):
        counted.see(html_bytes)
    counted.keep(Document("a", "one two three", ("de", "en")))
    counted.keep(Document("b", "茶"), words=1000)
    counted.keep(Document("c", "tea", ("<script>",)))
    counted.reject_records({"http status 404": 31})
    assert counted.languages == {"de": 1, "unknown": 2} and counted.lengths == {"1": 1, "9": 1, "0": 1}
    assert (counted.pages, counted.documents, counted.html_bytes, counted.text_bytes) == (34, 3, 100, 19)
    assert counted.rejected == {"http status 404": 31} and set(counted.examples) == {"kept"}


@given(st.integers(0, 10**12))
def test_bins_hold_what_they_say(words):
    k = bin_length(words)
    assert 2**k <= max(words, 1) < 2 ** (k + 1)


def test_bins_of_nothing_less():
    with pytest.raises(ValueError, match=r"expected a number of words\. Received: -1"):
        bin_length(-1)


@given(
    st.dictionaries(st.integers(), st.integers(-1, 10**6) | st.integers(1, 3), max_size=400),
    st.integers(2, 80),
    st.lists(st.integers(-2, 500), max_size=3),
)
def test_curve_is_exact(counts, points, include):
    curve = coverage_curve(counts, points, include)
    ordered = sorted((count for count in counts.values() if count > 0), reverse=True)
    assert curve == [[size, sum(ordered[:size]) / sum(ordered)] for size, _ in curve]
    sizes = [size for size, _ in curve]
    assert sizes == sorted(set(sizes)) and len(sizes) <= points + len(include)
    assert bool(sizes) == bool(ordered)
    if ordered:
        assert sizes[0] == 1 and sizes[-1] == len(ordered) and curve[-1][1] == 1.0
        assert {size for size in include if 1 <= size <= len(ordered)} <= set(sizes)


def test_curve_is_spread_evenly_and_knows_large_counts():
    counts = {number: 2**40 // (number + 1) for number in range(100_000)}
    sizes = [size for size, _ in coverage_curve(counts)]
    assert 50 <= len(sizes) <= 60
    assert max(high / low for low, high in itertools.pairwise(sizes[9:])) < 1.3
    with pytest.raises(ValueError, match=r"at least 2 points of a curve\. Received: 1"):
        coverage_curve(counts, points=1)


def test_vocabulary_of_the_report_has_the_sizes_around_the_choice():
    counts = Counter({f"word {number}": 1000 // (number + 1) + 1 for number in range(5_000)})
    vocabulary = describe_vocabulary("words", counts, 777, 3)
    covered = dict(vocabulary["curve"])
    ordered = sorted(counts.values(), reverse=True)
    for size in (388, 777, 1554, 3108):
        assert covered[size] == sum(ordered[:size]) / counts.total()
    assert vocabulary["coverage"] == covered[777] and json.loads(json.dumps(vocabulary)) == vocabulary
    assert describe_vocabulary("characters", Counter(), 0, 1)["curve"] == []


def test_ties_at_the_top_are_in_order():
    assert list_top({"b": 2, "a": 2, "c": 9}, 2) == list_top({"a": 2, "c": 9, "b": 2}, 2) == [["c", 9], ["a", 2]]
    assert list_top({}) == []
