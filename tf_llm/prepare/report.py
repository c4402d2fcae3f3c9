"""The report of a run of `prepare`, to be looked at: one HTML file that needs nothing else, no network and no script.

    >>> page = format_report({"source": "Warc(…)", "pages": 3, "documents": 2, "rejected": {"<no text>": 1}})
    >>> "&lt;no text&gt;" in page, "<no text>" in page, "<script" in page
    (True, False, False)

It shows what statistics.py counts: what was rejected and why, what cleaning changed, lengths, languages, duplicates,
what each size of the vocabulary would cover, the words on top before and after the article's steps, examples, and how
long it took. Examples are texts that strangers wrote: they are shown as text (markup.py), and a content security policy
forbids the page to load or to run anything, should that ever fail.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tf_llm.files import write_atomically
from tf_llm.prepare.charts import draw_bars, draw_columns, draw_curve
from tf_llm.prepare.markup import (
    ABSENT,
    fold,
    format_count,
    format_large,
    format_rate,
    format_seconds,
    format_share,
    format_size,
    is_number,
    make_list,
    make_table,
    show_text,
)
from tf_llm.prepare.statistics import EXAMPLES, KEPT

REPORT = "report.html"
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
TOP_WORDS = 50  # rows of the table of words
SHOWN_WORDS = 20  # of them that are shown without being asked for
MAX_OUTCOMES = 40  # with examples
SETTING_LENGTH, WORD_LENGTH = 500, 60  # characters that are shown


def write_report(folder: str | os.PathLike, statistics: Mapping[str, Any]) -> Path:
    """Writes `report.html` into a folder, whole or not at all, and returns its path.

    Args:
        folder: it exists.
        statistics: as `format_report` takes them.

    Raises:
        UserError: the file cannot be written.
    """
    path = Path(folder) / REPORT
    write_atomically(path, format_report(statistics).encode("utf-8"))
    return path


def format_report(statistics: Mapping[str, Any]) -> str:
    """The report as HTML: the same for the same statistics.

    Args:
        statistics: a merge of `Statistics.to_json()`, and beside it, as far as there are: "source", "settings" (stage
            -> field -> value), "versions", "top_before" and "top_after" (as `list_top` has them), "vocabulary" (as
            `describe_vocabulary` has it), "tokens" (split -> tokens), "parts", "seconds" (stage -> seconds) and
            "per_second" (what -> rate). Whatever is missing or empty is said to be so, or left out.
    """
    known = {name: value for name, value in statistics.items() if value is not None}
    sections = {
        "Rejected pages": show_rejected(known),
        "Cleaning": show_cleaning(known),
        "Duplicates": draw_bars(known.get("duplicates", {}), "kind", "found"),
        "Lengths": show_lengths(known.get("lengths", {})),
        "Languages": draw_bars(known.get("languages", {}), "language", "documents", known.get("documents", 0)),
        "Vocabulary": show_vocabulary(known.get("vocabulary", {})),
        "Top words": show_words(known.get("top_before", []), known.get("top_after", [])),
        "Examples": show_examples(known),
        "Time": show_time(known),
        "Settings": show_settings(known.get("settings", {}), known.get("versions", {})),
    }
    sections = {title: content or '<p class="none">Nothing to show.</p>' for title, content in sections.items()}
    links = " ".join(f'<a href="#{name_anchor(title)}">{title}</a>' for title in sections)
    body = [
        f'<section id="{name_anchor(title)}">\n<h2>{title}</h2>\n{text}\n</section>' for title, text in sections.items()
    ]
    style = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            "<title>Pages to tokens: a report</title>",
            '<link rel="icon" href="data:,">',
            f"<style>\n{style}</style>",
            "</head>",
            "<body>",
            "<header>",
            "<h1>From pages to tokens</h1>",
            f'<p class="source"><bdi>{show_text(known.get("source", ""), SETTING_LENGTH)}</bdi></p>',
            show_headline(known),
            f"<nav>{links}</nav>",
            "</header>",
            "<main>",
            *body,
            "</main>",
            "</body>",
            "</html>",
            "",
        ]
    )


def name_anchor(title: str) -> str:
    """What a section is linked to by."""
    return title.lower().replace(" ", "-")


def add_up(counts: Mapping[str, Any]) -> float:
    """The sum of the figures among the values."""
    return sum(count for count in counts.values() if is_number(count))


def show_headline(known: Mapping[str, Any]) -> str:
    """The figures that are looked for first."""
    rejected, documents, tokens = add_up(known.get("rejected", {})), known.get("documents", 0), known.get("tokens", {})
    tiles = {
        "pages": format_large(known.get("pages")),
        "documents kept": format_large(known.get("documents")),
        "of all pages rejected": format_share(rejected, rejected + documents),
        "of HTML": format_size(known.get("html_bytes")),
        "of text kept": format_size(known.get("text_bytes")),
        "tokens": format_large(add_up(tokens)) if tokens else ABSENT,
    }
    for name, rate in list(known.get("per_second", {}).items())[:4]:
        tiles[f"{show_text(name)} per second"] = format_rate(rate)
    return make_list(tiles, "tiles")


def show_rejected(known: Mapping[str, Any]) -> str:
    """A bar for each reason; shares refer to all pages."""
    rejected = known.get("rejected", {})
    if not add_up(rejected):
        return '<p class="none">No page was rejected.</p>'
    whole = add_up(rejected) + known.get("documents", 0)
    of_all = f"{format_count(add_up(rejected))} of {format_count(whole)}"
    intro = f"<p>{of_all} pages, each by the first reason that was found.</p>"
    return f"{intro}\n{draw_bars(rejected, 'reason', 'pages', whole, 'rejected')}"


def show_cleaning(known: Mapping[str, Any]) -> str:
    """What was changed within the pages, by rule and by the article's steps."""
    edited = draw_bars(known.get("edited", {}), "cleaning changed or removed", "times")
    removed = draw_bars(known.get("removed", {}), "the article's steps removed", "occurrences")
    return "\n".join(part for part in (edited, removed) if part)


