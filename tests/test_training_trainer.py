"""The training loop on a tiny model: its sums against numpy, resuming bit for bit, damage, and the clock."""

import contextlib
import dataclasses
import doctest
import functools
import itertools
import logging
import math
import signal
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from tf_llm import recipes
from tf_llm.contracts import DECODER_IDS, SOURCE_IDS, UserError
from tf_llm.model.encoder_decoder import build_model
from tf_llm.training import checkpoints as checkpoints_module
from tf_llm.training import clock as clock_module
from tf_llm.training.checkpoints import Checkpoints
from tf_llm.training.guard import DivergenceError
from tf_llm.training.losses import build_loss
from tf_llm.training.optimizers import OPTIMIZERS, TrainingConfig, build_optimizer
from tf_llm.training.schedules import learning_rate_at
from tf_llm.training.step import Sums
from tf_llm.training.trainer import Trainer

BATCH, SOURCE, TARGET, WIDTH, VOCABULARY = 8, 4, 6, 5, 11
DECAY = {name: {"weight_decay": 0.1} for name in ("adamw", "adamw_rms", "lion", "muon")}


@functools.cache
def one_cpu():
    """Made when first needed: it starts TensorFlow, before which test_training_distribution.py has things to do."""
    return tf.distribute.OneDeviceStrategy("/cpu:0")


def build_tiny_model(config, dropout=0.2, output_l2=0.01, seed=0):
    """Logits from the embedded word plus the mean of the embedded source; the source's padding does not count."""
    keras.utils.set_random_seed(seed)
    source_ids = keras.Input((SOURCE,), dtype="int32", name=SOURCE_IDS)
    decoder_ids = keras.Input((TARGET,), dtype="int32", name=DECODER_IDS)
    embedding = keras.layers.Embedding(VOCABULARY, WIDTH, embeddings_initializer="normal", name="embedding")
    keep = ops.cast(ops.not_equal(source_ids, 0), "float32")[..., None]  # [B, S, 1]
    context = ops.sum(embedding(source_ids) * keep, 1, keepdims=True) / ops.maximum(
        ops.sum(keep, 1, keepdims=True), 1.0
    )
    hidden = keras.layers.Dropout(dropout)(embedding(decoder_ids) + context)  # [B, T, D]
    regularizer = keras.regularizers.L2(output_l2) if output_l2 else None
    logits = keras.layers.Dense(VOCABULARY, kernel_regularizer=regularizer, name="output")(hidden)
    model = keras.Model({SOURCE_IDS: source_ids, DECODER_IDS: decoder_ids}, logits)
    model.compile(build_optimizer(config), build_loss(config))
    return model


