r"""How much of a page's text does step 1 find, and how little else? Against text that people cut out of 882 real pages.

    python examples/benchmarks/extraction_quality.py            about 3 minutes on 2 cores
    python examples/benchmarks/extraction_quality.py --quick    every 16th page, 10 seconds

Compared are tf_llm's `strip_html` (main content), the same with main content switched off, the same with
`--html.extractor=trafilatura`, and as peers BeautifulSoup's `get_text` on lxml's parser, which is what tutorials use,
trafilatura as it comes, and jusText without lists of stop words, since the pages are in several languages. All read the
same bytes of the same page one after the other, in one thread. A page scores by its bag of words (runs of \w,
lower-cased): precision is the share of the words found that the gold text has, recall the share of the gold text's
words that were found, F1 their harmonic mean; the table shows means over pages. MB/s is bytes of HTML, decoding
included. The goals are a mean F1 of .85 for `strip_html` and of .90 with the extractor trafilatura.

How trafilatura is called, and when its text is taken to have missed the article (text/html.py), was chosen on these
pages: the lines below the table show the scores of each half of them.

A peer that is not installed (`pip install "tf_llm[peers]"`) has no row. Needs `pip install "tf_llm[trafilatura]"`, and
warc/real-pages.warc.gz and warc/real-pages.gold.jsonl.gz in the folder that --data or TF_LLM_DATA names.
"""

import gzip
import json
import logging
import os
import re
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from absl import app, flags

from tf_llm.contracts import Document, Page, UserError
from tf_llm.crawl.warc import Warc
from tf_llm.text.html import HtmlConfig, require_extractor, strip_html

FAST, CLOSER = "tf_llm, main content", "tf_llm, extractor trafilatura"
GOALS = {FAST: 0.85, CLOSER: 0.90}
QUICK_GOALS = {FAST: 0.75, CLOSER: 0.80}

_DATA = flags.DEFINE_string("data", os.environ.get("TF_LLM_DATA", "../shared/data"), "The folder of test data.")
_QUICK = flags.DEFINE_bool("quick", False, "Every 16th page only, against sanity bounds.")


def make_ours(config: HtmlConfig) -> Callable[[Page], str]:
    def extract(page):
        result = strip_html(page, config)
        return result.text if isinstance(result, Document) else ""

    return extract


def make_beautiful_soup() -> Callable[[Page], str]:
    from bs4 import BeautifulSoup, XMLParsedAsHTMLWarning

    warnings.simplefilter("ignore", XMLParsedAsHTMLWarning)  # some pages are XHTML; lxml reads them as browsers do
    return lambda page: BeautifulSoup(page.content, "lxml").get_text(" ")


def make_trafilatura() -> Callable[[Page], str]:
    import trafilatura

    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)
    return lambda page: trafilatura.extract(page.content) or ""


def make_justext() -> Callable[[Page], str]:
    import justext

    def extract(page):
        try:
            paragraphs = justext.justext(page.content, frozenset(), stopwords_low=0, stopwords_high=0)
        except Exception:  # a page that it cannot parse
            return ""
        return "\n".join(paragraph.text for paragraph in paragraphs if not paragraph.is_boilerplate)

    return extract


EXTRACTORS = {
    FAST: lambda: make_ours(HtmlConfig()),
    "tf_llm, whole page": lambda: make_ours(HtmlConfig(main_content=False)),
    CLOSER: lambda: make_ours(HtmlConfig(extractor="trafilatura")),
    "BeautifulSoup get_text, lxml": make_beautiful_soup,
    "trafilatura": make_trafilatura,
    "jusText": make_justext,
}


def make_extractors() -> dict[str, Callable[[Page], str]]:
    """Those that are installed."""
    made = {}
    for name, make in EXTRACTORS.items():
        try:
            made[name] = make()
        except ImportError as error:
            print(f'{name} has no row: {error}; pip install "tf_llm[peers]"')
    return made


def bag_of_words(text: str) -> Counter[str]:
    return Counter(re.findall(r"\w+", text.lower()))


def score(found: Counter[str], gold: Counter[str]) -> tuple[float, float, float]:
    """Precision, recall and F1 of one page; nothing found where there is nothing is right."""
    if not found or not gold:
        return (float(found == gold),) * 3
    overlap = (found & gold).total()
    return overlap / found.total(), overlap / gold.total(), 2 * overlap / (found.total() + gold.total())


def main(argv):
    del argv
    folder = Path(_DATA.value) / "warc"
    files = [folder / "real-pages.warc.gz", folder / "real-pages.gold.jsonl.gz"]
    if missing := [str(file) for file in files if not file.is_file()]:
        print(f"could not run: {' and '.join(missing)} not found; name the folder of test data with --data")
        sys.exit(2)
    try:
        require_extractor(HtmlConfig(extractor="trafilatura"))
    except UserError as error:
        print(f"could not run: {error}")
        sys.exit(2)
    with gzip.open(files[1], "rt", encoding="utf-8") as lines:
        gold = {entry["uri"]: bag_of_words(entry["gold"]) for entry in map(json.loads, lines)}
    pages = list(Warc(files[0]))[:: 16 if _QUICK.value else 1]

    extractors = make_extractors()
    scores = {name: [] for name in extractors}
    seconds = Counter()
    for page in pages:
        for name, extract in extractors.items():
            begin = time.perf_counter()
            text = extract(page)
            seconds[name] += time.perf_counter() - begin
            scores[name].append(score(bag_of_words(text), gold[page.url]))

    megabytes = sum(len(page.content) for page in pages) / 1e6
    print(f"{len(pages)} pages, {megabytes:.1f} MB of HTML; means over pages")
    print(f"{'':34}{'precision':>10}{'recall':>10}{'F1':>10}{'MB/s':>10}")
    means = {}
    for name, rows in scores.items():
        means[name] = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
        print(f"{name:34}" + "".join(f"{mean:10.3f}" for mean in means[name]) + f"{megabytes / seconds[name]:10.1f}")

    for name in GOALS:
        halves = [[row[2] for row in scores[name][start::2]] for start in (0, 1)]
        print(f"F1 of {name}, even and odd pages: {' '.join(f'{sum(half) / len(half):.3f}' for half in halves)}")

    goals = QUICK_GOALS if _QUICK.value else GOALS
    values = {name: round(means[name][2], 4) for name in goals}
    holds = all(values[name] >= goal for name, goal in goals.items())
    result = {"name": "extraction_quality", "value": values[FAST], "goal": goals[FAST], "unit": "mean bag-of-words F1"}
    print(json.dumps(result | {"holds": holds, "values": values, "goals": goals}))
    sys.exit(0 if holds else 1)


if __name__ == "__main__":
    app.run(main)
