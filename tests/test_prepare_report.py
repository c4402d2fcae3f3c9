"""The report of a run: sound HTML that stands alone, whatever the pages held and however much was counted."""

import copy
import doctest
import html.parser
import itertools
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_llm.contracts import Document, Rejected, UserError
from tf_llm.prepare import charts, markup, report
from tf_llm.prepare.report import POLICY, format_report, write_report
from tf_llm.prepare.statistics import Statistics, describe_vocabulary

VOID = {"meta", "link", "br"}
ATTRIBUTES = {
    "class", "id", "style", "lang", "charset", "http-equiv", "content", "name", "rel", "href", "scope", "role",
    "aria-label", "aria-hidden", "viewbox", "preserveaspectratio", "vector-effect", "points",
}  # fmt: skip
STYLE = re.compile(r"(?:(?:width|height|left|right|bottom):[\d.]+%;?)+")
COUNTS = {
    "source": "Warc(1 files)",
    "settings": {"html": {"main_content": True, "max_bytes": 8_000_000}, "words": {"stop_words": "nltk"}},
    "versions": {"python": "3.11.7"},
    "pages": 855,
    "html_bytes": 97_000_000,
    "text_bytes": 4_100_000,
    "documents": 812,
    "rejected": {"no text": 3, "http status 404": 31, "c4: too few sentences": 7, "duplicate page": 2},
    "edited": {"e-mail address": 12, "line without end mark": 3011},
    "removed": {"capital letters": 143_206, "stop words": 245_867},
    "examples": {
        "kept": [{"url": "http://a.example/tea", "text": "Green tea.\nBlack tea."}],
        "no text": [{"url": "http://b.example/", "detail": ""}],
        "c4: too few sentences": [{"url": "http://c.example/", "detail": "2 sentences"}],
    },
    "lengths": {"10": 117, "0": 3, "9": 328, "2": 5},
    "languages": {"en": 769, "de": 3, "unknown": 40},
    "duplicates": {"duplicate page": 2, "lines": 1_290},
    "top_before": [["the", 30_211], ["of", 14_405], ["tea", 1_200]],
    "top_after": [["said", 2_447], ["tea", 1_200]],
    "vocabulary": describe_vocabulary("words", {f"word {n}": 10_000 // (n + 1) + 1 for n in range(20_000)}, 4_000, 2),
    "tokens": {"train": 1_148_261, "validation": 20_311},
    "parts": 4,
    "seconds": {"read": 13.4, "count": 0.8, "encode": 6.1},
    "per_second": {"pages": 63.8, "MB of HTML": 7.24},
}
HOSTILE = [
    "<script>alert(1)</script>",
    "</style></title><img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)" x="',
    "' style='position:fixed",
    "javascript:alert(1)",
    "http://evil.example/?a=1&amp;b=<b>",
    "-->]]><!--",
    "\u202egnp.exe\u2066\u200f\u061c",
    "\x00\x1b[31m\x07\r\x85\ufeff\u200b\u00ad\U000e0041",
    "\ud83d\udfff",
    "z" + "\u0337" * 200,
    "W" * 100_000,
]


class Checker(html.parser.HTMLParser):
    """Demands that every element is closed in its turn, and collects what matters."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.ids, self.links, self.texts = [], [], [], [], []

    def handle_starttag(self, tag, attributes):
        names = [name for name, _ in attributes]
        assert len(names) == len(set(names)) and set(names) <= ATTRIBUTES, names
        self.tags.append(tag)
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            if name == "href":
                self.links.append(value)
            if name == "style":
                assert STYLE.fullmatch(value), value
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.texts.append(data)


def check(page):
    """Parses a report and demands what every one must keep, whatever it shows."""
    page.encode("utf-8")
    assert not re.search("<(?![a-z/!])|&(?!(?:amp|lt|gt|quot|#x27);)", page, re.IGNORECASE)
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    assert not {"script", "img", "iframe", "object", "form", "base"} & set(checker.tags)
    assert len(checker.ids) == len(set(checker.ids)) == 10
    assert set(checker.links) == {"data:,"} | {f"#{anchor}" for anchor in checker.ids}
    shown = "".join(checker.texts)
    assert not [sign for sign in set(shown) if markup.is_hidden(sign)]
    assert page.count(POLICY) == 1 and page.index(POLICY) < page.index("<title>")
    return shown


@pytest.mark.parametrize("module", [charts, markup, report])
def test_docstring_examples(module):
    result = doctest.testmod(module)
    assert result.attempted and result.failed == 0


def test_everything_counted_is_shown(tmp_path):
    path = write_report(tmp_path, COUNTS)
    assert path == tmp_path / "report.html" and [file.name for file in tmp_path.iterdir()] == ["report.html"]
    shown = check(path.read_text(encoding="utf-8"))
    for text in (
        "855", "812", "5.0 %", "97.0 MB", "4.1 MB", "1,168,572", "63.8", "7.2",  # the headline: 43 of 855
        "43 of 855 pages", "http status 404", "31", "3.6 %", "line without end mark", "3,011", "245,867", "1,290",
        "1,024 – 2,047", "94.7 %", "the", "30,211", "said", "2,447", "http://a.example/tea", "Green tea.\nBlack tea.",
        "2 sentences", "13 s", "66.0 %", "8,000,000", "nltk", "3.11.7",
    ):  # fmt: skip
        assert text in shown, text


def test_the_cut_of_rare_words_is_seen_beside_other_sizes():
    page = format_report(COUNTS)
    covered = dict(COUNTS["vocabulary"]["curve"])
    for name, size in (("half", 2_000), ("chosen", 4_000), ("twice", 8_000), ("four times", 16_000), ("all", 20_000)):
        row = re.search(rf'<th scope="row">{name}</th><td>{size:,}</td><td>(.*?) %</td>', page)
        assert float(row[1]) == pytest.approx(100 * covered[size], abs=0.05)
    assert page.count('class="dot"') == 3 and page.count('class="dot chosen"') == 1
    label = re.search(r'<span class="label".*?>(.*?)</span>', page)[1]
    assert label == f"4,000 words cover<br><b>{100 * covered[4_000]:.1f} %</b>"
    points = re.search(r'<polyline .*?points="(.*?)"', page)[1].split()
    assert len(points) == len(covered) and points[0].startswith("0.0,") and points[-1] == "1000.0,0.0"


def test_columns_are_as_high_as_their_counts_and_none_is_left_out():
    page = charts.draw_columns({0: 10, 3: 40, 2: 20}, "documents", "words")
    assert re.findall(r'class="column" style="height:([\d.]+)%', page) == ["25.00", "0.00", "50.00", "100.00"]
    assert re.findall(r">(\d+)</span>", page) == ["0", "10", "20", "30", "40", "1", "2", "4", "8", "16"]
    assert "from 1 to 16, most of them, 40, from 8 to 15" in page


def test_high_columns_have_short_labels():
    page = charts.draw_columns({4: 2_800_000, 5: 1}, "documents", "words")
    assert re.findall(r">([^<]+)</span>", page) == ["0", "1M", "2M", "3M", "16", "32", "64"]
    assert ">1.5M</span>" in charts.draw_columns({4: 2_400_000}, "documents", "words")
    assert ">80,000</span>" in charts.draw_columns({4: 80_000}, "documents", "words")


def test_bars_are_in_order_and_the_rest_is_one_row():
    page = charts.draw_bars({f"reason {n}": n for n in range(1, 41)}, "reason", "pages", 820)
    assert re.findall(r"<bdi>(.*?)</bdi>", page) == [f"reason {n}" for n in range(40, 15, -1)] + ["15 more"]
    assert re.findall(r"<td>(\d+)</td>", page)[-1] == "120" and "14.6 %" in page
    assert re.findall(r"width:([\d.]+)%", page)[:2] == ["33.33", "32.50"]  # the rest is the longest
    assert "share" not in charts.draw_bars({"a": 1}, "rule", "times") and not charts.draw_bars({}, "rule", "times")


@pytest.mark.parametrize("hostile", HOSTILE, ids=range(len(HOSTILE)))
def test_texts_of_strangers_stay_texts(hostile):
    counted = Statistics()
    counted.keep(Document(hostile, hostile, (hostile,)), 1)
    counted.reject(Rejected(hostile, hostile, hostile))
    words = [[hostile, 3]]
    own = {
        "source": hostile, "edited": {hostile: 1}, "removed": {hostile: 1}, "duplicates": {hostile: 1},
        "languages": {hostile: 1}, "top_before": words, "top_after": words, "settings": {hostile: {hostile: hostile}},
        "versions": {hostile: hostile}, "tokens": {hostile: 1}, "seconds": {hostile: 1.0}, "per_second": {hostile: 1.0},
    }  # fmt: skip
    vocabulary = COUNTS["vocabulary"] | {"noun": hostile[:100]}
    page = format_report(counted.to_json() | own | {"vocabulary": vocabulary})
    shown = check(page)
    visible = "".join(sign for sign in hostile[:99] if not markup.is_hidden(sign))
    assert visible in "".join(re.split("⟨U\\+[0-9A-F]+⟩", shown)) and len(page) < 100_000


@pytest.mark.parametrize("name", COUNTS)
def test_nothing_is_needed(name):
    without = {key: value for key, value in COUNTS.items() if key != name}
    assert check(format_report(without)) == check(format_report(COUNTS | {name: None}))
    check(format_report({name: COUNTS[name]}))


def test_nothing_at_all_is_said_to_be_so():
    empty = {key: type(value)() for key, value in COUNTS.items()}
    for statistics in ({}, empty, dict.fromkeys(COUNTS), Statistics().to_json()):
        shown = check(format_report(statistics))
        assert shown.count("Nothing to show.") == 9 and "No page was rejected." in shown


def test_huge_counts_fit():
    huge = json.loads(json.dumps(COUNTS), parse_int=lambda digits: int(digits) * 10**9)
    huge["lengths"] = {"0": 10**12, "62": 10**15}
    huge["vocabulary"] |= {"curve": [[1, 0.01], [10**9, 0.7], [4 * 10**12, 1.0]], "chosen": 10**6}
    shown = check(format_report(huge))
    for text in ("855.0 billion", "97,000.0 TB", "1,168.6 trillion", "30,211,000,000,000"):
        assert text in shown, text


def test_rare_is_not_never():
    shown = check(format_report({"documents": 10**6, "rejected": {"out of time": 1}}))
    assert "out of time1< 0.1 %" in shown


def test_figures_that_are_none_are_a_dash():
    statistics = copy.deepcopy(COUNTS) | {"per_second": {"pages": float("nan")}, "pages": float("inf")}
    statistics["seconds"]["read"] = None
    assert "nan" not in (shown := check(format_report(statistics))) and "inf" not in shown and "–" in shown


def test_the_same_counts_make_the_same_page():
    turned = json.loads(json.dumps(COUNTS))
    for name in ("rejected", "edited", "lengths", "languages", "examples"):
        turned[name] = dict(reversed(turned[name].items()))
    assert format_report(turned) == format_report(COUNTS)


def test_an_older_report_stays_where_there_is_no_room(tmp_path):
    write_report(tmp_path, {})
    with pytest.raises(UserError, match=r"cannot write .*report\.html"):
        write_report(tmp_path / "report.html", COUNTS)
    assert "No page was rejected." in (tmp_path / "report.html").read_text(encoding="utf-8")


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(1, 10**6), min_size=1, max_size=60),
    st.integers(0, 100),
    st.dictionaries(st.integers(0, 60), st.integers(0, 10**14), max_size=9),
)
def test_pictures_stay_within_their_frames(counts, chosen, lengths):
    vocabulary = describe_vocabulary("words", dict(enumerate(counts)), min(chosen, len(counts)), 1)
    page = format_report({"vocabulary": vocabulary, "lengths": {str(k): n for k, n in lengths.items()}})
    check(page)
    for value in re.findall(r"(?:left|right|bottom|width|height):([\d.]+)%", page.split("</style>")[1]):
        assert 0 <= float(value) <= 100
    for point in itertools.chain(*(points.split() for points in re.findall(r'points="(.*?)"', page))):
        assert all(0 <= float(number) <= 1000 for number in point.split(","))


def test_the_style_sheet_is_part_of_the_package():
    style = report.Path(report.__file__).with_name("report.css").read_text(encoding="utf-8")
    assert "prefers-color-scheme: dark" in style
    assert not [sign for sign in ("</", "//", "url(", "@import") if sign in style]
    setup = (report.Path(__file__).parent.parent / "setup.py").read_text(encoding="utf-8")
    assert '"prepare/*.css"' in setup
