"""Pictures of counts that need nothing but a browser: bars, columns, and the curve of a vocabulary.

They are made of HTML, with the curve itself as inline SVG. Places are percentages of the plot and letters keep their
size, so the same picture is legible on a phone and on a desk; colours come from report.css, which knows light and dark.
Each is one image to a screen reader, with a sentence in its place, and its figures stand in a table beside it.
"""

import math
from collections.abc import Mapping, Sequence

from tf_llm.prepare.markup import format_count, format_share, is_number, make_table, show_text

MAX_BARS = 25
MAX_TICKS = 7  # labels of an axis that fit beside each other on a phone
SIDE = 1000  # of the curve's own coordinates, which are stretched to the size of the plot


def draw_bars(counts: Mapping[str, float], noun: str, unit: str, whole: float | None = None, kind: str = "") -> str:
    """A table with a bar in each row, the largest first; beyond so many rows, the rest is one.

    Args:
        counts: name -> count; names are text from anywhere.
        noun: what the names are.
        unit: what was counted.
        whole: what shares refer to; without it, none are shown.
        kind: a class of report.css more: "rejected", or none.
    """
    counts = {name: count for name, count in counts.items() if is_number(count)}
    if not counts:
        return ""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown, rest = ordered[:MAX_BARS], ordered[MAX_BARS:]
    named = [(show_text(name), count) for name, count in shown]
    if rest:
        named.append((f"{len(rest):,} more", sum(count for _, count in rest)))
    longest = max(count for _, count in named) or 1
    rows = [
        [
            f'<bdi>{name}</bdi><span class="bar" style="width:{max(100 * count / longest, 0):.2f}%"></span>',
            format_count(count),
            *([] if whole is None else [format_share(count, whole)]),
        ]
        for name, count in named
    ]
    head = [noun, unit] if whole is None else [noun, unit, "share"]
    return make_table(head, rows, f"bars {kind}".strip())


def draw_columns(bins: Mapping[int, float], title: str, axis: str) -> str:
    """A histogram on a logarithmic axis: bin k stands from 2^k to 2^(k+1).

    Args:
        bins: k -> count; those between the first and the last that are not named are empty.
        title: what the columns count.
        axis: what is measured, with its unit.
    """
    if not bins:
        return ""
    first, last = min(bins), max(bins)
    counts = [bins.get(k, 0) for k in range(first, last + 1)]
    step = choose_step(max(counts))
    top = step * math.ceil(max(counts) / step) or 1
    label = format_count if top < 100_000 else shorten
    marks = [(level / top, label(level)) for level in range(0, top + 1, step)]
    columns = "".join(f'<span class="column" style="height:{100 * count / top:.2f}%"></span>' for count in counts)
    ticks = [(edge / len(counts), shorten(2 ** (first + edge))) for edge in range(len(counts) + 1)]
    highest = first + counts.index(max(counts))
    says = (
        f"Histogram of {title} by {axis}: from {2**first:,} to {2 ** (last + 1):,}, most of them, {max(counts):,}, "
        f"from {2**highest:,} to {2 ** (highest + 1) - 1:,}"
    )
    return frame(columns, marks, ticks, says, title, axis, "columns")


