"""The encoder–decoder as the article has it: against NumPy, in full and in steps, and what must not be seen."""

import ast
import dataclasses
import doctest
import functools
import itertools
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

import tf_llm.model
from tf_llm.model import encoder_decoder
from tf_llm.model.config import ModelConfig
from tf_llm.model.dropout import Dropout
from tf_llm.model.encoder_decoder import PRECISIONS, EncoderDecoder, build_model, use_dtype_policy

PARTS = ["input_embedding", "position_embedding", "encoder", "decoder", "output_embedding"]
SMALL = ModelConfig(vocabulary_size=20, source_length=7, target_length=6, num_layers=2, num_heads=2, d_model=8, d_ff=12)
CONTEXTS = ("vector", "sequence")
KINDS = [
    {"context": context, "positions": positions, "input_norm": input_norm}
    for context, positions, input_norm in itertools.product(
        CONTEXTS, ("learned", "sinusoidal"), ("batch_layer", "none")
    )
]


@functools.cache
def _build_once(precision, **settings):
    keras.utils.set_random_seed(1)
    model, random = build_model(dataclasses.replace(SMALL, **settings), precision), np.random.default_rng(1)
    for weight in model.weights:
        if weight.path != "position_embedding/table":
            weight.assign(weight + random.uniform(0, 0.3, weight.shape))
    return model, model.get_weights()


def _build(precision="float32", **settings):
    """A small model whose weights are all moved away from zero and one, so that none is without effect."""
    model, weights = _build_once(precision, **settings)
    model.set_weights(weights)  # an earlier test may have changed them
    return model


def _ids(*shape, seed=2):
    return np.random.default_rng(seed).integers(3, SMALL.vocabulary_size, shape).astype("int32")


def _batch(rows=3, config=SMALL):
    """The first row is full, each further one shorter by two tokens, in source and target."""
    source_ids, said = _ids(rows, config.source_length), _ids(rows, config.target_length, seed=3)
    decoder_ids = np.pad(said, ((0, 0), (1, 0)))[:, :-1]  # position 0: START_ID
    for row in range(1, rows):
        source_ids[row, -2 * row :] = 0
        decoder_ids[row, -2 * row :] = 0
    return {"source_ids": source_ids, "decoder_ids": decoder_ids}


def _logits(model, batch, **kwargs):
    return ops.convert_to_numpy(model(batch, **kwargs))


def _decode(model, batch, pieces, compile=lambda graph: graph):
    """The logits of `decoder_ids`, so many tokens at a step as `pieces` says; and the graphs of the steps."""
    state = dict(compile(model.build_start())(batch["source_ids"]))
    state.pop("context")
    cache = model.empty_cache(len(batch["source_ids"]))
    steps = {num_tokens: compile(model.build_step(num_tokens)) for num_tokens in set(pieces)}
    position, logits = 0, []
    for num_tokens in pieces:
        token_ids = ops.array(batch["decoder_ids"][:, position : position + num_tokens])
        inputs = {"token_ids": token_ids, "position": ops.array(position, "int32"), **state, **cache}
        new, cache = steps[num_tokens](inputs)
        logits.append(ops.convert_to_numpy(new))
        position += num_tokens
    return np.concatenate(logits, axis=1), list(steps.values())


def test_docstring_examples():
    result = doctest.testmod(encoder_decoder)
    assert result.attempted >= 2 and result.failed == 0


def test_no_module_imports_tensorflow():
    modules = sorted(Path(tf_llm.model.__file__).parent.glob("*.py"))
    assert len(modules) >= 9
    for module in modules:
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert "tensorflow" not in [name.partition(".")[0] for name in names], module


# === The article's recipe ===


def test_summary_shows_the_five_parts_in_order():
    lines = []
    build_model(SMALL).summary(print_fn=lines.append)
    summary = "\n".join(lines)
    places = [summary.index(f"│ {part} ") for part in PARTS]
    assert places == sorted(places)


def test_number_of_parameters_by_hand():
    vocabulary, longest, width, inner = 20, 7, 8, 12
    norm = 2 * width
    attention = 4 * width * width
    feed_forward = width * inner + inner + inner * width + width
    count = vocabulary * width + 2 * norm + norm  # words; batch normalisation and its averages; layer normalisation
    count += longest * width  # positions
    count += 2 * (attention + feed_forward + 2 * norm) + norm  # encoder
    count += 2 * (2 * attention + feed_forward + 3 * norm) + norm  # decoder
    count += width * vocabulary + vocabulary  # output
    assert build_model(SMALL).count_params() == count == 3_020


