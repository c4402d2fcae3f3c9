"""The transformer of the TensorFlow Models, `official.nlp.modeling.models.Seq2SeqTransformer`, moved into ours.

Arrays in, weights out: where the arrays come from is load_tf_models.py's affair. Tensors go by the names that a
`tf.train.Checkpoint` gives them, which are the paths of attributes: `decoder_layer/decoder_layers/0/output_dense/bias`.
(The names of the variables themselves depend on what else was built in the same process.)

Glossary: V vocabulary, D width, H heads, K head size, F feed-forward width.
"""

import re

import numpy as np

from tf_llm.contracts import UserError
from tf_llm.model.config import ModelConfig

# What makes an `EncoderDecoder` this transformer. The dropouts are those of its translation task.
SETTINGS = {
    "context": "sequence",
    "positions": "sinusoidal",
    "norm": "layer",
    "norm_place": "first",
    "norm_epsilon": 1e-6,
    "input_norm": "none",
    "activation": "relu",
    "embeddings": "all",
    "embedding_scale": True,
    "output_bias": False,
    "output_l2": 0.0,
    "embedding_dropout": 0.1,
    "attention_dropout": 0.1,
    "feed_forward_dropout": 0.1,
    "residual_dropout": 0.1,
}

TABLE = "embedding_lookup/embeddings"
# stack -> our part of a block: what it is called there
BLOCKS = {
    "encoder": {
        "attention": "_attention_layer",
        "attention_norm": "_attention_layer_norm",
        "feed_forward/widen": "_intermediate_dense",
        "feed_forward/narrow": "_output_dense",
        "feed_forward_norm": "_output_layer_norm",
    },
    "decoder": {
        "attention": "self_attention",
        "attention_norm": "self_attention_layer_norm",
        "context_attention": "encdec_attention",
        "context_norm": "encdec_attention_layer_norm",
        "feed_forward/widen": "intermediate_dense",
        "feed_forward/narrow": "output_dense",
        "feed_forward_norm": "output_layer_norm",
    },
}


def config_from_arrays(arrays, **settings):
    """The `ModelConfig` that the shapes of the tensors tell.

    Args:
        arrays: {name there: array}.
        settings: what shapes do not tell: above all `source_length` and `target_length`. They come before `SETTINGS`.

    Raises:
        UserError: the tensors that would tell are missing or have another number of dimensions.

    >>> shapes = {TABLE: (100, 32)}
    >>> shapes["encoder_layer/encoder_layers/0/_attention_layer/_query_dense/kernel"] = (32, 4, 8)
    >>> shapes["encoder_layer/encoder_layers/0/_intermediate_dense/kernel"] = (32, 64)
    >>> shapes["decoder_layer/decoder_layers/2/output_dense/bias"] = (32,)
    >>> config = config_from_arrays({name: np.zeros(shape) for name, shape in shapes.items()}, target_length=20)
    >>> config.num_layers, config.decoder_layers, config.num_heads, config.d_ff, config.target_length
    (1, 3, 4, 64, 20)
    """
    first = "encoder_layer/encoder_layers/0"
    telling = (
        (TABLE, 2),
        (f"{first}/_attention_layer/_query_dense/kernel", 3),
        (f"{first}/_intermediate_dense/kernel", 2),
    )
    for name, rank in telling:
        if name not in arrays or np.ndim(arrays[name]) != rank:
            received = f"one with {np.ndim(arrays[name])}" if name in arrays else f"{sorted(arrays)[:3]} and others"
            raise UserError(
                f"expected the tensors of a Seq2SeqTransformer, among them {name} of {rank} dimensions. "
                f"Received: {received}. Check what the checkpoint was made from"
            )
    (vocabulary_size, d_model), (_, num_heads, d_head), (_, d_ff) = (arrays[name].shape for name, _ in telling)
    shape = {
        "vocabulary_size": vocabulary_size,
        "d_model": d_model,
        "num_heads": num_heads,
        "d_head": d_head,
        "d_ff": d_ff,
    }
    for stack, setting in (("encoder", "num_layers"), ("decoder", "num_decoder_layers")):
        blocks = [re.match(rf"{stack}_layer/{stack}_layers/(\d+)/", name) for name in arrays]
        shape[setting] = max((int(block[1]) + 1 for block in blocks if block), default=1)
    return ModelConfig(**{**SETTINGS, **shape, **settings})