def draw_curve(curve: Sequence[Sequence[float]], chosen: int, coverage: float, noun: str, others: Sequence) -> str:
    """Coverage against the size of a vocabulary, with the chosen size marked.

    Args:
        curve: (size, share of all occurrences) in growing order, from size 1 to all kinds.
        chosen: the size that was chosen, 0 for none.
        coverage: its share.
        noun: what is counted.
        others: more (size, share) to mark.
    """
    if not curve:
        return ""
    kinds = max(curve[-1][0], 2)

    def place(size):
        return min(max(math.log(max(size, 1)) / math.log(kinds), 0), 1)

    points = " ".join(f"{SIDE * place(size):.1f},{SIDE * (1 - share):.1f}" for size, share in curve)
    right = SIDE * place(curve[-1][0])
    parts = [
        f'<svg viewBox="0 0 {SIDE} {SIDE}" preserveAspectRatio="none" aria-hidden="true">'
        f'<polygon class="below" points="0,{SIDE} {points} {right:.1f},{SIDE}"/>'
        f'<polyline class="line" vector-effect="non-scaling-stroke" points="{points}"/></svg>'
    ]
    parts += [
        f'<span class="dot" style="left:{100 * place(size):.2f}%;bottom:{100 * share:.2f}%"></span>'
        for size, share in others
    ]
    if chosen:
        left = 100 * place(chosen)
        side = f"right:{100 - left:.2f}%" if left > 50 else f"left:{left:.2f}%"
        parts.append(
            f'<span class="cut" style="left:{left:.2f}%"></span>'
            f'<span class="dot chosen" style="left:{left:.2f}%;bottom:{100 * coverage:.2f}%"></span>'
            f'<span class="label" style="{side}">{chosen:,} {noun} cover<br><b>{format_share(coverage, 1)}</b></span>'
        )
    decades = range(math.floor(math.log10(kinds)) + 1)
    ticks = [(place(10**decade), shorten(10**decade)) for decade in decades]
    marks = [(quarter / 4, f"{25 * quarter} %") for quarter in range(5)]
    says = f"Curve of the share of all occurrences that the most frequent {noun} cover, from 1 to {kinds:,}"
    if chosen:
        says += f"; the chosen {chosen:,} cover {format_share(coverage, 1)}"
    title, axis = "share of all occurrences that are covered", f"size of the vocabulary in {noun}, logarithmic"
    return frame("".join(parts), marks, ticks, says, title, axis, "curve")


def frame(content: str, marks: Sequence, ticks: Sequence, says: str, title: str, axis: str, kind: str) -> str:
    """A plot between its axes.

    Args:
        content: what is drawn, as HTML.
        marks: (height in 0…1, label) of the vertical axis, drawn as lines.
        ticks: (place in 0…1, label) of the horizontal axis; where they are many, some are left out on a phone.
        says: the picture in a sentence, for those who do not see it.
        title: what the vertical axis shows.
        axis: what the horizontal axis shows.
        kind: a class of report.css.
    """
    lines = "".join(f'<span class="rule" style="bottom:{100 * height:.2f}%"></span>' for height, _ in marks)
    heights = "".join(f'<span style="bottom:{100 * height:.2f}%">{label}</span>' for height, label in marks)
    every = math.ceil(len(ticks) / MAX_TICKS)
    kinds = ["" if number % every == 0 else ' class="minor"' for number in range(len(ticks))]
    places = "".join(
        f'<span{minor} style="left:{100 * place:.2f}%">{label}</span>'
        for minor, (place, label) in zip(kinds, ticks, strict=True)
    )
    return "\n".join(
        [
            '<figure class="chart">',
            f'<p class="title" aria-hidden="true">{title}</p>',
            f'<div class="area" role="img" aria-label="{says}.">',
            f'<div class="heights">{heights}</div>',
            f'<div class="plot {kind}">{lines}{content}</div>',
            f'<div class="places">{places}</div>',
            "</div>",
            f'<p class="axis" aria-hidden="true">{axis}</p>',
            "</figure>",
        ]
    )


def choose_step(highest: float) -> int:
    """The distance of the marks of an axis, a round number: two to five of them reach the highest value.

    >>> [choose_step(highest) for highest in (0, 1, 7, 130, 3011)]
    [1, 1, 2, 50, 1000]
    """
    size = 10 ** math.floor(math.log10(max(highest, 1)))
    steps = [max(int(size * factor), 1) for factor in (0.2, 0.5, 1, 2)]
    return next(step for step in steps if step * 5 >= highest)


def shorten(number: int) -> str:
    """A number in few letters, for the labels of an axis: in thousands and so on, with a tenth where that is exact.

    >>> [shorten(number) for number in (512, 1024, 131072, 1_500_000, 2 * 10**9)]
    ['512', '1k', '131k', '1.5M', '2G']
    """
    for size, letter in ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            is_tenth = number % size and number * 10 % size == 0
            return f"{number / size:,.1f}{letter}" if is_tenth else f"{number / size:,.0f}{letter}"
    return str(number)
