"""The blocks of the transformer (Vaswani et al. 2017). How blocks become an encoder and a decoder: stacks.py.

Glossary: B batch, S source length, T target length, C context length, D width, G key/value heads, K head size, N rows
in decoding, k new tokens of a decoding step.
"""

from tf_llm.model.layers import Attend, CacheWrite, FeedForward, KeysValues
from tf_llm.model.stacks import ContextAttention, Residual


class SelfAttention:
    """The layers by which the tokens of one side look at each other."""

    def __init__(self, config, name):
        self.residual = Residual(config, f"{name}_attention")
        self.keys_values = KeysValues(config.key_value_heads, config.head_size, name=f"{name}_keys_values")
        self.attend = Attend(
            config.num_heads,
            config.head_size,
            config.attention_scale,
            config.attention_dropout,
            name=f"{name}_attention",
        )


class PositionwiseFeedForward:
    """The feed-forward layer within its residual: hidden [N, k, D] -> [N, k, D]."""

    def __init__(self, config, name):
        self.residual = Residual(config, f"{name}_feed_forward")
        self.feed_forward = FeedForward(
            config.d_ff,
            config.activation,
            config.feed_forward_bias,
            config.feed_forward_dropout,
            name=f"{name}_feed_forward",
        )

    def __call__(self, hidden, keep_mask):
        return self.residual(hidden, keep_mask, self.feed_forward)


class EncoderBlock:
    """Self-attention, then a feed-forward layer: hidden [B, S, D] -> [B, S, D]."""

    def __init__(self, config, name):
        self.attention = SelfAttention(config, name)
        self.feed_forward = PositionwiseFeedForward(config, name)

    def __call__(self, hidden, keep_mask, seen):
        def attend(normed):
            return self.attention.attend(normed, *self.attention.keys_values(normed, seen["rotation"]), **seen)

        hidden = self.attention.residual(hidden, keep_mask, attend)
        return self.feed_forward(hidden, keep_mask)


class DecoderBlock:
    """Self-attention to what was said so far, attention to the context, then a feed-forward layer.

    Its cache holds the keys and values of the tokens before `position`, and room for all T.
    """

    def __init__(self, config, name):
        self.attention = SelfAttention(config, name)
        self.cache_write = CacheWrite(name=f"{name}_cache_write")
        self.context_attention = ContextAttention(config, name)
        self.feed_forward = PositionwiseFeedForward(config, name)
        shape = (config.target_length, config.key_value_heads, config.head_size)
        self.cache_shapes = {"keys": shape, "values": shape}

    def __call__(self, hidden, keep_mask, seen, context, cache, position):
        written = {}

        def attend(normed):
            keys, values = self.attention.keys_values(normed, seen["rotation"])  # [N, k, G, K] each
            if cache:
                keys = written["keys"] = self.cache_write(cache["keys"], keys, position=position)  # [N, T, G, K]
                values = written["values"] = self.cache_write(cache["values"], values, position=position)
            return self.attention.attend(normed, keys, values, **seen)

        hidden = self.attention.residual(hidden, keep_mask, attend)
        hidden = self.context_attention(hidden, keep_mask, context)
        return self.feed_forward(hidden, keep_mask), written