def show_lengths(lengths: Mapping[str, int]) -> str:
    """A histogram of the words per document."""
    bins = {int(k): count for k, count in lengths.items() if is_number(count)}
    if not bins:
        return ""
    rows = [
        [f"{2**k:,} – {2 ** (k + 1) - 1:,}" if k else "1", format_count(bins[k]), format_share(bins[k], add_up(bins))]
        for k in sorted(bins)
    ]
    return "\n".join(
        [
            draw_columns(bins, "documents", "words in a document, logarithmic"),
            fold("As a table", make_table(["words", "documents", "share"], rows)),
        ]
    )


def show_vocabulary(vocabulary: Mapping[str, Any]) -> str:
    """The curve of coverage against size, and what other sizes than the chosen one would cover."""
    curve = [point for point in vocabulary.get("curve") or [] if all(map(is_number, point))]
    if not curve:
        return ""
    noun, chosen = show_text(vocabulary.get("noun") or "words"), int(vocabulary.get("chosen") or 0)
    kinds = int(curve[-1][0])
    coverage = vocabulary["coverage"] if is_number(vocabulary.get("coverage")) else read_curve(curve, chosen)
    factors = {"half": 0.5, "chosen": 1, "twice": 2, "four times": 4}
    sizes = {name: int(chosen * factor) for name, factor in factors.items() if 1 <= chosen * factor < kinds}
    covered = {name: coverage if name == "chosen" else read_curve(curve, size) for name, size in sizes.items()}
    others = [(size, covered[name]) for name, size in sizes.items() if name != "chosen"]
    sizes, covered = sizes | {"all": kinds}, covered | {"all": curve[-1][1]}
    rows = [
        [name, format_count(sizes[name]), format_share(covered[name], 1), format_share(1 - covered[name], 1)]
        for name in sizes
    ]
    rings = ", ".join(name for name in sizes if name not in ("chosen", "all"))
    minimum = vocabulary.get("minimum_count")
    rule = (
        f" Those seen fewer than {format_count(minimum)} times are out in any case."
        if is_number(minimum) and minimum > 1
        else ""
    )
    return "\n".join(
        [
            f"<p>The training pages have {format_count(vocabulary.get('occurrences'))} {noun} of "
            f"{format_count(kinds)} kinds. The {format_count(chosen)} most frequent ones are kept; they cover "
            f"{format_share(coverage, 1)} of all occurrences, and the rest is removed as low-frequency words.{rule}"
            f"{f' Rings mark other sizes: {rings}.' if rings else ''}</p>",
            draw_curve(curve, chosen, coverage, noun, others),
            make_table(["size", noun, "covered", "removed"], rows),
        ]
    )


