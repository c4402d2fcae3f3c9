"""Step 1: decoding, main content, cleaning, and what is rejected."""

import doctest
import gzip
import json
import re
import time
import unicodedata
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tf_llm.contracts import Document, Page, Rejected, UserError
from tf_llm.crawl.warc import Warc
from tf_llm.text import html
from tf_llm.text.html import HtmlConfig, clean_text, extract_text, strip_html

URL = "http://a.example/page"
ARTICLE = "<p>" + "The kettle was on the stove, and nobody had put it there. " * 6 + "</p>"


def test_docstring_examples():
    result = doctest.testmod(html)
    assert result.attempted > 3 and result.failed == 0


def test_main_content_leaves_out_the_rest_of_the_page():
    page = f"""<html><head><title>Kettles</title><style>p {{}}</style><script>var kettle;</script></head><body>
        <nav><a href="/">Home</a> <a href="/all">All kettles</a></nav><div id="content"><h1>A kettle</h1>{ARTICLE}
        <table><tr><td>copper</td><td>tin</td></tr></table><img alt="picture of a stove"><pre>a = 1\n  b</pre></div>
        <div id="comments"><p>First!</p></div><footer>Imprint</footer></body></html>"""
    text = strip_html(Page(URL, page.encode())).text
    assert text.startswith("A kettle") and "nobody had put it there" in text
    assert re.search(r"copper\s+tin", text) and "a = 1\n  b" in text
    for absent in ("Home", "All kettles", "var kettle", "picture", "First!", "Imprint", "•", "<"):
        assert absent not in text
    everything = strip_html(Page(URL, page.encode()), HtmlConfig(main_content=False)).text
    assert all(present in everything for present in ("All kettles", "nobody had put it there", "Imprint"))
    assert "var kettle" not in everything


def test_whole_page_stands_in_where_no_main_content_is_found():
    page = f"<body><div class='sidebar'>{ARTICLE}</div></body>"
    assert len(html.extract_plain_text(page, main_content=True)) < html.SHORT_TEXT
    assert "nobody had put it there" in extract_text(page)


def test_plain_text_passes_through():
    text = "a < b && c > d\n\n  <p>not a tag</p>"
    assert strip_html(Page(URL, text.encode("utf-16"), "text/plain", languages=("en",))) == Document(URL, text, ("en",))


@pytest.mark.parametrize(
    ("page", "reason", "detail"),
    [
        (Page(URL, b""), "no text", ""),
        (Page(URL, b"<html><script>1</script><p>&nbsp;\xc2\xad</p>"), "no text", ""),
        (Page(URL, b"x" * 101), "too large", "101 bytes, the limit is 100"),
        (Page(URL, b"%PDF-1.7", "application/pdf"), "not text", "application/pdf"),
        (Page(URL, bytes(range(100))), "binary", "27 control characters in the first 100"),
    ],
)
def test_rejections_say_why(page, reason, detail):
    assert strip_html(page, HtmlConfig(max_bytes=100)) == Rejected(URL, reason, detail)


