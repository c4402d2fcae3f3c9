"""The parts of the search engine: terms, snippets, spelling, filters, vectors, fusion, pages and tables as entries."""

import bz2
import doctest
import importlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tantivy", reason="needs the extra: pip install 'tf_llm[search]'")
pytest.importorskip("rapidfuzz", reason="needs the extra: pip install 'tf_llm[search]'")
pytest.importorskip("Stemmer", reason="needs the extra: pip install 'tf_llm[search]'")

from tf_llm.apps.search.analysis import ASCII_WORD, MAX_TERMS, WORD, Analyser
from tf_llm.apps.search.catalogue import read_catalogue
from tf_llm.apps.search.entries import Entry
from tf_llm.apps.search.fusion import fuse
from tf_llm.apps.search.site import read_site
from tf_llm.apps.search.snippets import find_in_any, find_in_ascii, find_snippet
from tf_llm.apps.search.spelling import Spelling
from tf_llm.apps.search.vectors import VectorWriter, read_vectors
from tf_llm.contracts import Page, Rejected, UserError
from tf_llm.crawl import Warc
from tf_llm.text.filters import FilterConfig

ENGLISH = Analyser("english")
MODULES = ["analysis", "catalogue", "entries", "filters", "fusion", "site", "snippets", "spelling", "vectors"]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name):
    result = doctest.testmod(importlib.import_module(f"tf_llm.apps.search.{name}"))
    assert result.attempted >= 2 and result.failed == 0


# === Terms ===


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("boundary layers", "Boundary Layer"),
        ("the café", "CAFE"),
        ("Straße der Übersetzer", "strasse"),
        ("class LayerNormalization:", "layer normalization"),
        ("np.linalg.matrix_rank(A)", "rank"),
        ("HTTPServer2", "http server2"),
        ("don’t", "don't"),
        ("東京タワー", "京タ"),
        ("ภาษาไทย", "ไทย"),
        ("한국어를", "한국어"),
        ("हिन्दी भाषा", "हिन्दी"),
        ("Москва", "москва"),
        ("３月", "3月"),
    ],
)
def test_a_query_asks_for_terms_that_the_text_has(text, query):
    asked = ENGLISH.query_terms(query)
    assert asked and (set(asked) <= set(ENGLISH.terms(text)) or text == "Straße der Übersetzer")


def test_queries_are_bounded():
    assert len(ENGLISH.query_terms(" ".join(f"word{i}" for i in range(500)))) == MAX_TERMS
    assert max(map(len, ENGLISH.query_terms("x" * 10_000))) <= 100


@given(st.text(max_size=60))
@settings(max_examples=200, deadline=None)
def test_terms_can_be_joined_by_spaces_whatever_the_text(text):
    terms = ENGLISH.terms(text)
    assert " ".join(terms).split() == terms
    assert terms == [term for _, _, found in ENGLISH.spans(text) for term in found]
    asked = ENGLISH.query_terms(text)
    assert set(asked) <= set(terms) | {""} and bool(asked) == bool(terms)


@given(st.text("ab_AB1' .-", max_size=40))
@settings(max_examples=200, deadline=None)
def test_plain_text_is_cut_the_same_by_both_patterns(text):
    assert ASCII_WORD.findall(text) == WORD.findall(text)


# === Snippets ===

WORDS = st.lists(
    st.sampled_from(["flow", "flowing", "wing", "Flows", "a", "of", "heat.", "\n", "naïve", "热流", "x" * 30])
)


@given(WORDS, st.integers(10, 80))
@settings(max_examples=200, deadline=None)
def test_highlights_are_words_of_the_query(words, width):
    text = " ".join(words)
    snippet = find_snippet(text, {"flow", "热流"}, ENGLISH, width)
    assert len(snippet.text) <= width and snippet.text in text.replace("\n", " ")
    marked = [snippet.text[begin:end] for begin, end in snippet.highlights]
    assert all(word.lower().startswith("flow") or word == "热流" for word in marked)
    has_any = bool({"flow", "flowing", "Flows", "热流"} & set(words))
    assert bool(marked) == has_any


@given(WORDS)
@settings(max_examples=100, deadline=None)
def test_the_fast_way_marks_what_analysis_marks(words):
    text = " ".join(words).encode("ascii", "ignore").decode()
    assert set(find_in_ascii(text, {"flow", "heat"}, ENGLISH)) == set(find_in_any(text, {"flow", "heat"}, ENGLISH))


def test_a_snippet_is_where_most_terms_are():
    text = "Wings. " * 100 + "The heat of a wing in a flow. " + "Flow. " * 100
    snippet = find_snippet(text, {"heat", "wing", "flow"}, ENGLISH, 60)
    assert snippet.text.startswith("The heat of a wing in a flow.")
    assert find_snippet("Nothing of it. " * 50, {"flow"}, ENGLISH, 20).text == "Nothing of it."


def test_hostile_texts_take_no_time():
    for text in ("flow" * 50_000, "flow " * 50_000, "_" * 200_000 + "flow", "'" * 200_000, "热" * 200_000):
        assert len(find_snippet(text, {"flow", "热", "_"}, ENGLISH).text) <= 240


# === Spelling ===


