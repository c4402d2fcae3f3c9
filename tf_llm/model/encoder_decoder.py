"""The encoder–decoder, drawn with Keras's functional API.

The article's five parts are five named layers, in the article's order in `model.summary()`: input_embedding,
position_embedding, encoder, decoder, output_embedding. (Relative and rotary positions are no layer of their own: they
act inside of attention.) The same layers are drawn into three graphs: the model itself (training), `build_start`
(encode once) and `build_step` (one cached step of decoding).

Glossary: B batch, S source length, T target length, C context length (1 for a vector, S for a sequence), D width,
V vocabulary, N rows in decoding, k new tokens of a decoding step.
"""

import contextlib
import dataclasses

import keras
from keras import ops

from tf_llm.contracts import (
    DECODER_IDS,
    DECODER_POSITIONS,
    DECODER_SEGMENTS,
    SOURCE_IDS,
    SOURCE_POSITIONS,
    SOURCE_SEGMENTS,
)
from tf_llm.model.config import ARCHITECTURES, ModelConfig
from tf_llm.model.dropout import Dropout
from tf_llm.model.layers import ContextVector, TiedOutput
from tf_llm.model.masks import SegmentMask, SourceMask, TargetMask
from tf_llm.model.norms import NORMS
from tf_llm.model.positions import POSITIONS
from tf_llm.model.stacks import Decoder, Encoder

# Keras's dtype policies. The mixed ones keep float32 weights, bfloat16 rounds them too and is meant for decoding alone.
PRECISIONS = ("bfloat16", "float32", "mixed_bfloat16", "mixed_float16")