def read_curve(curve: Sequence[Sequence[float]], size: int) -> float:
    """The share at a size: exact where the curve has the size, else on the line between its neighbours.

    >>> read_curve([[1, 0.2], [10, 0.4], [1000, 0.8]], 10), round(read_curve([[10, 0.4], [1000, 0.8]], 100), 3)
    (0.4, 0.6)
    """
    for (low, below), (high, above) in itertools.pairwise([[0, 0.0], *curve]):
        if size == high:
            return above
        if size < high:
            return (
                below + (above - below) * math.log(size / low) / math.log(high / low) if low and size > low else below
            )
    return curve[-1][1]


def show_words(before: Sequence, after: Sequence) -> str:
    """The most frequent words before and after the article's steps, side by side."""
    pairs = itertools.zip_longest(before[:TOP_WORDS], after[:TOP_WORDS], fillvalue=("", None))
    rows = [
        [
            str(rank),
            *(
                cell
                for word, count in pair
                for cell in (f"<bdi>{show_text(word, WORD_LENGTH)}</bdi>", show_times(count))
            ),
        ]
        for rank, pair in enumerate(pairs, start=1)
    ]
    if not rows:
        return ""
    head = ["rank", "before", "times", "after", "times"]
    intro = "<p>Before and after stop words and low-frequency words were removed.</p>"
    shown = make_table(head, rows[:SHOWN_WORDS], "words")
    rest = rows[SHOWN_WORDS:]
    folded = fold(f"{len(rest)} more", make_table(head, rest, "words")) if rest else ""
    return f"{intro}\n{shown}\n{folded}"


def show_times(count: Any) -> str:
    """The count of a word, or nothing where there is no word."""
    return "" if count is None else format_count(count)


def show_examples(known: Mapping[str, Any]) -> str:
    """A few pages of each outcome: those kept first, then by how often their reason was given."""
    examples = {name: pages for name, pages in known.get("examples", {}).items() if pages}
    rejected = known.get("rejected", {})
    names = sorted(examples, key=lambda name: (name != KEPT, -rejected.get(name, 0), name))
    folded = []
    for name in names[:MAX_OUTCOMES]:
        count = known.get("documents") if name == KEPT else rejected.get(name)
        items = []
        for page in examples[name][:EXAMPLES]:
            texts = "".join(
                f"<p><bdi>{show_text(value)}</bdi></p>" for key, value in page.items() if key != "url" and value
            )
            items.append(f"<li><code><bdi>{show_text(page.get('url', ''))}</bdi></code>{texts}</li>")
        summary = f"<bdi>{show_text(name)}</bdi> <span>{len(items)} of {format_count(count)}</span>"
        folded.append(fold(summary, "\n".join(['<ul class="examples">', *items, "</ul>"])))
    if len(names) > MAX_OUTCOMES:
        folded.append(f"<p>{len(names) - MAX_OUTCOMES:,} rarer reasons are left out.</p>")
    return "\n".join(folded)


def show_time(known: Mapping[str, Any]) -> str:
    """How long the stages took, and what came out at the end."""
    seconds = {name: value for name, value in known.get("seconds", {}).items() if is_number(value)}
    rows = [
        [show_text(name), format_seconds(value), format_share(value, add_up(seconds))]
        for name, value in seconds.items()
    ]
    figures = {
        "parts": format_count(known.get("parts") or None),
        "time in all": format_seconds(add_up(seconds) if rows else None),
    }
    figures |= {f"{show_text(name)} tokens": format_count(count) for name, count in known.get("tokens", {}).items()}
    figures = {name: figure for name, figure in figures.items() if figure != ABSENT}
    parts = [
        make_list(figures, "figures") if figures else "",
        make_table(["stage", "time", "share"], rows) if rows else "",
    ]
    return "\n".join(part for part in parts if part)


def show_settings(settings: Mapping[str, Any], versions: Mapping[str, Any]) -> str:
    """What the run was told, stage by stage, and what it ran on."""
    tables = []
    for stage, fields in [*settings.items(), *([("versions", versions)] if versions else [])]:
        fields = fields if isinstance(fields, Mapping) else {"": fields}
        rows = [[show_text(name), f"<bdi>{show_setting(value)}</bdi>"] for name, value in fields.items()]
        tables.append(make_table([show_text(stage), "value"], rows, "settings"))
    return "\n".join(tables)


def show_setting(value: Any) -> str:
    """A value of a setting; long lists are cut.

    >>> show_setting(8_000_000), show_setting(True), show_setting([".de", ".at"])
    ('8,000,000', 'True', '[&#x27;.de&#x27;, &#x27;.at&#x27;]')
    """
    is_large = isinstance(value, int) and not isinstance(value, bool)
    return format_count(value) if is_large else show_text(value, SETTING_LENGTH)