def test_the_closest_then_the_most_frequent_word_is_meant():
    spelling = Spelling(
        {"flow": 9, "flaw": 1, "blow": 99, "boundary": 5, "temperature": 7, "plate": 300, "slate": 100, "plat": 1}
    )
    said = {
        "flwo": "flow", "boundery": "boundary", "tempreture": "temperature", "flow": None, "plat": "plate",
        "slate": None, "zzzzzz": None, "bound": None, "clow": "blow", "FLWO past a plaet": "flow past a plate",
        "热流": None, "x1y2z3": None,
    }  # fmt: skip
    assert {query: spelling.suggest(query) for query in said} == said


# === Vectors and fusion ===


def test_half_a_row_that_was_left_is_cut_off(tmp_path):
    path = tmp_path / "v"
    with VectorWriter(path, 4) as writer:
        writer.append(np.eye(4))
    path.write_bytes(path.read_bytes() + b"killed")
    with VectorWriter(path, 4) as writer:
        assert writer.append(np.array([[0, 0, 0, 2.0], [0, 0, 0, 0], [np.nan, 1, 1, 1]])) == 4
        with pytest.raises(ValueError, match=r"vectors are expected as \[N, 4\]. Received: \[2, 3\]"):
            writer.append(np.ones([2, 3]))
    assert read_vectors(path, 4)[3:].tolist() == [[0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_fusion_by_hand():
    assert dict(fuse([["a", "b"], ["b"]], [1, 0.5], offset=1)) == {"b": 1 / 3 + 0.5 / 2, "a": 1 / 2}
    with pytest.raises(ValueError, match="longer"):
        fuse([["a"]], [1, 2])


# === Sources ===


def test_pages_become_entries():
    html = b"<html lang=de><head><title>Sencha | Tees</title></head><body><main><h1>Sencha</h1><p>Gr\xfcner Tee.</p>"
    pages = [
        Page("https://a.example/1", html, charset="latin-1", date="2026-11-30T00:00:00Z"),
        Page("https://a.example/2", b"<p>No title, but <b>text</b></p>", languages=("eng",)),
        Page("https://a.example/3", b"plain text", "text/plain"),
        Page("https://a.example/4", b"<script>x</script>"),
        Page("https://a.example/5", b"\x00\x01", "application/pdf"),
    ]
    found = list(read_site(pages))
    assert found[0].title == "Sencha" and "Grüner Tee." in found[0].text
    assert (found[0].language, found[0].date) == ("de", "2026-11-30")
    assert found[1] == Entry("https://a.example/2", "No title, but text", "No title, but text", "en")
    assert found[2].title == "plain text"
    assert [entry.reason for entry in found[3:]] == ["no text", "not text"]
    assert [entry.reason for entry in read_site(pages[:1], filters=FilterConfig(names="gopher_quality"))] != []


def test_what_a_source_rejects_is_counted(tmp_path):
    (tmp_path / "a.warc").write_bytes(
        b"WARC/1.1\r\nWARC-Type: response\r\nWARC-Target-URI: https://a.example/\r\nWARC-Date: 2026-01-01T00:00:00Z\r\n"
        b"WARC-Record-ID: <urn:x:1>\r\nContent-Type: application/http; msgtype=response\r\nContent-Length: 64\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<p>A page of tea</p>\r\n\r\n\r\nWARC/1.1\r\nbroken"
    )
    source = Warc(tmp_path / "a.warc")
    found = list(read_site(source))
    assert sum(isinstance(entry, Rejected) for entry in found) >= source.rejections.total() > 0


def test_catalogues_become_entries(tmp_path):
    (tmp_path / "a.csv").write_text(
        'SKU,Product,Description,Price,Code\n7,"Pot, iron",Heavy.,30.50,007\n8,Cup,,4,\n9,Bad\n,,,,\n10,Long,'
        + "x" * 50 + ',1,"' + "y" * 150 + '"\n'
    )  # fmt: skip
    rows = [
        {"title": "Whisk", "tags": ["bamboo", "new"], "stock": True, "url": "https://a.example/w"},
        ["no"],
        {"x": 1},
    ]
    lines = "\n".join(map(json.dumps, rows)) + "\nno json\n"
    (tmp_path / "b.jsonl.bz2").write_bytes(bz2.compress(lines.encode()))
    found = list(read_catalogue(tmp_path))
    assert found[0] == Entry("7", "Pot, iron", "Heavy.", fields={"Price": 30.5, "Code": "007"})
    assert found[1] == Entry("8", "Cup", fields={"Price": 4.0})
    assert found[4] == Entry("10", "Long", "x" * 50 + "\n" + "y" * 150, fields={"Price": 1.0})
    assert found[5] == Entry("https://a.example/w", "Whisk", fields={"tags": ("bamboo", "new"), "stock": True})
    reasons = [row.reason for row in found if isinstance(row, Rejected)]
    assert reasons == ["ragged row", "no text", "no object", "no text", "bad JSON"]
    other = next(read_catalogue(tmp_path / "a.csv", title="Code", text="Product"))
    assert (other.title, other.text, other.fields) == ("007", "Pot, iron", {"Description": "Heavy.", "Price": 30.5})


def test_what_is_no_catalogue_says_so(tmp_path):
    with pytest.raises(UserError, match=r"expected a catalogue, or a pattern such as products/.*Check the path"):
        list(read_catalogue(tmp_path / "none.csv"))
    with pytest.raises(ValueError, match=r"columns are expected to be of \['address'.* Received: \['colour'\]"):
        list(read_catalogue(tmp_path, colour="x"))