def map_tensors(config):
    """{name there: (shape there, path of our weight)}.

    What shares one of our weights, the keys and the values, lies there side by side, in this order.

    >>> table = map_tensors(ModelConfig(vocabulary_size=100, d_model=32, num_heads=4, d_ff=64, num_layers=1))
    >>> table["encoder_layer/encoder_layers/0/_attention_layer/_key_dense/kernel"]
    ((32, 4, 8), 'encoder_0_keys_values/projection/kernel')
    """
    width, wide, heads = (config.d_model,), (config.d_ff,), (config.num_heads, config.head_size)
    table = {TABLE: ((config.vocabulary_size, config.d_model), "table/embeddings")}

    def add(there, here, **shapes):
        table.update({f"{there}/{name}": (shape, f"{here}/{name}") for name, shape in shapes.items()})

    for stack, layers in (("encoder", config.num_layers), ("decoder", config.decoder_layers)):
        for i in range(layers):
            for part, called in BLOCKS[stack].items():
                there, here = f"{stack}_layer/{stack}_layers/{i}/{called}", f"{stack}_{i}_{part}"
                if part.endswith("norm"):
                    add(there, here, gamma=width, beta=width)
                elif part.endswith("attention"):
                    keys_values = here.removesuffix("attention") + "keys_values/projection"
                    add(f"{there}/_query_dense", f"{here}/query", kernel=width + heads)
                    add(f"{there}/_key_dense", keys_values, kernel=width + heads)
                    add(f"{there}/_value_dense", keys_values, kernel=width + heads)
                    add(f"{there}/_output_dense", f"{here}/output", kernel=heads + width)
                elif part.endswith("widen"):
                    add(there, here, kernel=width + wide, bias=wide)
                else:
                    add(there, here, kernel=wide + width, bias=width)
        add(f"{stack}_layer/output_normalization", f"{stack}_norm", gamma=width, beta=width)
    return table


def load_arrays(model, arrays):
    """Sets the weights of a model to tensors of a Seq2SeqTransformer of the same shape.

    Args:
        model: an `EncoderDecoder`, for instance of what `config_from_arrays` says.
        arrays: {name there: array}.

    Raises:
        UserError: a tensor is missing, has no place, or has another shape; or a weight would get none. The message
            names all of them, and no weight has been changed.
    """
    table, weights = map_tensors(model.config), {weight.path: weight for weight in model.trainable_weights}
    places = {here for _, here in table.values()}
    faults = {
        "missing": sorted(set(table) - set(arrays)),
        "without a place": sorted(name for name in arrays if name not in table or table[name][1] not in weights),
        "of another shape": [
            f"{name} {np.shape(arrays[name])}, not {shape}"
            for name, (shape, _) in table.items()
            if name in arrays and np.shape(arrays[name]) != shape
        ],
        "weights that no tensor is for": sorted(set(weights) - places),
    }
    if any(faults.values()):
        received = "; ".join(f"{len(names)} {fault}: {', '.join(names)}" for fault, names in faults.items() if names)
        raise UserError(
            f"expected the tensors of a Seq2SeqTransformer of the model's shape. Received: {received}. "
            "Check the settings of the model against those of the checkpoint"
        )
    parts = {here: [] for here in weights}
    for name, (_, here) in table.items():
        parts[here].append(np.reshape(arrays[name], (weights[here].shape[0], -1)))  # heads and their sizes become one
    for here, weight in weights.items():
        weight.assign(np.concatenate(parts[here], axis=1).reshape(weight.shape))
