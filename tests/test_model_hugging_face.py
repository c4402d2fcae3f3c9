"""T5 here and in transformers: the same tensors under two sets of names, the same numbers out of both."""

import dataclasses
import doctest
import math
import re
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_llm.contracts import DECODER_IDS, SOURCE_IDS, UserError
from tf_llm.decoding.strategies import Greedy, decode
from tf_llm.model import hugging_face
from tf_llm.model.config import ModelConfig
from tf_llm.model.encoder_decoder import build_model
from tf_llm.model.sizes import build_size

SHAPE = {
    "vocabulary_size": 100,
    "source_length": 9,
    "target_length": 12,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "num_heads": 4,
    "d_head": 12,  # 4 times 12 is not 64
    "d_model": 64,
    "d_ff": 90,
    "relative_buckets": 8,
    "relative_distance": 16,
}
V1_0, V1_1 = build_size("t5_small", **SHAPE), build_size("t5_v1_1_small", **SHAPE)
VERSIONS = {"v1.0": V1_0, "v1.1": V1_1}
versions = pytest.mark.parametrize("config", VERSIONS.values(), ids=VERSIONS)


def make_arrays(config, seed=0):
    """Random weights of a size that lets every part of the model matter."""
    random = np.random.default_rng(seed)
    arrays = {}
    for name, shape in hugging_face.list_tensors(config).items():
        wide = 1.0 if len(shape) == 1 or name == "shared.weight" or "bias" in name else shape[-1] ** -0.5
        arrays[name] = (random.normal(size=shape) * wide).astype("float32")
    return arrays


def make_batch(config, rows=5, seed=1):
    """Sources of unequal length, padded, and what the decoder has said: ids [rows, S] and [rows, T]."""
    random = np.random.default_rng(seed)
    source = random.integers(3, config.vocabulary_size, (rows, config.source_length)).astype("int32")
    for i, row in enumerate(source):
        row[config.source_length - i % (config.source_length - 1) :] = 0
    said = random.integers(3, config.vocabulary_size, (rows, config.target_length)).astype("int32")
    said[:, 0] = 0
    return {SOURCE_IDS: source, DECODER_IDS: said}


# === Settings ===


@versions
@pytest.mark.parametrize("activation", ["relu", "gelu", "gated_gelu", "swiglu"])
def test_settings_survive_the_round_trip(config, activation):
    config = dataclasses.replace(config, activation=activation)
    settings = hugging_face.config_to_hugging_face(config)
    assert hugging_face.config_from_hugging_face(settings, 9, 12) == config


def test_settings_that_say_nothing_are_t5_small():
    assert hugging_face.config_from_hugging_face({"model_type": "t5"}, 512, 128) == dataclasses.replace(
        build_size("t5_small"), num_decoder_layers=6
    )


@pytest.mark.parametrize(
    "settings, tied",
    [
        ({}, True),
        ({"tie_word_embeddings": True}, True),
        ({"tie_word_embeddings": False}, False),
        ({"tie_word_embeddings": True, "scale_decoder_outputs": True}, True),
        ({"tie_word_embeddings": True, "scale_decoder_outputs": False}, False),  # as release 5 saves version 1.1
    ],
)
def test_which_version_it_is(settings, tied):
    config = hugging_face.config_from_hugging_face({"model_type": "t5", **settings}, 9, 12)
    assert (config.embeddings, config.output_scale) == (("all", True) if tied else ("inputs", False))