def test_defaults_are_the_articles():
    model = build_model(ModelConfig())
    layers = model.get_layer("input_embedding").layers
    table, dropout, norms = (layer for layer in layers if not isinstance(layer, keras.layers.InputLayer))
    batch_norm, layer_norm = norms.batch_norm, norms.layer_norm
    assert isinstance(table, keras.layers.Embedding)
    assert isinstance(dropout, Dropout) and dropout.rate == 0.1
    assert isinstance(batch_norm, keras.layers.BatchNormalization)
    assert isinstance(layer_norm, keras.layers.LayerNormalization) and layer_norm.epsilon == 1e-6
    assert model.get_layer("encoder").output[0].shape == (None, 1, 256)  # one vector of a fixed length
    assert model.get_layer("decoder").input[2].shape == (None, 1, 256)
    output = model.get_layer("output_embedding")
    assert isinstance(output, keras.layers.Dense) and output.use_bias
    assert isinstance(output.kernel_regularizer, keras.regularizers.L2)
    assert float(output.kernel_regularizer.l2) == pytest.approx(0.01)


def test_l2_is_that_of_the_output_kernel_once():
    model = _build()
    model.build_step()  # draws the layer a second time
    kernel = ops.convert_to_numpy(model.get_layer("output_embedding").kernel)
    assert [float(loss) for loss in model.losses] == [pytest.approx(0.01 * np.sum(kernel**2), rel=1e-5)]
    assert _build(output_l2=0.0).losses == []


@pytest.mark.parametrize("place", ["embedding", "attention", "feed_forward", "residual", "output"])
@pytest.mark.parametrize("input_norm", ["batch_layer", "none"])
def test_dropout_is_active_in_training_alone(place, input_norm):
    settings = {"embedding_dropout": 0.0, f"{place}_dropout": 0.5}
    model, batch = _build(input_norm=input_norm, **settings), _batch()
    without = _build(input_norm=input_norm, embedding_dropout=0.0)
    without.set_weights(model.get_weights())
    np.testing.assert_array_equal(_logits(model, batch), _logits(without, batch))
    first, second, third = (_logits(network, batch, training=True) for network in (model, model, without))
    assert np.abs(first - second).max() > 0.01 and np.abs(first - third).max() > 0.01


def _copies(rows):
    """A task: say what the source says."""
    targets = _ids(rows, SMALL.target_length)
    decoder_ids = np.pad(targets, ((0, 0), (1, 0)))[:, :-1]
    return {"source_ids": np.pad(targets, ((0, 0), (0, 1))), "decoder_ids": decoder_ids}, targets


def test_the_articles_compile_call_and_fit_lower_the_loss():
    model = build_model(dataclasses.replace(SMALL, num_layers=1))
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate=1e-4),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        weighted_metrics=[keras.metrics.SparseCategoricalAccuracy("accuracy")],
    )
    features, targets = _copies(64)
    weights = np.ones(targets.shape, "float32")
    history = model.fit(features, targets, sample_weight=weights, batch_size=16, epochs=10, verbose=0).history
    assert history["loss"][-1] < history["loss"][0] and set(history) == {"loss", "accuracy"}


def test_a_sequence_as_context_learns_to_copy():
    keras.utils.set_random_seed(0)
    settings = {"num_layers": 1, "d_model": 32, "d_ff": 64, "output_l2": 0.0, "embedding_dropout": 0.0}
    model = build_model(dataclasses.replace(SMALL, context="sequence", **settings))
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate=1e-2),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        weighted_metrics=[keras.metrics.SparseCategoricalAccuracy("accuracy")],
        jit_compile=False,  # which would take longer to compile than the training takes
    )
    features, targets = _copies(64 * 200)
    model.fit(features, targets, batch_size=64, verbose=0)
    assert model.evaluate(features, targets, batch_size=1000, verbose=0, return_dict=True)["accuracy"] > 0.9


# === The forward pass, once and in steps ===


