"""Settings: composed, checked against each other, written and read, compared."""

import dataclasses
import doctest
import json
import logging

import pytest

from tf_llm import config, recipes
from tf_llm.config import RunConfig, check_resumable, list_differences, load_config, write_config
from tf_llm.contracts import UserError
from tf_llm.recipes import RECIPES


def test_docstring_examples():
    for module in (config, recipes):
        result = doctest.testmod(module)
        assert result.attempted and result.failed == 0


def vary(run, stage, **changes):
    return dataclasses.replace(run, **{stage: dataclasses.replace(getattr(run, stage), **changes)})


def test_article_is_what_the_article_says():
    run = RECIPES["article"]()
    assert (run.training.optimizer, run.training.learning_rate, run.training.schedule) == ("adam", 1e-4, "constant")
    assert (run.model.embedding_dropout, run.model.output_l2, run.model.context) == (0.1, 0.01, "vector")
    assert run.model.input_norm == "batch_layer" and run.words.lower_case and run.words.stop_words == "nltk"
    assert run.words.rare_words == "remove" and run.words.minimum_count > 1 and run.html.main_content


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_carry_their_name_and_survive_the_disk(tmp_path, name):
    run = RECIPES[name]()
    assert run.recipe == name
    write_config(run, tmp_path / "config.json")
    assert load_config(tmp_path / "config.json") == run


def test_recipes_read_the_same_pages():
    for name in RECIPES:
        run = RECIPES[name]()
        assert run.html == RECIPES["article"]().html
        assert run.shards.validation_fraction == RECIPES["article"]().shards.validation_fraction


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            lambda run: vary(run, "model", source_length=32),
            r"model\.source_length is expected to be shards\.overlap.*32 and 64.*128.*64",
        ),
        (
            lambda run: vary(run, "objective", kind="span_corruption"),
            r"source_length is expected to be at least 116, and model\.target_length 65, .*'span_cor.*64 and 64",
        ),
        (
            lambda run: vary(run, "objective", kind="denoisers"),
            r"source_length is expected to be at least 130, and model\.target_length \d+, .*'denoisers'.*64 and 64",
        ),
        (
            lambda run: vary(run, "objective", kind="pairs"),
            r"shards\.overlap 0, for pairs\. Received: 128 and 64, for 64 \+ 64",
        ),
        (
            lambda run: vary(run, "objective", packed=True),
            r"model\.packed and objective\.packed are expected to be alike.*Received: False and True",
        ),
        (
            lambda run: vary(run, "model", embeddings="none", target_vocabulary_size=50),
            r"model\.target_vocabulary_size is expected to be 0 in a run: .* Received: 50",
        ),
        (
            lambda run: vary(vary(run, "model", output_bias=False), "training", start_from_frequencies=True),
            r"model\.output_bias is expected to be True where training\.start_from_frequencies is\. Received: False",
        ),
        (
            lambda run: vary(run, "words", vocabulary_size=8001),
            r"at least words\.vocabulary_size \+ 3 and the 0 sentinels.*Received: 8003.*=8001",
        ),
        (
            lambda run: vary(RECIPES["t5"](), "model", vocabulary_size=8_003),
            r"and the 100 sentinels of the objective\. Received: 8003, with words\.vocabulary_size=8000",
        ),
        (
            lambda run: dataclasses.replace(run, tokens="bytes"),
            r"tokens is expected to be one of \['words', 'characters', 'unigram', 'bpe'\]\. .*'bytes'",
        ),
    ],
    ids=["prefix", "spans", "denoisers", "pairs", "packed", "two", "frequencies", "words", "sentinels", "tokens"],
)
def test_stages_must_fit_together(change, text):
    with pytest.raises(ValueError, match=text):
        change(RECIPES["article"]())


def test_a_run_goes_on_as_it_began():
    run = RunConfig()
    check_resumable(run, vary(vary(run, "training", log_seconds=1.0), "workers", processes=7))
    changed = vary(vary(run, "training", learning_rate=1e-3), "model", num_layers=3)
    assert list_differences(run, changed) == ["model.num_layers: 2 -> 3", "training.learning_rate: 0.0001 -> 0.001"]
    with pytest.raises(UserError, match=r"Received: model\.num_layers: 2 -> 3; .*learning_rate.*another --workdir"):
        check_resumable(run, changed)


def test_other_settings_are_allowed_and_said(caplog):
    run = RunConfig()
    with caplog.at_level(logging.WARNING, "tf_llm"):
        check_resumable(run, run, allow_changes=True)
        assert caplog.messages == []
        check_resumable(run, vary(run, "training", learning_rate=1e-3), allow_changes=True)
    assert caplog.messages == [
        "going on with other settings than this run began with: training.learning_rate: 0.0001 -> 0.001"
    ]


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"model": 3}', '{"modle": {}}', '{"model": {"num_layers": 0}}', '{"unheard": 1}']
)
def test_damaged_settings_are_a_one_line_error(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"expected the settings of a run of this version in .*config\.json") as error:
        load_config(path)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"Received: No such file.*Name the --workdir of a run"):
        load_config(tmp_path / "missing.json")


def test_settings_are_plain_json(tmp_path):
    write_config(RunConfig(), tmp_path / "config.json")
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["training"]["learning_rate"] == 1e-4 and list(tmp_path.iterdir()) == [tmp_path / "config.json"]