def build_model(config, precision="float32"):
    """Builds an encoder–decoder that computes in `precision`. Keras's global dtype policy plays no part in it.

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
        return EncoderDecoder(config)


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
class EncoderDecoder(keras.Model):
    """The article's encoder–decoder: {source_ids [B, S], decoder_ids [B, T]} int32 -> logits float32 [B, T, V].

    A model with `config.packed` takes the segments and positions of both sides besides (contracts.py).

    It computes in the global dtype policy of the moment at which it is made, also later and after loading;
    `build_model` takes the policy as an argument.

    Args:
        config: a `ModelConfig`.
    """

    def __init__(self, config, **kwargs):
        # === Layers: the article's five parts ===
        input_embedding = build_input_embedding(config, "input_embedding")
        target_embedding = input_embedding
        if config.embeddings == "none":
            target_embedding = build_input_embedding(config, "target_embedding")
        positions = POSITIONS[config.positions](config)
        encoder_block, decoder_block = ARCHITECTURES[config.architecture]
        encoder_blocks = [encoder_block(config, f"encoder_{i}") for i in range(config.num_layers)]
        decoder_blocks = [decoder_block(config, f"decoder_{i}") for i in range(config.decoder_layers)]
        decoder_stack = Decoder(config, decoder_blocks, positions, "decoder")
        encoder = build_encoder(config, Encoder(config, encoder_blocks, positions, "encoder"))
        decoder = build_decoder(config, decoder_stack)
        output_embedding = build_output_embedding(config, input_embedding)
        logits_to_float32 = keras.layers.Activation("linear", dtype="float32", name="logits")

        # === Functional graph for training ===
        inputs = draw_batch(config)
        source_mask = SourceMask(name="source_mask")(inputs[SOURCE_IDS])
        decoder_mask = TargetMask(name="decoder_mask")(inputs[DECODER_IDS])
        source = positions.embed(
            input_embedding([inputs[SOURCE_IDS], source_mask]), inputs.get(SOURCE_POSITIONS, 0)
        )  # [B, S, D]
        source_segments = [inputs[SOURCE_SEGMENTS]] if config.packed else []
        context, context_mask = encoder([source, source_mask, *source_segments])  # [B, C, D], [B, C]
        said = positions.embed(
            target_embedding([inputs[DECODER_IDS], decoder_mask]), inputs.get(DECODER_POSITIONS, 0)
        )  # [B, T, D]
        decoder_segments = [inputs[DECODER_SEGMENTS]] if config.packed else []
        hidden = decoder([said, decoder_mask, context, context_mask, *decoder_segments, *source_segments])  # [B, T, D]
        logits = logits_to_float32(output_embedding(hidden))  # [B, T, V]
        super().__init__(inputs, logits, **kwargs)

        # === What the two graphs for decoding are drawn from, besides the layers ===
        self.config = config
        self._positions, self._decoder_stack = positions, decoder_stack

    def build_start(self):
        """Draws the graph that encodes once: source_ids [N, S] -> the state that decoding starts from.

        The state holds `context_keys_i` and `context_values_i` [N, G, C, K] for each decoder block i, `context_mask`
        bool [N, C], and `context` [N, C, D] itself, which the steps do not need: an application embeds texts by it.
        """
        with use_dtype_policy(self.dtype_policy):
            source_ids = keras.Input((self.config.source_length,), dtype="int32", name=SOURCE_IDS)
            source_mask = self.get_layer("source_mask")(source_ids)
            source = self._positions.embed(self.get_layer("input_embedding")([source_ids, source_mask]), 0)  # [N, S, D]
            every = [ops.cast(source_mask, "int32")] if self.config.packed else []  # one example a row
            context, context_mask = self.get_layer("encoder")([source, source_mask, *every])
            read = self._decoder_stack.read_context(context)
            return keras.Model(source_ids, {"context": context, "context_mask": context_mask, **read}, name="start")

    def build_step(self, num_tokens=1, with_hidden=False, num_beams=1):
        """Draws the graph of one cached step: `num_tokens` k further tokens for each of N rows.

        Inputs: a dictionary of `token_ids` int32 [N, k]; `position` int32 [], where the first of them stands, with
        position + k at most T; the state of `build_start` without `context`; and the cache (`empty_cache` makes the
        first): for each decoder block i of a transformer, `keys_i` and `values_i` [N, G, T, K]. Outputs: logits
        float32 [N, k, V] and the cache with the k tokens in it; `with_hidden`, what the logits are made of stands
        between the two, [N, k, D].

        With `num_beams` W above 1 the step is for W beams of each row, one token each: `token_ids` are [N, W], all at
        `position`, logits [N, W, V]. Beams share the context, and a cache in which everything stands that any of them
        has said ([N, G, T·W, K]); a further input, `lineage` int32 [N, W, T], says whose token each has taken over at
        which position (masks.LineageMask). Then a change of places among beams moves no keys and values.

        Raises:
            ValueError: beams are to share a cache that is not only keys and values.
        """
        stack = self._decoder_stack
        if num_beams > 1 and (num_tokens > 1 or not self.beams_can_share):
            raise ValueError(
                "num_beams is expected to be 1 for several tokens a beam, and for models that remember more than keys "
                f"and values. Received: {num_beams}"
            )
        num_tokens = max(num_tokens, num_beams)
        with use_dtype_policy(self.dtype_policy):
            token_ids = keras.Input((num_tokens,), dtype="int32", name="token_ids")
            position = keras.Input(batch_shape=(), dtype="int32", name="position")
            context_mask = keras.Input((self.config.context_length,), dtype="bool", name="context_mask")
            read = {name: draw_vectors(name, *shape) for name, shape in stack.context_shapes.items()}
            cache = {name: draw_vectors(name, *shape) for name, shape in self._cache_shapes(num_beams).items()}
            inputs = {"token_ids": token_ids, "position": position, "context_mask": context_mask, **read, **cache}

            stands, lineage = position, None
            if num_beams > 1:
                lineage = inputs["lineage"] = keras.Input(
                    (num_beams, self.config.target_length), dtype="int32", name="lineage"
                )
                stands = position + ops.zeros_like(token_ids)  # [N, W], the same place for all
            every_token = ops.ones_like(token_ids, dtype="bool")  # [N, k]
            embedding = self.get_layer("target_embedding" if self.config.embeddings == "none" else "input_embedding")
            hidden = self._positions.embed(embedding([token_ids, every_token]), stands)  # [N, k, D]
            seen = context_mask[:, None, None, :]  # [N, 1, 1, C]
            hidden, cache = stack(hidden, every_token, read, seen, cache=cache, position=position, lineage=lineage)
            logits = self.get_layer("logits")(self.get_layer("output_embedding")(hidden))  # [N, k, V]
            return keras.Model(inputs, [logits, hidden, cache] if with_hidden else [logits, cache], name="step")

    @property
    def beams_can_share(self):
        """Whether there is a step for several beams of a row (`build_step`)."""
        return self._decoder_stack.cache_is_by_position

    def empty_cache(self, batch_size, num_beams=1):
        """The cache before the first step: zeros, for N = `batch_size` rows, of W = `num_beams` beams each."""
        shapes = self._cache_shapes(num_beams)
        return {name: ops.zeros((batch_size, *shape), dtype=self.compute_dtype) for name, shape in shapes.items()}

    def _cache_shapes(self, num_beams):
        shapes = self._decoder_stack.cache_shapes
        if num_beams == 1:
            return shapes
        return {name: (heads, length * num_beams, size) for name, (heads, length, size) in shapes.items()}

    def start_from_frequencies(self, counts):
        """Lets the output begin as a unigram: its biases become the logarithms of the words' frequencies.

        A model that begins at zeros spends its first hundred steps on learning them.

        Args:
            counts: [V], how often each id occurs; half an occurrence is added to each.

        Raises:
            ValueError: the output has no biases.
        """
        output = self.get_layer("output_embedding")
        output = output.get_layer("output") if self.config.output_scale else output
        if not self.config.output_bias:
            raise ValueError("model.output_bias expected True to start from frequencies. Received: False")
        counts = ops.cast(counts, "float32") + 0.5
        output.bias.assign(ops.log(counts / ops.sum(counts)))

    def get_config(self):
        return {"config": dataclasses.asdict(self.config), "dtype": self.dtype_policy.name, "name": self.name}

    @classmethod
    def from_config(cls, config):
        with use_dtype_policy(config["dtype"]):
            return cls(ModelConfig(**config["config"]), name=config["name"])


def build_input_embedding(config, name):
    """Draws part one: ids int32 [B, T] and their mask bool [B, T] -> vectors [B, T, D].

    The article's order: a table of vectors, dropout, batch normalisation, layer normalisation.

    Words and positions are added, so neither may drown the other; and a table that is also the output must not make the
    first logits large. Hence the sizes at which tables start:

    - 1/√D where √D scales the words up again, and where the table is the output and nothing scales that down;
    - Keras's own ±.05, the size of learned positions, where a norm follows or learned positions are added;
    - 1 elsewhere, the size of the waves and of what T5 begins with.
    """
    ids = keras.Input((None,), dtype="int32", name="ids")
    mask = keras.Input((None,), dtype="bool", name="mask")
    if config.embedding_scale or (config.embeddings == "all" and not config.output_scale):
        initializer = keras.initializers.RandomNormal(stddev=config.d_model**-0.5)
    elif config.input_norm != "none" or config.positions == "learned":
        initializer = "uniform"
    else:
        initializer = keras.initializers.RandomNormal(stddev=1.0)
    table_name = "table" if name == "input_embedding" else f"{name}_table"
    size = config.vocabulary_size if name == "input_embedding" else config.said_vocabulary_size
    hidden = keras.layers.Embedding(size, config.d_model, initializer, name=table_name)(ids)
    if config.embedding_scale:
        hidden = keras.layers.Rescaling(config.d_model**0.5, name="scale")(hidden)
    hidden = Dropout(config.embedding_dropout, name="dropout")(hidden)
    if config.input_norm != "none":
        hidden = NORMS[config.input_norm](epsilon=config.norm_epsilon, name=f"{name}_norm")(hidden, keep_mask=mask)
    return keras.Model([ids, mask], hidden, name=name)


def build_encoder(config, stack):
    """Draws part three: embedded [B, S, D] and mask bool [B, S] -> context [B, C, D] and its mask bool [B, C].

    Of packed rows it is given the segments int32 [B, S] as well.
    """
    embedded = draw_vectors("embedded", config.source_length, config.d_model)
    source_mask = keras.Input((config.source_length,), dtype="bool", name="mask")
    segments = keras.Input((config.source_length,), dtype="int32", name="segments") if config.packed else None
    context, context_mask = stack(embedded, source_mask, segments), source_mask
    if config.context == "vector":
        context = ContextVector(name="context_vector")(context, source_mask)
        context_mask = ops.ones_like(source_mask[:, :1])
    inputs = [embedded, source_mask] + ([segments] if config.packed else [])
    return keras.Model(inputs, [context, context_mask], name="encoder")


def build_decoder(config, stack):
    """Draws part four: embedded [B, T, D], mask bool [B, T], context [B, C, D], its mask bool [B, C] -> [B, T, D].

    Of packed rows it is given the segments of both sides as well, int32 [B, T] and [B, S].
    """
    embedded = draw_vectors("embedded", config.target_length, config.d_model)
    mask = keras.Input((config.target_length,), dtype="bool", name="mask")
    context = draw_vectors("context", config.context_length, config.d_model)
    context_mask = keras.Input((config.context_length,), dtype="bool", name="context_mask")
    inputs, segments, seen = [embedded, mask, context, context_mask], None, context_mask[:, None, None, :]
    if config.packed:
        segments = keras.Input((config.target_length,), dtype="int32", name="segments")
        source_segments = keras.Input((config.source_length,), dtype="int32", name="source_segments")
        seen = SegmentMask(name="context_segments")(segments, source_segments)  # [B, 1, T, S]
        inputs += [segments, source_segments]
    hidden, _ = stack(embedded, mask, stack.read_context(context), seen, segments)
    return keras.Model(inputs, hidden, name="decoder")


def build_output_embedding(config, input_embedding):
    """Draws part five: hidden [B, T, D] -> logits [B, T, V]."""
    name = "output" if config.output_scale else "output_embedding"
    if config.embeddings == "all":
        output = TiedOutput(input_embedding.get_layer("table"), config.output_bias, name=name)
    else:
        output = keras.layers.Dense(
            config.said_vocabulary_size,
            use_bias=config.output_bias,
            kernel_regularizer=keras.regularizers.L2(config.output_l2) if config.output_l2 else None,
            name=name,
        )
    if not config.output_scale:
        return output
    hidden = draw_vectors("hidden", None, config.d_model)
    scaled = keras.layers.Rescaling(config.d_model**-0.5, name="scale")(hidden)
    return keras.Model(hidden, output(scaled), name="output_embedding")


def draw_batch(config):
    """Draws the inputs of the model: the features of a batch (contracts.py)."""
    lengths = {SOURCE_IDS: config.source_length, DECODER_IDS: config.target_length}
    if config.packed:
        lengths |= dict.fromkeys((SOURCE_SEGMENTS, SOURCE_POSITIONS), config.source_length)
        lengths |= dict.fromkeys((DECODER_SEGMENTS, DECODER_POSITIONS), config.target_length)
    return {name: keras.Input((length,), dtype="int32", name=name) for name, length in lengths.items()}


def draw_vectors(name, *shape):
    """Draws an input for vectors: like what a layer puts out, in the compute dtype and not in float32."""
    return keras.Input(shape, dtype=keras.config.dtype_policy().compute_dtype, name=name)