def _numpy_logits(model, batch):
    """The whole forward pass, outside of training, in NumPy."""
    config, weights = model.config, {weight.path: ops.convert_to_numpy(weight) for weight in model.weights}

    def norm(hidden, name):
        hidden = (hidden - hidden.mean(-1, keepdims=True)) / np.sqrt(hidden.var(-1, keepdims=True) + 1e-6)
        return hidden * weights[f"{name}/gamma"] + weights[f"{name}/beta"]

    def embed(ids):
        hidden = weights["table/embeddings"][ids]
        if config.input_norm == "batch_layer":
            names = ("gamma", "beta", "moving_mean", "moving_variance")
            gamma, beta, mean, variance = (weights[f"input_embedding_norm/batch_norm/{name}"] for name in names)
            hidden = (hidden - mean) / np.sqrt(variance + 1e-3) * gamma + beta
            hidden = norm(hidden, "input_embedding_norm/layer_norm")
        return hidden + weights["position_embedding/table"][: ids.shape[1]]

    def attend(hidden, memory, mask, name):
        queries = hidden @ weights[f"{name}_attention/query/kernel"]
        keys, values = np.split(memory @ weights[f"{name}_keys_values/projection/kernel"], 2, axis=-1)
        found = []
        for head in np.split(np.arange(config.d_model), config.num_heads):
            scores = queries[..., head] @ keys[..., head].swapaxes(1, 2) / np.sqrt(len(head))  # [B, T, S]
            shares = np.where(mask, np.exp(scores - scores.max(-1, keepdims=True)), 0)
            found.append(shares / shares.sum(-1, keepdims=True) @ values[..., head])
        return np.concatenate(found, axis=-1) @ weights[f"{name}_attention/output/kernel"]

    def feed_forward(hidden, name):
        hidden = hidden @ weights[f"{name}/widen/kernel"] + weights[f"{name}/widen/bias"]
        return np.maximum(hidden, 0) @ weights[f"{name}/narrow/kernel"] + weights[f"{name}/narrow/bias"]

    source_mask = batch["source_ids"] != 0  # [B, S]
    hidden = embed(batch["source_ids"])
    for name in ("encoder_0", "encoder_1"):
        normed = norm(hidden, f"{name}_attention_norm")
        hidden = hidden + attend(normed, normed, source_mask[:, None], name)
        hidden = hidden + feed_forward(norm(hidden, f"{name}_feed_forward_norm"), f"{name}_feed_forward")
    context, context_mask = norm(hidden, "encoder_norm"), source_mask[:, None]
    if config.context == "vector":
        kept = [row[mask].mean(axis=0) for row, mask in zip(context, source_mask, strict=True)]
        context, context_mask = np.stack(kept)[:, None], True

    hidden = embed(batch["decoder_ids"])
    for name in ("decoder_0", "decoder_1"):
        normed = norm(hidden, f"{name}_attention_norm")
        hidden = hidden + attend(normed, normed, np.tri(config.target_length, dtype=bool), name)
        normed = norm(hidden, f"{name}_context_norm")
        hidden = hidden + attend(normed, context, context_mask, f"{name}_context")
        hidden = hidden + feed_forward(norm(hidden, f"{name}_feed_forward_norm"), f"{name}_feed_forward")
    hidden = norm(hidden, "decoder_norm")
    return hidden @ weights["output_embedding/kernel"] + weights["output_embedding/bias"]


@pytest.mark.parametrize("settings", KINDS, ids=lambda settings: "-".join(map(str, settings.values())))
def test_full_pass_equals_numpy_and_cached_steps(settings):
    model, batch = _build(**settings), _batch()
    expected = _logits(model, batch)
    assert expected.std() > 0.1
    np.testing.assert_allclose(expected, _numpy_logits(model, batch), atol=1e-5)
    cached, _ = _decode(model, batch, [1] * 6)
    np.testing.assert_allclose(cached, expected, atol=1e-5)


@pytest.mark.parametrize("pieces", [[6], [3, 1, 2]])
@pytest.mark.parametrize("context", CONTEXTS)
def test_several_tokens_in_a_step_are_as_good_as_one(context, pieces):
    model, batch = _build(context=context), _batch()
    np.testing.assert_allclose(_decode(model, batch, pieces)[0], _logits(model, batch), atol=1e-5)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("context", CONTEXTS)
def test_compiled_equals_eager_and_one_step_serves_every_position(context, jit_compile):
    model, batch = _build(context=context, num_layers=1), _batch()
    expected = _logits(model, batch)

    def compile(graph):
        return tf.function(graph, jit_compile=jit_compile)

    np.testing.assert_allclose(compile(model)(batch), expected, atol=1e-5)
    logits, steps = _decode(model, batch, [1] * 6, compile)
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    assert [step.experimental_get_tracing_count() for step in steps] == [1]


def test_nothing_warns():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model, batch = _build(), _batch()
        _logits(model, batch, training=True)
        _decode(model, batch, [2, 4])
    assert not [str(warning.message) for warning in caught]