def make_tiny_batches(first_batch=0):
    """Endless batches, number n a function of n alone; the first half of the rows has one target each."""

    def make_batch(number):
        ids = tf.random.stateless_uniform([BATCH, SOURCE + TARGET], [7, number], 1, VOCABULARY, tf.int32)
        source_ids, targets = ids[:, :SOURCE], ids[:, SOURCE:]
        lengths = tf.where(tf.range(BATCH) < BATCH // 2, 1, TARGET)
        weights = tf.sequence_mask(lengths, TARGET, tf.float32)
        targets = targets * tf.cast(weights, tf.int32)
        decoder_ids = tf.pad(targets[:, :-1], [[0, 0], [1, 0]])
        return {SOURCE_IDS: source_ids, DECODER_IDS: decoder_ids}, targets, weights

    return tf.data.Dataset.range(first_batch, tf.int64.max).map(make_batch)


class Notes:
    """An observer that keeps what it is told."""

    def __init__(self):
        self.starts, self.steps, self.sums, self.rates, self.validations = [], [], [], [], []

    def start(self, step, total):
        self.starts.append((step, total))

    def step(self, step, sums, learning_rate, clock, ends_call=True):
        self.steps.append(step)
        self.sums.append(sums)
        self.rates.append(learning_rate)

    def validation(self, step, sums):
        self.validations.append(step)


def build_trainer(config, **model_settings):
    with one_cpu().scope():
        return Trainer(build_tiny_model(config, **model_settings), one_cpu(), config)


def build_run(folder, seed=0, **settings):
    """(trainer, checkpoints, observer) of a fresh process: new objects, other initial weights for another seed."""
    config = TrainingConfig(**{"learning_rate": 0.05, "checkpoint_seconds": 1e9, "evaluate_seconds": 1e9, **settings})
    trainer = build_trainer(config, seed=seed)
    return trainer, Checkpoints(folder, trainer.model, trainer.model.optimizer), Notes()


def train(trainer, checkpoints, observer):
    """Seconds that the steps took."""
    return trainer.train(make_tiny_batches, checkpoints, observer, lambda: Sums(1.0, 1.0, 1.0)).total


def take_step(trainer, batch=None, limit=math.inf):
    """One step on a batch, the first one by default: the fields of its `Sums`."""
    batch = next(iter(make_tiny_batches())) if batch is None else batch
    return trainer.step.train(batch, tf.constant(limit, tf.float32))


def weights_of(trainer):
    """Everything that learns or draws: the model's variables, its seeds among them, and the optimiser's."""
    return [variable.numpy() for variable in [*trainer.model.variables, *trainer.model.optimizer.variables]]


def messages(caplog):
    """What this package logged; TensorFlow has its own remarks on odd files."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("tf_llm")]


def assert_equal(left, right):
    for one, other in zip(left, right, strict=True):
        np.testing.assert_array_equal(one, other)


def test_docstring_examples():
    result = doctest.testmod(checkpoints_module)
    assert result.attempted >= 3 and result.failed == 0


# === What a step adds up ===


def _score_unpadded(model, rows):
    """The sums of (source, targets) rows of their own lengths, in numpy."""
    table, (kernel, bias) = model.get_layer("embedding").get_weights()[0], model.get_layer("output").get_weights()
    nats = correct = tokens = source_tokens = 0
    for source, targets in rows:
        hidden = table[[0, *targets[:-1]]] + table[source].mean(0)
        logits = hidden @ kernel + bias
        log_probabilities = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        nats -= log_probabilities[np.arange(len(targets)), targets].sum()
        correct += (logits.argmax(-1) == targets).sum()
        tokens += len(targets)
        source_tokens += len(source)
    return nats, correct, tokens, source_tokens


def test_evaluation_equals_unpadded_numpy():
    random = np.random.default_rng(3)
    rows = [
        (random.integers(1, VOCABULARY, random.integers(1, SOURCE + 1)), random.integers(1, VOCABULARY, length))
        for length in random.integers(1, TARGET + 1, 19)
    ]
    columns = [np.zeros((24, length), "int32") for length in (SOURCE, TARGET, TARGET)]  # five rows are empty
    for row, (source, targets) in enumerate(rows):
        for column, ids in zip(columns, (source, [0, *targets[:-1]], targets), strict=True):
            column[row, : len(ids)] = ids
    source_ids, decoder_ids, targets = columns
    weights = (targets != 0).astype("float32")
    batches = tf.data.Dataset.from_tensor_slices(
        ({SOURCE_IDS: source_ids, DECODER_IDS: decoder_ids}, targets, weights)
    ).batch(BATCH)
    trainer = build_trainer(TrainingConfig(), output_l2=10.0)
    sums = trainer.evaluate(batches)
    nats, correct, tokens, source_tokens = _score_unpadded(trainer.model, rows)
    assert sums.nats == pytest.approx(nats, rel=1e-5)
    assert (sums.correct, sums.tokens, sums.source_tokens) == (correct, tokens, source_tokens)
    assert sums.loss == pytest.approx(nats / tokens, rel=1e-5)  # and nothing of L2
    assert sums.accuracy == correct / tokens


def test_sums_of_nothing():
    assert (Sums(0.0, 0.0, 0.0).loss, Sums(0.0, 0.0, 0.0).accuracy) == (0.0, 0.0)


def test_l2_trains_and_is_not_reported():
    kernels, reported = [], []
    for output_l2 in (0.0, 0.5):
        config = TrainingConfig(optimizer="gradient_descent", learning_rate=0.1)
        trainer = build_trainer(config, dropout=0.0, output_l2=output_l2)
        before = trainer.model.get_layer("output").kernel.numpy()
        reported.append(take_step(trainer).numpy()[:4])
        kernels.append(trainer.model.get_layer("output").kernel.numpy())
    np.testing.assert_array_equal(*reported)
    np.testing.assert_allclose(kernels[0] - kernels[1], 0.1 * 2 * 0.5 * before, rtol=1e-4, atol=1e-6)


def test_smoothing_trains_and_is_not_reported():
    weights, reported, evaluated = [], [], []
    for label_smoothing in (0.0, 0.4):
        config = TrainingConfig(optimizer="gradient_descent", learning_rate=0.1, label_smoothing=label_smoothing)
        trainer = build_trainer(config, dropout=0.0)
        evaluated.append(dataclasses.astuple(trainer.evaluate(make_tiny_batches().take(2))))
        reported.append(take_step(trainer).numpy()[:4])
        weights.append(trainer.model.get_layer("output").kernel.numpy())
    np.testing.assert_allclose(*reported, rtol=1e-6)
    np.testing.assert_allclose(*evaluated, rtol=1e-6)
    assert np.abs(weights[0] - weights[1]).max() > 1e-4


def test_smoothing_that_was_not_compiled_is_refused():
    with pytest.raises(UserError, match=r"compiled with label_smoothing=0\.1\. Received: 0\.0\. Call model\.comp"):
        Trainer(build_tiny_model(TrainingConfig()), one_cpu(), TrainingConfig(label_smoothing=0.1))


def test_gradients_are_cut_to_their_global_norm():
    updates = {}
    for clip_norm in (0.0, 0.01):
        config = TrainingConfig(optimizer="gradient_descent", learning_rate=1.0, clip_norm=clip_norm)
        trainer = build_trainer(config, dropout=0.0)
        before = [variable.numpy() for variable in trainer.model.trainable_variables]
        take_step(trainer)
        after = [variable.numpy() for variable in trainer.model.trainable_variables]
        updates[clip_norm] = np.concatenate([(old - new).ravel() for old, new in zip(before, after, strict=True)])
    assert np.linalg.norm(updates[0.0]) > 0.1
    assert np.linalg.norm(updates[0.01]) == pytest.approx(0.01, rel=1e-3)
    cut = updates[0.0] / np.linalg.norm(updates[0.0])
    np.testing.assert_allclose(updates[0.01] / 0.01, cut, atol=1e-4)


def test_logits_in_bfloat16_are_summed_in_float32():
    sums = {}
    for precision in ("float32", "mixed_bfloat16"):
        keras.config.set_dtype_policy(precision)
        try:
            trainer = build_trainer(TrainingConfig(), dropout=0.0)
        finally:
            keras.config.set_dtype_policy("float32")
        assert trainer.model.output.dtype == ("bfloat16" if "bfloat16" in precision else "float32")
        sums[precision] = take_step(trainer).numpy()
    assert sums["mixed_bfloat16"].dtype == "float32"
    np.testing.assert_allclose(sums["mixed_bfloat16"][0], sums["float32"][0], rtol=0.01)


def test_it_learns(tmp_path):
    trainer, checkpoints, observer = build_run(tmp_path, steps=60, learning_rate=0.1)
    trainer.train(lambda first: make_tiny_batches().take(1).repeat(), checkpoints, observer, None)
    assert observer.sums[-1].loss < 0.5 * observer.sums[0].loss
    assert observer.sums[-1].accuracy > observer.sums[0].accuracy


LOSS = keras.losses.SparseCategoricalCrossentropy


@pytest.mark.parametrize(
    ("compile_arguments", "received"),
    [
        (None, "optimizer=NoneType, loss=None"),
        (lambda: (keras.optimizers.Adam(), LOSS(from_logits=True)), "optimizer=Adam, loss=<"),
        (
            # what Keras makes of its own optimiser under mixed_float16
            lambda: (keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam()), LOSS(from_logits=True)),
            "optimizer=Adam, loss=<",
        ),
        (lambda: (build_optimizer(TrainingConfig()), "mse"), "optimizer=Adam, loss='mse'"),
    ],
)
def test_models_that_were_compiled_otherwise_are_refused(compile_arguments, received):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    if compile_arguments:
        model.compile(*compile_arguments())
    with pytest.raises(UserError, match=r"^expected a model compiled with an optimiser of tf_llm") as error:
        Trainer(model, one_cpu(), TrainingConfig())
    assert f"Received: {received}" in str(error.value) and "Call model.compile(" in str(error.value)


# === Resuming ===


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "adamw_rms", "adafactor", "lion", "muon"])
def test_resumed_equals_uninterrupted(tmp_path, optimizer, caplog):
    settings = {"optimizer": optimizer, "schedule": "cosine", "warmup_steps": 3, "clip_norm": 0.5}
    whole, whole_checkpoints, whole_notes = build_run(tmp_path / "whole", steps=10, **settings)
    train(whole, whole_checkpoints, whole_notes)

    # The same schedule, stopped after 5 of its 10 steps as by Ctrl-C.
    half, half_checkpoints, half_notes = build_run(tmp_path / "half", steps=10, **settings)
    interrupt_after(5, half_notes)
    with pytest.raises(KeyboardInterrupt):
        train(half, half_checkpoints, half_notes)
    caplog.clear()

    resumed, resumed_checkpoints, resumed_notes = build_run(tmp_path / "half", seed=99, steps=10, **settings)
    assert not np.array_equal(weights_of(resumed)[0], weights_of(half)[0])
    with caplog.at_level(logging.INFO, logger="tf_llm"):
        train(resumed, resumed_checkpoints, resumed_notes)
    assert messages(caplog) == ["resuming at step 5 of 10"]
    assert resumed_notes.starts == [(5, 10)]
    assert half_notes.steps + resumed_notes.steps == whole_notes.steps == list(range(1, 11))
    assert half_notes.sums + resumed_notes.sums == whole_notes.sums
    assert_equal(weights_of(resumed), weights_of(whole))


def interrupt_after(step, notes):
    """Makes an observer press Ctrl-C when it has noted a step."""
    keep = notes.step

    def note(number, *figures):
        keep(number, *figures)
        if number == step:
            signal.raise_signal(signal.SIGINT)

    notes.step = note


@pytest.mark.parametrize(("number", "ends"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_interrupted_within_a_step_equals_uninterrupted(tmp_path, caplog, number, ends):
    """The signal lands between the optimiser's step and the loop's own count of it, twice even: the step is counted."""
    whole, checkpoints, notes = build_run(tmp_path / "whole", steps=6)
    train(whole, checkpoints, notes)
    half, checkpoints, notes = build_run(tmp_path / "half", steps=6)
    step, batches = half.step.train, itertools.count(1)

    def interrupted_step(*batch):
        sums = step(*batch)
        if next(batches) == 3:
            for _ in range(1 if number == signal.SIGINT else 2):
                signal.raise_signal(number)
        return sums

    half.step.train = interrupted_step
    before = signal.getsignal(number)
    with pytest.raises(ends) as error:
        train(half, checkpoints, notes)
    assert number == signal.SIGINT or error.value.code == 75
    assert signal.getsignal(number) is before
    assert messages(caplog) == ["interrupted: saved step 3; the same command goes on from there"]
    resumed, checkpoints, notes = build_run(tmp_path / "half", seed=99, steps=6)
    train(resumed, checkpoints, notes)
    assert notes.steps == [4, 5, 6]
    assert_equal(weights_of(resumed), weights_of(whole))


def test_finished_run_has_nothing_to_do_and_can_be_lengthened(tmp_path):
    trainer, checkpoints, notes = build_run(tmp_path, steps=2)
    assert train(trainer, checkpoints, notes) > 0
    written = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    trainer, checkpoints, notes = build_run(tmp_path, seed=99, steps=2)
    assert train(trainer, checkpoints, notes) == 0.0
    assert (notes.starts, notes.steps) == ([(2, 2)], [])
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == written
    trainer, checkpoints, notes = build_run(tmp_path, seed=99, steps=3)
    train(trainer, checkpoints, notes)
    assert notes.steps == [3]


def test_weights_can_be_read_without_the_optimizer(tmp_path):
    trainer, checkpoints, notes = build_run(tmp_path, steps=2)
    train(trainer, checkpoints, notes)
    model = build_tiny_model(TrainingConfig(), seed=99)
    assert Checkpoints(tmp_path, model).restore()
    assert_equal([variable.numpy() for variable in model.variables], weights_of(trainer)[: len(model.variables)])


def test_optimizer_that_was_used_before_the_run(tmp_path):
    trainer, checkpoints, notes = build_run(tmp_path, steps=4)
    take_step(trainer)
    interrupt_after(2, notes)
    with pytest.raises(KeyboardInterrupt):
        train(trainer, checkpoints, notes)
    assert int(checkpoints.step) == 2


# === What stops a run ===


@contextlib.contextmanager
def full_disk():
    """No file may grow beyond 1,000 bytes: the system refuses in the midst of a write, as it does on a full disk."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_full_disk_in_the_midst_of_a_run(tmp_path):
    trainer, checkpoints, notes = build_run(tmp_path, steps=3, checkpoint_seconds=0.0)
    save, saves = checkpoints.save, itertools.count(1)

    def save_the_second_on_a_full_disk(*arguments, wait=True):
        with full_disk() if next(saves) == 2 else contextlib.nullcontext():
            return save()

    checkpoints.save = save_the_second_on_a_full_disk
    with pytest.raises(UserError, match=r"newest checkpoint: .*ckpt-1$"):
        train(trainer, checkpoints, notes)
    resumed, checkpoints, notes = build_run(tmp_path, seed=99, steps=3)
    train(resumed, checkpoints, notes)
    assert notes.steps == [2, 3]


# === Steps that would do harm ===


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
def test_gradients_that_are_not_finite_leave_everything_as_it_was(optimizer):
    trainer = build_trainer(TrainingConfig(optimizer=optimizer, learning_rate=0.05, **DECAY.get(optimizer, {})))
    take_step(trainer)
    learned = [*trainer.model.trainable_variables, *trainer.model.optimizer.variables]
    before = [variable.numpy() for variable in learned]
    features, targets, weights = next(iter(make_tiny_batches()))
    *_, applied = take_step(trainer, (features, targets, weights * math.inf)).numpy()
    assert applied == 0.0
    assert_equal(before, [variable.numpy() for variable in learned])  # bit for bit, the count of steps among them
    *_, applied = take_step(trainer).numpy()
    assert applied == 1.0 and not np.array_equal(before[0], learned[0].numpy())


def test_loss_above_the_limit_leaves_the_weights_as_they_were():
    trainer = build_trainer(TrainingConfig(learning_rate=0.05))
    sums = Sums(*take_step(trainer, limit=0.1).numpy().tolist())
    assert sums.applied == 0.0 and sums.loss > 0.1 and int(trainer.model.optimizer.iterations) == 0
    assert take_step(trainer, limit=sums.loss * 1.01).numpy()[5] == 1.0


@pytest.mark.parametrize("accumulation", [1, 2])
def test_step_that_is_passed_over_leaves_the_averages_of_batch_norm(accumulation):
    """The forward pass moves them before anybody knows what comes of the step."""
    config = TrainingConfig(learning_rate=0.05, batch_size=BATCH, accumulation=accumulation)
    shape = {"source_length": SOURCE, "target_length": TARGET, "vocabulary_size": VOCABULARY}
    shape |= {"d_model": 8, "num_heads": 2, "d_ff": 8, "num_layers": 1}
    with one_cpu().scope():
        model = build_model(dataclasses.replace(recipes.article().model, **shape))
        model.compile(build_optimizer(config), build_loss(config))
    trainer = Trainer(model, one_cpu(), config)
    averages = [variable for variable in model.non_trainable_variables if "moving" in variable.path]
    assert averages and len(averages) == len(trainer.step.batch_averages)
    before = [variable.numpy() for variable in averages]
    assert take_step(trainer, limit=0.1).numpy()[5] == 0.0
    assert_equal(before, [variable.numpy() for variable in averages])
    assert take_step(trainer).numpy()[5] == 1.0
    assert not np.array_equal(before[0], averages[0].numpy())


def test_run_passes_over_a_step_that_would_do_harm(tmp_path, caplog):
    """Step 12 of 20 has a loss a thousand times as high: the weights of step 11 go on, and the run is told of it."""
    after = {}

    def build(folder):
        trainer, checkpoints, notes = build_run(folder, steps=20, learning_rate=0.01)
        keep, step = notes.step, trainer.step.train

        def note(number, *figures):
            keep(number, *figures)
            after[number] = [variable.numpy() for variable in trainer.model.trainable_variables]

        def spiked(batch, limit):
            if len(notes.steps) == 12:
                bias = trainer.model.get_layer("output").bias
                sound = bias.numpy()
                bias.assign(np.linspace(0, 30_000, VOCABULARY))
                sums = step(batch, limit)
                assert_equal([bias.numpy()], [np.linspace(0, 30_000, VOCABULARY).astype("float32")])
                bias.assign(sound)
                return sums
            return step(batch, limit)

        notes.step, trainer.step.train = note, spiked
        return trainer, checkpoints, notes

    trainer, checkpoints, notes = build(tmp_path)
    train(trainer, checkpoints, notes)
    assert [sums.applied for sums in notes.sums] == [1.0] * 12 + [0.0] + [1.0] * 7
    assert notes.sums[12].loss > 1000 * notes.sums[11].loss
    assert_equal(after[12], after[13])
    assert int(trainer.model.optimizer.iterations) == 19 and int(checkpoints.step) == 20
    first, last = messages(caplog)
    assert first.startswith("step 12: expected a loss of at most ") and first.endswith("Its update is left out")
    assert last == "1 of 20 steps were passed over"


def test_run_that_goes_on_judges_by_the_losses_before(tmp_path):
    train(*build_run(tmp_path, steps=12, learning_rate=0.01))
    trainer, checkpoints, notes = build_run(tmp_path, steps=13, learning_rate=0.01)
    step, limits = trainer.step.train, []
    trainer.step.train = lambda batch, limit: limits.append(float(limit)) or step(batch, limit)
    train(trainer, checkpoints, notes)
    assert notes.steps == [13] and limits[0] < 100
    whole, checkpoints, notes = build_run(tmp_path / "whole", steps=13, learning_rate=0.01)
    step, expected = whole.step.train, []
    whole.step.train = lambda batch, limit: expected.append(float(limit)) or step(batch, limit)
    train(whole, checkpoints, notes)
    assert limits == expected[12:]


def test_run_that_diverged_ends_and_names_its_last_good_checkpoint(tmp_path):
    trainer, checkpoints, notes = build_run(tmp_path, steps=9, unsound_steps=3, checkpoint_seconds=0.0)
    keep = notes.step

    def poison(step, *figures):
        keep(step, *figures)
        if step == 4:
            trainer.model.get_layer("output").bias.assign([math.nan] * VOCABULARY)

    notes.step = poison
    text = (
        r"expected a finite loss, .* 3 times in a row, up to step 6 with a loss of nan\. .*; the last good checkpoint: "
    )
    with pytest.raises(DivergenceError, match=text) as error:
        train(trainer, checkpoints, notes)
    assert error.value.exit_status == 4
    assert notes.steps == [1, 2, 3, 4, 5, 6]


# === Several steps in a call ===


@pytest.mark.parametrize(
    "settings",
    [{}, {"accumulation": 2, "ema_decay": 0.9}, {"optimizer": "adamw", "weight_decay": 0.1}],
    ids=["plain", "parts and means", "decay"],
)
def test_several_steps_in_a_call_equal_as_many_calls(tmp_path, settings):
    settings = settings | {"steps": 10, "schedule": "cosine", "clip_norm": 1.0}
    single, checkpoints, single_notes = build_run(tmp_path / "single", **settings)
    train(single, checkpoints, single_notes)
    several, checkpoints, notes = build_run(tmp_path / "several", steps_per_call=4, **settings)
    clock = several.train(make_tiny_batches, checkpoints, notes, lambda: Sums(1.0, 1.0, 1.0))
    assert notes.steps == list(range(1, 11)) and clock.steps == 10 == len(clock.latest)
    assert (notes.sums, notes.rates) == (single_notes.sums, single_notes.rates)
    assert_equal(weights_of(several), weights_of(single))
    assert int(checkpoints.step) == 10
    assert several.step._loop.experimental_get_tracing_count() == 1  # the last call has two steps


def test_run_of_several_steps_in_a_call_is_planned_and_goes_on(tmp_path):
    trainer, checkpoints, notes = build_run(tmp_path, steps_per_call=4, seconds=3.0)
    train(trainer, checkpoints, notes)
    total = notes.starts[-1][1]
    assert notes.steps == list(range(1, total + 1)) and total > 13
    trainer, checkpoints, notes = build_run(tmp_path, steps_per_call=4, steps=total + 1)
    train(trainer, checkpoints, notes)
    assert notes.steps == [total + 1]


def test_unsound_step_within_a_call_is_passed_over_alone():
    trainer, alone = (build_trainer(TrainingConfig(steps_per_call=3), dropout=0.0) for _ in range(2))

    def poison(number, batch):
        return (*batch[:2], tf.where(number == 1, math.inf, batch[2]))

    results = trainer.step.train_several(iter(make_tiny_batches().enumerate().map(poison)), [0.05] * 3, math.inf)
    assert results.numpy()[:, 5].tolist() == [1.0, 0.0, 1.0]
    for number in (0, 2):
        alone.model.optimizer.learning_rate.assign(0.05)
        take_step(alone, next(iter(make_tiny_batches(number))))
    assert_equal(weights_of(trainer), weights_of(alone))


# === Parts of a batch ===


@pytest.mark.parametrize("optimizer", ["adam", "gradient_descent"])
def test_parts_of_a_batch_equal_the_whole(tmp_path, optimizer):
    """The rows of the first part have one target each, those of the last six: a part counts for as many as it has."""
    settings = {"optimizer": optimizer, "steps": 5, "clip_norm": 0.5}
    losses, weights = {}, {}
    for parts in (1, 2, 4, 8):
        config = TrainingConfig(learning_rate=0.05, accumulation=parts, batch_size=BATCH, **settings)
        trainer = build_trainer(config, dropout=0.0, output_l2=0.1)
        notes = Notes()
        train(trainer, Checkpoints(tmp_path / str(parts), trainer.model, trainer.model.optimizer), notes)
        losses[parts] = [(sums.loss, sums.gradient_norm, sums.tokens, sums.correct) for sums in notes.sums]
        weights[parts] = np.concatenate([variable.numpy().ravel() for variable in trainer.model.variables[:3]])
    for parts in (2, 4, 8):
        np.testing.assert_allclose(losses[parts], losses[1], rtol=1e-5)
        np.testing.assert_allclose(weights[parts], weights[1], atol=1e-5)


def test_gradient_descent_on_the_full_batch_falls_at_every_step(tmp_path):
    """Article, section 3.4: the whole corpus, five batches here, is one batch of forty rows, computed in eight parts.

    Its loss falls in each of thirty steps, which the loss of a single batch does not, as long as the corpus changes
    under it; and in parts it is what it is in one piece.
    """
    rows = 5 * BATCH
    corpus = make_tiny_batches().take(5).unbatch().batch(rows).cache().repeat()
    losses = {}
    for name, parts, batches, size in (
        ("parts", 8, corpus, rows),
        ("whole", 1, corpus, rows),
        ("stochastic", 1, make_tiny_batches().take(5).repeat(), BATCH),
    ):
        config = TrainingConfig(
            optimizer="gradient_descent", learning_rate=0.3, batch_size=size, accumulation=parts, steps=30
        )
        trainer = build_trainer(config, dropout=0.0, output_l2=0.0)
        notes, checkpoints = Notes(), Checkpoints(tmp_path / name, trainer.model, trainer.model.optimizer)
        trainer.train(lambda first, batches=batches: batches, checkpoints, notes, None)
        losses[name] = [sums.loss for sums in notes.sums]
    assert np.all(np.diff(losses["parts"]) < 0) and losses["parts"][-1] < losses["parts"][0] - 0.05
    np.testing.assert_allclose(losses["parts"], losses["whole"], rtol=1e-5)
    assert np.any(np.diff(losses["stochastic"]) > 0)


def test_batch_that_cannot_be_divided_is_refused():
    config = TrainingConfig(batch_size=8, accumulation=3)
    with pytest.raises(UserError, match=r"training\.batch_size expected a multiple of 3, for 3 parts on each of 1 dev"):
        build_trainer(config)


# === By the clock ===


def build_fake_run(folder, monkeypatch, step_seconds, **settings):
    """A run whose step n takes `step_seconds(n)` on a clock of its own, and trains nothing."""
    trainer, checkpoints, notes = build_run(folder, **settings)
    now, numbers = [0.0], itertools.count()

    def step(batch, limit):
        now[0] += step_seconds(next(numbers))
        return tf.ones(6)

    trainer.step.train = step
    monkeypatch.setattr(clock_module, "time", types.SimpleNamespace(perf_counter=lambda: now[0]))
    return trainer, checkpoints, notes


def test_run_is_planned_from_the_steps_that_were_timed(tmp_path, monkeypatch):
    # The first step traces for 5 s, the others take .5 s; one straggler among those that are timed does not matter.
    seconds = {0: 5.0, 7: 3.0}
    trainer, checkpoints, notes = build_fake_run(
        tmp_path, monkeypatch, lambda number: seconds.get(number, 0.5), seconds=30.0, schedule="cosine", warmup_steps=2
    )
    spent = train(trainer, checkpoints, notes)
    total = 13 + int((30 - (5 + 3 + 11 * 0.5)) / 0.5)
    assert notes.starts == [(0, 0), (13, total)]
    assert len(notes.steps) == int(checkpoints.step) == int(checkpoints.total_steps) == total
    assert spent == pytest.approx(30)
    config = trainer.config
    planned = [learning_rate_at(config, step, total) for step in range(13, total)]
    assert notes.rates == pytest.approx([0.025, *[0.05] * 12, *planned])

    # A run that is interrupted goes on with the plan that was stored.
    trainer, checkpoints, notes = build_fake_run(tmp_path, monkeypatch, lambda _: 0.5, seconds=30.0)
    assert train(trainer, checkpoints, notes) == 0.0
    assert notes.starts == [(total, total)]


@pytest.mark.parametrize("later", [0.05, 0.2, 0.4])
def test_plan_follows_a_machine_that_changes_its_pace(tmp_path, monkeypatch, later):
    trainer, checkpoints, notes = build_fake_run(
        tmp_path, monkeypatch, lambda number: 0.2 if number < 100 else later, seconds=60.0, schedule="linear"
    )
    assert train(trainer, checkpoints, notes) == pytest.approx(60, abs=later + 0.01)
    assert len(notes.steps) == int(checkpoints.step) == int(checkpoints.total_steps)
    assert len(notes.steps) == pytest.approx(100 + 40 / later, abs=1)
    assert notes.starts[1] == (13, 300) and notes.starts[2] == (63, 300)
    assert notes.rates[-1] < 0.01 * max(notes.rates)  # the schedule came to its end


def test_planned_run_resumes_with_its_plan(tmp_path, monkeypatch, caplog):
    trainer, checkpoints, notes = build_fake_run(tmp_path, monkeypatch, lambda _: 1.0, seconds=20.0)
    interrupt_after(15, notes)
    with pytest.raises(KeyboardInterrupt):
        train(trainer, checkpoints, notes)
    trainer, checkpoints, notes = build_fake_run(tmp_path, monkeypatch, lambda _: 0.001, seconds=20.0)
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="tf_llm"):
        train(trainer, checkpoints, notes)
    assert messages(caplog) == ["resuming at step 15 of 20"]
    assert notes.starts == [(15, 20)] and notes.steps == [16, 17, 18, 19, 20]


