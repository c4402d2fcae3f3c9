"""Whole runs in one process: every recipe, every objective and every architecture, small."""

import dataclasses
import json
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from archives import write_warc

import tf_llm
from tf_llm.config import RunConfig, write_config
from tf_llm.crawl import Warc
from tf_llm.data.denoising import plan_denoisers
from tf_llm.data.objectives import ObjectiveConfig
from tf_llm.data.pairs import write_pairs
from tf_llm.data.shards import ShardConfig, Shards, Split
from tf_llm.recipes import RECIPES
from tf_llm.run import describe_corpus, open_folder
from tf_llm.text.tokenizers import CharTokenizer
from tf_llm.training.observe import Observer


def vary(run, stage, **changes):
    return dataclasses.replace(run, **{stage: dataclasses.replace(getattr(run, stage), **changes)})


def shrink(run, **model):
    """The same run with a model and a vocabulary that take seconds."""
    run = dataclasses.replace(
        run,
        words=dataclasses.replace(run.words, vocabulary_size=400),
        model=dataclasses.replace(
            run.model, vocabulary_size=503, d_model=16, num_heads=2, d_ff=32, num_layers=1, **model
        ),
        shards=dataclasses.replace(run.shards, validation_fraction=0.2),
        workers=dataclasses.replace(run.workers, processes=1),
    )
    return vary(run, "training", steps=3, warmup_steps=1, batch_size=8, precision="float32")


def train(run, shards, workdir):
    keras.utils.set_random_seed(0)
    model = tf_llm.build_model(run.model)
    model.compile(optimizer=tf_llm.build_optimizer(run.training), loss=tf_llm.build_loss(run.training))
    return tf_llm.train(model, shards, run, workdir)


def check(summary, workdir):
    assert summary["steps"] == 3 and math.isfinite(summary["validation_nats_per_token"])
    assert summary["validation_bits_per_byte"] > summary["removed_bits_per_byte"] >= 0
    assert summary["bigram_nats_per_token"] <= summary["unigram_nats_per_token"] * 1.1
    assert (workdir / "report.md").read_text().count("this model  ") == 3
    said = tf_llm.Generator.load(workdir)("the old kettle", max_new_tokens=5)
    assert isinstance(said, str) and "<extra_id" not in said


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return write_warc(tmp_path_factory.mktemp("archive") / "pages.warc.gz", pages=60)


QUICK = ("article", "best")  # of the recipes


@pytest.mark.parametrize(
    "recipe", [name if name in QUICK else pytest.param(name, marks=pytest.mark.thorough) for name in RECIPES]
)
def test_every_recipe_trains_reports_and_writes(archive, tmp_path, recipe):
    run = shrink(RECIPES[recipe]())
    summary = train(run, tf_llm.prepare(Warc(archive), run, tmp_path / "data"), tmp_path)
    check(summary, tmp_path)
    assert summary["recipe"] == recipe
    assert (summary["removed_bits_per_byte"] == 0) == (run.tokens == "unigram")
    train_lines = [line for line in map(json.loads, (tmp_path / "metrics.jsonl").open()) if line["split"] == "train"]
    assert all(("bits_per_byte" in line) == (run.objective.kind == "prefix_lm") for line in train_lines)
    assert all(
        0 < line["update_ratio"] < 1 and line["mfu"] > 0 and 0 <= line["data_wait_share"] < 1 for line in train_lines
    )


@pytest.mark.thorough
def test_what_is_shown_of_a_run_changes_nothing_of_it(archive, tmp_path, capfd, monkeypatch):
    """Samples, profiles, looks at the weights and the peak leave weights and dropout masks as they are, bit for bit.

    Samples are by the running means of the weights, which change places with them meanwhile.
    """
    run = shrink(RECIPES["article"]())
    shards = tf_llm.prepare(Warc(archive), run, tmp_path / "data")
    run = vary(run, "training", steps=13, evaluate_seconds=0.0, log_seconds=0.0, checkpoint_seconds=0.0, ema_decay=0.5)
    means, learned, models = [], [], []
    build, sample = tf_llm.run.Generator, tf_llm.run.continue_pages

    def build_and_note(model, *given):
        models.append(model)
        return build(model, *given)

    def sample_and_note(*given):
        means.append(models[0].trainable_variables[0].numpy())
        learned.append(models[0].optimizer.averages[0].numpy())
        return sample(*given)

    monkeypatch.setattr("tf_llm.run.Generator", build_and_note)
    monkeypatch.setattr("tf_llm.run.continue_pages", sample_and_note)
    train(vary(run, "training", profile_steps=2), shards, tmp_path / "shown")
    error = capfd.readouterr().err
    places = [error.index(part) for part in ("recipe       article, ", "\nfolder ", "step 00001/00013 (7.7%) | loss ")]
    assert places == sorted(places)
    np.testing.assert_array_equal(means[0], learned[0])
    np.testing.assert_allclose(means[1], means[0] + 0.9 * (learned[1] - means[0]), rtol=1e-6)
    assert np.abs(means[1] - learned[1]).max() > 0
    assert list((tmp_path / "shown" / "tensorboard").glob("plugins/profile/*/*.xplane.pb"))

    for name in ("start", "step", "validation"):
        monkeypatch.setattr(Observer, name, lambda *_: None)
    monkeypatch.setattr("tf_llm.run.measure_peak", lambda *_: 0.0)
    monkeypatch.setattr("tf_llm.run.write_report", lambda *_: None)
    train(run, shards, tmp_path / "silent")
    shown, silent = (
        tf.train.load_checkpoint(str(tmp_path / folder / "checkpoints" / "ckpt-13" / "state"))
        for folder in ("shown", "silent")
    )
    names = shown.get_variable_to_shape_map()
    assert names == silent.get_variable_to_shape_map() and len(names) > 50
    for name in names:
        np.testing.assert_array_equal(shown.get_tensor(name), silent.get_tensor(name))