@pytest.mark.parametrize(
    "settings",
    [{}, {"input_norm": "none"}, {"input_norm": "none", "embedding_scale": True}],
    ids=["norm", "plain", "scaled"],
)
def test_words_are_as_large_as_the_waves_that_are_added(settings):
    keras.utils.set_random_seed(4)
    model = build_model(dataclasses.replace(SMALL, d_model=64, positions="sinusoidal", **settings))
    ids, mask = _ids(50, 20), np.ones((50, 20), bool)
    words = ops.convert_to_numpy(model.get_layer("input_embedding")([ids, mask], training=not settings))
    assert words.std() == pytest.approx(1.0, abs=0.1)
    assert np.sqrt(np.mean(ops.convert_to_numpy(model.get_layer("position_embedding").table) ** 2)) == pytest.approx(
        0.5**0.5
    )


@pytest.mark.parametrize("settings", [{}, {"output_scale": True}, {"embeddings": "all", "output_l2": 0.0}], ids=str)
def test_a_model_may_begin_as_a_unigram(settings):
    keras.utils.set_random_seed(0)
    model, counts = build_model(dataclasses.replace(SMALL, **settings)), np.arange(20)
    kernel = next(weight for weight in model.get_layer("output_embedding").weights if len(weight.shape) == 2)
    model.start_from_frequencies(counts)
    kernel.assign(0 * kernel)
    expected = np.log((counts + 0.5) / 200)
    np.testing.assert_allclose(_logits(model, _batch()), np.broadcast_to(expected, (3, 6, 20)), atol=1e-5)
    with pytest.raises(ValueError, match=r"model\.output_bias expected True to start from frequencies"):
        build_model(dataclasses.replace(SMALL, output_bias=False)).start_from_frequencies(counts)


def test_only_keys_and_values_can_be_shared_by_beams():
    recurrent = build_model(dataclasses.replace(SMALL, architecture="rnn"))
    mixed = build_model(dataclasses.replace(SMALL, short_convolution=3))
    for model, num_tokens in ((recurrent, 1), (mixed, 1), (build_model(SMALL), 2)):
        with pytest.raises(ValueError, match=r"num_beams is expected to be 1 for several tokens .* Received: 4"):
            model.build_step(num_tokens, num_beams=4)


def test_every_weight_has_its_own_path():
    paths = [weight.path for weight in build_model(SMALL).weights]
    assert len(set(paths)) == len(paths) == 68


# === What must not be seen ===


@pytest.mark.parametrize("context", CONTEXTS)
def test_the_future_never_leaks(context):
    model, length = _build(context=context), SMALL.target_length
    batch = {name: np.repeat(ids[:1], length, axis=0) for name, ids in _batch().items()}
    expected = _logits(model, batch)
    later = np.triu(np.ones((length, length), bool), 1)  # in row t, all that comes after position t
    changed = np.where(later, 3 + (batch["decoder_ids"] + 5) % 17, batch["decoder_ids"])
    logits = _logits(model, {**batch, "decoder_ids": changed})
    np.testing.assert_allclose(logits[~later], expected[~later], atol=1e-6)
    assert np.abs(logits - expected).max(axis=-1)[later].min() > 1e-3  # and the past is seen


@pytest.mark.parametrize("context", CONTEXTS)
def test_a_row_knows_nothing_of_its_neighbours(context):
    model, batch = _build(context=context), _batch()
    together = _logits(model, batch)
    for row in range(3):
        alone = _logits(model, {name: ids[row : row + 1] for name, ids in batch.items()})
        np.testing.assert_allclose(alone[0], together[row], atol=1e-5)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("context", CONTEXTS)
def test_more_padding_changes_nothing(context, training):
    wide = _build(context=context, embedding_dropout=0.0, source_length=11, target_length=9)
    model = _build(context=context, embedding_dropout=0.0)
    for weight, value in zip(model.weights, wide.get_weights(), strict=True):
        weight.assign(value[: weight.shape[0]])  # of the positions, as many as there are
    batch = _batch()
    padded = {
        "source_ids": np.pad(batch["source_ids"], ((0, 0), (0, 4))),
        "decoder_ids": np.pad(batch["decoder_ids"], ((0, 0), (0, 3))),
    }
    expected, logits = _logits(model, batch, training=training), _logits(wide, padded, training=training)
    np.testing.assert_allclose(logits[:, : SMALL.target_length], expected, atol=1e-5)
    for layer in ("moving_mean", "moving_variance"):
        norms = [m.get_layer("input_embedding").get_layer("input_embedding_norm") for m in (model, wide)]
        averages = [getattr(norm.batch_norm, layer) for norm in norms]
        np.testing.assert_allclose(*averages, atol=1e-6)