def test_run_interrupted_before_it_was_planned(tmp_path, monkeypatch, caplog):
    trainer, checkpoints, notes = build_fake_run(tmp_path, monkeypatch, lambda _: 1.0, seconds=20.0)
    interrupt_after(4, notes)
    with pytest.raises(KeyboardInterrupt):
        train(trainer, checkpoints, notes)
    trainer, checkpoints, notes = build_fake_run(tmp_path, monkeypatch, lambda _: 1.0, seconds=20.0)
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="tf_llm"):
        train(trainer, checkpoints, notes)
    assert messages(caplog)[0] == "resuming at step 4 of a number still to be planned"
    assert notes.starts == [(4, 0), (17, 24)]


def test_machine_that_is_too_slow_to_be_timed(tmp_path, monkeypatch):
    trainer, checkpoints, notes = build_fake_run(tmp_path, monkeypatch, lambda _: 7.0, seconds=10.0)
    assert train(trainer, checkpoints, notes) == 21.0
    assert notes.starts == [(0, 0), (2, 3)]


def test_machine_that_becomes_slow(tmp_path, monkeypatch, caplog):
    trainer, checkpoints, notes = build_fake_run(
        tmp_path, monkeypatch, lambda number: 0.1 if number < 20 else 5.0, seconds=20.0
    )
    assert train(trainer, checkpoints, notes) == pytest.approx(2 + 5 * 5)
    (text,) = messages(caplog)
    assert text == "the machine became slower than planned: stopping at step 25 of 200"
    assert (int(checkpoints.step), int(checkpoints.total_steps)) == (25, 200)
    assert build_run(tmp_path)[1].restore()


def test_validation_and_saving_go_by_the_clock_and_are_not_counted(tmp_path, monkeypatch):
    trainer, checkpoints, notes = build_fake_run(
        tmp_path, monkeypatch, lambda _: 1.0, steps=20, evaluate_seconds=6.5, checkpoint_seconds=4.5
    )
    saves = []
    checkpoints.save = lambda *_, **__: saves.append(int(checkpoints.step))
    assert train(trainer, checkpoints, notes) == 20.0
    assert notes.validations == [7, 14]
    assert saves == [5, 7, 12, 14, 19, 20]  # what was validated is saved, to be told apart by its loss


def test_real_run_stops_near_its_time(tmp_path):
    trainer, checkpoints, notes = build_run(tmp_path, seconds=4.0)
    spent = train(trainer, checkpoints, notes)
    assert 3 < spent < 12  # loosely: drawing the graph alone takes seconds on a busy machine
    assert int(checkpoints.total_steps) == notes.starts[-1][1] >= 1
    assert int(checkpoints.step) == notes.steps[-1] <= int(checkpoints.total_steps)
