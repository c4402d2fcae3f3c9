"""The report of a run, from plain data: `report.md` for people, `loss.png` beside it, `summary.json` for programs."""

import json
import math
from pathlib import Path

from matplotlib.figure import Figure

BLUE, ORANGE, GREY = "#1f77b4", "#ff7f0e", "#7f7f7f"


def write_summary(folder, summary):
    """Writes the figures of a run as JSON."""
    (Path(folder) / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")


def load_metrics(folder):
    """{"train": [record], "validation": [record]} of a run's `metrics.jsonl`."""
    metrics = {"train": [], "validation": []}
    for line in (Path(folder) / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        metrics[record["split"]].append(record)
    return metrics


def plot_loss(metrics, summary, path):
    """Draws the loss of both splits over the steps, with the two baselines as lines: a PNG file."""
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    axes = figure.subplots()
    for split, style in (
        ("train", {"color": BLUE, "lw": 1}),
        ("validation", {"color": ORANGE, "marker": "o", "lw": 2}),
    ):
        records = metrics[split]
        axes.plot([r["step"] for r in records], [r["loss"] for r in records], label=split, **style)
    for name, style in (("unigram", "--"), ("bigram", ":")):
        level = summary[f"{name}_nats_per_token"]
        axes.axhline(level, color=GREY, ls=style, lw=1.2, label=f"{name}, {level:.2f}")
    # The first steps stand far above everything that is to be compared.
    levels = [summary["unigram_nats_per_token"], summary["bigram_nats_per_token"], summary["validation_nats_per_token"]]
    axes.set_ylim(min(levels) - 0.2, max(levels) + 1.2)
    axes.set(xlabel="step", ylabel="nats per token", title=f"Recipe {summary['recipe']}: loss")
    axes.legend(frameon=False, loc="upper right")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def plot_curves(curves, path):
    """Draws the validation bits per byte of several runs over the share of the run that was done: a PNG file.

    Args:
        curves: {name: [(step, bits per byte), …]}.
        path: of the file.
    """
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    axes = figure.subplots()
    for name, points in sorted(curves.items(), key=lambda item: -item[1][-1][1]):
        steps, bits = zip(*points, strict=True)
        axes.plot([step / steps[-1] for step in steps], bits, marker="o", ms=3, label=f"{name}, {bits[-1]:.2f}")
    axes.set(xlabel="share of the training time", ylabel="bits per byte of the pages' text", title="Validation loss")
    figure.legend(frameon=False, loc="outside right upper")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def format_table(head, rows):
    """A table in Markdown; the first column is text, the others are figures.

    >>> print(format_table(["", "nats"], [["unigram", "7.31"]]))
    |  | nats |
    |:--|--:|
    | unigram | 7.31 |
    """
    rule = "|:--|" + "--:|" * (len(head) - 1)
    return "\n".join(["| " + " | ".join(head) + " |", rule, *("| " + " | ".join(row) + " |" for row in rows)])


def tabulate_models(summary):
    """The rows that compare the model with its baselines: (head, rows)."""
    head = ["", "nats per token", "perplexity", "bits per byte", "of that, for kept tokens", "for all that was removed"]
    rows = []
    for label, key in (
        (f"this model, `{summary['recipe']}`", "validation"),
        ("bigram", "bigram"),
        ("unigram", "unigram"),
    ):
        nats, bits = summary[f"{key}_nats_per_token"], summary[f"{key}_bits_per_byte"]
        removed = summary["removed_bits_per_byte"]
        rows.append(
            [label, f"{nats:.3f}", f"{math.exp(nats):,.0f}", f"{bits:.3f}", f"{bits - removed:.3f}", f"{removed:.3f}"]
        )
    return head, rows


def tabulate_steps(about):
    """What preparation kept and removed: (head, rows)."""
    rows = [[name, f"{count:,}"] for name, count in about["steps"].items()]
    rows += [[f"pages rejected: {reason}", f"{count:,}"] for reason, count in about["rejections"].items()]
    return ["", "count"], rows


def format_samples(samples):
    """What a model writes, in Markdown: (prompt, its continuation, the page's own words) each.

    >>> print(format_samples([("The kettle", "sings .", "boils .")]))
    ~~~text
    prompt      The kettle
    this model  sings .
    the page    boils .
    ~~~
    """
    return "\n\n".join(
        f"~~~text\nprompt      {prompt}\nthis model  {continuation}\nthe page    {truth}\n~~~"
        for prompt, continuation, truth in samples
    )


def write_report(folder, summary, about, samples, remarks):
    """Writes `report.md` and `loss.png` into the folder of a run that has its `metrics.jsonl` there.

    Args:
        folder: of the run.
        summary: the figures that `write_summary` takes.
        about: what the manifest of the shards says of how they were made.
        samples: (prompt, the model's continuation, the page's own words) each.
        remarks: paragraphs in Markdown that close the report: what to try next, what other recipes reach.
    """
    folder = Path(folder)
    plot_loss(load_metrics(folder), summary, folder / "loss.png")
    gain = summary["unigram_nats_per_token"] - summary["validation_nats_per_token"]
    verdict = f"{abs(gain):.3f} nats per token {'below' if gain > 0 else 'ABOVE'} the unigram baseline"
    parts = [
        f"# Recipe `{summary['recipe']}` on {summary['source']}",
        f"After {summary['steps']:,} steps in {summary['seconds']:.0f} s ({summary['tokens_per_second']:,.0f} tokens a "
        f"second, {summary['parameters']:,} parameters, {summary['train_tokens']:,} training tokens), the model is "
        f"**{verdict}** on {summary['validation_tokens']:,} tokens of pages that it never saw.",
        format_table(*tabulate_models(summary)),
        "A token is a word that preprocessing kept, a character, or a piece of a word, as the recipe has it. Bits per "
        "byte count everything in the pages' text: what was removed is paid for, the same in every row. The bigram was "
        f"scored on {summary['bigram_tokens']:,} tokens.",
        "![loss](loss.png)",
        "## What it writes",
        format_samples(samples),
        "## What preparation did",
        f"Stop words: {about['stop_words']}.",
        format_table(*tabulate_steps(about)),
        "## Next",
        *remarks,
    ]
    (folder / "report.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
