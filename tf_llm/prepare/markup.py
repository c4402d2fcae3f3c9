"""Text from strangers and figures into HTML: what report.py and charts.py build a page of.

    >>> show_text("<b>tea</b>")
    '&lt;b&gt;tea&lt;/b&gt;'
    >>> format_count(30211), format_size(2_345_000), format_share(1, 8), format_seconds(4020)
    ('30,211', '2.3 MB', '12.5 %', '1 h 7 min')

All that comes from pages (addresses, texts, words, what they say of themselves) goes through `show_text`, and is shown
as text: never as mark-up, never as a link.
"""

import html
import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tf_llm.prepare.statistics import EXAMPLE_LENGTH, cut

# Characters that are not seen, beyond those of the categories below: fillers for letters that are not there, an empty
# pattern of Braille, selectors of variants. Joiners (U+200C, U+200D) stay: Persian words and many emoji are made of
# them, and they move nothing else.
FILLERS = {
    0x034F,
    0x115F,
    0x1160,
    0x17B4,
    0x17B5,
    0x2800,
    0x3164,
    0xFFA0,
    *range(0x180B, 0x1810),
    *range(0xE0100, 0xE01F0),
}
JOINERS = {0x200C, 0x200D}
# Control, private use, surrogates, separators of lines, and format, which is all that turns the direction of writing.
HIDDEN_CATEGORIES = ("Cc", "Cf", "Co", "Cs", "Zl", "Zp")
UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
WORDS = ((1e12, "trillion"), (1e9, "billion"), (1e7, "million"))
ABSENT = "–"


def show_text(text: Any, length: int = EXAMPLE_LENGTH) -> str:
    """HTML that shows the head of a text, and what cannot be seen in it by its number. Tabs and new lines stay.

    In HTML, overrides of the writing direction reach beyond the text that they stand in, and could turn around a
    figure of ours; NUL and the like are no HTML at all.

    >>> show_text('a" onclick="steal()'), show_text("moc.knab\\u202e tea\\x00")
    ('a&quot; onclick=&quot;steal()', 'moc.knab⟨U+202E⟩ tea⟨U+0000⟩')
    """
    shown = "".join(f"⟨U+{ord(sign):04X}⟩" if is_hidden(sign) else sign for sign in cut(str(text), length))
    return html.escape(shown, quote=True)


def is_hidden(sign: str) -> bool:
    """Whether a character is drawn as nothing, or as something else than itself.

    >>> [is_hidden(sign) for sign in ("a", "é", "\\n", "\\u00ad", "\\u202e", "\\ufdd0")]
    [False, False, False, True, True, True]
    """
    code = ord(sign)
    if sign in "\t\n" or code in JOINERS:
        return False
    is_no_character = code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF
    return is_no_character or code in FILLERS or unicodedata.category(sign) in HIDDEN_CATEGORIES


def is_number(value: Any) -> bool:
    """Whether a value is a figure that can be shown: a finite number, and no truth value."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def format_count(value: Any) -> str:
    """A whole number in groups of three digits; a dash for what is not known."""
    return f"{value:,.0f}" if is_number(value) else ABSENT


def format_large(value: Any) -> str:
    """A number for a headline: in words from ten million on.

    >>> format_large(9_999_999), format_large(2_100_000_000)
    ('9,999,999', '2.10 billion')
    """
    for size, name in WORDS:
        if is_number(value) and value >= size:
            size = 1e6 if name == "million" else size
            return f"{value / size:,.2f} {name}" if value < 10 * size else f"{value / size:,.1f} {name}"
    return format_count(value)


def format_size(value: Any) -> str:
    """Bytes, in decimal units."""
    if not is_number(value):
        return ABSENT
    for size, unit in UNITS:
        if value >= size:
            return f"{value / size:,.1f} {unit}"
    return f"{value:,.0f} bytes"


def format_share(part: float, whole: float) -> str:
    """A percentage of three digits or so, as HTML; a dash where there is no whole.

    >>> format_share(1, 3), format_share(1, 10**6), format_share(0, 5), format_share(0, 0), format_share(99999, 10**5)
    ('33.3 %', '&lt; 0.1 %', '0 %', '–', '&gt; 99.9 %')
    """
    if not (is_number(part) and is_number(whole) and whole > 0):
        return ABSENT
    percent = 100 * part / whole
    if percent in (0, 100):
        return f"{percent:.0f} %"
    if percent < 0.1:
        return "&lt; 0.1 %"
    return "&gt; 99.9 %" if 99.9 < percent < 100 else f"{percent:,.1f} %"


def format_rate(value: Any) -> str:
    """A rate, with a digit behind the point where it is small."""
    return f"{value:,.1f}" if is_number(value) and round(abs(value), 1) < 100 else format_count(value)


def format_seconds(value: Any) -> str:
    """A length of time.

    >>> format_seconds(0.5), format_seconds(59), format_seconds(61), format_seconds(None)
    ('0.5 s', '59 s', '1 min 1 s', '–')
    """
    if not is_number(value) or value < 0:
        return ABSENT
    if value < 60:
        return f"{value:.1f} s" if value < 10 and value % 1 else f"{value:.0f} s"
    minutes, seconds = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def make_table(head: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """A table whose first column heads its rows. Cells are HTML; all columns but the first are figures.

    >>> print(make_table(["", "pages"], [["tea", "3"]]))
    <table>
    <thead><tr><td></td><th scope="col">pages</th></tr></thead>
    <tbody>
    <tr><th scope="row">tea</th><td>3</td></tr>
    </tbody>
    </table>
    """
    heads = "".join(f'<th scope="col">{cell}</th>' if cell else "<td></td>" for cell in head)
    body = [
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>' for first, *rest in rows
    ]
    named = f' class="{kind}"' if kind else ""
    return "\n".join([f"<table{named}>", f"<thead><tr>{heads}</tr></thead>", "<tbody>", *body, "</tbody>", "</table>"])


def make_list(items: Mapping[str, str], kind: str) -> str:
    """Names with their values, both HTML, each pair in a box of its own."""
    pairs = [f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in items.items()]
    return "\n".join([f'<dl class="{kind}">', *pairs, "</dl>"])


def fold(summary: str, content: str) -> str:
    """What is shown on request."""
    return f"<details>\n<summary>{summary}</summary>\n{content}\n</details>"
