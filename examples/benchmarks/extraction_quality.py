r"""How much of a page's text does step 1 find, and how little else? Against text that people cut out of 882 real pages.

    python examples/benchmarks/extraction_quality.py            about 25 seconds on 2 cores
    python examples/benchmarks/extraction_quality.py --quick    every eighth page, 4 seconds

Compared are tf_llm's `strip_html` (main content), the same with main content switched off, and BeautifulSoup's
`get_text` on lxml's parser, which is what tutorials use. All three read the same bytes of the same page one after the
other, in one thread. A page scores by its bag of words (runs of \w, lower-cased): precision is the share of the words
found that the gold text has, recall the share of the gold text's words that were found, F1 their harmonic mean; the
table shows means over pages. MB/s is bytes of HTML, decoding included. The goal is a mean F1 of .80 for `strip_html`.

Without BeautifulSoup (`pip install "tf_llm[peers]"`) its row is left out. Needs warc/real-pages.warc.gz and
warc/real-pages.gold.jsonl.gz in the folder that --data or the environment variable TF_LLM_DATA names.
"""

import gzip
import json
import os
import re
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

from absl import app, flags

from tf_llm.contracts import Document, Page
from tf_llm.crawl.warc import Warc
from tf_llm.text.html import HtmlConfig, strip_html

GOAL, QUICK_GOAL = 0.80, 0.75

_DATA = flags.DEFINE_string("data", os.environ.get("TF_LLM_DATA", "../shared/data"), "The folder of test data.")
_QUICK = flags.DEFINE_bool("quick", False, "Every eighth page only, against a sanity bound.")


def _main_content(page: Page) -> str:
    result = strip_html(page)
    return result.text if isinstance(result, Document) else ""


def _whole_page(page: Page) -> str:
    result = strip_html(page, HtmlConfig(main_content=False))
    return result.text if isinstance(result, Document) else ""


EXTRACTORS = {"tf_llm strip_html, main content": _main_content, "tf_llm strip_html, whole page": _whole_page}
try:
    from bs4 import BeautifulSoup, XMLParsedAsHTMLWarning

    warnings.simplefilter("ignore", XMLParsedAsHTMLWarning)  # some pages are XHTML; lxml reads them as browsers do
    EXTRACTORS["BeautifulSoup get_text, lxml"] = lambda page: BeautifulSoup(page.content, "lxml").get_text(" ")
except ImportError:
    print('BeautifulSoup is not installed, its row is left out: pip install "tf_llm[peers]"')


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
    with gzip.open(files[1], "rt", encoding="utf-8") as lines:
        gold = {entry["uri"]: bag_of_words(entry["gold"]) for entry in map(json.loads, lines)}
    pages = list(Warc(files[0]))[:: 8 if _QUICK.value else 1]

    scores = {name: [] for name in EXTRACTORS}
    seconds = Counter()
    for page in pages:
        for name, extract in EXTRACTORS.items():
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

    value, goal = means["tf_llm strip_html, main content"][2], QUICK_GOAL if _QUICK.value else GOAL
    result = {"name": "extraction_quality", "value": round(value, 4), "goal": goal, "unit": "mean bag-of-words F1"}
    print(json.dumps(result | {"holds": value >= goal}))
    sys.exit(0 if value >= goal else 1)


if __name__ == "__main__":
    app.run(main)