@pytest.mark.parametrize("context", CONTEXTS)
def test_the_vector_of_the_padding_symbol_plays_no_part_in_the_context(context):
    model, batch = _build(context=context), _batch()
    kept = True if context == "vector" else batch["source_ids"] != 0
    start, table = model.build_start(), model.get_layer("input_embedding").get_layer("table").embeddings
    before = ops.convert_to_numpy(start(batch["source_ids"])["context"])
    table.assign(np.concatenate([_ids(1, SMALL.d_model), table[1:]]))
    after = ops.convert_to_numpy(start(batch["source_ids"])["context"])
    np.testing.assert_allclose(after[kept], before[kept], atol=1e-6)


@pytest.mark.parametrize("context", CONTEXTS)
def test_an_empty_source_gives_finite_logits(context):
    model, batch = _build(context=context), _batch()
    batch["source_ids"][1] = 0
    assert np.isfinite(_logits(model, batch)).all()
    if context == "vector":
        np.testing.assert_array_equal(model.build_start()(batch["source_ids"])["context"][1], np.zeros((1, 8)))


@pytest.mark.parametrize("context", CONTEXTS)
def test_the_source_is_seen(context):
    model, batch = _build(context=context), _batch()
    other = {**batch, "source_ids": np.where(batch["source_ids"], _ids(3, 7, seed=9), 0)}
    assert np.abs(_logits(model, other) - _logits(model, batch)).max(axis=-1).min() > 1e-3


# === Precision, saving, settings ===


@pytest.mark.parametrize("precision", PRECISIONS)
def test_each_precision_is_near_float32_in_full_and_in_steps(precision):
    model, reference, batch = _build(precision, context="sequence"), _build(context="sequence"), _batch()
    reference.set_weights(model.get_weights())
    with use_dtype_policy("float32"):
        logits, (cached, [step]) = model(batch), _decode(model, batch, [1] * 6)
    assert logits.dtype == "float32" and cached.dtype == "float32"
    compute = precision.removeprefix("mixed_")
    assert model.compute_dtype == compute
    assert {part.dtype.name for part in model.empty_cache(1).values()} == {compute}
    assert [part.dtype for part in step.outputs] == ["float32", *[compute] * 4]
    assert {part.dtype for part in step.inputs} == {"bool", "int32", compute}
    tolerance = 1e-5 if precision == "float32" else 0.15
    np.testing.assert_allclose(logits, reference(batch), atol=tolerance)
    np.testing.assert_allclose(cached, logits, atol=tolerance)


def test_precision_does_not_depend_on_the_global_policy_and_leaves_it_alone():
    with use_dtype_policy("mixed_float16"):
        model = build_model(SMALL)
        model.build_step()
        assert model.compute_dtype == "float32" and model(_batch()).dtype == "float32"
        with pytest.raises(AttributeError):
            build_model("no config")
        assert keras.config.dtype_policy().name == "mixed_float16"
    assert keras.config.dtype_policy().name == "float32"


def test_float16_gets_its_loss_scaled():
    model = build_model(SMALL, "mixed_float16")
    model.compile(keras.optimizers.Adam())
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)


@pytest.mark.parametrize(("context", "precision"), zip(CONTEXTS, ("float32", "mixed_bfloat16"), strict=True))
def test_keras_file_holds_the_whole_model(tmp_path, context, precision):
    model, batch = _build(precision, context=context, positions="sinusoidal"), _batch()
    model.save(tmp_path / "model.keras")
    copy = keras.models.load_model(tmp_path / "model.keras")
    assert copy.config == model.config and copy.dtype_policy.name == precision
    for one, other in zip(copy.weights, model.weights, strict=True):
        assert one.path == other.path
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(_logits(copy, batch), _logits(model, batch))
    assert not [layer for layer in copy._flatten_layers() if isinstance(layer, keras.layers.Lambda)]


def test_model_from_its_config_is_the_same_but_for_the_weights():
    model = _build(context="sequence", input_norm="none")
    copy = EncoderDecoder.from_config(model.get_config())
    copy.set_weights(model.get_weights())
    assert copy.config == model.config and copy.name == model.name
    np.testing.assert_array_equal(_logits(copy, _batch()), _logits(model, _batch()))


def test_unknown_precision_is_named():
    text = r"precision expected one of \['bfloat16', 'float32', 'mixed_bfloat16', 'mixed_float16'\]. Received: 'fp8'"
    with pytest.raises(ValueError, match=text):
        build_model(SMALL, precision="fp8")