def test_a_failing_parser_costs_one_page(monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("parser out of order")

    monkeypatch.setattr(html, "extract_plain_text", fail)
    rejected = strip_html(Page(URL, b"<p>text"))
    assert rejected == Rejected(URL, "unreadable HTML", "RuntimeError('parser out of order')")


HOSTILE = {
    "open tags": b"<a " * 20_000,
    "angle brackets": b"<" * 100_000,
    "divisions": b"<div>" * 100_000,
    "DIVISIONS": b"<DIV\n>" * 100_000,
    "articles": b"<article>" * 50_000,
    "tables": b"<table><tr><td>" * 10_000,
    "formats": b"<b><i>" * 20_000,
    "many formats": b"<font><a>" * 100_000,
    "lists": b"<ul><li>" * 100_000,
    "unknown elements": b"<x-cat>" * 200_000,
    "attributes": b"<p " + b"a=1 " * 50_000,
    "references": b"&#x0;&#xd800;&#x110000;" * 5_000,
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_hostile_pages_take_little_time(content):
    begin = time.process_time()
    assert isinstance(strip_html(Page(URL, content)), Document | Rejected)
    assert time.process_time() - begin < 2


def test_too_deep_is_a_reason():
    assert strip_html(Page(URL, b"<div>" * 1001)).reason == "nested too deeply"
    assert isinstance(strip_html(Page(URL, b"<div>" * 1000 + b"text")), Document)
    assert isinstance(strip_html(Page(URL, b"<div>text</div>" * 2000)), Document)
    assert strip_html(Page(URL, b"<b>" * 5001)).detail == "5001 elements, the limit is 5000"
    assert isinstance(strip_html(Page(URL, b"<b>" * 5000 + b"text")), Document)
    assert isinstance(strip_html(Page(URL, b"<tr><td>text<br><B>text</b >" * 3000)), Document)


fragments = st.sampled_from(
    ["<div>", "<p", "</p>", "<!--", "<script>", "&#", "&amp;", "\x00", "\ud800", "e\u0301", "\r"]
)


@given(st.one_of(st.binary(), st.lists(st.one_of(fragments, st.text(max_size=9))).map("".join)), st.booleans())
def test_any_bytes_become_clean_text_or_a_rejection(content, main_content):
    if isinstance(content, str):
        content = content.encode("utf-8", "surrogatepass")
    result = strip_html(Page(URL, content), HtmlConfig(main_content=main_content))
    if isinstance(result, Document):
        text = result.text
        assert text == text.strip() != ""
        assert text.encode() and unicodedata.is_normalized("NFC", text)
        assert not [c for c in text if unicodedata.category(c) == "Cc" and c not in "\t\n"]
        assert clean_text(text) == text


def test_joiners_stay():
    assert clean_text("می\u200cخواهم 👩\u200d🚀") == "می\u200cخواهم 👩\u200d🚀"


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match=r"html\.max_bytes expected at least 1\. Received: 0"):
        HtmlConfig(max_bytes=0)


def test_trafilatura_is_an_extra_that_is_asked_for_by_name(monkeypatch):
    page = Page(URL, f"<article>{ARTICLE}</article>".encode())
    html.load_trafilatura.cache_clear()
    monkeypatch.setattr(html.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'expected the package trafilatura.*pip install "tf_llm\[trafilatura\]"'):
        strip_html(page, HtmlConfig(extractor="trafilatura"))
    html.require_extractor(HtmlConfig())
    assert isinstance(strip_html(page), Document)


@pytest.mark.parametrize(
    ("found", "expected"),
    [("The kettle was on the stove. " * 9, "closer"), ("Home", "fast"), (None, "fast")],
    ids=["an article", "a menu", "nothing"],
)
def test_the_fast_text_stands_in_where_trafilatura_misses_the_article(monkeypatch, found, expected):
    monkeypatch.setattr(html, "load_trafilatura", lambda: lambda text, **options: found)
    text = extract_text(f"<article>{ARTICLE}</article>", extractor="trafilatura")
    assert text == (found if expected == "closer" else extract_text(f"<article>{ARTICLE}</article>"))


def test_trafilatura_leaves_out_more():
    pytest.importorskip("trafilatura")
    letter = "".join(f"<div class='newsletter signup'><p>More about kettle {n}</p></div>" for n in range(9))
    page = Page(URL, f"<html><body><article><h1>Kettle\u00ads</h1>{ARTICLE}{letter}</article></body></html>".encode())
    fast, closer = (strip_html(page, HtmlConfig(extractor=extractor)).text for extractor in html.EXTRACTORS)
    assert "More about kettle 8" in fast and "More about kettle 8" not in closer
    assert "nobody had put it there" in closer and clean_text(closer) == closer
    for content in HOSTILE.values():
        assert isinstance(strip_html(Page(URL, content), HtmlConfig(extractor="trafilatura")), Document | Rejected)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"extractor": "slow"}, r"html\.extractor expected one of \['fast', 'trafilatura'\]\. Received: 'slow'"),
        (
            {"extractor": "trafilatura", "main_content": False},
            r"html\.extractor expected 'fast' where html\.main_content is False\. Received: 'trafilatura'",
        ),
    ],
)
def test_wrong_extractors_are_named(settings, text):
    with pytest.raises(ValueError, match=text):
        HtmlConfig(**settings)


def test_real_pages_against_their_gold_text(shared_data):
    """The full measurement is examples/benchmarks/extraction_quality.py."""
    with gzip.open(shared_data / "warc" / "real-pages.gold.jsonl.gz", "rt", encoding="utf-8") as lines:
        gold = {entry["uri"]: entry["gold"] for entry in map(json.loads, lines)}
    scores = []
    for page in list(Warc(shared_data / "warc" / "real-pages.warc.gz"))[::5]:
        document = strip_html(page)
        found = Counter(re.findall(r"\w+", document.text.lower() if isinstance(document, Document) else ""))
        wanted = Counter(re.findall(r"\w+", gold[page.url].lower()))
        scores.append(2 * (found & wanted).total() / max(1, found.total() + wanted.total()))
    assert len(scores) > 100
    assert sum(scores) / len(scores) > 0.8
