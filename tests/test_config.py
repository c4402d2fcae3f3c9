"""Settings: composed, checked against each other, written and read, compared."""

import dataclasses
import doctest
import json

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


def test_best_learns_from_the_same_words():
    article, best = RECIPES["article"](), RECIPES["best"]()
    for stage in ("html", "words", "shards"):
        assert getattr(article, stage) == getattr(best, stage)


def test_stages_must_fit_together():
    run = RunConfig()
    with pytest.raises(ValueError, match=r"model\.source_length is expected to be shards\.overlap.*32 and 64.*128.*64"):
        vary(run, "model", source_length=32)
    with pytest.raises(ValueError, match=r"at least words\.vocabulary_size \+ 3\. Received: 8003.*=8001"):
        vary(RECIPES["article"](), "words", vocabulary_size=8001)
    with pytest.raises(ValueError, match=r"tokens is expected to be one of \['words', 'characters'\]\. .*'bytes'"):
        dataclasses.replace(run, tokens="bytes")


def test_a_run_goes_on_as_it_began():
    run = RunConfig()
    check_resumable(run, vary(vary(run, "training", log_seconds=1.0), "workers", processes=7))
    changed = vary(vary(run, "training", learning_rate=1e-3), "model", num_layers=3)
    assert list_differences(run, changed) == ["model.num_layers: 2 -> 3", "training.learning_rate: 0.0001 -> 0.001"]
    with pytest.raises(UserError, match=r"Received: model\.num_layers: 2 -> 3; .*learning_rate.*another --workdir"):
        check_resumable(run, changed)


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