@pytest.mark.thorough
@pytest.mark.parametrize("architecture", ["rnn", "cnn"])
def test_the_baselines_are_trained_by_the_same_command(archive, tmp_path, architecture):
    run = shrink(RECIPES["transformer"](), architecture=architecture)
    check(train(run, tf_llm.prepare(Warc(archive), run, tmp_path / "data"), tmp_path), tmp_path)


@pytest.mark.thorough
def test_the_mixture_of_denoisers_trains_on_the_windows_of_t5(archive, tmp_path):
    t5 = RECIPES["t5"]()
    source_length, target_length = plan_denoisers(t5.shards.block_length)
    run = dataclasses.replace(
        t5,
        objective=ObjectiveConfig(kind="denoisers"),
        model=dataclasses.replace(t5.model, source_length=source_length, target_length=target_length),
        shards=dataclasses.replace(t5.shards, overlap=t5.shards.block_length - target_length + 1),
    )
    run = shrink(run)
    check(train(run, tf_llm.prepare(Warc(archive), run, tmp_path / "data"), tmp_path), tmp_path)


@pytest.mark.parametrize("packed", [False, pytest.param(True, marks=pytest.mark.thorough)])
def test_pairs_of_texts_are_learned(tmp_path, packed):
    """A task with an answer: the letters of a word in capitals. Packed rows hold several words."""
    letters = "abcdefgh"
    words = ["".join(letters[(n // 8**place) % 8] for place in range(3)) for n in range(512)]
    tokenizer = CharTokenizer([*letters, *letters.upper()])
    pairs = [(word, word.upper()) for word in words]
    shards = write_pairs(pairs, tokenizer, tmp_path / "data", 12, 12, packed=packed, validation_fraction=0.1)
    run = RunConfig(
        tokens="characters",
        words=dataclasses.replace(RunConfig().words, vocabulary_size=16),
        objective=ObjectiveConfig(kind="pairs", packed=packed),
        shards=ShardConfig(block_length=24, overlap=0),
        model=dataclasses.replace(
            RECIPES["best"]().model,
            vocabulary_size=19,
            source_length=12,
            target_length=12,
            num_layers=1,
            d_model=32,
            num_heads=2,
            d_ff=64,
            packed=packed,
        ),
        training=dataclasses.replace(
            RECIPES["best"]().training, steps=300, learning_rate=1e-2, warmup_steps=10, precision="float32"
        ),
    )
    summary = train(run, shards, tmp_path / "run")
    assert summary["accuracy"] > 0.9
    if packed:
        plain = shards.train.tokens // 4  # pairs: three letters and an end each
        assert shards.train.blocks < plain / 2
    else:  # greedy answers of the reloaded model
        generate = tf_llm.Generator.load(tmp_path / "run")
        answers = generate(words[:50], do_sample=False)
        assert sum(answer == word.upper() for answer, word in zip(answers, words, strict=False)) > 40


def test_a_run_goes_on_with_its_own_shards_alone(tmp_path, caplog):
    """Batch n depends on them; a corpus that grew makes others."""
    run, workdir = RECIPES["article"](), tmp_path / "run"
    one, grown = (
        Shards(tmp_path, run.shards, 9, Split(({"sha256": digest},), tokens=tokens), Split(), {}, others)
        for digest, tokens, others in (("a", 1000, ()), ("b", 2500, (tmp_path / "more",)))
    )
    (tmp_path / "tokenizer.json").touch()
    open_folder(workdir, run, one)
    write_config(run, workdir / "config.json")
    open_folder(workdir, run, grown)  # a run of before there was corpus.json
    (workdir / "corpus.json").write_text(json.dumps(describe_corpus(one)))
    open_folder(workdir, run, one)
    open_folder(workdir, run, dataclasses.replace(one, folder=tmp_path), allow_changes=True)
    assert not caplog.records
    received = f"1,000 training tokens in {tmp_path} -> 2,500 in {tmp_path}, {tmp_path / 'more'}"
    with pytest.raises(tf_llm.UserError) as caught:
        open_folder(workdir, run, grown)
    assert str(caught.value) == (
        f"expected the shards that this folder's run began with. Received: {received}. Use another --workdir, or the "
        "same shards; or allow it (--allow_changes)"
    )
    open_folder(workdir, run, grown, allow_changes=True)
    assert caplog.messages == [f"going on with other shards than this run began with: {received}"]
    (workdir / "corpus.json").write_text("{")
    with pytest.raises(tf_llm.UserError, match=r"^expected what tells the shards of a run in .* Remove it if they are"):
        open_folder(workdir, run, one)
