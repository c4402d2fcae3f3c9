"""The encoder–decoder transformer, drawn with Keras's functional API.

The article's five parts are five named layers, in the article's order in `model.summary()`: input_embedding,
position_embedding, encoder, decoder, output_embedding. The same layers are drawn into three graphs: the model itself
(training), `build_start` (encode once) and `build_step` (one cached step of decoding).

Glossary: B batch, S source length, T target length, C context length (1 for a vector, S for a sequence), D width,
H heads, K head size, V vocabulary, N rows in decoding, k new tokens of a decoding step.
"""

import contextlib
import dataclasses

import keras
from keras import ops

from tf_llm.contracts import DECODER_IDS, SOURCE_IDS
from tf_llm.model.blocks import DecoderBlocks, EncoderBlock, build_norm
from tf_llm.model.layers import ContextVector, MaskedBatchNorm, PositionEmbedding
from tf_llm.model.masks import CausalMask, SourceMask, TargetMask

CONTEXTS = ("sequence", "vector")
POSITIONS = ("learned", "sinusoidal")
# Keras's dtype policies. The mixed ones keep float32 weights, bfloat16 rounds them too and is meant for decoding alone.
PRECISIONS = ("bfloat16", "float32", "mixed_bfloat16", "mixed_float16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Shape and regularisation of a transformer. The defaults are the article's, where it names one."""

    vocabulary_size: int = 8_003  # V, the special tokens included
    source_length: int = 64  # S, tokens that the encoder reads
    target_length: int = 64  # T, tokens that the decoder says
    num_layers: int = 2  # blocks in the encoder, and as many in the decoder
    num_heads: int = 4  # H
    d_model: int = 256  # D
    d_ff: int = 1024  # width between the two layers of a feed-forward block
    context: str = "vector"  # what the decoder sees of the source: one "vector" (the article), or the whole "sequence"
    positions: str = "learned"  # or "sinusoidal"
    input_norms: bool = True  # batch and layer normalisation of the embedded words, as in the article
    embedding_dropout: float = 0.1  # after the input embedding, as in the article
    residual_dropout: float = 0.0  # on what each part of a block adds; the article names no such place
    output_l2: float = 0.01  # L2 on the kernel of the output embedding, as in the article

    def __post_init__(self):
        for name in ("vocabulary_size", "source_length", "target_length", "num_layers", "num_heads", "d_model", "d_ff"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"model.{name} expected a whole number of at least 1. Received: {value!r}")
        if self.d_model % self.num_heads:
            raise ValueError(
                f"model.d_model expected a multiple of num_heads, which is {self.num_heads}. Received: {self.d_model}"
            )
        for name, known in (("context", CONTEXTS), ("positions", POSITIONS)):
            if getattr(self, name) not in known:
                raise ValueError(f"model.{name} expected one of {sorted(known)}. Received: {getattr(self, name)!r}")
        if self.positions == "sinusoidal" and (self.d_model % 2 or self.d_model < 4):
            raise ValueError(
                "model.d_model expected an even number of at least 4 with sinusoidal positions. "
                f"Received: {self.d_model}; choose another, or positions='learned'"
            )
        for name in ("embedding_dropout", "residual_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"model.{name} expected a share in [0, 1). Received: {getattr(self, name)!r}")
        if not self.output_l2 >= 0:
            raise ValueError(f"model.output_l2 expected a number of at least 0. Received: {self.output_l2!r}")

    @property
    def head_size(self):
        """K, the width of one head."""
        return self.d_model // self.num_heads

    @property
    def context_length(self):
        """C, the number of vectors that the decoder sees of the source."""
        return 1 if self.context == "vector" else self.source_length


def build_model(config, precision="float32"):
    """Builds a transformer that computes in `precision`; Keras's global dtype policy plays no part and stays as it is.

    Args:
        config: a `ModelConfig`.
        precision: one of `PRECISIONS`. The logits are float32 in each of them.

    >>> model = build_model(ModelConfig(vocabulary_size=100), precision="mixed_bfloat16")
    >>> model.output_shape, model.compute_dtype, keras.config.dtype_policy().name
    ((None, 64, 100), 'bfloat16', 'float32')
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision expected one of {sorted(PRECISIONS)}. Received: {precision!r}")
    with use_dtype_policy(precision):
        return Transformer(config)


@contextlib.contextmanager
def use_dtype_policy(policy):
    """Makes `policy` Keras's global dtype policy inside the `with` block."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


@keras.saving.register_keras_serializable("tf_llm")
class Transformer(keras.Model):
    """The article's encoder–decoder: {source_ids [B, S], decoder_ids [B, T]} int32 -> logits float32 [B, T, V].

    It computes in the global dtype policy of the moment at which it is made, also later and after loading;
    `build_model` takes the policy as an argument.

    Args:
        config: a `ModelConfig`.
    """

    def __init__(self, config, **kwargs):
        # === Layers: the article's five parts ===
        input_embedding = build_input_embedding(config)
        position_embedding = PositionEmbedding(
            max(config.source_length, config.target_length), config.positions, name="position_embedding"
        )
        encoder = build_encoder(config)
        decoder_blocks = DecoderBlocks(config)
        decoder = build_decoder(config, decoder_blocks)
        output_embedding = keras.layers.Dense(
            config.vocabulary_size,
            kernel_regularizer=keras.regularizers.L2(config.output_l2) if config.output_l2 else None,
            name="output_embedding",
        )
        logits_to_float32 = keras.layers.Activation("linear", dtype="float32", name="logits")

        # === Functional graph for training ===
        source_ids = keras.Input((config.source_length,), dtype="int32", name=SOURCE_IDS)
        decoder_ids = keras.Input((config.target_length,), dtype="int32", name=DECODER_IDS)
        source_mask = SourceMask(name="source_mask")(source_ids)
        decoder_mask = TargetMask(name="decoder_mask")(decoder_ids)
        source = position_embedding(input_embedding([source_ids, source_mask]), position=0)  # [B, S, D]
        context, context_mask = encoder([source, source_mask])  # [B, C, D], [B, C]
        said = position_embedding(input_embedding([decoder_ids, decoder_mask]), position=0)  # [B, T, D]
        hidden = decoder([said, context, context_mask])  # [B, T, D]
        logits = logits_to_float32(output_embedding(hidden))  # [B, T, V]
        super().__init__({SOURCE_IDS: source_ids, DECODER_IDS: decoder_ids}, logits, **kwargs)

        # === What the two graphs for decoding are drawn from, besides the layers ===
        self.config = config
        self._decoder_blocks = decoder_blocks

    def build_start(self):
        """Draws the graph that encodes once: source_ids [N, S] -> the state that decoding starts from.

        The state holds `context_keys_i` and `context_values_i` [N, C, H, K] for each decoder block i, `context_mask`
        bool [N, C], and `context` [N, C, D] itself, which the steps do not need: an application embeds texts by it.
        """
        with use_dtype_policy(self.dtype_policy):
            source_ids = keras.Input((self.config.source_length,), dtype="int32", name=SOURCE_IDS)
            source_mask = self.get_layer("source_mask")(source_ids)
            source = self.get_layer("input_embedding")([source_ids, source_mask])
            source = self.get_layer("position_embedding")(source, position=0)  # [N, S, D]
            context, context_mask = self.get_layer("encoder")([source, source_mask])
            keys_values = self._decoder_blocks.context_keys_values(context)
            state = {"context": context, "context_mask": context_mask, **name_keys_values("context_", keys_values)}
            return keras.Model(source_ids, state, name="start")

    def build_step(self, num_tokens=1):
        """Draws the graph of one cached step: `num_tokens` k further tokens for each of N rows.

        Inputs: a dictionary of `token_ids` int32 [N, k]; `position` int32 [], where the first of them stands, with
        position + k at most T; the state of `build_start` without `context`; and the cache, `keys_i` and `values_i`
        [N, T, H, K] for each decoder block i (`empty_cache` makes the first). Outputs: logits float32 [N, k, V] and
        the cache with the k tokens in it.
        """
        config = self.config
        with use_dtype_policy(self.dtype_policy):
            token_ids = keras.Input((num_tokens,), dtype="int32", name="token_ids")
            position = keras.Input(batch_shape=(), dtype="int32", name="position")
            context_mask = keras.Input((config.context_length,), dtype="bool", name="context_mask")
            context = draw_keys_values("context_", config, config.context_length)
            cache = draw_keys_values("", config, config.target_length)
            inputs = {"token_ids": token_ids, "position": position, "context_mask": context_mask}
            inputs |= name_keys_values("context_", context) | name_keys_values("", cache)

            every_token = ops.ones_like(token_ids, dtype="bool")  # [N, k]
            hidden = self.get_layer("input_embedding")([token_ids, every_token])
            hidden = self.get_layer("position_embedding")(hidden, position=position)  # [N, k, D]
            causal_mask = CausalMask(config.target_length, name="causal_mask")(token_ids, position=position)
            hidden, cache = self._decoder_blocks(
                hidden, causal_mask, context, context_mask[:, None, None, :], cache, position
            )
            logits = self.get_layer("logits")(self.get_layer("output_embedding")(hidden))  # [N, k, V]
            return keras.Model(inputs, [logits, name_keys_values("", cache)], name="step")

    def empty_cache(self, batch_size):
        """The cache before the first step: `keys_i` and `values_i`, zeros [N, T, H, K], for each decoder block i."""
        shape = (batch_size, self.config.target_length, self.config.num_heads, self.config.head_size)
        zeros = ops.zeros(shape, dtype=self.compute_dtype)
        return name_keys_values("", [(zeros, zeros)] * self.config.num_layers)

    def get_config(self):
        return {"config": dataclasses.asdict(self.config), "dtype": self.dtype_policy.name, "name": self.name}

    @classmethod
    def from_config(cls, config):
        with use_dtype_policy(config["dtype"]):
            return cls(ModelConfig(**config["config"]), name=config["name"])


def build_input_embedding(config):
    """Draws part one: ids int32 [B, T] and their mask bool [B, T] -> vectors [B, T, D].

    The article's order: a table of vectors, dropout, batch normalisation, layer normalisation. The mask keeps padding
    out of the batch statistics; without it they would say how much padding there was rather than how words lie.
    Batch statistics are taken over all words of the targets, later ones too: in training, and only there, the recipe
    gives the decoder a faint view of what comes.

    Words and positions are added, so neither may drown the other. Vectors that no norm brings to size start at unit
    variance where waves are added to them (Vaswani et al. 2017, section 3.4), and as small as the learned positions
    elsewhere.
    """
    scale = config.d_model**0.5 if config.positions == "sinusoidal" and not config.input_norms else 1.0
    initializer = "uniform" if scale == 1.0 else keras.initializers.RandomNormal(stddev=1 / scale)
    ids = keras.Input((None,), dtype="int32", name="ids")
    mask = keras.Input((None,), dtype="bool", name="mask")
    hidden = keras.layers.Embedding(config.vocabulary_size, config.d_model, initializer, name="table")(ids)
    if scale != 1.0:
        hidden = keras.layers.Rescaling(scale, name="scale")(hidden)
    hidden = keras.layers.Dropout(config.embedding_dropout, name="dropout")(hidden)
    if config.input_norms:
        hidden = MaskedBatchNorm(name="batch_norm")(hidden, keep_mask=mask)
        hidden = build_norm("layer_norm")(hidden)
    return keras.Model([ids, mask], hidden, name="input_embedding")


def build_encoder(config):
    """Draws part three: embedded [B, S, D] and mask bool [B, S] -> context [B, C, D] and its mask bool [B, C]."""
    embedded = draw_vectors("embedded", config.source_length, config.d_model)
    source_mask = keras.Input((config.source_length,), dtype="bool", name="mask")
    hidden = embedded
    for i in range(config.num_layers):
        hidden = EncoderBlock(config, f"encoder_{i}")(hidden, source_mask[:, None, None, :])
    context, context_mask = build_norm("encoder_norm")(hidden), source_mask
    if config.context == "vector":
        context = ContextVector(name="context_vector")(context, source_mask)
        context_mask = ops.ones_like(source_mask[:, :1])
    return keras.Model([embedded, source_mask], [context, context_mask], name="encoder")


def build_decoder(config, blocks):
    """Draws part four: embedded [B, T, D], context [B, C, D] and its mask bool [B, C] -> [B, T, D]."""
    embedded = draw_vectors("embedded", config.target_length, config.d_model)
    context = draw_vectors("context", config.context_length, config.d_model)
    context_mask = keras.Input((config.context_length,), dtype="bool", name="context_mask")
    causal_mask = CausalMask(config.target_length, name="causal_mask")(embedded, position=0)
    keys_values = blocks.context_keys_values(context)
    hidden, _ = blocks(embedded, causal_mask, keys_values, context_mask[:, None, None, :])
    return keras.Model([embedded, context, context_mask], hidden, name="decoder")


def draw_vectors(name, *shape):
    """Draws an input for vectors: like what a layer puts out, in the compute dtype and not in float32."""
    return keras.Input(shape, dtype=keras.config.dtype_policy().compute_dtype, name=name)


def draw_keys_values(prefix, config, length):
    """Draws the inputs for that part of a state that each block has: a list of (keys, values) [N, length, H, K]."""
    shape = (length, config.num_heads, config.head_size)
    return [
        (draw_vectors(f"{prefix}keys_{i}", *shape), draw_vectors(f"{prefix}values_{i}", *shape))
        for i in range(config.num_layers)
    ]


def name_keys_values(prefix, keys_values):
    """Gives that part its names in the state.

    >>> name_keys_values("context_", [("k", "v")])
    {'context_keys_0': 'k', 'context_values_0': 'v'}
    """
    state = {}
    for i, (keys, values) in enumerate(keys_values):
        state |= {f"{prefix}keys_{i}": keys, f"{prefix}values_{i}": values}
    return state
