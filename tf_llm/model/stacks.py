"""What every encoder and decoder here has in common, whatever its blocks are made of.

A stack is not a Keras layer. It holds layers, and called on Keras tensors it draws them into whichever graph is being
built: the model for training, the start or one step of decoding. All of these graphs share the weights.

What a kind of block has to offer:

    encoder block   block(hidden, keep_mask, seen) -> hidden
    decoder block   block(hidden, keep_mask, seen, context, cache, position) -> hidden, cache
                    block.context_attention      a `ContextAttention`
                    block.cache_shapes           {name: shape behind N} of what it remembers of earlier tokens

`seen` says which positions may be looked at and how: the arguments `attention_mask`, `bias` and `rotation` of `Attend`,
and `segments`, int32 [B, T], which tokens may be mixed with their neighbours, or None for all. Blocks without
self-attention ignore it.

Glossary: B batch, S source length, T target length, C context length (1 for a vector, S for a sequence), D width,
G key/value heads, K head size, N rows in decoding, k new tokens of a decoding step, W beams of a row.
"""

import keras

from tf_llm.model.dropout import Dropout
from tf_llm.model.layers import Attend, KeysValues
from tf_llm.model.masks import CausalMask, LineageMask, SegmentMask
from tf_llm.model.norms import build_norm


class Residual:
    """Adds what a part computes to what came in. A norm stands before the part, or behind the sum.

    Args:
        config: a `ModelConfig`.
        name: what the names of its layers begin with.
    """

    def __init__(self, config, name):
        self.norm = build_norm(config, f"{name}_norm")
        self.dropout = Dropout(config.residual_dropout, name=f"{name}_dropout")
        self.norm_first = config.norm_place == "first"

    def __call__(self, hidden, keep_mask, part):
        if self.norm_first:
            return hidden + self.dropout(part(self.norm(hidden, keep_mask)))
        return self.norm(hidden + self.dropout(part(hidden)), keep_mask)


class ContextAttention:
    """Attention to what the encoder made of the source.

    The context may be a single vector. Attention to one vector is the same linear map of it at every position,
    whatever the queries and keys are; their weights then get gradients of zero.
    """

    def __init__(self, config, name):
        self.residual = Residual(config, f"{name}_context")
        self.keys_values = KeysValues(config.key_value_heads, config.head_size, name=f"{name}_context_keys_values")
        self.attend = Attend(
            config.num_heads,
            config.head_size,
            config.attention_scale,
            config.attention_dropout,
            name=f"{name}_context_attention",
        )

    def __call__(self, hidden, keep_mask, context):
        """Draws it: hidden [N, k, D], context (keys [N, G, C, K], values [N, G, C, K], mask bool, broadcast to
        [N, H, k, C]) -> [N, k, D]."""
        return self.residual(hidden, keep_mask, lambda normed: self.attend(normed, *context))


class Stack:
    """Blocks one behind the other, and the norm behind the last where each block begins with one.

    Args:
        config: a `ModelConfig`.
        blocks: built blocks.
        positions: a `Positions`.
        name: "encoder" or "decoder".
    """

    def __init__(self, config, blocks, positions, name):
        self.config, self.blocks, self.positions, self.name = config, blocks, positions, name
        self.norm = build_norm(config, f"{name}_norm") if config.norm_place == "first" else None
        self.dropout = Dropout(config.output_dropout, name=f"{name}_dropout")

    def see(self, hidden, attention_mask, position, segments):
        """`seen`, for queries that stand at `position` and behind it."""
        return {
            "segments": segments,
            "attention_mask": attention_mask,
            "bias": self.positions.bias(self.name, hidden, position),
            "rotation": self.positions.rotation(hidden, position),
        }

    def finish(self, hidden, keep_mask):
        """The norm and the dropout behind the last block."""
        return self.dropout(self.norm(hidden, keep_mask) if self.norm else hidden)


