"""The report of a run: figures in a table, a plot that can be looked at, text that Markdown cannot break."""

import doctest
import json
import struct

import pytest

from tf_llm.evaluation import report
from tf_llm.evaluation.report import format_table, load_metrics, tabulate_models, write_report, write_summary

SUMMARY = {
    "recipe": "article", "source": "SelfCrawl(python)", "validation_nats_per_token": 5.0, "unigram_nats_per_token": 5.5,
    "bigram_nats_per_token": 4.5, "validation_bits_per_byte": 2.8, "unigram_bits_per_byte": 2.9,
    "bigram_bits_per_byte": 2.6, "removed_bits_per_byte": 1.5, "tokens_per_second": 7654.3, "seconds": 150.2,
    "steps": 1234, "parameters": 7_000_000, "train_tokens": 1_000_000, "validation_tokens": 20_000,
    "bigram_tokens": 19_000,
}  # fmt: skip
ABOUT = {"steps": {"pages": 12, "stop words": 3456}, "rejections": {"no text": 2}, "stop_words": "own list"}


@pytest.fixture
def folder(tmp_path):
    records = [{"split": "train", "step": step, "loss": 9 - step / 100} for step in range(0, 400, 10)]
    records += [{"split": "validation", "step": step, "loss": 8.5 - step / 100} for step in (100, 200, 300)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return tmp_path


def test_docstring_examples():
    result = doctest.testmod(report)
    assert result.attempted and result.failed == 0


def test_summary_is_json(tmp_path):
    write_summary(tmp_path, SUMMARY)
    assert json.loads((tmp_path / "summary.json").read_text()) == SUMMARY


def test_models_are_compared_in_both_units():
    head, rows = tabulate_models(SUMMARY)
    assert rows[0] == ["this model, `article`", "5.000", "148", "2.800", "1.300", "1.500"]
    assert [row[0] for row in rows] == ["this model, `article`", "bigram", "unigram"]
    assert all(len(row) == len(head) for row in rows)
    assert format_table(head, rows).count("\n") == 4


def test_report_says_how_it_went(folder):
    samples = [("the ` kettle", "finds * ` the", "~~ old # harbour")]
    write_report(folder, SUMMARY, ABOUT, samples, ["Try more."])
    text = (folder / "report.md").read_text()
    assert "**0.500 nats per token below the unigram baseline**" in text
    assert "| stop words | 3,456 |" in text and "| pages rejected: no text | 2 |" in text
    assert "~~~text\nprompt      the ` kettle\nthis model  finds * ` the\nthe page    ~~ old # harbour\n~~~" in text
    assert text.endswith("Try more.\n")
    write_report(folder, SUMMARY | {"validation_nats_per_token": 6.0}, ABOUT, samples, [])
    assert "**0.500 nats per token ABOVE the unigram baseline**" in (folder / "report.md").read_text()


def test_plot_is_a_picture_of_a_size(folder):
    write_report(folder, SUMMARY, ABOUT, [], [])
    content = (folder / "loss.png").read_bytes()
    assert content.startswith(b"\x89PNG\r\n")
    width, height = struct.unpack(">II", content[16:24])
    assert width == 900 and height > 400 and len(content) > 10_000


def test_curves_of_several_runs_are_one_picture(tmp_path):
    curves = {"slow": [(10, 3.0), (40, 2.9)], "fast": [(100, 2.5), (800, 1.9)]}
    report.plot_curves(curves, tmp_path / "curves.png")
    content = (tmp_path / "curves.png").read_bytes()
    assert content.startswith(b"\x89PNG\r\n") and struct.unpack(">I", content[16:20]) == (900,)


def test_metrics_are_told_apart_by_split(folder):
    metrics = load_metrics(folder)
    assert [len(metrics[split]) for split in ("train", "validation")] == [40, 3]