@pytest.mark.parametrize(
    "settings, reason",
    [
        ({"model_type": "mt5"}, "model_type is 'mt5' in place of 't5'"),
        ({"model_type": None}, "model_type is None"),
        ({"feed_forward_proj": "gelu"}, "feed_forward_proj is 'gelu' in place of one of"),
        ({"feed_forward_proj": ["relu"]}, "feed_forward_proj is"),
        ({"d_model": "512"}, "d_model is '512' in place of a size"),
        ({"num_layers": 10**12}, "num_layers is 1000000000000 in place of a size"),
        ({"num_decoder_layers": -1}, "num_decoder_layers is -1"),
        ({"vocab_size": True}, "vocab_size is True"),
        ({"eos_token_id": 2}, "eos_token_id is 2 in place of 1"),
        ({"decoder_start_token_id": 5}, "decoder_start_token_id is 5 in place of 0"),
        ({"is_encoder_decoder": False}, "is_encoder_decoder is False"),
        ({"quantization_config": {"bits": 4}}, "quantised"),
        ({"dropout_rate": 1.0}, "embedding_dropout expected a share"),
        ({"layer_norm_epsilon": "tiny"}, "'tiny' is no number"),
        ({"relative_attention_max_distance": 3}, "relative_distance expected a whole number of at least 32"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_other_models_are_refused_with_the_reason(settings, reason):
    with pytest.raises(UserError, match=re.escape(reason)) as caught:
        hugging_face.config_from_hugging_face({"model_type": "t5", **settings}, 9, 12)
    assert "\n" not in str(caught.value)


def test_models_that_t5_cannot_be_are_refused_with_all_reasons():
    config = dataclasses.replace(V1_0, num_key_value_heads=2, positions="rotary", attention_dropout=0.5, norm="layer")
    with pytest.raises(UserError) as caught:
        hugging_face.config_to_hugging_face(config)
    for reason in ("positions is 'rotary'", "norm is 'layer'", "share keys", "dropouts are not all the same"):
        assert reason in str(caught.value)
    with pytest.raises(UserError, match="go together otherwise"):
        hugging_face.config_to_hugging_face(dataclasses.replace(V1_0, output_scale=False))
    with pytest.raises(UserError, match="context is 'vector'"):
        hugging_face.export_arrays(build_model(ModelConfig(vocabulary_size=10, d_model=8, num_heads=2)))


# === Tensors ===


@versions
def test_every_weight_of_the_model_has_a_name_of_theirs(config):
    model = build_model(config)
    arrays = hugging_face.export_arrays(model)
    assert {name: array.shape for name, array in arrays.items()} == hugging_face.list_tensors(config)
    paths = [path for path, *_ in hugging_face.pair_weights(config)]
    assert sorted(paths) == sorted(variable.path for variable in model.trainable_variables)
    sizes = [math.prod(variable.shape) for variable in model.trainable_variables]
    assert sum(array.size for array in arrays.values()) == sum(sizes)


@versions
def test_arrays_survive_the_round_trip(config):
    model, arrays = build_model(config), make_arrays(config)
    hugging_face.load_arrays(model, arrays)
    exported = hugging_face.export_arrays(model)
    assert exported.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(exported[name], array, err_msg=name)
        assert exported[name].flags["C_CONTIGUOUS"], name  # safetensors writes memory as it lies
    some = ["shared.weight", "decoder.block.2.layer.1.EncDecAttention.v.weight"]
    assert hugging_face.export_arrays(model, some).keys() == set(some)


@pytest.mark.parametrize("precision", ["bfloat16", "mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_weights_keep_the_dtype_of_the_model(precision, dtype):
    model, arrays = build_model(V1_1, precision), make_arrays(V1_1)
    dtype = tf.as_dtype(dtype).as_numpy_dtype
    hugging_face.load_arrays(model, {name: array.astype(dtype) for name, array in arrays.items()})
    exported = hugging_face.export_arrays(model)
    for name, array in arrays.items():
        assert exported[name].dtype.name == ("bfloat16" if precision == "bfloat16" else "float32")
        np.testing.assert_allclose(exported[name].astype("float32"), array, rtol=0.01, atol=1e-4)


def test_faults_of_names_and_shapes_are_one_error():
    arrays = make_arrays(V1_0)
    for name in list(arrays)[5:25]:
        del arrays[name]
    arrays |= {"encoder.extra.weight": np.zeros((2, 3)), "shared.weight": np.zeros((101, 64))}
    model = build_model(V1_0)
    before = hugging_face.export_arrays(model)
    with pytest.raises(UserError) as caught:
        hugging_face.load_arrays(model, arrays)
    message = str(caught.value)
    assert "\n" not in message
    assert f"expected the {len(hugging_face.list_tensors(V1_0))} tensors" in message
    assert re.search(r"20 missing: encoder\.block\.0\.layer\.0\S+ \[48, 64\](, \S+ \[[\d, ]+\]){9}, …;", message)
    assert "1 unexpected: encoder.extra.weight [2, 3]" in message
    assert "1 of another shape: shared.weight [101, 64] in place of [100, 64]" in message
    for name, array in hugging_face.export_arrays(model).items():
        np.testing.assert_array_equal(array, before[name])  # nothing was loaded by half


@versions
def test_copies_of_the_table_are_accepted_where_they_are_copies(config):
    arrays = make_arrays(config)
    copies = ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"]
    copies += ["lm_head.weight"] if config is V1_0 else []
    more = arrays | dict.fromkeys(copies, arrays["shared.weight"])
    model = build_model(config)
    hugging_face.load_arrays(model, more)
    for name in copies:
        with pytest.raises(UserError, match=f"expected {name} to be the same as shared.weight"):
            hugging_face.load_arrays(model, more | {name: more[name] + 1})
    del more["shared.weight"]  # some files hold the table under another name alone
    hugging_face.load_arrays(model, more)
    np.testing.assert_array_equal(model.get_layer("input_embedding").get_layer("table").embeddings, more[copies[0]])


def read_list(name):
    lines = (Path(__file__).parent / f"{name}_tensors.txt").read_text().splitlines()
    rows = [line.split() for line in lines if not line.startswith("#")]
    return {name: tuple(map(int, shape)) for name, *shape in rows}


@pytest.mark.thorough
@pytest.mark.parametrize(
    "name, size, count", [("t5_small", "t5_small", 131), ("flan_t5_small", "t5_v1_1_small", 190)], ids=["t5", "flan_t5"]
)
def test_stand_ins_with_the_published_names_load_with_every_tensor_accounted_for(name, size, count):
    config, shapes = build_size(size, source_length=8, target_length=8), read_list(name)
    table = np.random.default_rng(0).normal(size=(32_128, 512)).astype("float32")
    tables = ["shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"]
    tables += ["lm_head.weight"] if size == "t5_small" else []
    random = np.random.default_rng(1)
    arrays = {key: random.random(shape, "float32") for key, shape in shapes.items() if key not in tables}
    arrays |= dict.fromkeys(tables, table)
    assert len(hugging_face.list_tensors(config)) == count
    model = build_model(config)
    hugging_face.load_arrays(model, arrays)
    exported = hugging_face.export_arrays(model)
    unused = ["decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"] if size == "t5_small" else []
    assert exported.keys() == shapes.keys() - set(tables[1:]) - set(unused)
    for key, array in exported.items():
        np.testing.assert_array_equal(array, arrays[key], err_msg=key)


# === The same numbers ===


def load_peer(config, arrays):
    """The model of transformers with these weights."""
    torch = pytest.importorskip("torch", reason="needs torch: pip install 'tf_llm[peers]'")
    transformers = pytest.importorskip("transformers", reason="needs transformers: pip install 'tf_llm[peers]'")
    peer = transformers.T5ForConditionalGeneration(
        transformers.T5Config(**hugging_face.config_to_hugging_face(config))
    ).eval()
    if config.embeddings != "all":  # release 5 ties whatever it makes, but for what it loads
        peer.lm_head.weight = torch.nn.Parameter(torch.empty(config.vocabulary_size, config.d_model))
    missing, unexpected = peer.load_state_dict(
        {key: torch.tensor(array) for key, array in arrays.items()}, strict=False
    )
    assert not unexpected and set(missing) <= {*hugging_face.TABLE_ALIASES, "lm_head.weight"}
    return peer


def say_logits(peer, batch):
    """Logits of transformers' model: float32 [B, T, V]."""
    import torch

    source = torch.tensor(batch[SOURCE_IDS]).long()
    with torch.no_grad():
        return (
            peer(
                input_ids=source,
                attention_mask=(source != 0).long(),
                decoder_input_ids=torch.tensor(batch[DECODER_IDS]).long(),
            )
            .logits.float()
            .numpy()
        )


@versions
@pytest.mark.parametrize("activation", ["relu", "gelu", "gated_gelu", "swiglu"])
def test_logits_are_those_of_transformers(config, activation):
    config = dataclasses.replace(config, activation=activation)
    arrays, batch = make_arrays(config), make_batch(config)
    theirs = say_logits(load_peer(config, arrays), batch)
    model = build_model(config)
    hugging_face.load_arrays(model, arrays)
    ours = keras.ops.convert_to_numpy(model(batch, training=False))
    assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()
    without = dict(batch, **{SOURCE_IDS: np.where(batch[SOURCE_IDS] == 0, 7, batch[SOURCE_IDS])})
    assert np.abs(say_logits(load_peer(config, arrays), without) - theirs).max() > 0.01 * np.abs(theirs).max()


@versions
def test_bfloat16_says_nearly_the_same(config):
    arrays, batch = make_arrays(config), make_batch(config)
    theirs = say_logits(load_peer(config, arrays), batch)
    model = build_model(config, "bfloat16")
    hugging_face.load_arrays(model, arrays)
    ours = keras.ops.convert_to_numpy(model(batch, training=False))
    assert np.abs(ours - theirs).mean() <= 0.05 * np.abs(theirs).mean()


@versions
def test_greedy_decoding_says_what_transformers_says(config):
    arrays, source = make_arrays(config), make_batch(config, rows=50)[SOURCE_IDS]
    peer = load_peer(config, arrays)
    import torch

    theirs = peer.generate(
        torch.tensor(source).long(),
        attention_mask=torch.tensor(source != 0).long(),
        max_new_tokens=config.target_length,
        do_sample=False,
        suppress_tokens=[0, 2],  # logits.NEVER_SAID
        decoder_start_token_id=0,
        use_cache=False,  # that of release 5.24 has as many layers as the encoder
    ).numpy()[:, 1:]
    model = build_model(config)
    hugging_face.load_arrays(model, arrays)
    start, step = model.build_start(), model.build_step()

    @tf.function
    def say(source):
        fixed = dict(start(source, training=False))
        del fixed["context"]

        def say_next(token_ids, position, cache):
            return step({"token_ids": token_ids, "position": position, **fixed, **cache}, training=False)

        return decode(say_next, model.empty_cache(50), Greedy(), 50, config.target_length)

    ours = say(tf.constant(source)).numpy()
    assert len({tuple(row) for row in ours.tolist()}) > 25  # the sources matter
    np.testing.assert_array_equal(ours[:, : theirs.shape[1]], theirs)
    assert not ours[:, theirs.shape[1] :].any()


def test_examples_in_docstrings():
    result = doctest.testmod(hugging_face)
    assert result.attempted and not result.failed