class Encoder(Stack):
    """hidden [B, S, D], keep_mask bool [B, S], segments int32 [B, S] of packed rows or None -> [B, S, D]."""

    def __call__(self, hidden, keep_mask, segments=None):
        if segments is None:
            mask, segments = keep_mask[:, None, None, :], keras.ops.cast(keep_mask, "int32")
        else:
            mask = SegmentMask(name="segment_mask")(segments, segments)
        seen = self.see(hidden, mask, 0, segments)
        for block in self.blocks:
            hidden = block(hidden, keep_mask, seen)
        return self.finish(hidden, keep_mask)


class Decoder(Stack):
    """What training and cached decoding share."""

    def read_context(self, context):
        """What each block looks up in the context [N, C, D]: {"context_keys_i", "context_values_i"} [N, G, C, K]."""
        read = {}
        for i, block in enumerate(self.blocks):
            read[f"context_keys_{i}"], read[f"context_values_{i}"] = block.context_attention.keys_values(context)
        return read

    @property
    def context_shapes(self):
        """{name: shape behind N} of what `read_context` returns."""
        shape = (self.config.key_value_heads, self.config.context_length, self.config.head_size)
        return {f"context_{part}_{i}": shape for i in range(len(self.blocks)) for part in ("keys", "values")}

    @property
    def cache_shapes(self):
        """{name: shape behind N} of the cache: what each block keeps of earlier tokens; zeros before the first."""
        return {
            f"{name}_{i}": shape for i, block in enumerate(self.blocks) for name, shape in block.cache_shapes.items()
        }

    @property
    def cache_is_by_position(self):
        """Whether the cache is keys and values alone, a place for each token: beams can share one (`see_beams`)."""
        return all(set(block.cache_shapes) == {"keys", "values"} for block in self.blocks)

    def see_beams(self, hidden, position, lineage):
        """`seen` for the last tokens of the W beams of a row, all of which stand at `position`.

        Args:
            hidden: [N, W, D].
            position: int32 [].
            lineage: int32 [N, W, T], see `LineageMask`.
        """
        first, num_beams = hidden[:, :1], hidden.shape[1]  # the position is the same for all
        bias = self.positions.bias(self.name, first, position)  # [1, H, 1, T] or None
        return {
            "segments": None,
            "attention_mask": LineageMask(name="lineage_mask")(lineage, position=position),  # [N, 1, W, T·W]
            "bias": None if bias is None else keras.ops.repeat(bias, num_beams, axis=-1),  # [1, H, 1, T·W]
            "rotation": self.positions.rotation(first, position),  # [2, 1, K/2] or None
        }

    def __call__(self, hidden, keep_mask, read, context_mask, segments=None, cache=None, position=0, lineage=None):
        """Draws the blocks.

        Args:
            hidden: [N, k, D], all T tokens in training.
            keep_mask: bool [N, k].
            read: what `read_context` returns.
            context_mask: bool, broadcast to [N, H, k, C].
            segments: int32 [N, T] of packed rows, or None.
            cache: as `cache_shapes` says, with the tokens before `position`; None in training.
            position: int32 [], where the first of the k tokens stands.
            lineage: int32 [N, k, T] where the k tokens are those of as many beams, all at `position`; or None.

        Returns:
            hidden [N, k, D], and the cache with the new tokens in it, empty in training.
        """
        if lineage is None:
            mask = CausalMask(self.config.target_length, name="causal_mask")(hidden, position=position)  # [1, 1, k, T]
            if segments is not None:
                mask = keras.ops.logical_and(mask, SegmentMask(name="segment_mask")(segments, segments))
            seen, place = self.see(hidden, mask, position, segments), position
        else:
            seen = self.see_beams(hidden, position, lineage)
            place = sum([position] * hidden.shape[1])  # W times the position; Keras takes a product for sparse
        written = {}
        for i, block in enumerate(self.blocks):
            context = (read[f"context_keys_{i}"], read[f"context_values_{i}"], context_mask)
            own = {name: cache[f"{name}_{i}"] for name in block.cache_shapes} if cache else None
            hidden, own = block(hidden, keep_mask, seen, context, own, place)
            written |= {f"{name}_{i}": part for name, part in own.items()}
        return self.finish(hidden, keep_mask), written
