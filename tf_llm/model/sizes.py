"""Models by name: our own in four sizes, the transformer that the article links, and T5 in both versions.

tiny small base large           ours: RMSNorm before each part, rotary positions, SwiGLU, one table for all words,
                                no biases, no dropout (a page is read once); large shares keys among four heads
transformer_base, _big          the TensorFlow Models' Seq2SeqTransformer (Vaswani et al. 2017, norms first)
t5_small … t5_3b                T5 1.0 (Raffel et al. 2020): ReLU, the output is the input table
t5_v1_1_small … t5_v1_1_xl      T5 1.1 (Shazeer 2020): gated GELU, an output table of its own; Flan-T5's shape
"""

import dataclasses
import math
from concurrent import futures

import keras

from tf_llm.model.config import ModelConfig
from tf_llm.model.encoder_decoder import build_model

DROPOUTS = ("embedding_dropout", "attention_dropout", "feed_forward_dropout", "residual_dropout", "output_dropout")

OURS = ModelConfig(
    vocabulary_size=32_128,
    source_length=512,
    target_length=128,
    context="sequence",
    positions="rotary",
    norm="rms",
    input_norm="none",
    activation="swiglu",
    feed_forward_bias=False,
    embeddings="all",
    embedding_scale=True,
    output_bias=False,
    output_l2=0.0,
    **dict.fromkeys(DROPOUTS, 0.0),
)
TRANSFORMER = ModelConfig(
    vocabulary_size=33_708,
    source_length=256,
    target_length=256,
    num_layers=6,
    context="sequence",
    positions="sinusoidal",
    input_norm="none",
    embeddings="all",
    embedding_scale=True,
    output_bias=False,
    output_l2=0.0,
    **{**dict.fromkeys(DROPOUTS, 0.1), "output_dropout": 0.0},
)
T5 = ModelConfig(
    vocabulary_size=32_128,
    source_length=512,
    target_length=128,
    d_head=64,
    context="sequence",
    positions="relative",
    norm="rms",
    input_norm="none",
    feed_forward_bias=False,
    attention_scale=False,
    embeddings="all",
    output_scale=True,
    output_bias=False,
    output_l2=0.0,
    **dict.fromkeys(DROPOUTS, 0.1),
)
T5_V1_1 = dataclasses.replace(T5, activation="gated_gelu", embeddings="inputs", output_scale=False)


def _shape(config, num_layers, d_model, num_heads, d_ff, **changes):
    return dataclasses.replace(
        config, num_layers=num_layers, d_model=d_model, num_heads=num_heads, d_ff=d_ff, **changes
    )


SIZES = {
    "tiny": _shape(OURS, 2, 128, 4, 384, vocabulary_size=8_192, source_length=128),
    "small": _shape(OURS, 4, 256, 4, 704, vocabulary_size=8_192, source_length=128),
    "base": _shape(OURS, 6, 512, 8, 1_408),
    "large": _shape(OURS, 12, 1_024, 16, 2_752, num_key_value_heads=4),
    "transformer_base": _shape(TRANSFORMER, 6, 512, 8, 2_048),
    "transformer_big": _shape(TRANSFORMER, 6, 1_024, 16, 4_096),
    "t5_small": _shape(T5, 6, 512, 8, 2_048),
    "t5_base": _shape(T5, 12, 768, 12, 3_072),
    "t5_large": _shape(T5, 24, 1_024, 16, 4_096),
    "t5_3b": _shape(T5, 24, 1_024, 32, 16_384, d_head=128),
    "t5_v1_1_small": _shape(T5_V1_1, 8, 512, 6, 1_024),
    "t5_v1_1_base": _shape(T5_V1_1, 12, 768, 12, 2_048),
    "t5_v1_1_large": _shape(T5_V1_1, 24, 1_024, 16, 2_816),
    "t5_v1_1_xl": _shape(T5_V1_1, 24, 2_048, 32, 5_120),
}


def build_size(name, **changes):
    """The `ModelConfig` of a name in SIZES, with changes: `build_model(build_size("base"))` is a model.

    >>> build_size("t5_small", dropout=0.0)
    Traceback (most recent call last):
    TypeError: ModelConfig.__init__() got an unexpected keyword argument 'dropout'
    >>> build_size("t5_small", source_length=64).source_length
    64
    """
    if name not in SIZES:
        raise ValueError(f"size expected one of {sorted(SIZES)}. Received: {name!r}")
    return dataclasses.replace(SIZES[name], **changes)


def count_parameters(config):
    """How many numbers the model of a `ModelConfig` trains, without the memory for them.

    >>> count_parameters(build_size("t5_small"))
    60506624
    """

    def count():
        # No variable gets a value inside of this scope. Keras keeps a list of them, to be made up for by the next scope
        # that ends; but one list a thread, which goes with the thread.
        with keras.StatelessScope(initialize_variables=False):
            return sum(math.prod(variable.shape) for variable in build_model(config).trainable_variables)

    with futures.ThreadPoolExecutor(1) as thread:
        return thread.submit(count).result()
